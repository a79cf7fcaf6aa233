"""What an appender remembers of the log's end."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from agents_eventlog.eventlog import ItemsAdded, appender
from agents_eventlog.eventlog.appender import Appender, Ends, append
from agents_eventlog.eventlog.integrity import Head
from agents_eventlog.eventlog.storage.sqlite import schema
from agents_eventlog.eventlog.storage.sqlite.engine import SQLITE
from agents_eventlog.eventlog.storage.transaction import Transaction
from tests.history import START

if TYPE_CHECKING:
    from collections.abc import Iterator

SAID = ItemsAdded(items=["said"])


@pytest.fixture
def tx() -> Iterator[Transaction]:
    """A transaction on an empty log in memory."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        opened = Transaction(connection, now=START, participant=Appender(), engine=SQLITE)
        schema.create(opened)
        appender.ledger(opened).begin(opened)
        yield opened


def test_a_head_that_is_remembered_is_not_looked_for(tx: Transaction) -> None:
    tx.cache[Ends].lane = Head(7, b"x" * 32)
    appender.ledger(tx).begin(tx)
    assert tx.lane == Head(7, b"x" * 32)


def test_what_was_appended_is_remembered_and_not_looked_for(tx: Transaction) -> None:
    last = append(tx, "s", SAID)
    tx.flush()
    ran: list[str] = []
    tx.connection.set_trace_callback(ran.append)
    assert appender.session_version(tx, "s") == 1
    appender.ledger(tx).begin(tx)
    assert tx.lane == Head(1, last.digest)
    assert ran == []
