"""
``eventlog copy``: move a log to another file or engine while programs append to it.

Documents of ``--json``: ``copied`` (source, target: paths, sessions, events, copied: the number of events
copied now, source_head, target_head: position, digest), or ``refused`` (problem, sessions: those in which
the target has other events).
"""

from __future__ import annotations

import asyncio
import signal
from contextlib import closing, suppress
from typing import TYPE_CHECKING

from rich.text import Text

from agents_eventlog import projections
from agents_eventlog.adapters.cli import terminal
from agents_eventlog.adapters.cli.export_import import bar
from agents_eventlog.adapters.cli.terminal import ExitCode
from agents_eventlog.adapters.conversations.printable import printable
from agents_eventlog.adapters.conversations.summary import counted
from agents_eventlog.eventlog.copying import Copied, CopyProgress, copy_log
from agents_eventlog.eventlog.errors import CopyError
from agents_eventlog.eventlog.log import EventLog
from agents_eventlog.eventlog.storage.engines import engine_for
from agents_eventlog.projections.erasure import eraser

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from agents_eventlog.eventlog.events import JSON
    from agents_eventlog.eventlog.integrity import Head


def run(source: Path, target: Path, *, follow: bool, as_json: bool) -> bool:
    """Copy a log, and build its projections; return False if the target was refused."""
    if engine_for(source).resolve(source) == engine_for(target).resolve(target):
        terminal.fail(ExitCode.USAGE, f"{target} is the log itself")
    with terminal.opened(source, read_only=True) as log:
        wanted = log.store.read_sync(projections.kept)
        with terminal.explain_foreign_file(target):
            copy = EventLog.open_sync(target, seal=False)
        with closing(copy):
            try:
                with bar("copying", shown=not as_json) as show:
                    copied = asyncio.run(_copy(log, copy, follow=follow, show=show))
            except CopyError as error:
                print_refusal(error, as_json=as_json)
                return False
            copy.join(wanted)
            eraser.finish(copy)
            _print(copied, log.path, copy.path, as_json=as_json)
    return True


async def _copy(
    source: EventLog, target: EventLog, *, follow: bool, show: Callable[[int, int], None] | None
) -> Copied:
    """Copy, and follow until the program is interrupted; then finish what is there."""
    is_following = follow

    def stop() -> None:
        nonlocal is_following
        is_following = False

    def on_progress(progress: CopyProgress) -> None:
        if show is not None:
            show(progress.events, progress.total)

    if follow:
        with suppress(
            NotImplementedError
        ):  # on Windows; there it ends at once, and can continue later
            for number in (signal.SIGINT, signal.SIGTERM):
                asyncio.get_running_loop().add_signal_handler(number, stop)
    return await copy_log(source, target, follow=lambda: is_following, on_progress=on_progress)


def print_refusal(error: CopyError, *, as_json: bool) -> None:
    """Print why a log was not copied."""
    if as_json:
        sessions: JSON = list(error.sessions)
        terminal.print_json({"kind": "refused", "problem": str(error), "sessions": sessions})
    else:
        line = Text.assemble(("refused: ", "bold red"), printable(str(error)))
        terminal.console(stderr=True).print(line, soft_wrap=True)


def _print(copied: Copied, source: str, target: str, *, as_json: bool) -> None:
    if as_json:
        terminal.print_json(
            {
                "kind": "copied",
                "source": source,
                "target": target,
                "sessions": copied.sessions,
                "events": copied.events,
                "copied": copied.copied,
                "source_head": head_as_json(copied.source),
                "target_head": head_as_json(copied.target),
            }
        )
        return
    out = terminal.console()
    held = f"{counted(copied.sessions, 'session')}, {counted(copied.events, 'event')}"
    line = f"copied {counted(copied.copied, 'event')} to {target}, which has {held}, all as in {source}"
    out.print(Text(printable(line)), soft_wrap=True)
    out.print(Text(f"source head   {copied.source}"), soft_wrap=True)
    out.print(Text(f"target head   {copied.target}"), soft_wrap=True)


def head_as_json(head: Head) -> JSON:
    """Return a head as a document has it."""
    return {"position": head.position, "digest": head.digest.hex()}
