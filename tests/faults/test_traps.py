"""
The traps that a log on SQLite and asyncio falls into, one by one.

Those about changing events are in test_append_only, cancelling in test_cancellation, forks in test_fork,
new files opened by many processes in test_two_processes too, aiosqlite's thread in eventlog/test_thread.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from agents_eventlog import AdvancedSQLiteSession
from agents_eventlog.eventlog import EventLog
from agents_eventlog.eventlog.events import ItemsAdded
from tests.faults.support import (
    PATIENCE_SECONDS,
    batch,
    batches,
    check_sound,
    closed_gate,
    user,
    verify,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    Opened = Callable[..., AdvancedSQLiteSession]

LEAVES = Path(__file__).parent / "children" / "leaves.py"
ROOT = Path(__file__).parents[2]


def within_patience(coroutine: Any) -> Any:
    """Run a coroutine in a new loop; a call that hangs fails, though it cannot be cancelled."""
    loop = asyncio.new_event_loop()
    try:
        task = loop.create_task(coroutine)
        done, _ = loop.run_until_complete(asyncio.wait([task], timeout=PATIENCE_SECONDS))
        if not done:
            task._log_destroy_pending = False  # type: ignore[attr-defined]
            raise TimeoutError("the call hangs")
        return task.result()
    finally:
        loop.close()


# -- a loop closes with an operation pending -----------------------------------------------------


def close_loop_with_a_call_pending(session: AdvancedSQLiteSession, call: Any) -> None:
    """Begin a call, close its loop under it, and only then let the store's threads go on."""
    with closed_gate(session.log.store) as gate:
        loop = asyncio.new_event_loop()
        task = loop.create_task(call)
        task._log_destroy_pending = False  # type: ignore[attr-defined]
        loop.run_until_complete(asyncio.sleep(0))
        assert not task.done()
        loop.close()
        gate.open()


@pytest.mark.parametrize("kind", ["write", "read", "failing write"])
def test_a_loop_that_closed_with_a_call_pending_hangs_nobody(
    path: Path, opened: Opened, kind: str
) -> None:
    torn, other = opened("torn"), opened("other")
    within_patience(other.add_items(batch("before")))
    calls: dict[str, Callable[[], Any]] = {
        "write": lambda: torn.add_items(batch("torn")),
        "read": torn.get_items,
        "failing write": lambda: torn.switch_to_branch("nowhere"),
    }
    for _ in range(3):
        close_loop_with_a_call_pending(torn, calls[kind]())
    within_patience(other.add_items(batch("after")))  # from another loop
    assert batches(within_patience(other.get_items())) == ["before", "after"]
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(within_patience(torn.get_items())))
    thread.start()  # from another thread, and the same object
    thread.join(PATIENCE_SECONDS)
    assert [batches(items) for items in found] == [["torn"] * 3 if kind == "write" else []]
    within_patience(torn.add_items(batch("later")))
    torn.close()
    other.close()
    check_sound(path)


# -- a program that forgets to close -------------------------------------------------------------


@pytest.mark.parametrize("how", ["return", "queued", "error", "loop left open"])
def test_a_program_that_closes_nothing_ends_at_once_and_loses_nothing(path: Path, how: str) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"}
    began = time.time()
    ended = subprocess.run(
        [sys.executable, str(LEAVES), str(path), how],
        env=environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS * 2,
        check=False,
    )
    was_done = float(ended.stdout)
    working_seconds, ending_seconds = was_done - began, time.time() - was_done
    assert ended.returncode == (3 if how == "error" else 0), ended.stderr
    assert ending_seconds < max(5, working_seconds)  # a slow machine works slowly, too
    for n in range(5):
        items = within_patience(AdvancedSQLiteSession(f"s{n}", path).get_items())
        assert items == [user(f"{k}") for k in range(20)]
    check_sound(path)


# -- reading before writing ----------------------------------------------------------------------


async def test_a_unit_of_work_has_the_write_lock_before_its_first_read(
    path: Path, opened: Opened
) -> None:
    session = opened()
    await session.add_items(batch("before"))
    with closing(
        sqlite3.connect(path, timeout=0, isolation_level=None, check_same_thread=False)
    ) as stranger:

        def intrude(tx: Any) -> str:
            try:
                stranger.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError as error:
                return str(error)
            stranger.execute("ROLLBACK")
            return "nobody held the lock"

        assert await session.log.write(intrude) == "database is locked"
        stranger.execute("BEGIN IMMEDIATE")  # and it is free again
        stranger.execute("ROLLBACK")


async def test_a_write_waits_for_another_programs_transaction(path: Path, opened: Opened) -> None:
    session = opened()
    await session.add_items(batch("before"))
    with closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as stranger:
        stranger.execute("BEGIN IMMEDIATE")
        stranger.execute("INSERT INTO log_properties VALUES ('theirs', '1')")
        release = threading.Timer(0.4, lambda: stranger.execute("COMMIT"))
        started = time.monotonic()
        release.start()
        reading = asyncio.ensure_future(AdvancedSQLiteSession("s", path).get_items())
        assert batches(await reading) == ["before"]  # readers do not wait
        await session.add_items(batch("after"))
        assert time.monotonic() - started > 0.3
        release.join()
    assert batches(await session.get_items()) == ["before", "after"]


# -- switching to a write-ahead log --------------------------------------------------------------


@pytest.mark.parametrize("how", ["BEGIN", "BEGIN IMMEDIATE", "BEGIN EXCLUSIVE"])
def test_a_new_file_waits_for_others_that_hold_it(path: Path, how: str) -> None:
    with closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as stranger:
        stranger.execute("CREATE TABLE agent_sessions (session_id, created_at, updated_at)")
        stranger.execute("CREATE TABLE agent_messages (id, session_id, message_data, created_at)")
        stranger.execute(how)  # IMMEDIATE: SQLite says "locked" at once to who switches to WAL
        stranger.execute("SELECT * FROM agent_sessions").fetchall()
        release = threading.Timer(0.4, lambda: stranger.execute("COMMIT"))
        release.start()
        session = AdvancedSQLiteSession("s", path)
        release.join()
    within_patience(session.add_items(batch("first")))
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_reading_alone_changes_nothing_in_the_folder(path: Path) -> None:
    session = AdvancedSQLiteSession("s", path)
    within_patience(session.add_items(batch("first")))
    session.close()
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA journal_mode=DELETE").fetchone() == ("delete",)
    before = {file.name: file.read_bytes() for file in path.parent.iterdir()}
    log = EventLog.open_sync(path, read_only=True)
    assert verify(log).ok
    assert batches(within_patience(_items(log))) == ["first"]
    log.close()
    assert {file.name: file.read_bytes() for file in path.parent.iterdir()} == before


async def _items(log: EventLog) -> list[Any]:
    return [
        item
        async for recorded in log.read()
        if isinstance(recorded.event, ItemsAdded)
        for item in recorded.event.items
    ]


# -- what JSON holds and msgspec does not --------------------------------------------------------
