"""How connections are made, what runs on them, and what PostgreSQL's errors mean."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Final

import psycopg

from agents_eventlog.eventlog.errors import (
    BusyError,
    CorruptFileError,
    DiskError,
    DiskFullError,
    InvalidQueryError,
    OpenError,
    ReadOnlyFileError,
    StoreError,
    UnknownOutcomeError,
)
from agents_eventlog.eventlog.storage import registry
from agents_eventlog.eventlog.storage.postgres import adaptation, dialect, dsn
from agents_eventlog.eventlog.storage.postgres.locks import Claim

CONNECT_TIMEOUT_SECONDS: Final = 10

SETTINGS_OF_TRANSACTION: Final = """
    SELECT set_config('search_path', ?, TRUE),
        set_config('client_min_messages', ?, TRUE),
        set_config('lock_timeout', ?, TRUE),
        set_config(
            'synchronous_commit',
            CASE
                WHEN ? = 'off' THEN 'off'
                WHEN current_setting('synchronous_commit') IN ('off', 'local') THEN 'on'
                ELSE current_setting('synchronous_commit')
            END,
            TRUE
        )
"""
"""What a transaction of a pooled connection sets for itself, because others use the connection, too."""

AT_LEAST_ON: Final = """
    SELECT set_config('synchronous_commit', 'on', false)
    WHERE current_setting('synchronous_commit') IN ('off', 'local')
"""
"""The server's default may be stricter: it may wait for replicas to apply a commit."""

ADVICE: Final = "add pooling=transaction to the URL"

READS: Final = (
    *("SELECT", "WITH", "DECLARE", "FETCH"),
    *("BEGIN", "COMMIT", "ROLLBACK", "LOCK"),
)
"""How a statement begins that changes no row."""

REPEATABLE: Final = frozenset(
    {
        "40001",  # serialization failure
        "40P01",  # deadlock
        "55P03",  # a row was locked
        "42P07",  # another transaction has just created the table
    }
)
"""Errors after which nothing was written, and the same transaction may succeed."""


def is_repeatable(error: psycopg.Error) -> bool:
    """Whether the server rolled back for a reason that may be gone the next time."""
    state = error.sqlstate or ""
    # A table that another transaction creates at the same moment is a duplicate in the catalog.
    is_catalog = state == "23505" and error.diag.schema_name == "pg_catalog"
    return state in REPEATABLE or is_catalog


class LostConnectionError(psycopg.OperationalError):
    """The connection was lost, and the transaction has had no effect."""


class LostCommitError(psycopg.OperationalError):
    """The connection was lost in the commit, and whether that took effect is unknown."""


class Connection:
    """One connection to the server, with statements of the shared subset."""

    def __init__(self, name: str, *, durability: str = "full", read_only: bool = False) -> None:
        target = dsn.target(name)
        timeout = round(registry.limits.busy_timeout_seconds * 1000)
        settings = {
            "search_path": target.schema,
            "client_min_messages": "warning",
            "lock_timeout": str(timeout),
        }
        self._settings: tuple[str, ...] | None = None
        options: dict[str, Any] = {"prepare_threshold": None}
        if target.is_pooled:
            self._settings = (*settings.values(), "on" if durability == "full" else "off")
        else:
            if durability != "full":
                settings["synchronous_commit"] = "off"
            options = {"options": " ".join(f"-c {key}={value}" for key, value in settings.items())}
        self.raw: psycopg.Connection[Any] = psycopg.connect(
            target.conninfo,
            autocommit=True,
            cursor_factory=psycopg.RawCursor,
            connect_timeout=CONNECT_TIMEOUT_SECONDS,
            **options,
        )
        adaptation.register(self.raw)
        if not target.is_pooled:
            self._check_search_path(name, target.schema)
            if durability == "full" and not read_only:
                self.raw.execute(AT_LEAST_ON)
        self._pipeline: AbstractContextManager[psycopg.Pipeline] | None = None
        self.process_id = self.raw.info.backend_pid
        self.total_changes = 0
        self.claim: Claim | None = None

    def _check_search_path(self, name: str, schema: str) -> None:
        """Refuse a pooler that ignores the settings of connections: the log would be in another schema."""
        found = self.raw.execute("SELECT current_setting('search_path')").fetchone()
        if found != (schema,):
            self.raw.close()
            raise OpenError(f"{name}: a pooler ignored search_path: {ADVICE}", path=name)

    def begin_pipeline(self) -> None:
        """Send statements without waiting for each one's result, until the end of the transaction."""
        self._pipeline = self.raw.pipeline()
        self._pipeline.__enter__()

    def begin(self, statement: str) -> None:
        """Begin a transaction, with its settings if the connection is pooled."""
        if self._settings is None:
            self.execute(statement)
            return
        with nullcontext() if self.is_pipelined else self.raw.pipeline():
            self.execute(statement)
            self.execute(SETTINGS_OF_TRANSACTION, self._settings)

    def ask(self, sql: str, parameters: Sequence[Any]) -> Any:
        """Return the first row of a statement outside of any transaction, or None."""
        if self._settings is None:
            return self.execute(sql, parameters).fetchone()
        with self.raw.transaction():
            self.execute(SETTINGS_OF_TRANSACTION, self._settings)
            return self.execute(sql, parameters).fetchone()

    @property
    def is_pipelined(self) -> bool:
        """Whether statements are sent without waiting for results."""
        return self._pipeline is not None

    def end_pipeline(self) -> None:
        """Wait for the results of all statements; raise the error of the first that failed."""
        if self._pipeline is not None:
            pipeline, self._pipeline = self._pipeline, None
            pipeline.__exit__(None, None, None)

    def execute(self, sql: str, parameters: Sequence[Any] = ()) -> psycopg.RawCursor[Any]:
        """Run a statement."""
        cursor = psycopg.RawCursor(self.raw)
        cursor.execute(dialect.translated(sql), parameters or None)
        if not sql.lstrip().startswith(READS):
            self.total_changes += max(cursor.rowcount, 1)
        return cursor

    def executemany(self, sql: str, rows: Iterable[Sequence[Any]]) -> None:
        """Run a statement for each row."""
        wanted = list(rows)
        if wanted:
            self.raw.cursor().executemany(dialect.translated(sql), wanted)
            self.total_changes += len(wanted)

    def sync(self) -> None:
        """Wait for the results of all statements so far."""
        if self._pipeline is not None:
            self.end_pipeline()
            self.begin_pipeline()

    @property
    def is_lost(self) -> bool:
        """Whether the connection was lost or closed."""
        return self.raw.closed

    def close(self) -> None:
        """Close the connection."""
        self.raw.close()


def connect(name: str, *, durability: str = "full", read_only: bool = False) -> Connection:
    """Open a connection. Raises an OpenError."""
    return Connection(name, durability=durability, read_only=read_only)


def translated(error: BaseException, path: str) -> BaseException:
    """Return the documented error for one of psycopg's, with that as its cause; others unchanged."""
    if isinstance(error, psycopg.Error):
        mapped = _mapped(error, path)
    elif isinstance(error, UnicodeEncodeError):
        mapped = InvalidQueryError("invalid text: it contains an unpaired surrogate")
    else:
        return error
    mapped.__cause__ = error
    return mapped


def _mapped(error: psycopg.Error, path: str) -> BaseException:
    state = error.sqlstate or ""
    message = str(error).partition("\n")[0]
    if isinstance(error, LostCommitError):
        return UnknownOutcomeError(
            f"the connection to {path} was lost in a commit: it is unknown whether that took effect",
            path=path,
        )
    if state == "57014":
        return BusyError(f"the server cancelled a statement on {path}: {message}", path=path)
    if state in REPEATABLE:
        return BusyError(
            f"{path} was locked by another transaction for over "
            f"{registry.limits.busy_timeout_seconds:g} seconds",
            path=path,
        )
    if state == "53100":
        return DiskFullError(f"no room left on the disk for {path}", path=path)
    if state == "58030":
        return DiskError(f"the disk failed under {path}: {message}", path=path)
    if state.startswith("XX00") and state != "XX000":
        return CorruptFileError(f"{path} is damaged: {message}", path=path)
    if state in ("42501", "25006"):
        return ReadOnlyFileError(f"{path} cannot be written: {message}", path=path)
    if "startup parameter" in message:
        return OpenError(f"cannot connect to {path}: {message}: {ADVICE}", path=path)
    if not state or state.startswith(("08", "28", "3D", "57P")):
        return OpenError(f"cannot connect to {path}: {message}", path=path)
    return StoreError(f"PostgreSQL failed on {path}: {message}", path=path)
