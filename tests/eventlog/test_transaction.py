"""What a unit of work is given: rows wait, and are there before any statement could miss them."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from agents_eventlog.eventlog.storage.sqlite.engine import SQLITE
from agents_eventlog.eventlog.storage.transaction import Insert, Lane, Transaction

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

NUMBER = Insert("numbers", ("n", "name"))
ALL = "SELECT n FROM numbers ORDER BY rowid"


@pytest.fixture
def tx() -> Iterator[Transaction]:
    """A transaction on a table of numbers."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        connection.execute("CREATE TABLE numbers (n INTEGER PRIMARY KEY, name TEXT)")
        yield Transaction(connection, now=7, engine=SQLITE)


def numbers(count: int, start: int = 1) -> list[tuple[int, str]]:
    return [(n, f"no. {n}") for n in range(start, start + count)]


def stored(tx: Transaction) -> list[int]:
    """Return what is in the table, without what waits."""
    return [n for (n,) in tx.connection.execute(ALL)]


STATEMENTS: dict[str, Callable[[Transaction], Any]] = {
    "one": lambda tx: tx.one("SELECT count(*) FROM numbers"),
    "all": lambda tx: tx.all("SELECT count(*) FROM numbers"),
    "execute": lambda tx: tx.execute("SELECT 1"),
    "executemany": lambda tx: tx.executemany("DELETE FROM numbers WHERE n = ?", [(99,)]),
    "flush": lambda tx: tx.flush(),
}


@pytest.mark.parametrize("statement", STATEMENTS)
def test_a_deferred_row_is_there_before_the_next_statement(tx: Transaction, statement: str) -> None:
    tx.defer(NUMBER, [(1, "one")])
    tx.defer(NUMBER, numbers(2, start=2))
    assert stored(tx) == []
    STATEMENTS[statement](tx)
    assert stored(tx) == [1, 2, 3]


def test_rows_are_written_statement_by_statement_in_the_order_they_first_came(
    tx: Transaction,
) -> None:
    tx.defer(NUMBER, [(1, "one")])
    tx.defer("UPDATE numbers SET name = ? WHERE n = ?", [("changed", 2)])
    tx.defer(NUMBER, [(2, "two")])
    assert tx.all("SELECT n, name FROM numbers") == [(1, "one"), (2, "changed")]


@pytest.mark.parametrize("count", [1, 31, 32, 33, 63, 64, 65, 96])
def test_many_rows_are_written_whole_and_in_order(tx: Transaction, count: int) -> None:
    tx.defer(NUMBER, numbers(count))
    tx.flush()
    assert tx.all("SELECT n, name FROM numbers") == numbers(count)


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO numbers (n, name) VALUES (?, ?) ON CONFLICT (n) DO UPDATE SET name = 'again'",
        "UPDATE numbers SET n = ? WHERE name = ?",
        "DELETE FROM numbers WHERE n = ? AND name = ?",
    ],
)
def test_many_rows_of_what_is_no_plain_insert_are_run_one_by_one(
    tx: Transaction, statement: str
) -> None:
    once = numbers(40)
    tx.connection.executemany(statement, once)
    expected = tx.all(ALL)
    tx.defer(statement, once)
    tx.flush()
    assert tx.all(ALL) == expected


def test_a_write_that_fails_is_remembered_as_what_broke_the_unit(tx: Transaction) -> None:
    tx.defer(NUMBER, [(1, "one"), (1, "one again")])
    with pytest.raises(sqlite3.IntegrityError) as caught:
        tx.one("SELECT 1")
    assert tx.broken is caught.value


def test_the_first_row_is_a_row_or_nothing(tx: Transaction) -> None:
    tx.executemany(NUMBER.one, numbers(2))
    assert tx.one("SELECT n, name FROM numbers WHERE n > ? ORDER BY n", (0,)) == (1, "no. 1")
    assert tx.one("SELECT n FROM numbers WHERE n > ?", (2,)) is None
    assert tx.all("SELECT n FROM numbers WHERE n > ?", (1,)) == [(2,)]


def test_what_was_done_in_memory_since_a_mark_is_undone_last_first(tx: Transaction) -> None:
    undone: list[str] = []
    tx.on_rollback(lambda: undone.append("kept"))
    tx.lane = Lane(1, b"1")
    mark = tx.mark()
    tx.on_rollback(lambda: undone.append("first"))
    tx.on_rollback(lambda: undone.append("second"))
    tx.lane = Lane(2, b"2")
    tx.undo_to(mark)
    assert (undone, tx.lane) == (["second", "first"], Lane(1, b"1"))
    tx.undo_to(mark)
    assert undone == ["second", "first"]
