"""
``eventlog erase``: erase content permanently, or only show what that would do.

The document of ``--json``: ``erased`` (sessions, events, payload_bytes, kept_items, is_complete,
forks, keys, keys_left, dry_run).
"""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
from rich.progress import Progress as Bar
from rich.text import Text

from agents_eventlog.adapters.cli import terminal
from agents_eventlog.adapters.conversations import summary, timestamps
from agents_eventlog.adapters.conversations.printable import printable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import timedelta
    from pathlib import Path

    from rich.console import Console

    from agents_eventlog.adapters.conversations.log import ConversationLog
    from agents_eventlog.projections.erasure.eraser import ErasureResult, OnProgress


class Selection(NamedTuple):
    """Content to erase: exactly one of a session, a user, deleted sessions, or items on no branch."""

    session_id: str | None
    user_id: str | None
    deleted: bool
    older_than: timedelta | None
    popped: bool
    reason: str | None
    shred_only: bool


def selection(
    session_id: str | None,
    user_id: str | None,
    *,
    deleted: bool,
    older_than: str | None,
    popped: bool,
    reason: str | None,
    shred_only: bool,
) -> Selection:
    """Return the selected content; exit with USAGE unless exactly one option selects it."""
    chosen = (session_id is not None, user_id is not None, deleted, popped)
    if sum(chosen) != 1:
        terminal.fail(
            terminal.ExitCode.USAGE,
            "choose exactly one of --session, --user, --deleted or --popped",
        )
    if older_than is not None and not deleted:
        terminal.fail(terminal.ExitCode.USAGE, "--older-than requires --deleted")
    if shred_only and popped:
        terminal.fail(terminal.ExitCode.USAGE, "--shred-only cannot be combined with --popped")
    try:
        age = None if older_than is None else timestamps.duration(older_than)
    except ValueError as error:
        terminal.fail(terminal.ExitCode.USAGE, error)
    return Selection(session_id, user_id, deleted, age, popped, reason, shred_only)


def run(
    path: Path, selected: Selection, *, actor: str | None, dry_run: bool, as_json: bool
) -> bool:
    """Erase; return whether the file contains no copies. Raises an EventLogError."""
    with terminal.conversations(path, read_only=dry_run) as log:
        terminal.check_session(log, selected.session_id)
        with terminal.acting(actor):
            return asyncio.run(_erase(log, selected, dry_run=dry_run, as_json=as_json))


async def _erase(
    log: ConversationLog, selected: Selection, *, dry_run: bool, as_json: bool
) -> bool:
    would = await log.erase(**selected._asdict(), dry_run=True)
    if dry_run:
        print_erased(would, dry_run=True, as_json=as_json, shred_only=selected.shred_only)
        return True
    with _progress(would.events, shown=not as_json) as on_progress:
        erased = await log.erase(**selected._asdict(), on_progress=on_progress)
    print_erased(erased, dry_run=False, as_json=as_json, shred_only=selected.shred_only)
    return erased.is_complete


def _amount(erased: ErasureResult) -> str:
    events = summary.counted(erased.events, "event")
    sessions = summary.counted(erased.sessions, "session")
    return f"the content of {events} ({erased.payload_bytes:,} bytes) in {sessions}"


def print_erased(
    erased: ErasureResult, *, dry_run: bool, as_json: bool, shred_only: bool = False
) -> None:
    """Print the result of an erasure."""
    if as_json:
        terminal.print_json({"kind": "erased", **erased._asdict(), "dry_run": dry_run})
        return
    out = terminal.console()
    verbs = ("would shred", "shredded") if shred_only else ("would erase", "erased")
    verb = verbs[0 if dry_run else 1]
    outcome = f"{verb} {_amount(erased)}" if erased.sessions else "nothing to erase"
    out.print(Text(outcome), soft_wrap=True)
    if erased.keys:
        destroyed = "would destroy" if dry_run else "destroyed"
        keys = summary.counted(erased.keys, "key")
        out.print(Text(f"{destroyed} {keys}: no copy of the log can be read with them"))
    if erased.forks:
        names = ", ".join(map(repr, erased.forks))
        shown = f"placeholders take the place of the erased items in the forks {names}"
        out.print(Text(printable(shown)), soft_wrap=True)
    if erased.kept_items == 1:
        out.print(
            Text("1 popped item is kept: its event also contains active items"), soft_wrap=True
        )
    elif erased.kept_items:
        kept = (
            f"{erased.kept_items:,} popped items are kept: their events also contain active items"
        )
        out.print(Text(kept), soft_wrap=True)
    if dry_run and erased.sessions:
        out.print(Text("nothing was erased: pass --yes to erase", style="dim"), soft_wrap=True)
    if erased.keys_left:
        left = summary.counted(erased.keys_left, "key")
        text = f"{left} still to be destroyed: run this command again with EVENTLOG_KEYS"
        out.print(Text(text, style="bold red"), soft_wrap=True)
    elif not erased.is_complete:
        _print_incomplete(out)


def _print_incomplete(out: Console) -> None:
    text = (
        "another process is using the file, which may still contain copies of the erased content: "
        "run this command again later"
    )
    out.print(Text(text, style="bold red"), soft_wrap=True)


@contextmanager
def _progress(events: int, *, shown: bool) -> Iterator[OnProgress | None]:
    """Show a bar on stderr while the block runs, if that is a terminal."""
    err = terminal.console(stderr=True)
    if not (shown and err.is_terminal and events):
        yield None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Bar(
        *columns, console=err, transient=True, redirect_stdout=False, redirect_stderr=False
    ) as bar:
        task = bar.add_task("erasing", total=events)
        yield lambda erased: bar.update(task, completed=erased.events)
