"""A commit that fails fails everything in it, acknowledges nothing, and nothing later."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from agents_eventlog.eventlog.errors import StoreError
from tests.faults.support import (
    batch,
    batches,
    check_log,
    closed_gate,
    ran,
    refusal,
    shown,
    user,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from agents_eventlog import AdvancedSQLiteSession
    from agents_eventlog.eventlog.storage.engine import Store

    Opened = Callable[..., AdvancedSQLiteSession]


@contextmanager
def debt(store: Store) -> Iterator[None]:
    """Break a deferred foreign key in whatever is committed: only COMMIT itself finds out."""

    def arm(connection: sqlite3.Connection) -> None:
        connection.execute("PRAGMA foreign_keys=ON")
        connection.execute("CREATE TEMP TABLE owner (id INTEGER PRIMARY KEY)")
        connection.execute(
            "CREATE TEMP TABLE debt (owner REFERENCES owner (id) DEFERRABLE INITIALLY DEFERRED)"
        )
        connection.execute(
            "CREATE TEMP TRIGGER owe AFTER INSERT ON main.events "
            "BEGIN INSERT INTO debt VALUES (404); END"
        )

    def disarm(connection: sqlite3.Connection) -> None:
        connection.execute("DROP TRIGGER owe")

    store._writer.call(arm)
    yield
    store._writer.call(disarm)


FAILURES = pytest.mark.parametrize("failing_commit", [debt, refusal])


async def furnished(opened: Opened, session_id: str) -> AdvancedSQLiteSession:
    session = opened(session_id)
    await session.add_items([user("one"), user("two")])
    await session.create_branch_from_turn(2, "draft")
    await session.switch_to_branch("main")
    return session


@FAILURES
async def test_a_failed_commit_fails_every_call_in_it(opened: Opened, failing_commit: Any) -> None:
    sessions = [
        await furnished(opened, name) for name in ("adds", "branches", "switches", "clears")
    ]
    adds, branches, switches, clears = sessions
    used = ran()
    store = adds.log.store
    before = [await shown(session) for session in sessions]
    head = await adds.log.head()

    with failing_commit(store), closed_gate(store) as gate:
        tasks = [
            asyncio.ensure_future(call)
            for call in (
                adds.add_items(batch("lost")),
                adds.pop_item(),
                branches.create_branch("new"),
                branches.add_items(batch("lost on new")),
                switches.switch_to_branch("draft"),
                switches.delete_branch("draft", force=True),
                clears.switch_to_branch("draft"),
                clears.clear_session(),
                adds.store_run_usage(used),
            )
        ]
        await asyncio.sleep(0)
        gate.open()
        answers = await asyncio.gather(*tasks, return_exceptions=True)
    assert [isinstance(answer, StoreError) for answer in answers[:-1]] == [True] * 8
    assert answers[-1] is None  # it never raises
    assert [session.current_branch for session in sessions] == ["main"] * 4
    assert [await shown(session) for session in sessions] == before
    assert await adds.log.head() == head

    await adds.store_run_usage(used)  # the run was not recorded, and so is not known
    assert (await adds.get_usage_stats())["total_runs"] == 1
    await adds.add_items(batch("kept"))
    assert batches((await adds.get_items())[2:]) == ["kept"]
    assert await branches.create_branch("new") == "new"
    await switches.switch_to_branch("draft")
    await clears.clear_session()
    check_log(adds.log)


@FAILURES
async def test_a_failed_commit_of_one_call_puts_its_object_back(
    opened: Opened, failing_commit: Any
) -> None:
    session = await furnished(opened, "s")
    await session.switch_to_branch("draft")
    before = await shown(session)
    with failing_commit(session.log.store):
        for call in (
            lambda: session.add_items(batch("lost")),
            lambda: session.create_branch("new"),
            lambda: session.switch_to_branch("main"),
            lambda: session.delete_branch("draft", force=True),
            session.clear_session,
            session.delete_session,
        ):
            with pytest.raises(StoreError):
                await call()
            assert session.current_branch == "draft"
    assert await shown(session) == before
    await session.add_items(batch("kept"))
    assert batches((await session.get_items())[1:]) == ["kept"]
    check_log(session.log)


@FAILURES
async def test_the_labels_of_a_session_survive_a_failed_commit(
    opened: Opened, failing_commit: Any
) -> None:
    await opened("other").add_items([user("hello")])
    session = opened("s", user_id="alice", metadata={"plan": "free"})
    with failing_commit(session.log.store), pytest.raises(StoreError):
        await session.add_items([user("one")])
    await session.add_items([user("one")])
    [row] = [row for row in await session.list_sessions() if row["session_id"] == "s"]
    assert (row["user_id"], row["metadata"]) == ("alice", {"plan": "free"})


@FAILURES
async def test_a_call_cancelled_in_a_failing_commit_raises_its_cancellation(
    opened: Opened, failing_commit: Any
) -> None:
    session = await furnished(opened, "s")
    before = await shown(session)
    with failing_commit(session.log.store), closed_gate(session.log.store) as gate:
        task = asyncio.ensure_future(session.create_branch("new"))
        await asyncio.sleep(0)
        task.cancel("enough")
        gate.open()
        with pytest.raises(asyncio.CancelledError, match="enough"):
            await task
    assert await shown(session) == before
