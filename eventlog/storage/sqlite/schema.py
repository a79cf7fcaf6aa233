"""The log's own tables, and the migration of older files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from agents_eventlog.eventlog.errors import ForeignFileError, NewerFileError
from agents_eventlog.eventlog.storage.sqlite import prefix
from agents_eventlog.eventlog.storage.sqlite.prefix import APPLICATION_ID, PREFIX, SharedConnection
from agents_eventlog.eventlog.storage.transaction import Transaction

USER_VERSION: Final = 1
"""The schema version of a log without sealed payloads."""

SEALED_VERSION: Final = 2
"""That of a log with sealed payloads, the newest that this release knows."""

EVENTS: Final = """
    CREATE TABLE events (
        position        INTEGER PRIMARY KEY AUTOINCREMENT,
        session_id      TEXT    NOT NULL,
        version         INTEGER NOT NULL CHECK (version >= 1),
        type            TEXT    NOT NULL,
        schema_version  INTEGER NOT NULL,
        branch_id       TEXT,
        data            TEXT,
        data_digest     BLOB    NOT NULL,
        metadata        TEXT,
        idempotency_key TEXT,
        recorded_at     INTEGER NOT NULL,
        digest          BLOB    NOT NULL,
        UNIQUE (session_id, version)
    ) STRICT
"""

IDEMPOTENCY_KEYS: Final = """
    CREATE UNIQUE INDEX events_idempotency_key
    ON events (session_id, idempotency_key)
    WHERE idempotency_key IS NOT NULL
"""

NO_UPDATE: Final = """
    CREATE TRIGGER events_are_never_changed
    BEFORE UPDATE ON events
    WHEN NOT (
        OLD.data IS NOT NULL AND NEW.data IS NULL
        AND NEW.position IS OLD.position
        AND NEW.session_id IS OLD.session_id
        AND NEW.version IS OLD.version
        AND NEW.type IS OLD.type
        AND NEW.schema_version IS OLD.schema_version
        AND NEW.branch_id IS OLD.branch_id
        AND NEW.data_digest IS OLD.data_digest
        AND NEW.metadata IS OLD.metadata
        AND NEW.idempotency_key IS OLD.idempotency_key
        AND NEW.recorded_at IS OLD.recorded_at
        AND NEW.digest IS OLD.digest
    )
    BEGIN
        SELECT RAISE(ABORT, 'events are never changed');
    END
"""

ADD_SEALED: Final = "ALTER TABLE events ADD COLUMN sealed BLOB"

NO_UPDATE_SEALED: Final = NO_UPDATE.replace(
    "OLD.data IS NOT NULL AND NEW.data IS NULL",
    "(OLD.data IS NOT NULL OR OLD.sealed IS NOT NULL) AND NEW.data IS NULL AND NEW.sealed IS NULL",
)

NO_INSERT_OF_BOTH: Final = """
    CREATE TRIGGER events_have_one_payload
    BEFORE INSERT ON events
    WHEN NEW.data IS NOT NULL AND NEW.sealed IS NOT NULL
    BEGIN
        SELECT RAISE(ABORT, 'events have one payload');
    END
"""

NO_DELETE: Final = """
    CREATE TRIGGER events_are_never_deleted
    BEFORE DELETE ON events
    BEGIN
        SELECT RAISE(ABORT, 'events are never deleted');
    END
"""

CHECKPOINTS: Final = """
    CREATE TABLE checkpoints (
        projection TEXT    PRIMARY KEY,
        version    INTEGER NOT NULL,
        position   INTEGER NOT NULL
    ) STRICT
"""

PROPERTIES: Final = """
    CREATE TABLE log_properties (
        name  TEXT PRIMARY KEY,
        value TEXT NOT NULL
    ) STRICT
"""

# In a file with other tables, user_version is the application's.
SELECT_VERSION: Final = "SELECT value FROM log_properties WHERE name = 'schema_version'"
INSERT_VERSION: Final = "INSERT INTO log_properties (name, value) VALUES ('schema_version', ?)"
UPDATE_VERSION: Final = "UPDATE log_properties SET value = ? WHERE name = 'schema_version'"

TABLES: Final = ("events", "checkpoints", "log_properties")


def identify(tx: Transaction, path: str) -> bool:
    """
    Return whether the file holds a log; False if it was not claimed yet.

    Raises ForeignFileError for another program's file, NewerFileError for a newer release's.
    """
    if not isinstance(tx.connection, SharedConnection):
        application_id = _pragma(tx, "application_id")
        if application_id == 0:
            return False
        if application_id != APPLICATION_ID:
            raise ForeignFileError(
                f"{path} is another program's database (application id {application_id:#x})",
                path=path,
            )
    version = schema_version(tx)
    if version > SEALED_VERSION:
        raise NewerFileError(
            f"{path} has schema version {version}, this program knows {SEALED_VERSION}: "
            "upgrade agents-eventlog",
            path=path,
            found=version,
            known=SEALED_VERSION,
        )
    return True


def schema_version(tx: Transaction) -> int:
    """Return the version of the log's own tables."""
    if isinstance(tx.connection, SharedConnection):
        row = tx.one(SELECT_VERSION)
        return 0 if row is None else int(row[0])
    return _pragma(tx, "user_version")


def _pragma(tx: Transaction, name: str) -> int:
    row = tx.one(f"PRAGMA {name}")
    return 0 if row is None else int(row[0])


def create(tx: Transaction, *, shared_path: str | None = None) -> None:
    """
    Make the log's tables and claim the file.

    shared_path: the path of a file with other tables; the names of the log's then have a prefix.
    """
    if shared_path is not None:
        _share(tx, shared_path)
    for statement in (EVENTS, IDEMPOTENCY_KEYS, NO_UPDATE, NO_DELETE, CHECKPOINTS, PROPERTIES):
        tx.execute(statement)
    if shared_path is not None:
        tx.execute(INSERT_VERSION, (str(USER_VERSION),))
        return
    tx.execute(f"PRAGMA application_id={APPLICATION_ID}")
    tx.execute(f"PRAGMA user_version={USER_VERSION}")


def _share(tx: Transaction, path: str) -> None:
    """Use names with a prefix. Raises ForeignFileError if the file has one of those already."""
    if taken := tx.all(prefix.NAMES):
        raise ForeignFileError(
            f"{path} has a table {taken[0][0]!r} already: expected no name that begins with {PREFIX!r}",
            path=path,
        )
    connection = tx.connection
    prefix.share(connection)
    tx.on_rollback(lambda: prefix.unshare(connection))


@dataclass
class _Columns:
    """What a connection remembers of the table of events."""

    has_sealed: bool | None = None

    def __len__(self) -> int:
        return 0


def has_sealed(tx: Transaction) -> bool:
    """Whether the log has a column for sealed payloads; remembered until another connection commits."""
    columns = tx.cache[_Columns]
    if columns.has_sealed is None:
        columns.has_sealed = schema_version(tx) >= SEALED_VERSION
    return columns.has_sealed


def triggers(tx: Transaction) -> dict[str, str]:
    """Return the statements of the triggers that protect the log's events, by name."""
    sealed = has_sealed(tx)
    return {
        "events_are_never_changed": NO_UPDATE_SEALED if sealed else NO_UPDATE,
        "events_are_never_deleted": NO_DELETE,
        **({"events_have_one_payload": NO_INSERT_OF_BOTH} if sealed else {}),
    }


def begin_sealing(tx: Transaction) -> None:
    """Add the column for sealed payloads, without a rewrite of the table, and raise the schema version."""
    tx.execute(ADD_SEALED)
    changing = prefix.name_in_file(tx.connection, "events_are_never_changed")
    tx.execute(f'DROP TRIGGER "{changing}"')
    tx.execute(NO_UPDATE_SEALED)
    tx.execute(NO_INSERT_OF_BOTH)
    if isinstance(tx.connection, SharedConnection):
        tx.execute(UPDATE_VERSION, (str(SEALED_VERSION),))
    else:
        tx.execute(f"PRAGMA user_version={SEALED_VERSION}")
    tx.cache.pop(_Columns, None)
