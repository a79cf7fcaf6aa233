"""
``eventlog show``: a conversation as the model saw it, now or at any point of its past.

Documents of ``--json``, one per line: first ``conversation`` (session_id, branch_id, version, is_deleted,
is_erased, items, turns, beside_version: null or the one to compare with), then ``item`` (number, turn,
position, index, type, occurred_at, item: null if it cannot be read, is_erased, withheld: null, "erased",
"sealed" without keys, or "shredded") in order; with ``--turns`` instead
``turn`` (turn, occurred_at, user, items, tools); with ``--diff`` instead ``removed`` and ``added``, with
the fields of ``item``. Items are complete here; the output for people cuts long ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from itertools import groupby
from typing import TYPE_CHECKING, Any, NamedTuple

from rich import box
from rich.table import Table
from rich.text import Text

from agents_eventlog.adapters.cli import terminal
from agents_eventlog.adapters.conversations import summary, timestamps
from agents_eventlog.adapters.conversations.printable import printable
from agents_eventlog.eventlog import item_kind
from agents_eventlog.eventlog.appender import session_version
from agents_eventlog.eventlog.errors import (
    BranchNotFoundError,
    ConversationError,
    StaleProjectionError,
)
from agents_eventlog.projections import Projections
from agents_eventlog.projections.conversations import as_of as past
from agents_eventlog.projections.conversations import builder as conversations
from agents_eventlog.projections.conversations import queries as conversation_queries
from agents_eventlog.projections.conversations.builder import MAIN

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from rich.console import Console

    from agents_eventlog.eventlog.cipher.envelope import Withheld
    from agents_eventlog.eventlog.events import JSON, ItemRef
    from agents_eventlog.eventlog.storage.transaction import Transaction
    from agents_eventlog.projections.conversations.as_of import AsOf

SHOWN_CHARACTERS = 2_000
"""Maximum number of characters of an item printed for people."""


WHO_CELLS = 9, 16
"""Minimum and maximum width of the speaker column."""

_STYLES = {"user": "bold cyan", "assistant": "bold green", "calls": "yellow", "gets": "yellow"}


class Unreadable(NamedTuple):
    """Replaces an item whose content cannot be read."""

    why: Withheld


class Entry(NamedTuple):
    """An item of a branch: its number, turn, reference and content."""

    number: int
    turn: int
    ref: ItemRef
    type: str
    tool_name: str | None
    occurred_at: int
    item: JSON

    def document(self, kind: str) -> dict[str, JSON]:
        """Return the entry for programs."""
        return {
            "kind": kind,
            "number": self.number,
            "turn": self.turn,
            "position": self.ref.position,
            "index": self.ref.index,
            "type": self.type,
            "occurred_at": timestamps.iso(self.occurred_at),
            "item": None if isinstance(self.item, Unreadable) else self.item,
            "is_erased": self.item == Unreadable("erased"),
            "withheld": self.item.why if isinstance(self.item, Unreadable) else None,
        }


class Conversation(NamedTuple):
    """A branch at a version of its session."""

    session_id: str
    branch_id: str
    version: int
    is_deleted: bool
    is_erased: bool
    entries: list[Entry]

    def document(self) -> dict[str, JSON]:
        """Return the header for programs."""
        return {
            "kind": "conversation",
            "session_id": self.session_id,
            "branch_id": self.branch_id,
            "version": self.version,
            "is_deleted": self.is_deleted,
            "is_erased": self.is_erased,
            "items": len(self.entries),
            "turns": self.entries[-1].turn if self.entries else 0,
        }


def run(
    path: Path,
    session_id: str,
    *,
    branch_id: str | None,
    turns: bool,
    as_of: str | None,
    diff: str | None,
    as_json: bool,
) -> None:
    """Print a conversation. Raises an EventLogError."""
    if turns and diff is not None:
        terminal.fail(terminal.ExitCode.USAGE, "--turns and --diff cannot be combined")
    when = None if as_of is None else point(as_of)
    earlier = None if diff is None else point(diff)

    def unit(tx: Transaction) -> tuple[Conversation, Conversation | None]:
        terminal.require_session(tx, session_id)
        shown = conversation(tx, session_id, branch_id, when)
        if earlier is None:
            return shown, None
        return shown, conversation(tx, session_id, shown.branch_id, earlier, may_lack=True)

    with terminal.opened(path, read_only=True) as log:
        try:
            shown, before = log.store.read_sync(unit)
        except ConversationError as error:
            terminal.fail(terminal.ExitCode.USAGE, error)
    if as_json:
        beside = None if before is None else before.version
        terminal.print_json({**shown.document(), "beside_version": beside})
        _print_json(shown, before, turns=turns)
        return
    out = terminal.console()
    _print_heading(out, shown, before)
    if before is not None:
        _print_difference(out, shown, before)
    elif turns:
        _print_turns(out, shown)
    else:
        _print_entries(out, [("", "", entry) for entry in shown.entries])


def point(text: str) -> AsOf:
    """Parse a version or a time; a date means the end of that day."""
    if text.isascii() and text.isdigit():
        return int(text)
    try:
        time = timestamps.instant(text, end_of_day=True)
    except ValueError as error:
        terminal.fail(terminal.ExitCode.USAGE, f"{error}, or a version")
    is_day = "T" not in text and ":" not in text
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=time - is_day)


def conversation(
    tx: Transaction,
    session_id: str,
    branch_id: str | None,
    as_of: AsOf | None,
    *,
    may_lack: bool = False,
) -> Conversation:
    """
    Return a branch at a point of the past, by default the session's current branch.

    Raises:
        VersionNotFoundError: The session never had this version.
        BranchNotFoundError: The branch does not exist, and ``may_lack`` is false.
    """
    now = session_version(tx, session_id)
    version = past.version_at(tx, session_id, now if as_of is None else as_of)
    is_live = version == now and _is_fresh(tx)
    with nullcontext(tx) if is_live else past.session_as_of(tx, session_id, version) as then:
        session = conversation_queries.place(then, session_id, MAIN)
        name = session.last_branch_id if branch_id is None else branch_id
        place = conversation_queries.place(then, session_id, name)
        is_missing = not place.branch_exists and name != MAIN and not place.is_deleted
        if is_missing and not may_lack:
            raise BranchNotFoundError(name)
        refs = conversation_queries.refs(then, place.pointer)
        times = conversation_queries.times(then, session_id)
        rows = zip(
            refs,
            conversation_queries.structure(then, place.pointer),
            conversation_queries.items(
                then, place.pointer, session_id=session_id, instead=Unreadable
            ),
            strict=True,
        )
        entries = [
            Entry(number, turn, ref, kind, tool, times[ref.position], item)
            for number, (ref, (turn, kind, tool), item) in enumerate(rows, 1)
        ]
        row = conversations.session(then, session_id)
        is_erased = row is not None and row.erased_at is not None
    return Conversation(session_id, name, version, session.is_deleted, is_erased, entries)


def _is_fresh(tx: Transaction) -> bool:
    """Return whether the tables are up to date with the log."""
    try:
        Projections(conversations.Conversations()).require_fresh(tx)
    except StaleProjectionError:
        return False
    return True


# -- for programs -------------------------------------------------------------------------------


def _print_json(shown: Conversation, before: Conversation | None, *, turns: bool) -> None:
    if before is not None:
        for kind, entry in _changes(shown, before):
            terminal.print_json(entry.document(kind))
    elif turns:
        for number, entries in _by_turn(shown.entries):
            terminal.print_json(
                {
                    "kind": "turn",
                    "turn": number,
                    "occurred_at": timestamps.iso(entries[0].occurred_at),
                    "user": entries[0].document("item")["item"]
                    if entries[0].type == item_kind.USER
                    else None,
                    "items": len(entries),
                    "tools": _tools(entries),
                }
            )
    else:
        for entry in shown.entries:
            terminal.print_json(entry.document("item"))


def _changes(shown: Conversation, before: Conversation) -> list[tuple[str, Entry]]:
    now = {entry.ref for entry in shown.entries}
    then = {entry.ref for entry in before.entries}
    return [
        *(("removed", entry) for entry in before.entries if entry.ref not in now),
        *(("added", entry) for entry in shown.entries if entry.ref not in then),
    ]


def _by_turn(entries: Iterable[Entry]) -> list[tuple[int, list[Entry]]]:
    return [(turn, list(group)) for turn, group in groupby(entries, key=lambda each: each.turn)]


def _tools(entries: Iterable[Entry]) -> list[str]:
    names = (e.tool_name for e in entries if e.tool_name and not e.type.endswith("_output"))
    return list(dict.fromkeys(names))


# -- for people ---------------------------------------------------------------------------------


def _print_heading(out: Console, shown: Conversation, before: Conversation | None) -> None:
    heading = Text(printable(shown.session_id), style="bold")
    turns = shown.entries[-1].turn if shown.entries else 0
    size = f"{summary.counted(turns, 'turn')}, {summary.counted(len(shown.entries), 'item')}"
    heading.append(f"  {printable(shown.branch_id)}", style="not bold cyan")
    heading.append(f"  version {shown.version}", style="not bold")
    if before is not None:
        heading.append(f" beside version {before.version}", style="not bold")
    heading.append(f"  {size}", style="not bold dim")
    if shown.is_erased:
        heading.append("  the session was erased", style="not bold red")
    elif shown.is_deleted:
        heading.append("  the session was deleted; --as-of shows its past", style="not bold red")
    out.print(heading)


def _print_entries(out: Console, marked: Sequence[tuple[str, str, Entry]]) -> None:
    """Print marked entries, turn by turn. A rich table takes ten times as long."""
    for turn, group in groupby(marked, key=lambda each: each[2].turn):
        entries = list(group)
        time = timestamps.minute(entries[0][2].occurred_at)
        out.print()
        out.print(Text(f"turn {turn}  {time}", style="dim"))
        numbers = len(str(max(entry.number for _, _, entry in entries)))
        spoken = [_said(entry) for _, _, entry in entries]
        speakers = [
            Text(printable(summary.shortened(who)), style=_STYLES.get(who, "dim"))
            for who, _ in spoken
        ]
        least, most = WHO_CELLS
        width = min(most, max(least, *(speaker.cell_len for speaker in speakers)))
        rows = []
        for (mark, style, entry), speaker, (_, text) in zip(entries, speakers, spoken, strict=True):
            speaker.truncate(width, overflow="ellipsis", pad=True)
            row = Text().append(mark, style=style)
            row.append(f"  {entry.number:>{numbers}}  ", style="dim")
            row.append_text(speaker).append("  ")
            content = Text(printable(cut(text), lines=True), style=style)
            rows.append(terminal.folded(out, row, content))
        out.print(Text("\n").join(rows), soft_wrap=True)


def _said(entry: Entry) -> tuple[str, str]:
    if isinstance(entry.item, Unreadable):
        return entry.type, f"({entry.item.why})"
    return said(entry.item)


def said(item: JSON) -> tuple[str, str]:
    """Return the speaker or action of an item, and its text."""
    if not isinstance(item, Mapping):
        return "?", summary.json_or_text(item)
    kind = item.get("type")
    if kind == "function_call":
        return "calls", summary.call(item)
    if kind == "function_call_output":
        return "gets", summary.output(item)
    role: Any = item.get("role")
    text = summary.content(item)
    if isinstance(role, str) and text:
        return role, text
    return str(role or kind or "?"), summary.json_or_text(dict(item))


def cut(text: str) -> str:
    """Return the beginning of a text, and the number of characters omitted."""
    if len(text) <= SHOWN_CHARACTERS:
        return text
    left = len(text) - SHOWN_CHARACTERS
    return f"{text[:SHOWN_CHARACTERS]}… ({left:,} more characters: --json prints all)"


def _print_difference(out: Console, shown: Conversation, before: Conversation) -> None:
    marks = {"removed": ("-", "red"), "added": ("+", "green")}
    changes = [(*marks[kind], entry) for kind, entry in _changes(shown, before)]
    _print_entries(out, changes)
    same = len(shown.entries) - sum(mark == "+" for mark, _, _ in changes)
    out.print()
    out.print(Text(f"{summary.counted(same, 'item')} the same", style="dim"))


def _print_turns(out: Console, shown: Conversation) -> None:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="dim")
    for title, justify in (("turn", "right"), ("time (UTC)", "left")):
        table.add_column(title, justify="right" if justify == "right" else "left", no_wrap=True)
    table.add_column("user", overflow="fold")
    table.add_column("items", justify="right", no_wrap=True)
    table.add_column("tools", overflow="fold")
    for turn, entries in _by_turn(shown.entries):
        opening = _said(entries[0])[1] if entries[0].type == item_kind.USER else ""
        table.add_row(
            str(turn),
            timestamps.minute(entries[0].occurred_at),
            Text(printable(summary.shortened(opening))),
            f"{len(entries):,}",
            Text(printable(", ".join(_tools(entries)))),
        )
    out.print(table)
