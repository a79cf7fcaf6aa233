"""The cursors that PostgreSQL gives to units of work."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import count, islice
from typing import TYPE_CHECKING, Any, Final

from agents_eventlog.eventlog.storage.transaction import ended

if TYPE_CHECKING:
    import psycopg

    from agents_eventlog.eventlog.storage.postgres.connections import Connection

_numbers = count(1)

ROWS_IN_PART: Final = 500
"""How many rows a scan has in memory."""


class UnitCursor:
    """The rows of a statement, until the unit ends."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._cursor: psycopg.RawCursor[Any] | None = None
        self._has_ended = False
        self._returns_rows = False

    def execute(self, sql: str, parameters: Sequence[Any] = (), /) -> UnitCursor:
        """Run a statement."""
        if self._has_ended:
            raise ended("cursor")
        self._returns_rows = sql.lstrip().startswith(("SELECT", "WITH")) or "RETURNING" in sql
        self._cursor = self._connection.execute(sql, parameters)
        return self

    def _rows(self) -> psycopg.RawCursor[Any]:
        if self._has_ended or self._cursor is None:
            raise ended("cursor")
        return self._cursor

    @property
    def description(self) -> Any:
        """Something for a statement that returns rows, which need not be there yet; else None."""
        return () if self._returns_rows else None

    @property
    def rowcount(self) -> int:
        """The number of rows that the statement changed."""
        self._connection.sync()
        return self._rows().rowcount

    def __iter__(self) -> Iterator[Any]:
        """Yield the rows that are left."""
        while (row := self.fetchone()) is not None:
            yield row

    def fetchone(self) -> Any:
        """Return the next row, or None."""
        return self._rows().fetchone()

    def fetchmany(self, size: int = 1) -> list[Any]:
        """Return the next rows."""
        return self._rows().fetchmany(size)

    def fetchall(self) -> list[Any]:
        """Return the rows that are left."""
        return self._rows().fetchall()

    def close(self) -> None:
        """Drop the rows."""
        if self._cursor is not None:
            self._cursor.close()

    def end(self) -> None:
        """Drop the rows, when the unit ends."""
        self.close()
        self.abandon()

    def abandon(self) -> None:
        """Do as ``end`` does, without touching the connection."""
        self._has_ended, self._cursor = True, None


class ScanCursor(UnitCursor):
    """The rows of a statement, which the server keeps; fetched in parts, until the transaction ends."""

    def __init__(self, connection: Connection) -> None:
        super().__init__(connection)
        self._name = f"scan_{next(_numbers)}"
        self._is_at_end = False

    def execute(self, sql: str, parameters: Sequence[Any] = (), /) -> ScanCursor:
        """Run a statement, and fetch its first rows in the same round trip."""
        connection = self._connection
        self._returns_rows = True
        with connection.raw.pipeline():
            connection.execute(f"DECLARE {self._name} NO SCROLL CURSOR FOR {sql}", parameters)
            self._cursor = connection.execute(f"FETCH {ROWS_IN_PART} FROM {self._name}")
        return self

    def fetchone(self) -> Any:
        """Return the next row, or None."""
        row = self._rows().fetchone()
        if row is None and not self._is_at_end:
            self._cursor = self._connection.execute(f"FETCH {ROWS_IN_PART} FROM {self._name}")
            row = self._cursor.fetchone()
            self._is_at_end = row is None
        return row

    def fetchmany(self, size: int = 1) -> list[Any]:
        """Return the next rows."""
        return list(islice(self, size))

    def fetchall(self) -> list[Any]:
        """Return the rows that are left."""
        return list(self)
