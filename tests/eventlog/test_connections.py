"""A store's two connections: as strict as was asked, lent out, thrown away, closed with their threads."""

from __future__ import annotations

import gc
import sqlite3
import threading
import time
from concurrent.futures import Future
from contextlib import closing, nullcontext
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
from agents_eventlog.eventlog.storage import registry
from agents_eventlog.eventlog.storage.sqlite import wal_reset_bug
from tests.eventlog.noting import NOTE, TABLE, note, written

if TYPE_CHECKING:
    from pathlib import Path

ONE = ItemsAdded(items=["one"])

# -- durability -------------------------------------------------------------------------------

FULL, NORMAL = 2, 1


def synchronous(log: EventLog) -> int:
    """Return what SQLite is set to wait for."""
    ((level,),) = log.store.write_sync(lambda tx: tx.all("PRAGMA synchronous"))
    return int(level)


@pytest.mark.parametrize(("durability", "level"), [("full", FULL), ("normal", NORMAL)])
def test_a_durability_is_what_was_asked_for(path: Path, durability: Any, level: int) -> None:
    with closing(EventLog.open_sync(path, durability=durability)) as log:
        assert synchronous(log) == level


def test_the_strictest_durability_that_anybody_asked_for_holds(path: Path) -> None:
    with closing(EventLog.open_sync(path, durability="normal")) as weak:
        with closing(EventLog.open_sync(path, durability="normal")):
            assert synchronous(weak) == NORMAL
        with closing(EventLog.open_sync(path, durability="full")) as strong:
            assert weak.store is strong.store
            assert synchronous(weak) == synchronous(strong) == FULL
        with closing(EventLog.open_sync(path, durability="normal")):
            assert synchronous(weak) == FULL


def test_a_file_is_written_ahead_and_guards_its_triggers(path: Path) -> None:
    with closing(EventLog.open_sync(path)) as log:
        assert log.store.write_sync(lambda tx: tx.one("PRAGMA journal_mode")) == ("wal",)
        assert log.store.write_sync(lambda tx: tx.one("PRAGMA recursive_triggers")) == (1,)


# -- what a unit is told ----------------------------------------------------------------------


@pytest.fixture
def scratch(tmp_path: Path) -> str:
    """Another database, with two notes."""
    path = tmp_path / "scratch.db"
    with closing(sqlite3.connect(path)) as other, other:
        other.execute(TABLE)
        other.executemany(NOTE, [(1, "a"), (2, "b")])
    return str(path)


def test_a_unit_is_told_the_time_of_the_log_s_clock(log: EventLog, scratch: str) -> None:
    told: list[int] = []
    log.store.clock = lambda: 77
    for run in (log.store.write_sync, log.store.read_sync):
        run(lambda tx: told.append(tx.now))
    log.store.swap(scratch, lambda tx: told.append(tx.now))
    assert told == [77, 77, 77]


def test_a_log_s_clock_is_the_system_s(path: Path) -> None:
    before = time.time()
    with closing(EventLog.open_sync(path)) as log:
        now = log.store.write_sync(lambda tx: tx.now) / 1_000_000
    assert before - 1 < now < time.time() + 1


def behind(ran_on: list[str]) -> Any:
    """Return a unit that finds its tables behind when it first runs, and notes its threads."""

    def unit(tx: Transaction) -> str:
        ran_on.append(threading.current_thread().name)
        if len(ran_on) == 1:
            raise errors.StaleProjectionError(projection="notes")
        return "caught up"

    return unit


def test_a_read_that_finds_its_tables_behind_is_run_again_by_the_writer(log: EventLog) -> None:
    ran_on: list[str] = []
    assert log.store.read_sync(behind(ran_on)) == "caught up"
    assert ran_on == ["eventlog log.db reader", "eventlog log.db"]


def test_a_read_that_finds_its_tables_behind_where_nobody_writes_says_so(path: Path) -> None:
    EventLog.open_sync(path).close()
    with (
        closing(EventLog.open_sync(path, read_only=True)) as log,
        pytest.raises(errors.StaleProjectionError),
    ):
        log.store.read_sync(behind([]))


# -- swapping, rewriting ----------------------------------------------------------------------

EVERYWHERE = pytest.mark.parametrize("where", ["log.db", ":memory:"])


@pytest.fixture
def lent(tmp_path: Path, where: str) -> Any:
    """A log on a file or in memory, with a table of notes."""
    with closing(EventLog.open_sync(where if where == ":memory:" else tmp_path / where)) as log:
        log.store.write_sync(lambda tx: tx.all(TABLE))
        yield log


def fetch(tx: Transaction) -> None:
    """Bring the notes over from the other database."""
    tx.execute("INSERT INTO notes SELECT * FROM scratch.notes")


@EVERYWHERE
def test_a_swap_brings_over_what_another_database_holds_and_lets_go_of_it(
    lent: EventLog, scratch: str
) -> None:
    lent.store.swap(scratch, fetch)
    assert written(lent) == [1, 2]
    databases = lent.store.write_sync(lambda tx: tx.all("PRAGMA database_list"))
    assert [name for _, name, _ in databases] == ["main"]


@EVERYWHERE
def test_a_swap_that_fails_has_changed_nothing_and_the_writer_goes_on(
    lent: EventLog, scratch: str
) -> None:
    def fails(tx: Transaction) -> None:
        fetch(tx)
        tx.execute(NOTE, (2, "twice"))

    with pytest.raises(errors.StoreError) as caught:
        lent.store.swap(scratch, fails)
    assert caught.value.path == lent.path  # type: ignore[attr-defined]
    lent.store.write_sync(note(3))
    assert written(lent) == [3]


@EVERYWHERE
def test_a_swap_that_leaves_a_statement_open_spoils_nothing(
    lent: EventLog, scratch: str, where: str
) -> None:
    left_open: list[sqlite3.Cursor] = []

    def swap(tx: Transaction) -> None:
        left_open.append(tx.connection.execute("SELECT * FROM scratch.notes"))
        left_open[0].fetchone()

    lent.store.write_sync(lambda tx: append(tx, "a", ONE))
    with pytest.raises(errors.StoreError) if where == ":memory:" else nullcontext():
        lent.store.swap(scratch, swap)
    left_open.clear()
    lent.store.write_sync(lambda tx: append(tx, "a", ONE))
    assert lent.store.read_sync(lambda tx: session_version(tx, "a")) == 2


@EVERYWHERE
def test_a_rewritten_log_holds_nothing_of_what_was_deleted(lent: EventLog, where: str) -> None:
    lent.store.write_sync(note(1, "the secret " * 1_000))
    lent.store.write_sync(note(2))
    lent.store.write_sync(lambda tx: tx.all("DELETE FROM notes WHERE id = 1"))
    pages = lent.store.write_sync(lambda tx: tx.one("PRAGMA page_count"))
    assert lent.store.rewrite()
    assert lent.store.write_sync(lambda tx: tx.one("PRAGMA page_count")) < pages
    assert written(lent) == [2]


def test_a_log_that_is_only_read_is_neither_rewritten_nor_made_stricter(path: Path) -> None:
    EventLog.open_sync(path).close()
    with closing(EventLog.open_sync(path, read_only=True)) as log:
        log.store.durability = "normal"
        log.store.strengthen("full")
        for writes in (log.store.rewrite, lambda: log.store.write_sync(session_version)):
            with pytest.raises(errors.ReadOnlyFileError) as caught:
                writes()
            assert caught.value.path == str(path)
            assert (
                str(caught.value)
                == f"{path} was opened read-only: open it without read_only to write"
            )
        assert log.store.read_sync(lambda tx: tx.one("SELECT COUNT(*) FROM events")) == (0,)


# -- thrown away, closed ----------------------------------------------------------------------


def cannot_be_rolled_back(tx: Transaction) -> None:
    """Fail, on a connection that refuses to roll back."""

    def authorize(action: int, what: str | None, *_: str | None) -> int:
        refused = action == sqlite3.SQLITE_TRANSACTION and what == "ROLLBACK"
        return sqlite3.SQLITE_DENY if refused else sqlite3.SQLITE_OK

    tx.connection.set_authorizer(authorize)
    raise LookupError


def test_a_connection_that_cannot_be_rolled_back_is_replaced_by_another(notes: EventLog) -> None:
    notes.store.write_sync(note(1))
    for run in (notes.store.write_sync, notes.store.read_sync):
        with pytest.raises(LookupError):
            run(cannot_be_rolled_back)
    notes.store.write_sync(note(2))
    assert written(notes) == [1, 2]


def test_a_database_in_memory_that_cannot_be_rolled_back_is_not_replaced_by_an_empty_one() -> None:
    with closing(EventLog.open_sync(":memory:")) as log:
        with pytest.raises(LookupError):
            log.store.write_sync(cannot_be_rolled_back)
        with pytest.raises(errors.StoreError, match="closed"):
            log.store.read_sync(lambda tx: tx.all("SELECT 1"))


def test_a_closed_log_is_one_file(path: Path) -> None:
    with closing(EventLog.open_sync(path)) as log:
        log.store.write_sync(lambda tx: append(tx, "a", ONE))
        assert log.store.read_sync(lambda tx: session_version(tx, "a")) == 1
        assert len(list(path.parent.iterdir())) > 1
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("busy", ["writes", "reads"])
def test_a_close_waits_no_longer_than_it_was_told(notes: EventLog, busy: str) -> None:
    started, go_on = threading.Event(), threading.Event()

    def works(tx: Transaction) -> bool:
        started.set()
        return go_on.wait(10)

    store = notes.store
    outcome: Future[bool] = Future()
    (store.submit_write if busy == "writes" else store.submit_read)(works, outcome)
    started.wait(10)
    store.close(0.01)
    assert not outcome.done()
    go_on.set()
    assert outcome.result(10)


async def test_a_store_that_is_closed_says_so_to_whoever_reads_or_writes(path: Path) -> None:
    log = await EventLog.open(path)
    log.store.close()
    for asked in (log.version("a"), log.append("a", ONE)):
        with pytest.raises(errors.ClosedError, match=r"^the log is closed$"):
            await asked
    with pytest.raises(errors.ClosedError, match=r"^the log is closed$"):
        log.store.rewrite()
    log.close()


async def test_the_end_of_a_process_closes_what_is_open(
    notes: EventLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    await notes.write(note(1))
    monkeypatch.setattr(registry, "_all", {notes.store})
    registry._at_exit()
    with pytest.raises(errors.ClosedError):
        await notes.write(note(2))


# -- an old SQLite -----------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["log.db", ":memory:"])
@pytest.mark.parametrize("read_only", [True, False])
def test_a_sqlite_that_is_too_old_is_named_on_opening(
    path: Path, where: str, monkeypatch: pytest.MonkeyPatch, *, read_only: bool
) -> None:
    EventLog.open_sync(path).close()
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 36, 0))
    monkeypatch.setattr(sqlite3, "sqlite_version", "3.36.0")
    expected = r"^SQLite is too old: expected 3\.37\.0 or newer, got 3\.36\.0$"
    with pytest.raises(errors.OpenError, match=expected):
        EventLog.open_sync(where if where == ":memory:" else path, read_only=read_only)


# -- several writing processes -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("version", "has_it"),
    [((3, 6, 9), False), ((3, 7, 0), True), ((3, 51, 2), True), ((3, 51, 3), False)],
)
def test_versions_of_sqlite_with_the_wal_reset_bug_are_known(
    version: tuple[int, ...], has_it: bool
) -> None:
    assert wal_reset_bug.is_in(version) is has_it


@pytest.mark.parametrize("has_bug", [True, False])
def test_a_writer_warns_once_where_another_writes_and_sqlite_has_the_wal_reset_bug(
    path: Path,
    has_bug: bool,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(wal_reset_bug, "is_in", lambda: has_bug)
    with closing(EventLog.open_sync(path)) as log, closing(sqlite3.connect(path)) as other:
        log.store.write_sync(lambda tx: append(tx, "a", ONE))
        assert not caplog.records  # one process alone is safe
        for number in range(3):
            other.execute(f"CREATE TABLE other_{number} (id INTEGER)")
            log.store.write_sync(lambda tx: append(tx, "a", ONE))
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == has_bug
    for message in messages:
        assert message.startswith("store.several_writers")
        assert str(path) in message
        assert "SQLite 3.51.3 or newer" in message


# -- dropped -----------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["log.db", ":memory:"])
def test_the_connections_of_a_store_that_is_dropped_are_closed(
    path: Path, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    EventLog.open_sync(path).close()
    log = EventLog.open_sync(where if where == ":memory:" else path, read_only=where != ":memory:")
    connection = log.store.read_sync(lambda tx: tx.connection)
    del log
    gc.collect()
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        connection.execute("SELECT 1")
