"""How connections are made, and what SQLite's errors mean."""

from __future__ import annotations

import os
import re
import sqlite3
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import TypeAlias

from agents_eventlog.eventlog.errors import (
    BusyError,
    CorruptFileError,
    DiskError,
    DiskFullError,
    InvalidQueryError,
    NoLogError,
    NotADatabaseError,
    OpenError,
    ReadOnlyFileError,
    StoreError,
)
from agents_eventlog.eventlog.storage.engine import MEMORY
from agents_eventlog.eventlog.storage.sqlite.prefix import Connection

OLDEST_VERSION = (3, 37, 0)
"""The oldest SQLite that works: the first with STRICT tables."""

BUSY_TIMEOUT_SECONDS = 5.0
"""How long a statement waits for another process before it fails with BusyError. See ``configure``."""

WAL_SIZE_LIMIT_BYTES = 64 * 1024 * 1024
"""To what size a write-ahead log is cut back once it has been checkpointed."""

EMPTY_WAL_ATTEMPTS = 3
"""How often it is tried to empty a write-ahead log that readers hold."""

SMALLEST_DATABASE_BYTES = 512
"""SQLite's smallest page."""

BESIDE = ("-wal", "-shm", "-journal")
"""The suffixes of the files that SQLite keeps beside a database."""

URI = re.compile(r"file:|[a-z][a-z0-9+.-]+:/", re.IGNORECASE)
"""A path that begins like this is a URI or URL; a drive has one letter."""

FileId: TypeAlias = tuple[int, int]
"""Identifies a file, also after another was put in its place."""

_SYNCHRONOUS = {"full": "FULL", "normal": "NORMAL"}


def connect_for_writing(path: str, durability: str) -> Connection:
    """Open the one connection that writes. Changes nothing in the file."""
    return _connect(
        path,
        "rwc",
        f"PRAGMA synchronous={_SYNCHRONOUS[durability]}",
        "PRAGMA recursive_triggers=ON",  # or INSERT OR REPLACE slips past triggers
        f"PRAGMA journal_size_limit={WAL_SIZE_LIMIT_BYTES}",
    )


def connect_for_reading(path: str) -> Connection:
    """
    Open a connection that cannot write.

    SQLite creates two files beside a database in WAL mode that no process has open, and a connection opened
    "ro" leaves them behind. In that case the connection is opened "rw" and only reads; it removes them.
    """
    only_reads = ("PRAGMA query_only=ON", "SELECT 1 FROM sqlite_schema")
    try:
        return _connect(path, "rw" if _is_at_rest(path) else "ro", *only_reads)
    except sqlite3.OperationalError as error:
        no_right = _primary_code(error) in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY)
        # "immutable" ignores journals: never use it when one has to be rolled back.
        is_whole = error.sqlite_errorcode != sqlite3.SQLITE_READONLY_ROLLBACK
        if not (no_right and is_whole):
            raise
        if Path(f"{path}-wal").exists():
            raise ReadOnlyFileError(
                f"{path} has a write-ahead log that was not written back, {path}-wal, and SQLite can only "
                "read the two in a folder that it can write: copy both files to such a folder, or copy the "
                "original with `eventlog backup`, which leaves no write-ahead log",
                path=path,
            ) from error
        # Neither the folder nor the file can be written: no process writes, so no -shm file is needed.
        return _connect(path, "ro&immutable=1", *only_reads)


def connect_to_keys(path: str, pragmas: Sequence[str]) -> Connection:
    """Open a file of keys, which must exist; read-only where it cannot be written."""
    if not Path(path).exists():
        raise _error(f"{path} does not exist", sqlite3.SQLITE_CANTOPEN)
    statements = [f"PRAGMA {pragma}" for pragma in pragmas]
    return _connect(path, "rw", *statements)


def _is_at_rest(path: str) -> bool:
    """Whether no process has the file open, it needs no rollback, and it can be written."""
    file = Path(path)
    return (
        os.access(file, os.W_OK)
        and os.access(file.parent, os.W_OK)
        and not Path(f"{path}-wal").exists()
        and not Path(f"{path}-journal").exists()
    )


def _connect(path: str, mode: str, *statements: str) -> Connection:
    """Open a connection and run statements on it; where one fails, nothing stays open."""
    if is_beside_database(path):  # closing a -shm file drops the locks of those that have it open
        raise _error("file is not a database", sqlite3.SQLITE_NOTADB)
    target = path if path == ":memory:" else f"{Path(path).absolute().as_uri()}?mode={mode}"
    connection = sqlite3.connect(
        target,
        uri=target != path,
        isolation_level=None,
        check_same_thread=False,
        cached_statements=512,
        timeout=BUSY_TIMEOUT_SECONDS,
        factory=Connection,
    )
    try:
        for statement in statements:
            connection.execute(statement).fetchall()
    except UnicodeDecodeError as error:  # a damaged schema, quoted in SQLite's message
        connection.close()
        raise _error("malformed database schema", sqlite3.SQLITE_CORRUPT) from error
    except BaseException:
        connection.close()
        raise
    return connection


def _error(message: str, code: int) -> sqlite3.Error:
    error = sqlite3.DatabaseError(message)
    error.sqlite_errorcode = code
    return error


def is_database(path: str) -> bool:
    """
    Whether an existing file is a SQLite database. Raises a sqlite3.Error if it cannot be read.

    SQLite has to answer this. If Python opened the file and closed it, POSIX would drop all locks that
    SQLite holds on it in this process; another process could then delete the write-ahead log in use.
    """
    if Path(path).stat().st_size < SMALLEST_DATABASE_BYTES:
        return False
    try:
        connect_for_reading(path).close()
    except sqlite3.DatabaseError as error:
        if _primary_code(error) == sqlite3.SQLITE_NOTADB:
            return False
        raise
    return True


def is_beside_database(path: str) -> bool:
    """Whether a name is that of a write-ahead log, its index or a journal of an existing database."""
    for ending in BESIDE:
        database = path.removesuffix(ending)
        if database != path and Path(database).is_file():
            return is_database(database)
    return False


def switch_to_wal(connection: sqlite3.Connection) -> None:
    """
    Make the file use a write-ahead log, once, waiting for others that do the same.

    When several processes switch a new file together, SQLite answers "locked" at once and ignores the
    busy timeout.
    """
    deadline = time.monotonic() + BUSY_TIMEOUT_SECONDS
    while True:
        try:
            if connection.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
                connection.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as error:
            busy = _primary_code(error) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
            if not busy or time.monotonic() >= deadline:
                raise
            time.sleep(0.01)
        else:
            return


def damages(path: str, table: str | None = None) -> list[str]:
    """
    Return what SQLite finds wrong with a file, or a table and its indexes; it takes a while.

    Uses a connection of its own, so that no other read waits for it. Raises a documented error for a file
    that cannot be read at all.
    """
    try:
        with closing(connect_for_reading(path)) as connection:
            connection.recognise()
            check = (
                "PRAGMA integrity_check" if table is None else f"PRAGMA integrity_check('{table}')"
            )
            found = connection.execute(check).fetchall()
    except sqlite3.Error as error:
        raise translated(error, path) from error
    lines = [line for (problem,) in found for line in problem.splitlines()]
    return [line for line in lines if line not in {"ok", "*** in database main ***"}]


def damage(path: str) -> CorruptFileError | None:
    """Return the error for the first thing that ``damages`` finds; None for a sound file."""
    found = damages(path)
    return CorruptFileError(f"{path} is damaged: {found[0]}", path=path) if found else None


def empty_wal(connection: sqlite3.Connection) -> bool:
    """
    Write the write-ahead log back into the file and cut it to nothing.

    Each attempt waits for readers as long as any statement does. Returns whether none was in the way
    at last.
    """
    for _ in range(EMPTY_WAL_ATTEMPTS):
        busy, *_ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        if not busy:
            return True
    return False


def resolve(path: str | os.PathLike[str]) -> str:
    """
    Return the one name under which a file is known: absolute, ``~`` expanded, links followed.

    Raises OpenError for a URI or URL, which would be the name of an unexpected file.
    """
    text = os.fspath(path)
    if URI.match(text):
        raise OpenError(
            f"invalid path {text!r}: expected a path or {MEMORY!r}, got a URI; "
            f"if a file has this name, open {f'./{text}'!r}",
            path=text,
        )
    if text == MEMORY:
        return text
    return os.path.realpath(Path(text).expanduser() if text.startswith("~") else text)


def file_id(path: str) -> FileId | None:
    """Return the identity of the file at this path; None if the path has no file."""
    try:
        status = os.stat(path)  # noqa: PTH116 - for each session; to make a Path takes longer
    except OSError:
        return None
    return status.st_dev, status.st_ino


def check_version(path: str) -> None:
    """Raise an OpenError if SQLite itself is too old."""
    if sqlite3.sqlite_version_info < OLDEST_VERSION:
        oldest = ".".join(map(str, OLDEST_VERSION))
        raise OpenError(
            f"SQLite is too old: expected {oldest} or newer, got {sqlite3.sqlite_version}",
            path=path,
        )


def check_path(path: str, *, create: bool) -> None:
    """Raise an OpenError for a path that can never be a log, before SQLite opens it."""
    file = Path(path)
    if file.is_dir():
        raise NotADatabaseError(f"{path} is a folder, not a file", path=path)
    if not file.parent.is_dir():
        raise OpenError(f"the folder {file.parent} does not exist", path=path)
    size = file.stat().st_size if file.exists() else 0
    if 0 < size < SMALLEST_DATABASE_BYTES:  # SQLite itself would take it for an empty one
        raise NotADatabaseError(f"{path} is not a SQLite database", path=path)
    if not create and size == 0:
        raise NoLogError(f"{path} contains no event log", path=path)


def read_only_error(path: str) -> ReadOnlyFileError:
    """Return the error for writing where only reading is possible."""
    beside = [f"{path}{ending}" for ending in ("-wal", "-shm")]
    kept = [name for name in beside if Path(name).exists() and not os.access(name, os.W_OK)]
    if kept:  # left by an SQLite that read the file without permission to write it
        return ReadOnlyFileError(f"{kept[0]} cannot be written", path=path)
    return ReadOnlyFileError(f"{path} or its folder cannot be written", path=path)


def translated(error: BaseException, path: str) -> BaseException:
    """Return the documented error for one of sqlite3's, with that as its cause; other errors unchanged."""
    if isinstance(error, sqlite3.Error):
        mapped = _mapped(error, path)
    elif isinstance(error, UnicodeEncodeError):
        mapped = InvalidQueryError("invalid text: it contains an unpaired surrogate")
    else:
        return error
    mapped.__cause__ = error
    return mapped


def _mapped(error: sqlite3.Error, path: str) -> BaseException:
    code = _primary_code(error)
    if (
        getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_BUSY_SNAPSHOT
    ):  # at once: waiting would not help
        return BusyError(
            f"{path} was changed after this transaction began to read, so it cannot write: try again",
            path=path,
        )
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return BusyError(
            f"{path} was locked by another process for over {BUSY_TIMEOUT_SECONDS:g} seconds",
            path=path,
        )
    if code == sqlite3.SQLITE_FULL:
        return DiskFullError(f"the disk is full: cannot write {path}", path=path)
    if code == sqlite3.SQLITE_IOERR:
        return DiskError(f"the disk failed at {path}: {error}", path=path)
    if code == sqlite3.SQLITE_NOTADB:
        return NotADatabaseError(f"{path} is not a SQLite database", path=path)
    if code == sqlite3.SQLITE_CORRUPT:
        return CorruptFileError(f"{path} is damaged: {error}", path=path)
    if code == sqlite3.SQLITE_READONLY:
        return read_only_error(path)
    if code in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM):
        return _cannot_open(error, path)
    return StoreError(f"SQLite failed on {path}: {error}", path=path)


def _cannot_open(error: sqlite3.Error, path: str) -> OpenError:
    file = Path(path)
    if file.exists() and not (os.access(file, os.W_OK) and os.access(file.parent, os.W_OK)):
        return read_only_error(path)
    if not file.exists() and not os.access(file.parent, os.W_OK):
        return ReadOnlyFileError(f"the folder {file.parent} cannot be written", path=path)
    return OpenError(f"{path} cannot be opened: {error}", path=path)


def _primary_code(error: sqlite3.Error) -> int:
    return getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
