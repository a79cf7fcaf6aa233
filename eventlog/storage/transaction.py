"""What a unit of work is given."""

from __future__ import annotations

import sqlite3
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from itertools import chain
from typing import Any, Protocol, TypeAlias, TypeVar

from agents_eventlog.eventlog.events import JSON

T = TypeVar("T")
Row: TypeAlias = tuple[Any, ...]

ROWS_AT_ONCE = 32
"""How many rows one INSERT writes; more gain nothing."""


class Draft(Protocol):
    """Changes that are kept in memory until a statement could see that they are missing."""

    def write(self) -> None:
        """Write them."""


class Transaction:
    """
    What a unit of work is given: statements, the time, and who asked.

    Rows may be deferred, and changes drafted: they are written together, before the next statement or
    the commit, which is several times faster than one by one.
    """

    __slots__ = (
        "_deferred",
        "_deferred_rows",
        "_undo",
        "broken",
        "cache",
        "connection",
        "drafts",
        "now",
        "participant",
        "recording",
        "state",
    )

    def __init__(
        self, connection: sqlite3.Connection, now: int, participant: Any | None = None
    ) -> None:
        self.connection = connection
        self.now = now
        self.participant = participant
        self.recording: Mapping[str, JSON] = {}
        self.state: Any = None  # immutable; belongs to the store's participant
        self.cache: dict[
            Any, Any
        ] = {}  # rows in memory, as they are, or will be once drafts are written
        self.drafts: dict[str, Draft] = {}  # by whose they are
        self.broken: BaseException | None = None  # what left a write half done, caught or not
        self._deferred: dict[str, list[Sequence[Any]]] = {}
        self._deferred_rows = 0
        self._undo: list[Callable[[], None]] = []

    def execute(self, sql: str, parameters: Sequence[Any] = ()) -> sqlite3.Cursor:
        """Run a statement."""
        if self._deferred or self.drafts:
            self.flush()
        return self.connection.execute(sql, parameters)

    def executemany(self, sql: str, rows: Iterable[Sequence[Any]]) -> sqlite3.Cursor:
        """Run a statement for each row."""
        if self._deferred or self.drafts:
            self.flush()
        return self.connection.executemany(sql, rows)

    def defer(self, sql: str, row: Sequence[Any]) -> None:
        """Run a statement for this row before the next statement, or the commit."""
        self._deferred.setdefault(sql, []).append(row)
        self._deferred_rows += 1

    def defer_all(self, sql: str, rows: Iterable[Sequence[Any]]) -> None:
        """Run a statement for each of these rows before the next statement, or the commit."""
        waiting = self._deferred.setdefault(sql, [])
        before = len(waiting)
        waiting.extend(rows)
        self._deferred_rows += len(waiting) - before

    def flush(self) -> None:
        """Write what was drafted and deferred, statement by statement in the order they first came."""
        drafts, self.drafts = self.drafts, {}
        try:
            for draft in drafts.values():
                draft.write()
            deferred, self._deferred = self._deferred, {}
            for sql, rows in deferred.items():
                _write(self.connection, sql, rows)
        except BaseException as error:
            self.broken = error  # its rows need not be those of whoever happens to run now
            raise

    def forget_deferred(self) -> None:
        """Drop what was drafted or deferred and has not run."""
        self.drafts.clear()
        self._deferred.clear()

    def one(self, sql: str, parameters: Sequence[Any] = ()) -> Row | None:
        """Return the first row, or None."""
        row: Row | None = self.execute(sql, parameters).fetchone()
        return row

    def all(self, sql: str, parameters: Sequence[Any] = ()) -> list[Row]:
        """Return all rows."""
        return self.execute(sql, parameters).fetchall()

    def writes(self) -> int:
        """Return a number that grows with each row written or deferred, and never shrinks."""
        return self.connection.total_changes + self._deferred_rows

    def on_rollback(self, undo: Callable[[], None]) -> None:
        """
        Call ``undo`` if the unit is rolled back, last registered first.

        For what the unit did in memory: a unit may be rolled back and run again.
        """
        self._undo.append(undo)

    def mark(self) -> tuple[int, Any]:
        """Return the place to which ``undo_to`` goes back."""
        return len(self._undo), self.state

    def undo_to(self, mark: tuple[int, Any]) -> None:
        """Undo in memory, last first, what was done since the mark."""
        length, self.state = mark
        while len(self._undo) > length:
            self._undo.pop()()


def _write(connection: sqlite3.Connection, sql: str, rows: Sequence[Sequence[Any]]) -> None:
    """Run a statement for each row; an INSERT for many rows at once, which takes a third less."""
    start = 0
    if len(rows) >= ROWS_AT_ONCE and "VALUES" in sql and "CONFLICT" not in sql:
        inserting, values, row = sql.partition("VALUES")
        many = inserting + values + ",".join([row] * ROWS_AT_ONCE)
        for start in range(0, len(rows) - ROWS_AT_ONCE + 1, ROWS_AT_ONCE):
            some = rows[start : start + ROWS_AT_ONCE]
            connection.execute(many, [*chain.from_iterable(some)])
        start += ROWS_AT_ONCE
    if start < len(rows):
        connection.executemany(sql, rows[start:] if start else rows)


Unit: TypeAlias = Callable[[Transaction], T]
"""A plain function of an open transaction: it reads, decides, appends; it never awaits."""

RunUnit: TypeAlias = Callable[[Unit[Any]], Awaitable[Any]]
"""What runs a unit of work and gives its result, as a log does, or a session in the order of its calls."""
