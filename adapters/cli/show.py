"""
``eventlog show``: a conversation as the model saw it, now or at any point of its past.

Documents of ``--json``, one per line: first ``conversation`` (session_id, branch_id, version, is_deleted,
is_erased, items, turns, beside_version: null or the one to compare with), then ``item`` (number, turn,
position, index, type, occurred_at, item: null if it cannot be read, is_erased, withheld: null, "erased",
"sealed" without keys, or "shredded") in order; with ``--turns`` instead
``turn`` with the fields that ``branches --turns`` has; with ``--diff`` instead ``removed`` and ``added``,
with the fields of ``item``. Items are complete here; the output for people cuts long ones.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import groupby
from typing import TYPE_CHECKING

from rich.text import Text

from agents_eventlog.adapters.cli import layout, terminal
from agents_eventlog.adapters.cli.layout import Column
from agents_eventlog.adapters.conversations import summary, timestamps
from agents_eventlog.adapters.conversations.conversation import (
    Conversation,
    Entry,
    Unreadable,
    changes,
    conversation,
    documents,
    said,
    turns_of,
)
from agents_eventlog.adapters.conversations.printable import printable
from agents_eventlog.eventlog.errors import ConversationError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from rich.console import Console

    from agents_eventlog.adapters.conversations.outline import OutlineTurn
    from agents_eventlog.eventlog.storage.transaction import Transaction
    from agents_eventlog.projections.conversations.as_of import AsOf

SHOWN_CHARACTERS = 2_000
"""Maximum number of characters of an item printed for people."""

WHO_CELLS = 9, 16
"""Minimum and maximum width of the speaker column."""

TURN_COLUMNS = (
    Column("turn", right=True),
    Column("time (UTC)"),
    Column("user", least=16),
    Column("items", right=True, minor=1),
    Column("tools", least=10),
)

_STYLES = {"user": "bold cyan", "assistant": "bold green", "calls": "yellow", "gets": "yellow"}


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

    with terminal.opened(path, read_only=True) as log:
        session = terminal.session_of(log, session_id)

        def unit(
            tx: Transaction,
        ) -> tuple[Conversation, Conversation | None, list[OutlineTurn] | None]:
            shown = conversation(tx, session, branch_id, when)
            if earlier is None:
                return shown, None, turns_of(tx, shown) if turns else None
            before = conversation(tx, session, shown.branch_id, earlier, may_lack=True)
            return shown, before, None

        try:
            shown, before, outlined = log.store.read_sync(unit)
        except ConversationError as error:
            terminal.fail(terminal.ExitCode.USAGE, error)
    if as_json:
        for document in documents(shown, before, outlined):
            terminal.print_json(document)
        return
    out = terminal.console()
    _print_heading(out, shown, before)
    if before is not None:
        _print_difference(out, shown, before)
    elif outlined is not None:
        _print_turns(out, outlined)
    else:
        _print_entries(out, [("", "", entry) for entry in shown.entries])


def point(text: str) -> AsOf:
    """Parse a version or a time; a date means the end of that day."""
    if text.isascii() and text.isdigit():
        return int(text)
    try:
        time = timestamps.typed(text, datetime.now(UTC), end_of_day=True)
    except ValueError as error:
        terminal.fail(terminal.ExitCode.USAGE, f"{error}, or a version")
    is_day = "T" not in text and ":" not in text
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=time - is_day)


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
        spoken = [said_by(entry) for _, _, entry in entries]
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


def said_by(entry: Entry) -> tuple[str, str]:
    """Return the speaker or action of an item of a branch, and its text."""
    if isinstance(entry.item, Unreadable):
        return entry.type, f"({entry.item.why})"
    return said(entry.item)


def cut(text: str) -> str:
    """Return the beginning of a text, and the number of characters omitted."""
    if len(text) <= SHOWN_CHARACTERS:
        return text
    left = len(text) - SHOWN_CHARACTERS
    return f"{text[:SHOWN_CHARACTERS]}… ({left:,} more characters: --json prints all)"


def _print_difference(out: Console, shown: Conversation, before: Conversation) -> None:
    marks = {"removed": ("-", "red"), "added": ("+", "green")}
    marked = [(*marks[kind], entry) for kind, entry in changes(shown, before)]
    _print_entries(out, marked)
    same = len(shown.entries) - sum(mark == "+" for mark, _, _ in marked)
    out.print()
    out.print(Text(f"{summary.counted(same, 'item')} the same", style="dim"))


def words(turn: OutlineTurn) -> Text:
    """Return the first words of a turn of an outline, and how it was removed."""
    withheld = f"({turn['withheld']})" if turn["withheld"] else ""
    text = Text(printable(turn["first_words"] or withheld))
    return text.append(f"  {turn['removed']}", style="red") if turn["removed"] else text


def _print_turns(out: Console, turns: Sequence[OutlineTurn]) -> None:
    rows = [
        [
            Text(str(turn["turn"])),
            Text(timestamps.minute(timestamps.instant(turn["time"]))),
            words(turn),
            Text(f"{turn['items']:,}"),
            Text(printable(", ".join(turn["tools"]))),
        ]
        for turn in turns
    ]
    table = layout.table(TURN_COLUMNS, rows, width=terminal.table_width(out))
    out.print(table, soft_wrap=True)
