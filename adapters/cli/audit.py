"""
``eventlog audit``: the audit trail, with actors and later removals.

Documents of ``--json``, one per line: ``event`` (position, session_id, version, branch_id, type,
occurred_at, recorded_at, actor, trace_id, account, state: "whole",
"erased", "sealed", "shredded" or "unreadable", data: the
event's complete content or null, popped: the complete item that a pop removed or null, items: account,
gone: null or "popped", "undone", "replaced", "deleted", "cleared", "erased", gone_at: position or null),
then ``finding`` for each mismatch or unreadable event (position, problem), and ``integrity``
(ok, session_id: null for the whole log, events, first_bad_position, head: position, digest). Events
of ``--follow`` come after that. With ``--session`` only that session's events are verified.
"""

from __future__ import annotations

import asyncio
import sys
from contextlib import aclosing
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING

from rich.text import Text

from agents_eventlog.adapters.cli import terminal
from agents_eventlog.adapters.conversations import (
    audit_trail,
    event_descriptions,
    summary,
    timestamps,
    verification,
)
from agents_eventlog.adapters.conversations.audit_trail import Filters, Histories
from agents_eventlog.adapters.conversations.printable import printable
from agents_eventlog.eventlog.errors import BranchNotFoundError, ConversationError, EventLogError
from agents_eventlog.eventlog.events import EVENT_TYPES, BranchCreated, ItemPopped
from agents_eventlog.projections.conversations.builder import MAIN

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

    from rich.console import Console

    from agents_eventlog.adapters.conversations.audit_trail import Entry
    from agents_eventlog.adapters.conversations.event_descriptions import EventDescription, ItemTold
    from agents_eventlog.eventlog import EventLog, Verification
    from agents_eventlog.eventlog.recorded_event import RecordedEvent

BATCH_EVENTS = 200
"""Number of events printed at once."""


def run(
    path: Path,
    *,
    session_id: str | None,
    branch_id: str | None,
    since: str | None,
    until: str | None,
    types: Sequence[str],
    actor: str | None,
    limit: int | None,
    follow: bool,
    full: bool,
    by_event: bool,
    with_traces: bool,
    as_json: bool,
) -> bool:
    """Print the timeline; return whether the log verifies. Raises an EventLogError."""
    if unknown := [name for name in types if name not in EVENT_TYPES]:
        known = ", ".join(EVENT_TYPES)
        terminal.fail(
            terminal.ExitCode.USAGE, f"unknown event type {unknown[0]!r}; expected one of: {known}"
        )
    try:
        start, end = timestamps.typed_period(since, until, now=datetime.now(UTC))
    except ValueError as error:
        terminal.fail(terminal.ExitCode.USAGE, error)
    view = _View(
        terminal.console(),
        as_json=as_json,
        full=full,
        by_event=by_event,
        with_traces=with_traces,
        shows_session=session_id is None,
    )
    with terminal.opened(path, read_only=True) as log:
        if not follow:  # with --follow, it may still be created
            session_id = terminal.session_of(log, session_id)
        filters = Filters(session_id, branch_id, start, end, types, actor, limit)
        try:
            if not follow:
                asyncio.run(_require(log, filters))
        except ConversationError as error:
            terminal.fail(terminal.ExitCode.USAGE, error)
        return asyncio.run(_audit(log, filters, view, follow=follow))


async def _require(log: EventLog, filters: Filters) -> None:
    """Raise ConversationError if the branch of the filters never existed."""
    session_id, branch_id = filters.session_id, filters.branch_id
    if branch_id is None or branch_id == MAIN:
        return
    try:
        async for _ in log.read(session_id, branch_id=branch_id, limit=1):
            return
        async for created in log.read(session_id, types=[BranchCreated]):
            if branch_id in audit_trail.branches_of(created):
                return
    except EventLogError:
        return  # the timeline reports the unreadable event
    raise BranchNotFoundError(branch_id)


async def _audit(log: EventLog, filters: Filters, view: _View, *, follow: bool) -> bool:
    histories = Histories()
    head = (await log.head()).position
    problem: str | None = None
    try:
        chosen = await _newest(log, filters, head)
        sessions = _sessions(filters, chosen, follow=follow)
        for session_id in sessions:
            async for recorded in log.read(session_id, until=head):
                histories.follow(recorded)
        timeline = log.read(filters.session_id, until=head) if chosen is None else _each(chosen)
        async for recorded in timeline:
            if chosen is not None or filters.fits(recorded):
                await _show(log, recorded, histories, view)
    except EventLogError as error:
        problem = str(error)
    view.flush()
    session_id = filters.session_id
    verified = await (log.verify() if session_id is None else log.verify_session(session_id))
    view.integrity(verified, problem, session_id)
    if follow and problem is None:
        async with aclosing(log.subscribe(filters.session_id, after=head)) as events:
            async for recorded in events:
                histories.follow(recorded)
                if filters.fits(recorded):
                    await _show(log, recorded, histories, view)
                    view.flush()
    return verified.ok and problem is None


async def _newest(log: EventLog, filters: Filters, head: int) -> list[RecordedEvent] | None:
    """Return the newest matching events, in order; None without a limit."""
    if filters.limit is None:
        return None
    found: list[RecordedEvent] = []
    if filters.limit > 0:
        async for recorded in log.read(filters.session_id, until=head, backward=True):
            if filters.fits(recorded):
                found.append(recorded)
                if len(found) == filters.limit:
                    break
    return found[::-1]


def _sessions(
    filters: Filters, chosen: list[RecordedEvent] | None, *, follow: bool
) -> Sequence[str | None]:
    """Return the sessions whose whole histories are needed; [None] for all."""
    if filters.session_id is not None:
        return [filters.session_id]
    if chosen is None or follow:
        return [None]
    return list(dict.fromkeys(recorded.session_id for recorded in chosen))


async def _each(events: Sequence[RecordedEvent]) -> AsyncIterator[RecordedEvent]:
    for recorded in events:
        yield recorded


async def _show(log: EventLog, recorded: RecordedEvent, histories: Histories, view: _View) -> None:
    paths = histories.paths[recorded.session_id]
    popped = None
    if recorded.type == ItemPopped.type_name():
        unit = partial(audit_trail.popped_item, recorded=recorded, redacted=histories.redacted)
        popped = await log.query(unit)
    recorded = histories.redacted.covered(recorded)
    view.add(audit_trail.entry(recorded, paths, popped, full=view.full))


class _View:
    """Prints events: in batches for people, or as one document per line."""

    def __init__(
        self,
        out: Console,
        *,
        as_json: bool,
        full: bool,
        by_event: bool,
        with_traces: bool,
        shows_session: bool,
    ) -> None:
        self.full = full
        self._by_event = by_event
        self._with_traces = with_traces
        self._out = out
        self._as_json = as_json
        self._shows_session = shows_session
        self._waiting: list[Entry] = []
        self._day: str | None = None

    def add(self, entry: Entry) -> None:
        """Print an event, or queue it for the next batch."""
        if self._as_json:
            terminal.print_json(audit_trail.document(entry))
            return
        day = timestamps.day(entry.recorded.happened_at)
        if day != self._day or len(self._waiting) >= BATCH_EVENTS:
            self.flush()
        if day != self._day:
            self._out.print(Text(f"{day} UTC", style="bold"))
        self._day = day
        self._waiting.append(entry)

    def flush(self) -> None:
        """Print the queued events."""
        if self._waiting:
            self._print_lines()
            self._waiting.clear()
        sys.stdout.flush()

    def integrity(
        self, verified: Verification, problem: str | None, session_id: str | None
    ) -> None:
        """Print the result of the verification, and the verified head."""
        if self._as_json:
            for finding in verified.findings:
                terminal.print_json({"kind": "finding", **finding._asdict()})
            if problem is not None:
                terminal.print_json({"kind": "finding", "position": None, "problem": problem})
            ok = verified.ok and problem is None
            document = {"ok": ok, "session_id": session_id, **verification.chain(verified)}
            terminal.print_json({"kind": "integrity", **document})
            return
        if problem is not None:
            line = f"the timeline stops here: {problem}"
            self._out.print(Text(printable(line), style="bold red"), soft_wrap=True)
        if verified.ok:
            what = "chain" if session_id is None else "session"
            text = f"{what} verified up to {verified.head}"
            self._out.print(Text(text, style="green"), soft_wrap=True)
        else:
            first = verified.findings[0]
            what = (
                "" if first.position is None else f"the chain is broken: event {first.position}: "
            )
            text = f"{what}{first.problem}"
            self._out.print(Text(printable(text), style="bold red"), soft_wrap=True)

    def _print_lines(self) -> None:
        """Print the queue in columns, the last one folded. A rich table takes nearly twice as long."""
        groups = [[each] for each in self._waiting] if self._by_event else _by_turn(self._waiting)
        names = [_positions(group) for group in groups]
        width = max(6, *map(len, names))
        rows = []
        for name, group in zip(names, groups, strict=True):
            recorded, described, _ = group[0]
            row = Text().append(f"{name:>{width}}  ", style="dim")
            row.append(f"{timestamps.clock(recorded.happened_at)}  ")
            if self._shows_session:
                row.append_text(_column(recorded.session_id, 14))
            row.append_text(_column(recorded.branch_id or "", 12, style="cyan"))
            words = line(described, full=self.full) if len(group) == 1 else _turn(group)
            words.append_text(bound(recorded, with_trace=self._with_traces))
            rows.append(terminal.folded(self._out, row, words))
        self._out.print(Text("\n").join(rows), soft_wrap=True)


def _by_turn(events: Sequence[Entry]) -> list[list[Entry]]:
    """Group events that follow each other: the question of a turn, its other items, and its usage."""
    groups: list[list[Entry]] = []
    for entry in events:
        if groups and _continues(entry, groups[-1][0].recorded):
            groups[-1].append(entry)
        else:
            groups.append([entry])
    return groups


def _continues(entry: Entry, first: RecordedEvent) -> bool:
    """Return whether an event belongs to the turn that the first event of a group opened."""
    recorded, described, _ = entry
    is_part = recorded.type in {"items_added", "usage_recorded"} and first.type == "items_added"
    of_first, mine = (
        (each.session_id, each.branch_id, event_descriptions.bound(each, "actor"))
        for each in (first, recorded)
    )
    opens = any(item.account.startswith("user: ") for item in described.items)
    return is_part and of_first == mine and not opens


def _positions(group: Sequence[Entry]) -> str:
    first, last = group[0].recorded.position, group[-1].recorded.position
    return f"{first}" if first == last else f"{first}-{last}"


def _turn(group: Sequence[Entry]) -> Text:
    """Return a turn in words: its first and last item, the number of those between, and its usage."""
    items = [item for _, described, _ in group for item in described.items]
    words = Text()
    for item in dict.fromkeys([0, len(items) - 1]):
        if item and (between := items[1:-1]):
            words.append(f"; {summary.counted(len(between), 'item')} more")
            if gone := sum(each.gone is not None for each in between):
                words.append(f" ({gone:,} no longer in any branch)", style="red")
        words.append("; " if item else "").append_text(_item(items[item], full=False))
    for recorded, described, _ in group:
        if recorded.type == "usage_recorded" or described.state != "whole":
            style = "" if described.state == "whole" else "bold red"
            words.append(f"; {printable(described.account)}", style=style)
    return words


def _column(text: str, width: int, style: str = "") -> Text:
    """Return a text cut or padded to a width, plus two spaces."""
    column = Text(printable(text), style=style)
    column.truncate(width, overflow="ellipsis", pad=True)
    return column.append("  ")


def line(described: EventDescription, *, full: bool = False) -> Text:
    """Return an event's description, with later removals of its items."""
    words = Text(
        printable(described.account, lines=full),
        style="" if described.state == "whole" else "bold red",
    )
    shown = described.items[: None if full else event_descriptions.TOLD_ITEMS]
    for number, item in enumerate(shown):
        words.append((" " if described.account == "added" else ": ") if number == 0 else "; ")
        words.append_text(_item(item, full=full))
    if left := len(described.items) - len(shown):
        words.append(f"; and {left:,} more")
        if gone := sum(item.gone is not None for item in described.items[len(shown) :]):
            words.append(f" ({gone:,} no longer in any branch)", style="red")
    return words


def _item(item: ItemTold, *, full: bool) -> Text:
    words = Text(printable(item.account, lines=full))
    if item.gone is not None:
        words.append(f" ({item.gone.how} at {item.gone.position})", style="red")
    return words


def bound(recorded: RecordedEvent, *, with_trace: bool) -> Text:
    """Return the actor of an event, and its trace id if it is wanted."""
    words = Text()
    for name, label in (("actor", "by"), ("trace_id", "trace")):
        value = event_descriptions.bound(recorded, name)
        if value is not None and (with_trace or name == "actor"):
            words.append(f"  {label} {printable(summary.shortened(value))}", style="dim")
    return words
