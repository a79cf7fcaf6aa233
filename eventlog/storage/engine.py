"""
The engine: the database under a log, behind one small protocol.

Units of work, projections and their SQL are shared by all engines, and written in the subset that SQLite
and PostgreSQL have in common. What differs is here. An engine is a folder beside this file.
"""

from __future__ import annotations

import concurrent.futures
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple, Protocol, TypeAlias, TypeVar

from agents_eventlog.eventlog.errors import CorruptFileError
from agents_eventlog.eventlog.events import JSON
from agents_eventlog.eventlog.storage.notifier import Notifier
from agents_eventlog.eventlog.storage.pending import PendingUnit
from agents_eventlog.eventlog.storage.transaction import (
    Lane,
    Participant,
    PayloadCipher,
    Transaction,
    Unit,
    UnitCursor,
)

T = TypeVar("T")

Durability: TypeAlias = Literal["full", "normal"]
Clock: TypeAlias = Callable[[], int]

CREATE_FULL_TEXT: Final = "CREATE FULL TEXT INDEX item_texts"
"""The statement of the shared subset that creates the index over the texts of items."""

MEMORY: Final = ":memory:"
"""The path of a log that lives in memory and belongs to the object that opened it."""


class Table(NamedTuple):
    """
    A projection's table.

    key: the columns that identify a row, and by which rows are compared.
    is_plain: whether every column is declared, so that ``SELECT *`` returns what an insert takes.
    """

    name: str
    columns: tuple[str, ...]
    key: tuple[str, ...]
    is_plain: bool


class Problem(NamedTuple):
    """Something about the database that needs attention, and what to do. A note needs nothing now."""

    subject: str
    problem: str
    advice: str
    is_note: bool = False


class TableSize(NamedTuple):
    """The size of a table in bytes, with its indexes unless it is an estimate."""

    table: str
    bytes: int
    is_estimate: bool


class FullText(Protocol):
    """The index over the texts of items. A text is found by any three characters in a row."""

    def put(self, tx: Transaction, rows: Sequence[tuple[int, str]]) -> None:
        """Add texts, each under the position of its event."""

    def remove(self, tx: Transaction, positions: Sequence[int]) -> None:
        """Remove the texts of events."""

    def compact(self, tx: Transaction) -> None:
        """Remove what the index still keeps of removed texts."""

    def matches(self, tx: Transaction, query: str, first: int, last: int, limit: int) -> list[int]:
        """Return the newest positions from ``first`` to ``last`` that match, newest first."""

    def count(self, tx: Transaction, query: str, limit: int) -> int:
        """Return the number of matching events, counting no further than ``limit``."""

    def sessions(self, query: str) -> tuple[str, tuple[str, ...]]:
        """Return a query, with its parameters, for the sessions of matching events."""


class Store(Protocol):
    """A log's connections, shared by everything in this process that opened it."""

    engine: Engine
    path: str
    is_memory: bool
    read_only: bool
    clock: Clock
    participant: Participant | None
    cipher: PayloadCipher | None

    @property
    def notifier(self) -> Notifier:
        """What wakes subscribers after a commit."""

    async def write(self, unit: Unit[T]) -> T:
        """Run a unit in a writing transaction; return its result once that is committed."""

    async def read(self, unit: Unit[T], *, scan: bool = False) -> T:
        """
        Run a unit in a reading transaction, which sees all earlier commits.

        scan: whether it may read much of the log; it then runs where no session waits for it.
        """

    def write_sync(self, unit: Unit[T]) -> T:
        """Write without an event loop. Blocks."""

    def read_sync(self, unit: Unit[T], *, scan: bool = False) -> T:
        """Read without an event loop. Blocks."""

    def read_ahead(self, unit: Unit[T], *, scan: bool = False) -> concurrent.futures.Future[T]:
        """Start to read, and return at once."""

    def prepare_storage(self) -> None:
        """Prepare new storage for its first table."""

    def keep_template(self, name: object) -> None:
        """Keep a copy of an empty log in memory under this name; nothing for None."""

    def copy_template(self, name: object) -> bool:
        """Make this new log in memory a copy of the one that was kept; False without one."""

    def submit_write(self, unit: Unit[T], outcome: concurrent.futures.Future[T]) -> None:
        """Queue a unit for the next commit, and return at once."""

    def queue_write(self, operation: PendingUnit[Any]) -> None:
        """Queue an operation for the next commit."""

    def queue_read(self, operation: PendingUnit[Any]) -> None:
        """Queue an operation for the reading connection."""

    def swap(self, scratch_path: str, unit: Unit[None]) -> None:
        """Run a unit in a transaction of its own that sees a scratch database as ``scratch``."""

    def rewrite(self) -> bool:
        """Rewrite the storage without erased content; False if another process was in the way."""

    def damage(self) -> CorruptFileError | None:
        """Return the error for the first damage of the storage; None if it is sound."""

    def close(self, timeout_seconds: float | None = None) -> None:
        """Finish pending work and close."""


class Engine(Protocol):
    """What knows one database. It has no state, and so may be the key of a cache."""

    name: str

    def __hash__(self) -> int: ...

    # -- opening ------------------------------------------------------------------------------

    def resolve(self, path: str | os.PathLike[str]) -> str:
        """Return the one name of a log's storage, however the path is written."""

    def check_path(self, path: str, *, create: bool) -> None:
        """Raise an OpenError for a path that can never be a log."""

    def acquire(
        self,
        path: str,
        *,
        user: object,
        durability: Durability,
        prepare: Callable[[Store, bool], None],
    ) -> Store:
        """Return the store of a path, opened if necessary, and register its user."""

    def open_read_only(self, path: str, prepare: Callable[[Store], None]) -> Store:
        """Return a store of its own that cannot write. Raises an OpenError."""

    def release(self, store: Store, user: object) -> None:
        """Unregister a user. The last one closes the store."""

    # -- the log's own tables -----------------------------------------------------------------

    log_tables: Sequence[str]
    """The names of the log's own tables."""

    def exists(self, path: str) -> bool:
        """Whether there is something at the path that may hold a log."""

    def identify(self, tx: Transaction, path: str) -> bool:
        """
        Return whether the storage holds a log; False if nothing has claimed it yet.

        Raises ForeignFileError for another program's storage, NewerFileError for a newer release's.
        """

    def create_log(self, tx: Transaction, *, shared_path: str | None = None) -> None:
        """
        Create the log's own tables and claim the storage.

        shared_path: the path, if the storage holds tables of an application. The log's tables then get
            other names there, which only the engine knows, and never conflict with those. Raises
            ForeignFileError.
        """

    # -- envelopes: sealed payloads -----------------------------------------------------------

    def is_sealed(self, tx: Transaction) -> bool:
        """Whether payloads of the log may be envelopes."""

    def envelope_column(self, tx: Transaction) -> str | None:
        """Return the column that may hold envelopes: "data", "sealed" beside it, or None for none."""

    def begin_sealing(self, tx: Transaction) -> None:
        """
        Make room for envelopes, and refuse the log to releases that do not know them.

        Waits until no other transaction writes, and lets none begin until the commit.
        """

    value_too_long: type[Exception]
    """What a statement raises whose result is longer than the longest value."""

    last_position: str
    """An SQL expression: the highest position ever assigned, even if its event is missing, or NULL."""

    # -- lanes: the chains of events that a log consists of -----------------------------------

    lanes: int
    """
    The number of lanes. A transaction appends to one of them, so that transactions can overlap.

    A position is of the lane ``position % lanes``. The events of a lane become visible in the order of
    their positions, and so do those of a session.
    """

    previous_position: str
    """An SQL expression: the position before ``events.position`` in its lane."""

    complete_checkpoint: str
    """An SQL expression: the checkpoint of a projection that shows all events."""

    def claim_lane(self, tx: Transaction) -> Lane:
        """
        Return the end of a lane that this transaction alone appends to until its commit.

        A lane without events ends at its own number. May set ``tx.newest``.
        """

    def lane_ends(self, tx: Transaction) -> list[Lane]:
        """Return the ends of the lanes that have events."""

    def events_after(self, ends: Sequence[int], limit: int) -> tuple[str, tuple[Any, ...]]:
        """
        Return what follows ``FROM events`` to select those after a position in each lane, with parameters.

        It selects the first ones by position, in ascending order.
        """

    def lock_session(self, tx: Transaction, session_id: str) -> None:
        """Have a session to oneself until the commit, in a transaction that writes."""

    def lock_projections(self, tx: Transaction) -> None:
        """Wait until no other transaction writes, and let none begin until the commit."""

    def grant(self, tx: Transaction, role: str) -> None:
        """
        Let a role of the database append and read, and nothing else; create it if it does not exist.

        Raises ValueError for a database without roles, and for the owner's own role.
        """

    def text_as_stored(self, tx: Transaction) -> AbstractContextManager[None]:
        """Read a text that is not valid as bytes meanwhile."""

    # -- statements ---------------------------------------------------------------------------

    def cursor(self, connection: Any) -> UnitCursor:
        """Return a new cursor of a connection, for a unit of work."""

    def scan_cursor(self, connection: Any) -> UnitCursor:
        """Return a new cursor that does not read a large result as a whole."""

    event_time: str
    """An SQL expression: when the event ``e`` happened, in microseconds since 1970 UTC."""

    item_json: str
    """An SQL expression: the JSON of the item with the row ``i`` in the event ``e``; NULL once erased."""

    item_text: str
    """An SQL expression: the readable text of that item, or NULL."""

    current_time: str
    """An SQL expression: the time of the query, in microseconds since 1970 UTC, exact to a second."""

    def iso_time(self, microseconds: str) -> str:
        """Return an SQL expression for a time as ISO 8601 text, in UTC."""

    # -- tables -------------------------------------------------------------------------------

    def table_names(self, tx: Transaction) -> set[str]:
        """Return the names of all tables and views."""

    def drop(self, tx: Transaction, name: str) -> None:
        """Drop a table or view, if it exists."""

    def keep_tables(self, tx: Transaction, names: Sequence[str], suffix: str) -> list[str]:
        """
        Add a suffix to the names of tables, of their indexes, and of views that read these tables.

        Other views do not follow. Views are dropped if no table is among the names. Returns the old names
        of the renamed tables and views.
        """

    def create_statement(self, statement: str) -> str:
        """
        Return a CREATE statement of the shared subset in the engine's dialect.

        Columns have the types INTEGER (64 bits), REAL, TEXT and BLOB.
        """

    def tables(self, schema: Sequence[str]) -> tuple[Table, ...]:
        """Return the tables that these statements create."""

    def scratch(self, path: str = "") -> AbstractContextManager[Transaction]:
        """Open an empty database that may be lost; without a path, a temporary one."""

    def scratch_file(self, store: Store) -> AbstractContextManager[str]:
        """Provide a path for a scratch database that ``Store.swap`` can read."""

    def copy_from_scratch(self, tx: Transaction, scratch: Transaction, table: Table) -> None:
        """Fill an empty table from a scratch database, in the unit that ``Store.swap`` runs."""

    def copying(self, path: str, target: str) -> AbstractContextManager[str]:
        """
        Copy the storage at a path, as of one moment, while others write.

        Yields the path of the copy, which is put in place at the end of the block. Raises OpenError if
        the target exists.
        """

    def leftovers(self, store: Store) -> list[Path]:
        """Return the files that killed replays left."""

    @property
    def full_text(self) -> FullText:
        """The index over the texts of items."""

    # -- health -------------------------------------------------------------------------------

    def damages(self, path: str, table: str | None = None) -> list[str]:
        """Return what is physically wrong with the storage, or one table. Takes a while."""

    def damage(self, path: str) -> CorruptFileError | None:
        """Return the error for the first of these damages; None if the storage is sound."""

    def problems(self, tx: Transaction) -> Iterator[Problem]:
        """Yield what needs attention in the storage and around it, for ``eventlog doctor``."""

    def is_writable(self, tx: Transaction) -> bool:
        """Whether this user may append, and the storage takes writes."""

    def facts(self, tx: Transaction) -> dict[str, JSON]:
        """Return what the storage is and how large, for ``eventlog doctor``."""

    def table_sizes(self, tx: Transaction) -> list[TableSize]:
        """Return the size of each table, the largest first."""
