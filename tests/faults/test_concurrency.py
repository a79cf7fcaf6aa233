"""Many loops, threads and processes at once, a replay among them, and a reader that stands in the way."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from agents_eventlog import AdvancedSQLiteSession, projections
from agents_eventlog.eventlog import EventLog, ItemsAdded
from agents_eventlog.eventlog.errors import WrongExpectedVersionError
from agents_eventlog.eventlog.storage.sqlite import connections
from tests.faults.children import actors
from tests.faults.processes import children
from tests.faults.support import PATIENCE_SECONDS, batch, batches, check_log, check_sound

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    Opened = Callable[..., AdvancedSQLiteSession]

SIZES = pytest.mark.parametrize("rounds", [6, pytest.param(300, marks=pytest.mark.proof)])


def in_threads(*works: Callable[[], Any]) -> None:
    """Run functions in threads that begin together; raise the first error of any."""
    errors: list[BaseException] = []
    barrier = threading.Barrier(len(works))

    def run(work: Callable[[], Any]) -> None:
        try:
            barrier.wait(PATIENCE_SECONDS)
            work()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


@SIZES
def test_many_loops_threads_and_processes_lose_and_double_nothing(path: Path, rounds: int) -> None:
    def work(number: int) -> None:
        async def one_session(name: str) -> None:
            session = AdvancedSQLiteSession(name, path)
            for n in range(rounds):
                await session.add_items(batch(f"{number}:{n}"))
                assert f"{number}:{n}" in batches(await session.get_items(limit=None))

        async def all_sessions() -> (
            None
        ):  # one shared with every thread and process, two of its own
            await asyncio.gather(*map(one_session, ("s", f"{number}a", f"{number}b")))

        asyncio.run(all_sessions())

    with children(2, actors.add_batches, str(path), rounds) as processes:
        for process in processes:
            assert process.hear() == "ready"
            process.tell("go")
        in_threads(*(lambda number=number: work(number) for number in range(10, 14)))
        for process in processes:
            process.hear()
    check_sound(path)
    shared = batches(asyncio.run(AdvancedSQLiteSession("s", path).get_items()))
    assert sorted(shared) == sorted(
        f"{w}:{n}" for w in (0, 1, *range(10, 14)) for n in range(rounds)
    )
    for writer in (0, 1, *range(10, 14)):  # each in the order of its calls
        own = [name for name in shared if name.startswith(f"{writer}:")]
        assert own == [f"{writer}:{n}" for n in range(rounds)]
    own = batches(asyncio.run(AdvancedSQLiteSession("11b", path).get_items()))
    assert own == [f"11:{n}" for n in range(rounds)]


@SIZES
def test_no_update_is_lost_between_threads_that_expect_a_version(path: Path, rounds: int) -> None:
    log = EventLog.open_sync(path, projections=projections.default())

    def work(number: int) -> None:
        async def append_when_it_is_our_turn() -> None:
            done = 0
            while done < rounds:
                expected = await log.version("s")
                event = ItemsAdded(items=batch(f"{number}:{done}:{expected}"))
                try:
                    await log.append("s", event, branch_id="main", expected_version=expected)
                except WrongExpectedVersionError:
                    continue
                done += 1

        asyncio.run(append_when_it_is_our_turn())

    in_threads(*(lambda number=number: work(number) for number in range(4)))
    assert asyncio.run(log.version("s")) == 4 * rounds
    names = batches(asyncio.run(AdvancedSQLiteSession("s", path).get_items()))
    assert [int(name.rsplit(":", 1)[1]) for name in names] == list(range(4 * rounds))
    check_log(log)
    log.close()


@pytest.mark.parametrize("files", [3, pytest.param(60, marks=pytest.mark.proof)])
def test_threads_may_open_a_new_file_together(tmp_path: Path, files: int) -> None:
    for number in range(files):
        path = tmp_path / f"{number}.db"
        in_threads(
            *(
                lambda k=k, path=path: asyncio.run(
                    AdvancedSQLiteSession("s", path).add_items(batch(k))
                )
                for k in range(8)
            )
        )
        names = batches(asyncio.run(AdvancedSQLiteSession("s", path).get_items()))
        assert sorted(names) == [str(k) for k in range(8)]
        check_sound(path)


@SIZES
def test_readers_and_writers_go_on_during_replays(path: Path, opened: Opened, rounds: int) -> None:
    session = opened()
    log = session.log
    asyncio.run(session.add_items(batch("before")))
    is_over = threading.Event()

    def replay() -> None:
        for _ in range(rounds):
            projections.replay(log, projections.default().named([]))
        is_over.set()

    def check() -> None:
        while not is_over.is_set():
            found = projections.replay(log, projections.default().named([]), check=True)
            assert not any(table.differences for table in found)

    def talk() -> None:
        async def add_and_look() -> None:
            said = ["before"]
            while not is_over.is_set():
                said.append(str(len(said)))
                await session.add_items(batch(said[-1], items=1))
                assert batches(await session.get_items()) == said

        asyncio.run(add_and_look())

    in_threads(replay, check, talk)
    check_log(log)


# -- a reader that stalls ---------------------------------------------------------------------


@contextmanager
def stalled_reader(path: Path) -> Iterator[sqlite3.Connection]:
    """Begin to read as another program would, and stop there: the moment that it sees is kept for it."""
    with closing(sqlite3.connect(path, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT COUNT(*) FROM events").fetchone()
        yield reader
        reader.execute("COMMIT")


def wal_bytes(path: Path) -> int:
    return path.with_name(f"{path.name}-wal").stat().st_size


async def test_a_reader_that_stalls_blocks_nobody_and_what_it_held_up_is_cut_back_after_it(
    path: Path, opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit = 2_000_000
    monkeypatch.setattr(connections, "WAL_SIZE_LIMIT_BYTES", limit)
    session = opened()
    long = "x" * 20_000

    async def write(times: int) -> int:
        for n in range(times):
            await session.add_items(batch(f"{n}{long}"))
        return wal_bytes(path)

    freely = await write(150)
    assert freely < 6_000_000  # SQLite's checkpoint after 1,000 pages starts the file again
    with stalled_reader(path) as reader:
        first = reader.execute("SELECT COUNT(*) FROM events").fetchone()
        held_up = await write(150)
        assert held_up > freely + 5_000_000  # all that was written since
        assert len(await session.get_items(limit=5)) == 5
        assert reader.execute("SELECT COUNT(*) FROM events").fetchone() == first
    assert await write(2) <= limit
    check_log(session.log)


async def test_readers_that_come_and_go_all_the_time_do_not_let_the_write_ahead_log_grow(
    path: Path, opened: Opened
) -> None:
    session = opened()
    is_over = False
    most = 0

    async def read() -> None:
        while not is_over:
            await AdvancedSQLiteSession("s", path).get_items(limit=50)

    async def write() -> None:
        nonlocal is_over, most
        for n in range(300):
            await session.add_items(batch(f"{n}{'x' * 20_000}"))
            most = max(most, wal_bytes(path))
        is_over = True

    await asyncio.gather(write(), read(), read(), read())
    assert most < 15_000_000  # of nearly twice as much that went through it
