"""Leases: a session has one holder at a time, and a dead one loses it."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from agents_eventlog import ConversationLog
from agents_eventlog.adapters.conversations import exclusive
from agents_eventlog.eventlog import EventLog, leases
from agents_eventlog.eventlog.errors import SessionBusyError, StoreError
from agents_eventlog.projections.conversations.builder import Conversations
from agents_eventlog.projections.replay import replay
from agents_eventlog.projections.usage.builder import Usage
from tests.faults.children import actors
from tests.faults.processes import all_at_once, children
from tests.faults.support import batch, check_sound, texts, user

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from agents_eventlog import AdvancedSQLiteSession

    Opened = Callable[..., AdvancedSQLiteSession]


def test_two_processes_that_race_for_a_lease_a_thousand_times_never_both_hold_it(
    path: Path,
) -> None:
    assert all_at_once(2, actors.hold_in_turn, str(path), 500) == [0, 0]
    check_sound(path)


async def test_tasks_hold_a_session_one_after_the_other(opened: Opened) -> None:
    order: list[str] = []

    async def hold(name: str, session: AdvancedSQLiteSession) -> None:
        async with session.exclusive():
            order.append(name)
            await asyncio.sleep(0.01)
            order.append(name)

    one, other = opened(), opened()
    await asyncio.gather(hold("a", one), hold("b", other), hold("c", one), hold("d", other))
    assert sorted(order[::2]) == ["a", "b", "c", "d"]
    assert order[::2] == order[1::2]


async def test_who_waits_too_long_learns_who_holds_the_session_and_since_when(
    opened: Opened,
) -> None:
    async with opened().exclusive():
        with pytest.raises(SessionBusyError) as caught:
            await opened().exclusive(wait_seconds=0.05).__aenter__()
        await opened("another").exclusive(wait_seconds=0).__aenter__()
    assert f"process {os.getpid()} on " in str(caught.value.holder)
    assert caught.value.since is not None
    assert datetime.now(UTC) - caught.value.since < timedelta(minutes=1)


async def test_a_lease_is_held_longer_than_its_duration_while_its_holder_lives(
    opened: Opened,
) -> None:
    async with opened().exclusive(lease_seconds=2):
        with pytest.raises(SessionBusyError):
            await opened().exclusive(wait_seconds=3).__aenter__()


async def test_the_lease_of_a_killed_process_is_taken_over(path: Path, opened: Opened) -> None:
    with children(1, actors.hold_until_killed, str(path), 1.0) as [child]:
        assert child.hear() == "held"
        child.kill()
    started = time.monotonic()
    async with opened().exclusive(wait_seconds=20):
        assert time.monotonic() - started < 10


async def test_the_lease_of_a_dead_holder_ends_although_the_clock_was_set_back(
    path: Path, opened: Opened
) -> None:
    session = opened()
    store = session.log.store
    store.clock = lambda: time.time_ns() // 1000 + 3_600_000_000
    await session.log.write(lambda tx: leases.take(tx, "s", "the dead", 200_000))
    store.clock = lambda: time.time_ns() // 1000
    with pytest.raises(SessionBusyError):
        await session.exclusive(wait_seconds=0, lease_seconds=0.2).__aenter__()
    async with session.exclusive(wait_seconds=5, lease_seconds=0.2):
        pass


async def test_a_stopped_process_that_lost_its_lease_writes_nothing(
    path: Path, opened: Opened
) -> None:
    with children(1, actors.hold_and_add, str(path), 0.5) as [child]:
        assert child.hear() == "held"
        assert child.process.pid is not None
        os.kill(child.process.pid, signal.SIGSTOP)
        session = opened()
        async with session.exclusive(wait_seconds=20):
            await session.add_items([user("mine")])
            os.kill(child.process.pid, signal.SIGCONT)
            assert child.ask("add") == "SessionBusyError"
    assert texts(await session.get_items()) == ["mine"]


@pytest.mark.parametrize(
    "write",
    [
        lambda session: session.add_items(batch("late")),
        lambda session: session.pop_item(),
        lambda session: session.clear_session(),
        lambda session: session.create_branch("late"),
        lambda session: session.switch_to_branch("b"),
        lambda session: session.delete_branch("b"),
        lambda session: session.set_metadata({"plan": "pro"}),
        lambda session: session.update_metadata({"plan": "pro"}),
        lambda session: session.delete_session(),
        lambda session: session.restore_session(),
    ],
)
async def test_a_lost_lease_refuses_every_change_of_the_conversation(
    opened: Opened, write: Callable[[AdvancedSQLiteSession], asyncio.Future[None]]
) -> None:
    session = opened()
    await session.add_items([user("first")])
    await session.create_branch("b")
    await session.switch_to_branch("main")
    async with session.exclusive(lease_seconds=1000):
        log = session.log
        await log.write(lambda tx: leases.take(tx, "s", "a thief", 1_000_000))
        version = await log.version("s")
        with pytest.raises(SessionBusyError, match="a thief"):
            await write(session)
        assert await log.version("s") == version
    with pytest.raises(SessionBusyError, match="a thief"):  # the end released only its own
        await session.exclusive(wait_seconds=0).__aenter__()


async def test_a_cancelled_wait_holds_nothing(opened: Opened) -> None:
    for pause in range(20):
        waiting = asyncio.create_task(opened().exclusive(wait_seconds=5).__aenter__())
        await asyncio.sleep(pause / 4000)
        if not waiting.cancel():
            break
        with pytest.raises(asyncio.CancelledError):
            await waiting
        async with opened().exclusive(wait_seconds=1):
            pass


async def test_a_lease_survives_replay_and_goes_with_an_erased_session(
    path: Path, opened: Opened
) -> None:
    session = opened()
    await session.add_items([user("first")])
    async with session.exclusive():
        await asyncio.to_thread(replay, session.log, (Conversations(), Usage()))
        with pytest.raises(SessionBusyError):
            await opened().exclusive(wait_seconds=0).__aenter__()
    assert await session.log.query(lambda tx: leases.current(tx, "s")) is not None
    async with ConversationLog.open(path) as log:
        await log.delete_session("s")
        await log.erase(session_id="s")
        assert await log.query(lambda tx: leases.current(tx, "s")) is None


async def test_a_failed_renewal_is_tried_again(
    opened: Opened, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    renew, failures = leases.renew, []

    def fails_once(*arguments: object) -> bool:
        if not failures:
            failures.append(1)
            raise StoreError("the disk failed")
        return renew(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(exclusive.leases, "renew", fails_once)
    with caplog.at_level(logging.WARNING, "eventlog.session"):
        async with opened().exclusive(lease_seconds=2):
            with pytest.raises(SessionBusyError):
                await opened().exclusive(wait_seconds=2.5).__aenter__()
    assert "not renewed" in caplog.text


async def test_closing_the_session_within_leaves_a_lease_that_expires(
    path: Path, opened: Opened, caplog: pytest.LogCaptureFixture
) -> None:
    session = opened()
    with caplog.at_level(logging.WARNING, "eventlog.session"):
        async with session.exclusive(lease_seconds=0.3):
            session.close()
    assert "not released" in caplog.text
    async with opened().exclusive(wait_seconds=5):
        pass


@pytest.mark.parametrize("options", [{"wait_seconds": -1}, {"lease_seconds": 0}])
async def test_impossible_durations_are_refused(opened: Opened, options: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"invalid \w+_seconds: expected"):
        await opened().exclusive(**options).__aenter__()


async def test_a_log_whose_leases_were_never_used_lists_none(path: Path) -> None:
    async with EventLog.open(path) as log:
        assert await log.query(leases.held) == []
        await log.write(lambda tx: leases.take(tx, "s", "me", 60_000_000))
        await log.write(lambda tx: leases.take(tx, "t", "me", 0))
        assert [each.session_id for each in await log.query(leases.held)] == ["s"]
