"""The PostgreSQL engine: what PostgreSQL does differently, gathered from the modules beside it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any, cast

import psycopg

from agents_eventlog.eventlog.errors import CorruptFileError, OpenError
from agents_eventlog.eventlog.events import JSON
from agents_eventlog.eventlog.storage import registry
from agents_eventlog.eventlog.storage.engine import (
    CREATE_FULL_TEXT,
    Durability,
    Problem,
    Store,
    Table,
    TableSize,
)
from agents_eventlog.eventlog.storage.postgres import (
    dialect,
    dsn,
    expressions,
    full_text,
    health,
    locks,
    roles,
    schema,
)
from agents_eventlog.eventlog.storage.postgres.connections import Connection
from agents_eventlog.eventlog.storage.postgres.cursor import ScanCursor, UnitCursor
from agents_eventlog.eventlog.storage.postgres.store import Store as PostgresStore
from agents_eventlog.eventlog.storage.sqlite.engine import SQLITE
from agents_eventlog.eventlog.storage.store import BaseStore
from agents_eventlog.eventlog.storage.transaction import Lane, Transaction

COMPLETE = 2**62
"""The checkpoint of a projection that every writer keeps: up to all that is committed."""


class PostgresEngine:
    """One schema for each log; transactions of many servers append to its lanes."""

    name = "PostgreSQL"
    log_tables: Sequence[str] = schema.TABLES
    full_text = full_text.PostgresFullText()
    last_position = "(SELECT MAX(position) FROM events)"
    value_too_long: type[Exception] = psycopg.errors.ProgramLimitExceeded

    # -- lanes --------------------------------------------------------------------------------

    lanes = schema.LANES
    previous_position = locks.PREVIOUS_POSITION
    complete_checkpoint = str(COMPLETE)

    def claim_lane(self, tx: Transaction) -> Lane:
        """Lock a lane, and return its end."""
        return locks.claim(tx)

    def lane_ends(self, tx: Transaction) -> list[Lane]:
        """Return the ends of the lanes that have events."""
        return locks.ends(tx)

    def events_after(self, ends: Sequence[int], limit: int) -> tuple[str, tuple[Any, ...]]:
        """Return what follows ``FROM events`` to select those after a position in each lane."""
        return locks.events_after(ends, limit)

    def lock_session(self, tx: Transaction, session_id: str) -> None:
        """Have a session to oneself until the commit."""
        locks.lock_session(tx, session_id)

    def lock_projections(self, tx: Transaction) -> None:
        """Wait for the transactions that write: each has read the checkpoints."""
        tx.execute("LOCK TABLE checkpoints IN ACCESS EXCLUSIVE MODE")

    def grant(self, tx: Transaction, role: str) -> None:
        """Give a role the rights of an application."""
        roles.grant(tx, role)

    def text_as_stored(self, tx: Transaction) -> AbstractContextManager[None]:
        """Do nothing: the server accepts valid text only."""
        return nullcontext()

    # -- opening ------------------------------------------------------------------------------

    def resolve(self, path: str | os.PathLike[str]) -> str:
        """Return the URL of a log without its password, with the schema."""
        return dsn.resolve(str(path))

    def check_path(self, path: str, *, create: bool) -> None:
        """Do nothing: connecting shows whether it can be a log."""

    def acquire(
        self,
        path: str,
        *,
        user: object,
        durability: Durability,
        prepare: Callable[[Store, bool], None],
    ) -> Store:
        """Return the store of a log, opened if necessary, and register its user."""
        create = partial(PostgresStore, path, engine=self, durability=durability)
        return registry.acquire(
            path, user=user, durability=durability, prepare=prepare, create=create
        )

    def open_read_only(self, path: str, prepare: Callable[[Store], None]) -> Store:
        """Return a store of its own that cannot write."""
        store = PostgresStore(path, engine=self, read_only=True)
        return registry.private(store, prepare)

    def release(self, store: Store, user: object) -> None:
        """Unregister a user. The last one closes the store."""
        registry.release(cast("BaseStore", store), user)

    # -- the log's own tables -----------------------------------------------------------------

    def exists(self, path: str) -> bool:
        """Return True: whether there is a log is answered by reading."""
        return True

    def identify(self, tx: Transaction, path: str) -> bool:
        """Return whether the schema holds a log; False if nothing has claimed it yet."""
        return schema.identify(tx, path)

    def create_log(self, tx: Transaction, *, shared_path: str | None = None) -> None:
        """Create the log's own tables and claim the schema, which has no other tables."""
        schema.create(tx)

    # -- envelopes ----------------------------------------------------------------------------

    def is_sealed(self, tx: Transaction) -> bool:
        """Whether payloads of the log may be envelopes."""
        return schema.is_sealed(tx)

    def envelope_column(self, tx: Transaction) -> str | None:
        """Return "data": it holds bytes, and JSON never begins as an envelope does."""
        return "data"

    def begin_sealing(self, tx: Transaction) -> None:
        """Wait until no other transaction appends, and raise the schema version."""
        schema.begin_sealing(tx)

    # -- statements ---------------------------------------------------------------------------

    def cursor(self, connection: Connection) -> UnitCursor:
        """Return a new cursor of a connection, for a unit of work."""
        return UnitCursor(connection)

    def scan_cursor(self, connection: Connection) -> UnitCursor:
        """Return a new cursor that fetches its rows in parts, except beside statements without results."""
        return UnitCursor(connection) if connection.is_pipelined else ScanCursor(connection)

    event_time = expressions.EVENT_TIME
    item_json = expressions.ITEM
    item_text = expressions.ITEM_TEXT
    current_time = expressions.CURRENT_TIME

    def iso_time(self, microseconds: str) -> str:
        """Return an expression for a time as ISO 8601 text, in UTC."""
        return expressions.iso_time(microseconds)

    # -- tables -------------------------------------------------------------------------------

    def table_names(self, tx: Transaction) -> set[str]:
        """Return the names of all tables and views of the schema."""
        return schema.names(tx)

    def drop(self, tx: Transaction, name: str) -> None:
        """Drop a table or view, if it exists, with the views that read it."""
        schema.drop(tx, name)

    def keep_tables(self, tx: Transaction, names: Sequence[str], suffix: str) -> list[str]:
        """Add a suffix to the names of tables, their indexes and views; return the old names."""
        return schema.keep(tx, names, suffix)

    def create_statement(self, statement: str) -> str:
        """Return a CREATE statement as PostgreSQL takes it."""
        if statement == CREATE_FULL_TEXT:
            return full_text.CREATE
        return dialect.create_statement(statement)

    def tables(self, statements: Sequence[str]) -> tuple[Table, ...]:
        """Return the tables that these statements create, as SQLite parses them."""
        return SQLITE.tables(statements)

    def scratch(self, path: str = "") -> AbstractContextManager[Transaction]:
        """Open an empty SQLite database: what a replay builds needs no server until it is finished."""
        return SQLITE.scratch(path)

    @contextmanager
    def scratch_file(self, store: Store) -> Iterator[str]:
        """Provide the path of a temporary SQLite database, which needs no file of a name."""
        yield ""

    def copy_from_scratch(self, tx: Transaction, scratch: Transaction, table: Table) -> None:
        """Fill an empty table from a scratch database, as one stream."""
        columns = ", ".join(f'"{column}"' for column in table.columns)
        rows = scratch.execute(f'SELECT {columns} FROM "{table.name}"')
        tx.connection.end_pipeline()  # which cannot copy
        name = tx.name_of(table.name)
        with tx.connection.raw.cursor().copy(f'COPY "{name}" ({columns}) FROM STDIN') as copy:
            for row in rows:
                copy.write_row(row)

    def copying(self, path: str, target: str) -> AbstractContextManager[str]:
        """Raise OpenError: PostgreSQL has programs of its own for backups."""
        raise OpenError(f"cannot copy {path} as a file: use pg_dump or pg_basebackup", path=path)

    def leftovers(self, store: Store) -> list[Path]:
        """Return an empty list: a killed replay leaves nothing."""
        return []

    # -- health -------------------------------------------------------------------------------

    def damages(self, path: str, table: str | None = None) -> list[str]:
        """Return an empty list: the server checks its own pages (``pg_amcheck`` checks indexes)."""
        return []

    def damage(self, path: str) -> CorruptFileError | None:
        """Return None."""
        return None

    def problems(self, tx: Transaction) -> Iterator[Problem]:
        """Yield what needs attention in the schema and in the server's settings."""
        return health.problems(tx)

    def is_writable(self, tx: Transaction) -> bool:
        """Whether the role may append, and the server is not a replica."""
        return health.is_writable(tx)

    def facts(self, tx: Transaction) -> dict[str, JSON]:
        """Return what the storage is and how large."""
        return health.facts(tx)

    def table_sizes(self, tx: Transaction) -> list[TableSize]:
        """Return the size of each table, the largest first."""
        return health.table_sizes(tx)


POSTGRES_ENGINE = PostgresEngine()
