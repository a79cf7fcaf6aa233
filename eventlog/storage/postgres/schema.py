"""The log's own tables on PostgreSQL."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from agents_eventlog.eventlog.errors import NewerFileError
from agents_eventlog.eventlog.storage.postgres import expressions
from agents_eventlog.eventlog.storage.transaction import Transaction

LANES: Final = 64
"""How many transactions can append at the same time. Stored positions depend on it."""

SCHEMA_VERSION: Final = 1
"""The schema version of a log without sealed payloads."""

SEALED_VERSION: Final = 2
"""That of a log with sealed payloads, in the same tables; the newest that this release knows."""

VERSION_PROPERTY: Final = "postgres_schema_version"

EVENTS: Final = """
    CREATE TABLE events (
        position        BIGINT PRIMARY KEY,
        session_id      TEXT COLLATE "C" NOT NULL,
        version         BIGINT NOT NULL CHECK (version >= 1),
        type            TEXT   NOT NULL,
        schema_version  BIGINT NOT NULL,
        branch_id       TEXT COLLATE "C",
        data            BYTEA,
        data_digest     BYTEA  NOT NULL,
        metadata        TEXT,
        idempotency_key TEXT COLLATE "C",
        recorded_at     BIGINT NOT NULL,
        digest          BYTEA  NOT NULL,
        UNIQUE (session_id, version)
    )
"""
IDEMPOTENCY_KEYS: Final = """
    CREATE UNIQUE INDEX events_idempotency_key
    ON events (session_id, idempotency_key)
    WHERE idempotency_key IS NOT NULL
"""
EVENTS_OF_LANE: Final = f"CREATE INDEX events_of_lane ON events ((position % {LANES}), position)"

GUARD: Final = """
    CREATE FUNCTION events_guard() RETURNS trigger LANGUAGE plpgsql AS $guard$
    BEGIN
        IF TG_OP = 'UPDATE' AND OLD.data IS NOT NULL AND NEW.data IS NULL THEN
            NEW.data := OLD.data;
            IF NEW = OLD THEN
                NEW.data := NULL;
                RETURN NEW;
            END IF;
        END IF;
        RAISE EXCEPTION 'events are never %', CASE TG_OP WHEN 'UPDATE' THEN 'changed' ELSE 'deleted' END
            USING ERRCODE = 'integrity_constraint_violation';
    END
    $guard$
"""
TRIGGERS: Final = {
    "events_are_never_changed": "BEFORE UPDATE ON events FOR EACH ROW",
    "events_are_never_deleted": "BEFORE DELETE ON events FOR EACH ROW",
    "events_are_never_truncated": "BEFORE TRUNCATE ON events FOR EACH STATEMENT",
}

CHECKPOINTS: Final = """
    CREATE TABLE checkpoints (
        projection TEXT COLLATE "C" PRIMARY KEY,
        version    BIGINT NOT NULL,
        position   BIGINT NOT NULL
    )
"""
PROPERTIES: Final = """
    CREATE TABLE log_properties (
        name  TEXT COLLATE "C" PRIMARY KEY,
        value TEXT NOT NULL
    )
"""
LANE_ROWS: Final = "CREATE TABLE lanes (lane BIGINT PRIMARY KEY, locked BIGINT)"
"""``locked`` is for the right to lock a row: see ``roles``."""
FILL_LANES: Final = f"INSERT INTO lanes (lane) SELECT generate_series(0, {LANES - 1})"
SESSION_LOCKS: Final = """
    CREATE TABLE session_locks (session_id TEXT COLLATE "C" PRIMARY KEY, locked BIGINT)
"""

TABLES: Final = ("events", "checkpoints", "log_properties", "lanes", "session_locks")

KINDS: Final = """
    SELECT CAST(relname AS TEXT) AS name, CAST(relkind AS TEXT) AS relkind FROM pg_class
    WHERE relnamespace = to_regnamespace(current_schema()) AND relkind IN ('r', 'p', 'v', 'm', 'f')
"""
VIEWS_OF: Final = """
    SELECT DISTINCT CAST(reader.relname AS TEXT) FROM pg_depend
    JOIN pg_rewrite ON pg_rewrite.oid = pg_depend.objid
    JOIN pg_class AS reader ON reader.oid = pg_rewrite.ev_class AND reader.relkind = 'v'
    WHERE pg_depend.refobjid = to_regclass(?) AND reader.oid <> pg_depend.refobjid
"""
INDEXES_OF: Final = """
    SELECT CAST(indexes.relname AS TEXT) FROM pg_index
    JOIN pg_class AS indexes ON indexes.oid = pg_index.indexrelid
    WHERE pg_index.indrelid = to_regclass(?)
"""
NAMES: Final = f"SELECT name FROM ({KINDS}) AS kinds"


def names(tx: Transaction) -> set[str]:
    """Return the names of the schema's tables and views."""
    return {name for (name,) in tx.all(NAMES)}


def drop(tx: Transaction, name: str) -> None:
    """Drop a table or view, if it exists, with the views that read it."""
    row = tx.one(f"SELECT relkind FROM ({KINDS}) AS kinds WHERE name = ?", (name,))
    if row is not None:
        tx.execute(f'DROP {"VIEW" if row[0] == "v" else "TABLE"} "{name}" CASCADE')


def keep(tx: Transaction, names: Sequence[str], suffix: str) -> list[str]:
    """Add a suffix to the names of tables, of their indexes, and of views that read these tables."""
    kinds = {name: kind for name, kind in tx.all(KINDS) if name in names}
    if all(kind == "v" for kind in kinds.values()):
        for name in kinds:
            drop(tx, name)
        return []
    for name, kind in kinds.items():
        for (index,) in tx.all(INDEXES_OF, (f'"{name}"',)):
            tx.execute(f'ALTER INDEX "{index}" RENAME TO "{index}{suffix}"')
        for (view,) in tx.all(VIEWS_OF, (f'"{name}"',)):
            if view not in kinds and view.removesuffix(suffix) not in kinds:
                drop(tx, view)
        what = "VIEW" if kind == "v" else "TABLE"
        tx.execute(f'ALTER {what} "{name}" RENAME TO "{name}{suffix}"')
    return list(kinds)


def identify(tx: Transaction, path: str) -> bool:
    """Return whether the schema holds a log. Raises NewerFileError for a newer release's."""
    if not names(tx) >= {"lanes", "log_properties", "events"}:
        return False
    row = tx.one("SELECT value FROM log_properties WHERE name = ?", (VERSION_PROPERTY,))
    if row is None:
        return False
    found = int(row[0])
    if found > SEALED_VERSION:
        raise NewerFileError(
            f"{path} has schema version {found}, this program knows {SEALED_VERSION}: "
            "upgrade agents-eventlog",
            path=path,
            found=found,
            known=SEALED_VERSION,
        )
    return True


def create(tx: Transaction) -> None:
    """Create the log's tables and claim the schema."""
    for statement in (
        EVENTS,
        IDEMPOTENCY_KEYS,
        EVENTS_OF_LANE,
        GUARD,
        *(
            f"CREATE TRIGGER {name} {when} EXECUTE FUNCTION events_guard()"
            for name, when in TRIGGERS.items()
        ),
        CHECKPOINTS,
        PROPERTIES,
        LANE_ROWS,
        FILL_LANES,
        SESSION_LOCKS,
        *expressions.FUNCTIONS,
    ):
        tx.execute(statement)
    tx.execute(
        "INSERT INTO log_properties (name, value) VALUES (?, ?)",
        (VERSION_PROPERTY, str(SCHEMA_VERSION)),
    )


def version(tx: Transaction) -> int:
    """Return the version of the log's own tables."""
    row = tx.one("SELECT value FROM log_properties WHERE name = ?", (VERSION_PROPERTY,))
    return 0 if row is None else int(row[0])


def begin_sealing(tx: Transaction) -> None:
    """Wait until no other transaction appends, and raise the schema version."""
    tx.all("SELECT lane FROM lanes ORDER BY lane FOR UPDATE")
    tx.execute(
        "UPDATE log_properties SET value = ? WHERE name = ?",
        (str(SEALED_VERSION), VERSION_PROPERTY),
    )
    tx.cache.pop(SealedLog, None)


@dataclass
class SealedLog:
    """Whether payloads of the log may be envelopes, as a transaction has read it."""

    is_sealed: bool | None = None

    def __len__(self) -> int:
        return 0


def is_sealed(tx: Transaction) -> bool:
    """Whether payloads of the log may be envelopes."""
    known = tx.cache[SealedLog]
    if known.is_sealed is None:
        known.is_sealed = version(tx) >= SEALED_VERSION
    return known.is_sealed
