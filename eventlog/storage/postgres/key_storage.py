"""Keys in a schema of their own in a PostgreSQL database, best in another one than the log's."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

import psycopg

from agents_eventlog.eventlog.errors import ForeignFileError
from agents_eventlog.eventlog.storage.keys import OneConnection
from agents_eventlog.eventlog.storage.postgres import connections, dialect, dsn
from agents_eventlog.eventlog.storage.postgres.connections import Connection
from agents_eventlog.eventlog.storage.postgres.schema import NAMES

VERSION: Final = 1
CHANGES: Final = "CREATE TABLE key_changes (number INTEGER NOT NULL, version INTEGER NOT NULL)"
"""One row: how many transactions have written keys, and the version of the tables."""

FIRST_CHANGE: Final = "INSERT INTO key_changes (number, version) VALUES (0, ?)"
CHANGE: Final = "UPDATE key_changes SET number = number + 1 RETURNING number"
LAST_CHANGE: Final = "SELECT number, version FROM key_changes"
LOCK: Final = "SELECT pg_advisory_xact_lock(7311137411846513)"
"""Lets one process create the tables of keys at a time; the number is random."""


class PostgresKeyStorage(OneConnection):
    """A schema of keys, with one connection for each process."""

    def __init__(self, url: str) -> None:
        super().__init__(dsn.resolve(url))
        self._connection: Connection | None = None
        self._dropped: weakref.finalize[..., PostgresKeyStorage] | None = None
        self._is_there = False
        self._number: int | None = None

    def exists(self) -> bool:
        """Whether the schema holds keys. Raises NewerFileError for a newer release's."""
        if not self._is_there:
            with self._used() as connection:
                self._is_there = self._holds_keys(connection)
        return self._is_there

    def create(self, statements: tuple[str, ...]) -> None:
        """Create the schema and its tables, unless they exist. Raises ForeignFileError for other tables."""
        if self.exists():
            return
        name = dsn.target(self.path).schema
        with self._used() as connection:
            connection.execute(LOCK)
            if not self._holds_keys(connection):
                if connection.execute("SELECT to_regnamespace(?)", (name,)).fetchone() == (None,):
                    connection.execute(f'CREATE SCHEMA "{name}"')
                if connection.execute(NAMES).fetchone() is not None:
                    raise ForeignFileError(
                        f"{self.path} holds other tables: expected an empty schema for the keys",
                        path=self.path,
                    )
                for statement in (CHANGES, *statements):
                    connection.execute(dialect.create_statement(statement))
                connection.execute(FIRST_CHANGE, (VERSION,))

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """Run the block in a transaction, after all others that write."""
        with self._used() as connection:
            (number,) = connection.execute(CHANGE).fetchone() or (0,)
            yield connection
        if self._number == number - 1:
            self._number = number

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Run the block in a transaction."""
        with self._used() as connection:
            yield connection

    def changed(self) -> bool:
        """Whether another connection has written since the last call."""
        with self._used() as connection:
            (number, _) = connection.execute(LAST_CHANGE).fetchone() or (0, VERSION)
            before, self._number = self._number, number
        return before != number

    def close(self) -> None:
        """Close the connection; the next use opens it again."""
        with self._lock:
            self._close()

    # -- connection ---------------------------------------------------------------------------

    @contextmanager
    def _used(self) -> Iterator[Connection]:
        with self._lock:
            try:
                connection = self._begun()
                try:
                    yield connection
                    connection.execute("COMMIT")
                except BaseException:
                    with suppress(psycopg.Error):
                        connection.execute("ROLLBACK")
                    raise
            except psycopg.Error as error:
                self._close()
                raise connections.translated(error, self.path) from error

    def _begun(self) -> Connection:
        """Return the connection in a new transaction; one that was lost since its last use is replaced."""
        if self._connection is not None:
            try:
                self._connection.execute("BEGIN")
            except psycopg.OperationalError:
                self._close()
            else:
                return self._connection
        self._connection = connections.connect(self.path)
        # psycopg warns of a connection that is dropped open, and keys need not be closed.
        self._dropped = weakref.finalize(self, self._connection.close)
        self._dropped.atexit = False
        self._connection.execute("BEGIN")
        return self._connection

    def _close(self) -> None:
        self._number = None
        if self._dropped is not None:
            self._dropped.detach()
        if self._connection is not None:
            connection, self._connection = self._connection, None
            with suppress(psycopg.Error):
                connection.close()

    def _holds_keys(self, connection: Connection) -> bool:
        if ("key_changes",) not in connection.execute(NAMES).fetchall():
            return False
        (_, version) = connection.execute(LAST_CHANGE).fetchone() or (0, 0)
        self._check_version(version, VERSION)
        return True
