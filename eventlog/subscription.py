"""Subscriptions: the events of a log, then new ones on commit."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Protocol, TypeVar

from agents_eventlog.eventlog.appender import PAGE_EVENTS, read_events
from agents_eventlog.eventlog.cursor import Cursor
from agents_eventlog.eventlog.erased_shapes import ErasedShapes
from agents_eventlog.eventlog.errors import ClosedError
from agents_eventlog.eventlog.events import Event
from agents_eventlog.eventlog.reader import Query, type_names
from agents_eventlog.eventlog.recorded_event import RecordedEvent
from agents_eventlog.eventlog.storage.notifier import Notifier
from agents_eventlog.eventlog.storage.transaction import RunUnit, Transaction, Unit

T = TypeVar("T")


class Source(Protocol):
    """Where a subscription finds its events, page by page."""

    def page(self, tx: Transaction, size: int) -> list[RecordedEvent]:
        """Return the next events, at most ``size``; an empty list if there are no more for now."""

    def seek(self, last: RecordedEvent) -> None:
        """Continue after this event."""

    def matches(self, recorded: RecordedEvent) -> bool:
        """Whether the subscriber wants this event of a page."""


class WholeLog:
    """All events of a log, lane by lane; those that do not match are read once, and left out."""

    def __init__(
        self, cursor: Cursor, branch_id: str | None, types: Sequence[str | type[Event]] | None
    ) -> None:
        self._cursor = cursor
        self._branch_id = branch_id
        self._types = None if types is None else type_names(types)
        self._structures = ErasedShapes()

    def page(self, tx: Transaction, size: int) -> list[RecordedEvent]:
        """Return the next events of all sessions."""
        return read_events(tx, self._cursor, limit=size, structures=self._structures)

    def seek(self, last: RecordedEvent) -> None:
        """Continue after this event, in its lane."""
        self._cursor.advance((last.position,))

    def matches(self, recorded: RecordedEvent) -> bool:
        """Whether the event is of the wanted branch and of a wanted type."""
        return self._branch_id in (None, recorded.branch_id) and (
            self._types is None or recorded.type in self._types
        )


def source(
    session_id: str | None,
    branch_id: str | None,
    types: Sequence[str | type[Event]] | None,
    cursor: Cursor,
) -> Source:
    """Return where the events of a subscription are found."""
    if session_id is None:
        return WholeLog(cursor, branch_id, types)
    after = min(cursor.ends)
    return Query(session_id, branch_id, types, after, None, None, None, backward=False)


async def follow(
    query: RunUnit,
    is_closed: Callable[[], bool],
    notifier: Notifier,
    events: Source,
    poll_seconds: float | None,
) -> AsyncGenerator[RecordedEvent, None]:
    """
    Yield the events of a source, then each new one once it is committed, until the log is closed.

    query: runs a unit that reads.
    notifier: wakes subscribers when this process commits.
    poll_seconds: how often to look for commits of other processes; None if no other process can write.
    """
    with notifier.listen() as heard:
        while not is_closed():
            heard.clear()
            page = await _result(query, is_closed, partial(events.page, size=PAGE_EVENTS))
            for recorded in page or ():
                events.seek(recorded)
                if events.matches(recorded):
                    yield recorded
            if page == []:
                with suppress(TimeoutError):
                    async with asyncio.timeout(poll_seconds):
                        await heard.wait()


async def _result(query: RunUnit, is_closed: Callable[[], bool], unit: Unit[T]) -> T | None:
    """Return a unit's result; None if the log was closed meanwhile."""
    try:
        result: T = await query(unit)
    except ClosedError:
        if is_closed():
            return None
        raise
    return result
