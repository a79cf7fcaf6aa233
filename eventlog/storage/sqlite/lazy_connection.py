"""A connection's life: it opens when first used, and knows whether its cached rows are still valid."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import TypeVar

from agents_eventlog.eventlog.storage import fork
from agents_eventlog.eventlog.storage.engine import MEMORY
from agents_eventlog.eventlog.storage.sqlite import connections
from agents_eventlog.eventlog.storage.sqlite.prefix import Connection
from agents_eventlog.eventlog.storage.transaction import Cache

T = TypeVar("T")

MAX_CACHED = 50_000
"""Number of rows above which a connection empties its cache."""

TRANSACTIONS_PER_CHECK = 64
"""How often a connection counts the rows of its cache, which takes a while."""


class LazyConnection:
    """
    A connection that opens when first used, and a cache of the rows that it read or wrote.

    begin: the statement that begins a transaction.
    on_foreign_commit: called when another connection has committed since the last transaction.
    """

    def __init__(
        self,
        path: str,
        connect: Callable[[], Connection],
        begin: str,
        on_foreign_commit: Callable[[], None] = lambda: None,
    ) -> None:
        self.path = path
        self.connect = connect
        self._begin = begin
        self._on_foreign_commit = on_foreign_commit
        self._connection: Connection | None = None
        self._cache = Cache()
        self._data_version: int | None = None
        self._transactions = 0

    def get(self) -> Connection:
        """Return the connection, opened if necessary."""
        if self._connection is None:
            self._connection = self.connect()
        return self._connection

    def begin(self) -> Cache:
        """Begin a transaction; return the cache, without rows that another connection may have changed."""
        connection = self._connection or self.get()
        connection.execute(self._begin)
        if not connection.is_settled:
            connection.recognise()
        # SQLite changes this number when another connection commits. It is read inside the transaction:
        # read before it, a commit in between would leave old rows in the cache.
        version = connection.execute("PRAGMA data_version").fetchone()[0]
        if version != self._data_version:
            self._cache.clear()
            if self._data_version is not None:
                self._on_foreign_commit()
            self._data_version = version
        self._transactions += 1
        if self._transactions % TRANSACTIONS_PER_CHECK == 0 and self._cache.rows() > MAX_CACHED:
            self._cache.clear()
        return self._cache

    def commit(self) -> None:
        """Commit the transaction."""
        (self._connection or self.get()).execute("COMMIT")

    def call(self, function: Callable[[Connection], T]) -> T:
        """Run a function on the connection, outside of any transaction."""
        return function(self.get())

    def is_own(self, error: BaseException) -> bool:
        """Whether an error came from SQLite, so that the transaction may be gone."""
        return isinstance(error, sqlite3.Error)

    def may_repeat(self, error: BaseException, attempt: int) -> bool:
        """Return False: SQLite itself waits for other writers."""
        return False

    def translated(self, error: BaseException) -> BaseException:
        """Return the documented error for one of SQLite's; other errors unchanged."""
        return connections.translated(error, self.path)

    def clear_cache(self) -> None:
        """Forget the cached rows."""
        self._cache.clear()

    def roll_back(self) -> None:
        """Leave the transaction, if there is one; close the connection where SQLite refuses."""
        fork.end_child_of_unit()
        self._cache.clear()  # it has rows that were never committed
        connection = self.get()
        try:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
        except sqlite3.Error:
            if self.path == MEMORY:
                connection.close()  # kept: another would be another, empty database
            else:
                self.close()  # or later reads would see this moment's state

    def close(self) -> None:
        """Close the connection; the next use opens another."""
        self._cache.clear()
        self._data_version = None
        if self._connection is not None:
            connection, self._connection = self._connection, None
            connection.close()

    def abandon(self) -> None:
        """Refuse further use, in a child, of a connection whose transaction is the parent's."""
        # The connection is neither closed nor dropped here: the frames of the unit keep it.
        self._connection = None
        self._cache.clear()
