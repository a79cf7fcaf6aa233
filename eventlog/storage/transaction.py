"""What a unit of work is given."""

from __future__ import annotations

import weakref
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import (
    TYPE_CHECKING,
    Any,
    Final,
    NamedTuple,
    NoReturn,
    Protocol,
    TypeAlias,
    TypeVar,
)

from agents_eventlog.eventlog.errors import ClosedError
from agents_eventlog.eventlog.events import JSON
from agents_eventlog.eventlog.storage.renaming import suffix_of, with_suffixes

if TYPE_CHECKING:
    from agents_eventlog.eventlog.storage.engine import Engine

T = TypeVar("T")
Row: TypeAlias = tuple[Any, ...]

ROWS_AT_ONCE = 32
"""How many rows one INSERT writes; more gain nothing."""

MAX_CURSORS: Final = 1_000
"""Number of cursors at which references to dropped cursors are removed."""


class Lane(NamedTuple):
    """
    The end of a chain of events: its last position and digest.

    A log is one or more chains. A transaction appends to one of them; on SQLite there is only one.
    """

    position: int
    digest: bytes


class Cursor(Protocol):
    """The rows of a statement."""

    @property
    def description(self) -> Any:
        """What columns the rows have; None for a statement that returns none."""

    @property
    def rowcount(self) -> int:
        """The number of rows that the statement changed."""

    def __iter__(self) -> Iterator[Any]:
        """Yield the rows that are left."""

    def fetchone(self) -> Any:
        """Return the next row, or None."""

    def fetchmany(self, size: int = 1) -> list[Any]:
        """Return the next rows."""

    def fetchall(self) -> list[Any]:
        """Return the rows that are left."""

    def close(self) -> None:
        """Free what the statement reads."""


class UnitCursor(Cursor, Protocol):
    """A cursor that a unit is given; using it after the unit raises ClosedError."""

    def execute(self, sql: str, parameters: Sequence[Any], /) -> Any:
        """Run a statement."""

    def end(self) -> None:
        """Close it, when the unit ends."""

    def abandon(self) -> None:
        """Do as ``end`` does, without touching the connection."""


class Participant(Protocol):
    """What takes part in each writing transaction beside its units: the log."""

    def begin(self, tx: Transaction) -> None:
        """Load what the units need, before the first of them."""

    def before_commit(self, tx: Transaction) -> None:
        """Write what belongs to the whole transaction, after the last of them."""


class PayloadCipher(Protocol):
    """What seals and opens payloads: the log's cipher."""

    def refresh(self) -> bool:
        """Forget what was remembered of keys if any may have been destroyed since; return whether so."""


class Insert:
    """
    An INSERT of rows into a table, which many rows can share.

    expressions: for a column that needs more than its value, the SQL expression in place of "?".
    """

    __slots__ = ("many", "one")

    def __init__(
        self, table: str, columns: Sequence[str], expressions: Mapping[str, str] | None = None
    ) -> None:
        values = ", ".join((expressions or {}).get(column, "?") for column in columns)
        into = f"INSERT INTO {table} ({', '.join(columns)}) VALUES "
        self.one = f"{into}({values})"
        self.many = into + ", ".join([f"({values})"] * ROWS_AT_ONCE)

    def write(
        self,
        connection: Any,
        rows: Sequence[Sequence[Any]],
        suffixes: frozenset[tuple[str, str]] = frozenset(),
    ) -> None:
        """Insert rows; many in one statement, which takes a third less."""
        one, many = self.one, self.many
        if suffixes:
            one, many = with_suffixes(one, suffixes), with_suffixes(many, suffixes)
        whole = len(rows) - len(rows) % ROWS_AT_ONCE
        for start in range(0, whole, ROWS_AT_ONCE):
            some = rows[start : start + ROWS_AT_ONCE]
            connection.execute(many, [*chain.from_iterable(some)])
        if whole < len(rows):
            connection.executemany(one, rows[whole:] if whole else rows)


class Remembered(Protocol):
    """What one owner remembers of rows; made empty, and thrown away as a whole."""

    def __len__(self) -> int:
        """Return how many rows it remembers."""


R = TypeVar("R", bound=Remembered)


class Cache(dict[type[Any], Any]):
    """
    Rows in memory, as the tables have them once the deferred rows are written.

    ``cache[Owner]`` is the owner's object, made when it is first asked for. All are thrown away on a
    rollback, and when another connection has written.
    """

    if TYPE_CHECKING:

        def __getitem__(self, owner: type[R], /) -> R: ...

    def __missing__(self, owner: type[R]) -> R:
        found = self[owner] = owner()
        return found

    def rows(self) -> int:
        """Return how many rows it holds."""
        return sum(map(len, self.values()))


class Transaction:
    """
    An open transaction, which a unit of work gets: it runs SQL statements.

    now: the time of the transaction, in microseconds since 1970 UTC.
    recording: the metadata that the unit's events get.
    connection, cipher: internal; units of work use the methods.

    It ends with its unit, and so do the cursors of ``execute``. ``defer`` writes many rows together, which
    is several times faster than one by one.
    """

    __slots__ = (
        "_cursors",
        "_deferred",
        "_deferred_rows",
        "_undo",
        "broken",
        "cache",
        "cipher",
        "connection",
        "engine",
        "is_refreshed",
        "lane",
        "newest",
        "now",
        "participant",
        "recording",
        "suffixes",
    )

    def __init__(
        self,
        connection: Any,
        now: int,
        participant: Participant | None = None,
        cache: Cache | None = None,
        *,
        engine: Engine,
    ) -> None:
        self.connection = connection
        self.engine = engine
        self.now = now
        self.participant = participant
        self.recording: Mapping[str, JSON] = {}
        self.lane = Lane(0, b"")  # what it appends to; the participant loads it
        self.newest = 0  # a position that all new ones are above
        self.cache = Cache() if cache is None else cache
        self.cipher: PayloadCipher | None = None  # if the log was opened with keys
        self.is_refreshed = False  # whether the cipher has looked at its keys since the beginning
        self.broken: BaseException | None = None  # what left a write half done, caught or not
        self.suffixes: frozenset[tuple[str, str]] = frozenset()
        """Names that have a suffix in the storage, because a newer program has the plain ones."""
        self._deferred: dict[str | Insert, list[Sequence[Any]]] = {}
        self._deferred_rows = 0
        self._undo: list[Callable[[], None]] = []
        self._cursors: list[weakref.ref[UnitCursor]] = []

    def execute(self, sql: str, parameters: Sequence[Any] = ()) -> Cursor:
        """Run a statement, and return a cursor that closes when the unit ends; ``all`` returns a list."""
        return self._run(self.engine.cursor, sql, parameters)

    def scan(self, sql: str, parameters: Sequence[Any] = ()) -> Cursor:
        """Do as ``execute`` does, for a result of any size: only a part of it is in memory at a time."""
        return self._run(self.engine.scan_cursor, sql, parameters)

    def _run(
        self, cursor_of: Callable[[Any], UnitCursor], sql: str, parameters: Sequence[Any]
    ) -> Cursor:
        if self._deferred:
            self.flush()
        if self.suffixes:
            sql = with_suffixes(sql, self.suffixes)
        cursor = cursor_of(self.connection)
        cursor.execute(sql, parameters)
        if cursor.description is not None:  # only what gives rows can stay open
            self._watch(cursor)
        return cursor

    def executemany(self, sql: str, rows: Iterable[Sequence[Any]]) -> None:
        """Run a statement for each row."""
        if self._deferred:
            self.flush()
        if self.suffixes:
            sql = with_suffixes(sql, self.suffixes)
        self.connection.executemany(sql, rows)

    def defer(self, statement: str | Insert, rows: Sequence[Sequence[Any]]) -> None:
        """
        Run a statement for each of these rows later: before the next statement, or the commit.

        Statements run in the order in which they were first deferred, each for all of its rows.
        """
        self._deferred.setdefault(statement, []).extend(rows)
        self._deferred_rows += len(rows)

    def flush(self) -> None:
        """Run the deferred statements."""
        deferred, self._deferred = self._deferred, {}
        try:
            for statement, rows in deferred.items():
                if isinstance(statement, Insert):
                    statement.write(self.connection, rows, self.suffixes)
                else:
                    sql = with_suffixes(statement, self.suffixes) if self.suffixes else statement
                    self.connection.executemany(sql, rows)
        except BaseException as error:
            self.broken = error  # the rows may belong to another unit than the one that runs now
            raise

    def one(self, sql: str, parameters: Sequence[Any] = ()) -> Row | None:
        """Return the first row, or None."""
        if self._deferred:
            self.flush()
        if self.suffixes:
            sql = with_suffixes(sql, self.suffixes)
        cursor = self.connection.execute(sql, parameters)
        row: Row | None = cursor.fetchone()
        cursor.close()  # or an error's traceback might keep it, and what it reads, open
        return row

    def all(self, sql: str, parameters: Sequence[Any] = ()) -> list[Row]:
        """Return all rows."""
        if self._deferred:
            self.flush()
        if self.suffixes:
            sql = with_suffixes(sql, self.suffixes)
        rows: list[Row] = self.connection.execute(sql, parameters).fetchall()
        return rows

    def name_of(self, name: str) -> str:
        """Return the name that a table, view or index has in the storage."""
        return name + suffix_of(name, self.suffixes)

    def lock_session(self, session_id: str) -> None:
        """Have a session to oneself until the commit, in a transaction that writes."""
        if self.participant is not None:
            self.engine.lock_session(self, session_id)

    def writes(self) -> int:
        """Return a number that grows with each row written or deferred, and never shrinks."""
        changes: int = self.connection.total_changes
        return changes + self._deferred_rows

    def on_rollback(self, undo: Callable[[], None]) -> None:
        """
        Register a call that undoes what the unit did in memory; the last registered runs first.

        It runs if the unit is rolled back, which may be followed by another run of the unit.
        """
        self._undo.append(undo)

    def mark(self) -> tuple[int, Lane]:
        """Return the place to which ``undo_to`` goes back."""
        return len(self._undo), self.lane

    def undo_to(self, mark: tuple[int, Lane]) -> None:
        """Undo in memory, last first, what was done since the mark."""
        length, self.lane = mark
        while len(self._undo) > length:
            self._undo.pop()()

    def _watch(self, cursor: UnitCursor) -> None:
        if len(self._cursors) >= MAX_CURSORS:
            self._cursors = [held for held in self._cursors if held() is not None]
        self._cursors.append(weakref.ref(cursor))

    def close_cursors(self) -> None:
        """
        Close the cursors that were given out.

        One that is open keeps its connection at the moment at which it began to read: reads would
        show that moment for ever, and no write could begin once another process has written.
        """
        if self._cursors:
            watched, self._cursors = self._cursors, []
            for held in watched:
                cursor = held()
                if cursor is not None:
                    cursor.end()

    def end(self) -> None:
        """End the transaction: using it or one of its cursors later raises ClosedError."""
        self.close_cursors()
        self.connection = self._deferred = _ENDED  # type: ignore[assignment]

    def abandon(self) -> None:
        """End in a child, whose parent has the transaction: leave the connection alone."""
        for held in self._cursors:
            cursor = held()
            if cursor is not None:
                cursor.abandon()
        self._cursors = []
        self.connection = self._deferred = _ENDED  # type: ignore[assignment]


class _Ended:
    """Replaces the connection and the rows of an ended transaction."""

    def __getattr__(self, name: str) -> NoReturn:
        raise ended("transaction")


_ENDED: Final = _Ended()


def ended(what: str) -> ClosedError:
    """Return the error for using a transaction or cursor after its unit."""
    return ClosedError(
        f"cannot use a {what} after its unit of work has ended: "
        "return rows, for example of tx.all(), not the cursor"
    )


Unit: TypeAlias = Callable[[Transaction], T]
"""A plain function of an open transaction: it reads, decides, appends; it never awaits."""

RunUnit: TypeAlias = Callable[[Unit[Any]], Awaitable[Any]]
"""What runs a unit of work and gives its result, as a log does, or a session in the order of its calls."""
