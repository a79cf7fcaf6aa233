"""A process that forks with the store open: parent and child both go on, each with its own connections."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import threading
import time
import traceback
from typing import TYPE_CHECKING, Any

import pytest

from agents_eventlog.eventlog import EventLog
from agents_eventlog.eventlog.storage.sqlite.store import Store
from tests.faults.forks import exit_status, fork
from tests.faults.support import (
    PATIENCE_SECONDS,
    batch,
    batches,
    check_sound,
    closed_gate,
    open_files,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from agents_eventlog import AdvancedSQLiteSession

    Opened = Callable[..., AdvancedSQLiteSession]

FORKS = pytest.mark.parametrize("forks", [4, pytest.param(200, marks=pytest.mark.proof)])
pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")


def add(session: AdvancedSQLiteSession, name: str, count: int = 10) -> None:
    """Add batches, in a loop of its own."""

    async def add_all() -> None:
        for n in range(count):
            await session.add_items(batch(f"{name}{n}"))

    asyncio.run(add_all())


def names_of(session: AdvancedSQLiteSession) -> list[str]:
    return batches(asyncio.run(session.get_items()))


def test_parent_and_child_both_go_on_with_the_session(path: Path, opened: Opened) -> None:
    session = opened()
    add(session, "before")
    child = fork(lambda: add(session, "child"))
    add(session, "parent")
    assert exit_status(child) == 0
    names = names_of(session)
    assert sorted(names) == sorted(
        f"{who}{n}" for who in ("before", "child", "parent") for n in range(10)
    )
    assert [name for name in names if name.startswith("child")] == [f"child{n}" for n in range(10)]
    session.close()
    check_sound(path)


def test_neither_keeps_the_connections_of_the_other(path: Path, opened: Opened) -> None:
    session = opened()
    add(session, "before")

    assert open_files(path.parent) != []
    assert exit_status(fork(lambda: check_nothing_inherited(path))) == 0


def check_nothing_inherited(path: Path) -> None:
    assert open_files(path.parent) == []


def test_a_fork_waits_for_what_is_being_closed(path: Path, opened: Opened) -> None:
    session = opened()
    add(session, "before", 1)
    store = session.log.store
    with closed_gate(store) as gate:
        closing = threading.Thread(target=store.close)
        closing.start()
        while not store.is_closed:
            time.sleep(0.001)
        gate.open_after(0.1)
        child = fork(lambda: check_nothing_inherited(path))
    closing.join(PATIENCE_SECONDS)
    assert exit_status(child) == 0


def test_the_child_may_close_what_the_parent_goes_on_with(path: Path, opened: Opened) -> None:
    session = opened()
    add(session, "before")

    def close() -> None:
        add(session, "child", 1)
        session.close()

    assert exit_status(fork(close)) == 0
    add(session, "parent", 1)
    assert names_of(session)[-2:] == ["child0", "parent0"]
    session.close()
    check_sound(path)


def test_forks_of_forks_go_on(path: Path, opened: Opened) -> None:
    session = opened()

    def child() -> None:
        add(session, "child", 2)
        assert exit_status(fork(grandchild)) == 0

    def grandchild() -> None:
        check_nothing_inherited(path)
        add(session, "grandchild", 2)

    assert exit_status(fork(child)) == 0
    add(session, "parent", 1)
    expected = ["child0", "child1", "grandchild0", "grandchild1", "parent0"]
    assert names_of(session) == expected


def test_what_the_parent_has_queued_is_written_by_the_parent_alone(
    path: Path, opened: Opened
) -> None:
    session = opened()

    async def fork_with_calls_queued() -> int:
        with closed_gate(session.log.store) as gate:
            tasks = [asyncio.ensure_future(session.add_items(batch(n))) for n in range(5)]
            await asyncio.sleep(0)
            gate.open_after(0.1)  # the fork waits for what is under way
            child = fork(lambda: add(session, "child", 1))
            await asyncio.gather(*tasks)
        return child

    assert exit_status(asyncio.run(fork_with_calls_queued())) == 0
    names = names_of(session)
    assert sorted(names) == ["0", "1", "2", "3", "4", "child0"]
    session.close()
    check_sound(path)


def test_the_child_may_close_while_the_parent_has_calls_queued(path: Path, opened: Opened) -> None:
    session = opened()
    add(session, "before", 1)

    async def fork_with_calls_queued() -> int:
        with closed_gate(session.log.store) as gate:
            calls = (session.get_items(), session.add_items(batch(0)), session.get_items())
            tasks = [asyncio.ensure_future(call) for call in calls]
            await asyncio.sleep(0)
            gate.open_after(0.1)
            child = fork(session.close)
            await asyncio.gather(*tasks)
        return child

    assert exit_status(asyncio.run(fork_with_calls_queued())) == 0
    assert names_of(session) == ["before0", "0"]


def test_the_child_is_not_held_by_a_thread_that_was_calling(path: Path, opened: Opened) -> None:
    session = opened()
    add(session, "before", 1)
    held, forked = threading.Event(), threading.Event()

    def hold() -> None:
        with session._runner._executor._lock:  # as a thread does in the middle of a call
            held.set()
            forked.wait(PATIENCE_SECONDS)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(PATIENCE_SECONDS)
    child = fork(lambda: add(session, "child", 1))
    forked.set()
    thread.join(PATIENCE_SECONDS)
    assert exit_status(child) == 0
    assert names_of(session) == ["before0", "child0"]


def test_the_child_of_a_fork_inside_a_loop_can_run_a_loop(path: Path, opened: Opened) -> None:
    session = opened()

    async def fork_here() -> int:
        await session.add_items(batch("before"))
        return fork(lambda: add(session, "child", 1))

    assert exit_status(asyncio.run(fork_here())) == 0
    assert names_of(session) == ["before", "child0"]


@FORKS
def test_forks_while_other_threads_write_do_no_harm(path: Path, opened: Opened, forks: int) -> None:
    session, mine = opened(), opened("mine")
    stop = threading.Event()
    failures: list[BaseException] = []
    added: list[int] = []

    async def write() -> None:
        while not stop.is_set():
            await session.add_items(batch(len(added)))
            await session.get_items(limit=1)
            added.append(len(added))

    def run() -> None:
        try:
            asyncio.run(write())
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        for n in range(forks):
            assert exit_status(fork(lambda n=n: add(mine, f"child{n}-", 1))) == 0  # type: ignore[misc]
    finally:
        stop.set()
        thread.join(PATIENCE_SECONDS)
    assert not failures
    assert names_of(session) == [str(n) for n in added]
    assert names_of(mine) == [f"child{n}-0" for n in range(forks)]
    session.log.close()
    mine.log.close()
    check_sound(path)


@FORKS
def test_a_fork_while_files_are_opened_and_closed_goes_through(tmp_path: Path, forks: int) -> None:
    from agents_eventlog import AdvancedSQLiteSession

    stop = threading.Event()
    failures: list[BaseException] = []

    def open_and_close() -> None:
        try:
            while not stop.is_set():
                AdvancedSQLiteSession("s", tmp_path / "other.db").close()
        except BaseException as error:
            failures.append(error)

    session = AdvancedSQLiteSession("s", tmp_path / "conversations.db")
    thread = threading.Thread(target=open_and_close)
    thread.start()
    try:
        for n in range(forks):
            assert exit_status(fork(lambda n=n: add(session, f"child{n}-", 1))) == 0  # type: ignore[misc]
    finally:
        stop.set()
        thread.join(PATIENCE_SECONDS)
    assert not thread.is_alive()
    assert not failures
    assert names_of(session) == [f"child{n}-0" for n in range(forks)]
    session.close()


def _add_in_process(session: Any, name: str) -> None:
    add(session, name, 3)


def test_multiprocessing_may_fork_with_the_session_open(path: Path, opened: Opened) -> None:
    session = opened()
    add(session, "before", 1)
    context = multiprocessing.get_context("fork")
    processes = [
        context.Process(target=_add_in_process, args=(session, f"child{n}-")) for n in range(3)
    ]
    for process in processes:
        process.start()
    add(session, "parent", 3)
    for process in processes:
        process.join(PATIENCE_SECONDS)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    names = names_of(session)
    children = [f"child{n}-{i}" for n in range(3) for i in range(3)]
    assert sorted(names) == sorted(["before0", *children, "parent0", "parent1", "parent2"])
    session.close()
    check_sound(path)


def test_a_database_in_memory_parts_at_the_fork() -> None:
    from agents_eventlog import AdvancedSQLiteSession

    session = AdvancedSQLiteSession("s")
    add(session, "before", 1)

    def child() -> None:
        add(session, "child", 1)
        assert names_of(session) == ["before0", "child0"]

    process = fork(child)
    add(session, "parent", 1)
    assert exit_status(process) == 0
    assert names_of(session) == ["before0", "parent0"]
    session.close()


def test_no_thread_of_the_store_exists_when_a_process_forks(path: Path, opened: Opened) -> None:
    session = opened()
    add(session, "before", 1)
    session.log.store.read_sync(lambda tx: tx.one("SELECT 1"), scan=True)
    alive: list[bool] = []

    def look() -> None:
        alive.append(any(path.name in thread.name for thread in threading.enumerate()))

    os.register_at_fork(after_in_parent=look)  # runs after the store's own hook
    os.register_at_fork(before=look)  # runs before it: hooks run in reverse
    threads_before = threading.active_count()
    assert exit_status(fork(lambda: check_alone(path))) == 0
    assert alive[0]
    assert threading.active_count() <= threads_before
    add(session, "parent", 1)
    assert names_of(session) == ["before0", "parent0"]


def check_alone(path: Path) -> None:
    assert threading.active_count() == 1
    check_nothing_inherited(path)


def in_child(work: Callable[[], object]) -> Callable[[Any], int]:
    """Return a unit that writes, forks, and does something in the child."""

    def unit(tx: Any) -> int:
        tx.execute("CREATE TABLE IF NOT EXISTS forked (id INTEGER)")
        tx.execute("INSERT INTO forked VALUES (1)")
        child = os.fork()
        if not child:
            work()
        return child

    return unit


def test_a_child_that_returns_from_its_parent_s_unit_ends_and_the_parent_commits(
    path: Path, opened: Opened, capfd: pytest.CaptureFixture[str]
) -> None:
    session = opened()
    add(session, "before", 1)
    child = session.log.store.write_sync(in_child(lambda: None))
    assert exit_status(child) == 70
    assert "a unit of work forked" in capfd.readouterr().err
    assert session.log.store.read_sync(lambda tx: tx.all("SELECT id FROM forked")) == [(1,)]
    add(session, "parent", 1)
    assert names_of(session) == ["before0", "parent0"]
    session.close()
    check_sound(path)


@pytest.mark.parametrize("kind", ["write", "read", "scan", "swap"])
def test_a_child_of_a_unit_cannot_use_the_log(
    path: Path, opened: Opened, kind: str, tmp_path: Path
) -> None:
    session = opened()
    add(session, "before", 1)
    store = session.log.store
    children: list[int] = []

    def unit(tx: Any) -> None:
        tx.execute("SELECT 1")  # a cursor that is dropped at once
        cursor = tx.execute("SELECT 1")
        child = os.fork()
        if child:
            children.append(child)
            return
        try:
            for touch in (
                lambda: tx.execute("SELECT 1"),
                cursor.fetchall,
                lambda: store.read_sync(lambda tx: None),
                lambda: store.write_sync(lambda tx: None),
                store.rewrite,
            ):
                with pytest.raises(RuntimeError):
                    touch()
            store.close()
        except BaseException:
            traceback.print_exc()
            os._exit(2)
        os._exit(0)

    run: dict[str, Callable[[], object]] = {
        "write": lambda: store.write_sync(unit),
        "read": lambda: store.read_sync(unit),
        "scan": lambda: store.read_sync(unit, scan=True),
        "swap": lambda: store.swap(str(tmp_path / "scratch.db"), unit),
    }
    run[kind]()
    assert exit_status(children[0]) == 0
    add(session, "parent", 1)
    assert names_of(session) == ["before0", "parent0"]
    session.close()
    check_sound(path)


def test_a_unit_may_fork_while_another_thread_waits_to_fork(path: Path, opened: Opened) -> None:
    session = opened()
    add(session, "before", 1)
    store = session.log.store
    children: list[int] = []

    def unit(tx: Any) -> None:
        forking.start()
        while not store._reader.worker.is_paused:  # the other thread waits for this unit now
            time.sleep(0.001)
        children.append(fork(lambda: None))

    forking = threading.Thread(target=lambda: children.append(fork(lambda: None)))
    store.write_sync(unit)
    forking.join(PATIENCE_SECONDS)
    assert [exit_status(child) for child in children] == [0, 0]
    add(session, "parent", 1)
    assert names_of(session) == ["before0", "parent0"]


def test_a_callback_of_a_future_may_fork(path: Path, opened: Opened) -> None:
    from concurrent.futures import Future

    session = opened()
    add(session, "before", 1)
    children: Future[int] = Future()
    outcome: Future[Any] = Future()
    work = lambda: add(session, "child", 1)  # noqa: E731
    outcome.add_done_callback(lambda _: children.set_result(fork(work)))
    session.log.store.submit_write(lambda tx: None, outcome)
    assert exit_status(children.result(PATIENCE_SECONDS)) == 0
    add(session, "parent", 1)
    assert sorted(names_of(session)) == ["before0", "child0", "parent0"]


def test_a_callback_s_child_that_returns_to_the_store_ends(path: Path, opened: Opened) -> None:
    from concurrent.futures import Future

    session = opened()
    children: Future[int] = Future()
    outcome: Future[Any] = Future()

    def callback(_: object) -> None:
        if child := os.fork():
            children.set_result(child)

    outcome.add_done_callback(callback)
    session.log.store.submit_read(lambda tx: None, outcome)
    assert exit_status(children.result(PATIENCE_SECONDS)) == 70


def test_a_store_that_opens_while_a_fork_waits_is_paused_as_well(
    path: Path, opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    asyncio.run(opened().add_items(batch("first")))
    finish, others = Store.finish_pause, []

    def finish_and_open(store: Store) -> None:
        finish(store)
        if not others:
            others.append(EventLog.open_sync(path.with_name("other.db")))

    monkeypatch.setattr(Store, "finish_pause", finish_and_open)
    assert exit_status(fork(lambda: opened("child").close())) == 0
    [other] = others
    assert asyncio.run(other.version("s")) == 0
    other.close()
