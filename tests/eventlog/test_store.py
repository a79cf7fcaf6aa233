"""Units of work: together in a commit, each failing alone, in order; readers that wait for nobody."""

from __future__ import annotations

import asyncio
import concurrent.futures
import sqlite3
import subprocess
import sys
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from agents_eventlog.eventlog import (
    EventLog,
    ItemsAdded,
    Transaction,
    append,
    errors,
)
from agents_eventlog.eventlog.appender import session_version
from agents_eventlog.eventlog.storage.sqlite import connections, lazy_connection
from tests.eventlog.noting import NOTE, held, note, written
from tests.faults.support import refusal

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ONE = ItemsAdded(items=["one"])


async def together(log: EventLog, *units: Any) -> list[Any]:
    """Run units in one commit; return what each gave, a value or an error."""
    with held(log):
        tasks = [asyncio.ensure_future(log.write(unit)) for unit in units]
        await asyncio.sleep(0)
    return await asyncio.gather(*tasks, return_exceptions=True)


class Commits:
    """What a log's writing connection does, by its statements."""

    def __init__(self, log: EventLog) -> None:
        self.statements: list[str] = []
        log.store.write_sync(lambda tx: tx.connection.set_trace_callback(self.statements.append))
        self.statements.clear()

    def count(self, beginning: str) -> int:
        """Return how many statements began like this."""
        return sum(statement.startswith(beginning) for statement in self.statements)


async def test_units_that_wait_share_one_commit(notes: EventLog) -> None:
    commits = Commits(notes)
    assert await together(notes, *map(note, range(30))) == list(range(30))
    assert commits.count("COMMIT") == 2  # of the unit that kept the writer busy, and of the rest
    assert written(notes) == list(range(30))


async def test_units_run_in_the_order_in_which_they_were_asked(notes: EventLog) -> None:
    order: list[int] = []

    def noting(number: int) -> Any:
        return lambda tx: order.append(number)

    await asyncio.gather(*(notes.write(noting(number)) for number in range(50)))
    assert order == list(range(50))


def failing(number: int, error: Exception) -> Any:
    """Return a unit that fails after it has written."""

    def unit(tx: Transaction) -> None:
        tx.execute(NOTE, (number, "lost"))
        raise error

    return unit


async def test_a_unit_that_fails_before_writing_fails_alone(notes: EventLog) -> None:
    error = LookupError("no")

    def unit(tx: Transaction) -> None:
        raise error

    commits = Commits(notes)
    assert await together(notes, note(1), unit, note(2)) == [1, error, 2]
    assert written(notes) == [1, 2]
    assert commits.count("ROLLBACK") == 0  # nobody had to run again


async def test_a_unit_whose_statement_fails_fails_alone_by_a_documented_error(
    notes: EventLog,
) -> None:
    done = await together(notes, note(1), note(1), note(2, None), note(3))
    assert (done[0], done[3]) == (1, 3)
    assert [type(error) for error in done[1:3]] == [errors.StoreError, errors.StoreError]
    assert {error.path for error in done[1:3]} == {notes.path}
    assert written(notes) == [1, 3]


@pytest.mark.parametrize("bad", [(1, "twice"), (2, None), (2**70, "too large"), (2, "\ud800")])
async def test_a_unit_whose_deferred_row_cannot_be_written_fails_alone(
    notes: EventLog, bad: tuple[Any, Any]
) -> None:
    def later(number: Any, text: Any = "text") -> Any:
        def unit(tx: Transaction) -> Any:
            tx.defer(NOTE, [(number, text)])
            return number

        return unit

    done = await together(notes, later(1), later(*bad), later(3))
    assert (done[0], done[2]) == (1, 3)
    assert isinstance(done[1], Exception)
    assert written(notes) == [1, 3]


async def test_a_deferred_row_that_fails_is_never_laid_to_the_unit_that_runs_meanwhile(
    notes: EventLog,
) -> None:
    def spoils(tx: Transaction) -> None:
        tx.defer(NOTE, [(1, "good")])
        tx.defer("INSERT INTO notes (id, text) VALUES (?, ?)", [(2**70, "too large")])

    def meanwhile(tx: Transaction) -> int:
        tx.defer(NOTE, [(3, "good")])
        tx.execute("SELECT 1")  # now the rows are written, and the other unit's fails
        return 3

    done = await together(notes, spoils, meanwhile)
    assert isinstance(done[0], OverflowError)
    assert done[1] == 3
    assert written(notes) == [3]


async def test_a_failed_unit_leaves_nothing_in_memory_either(log: EventLog) -> None:
    undone: list[str] = []
    versions: list[int] = []

    def appends(tx: Transaction, *, fails: bool = False) -> None:
        append(tx, "a", ONE)
        versions.append(session_version(tx, "a"))
        tx.on_rollback(lambda: undone.append("first"))
        tx.on_rollback(lambda: undone.append("second"))
        if fails:
            raise LookupError

    done = await together(log, appends, lambda tx: appends(tx, fails=True), appends)
    assert [type(outcome) for outcome in done] == [type(None), LookupError, type(None)]
    assert undone[-2:] == ["second", "first"]
    assert versions[-1] == 2
    assert await log.version("a") == 2
    assert (await log.verify()).ok


async def test_a_unit_that_fails_by_itself_is_rolled_back_and_undone(notes: EventLog) -> None:
    undone: list[int] = []

    def unit(tx: Transaction) -> None:
        tx.execute(NOTE, (1, "lost"))
        tx.on_rollback(lambda: undone.append(1))
        raise LookupError

    with pytest.raises(LookupError):
        await notes.write(unit)
    assert undone == [1]
    assert written(notes) == []


async def test_a_read_waits_for_no_writer(notes: EventLog) -> None:
    await notes.write(note(1))
    with held(notes):
        assert await asyncio.wait_for(asyncio.to_thread(written, notes), 5) == [1]
        assert await asyncio.wait_for(notes.version("a"), 5) == 0


async def test_a_read_cannot_write(notes: EventLog) -> None:
    with pytest.raises(errors.ReadOnlyFileError) as caught:
        await notes.query(note(1))
    assert caught.value.path == notes.path
    assert written(notes) == []


async def test_followers_are_woken_by_what_is_written_and_by_nothing_else(notes: EventLog) -> None:
    with notes.store.notifier.listen() as heard:
        await notes.write(lambda tx: tx.all("SELECT * FROM notes"))
        assert not heard.is_set()
        await notes.write(note(1))
        assert heard.is_set()


# -- another process ---------------------------------------------------------------------------

HOLD = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN IMMEDIATE")
print("held", flush=True)
sys.stdin.read()
connection.execute("COMMIT")
"""


@contextmanager
def held_by_another_process(path: Path) -> Iterator[None]:
    """Let another process hold the file's write lock."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        try:
            yield
        finally:
            process.stdin.close()
            process.wait(10)


async def test_a_file_that_another_process_holds_too_long_is_busy(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "BUSY_TIMEOUT_SECONDS", 0.2)
    async with EventLog.open(path, durability="normal") as log:
        await log.append("a", ONE)
        with held_by_another_process(path):
            with pytest.raises(errors.BusyError, match=r"0\.2 seconds") as caught:
                await log.append("a", ONE)
            assert isinstance(caught.value, TimeoutError)
            assert caught.value.path == str(path)  # type: ignore[attr-defined]
            assert isinstance(caught.value.__cause__, sqlite3.OperationalError)
            assert await log.version("a") == 1  # reading goes on
        assert (await log.append("a", ONE)).version == 2


async def test_what_another_process_appends_is_gone_on_from(path: Path) -> None:
    script = (
        "import asyncio, sys\n"
        "from agents_eventlog.eventlog import EventLog, ItemsAdded\n"
        "async def main():\n"
        "    async with EventLog.open(sys.argv[1]) as log:\n"
        "        await log.append('a', ItemsAdded(items=['theirs']))\n"
        "asyncio.run(main())\n"
    )
    async with EventLog.open(path, durability="normal") as log:
        await log.append("a", ONE)
        command = [sys.executable, "-c", script, str(path)]
        await asyncio.to_thread(subprocess.run, command, check=True, timeout=60)
        assert (await log.append("a", ONE)).version == 3
        assert (await log.verify()).ok


@pytest.mark.parametrize("count", [0, 1, 31, 32, 33, 64, 100])
def test_any_number_of_deferred_rows_is_written_in_order(notes: EventLog, count: int) -> None:
    rows = [(count - number, str(number)) for number in range(count)]
    notes.store.write_sync(lambda tx: tx.defer(NOTE, rows))
    found = notes.store.read_sync(lambda tx: tx.all("SELECT id, text FROM notes ORDER BY id DESC"))
    assert found == rows


def test_deferred_rows_of_other_statements_are_written_one_by_one(notes: EventLog) -> None:
    upsert = f"{NOTE} ON CONFLICT (id) DO UPDATE SET text = text || excluded.text"

    def unit(tx: Transaction) -> None:
        tx.defer(upsert, [(1, "a")] * 40)
        tx.defer("UPDATE notes SET text = text || ? WHERE id = ?", [("b", 1)] * 40)

    notes.store.write_sync(unit)
    assert notes.store.read_sync(lambda tx: tx.one("SELECT text FROM notes")) == (
        "a" * 40 + "b" * 40,
    )


class Counted(list[Any]):
    """How many notes there are, once somebody has looked."""


def test_a_reader_forgets_what_it_remembers_when_somebody_writes(notes: EventLog) -> None:
    looked = 0

    def remembered(tx: Transaction) -> Any:
        nonlocal looked
        found = tx.cache[Counted]
        if not found:
            looked += 1
            found.append(tx.one("SELECT COUNT(*) FROM notes"))
        return found[0]

    for _ in range(3):
        assert notes.store.read_sync(remembered) == (0,)
    assert looked == 1
    notes.store.write_sync(note(1))
    assert notes.store.read_sync(remembered) == (1,)
    with closing(sqlite3.connect(notes.path)) as other, other:
        other.execute(NOTE, (2, "another process"))
    assert notes.store.read_sync(remembered) == (2,)


def test_a_connection_that_remembers_too_many_rows_forgets_them(
    notes: EventLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lazy_connection, "MAX_CACHED", 2)
    monkeypatch.setattr(lazy_connection, "TRANSACTIONS_PER_CHECK", 1)

    def remembered(tx: Transaction) -> list[int]:
        tx.cache[Counted].append(len(tx.cache[Counted]))
        return [*tx.cache[Counted]]

    found = [notes.store.read_sync(remembered) for _ in range(4)]
    assert found == [[0], [0, 1], [0, 1, 2], [0]]


def test_what_a_reader_remembers_and_what_it_reads_are_of_one_moment(notes: EventLog) -> None:
    def while_another_writes(tx: Transaction) -> Any:
        with closing(sqlite3.connect(notes.path)) as other, other:
            other.execute(NOTE, (1, "meanwhile"))
        return tx.one("SELECT COUNT(*) FROM notes")

    assert notes.store.read_sync(while_another_writes) == (0,)
    assert notes.store.read_sync(lambda tx: tx.one("SELECT COUNT(*) FROM notes")) == (1,)


async def test_a_unit_that_stops_the_program_is_told_and_the_writer_goes_on(
    notes: EventLog,
) -> None:
    def stops(tx: Transaction) -> None:
        tx.execute(NOTE, (1, "lost"))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        notes.store.write_sync(stops)
    notes.store.write_sync(note(2))
    assert written(notes) == [2]


def test_a_future_that_its_owner_cancelled_holds_nobody_up(notes: EventLog) -> None:
    with held(notes):
        cancelled: concurrent.futures.Future[int] = concurrent.futures.Future()
        notes.store.submit_write(note(1), cancelled)
        assert cancelled.cancel()
    notes.store.write_sync(note(2))
    assert written(notes) == [1, 2]


async def test_a_commit_that_an_engine_may_repeat_is_repeated(
    notes: EventLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection = notes.store._writer.connection
    attempts: list[int] = []

    def may_repeat(error: BaseException, attempt: int) -> bool:
        connection.call(lambda sqlite: sqlite.set_authorizer(None))
        attempts.append(attempt)
        return True

    monkeypatch.setattr(type(connection), "may_repeat", staticmethod(may_repeat))
    with refusal(notes.store):
        assert await notes.write(note(1)) == 1
    assert (attempts, written(notes)) == ([1], [1])
