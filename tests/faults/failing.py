"""
Statements that fail: connections that raise SQLite's own errors, at the statement that a test chooses.

Every connection that is opened while ``failing_statements`` is in force counts its statements, BEGIN,
COMMIT and pragmas included. Nothing fails until a fault is armed.
"""

from __future__ import annotations

import sqlite3
import threading
from contextlib import contextmanager
from functools import partial
from itertools import product
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

from agents_eventlog.eventlog.errors import (
    BusyError,
    CorruptFileError,
    DiskError,
    DiskFullError,
    StoreError,
)

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterator

    import pytest

Mode = Literal["refused", "rolled back", "lasting"]
"""
How a statement fails: it alone; with it the whole transaction, as SQLite does where the disk is full or
broken; or it and all that follow, ROLLBACK too, until the fault is over.
"""


class Kind(NamedTuple):
    """A way in which SQLite fails: what sqlite3 raises, and what a caller of ours is promised instead."""

    raised: type[sqlite3.Error]
    code: int
    message: str
    promised: type[StoreError]

    def error(self) -> sqlite3.Error:
        """Return the error as sqlite3 makes it."""
        error = self.raised(self.message)
        error.sqlite_errorcode = self.code
        return error


KINDS = {
    "busy": Kind(sqlite3.OperationalError, sqlite3.SQLITE_BUSY, "database is locked", BusyError),
    "full": Kind(
        sqlite3.OperationalError,
        sqlite3.SQLITE_FULL,
        "database or disk is full",
        DiskFullError,
    ),
    "i/o error": Kind(
        sqlite3.OperationalError, sqlite3.SQLITE_IOERR_WRITE, "disk I/O error", DiskError
    ),
    "interrupt": Kind(
        sqlite3.OperationalError, sqlite3.SQLITE_INTERRUPT, "interrupted", StoreError
    ),
    "corrupt": Kind(
        sqlite3.DatabaseError,
        sqlite3.SQLITE_CORRUPT,
        "database disk image is malformed",
        CorruptFileError,
    ),
}


AFTER_THE_COMMIT = ("DETACH scratch",)
"""What may fail without anybody hearing of it: all is done, and closing the connection does the rest."""


def places(chance: random.Random, *, each: bool) -> Iterator[tuple[int, list[tuple[Kind, Mode]]]]:
    """
    Give the places of statements, each with the failures to try there.

    each: all failures at all places. Else one in turn, and only some places of those that come late.
    """
    failures: list[tuple[Kind, Mode]] = [
        (kind, mode) for kind, mode in product(KINDS.values(), get_args(Mode))
    ]
    chance.shuffle(failures)
    nth = 0
    while True:
        nth += 1 if each or nth < 20 else chance.randint(1, 8)
        yield nth, failures if each else [failures[nth % len(failures)]]


class Statements:
    """Counts statements over all connections, and does something at the one that was chosen."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._left: int | None = None
        self._happen: Callable[[sqlite3.Connection], None] | None = None
        self.seen: list[str] = []
        self.hit: str | None = None

    @contextmanager
    def failing(self, nth: int, kind: Kind, mode: Mode) -> Iterator[None]:
        """Let the nth statement of this block fail; ``hit`` tells which it was, if it came so far."""

        def fail(connection: sqlite3.Connection) -> None:
            if mode == "rolled back" and connection.in_transaction:
                sqlite3.Connection.rollback(connection)
            if mode == "lasting":
                self._left = 1
            raise kind.error()

        with self.at(nth, fail):
            yield

    @contextmanager
    def at(self, nth: int, happen: Callable[[sqlite3.Connection], None]) -> Iterator[None]:
        """Let something happen in place of the nth statement of this block, or just before it."""
        self.seen.clear()
        self.hit, self._left, self._happen = None, nth, happen
        try:
            yield
        finally:
            self._left = None

    def count(self, connection: sqlite3.Connection, sql: str) -> None:
        """Take note of a statement that is about to run."""
        with self._lock:
            if self._left is None:
                return
            self.seen.append(" ".join(sql.split()))
            self._left -= 1
            if self._left:
                return
            self._left = None
            self.hit = self.hit or self.seen[-1]
            assert self._happen is not None
            self._happen(connection)


class _Cursor(sqlite3.Cursor):
    def execute(self, sql: str, *parameters: Any) -> Any:
        self.connection.statements.count(self.connection, sql)  # type: ignore[attr-defined]
        return super().execute(sql, *parameters)

    def executemany(self, sql: str, rows: Any) -> Any:
        self.connection.statements.count(self.connection, sql)  # type: ignore[attr-defined]
        return super().executemany(sql, rows)


class _Connection(sqlite3.Connection):
    def __init__(self, statements: Statements, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.statements = statements

    def cursor(self, factory: Any = _Cursor) -> Any:
        return super().cursor(factory)

    def execute(self, sql: str, *parameters: Any) -> Any:
        return self.cursor().execute(sql, *parameters)

    def executemany(self, sql: str, rows: Any) -> Any:
        return self.cursor().executemany(sql, rows)


def failing_statements(monkeypatch: pytest.MonkeyPatch) -> Statements:
    """Make all connections that are opened from now on count their statements, until the test ends."""
    statements = Statements()
    connect = sqlite3.connect

    def counting(*args: Any, factory: Any = sqlite3.Connection, **options: Any) -> Any:
        counted = (
            type("Counted", (_Connection, factory), {})
            if factory is not sqlite3.Connection
            else _Connection
        )
        return connect(*args, factory=partial(counted, statements), **options)

    monkeypatch.setattr(sqlite3, "connect", counting)
    return statements
