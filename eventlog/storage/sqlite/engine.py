"""The SQLite engine: everything that SQLite does differently, gathered from the modules beside it."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, cast

from agents_eventlog.eventlog.errors import CorruptFileError
from agents_eventlog.eventlog.events import JSON
from agents_eventlog.eventlog.storage import registry
from agents_eventlog.eventlog.storage.engine import Durability, Problem, Store, Table, TableSize
from agents_eventlog.eventlog.storage.sqlite import (
    backup,
    connections,
    expressions,
    health,
    schema,
    scratch,
    tables,
)
from agents_eventlog.eventlog.storage.sqlite.cursor import UnitCursor
from agents_eventlog.eventlog.storage.sqlite.full_text import SQLiteFullText
from agents_eventlog.eventlog.storage.sqlite.store import Store as SQLiteStore
from agents_eventlog.eventlog.storage.store import BaseStore
from agents_eventlog.eventlog.storage.transaction import Lane, Transaction

LAST_POSITION = (
    "(SELECT seq FROM sqlite_sequence WHERE name = 'events' AND typeof(seq) = 'integer')"
)

LANE_ENDS = "SELECT position, digest FROM events ORDER BY position DESC LIMIT 1"
CLAIM_LANE = f"""
    SELECT last.position, last.digest, {LAST_POSITION}
    FROM (SELECT 1) AS one LEFT JOIN ({LANE_ENDS}) AS last
"""
COMPLETE_CHECKPOINT = f"""
    MAX(COALESCE((SELECT MAX(position) FROM events), 0), COALESCE({LAST_POSITION}, 0))
"""
EVENTS_AFTER = "WHERE position > ? ORDER BY position LIMIT ?"


class SQLiteEngine:
    """One file for each log, one writing connection for each file and process."""

    name = "SQLite"
    log_tables: Sequence[str] = schema.TABLES
    full_text = SQLiteFullText()
    last_position = LAST_POSITION
    value_too_long: type[Exception] = sqlite3.DataError

    # -- one lane -----------------------------------------------------------------------------

    lanes = 1
    previous_position = "events.position - 1"
    complete_checkpoint = COMPLETE_CHECKPOINT

    def claim_lane(self, tx: Transaction) -> Lane:
        """Return the end of the log. Positions are never assigned twice, even if the tail was cut."""
        row = tx.one(CLAIM_LANE)
        position, digest, assigned = (0, bytes(32), 0) if row is None else row
        return Lane(max(position or 0, assigned or 0), digest or bytes(32))

    def lane_ends(self, tx: Transaction) -> list[Lane]:
        """Return the end of the log; an empty list if it has no events."""
        return [Lane(*row) for row in tx.all(LANE_ENDS)]

    def events_after(self, ends: Sequence[int], limit: int) -> tuple[str, tuple[Any, ...]]:
        """Return what follows ``FROM events`` to select those after a position."""
        return EVENTS_AFTER, (*ends, limit)

    def lock_session(self, tx: Transaction, session_id: str) -> None:
        """Do nothing: only one transaction writes at a time."""

    def lock_projections(self, tx: Transaction) -> None:
        """Do nothing: only one transaction writes at a time."""

    def grant(self, tx: Transaction, role: str) -> None:
        """Raise ValueError: who may read the file can do everything."""
        raise ValueError("SQLite has no roles: expected the URL of a PostgreSQL database")

    @contextmanager
    def text_as_stored(self, tx: Transaction) -> Iterator[None]:
        """Read a text that is not UTF-8 as bytes meanwhile."""
        before = tx.connection.text_factory
        tx.connection.text_factory = _text_or_bytes
        try:
            yield
        finally:
            tx.connection.text_factory = before

    # -- opening ------------------------------------------------------------------------------

    def resolve(self, path: str | os.PathLike[str]) -> str:
        """Return a file's absolute path, with ``~`` expanded and links followed."""
        return connections.resolve(path)

    def check_path(self, path: str, *, create: bool) -> None:
        """Raise an OpenError for a path that can never be a log."""
        connections.check_path(path, create=create)

    def acquire(
        self,
        path: str,
        *,
        user: object,
        durability: Durability,
        prepare: Callable[[Store, bool], None],
    ) -> Store:
        """Return the store of a file, opened if necessary, and register its user."""
        create = partial(SQLiteStore, path, engine=self, durability=durability)
        return registry.acquire(
            path, user=user, durability=durability, prepare=prepare, create=create
        )

    def open_read_only(self, path: str, prepare: Callable[[Store], None]) -> Store:
        """Return a store of its own that cannot write."""
        store = SQLiteStore(path, engine=self, read_only=True)
        return registry.private(store, prepare)

    def release(self, store: Store, user: object) -> None:
        """Unregister a user. The last one closes the store."""
        registry.release(cast("BaseStore", store), user)

    # -- the log's own tables -----------------------------------------------------------------

    def exists(self, path: str) -> bool:
        """Whether there is a file that is not empty."""
        file = Path(path)
        return file.exists() and file.stat().st_size > 0

    def identify(self, tx: Transaction, path: str) -> bool:
        """Return whether the file holds a log; False if nothing has claimed it yet."""
        return schema.identify(tx, path)

    def create_log(self, tx: Transaction, *, shared_path: str | None = None) -> None:
        """Create the log's own tables and claim the file."""
        schema.create(tx, shared_path=shared_path)

    # -- envelopes ----------------------------------------------------------------------------

    def is_sealed(self, tx: Transaction) -> bool:
        """Whether payloads of the log may be envelopes."""
        return schema.has_sealed(tx)

    def envelope_column(self, tx: Transaction) -> str | None:
        """Return the column for envelopes, if the log has one: ``data`` holds text."""
        return "sealed" if schema.has_sealed(tx) else None

    def begin_sealing(self, tx: Transaction) -> None:
        """Add the column for envelopes, and raise the schema version."""
        schema.begin_sealing(tx)

    # -- statements ---------------------------------------------------------------------------

    def cursor(self, connection: sqlite3.Connection) -> UnitCursor:
        """Return a new cursor of a connection, for a unit of work."""
        return connection.cursor(UnitCursor)

    def scan_cursor(self, connection: Any) -> UnitCursor:
        """Return a new cursor: each of them steps through its rows."""
        return self.cursor(connection)

    event_time = expressions.EVENT_TIME
    item_json = expressions.ITEM
    item_text = expressions.ITEM_TEXT
    current_time = expressions.CURRENT_TIME

    def iso_time(self, microseconds: str) -> str:
        """Return an expression for a time as ISO 8601 text, in UTC."""
        return expressions.iso_time(microseconds)

    # -- tables -------------------------------------------------------------------------------

    def table_names(self, tx: Transaction) -> set[str]:
        """Return the names of all tables and views, without SQLite's own."""
        return tables.names(tx)

    def drop(self, tx: Transaction, name: str) -> None:
        """Drop a table or view, if it exists."""
        tables.drop(tx, name)

    def keep_tables(self, tx: Transaction, names: Sequence[str], suffix: str) -> list[str]:
        """Add a suffix to the names of tables, their indexes and views; return the old names."""
        return tables.keep(tx, names, suffix)

    def create_statement(self, statement: str) -> str:
        """Return a CREATE statement as SQLite takes it."""
        return tables.create_statement(statement)

    def tables(self, statements: Sequence[str]) -> tuple[Table, ...]:
        """Return the tables that these statements create."""
        return tables.tables(tuple(statements))

    def scratch(self, path: str = "") -> AbstractContextManager[Transaction]:
        """Open an empty database that may be lost; without a path, a temporary one."""
        return scratch.scratch(self, path)

    def scratch_file(self, store: Store) -> AbstractContextManager[str]:
        """Provide a new file beside the log that ``Store.swap`` can attach."""
        return scratch.scratch_file(store.path, is_memory=store.is_memory)

    def copy_from_scratch(self, tx: Transaction, scratch: Transaction, table: Table) -> None:
        """Fill an empty table from the attached file."""
        tables.copy_from_scratch(tx, table)

    def copying(self, path: str, target: str) -> AbstractContextManager[str]:
        """Copy a file by SQLite's own backup; put the copy in place at the end of the block."""
        return backup.copying(path, target)

    def leftovers(self, store: Store) -> list[Path]:
        """Return the files that killed replays left beside the log."""
        return [] if store.is_memory else scratch.leftovers(store.path)

    # -- health -------------------------------------------------------------------------------

    def damages(self, path: str, table: str | None = None) -> list[str]:
        """Return what SQLite's integrity check finds in the file, or in one table."""
        return connections.damages(path, table)

    def damage(self, path: str) -> CorruptFileError | None:
        """Return the error for the first of these damages; None if the file is sound."""
        return connections.damage(path)

    def problems(self, tx: Transaction) -> Iterator[Problem]:
        """Yield what needs attention in the file, beside it, and in SQLite itself."""
        return health.problems(tx)

    def is_writable(self, tx: Transaction) -> bool:
        """Whether this user may write the file and its folder."""
        return health.is_writable(tx)

    def facts(self, tx: Transaction) -> dict[str, JSON]:
        """Return what the file is and how large."""
        return health.facts(tx)

    def table_sizes(self, tx: Transaction) -> list[TableSize]:
        """Return the size of each table, the largest first."""
        return health.table_sizes(tx)


def _text_or_bytes(stored: bytes) -> str | bytes:
    try:
        return stored.decode()
    except UnicodeDecodeError:
        return stored


SQLITE = SQLiteEngine()
