"""What a transaction holds when it begins, and what its rows take."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from agents_eventlog.eventlog.storage.sqlite.engine import SQLITE
from agents_eventlog.eventlog.storage.transaction import ROWS_AT_ONCE, Insert, Lane, Transaction

if TYPE_CHECKING:
    from collections.abc import Iterator

NUMBER = Insert("numbers", ("n", "name"))


@pytest.fixture
def tx() -> Iterator[Transaction]:
    """A transaction on a table of numbers."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        connection.execute("CREATE TABLE numbers (n INTEGER PRIMARY KEY, name TEXT)")
        yield Transaction(connection, now=7, engine=SQLITE)


def numbers(count: int, start: int = 1) -> list[tuple[int, str]]:
    return [(n, f"no. {n}") for n in range(start, start + count)]


def test_a_unit_is_told_the_time_and_who_takes_part_and_nothing_is_recorded_yet(
    tx: Transaction,
) -> None:
    assert (tx.now, tx.participant, tx.recording, tx.lane) == (7, None, {}, Lane(0, b""))
    assert (tx.cache.rows(), tx.broken) == (0, None)


@pytest.mark.parametrize(("count", "statements"), [(31, 31), (32, 1), (33, 2), (64, 2)])
def test_so_many_rows_take_one_statement(tx: Transaction, count: int, statements: int) -> None:
    assert ROWS_AT_ONCE == 32
    ran: list[str] = []
    tx.connection.set_trace_callback(ran.append)
    tx.defer(NUMBER, numbers(count))
    tx.flush()
    assert len(ran) == statements


def test_what_was_written_or_deferred_is_counted_and_the_count_never_shrinks(
    tx: Transaction,
) -> None:
    counts = [tx.writes()]
    for change in (
        lambda: tx.execute(NUMBER.one, (1, "one")),
        lambda: tx.defer(NUMBER, [(2, "two")]),
        lambda: tx.defer(NUMBER, [(3, "three")]),
        lambda: tx.defer(NUMBER, numbers(2, start=4)),
        lambda: tx.defer(NUMBER, numbers(1, start=6)),
        lambda: tx.defer(NUMBER, [(7, "seven")]),
    ):
        change()
        counts.append(tx.writes() - counts[0])
    assert counts == [0, 1, 2, 3, 5, 6, 7]
    tx.flush()
    assert tx.writes() >= 7
    tx.one("SELECT 1")
    tx.defer(NUMBER, [])
    assert tx.writes() == 6 + 7
