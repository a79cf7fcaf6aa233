"""
``eventlog audit``: what happened, when, by whom, and what became of it.

Documents of ``--json``, one a line: ``event`` (position, session_id, version, branch_id, type,
occurred_at, recorded_at, actor, trace_id, account, state: "whole", "erased" or "unreadable", items:
account, gone: null or "popped", "replaced", "deleted", "cleared", gone_at: position or null), then
``finding`` where the log is not as recorded or cannot be read on (position, problem), and ``integrity``
(ok, session_id: null for the whole log, events, first_bad_position, head: position, digest). What is
followed comes after that. With ``--session`` only that session's events are verified.
"""

from __future__ import annotations

import asyncio
import sys
from contextlib import aclosing
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from rich.text import Text

from agents_eventlog.adapters.cli import terminal
from agents_eventlog.adapters.cli.terminal import printable
from agents_eventlog.adapters.cli.verify import chain_document
from agents_eventlog.adapters.conversations import event_descriptions, summary, timestamps
from agents_eventlog.adapters.conversations.item_history import ItemHistory
from agents_eventlog.eventlog.errors import BranchNotFoundError, ConversationError, EventLogError
from agents_eventlog.eventlog.events import EVENT_TYPES, BranchCreated, ItemPopped
from agents_eventlog.projections.conversations import queries as conversation_queries
from agents_eventlog.projections.conversations.builder import MAIN

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

    from rich.console import Console

    from agents_eventlog.adapters.conversations.event_descriptions import EventDescription
    from agents_eventlog.eventlog import EventLog, Verified
    from agents_eventlog.eventlog.events import JSON
    from agents_eventlog.eventlog.recorded_event import Recorded

BATCH_EVENTS = 200
"""So many events are printed at once."""


class Asked(NamedTuple):
    """Which events are asked for; times in microseconds since 1970 UTC, ``until`` exclusive."""

    session_id: str | None = None
    branch_id: str | None = None
    since: int | None = None
    until: int | None = None
    types: Sequence[str] = ()
    actor: str | None = None
    limit: int | None = None

    def fits(self, recorded: Recorded) -> bool:
        """Whether an event is asked for."""
        if self.session_id is not None and recorded.session_id != self.session_id:
            return False
        if self.types and recorded.type not in self.types:
            return False
        time = happened_at(recorded)
        if self.since is not None and time < self.since:
            return False
        if self.until is not None and time >= self.until:
            return False
        if self.actor is not None and _bound(recorded, "actor") != self.actor:
            return False
        return self.branch_id is None or self.branch_id in _branches(recorded)


def happened_at(recorded: Recorded) -> int:
    """Return when an event happened; when it was recorded, if its metadata cannot be read."""
    try:
        return recorded.occurred_at
    except (ValueError, RecursionError):
        return recorded.recorded_at


def _bound(recorded: Recorded, name: str) -> str | None:
    try:
        value = recorded.metadata.get(name)
    except (ValueError, RecursionError, AttributeError):
        return None
    return value if isinstance(value, str | None) else summary.json_or_text(value)


def _branches(recorded: Recorded) -> set[str | None]:
    """Return the branches that an event happened on or names."""
    try:
        event = recorded.event
    except ValueError:
        event = None
    names = {recorded.branch_id}
    return names | {getattr(event, name, None) for name in ("branch_id", "from_branch_id")}


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
    as_json: bool,
) -> bool:
    """Print the timeline; return whether the log is as recorded. Raises an EventLogError."""
    if unknown := [name for name in types if name not in EVENT_TYPES]:
        known = ", ".join(EVENT_TYPES)
        terminal.fail(terminal.ExitCode.USAGE, f"there is no type {unknown[0]!r}, only {known}")
    try:
        start, end = timestamps.typed_period(since, until)
    except ValueError as error:
        terminal.fail(terminal.ExitCode.USAGE, error)
    asked = Asked(session_id, branch_id, start, end, types, actor, limit)
    view = _View(terminal.console(), as_json=as_json, shows_session=session_id is None)
    with terminal.opened(path, read_only=True) as log:
        try:
            if not follow:  # else they may come yet
                asyncio.run(_require(log, asked))
        except ConversationError as error:
            terminal.fail(terminal.ExitCode.USAGE, error)
        return asyncio.run(_audit(log, asked, view, follow=follow))


async def _require(log: EventLog, asked: Asked) -> None:
    """Raise ConversationError when the session or the branch that is asked for never was."""
    session_id, branch_id = asked.session_id, asked.branch_id
    if session_id is not None:
        await log.query(partial(terminal.require_session, session_id=session_id))
    if branch_id is None or branch_id == MAIN:
        return
    try:
        async for _ in log.read(session_id, branch_id=branch_id, limit=1):
            return
        async for created in log.read(session_id, types=[BranchCreated]):
            if branch_id in _branches(created):
                return
    except EventLogError:
        return  # the timeline tells what cannot be read
    raise BranchNotFoundError(branch_id)


async def _audit(log: EventLog, asked: Asked, view: _View, *, follow: bool) -> bool:
    history = ItemHistory()
    head = (await log.head()).position
    problem: str | None = None
    try:
        chosen = await _newest(log, asked, head)
        sessions = _sessions(asked, chosen, follow=follow)
        for session_id in sessions:
            async for recorded in log.read(session_id, until=head):
                history.follow(recorded)
        timeline = log.read(asked.session_id, until=head) if chosen is None else _each(chosen)
        async for recorded in timeline:
            if chosen is not None or asked.fits(recorded):
                view.add(recorded, await _told(log, recorded, history))
    except EventLogError as error:
        problem = str(error)
    view.flush()
    session_id = asked.session_id
    verified = await (log.verify() if session_id is None else log.verify_session(session_id))
    view.integrity(verified, problem, session_id)
    if follow and problem is None:
        async with aclosing(log.subscribe(asked.session_id, after=head)) as events:
            async for recorded in events:
                history.follow(recorded)
                if asked.fits(recorded):
                    view.add(recorded, await _told(log, recorded, history))
                    view.flush()
    return verified.ok and problem is None


async def _newest(log: EventLog, asked: Asked, head: int) -> list[Recorded] | None:
    """Return the newest events that are asked for, in order; None when all of them are."""
    if asked.limit is None:
        return None
    found: list[Recorded] = []
    if asked.limit > 0:
        async for recorded in log.read(asked.session_id, until=head, backward=True):
            if asked.fits(recorded):
                found.append(recorded)
                if len(found) == asked.limit:
                    break
    return found[::-1]


def _sessions(asked: Asked, chosen: list[Recorded] | None, *, follow: bool) -> Sequence[str | None]:
    """Return the sessions whose whole histories are needed; [None] for all."""
    if asked.session_id is not None:
        return [asked.session_id]
    if chosen is None or follow:
        return [None]
    return list(dict.fromkeys(recorded.session_id for recorded in chosen))


async def _each(events: Sequence[Recorded]) -> AsyncIterator[Recorded]:
    for recorded in events:
        yield recorded


async def _told(log: EventLog, recorded: Recorded, history: ItemHistory) -> EventDescription:
    popped = None
    try:
        if isinstance(recorded.event, ItemPopped):
            popped = await log.query(partial(conversation_queries.item, ref=recorded.event.item))
    except (EventLogError, IndexError):
        popped = None  # erased, or not to be read
    return event_descriptions.describe_event(recorded, history.facts, history.gone, popped)


class _View:
    """Prints events, so many at once for people, or one document a line."""

    def __init__(self, out: Console, *, as_json: bool, shows_session: bool) -> None:
        self._out = out
        self._as_json = as_json
        self._shows_session = shows_session
        self._waiting: list[tuple[Recorded, EventDescription]] = []
        self._day: str | None = None

    def add(self, recorded: Recorded, told: EventDescription) -> None:
        """Print an event, now or with those that follow."""
        if self._as_json:
            terminal.print_json(_document(recorded, told))
            return
        day = timestamps.day(happened_at(recorded))
        if day != self._day or len(self._waiting) >= BATCH_EVENTS:
            self.flush()
        if day != self._day:
            self._out.print(Text(f"{day} UTC", style="bold"))
        self._day = day
        self._waiting.append((recorded, told))

    def flush(self) -> None:
        """Print what waits."""
        if self._waiting:
            self._print_lines()
            self._waiting.clear()
        sys.stdout.flush()

    def integrity(self, verified: Verified, problem: str | None, session_id: str | None) -> None:
        """Say in one line whether the log, or the session, is as recorded, up to where."""
        if self._as_json:
            for finding in verified.findings:
                terminal.print_json({"kind": "finding", **finding._asdict()})
            if problem is not None:
                terminal.print_json({"kind": "finding", "position": None, "problem": problem})
            ok = verified.ok and problem is None
            document = {"ok": ok, "session_id": session_id, **chain_document(verified)}
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
        """Print what waits in columns, the last folded. A table of rich's takes nearly twice as long."""
        width = max(6, len(str(self._waiting[-1][0].position)))
        rows = []
        for recorded, told in self._waiting:
            row = Text().append(f"{recorded.position:>{width}}  ", style="dim")
            row.append(f"{timestamps.clock(happened_at(recorded))}  ")
            if self._shows_session:
                row.append_text(_column(recorded.session_id, 14))
            row.append_text(_column(recorded.branch_id or "", 12, style="cyan"))
            rows.append(terminal.folded(self._out, row, line(recorded, told)))
        self._out.print(Text("\n").join(rows), soft_wrap=True)


def _column(text: str, width: int, style: str = "") -> Text:
    """Return a text cut or filled to a width, with two spaces after it."""
    column = Text(printable(text), style=style)
    column.truncate(width, overflow="ellipsis", pad=True)
    return column.append("  ")


def line(recorded: Recorded, told: EventDescription) -> Text:
    """Return an event in words, with what became of its items, by whom it was done and in which trace."""
    words = Text(printable(told.account), style="" if told.state == "whole" else "bold red")
    shown = told.items[: event_descriptions.TOLD_ITEMS]
    for number, item in enumerate(shown):
        words.append((" " if told.account == "added" else ": ") if number == 0 else "; ")
        words.append(printable(item.account))
        if item.gone is not None:
            words.append(f" ({item.gone.how} at {item.gone.position})", style="red")
    if left := len(told.items) - len(shown):
        words.append(f"; and {left:,} more")
        if gone := sum(item.gone is not None for item in told.items[len(shown) :]):
            words.append(f" ({gone:,} no longer in any branch)", style="red")
    for name, label in (("actor", "by"), ("trace_id", "trace")):
        if (value := _bound(recorded, name)) is not None:
            words.append(f"  {label} {printable(summary.shortened(value))}", style="dim")
    return words


def _document(recorded: Recorded, told: EventDescription) -> dict[str, JSON]:
    return {
        "kind": "event",
        "position": recorded.position,
        "session_id": recorded.session_id,
        "version": recorded.version,
        "branch_id": recorded.branch_id,
        "type": recorded.type,
        "occurred_at": timestamps.iso(happened_at(recorded)),
        "recorded_at": timestamps.iso(recorded.recorded_at),
        "actor": _bound(recorded, "actor"),
        "trace_id": _bound(recorded, "trace_id"),
        "account": told.account,
        "state": told.state,
        "items": [
            {
                "account": item.account,
                "gone": None if item.gone is None else item.gone.how,
                "gone_at": None if item.gone is None else item.gone.position,
            }
            for item in told.items
        ],
    }
