"""Subscriptions: the events so far, then new events as soon as they are committed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from agents_eventlog.eventlog.appender import PAGE_EVENTS, last_position
from agents_eventlog.eventlog.errors import ClosedError
from agents_eventlog.eventlog.events import Event
from agents_eventlog.eventlog.reader import Query
from agents_eventlog.eventlog.recorded_event import Recorded
from agents_eventlog.eventlog.storage.transaction import Unit

if TYPE_CHECKING:
    from agents_eventlog.eventlog.log import EventLog

T = TypeVar("T")


async def follow(
    log: EventLog,
    session_id: str | None,
    branch_id: str | None,
    types: Sequence[str | type[Event]] | None,
    after: int,
    poll_seconds: float,
) -> AsyncGenerator[Recorded, None]:
    """
    Yield events after a position, then new events until the log is closed.

    Positions are assigned inside the one writing transaction, so they become visible in order: a reader
    that has seen one has seen all before it.
    """
    pause = None if log.store.is_memory else poll_seconds  # no other process can append
    with log.store.notifier.listen() as heard:
        while not log.is_closed:
            heard.clear()
            last = await _asked(log, last_position)
            if last is not None and last > after:
                query = Query(session_id, branch_id, types, after, last, None, None, backward=False)
                while page := await _asked(log, partial(query.page, size=PAGE_EVENTS)):
                    for recorded in page:
                        yield recorded
                    query.seek(page[-1])
                after = last
            elif last is not None:
                with suppress(TimeoutError):
                    async with asyncio.timeout(pause):
                        await heard.wait()


async def _asked(log: EventLog, unit: Unit[T]) -> T | None:
    """Return a unit's result; None when the log was closed meanwhile."""
    try:
        return await log.query(unit)
    except ClosedError:
        if log.is_closed:
            return None
        raise
