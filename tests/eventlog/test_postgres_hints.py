"""Hints on PostgreSQL: subscribers see what other processes append without waiting for their next poll."""

from __future__ import annotations

import asyncio
import os
import threading
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from agents_eventlog.eventlog import EventLog, ItemsAdded
from agents_eventlog.eventlog.storage.postgres import hints
from tests.faults.forks import exit_status, fork
from tests.postgres import raw

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator

    from agents_eventlog.eventlog import RecordedEvent
    from tests.postgres import Server

NEVER = 3600.0
"""A poll so rare that only a hint wakes."""

LISTENERS = "SELECT pid FROM pg_stat_activity WHERE query = 'LISTEN eventlog' AND pid <> 0"


def added(text: str = "x") -> ItemsAdded:
    return ItemsAdded(items=[{"role": "user", "content": text}])


async def take(events: AsyncGenerator[RecordedEvent, None], count: int) -> list[RecordedEvent]:
    async with asyncio.timeout(30):
        return [await anext(events) for _ in range(count)]


@pytest.fixture
def url(server: Server) -> str:
    return server.url()


@pytest.fixture
async def log(url: str) -> AsyncIterator[EventLog]:
    async with EventLog.open(url) as opened:
        yield opened


@pytest.fixture
async def other(log: EventLog, url: str) -> AsyncIterator[EventLog]:
    """Open the same log as another process does: with a store of its own."""
    async with EventLog.open(f"{url}&application_name=other") as opened:
        yield opened


def listeners(url: str) -> list[int]:
    with raw(url) as connection:
        return [pid for (pid,) in connection.execute(LISTENERS)]


async def until(condition: Any) -> None:
    async with asyncio.timeout(30):
        while not await asyncio.to_thread(condition):  # noqa: ASYNC110
            await asyncio.sleep(0.02)


async def test_an_append_of_another_process_wakes_a_subscriber(
    log: EventLog, other: EventLog
) -> None:
    async with aclosing(log.subscribe(poll_seconds=NEVER)) as events:
        for number in range(5):
            await other.append(f"s{number}", added())
            assert [each.session_id for each in await take(events, 1)] == [f"s{number}"]


async def test_appends_that_follow_each_other_closely_are_all_seen(
    log: EventLog, other: EventLog
) -> None:
    async with aclosing(log.subscribe(poll_seconds=NEVER)) as events:
        await other.append("s", added())
        await take(events, 1)
        for _ in range(20):
            await other.append("s", added())
        assert [each.version for each in await take(events, 20)] == [*range(2, 22)]


async def test_a_listener_whose_connection_is_lost_connects_again(
    log: EventLog, other: EventLog, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hints, "RETRY_SECONDS", 0.05)
    async with aclosing(log.subscribe(poll_seconds=NEVER)) as events:
        await other.append("s", added())
        await take(events, 1)
        with raw(url) as connection:
            for pid in listeners(url):
                connection.execute("SELECT pg_terminate_backend(%s)", (pid,))
        await other.append("s", added())
        assert [each.version for each in await take(events, 1)] == [2]


async def test_there_is_a_listener_while_there_are_subscribers(log: EventLog, url: str) -> None:
    before = len(listeners(url))
    await log.append("s", added())
    async with aclosing(log.subscribe()) as first, aclosing(log.subscribe()) as second:
        await take(first, 1)
        await take(second, 1)
        await until(lambda: len(listeners(url)) == before + 1)
        await first.aclose()
        assert len(listeners(url)) == before + 1
    await until(lambda: len(listeners(url)) == before)


async def test_hints_of_other_logs_and_of_this_process_do_not_wake(
    log: EventLog, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[bool] = []
    has_hint = hints._Ear._has_hint

    def noted(ear: Any, connection: Any) -> bool:
        seen.append(has_hint(ear, connection))
        return seen[-1]

    monkeypatch.setattr(hints._Ear, "_has_hint", noted)
    monkeypatch.setattr(hints, "HINT_SECONDS", 0.0)  # or the second append may send none
    async with EventLog.open(server.url()) as elsewhere, aclosing(log.subscribe()) as events:
        await log.append("s", added())
        await take(events, 1)
        await elsewhere.append("s", added())
        await until(lambda: len(seen) >= 1)
    assert not any(seen)


async def test_a_hint_that_the_server_refuses_costs_no_append(
    log: EventLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hints, "CHANNEL", "x" * 100)  # longer than a channel's name may be
    monkeypatch.setattr(hints, "HINT_SECONDS", 0.0)
    for number in range(3):
        assert (await log.append("s", added())).version == number + 1
    assert (await log.verify()).events == 3


async def test_a_server_without_room_for_a_listener_leaves_it_to_polling(
    log: EventLog, other: EventLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused() -> Any:
        raise psycopg.OperationalError("too many connections")

    monkeypatch.setattr(log.store._listener, "_connect", refused)
    async with aclosing(log.subscribe(poll_seconds=0.02)) as events:
        await other.append("s", added())
        await take(events, 1)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
async def test_a_listener_stops_for_a_fork_and_listens_again_in_the_parent(
    log: EventLog, other: EventLog
) -> None:
    def threads() -> list[str]:
        return [each.name for each in threading.enumerate() if each.name.endswith("listener")]

    def in_child() -> None:
        assert threads() == []
        assert log.store.write_sync(lambda tx: tx.one("SELECT 1")) == (1,)

    async with aclosing(log.subscribe(poll_seconds=NEVER)) as events:
        await other.append("s", added())
        await take(events, 1)
        assert len(threads()) == 1
        child = fork(in_child)
        assert await asyncio.to_thread(exit_status, child) == 0
        await other.append("s", added())
        assert [each.version for each in await take(events, 1)] == [2]
