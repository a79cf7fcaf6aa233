"""Cursors and transactions end with their unit of work, so that none holds up whoever comes next."""

from __future__ import annotations

import sqlite3
from contextlib import closing, suppress
from typing import TYPE_CHECKING, Any

import pytest

from agents_eventlog.eventlog import errors
from agents_eventlog.eventlog.storage.sqlite.connections import translated
from agents_eventlog.eventlog.storage.transaction import MAX_CURSORS
from tests.eventlog.noting import NOTE, note, written

if TYPE_CHECKING:
    from agents_eventlog.eventlog import EventLog, Transaction

SELECT = "SELECT id FROM notes ORDER BY id"
RUNS = pytest.mark.parametrize("run", ["read_sync", "write_sync"])


@pytest.fixture
def three(notes: EventLog) -> EventLog:
    """A log with three notes."""
    for number in range(3):
        notes.store.write_sync(note(number))
    return notes


def half_read(tx: Transaction) -> sqlite3.Cursor:
    """Return a cursor that has more to give."""
    cursor = tx.execute(SELECT)
    cursor.fetchone()
    return cursor


def write_elsewhere(log: EventLog, number: int) -> None:
    with closing(sqlite3.connect(log.path)) as other, other:
        other.execute(NOTE, (number, "elsewhere"))


@RUNS
@pytest.mark.parametrize("fails", [False, True])
def test_a_cursor_that_a_unit_leaks_holds_up_neither_reads_nor_writes(
    three: EventLog, run: str, fails: bool
) -> None:
    leaked: list[sqlite3.Cursor] = []

    def leaks(tx: Transaction) -> None:
        leaked.append(half_read(tx))
        if fails:
            raise LookupError

    with suppress(LookupError):
        getattr(three.store, run)(leaks)
    write_elsewhere(three, 3)
    three.store.write_sync(note(4))
    assert written(three) == [0, 1, 2, 3, 4]
    assert len(leaked) == 1  # and still held


@RUNS
@pytest.mark.parametrize("use", [list, next, lambda c: c.fetchall(), lambda c: c.fetchmany(2)])
def test_a_cursor_says_that_its_unit_has_ended(three: EventLog, run: str, use: Any) -> None:
    cursor = getattr(three.store, run)(half_read)
    with pytest.raises(errors.ClosedError, match="cursor after its unit of work has ended"):
        use(cursor)


@RUNS
@pytest.mark.parametrize(
    "use", [lambda tx: tx.all(SELECT), lambda tx: tx.defer(NOTE, [(7, "late")])]
)
def test_a_transaction_says_that_it_has_ended(three: EventLog, run: str, use: Any) -> None:
    kept = getattr(three.store, run)(lambda tx: tx)
    with pytest.raises(errors.ClosedError, match="transaction after its unit of work has ended"):
        use(kept)


def test_any_number_of_cursors_is_closed(three: EventLog) -> None:
    held: list[sqlite3.Cursor] = []

    def opens_many(tx: Transaction) -> None:
        held.append(half_read(tx))
        for _ in range(MAX_CURSORS + 1):
            half_read(tx)

    three.store.read_sync(opens_many)
    three.store.write_sync(note(3))
    assert written(three) == [0, 1, 2, 3]


def test_nothing_is_appended_in_a_reading_transaction(three: EventLog) -> None:
    from agents_eventlog.eventlog import ItemsAdded, append

    with pytest.raises(RuntimeError, match="cannot append in a reading transaction"):
        three.store.read_sync(lambda tx: append(tx, "s", ItemsAdded(items=["one"])))


def test_a_write_behind_a_stale_read_is_not_told_that_it_waited(three: EventLog) -> None:
    with closing(sqlite3.connect(three.path, isolation_level=None)) as connection:
        connection.execute("BEGIN")
        connection.execute(SELECT).fetchone()
        three.store.write_sync(note(3))
        with pytest.raises(sqlite3.OperationalError) as caught:
            connection.execute(NOTE, (4, "too late"))
    told = translated(caught.value, three.path)
    assert isinstance(told, errors.BusyError)
    assert "seconds" not in str(told)
