"""Following a log: what there is, then what comes, in order, each once."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import threading
import time
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import pytest

from agents_eventlog.eventlog import EventLog, ItemsAdded, SessionCleared
from agents_eventlog.eventlog.errors import ClosedError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

    from agents_eventlog.eventlog import RecordedEvent

NEVER = 3600.0
"""A poll so rare that only what wakes at once is noticed."""

WRITER = """
import asyncio, sys
from agents_eventlog.eventlog import EventLog, ItemsAdded

async def main(path, session_id, count):
    async with EventLog.open(path, durability="normal") as log:
        for number in range(count):
            await log.append(session_id, ItemsAdded(items=[number]))

asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
"""


def added(number: int) -> ItemsAdded:
    return ItemsAdded(items=[number])


def writer(path: Path, session_id: str, count: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", WRITER, str(path), session_id, str(count)])


async def take(events: AsyncGenerator[RecordedEvent, None], count: int) -> list[RecordedEvent]:
    async with asyncio.timeout(30):
        return [await anext(events) for _ in range(count)]


async def positions(events: AsyncGenerator[RecordedEvent, None], count: int) -> list[int]:
    return [recorded.position for recorded in await take(events, count)]


async def test_events_of_other_types_and_branches_are_left_out(log: EventLog) -> None:
    await log.append("s", [added(0), SessionCleared()], branch_id="x")
    await log.append("t", [added(1), SessionCleared()])
    async with aclosing(log.subscribe(types=[SessionCleared], poll_seconds=NEVER)) as events:
        assert await positions(events, 2) == [2, 4]
    async with aclosing(log.subscribe(branch_id="x", poll_seconds=NEVER)) as events:
        assert await positions(events, 2) == [1, 2]


async def test_what_there_is_comes_first_and_then_what_is_appended(log: EventLog) -> None:
    await log.append("s", [added(0), added(1)])
    async with aclosing(log.subscribe(poll_seconds=NEVER)) as events:
        assert await positions(events, 2) == [1, 2]
        coming = asyncio.create_task(take(events, 1))
        await asyncio.sleep(0.05)
        assert not coming.done()
        await log.append("s", added(2))
        (third,) = await coming
    assert (third.position, third.event) == (3, added(2))


async def test_following_begins_behind_the_position_that_is_given(log: EventLog) -> None:
    await log.append("s", [added(number) for number in range(5)])
    async with aclosing(log.subscribe(after=3, poll_seconds=NEVER)) as events:
        assert await positions(events, 2) == [4, 5]


async def test_only_what_was_asked_for_comes_also_live(log: EventLog) -> None:
    asked = log.subscribe("a", branch_id="x", types=[ItemsAdded], poll_seconds=NEVER)
    async with aclosing(asked) as events:
        for _ in range(2):
            await log.append("a", added(0), branch_id="x")
            await log.append("a", added(0), branch_id="y")
            await log.append("b", added(0), branch_id="x")
            await log.append("a", SessionCleared(), branch_id="x")
            (recorded,) = await take(events, 1)
            assert (recorded.session_id, recorded.branch_id) == ("a", "x")
            assert recorded.type == "items_added"


async def test_more_events_than_a_page_come_in_order(log: EventLog) -> None:
    await log.append("s", [added(number) for number in range(2_500)])
    async with aclosing(log.subscribe(poll_seconds=NEVER)) as events:
        assert await positions(events, 2_500) == list(range(1, 2_501))


async def test_nothing_is_lost_or_told_twice_while_tasks_and_processes_write(path: Path) -> None:
    async with EventLog.open(path, durability="normal") as log:
        process = writer(path, "other", 200)

        async def write(session_id: str) -> None:
            for number in range(100):
                await log.append(session_id, added(number))

        events = log.subscribe(poll_seconds=0.02)
        async with aclosing(events):
            writing = asyncio.gather(write("a"), write("b"))
            seen = await take(events, 400)
            await writing
        assert process.wait(30) == 0
        assert [recorded.position for recorded in seen] == list(range(1, 401))
        for session_id in ("a", "b", "other"):
            versions = [r.version for r in seen if r.session_id == session_id]
            assert versions == list(range(1, len(versions) + 1))


@pytest.mark.parametrize("read_only", [False, True])
async def test_what_another_process_appends_is_noticed(path: Path, read_only: bool) -> None:
    async with EventLog.open(path, durability="normal") as first:
        await first.append("s", added(0))
    async with EventLog.open(path, read_only=read_only) as log:
        async with aclosing(log.subscribe(after=1, poll_seconds=0.02)) as events:
            coming = asyncio.create_task(positions(events, 3))
            process = writer(path, "other", 3)
            assert await coming == [2, 3, 4]
        assert await asyncio.to_thread(process.wait, 30) == 0


async def test_every_subscriber_gets_every_event(log: EventLog) -> None:
    subscriptions = [log.subscribe(poll_seconds=NEVER) for _ in range(5)]
    coming = [asyncio.create_task(positions(events, 20)) for events in subscriptions]
    for number in range(20):
        await log.append("s", added(number))
    assert await asyncio.gather(*coming) == [list(range(1, 21))] * 5
    for events in subscriptions:
        await events.aclose()


async def test_a_slow_reader_loses_nothing(log: EventLog) -> None:
    async with aclosing(log.subscribe(poll_seconds=NEVER)) as events:
        seen = []
        for number in range(10):
            await log.append("s", [added(number), added(number)])
            seen += await positions(events, 1)
        seen += await positions(events, 10)
    assert seen == list(range(1, 21))


async def test_two_event_loops_may_follow_one_log(log: EventLog) -> None:
    seen: list[int] = []

    async def elsewhere() -> None:
        async with aclosing(log.subscribe(poll_seconds=NEVER)) as events:
            seen.extend(await positions(events, 3))

    thread = threading.Thread(target=lambda: asyncio.run(elsewhere()))
    thread.start()
    async with aclosing(log.subscribe(poll_seconds=NEVER)) as events:
        for number in range(3):
            await log.append("s", added(number))
        assert await positions(events, 3) == [1, 2, 3]
    await asyncio.to_thread(thread.join, 30)
    assert seen == [1, 2, 3]


async def test_a_loop_that_was_closed_while_following_disturbs_nobody(log: EventLog) -> None:
    left: list[Any] = []

    def abandon() -> None:
        loop = asyncio.new_event_loop()
        events = log.subscribe(poll_seconds=NEVER)
        left.append(events)
        waiting = loop.create_task(anext(events))
        loop.run_until_complete(asyncio.sleep(0.05))
        waiting.cancel()
        loop.run_until_complete(asyncio.gather(waiting, return_exceptions=True))
        second = log.subscribe(poll_seconds=NEVER)
        left.append((second, loop.run_until_complete(asyncio.wait_for(_first(second), 5))))
        loop.close()

    await log.append("s", added(0))
    await asyncio.to_thread(abandon)
    await log.append("s", added(1))
    assert (await log.head()).position == 2
    left.clear()
    gc.collect()


async def _first(events: AsyncGenerator[RecordedEvent, None]) -> int:
    return (await anext(events)).position


async def test_following_ends_when_the_log_is_closed(path: Path) -> None:
    log = await EventLog.open(path, durability="normal")
    other = await EventLog.open(path)  # keeps the shared store open
    await log.append("s", added(0))

    async def everything() -> list[int]:
        return [recorded.position async for recorded in log.subscribe(poll_seconds=NEVER)]

    following = asyncio.create_task(everything())
    await asyncio.sleep(0.05)
    await asyncio.to_thread(log.close)
    async with asyncio.timeout(5):
        assert await following == [1]
    await asyncio.to_thread(other.close)


async def test_another_user_who_closes_ends_nobody_elses_following(path: Path) -> None:
    async with (
        EventLog.open(path, durability="normal") as log,
        aclosing(log.subscribe(poll_seconds=NEVER)) as events,
    ):
        coming = asyncio.create_task(positions(events, 1))
        async with EventLog.open(path) as other:
            await asyncio.sleep(0.02)
        assert other.is_closed
        await log.append("s", added(0))
        assert await coming == [1]


async def test_a_closed_log_cannot_be_followed(path: Path) -> None:
    log = await EventLog.open(path)
    log.close()
    with pytest.raises(ClosedError):
        log.subscribe()


async def test_a_poll_without_a_pause_is_refused(log: EventLog) -> None:
    for seconds in (0, -1, float("nan")):
        with pytest.raises(ValueError, match="poll_seconds"):
            log.subscribe(poll_seconds=seconds)


async def test_a_cancelled_follower_stops_and_is_forgotten(log: EventLog) -> None:
    async def forever() -> None:
        async with aclosing(log.subscribe(poll_seconds=NEVER)) as events:
            async for _ in events:
                pass

    await log.append("s", added(0))
    following = asyncio.create_task(forever())
    await asyncio.sleep(0.05)
    assert len(log.store.notifier._heard) == 1
    following.cancel()
    with pytest.raises(asyncio.CancelledError):
        await following
    assert not log.store.notifier._heard
    assert (await log.append("s", added(1))).position == 2


async def test_a_log_in_memory_can_be_followed() -> None:
    async with EventLog.open(":memory:") as log, aclosing(log.subscribe()) as events:
        coming = asyncio.create_task(positions(events, 2))
        await asyncio.sleep(0.02)
        await log.append("s", added(0))
        await log.append("s", added(1))
        assert await coming == [1, 2]


@pytest.mark.parametrize("where", [":memory:", "log.db"])
async def test_waiting_costs_no_time(where: str, tmp_path: Path) -> None:
    path = where if where == ":memory:" else str(tmp_path / where)
    async with EventLog.open(path, durability="normal") as log, aclosing(log.subscribe()) as events:
        coming = asyncio.create_task(positions(events, 1))
        await asyncio.sleep(0.1)
        used = time.process_time()
        await asyncio.sleep(1.0)
        used = time.process_time() - used
        await log.append("s", added(0))
        assert await coming == [1]
    assert used < 0.3  # a busy loop takes all of the second


async def test_a_log_that_is_closed_between_two_looks_ends_the_following(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = await EventLog.open(path, durability="normal")
    query = log.query

    async def closed_first(unit: Any) -> Any:
        await asyncio.to_thread(log.close)
        return await query(unit)

    monkeypatch.setattr(log, "query", closed_first)
    assert [recorded async for recorded in log.subscribe(poll_seconds=NEVER)] == []


async def test_a_store_that_closes_under_an_open_log_is_told_to_who_follows(path: Path) -> None:
    log = await EventLog.open(path, durability="normal")
    log.store.close()  # as at the end of the program
    with pytest.raises(ClosedError):
        await anext(log.subscribe(poll_seconds=NEVER))
    log.close()
