"""Other SQLite files: those of the SDK's session classes, and files that may be logs."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager

from agents_eventlog.eventlog.storage.sqlite import connections
from agents_eventlog.eventlog.storage.sqlite.engine import SQLITE
from agents_eventlog.eventlog.storage.store import system_clock
from agents_eventlog.eventlog.storage.transaction import Transaction


@contextmanager
def reading(path: str) -> Iterator[Transaction]:
    """Read a file as of one moment. SQLite's errors become this library's."""
    with translating(path), closing(connections.connect_for_reading(path)) as connection:
        connection.execute("BEGIN")
        connection.recognise()
        yield Transaction(connection, system_clock(), engine=SQLITE)


@contextmanager
def writing(path: str) -> Iterator[Transaction]:
    """Write to an existing file in one transaction. SQLite's errors become this library's."""
    connect = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    with translating(path), closing(connect) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield Transaction(connection, system_clock(), engine=SQLITE)
        connection.execute("COMMIT")


@contextmanager
def translating(path: str) -> Iterator[None]:
    """Raise this library's errors for SQLite's."""
    try:
        yield
    except sqlite3.Error as error:
        raise connections.translated(error, path) from error


def is_database(path: str) -> bool:
    """Whether an existing file is an SQLite database."""
    with translating(path):
        return connections.is_database(path)


def is_beside_database(path: str) -> bool:
    """Whether a file is one that SQLite keeps beside an existing database."""
    with translating(path):
        return connections.is_beside_database(path)


def is_log(path: str) -> bool:
    """Whether a database is a log. Raises ForeignFileError, NewerFileError."""
    with reading(path) as tx:
        return SQLITE.identify(tx, path)
