"""Subscriptions: the events of a log, then new ones on commit."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import TypeVar

from agents_eventlog.eventlog.appender import PAGE_EVENTS, last_position
from agents_eventlog.eventlog.errors import ClosedError
from agents_eventlog.eventlog.events import Event
from agents_eventlog.eventlog.reader import Query
from agents_eventlog.eventlog.recorded_event import RecordedEvent
from agents_eventlog.eventlog.storage.notifier import Notifier
from agents_eventlog.eventlog.storage.transaction import RunUnit, Unit

T = TypeVar("T")


async def follow(
    query: RunUnit,
    is_closed: Callable[[], bool],
    notifier: Notifier,
    session_id: str | None,
    branch_id: str | None,
    types: Sequence[str | type[Event]] | None,
    after: int,
    poll_seconds: float | None,
) -> AsyncGenerator[RecordedEvent, None]:
    """
    Yield events after a position, then each new event once it is committed, until the log is closed.

    query: runs a unit that reads.
    notifier: wakes subscribers when this process commits.
    poll_seconds: how often to look for commits of other processes; None if no other process can write.

    The one writing transaction assigns positions, so events become visible in the order of positions.
    """
    with notifier.listen() as heard:
        while not is_closed():
            heard.clear()
            last = await _result(query, is_closed, last_position)
            if last is not None and last > after:
                events = Query(
                    session_id, branch_id, types, after, last, None, None, backward=False
                )
                while page := await _result(
                    query, is_closed, partial(events.page, size=PAGE_EVENTS)
                ):
                    for recorded in page:
                        yield recorded
                    events.seek(page[-1])
                after = last
            elif last is not None:
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
