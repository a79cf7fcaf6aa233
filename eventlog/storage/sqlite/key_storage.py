"""The file of keys: an SQLite database of its own, which keeps nothing that was deleted."""

from __future__ import annotations

import sqlite3
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, NamedTuple

from agents_eventlog.eventlog.errors import ForeignFileError, OpenError
from agents_eventlog.eventlog.storage.keys import OneConnection
from agents_eventlog.eventlog.storage.sqlite import connections

APPLICATION_ID: Final = 0x65766C6B  # "evlk"
USER_VERSION: Final = 1
PRAGMAS: Final = (
    "secure_delete=ON",
    "synchronous=EXTRA",
    "journal_mode=DELETE",
    "temp_store=MEMORY",
)


SETTLED_NANOSECONDS: Final = 100_000_000
"""After this time, every further change of a file has another time: the clock of files has ticked."""


class _Signature(NamedTuple):
    """What the file system says of a file: it changes with each commit, because there is one file only."""

    modified_at: int
    changed_at: int
    bytes: int
    number: int


class SQLiteKeyStorage(OneConnection):
    """
    The file of keys, with one connection for each process.

    It has no write-ahead log, which would keep the wrapped keys that were deleted.
    """

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self._connection: sqlite3.Connection | None = None
        self._dropped: weakref.finalize[..., SQLiteKeyStorage] | None = None
        self._data_version: int | None = None
        self._signature: _Signature | None = None

    def exists(self) -> bool:
        """Whether there is a file that is not empty."""
        file = Path(self.path)
        return file.exists() and file.stat().st_size > 0

    def create(self, statements: tuple[str, ...]) -> None:
        """Create the tables, in a file that only its owner can read."""
        file = Path(self.path)
        if not file.parent.is_dir():
            raise OpenError(f"the folder {file.parent} does not exist", path=self.path)
        try:
            file.touch(mode=0o600, exist_ok=True)
        except OSError as error:
            raise OpenError(
                f"{self.path} cannot be created: {error.strerror}", path=self.path
            ) from error
        with self._used(check=False) as connection:
            connection.execute("BEGIN IMMEDIATE")
            if self._identity(connection) == 0:
                for statement in statements:
                    connection.execute(statement)
                connection.execute(f"PRAGMA application_id={APPLICATION_ID}")
                connection.execute(f"PRAGMA user_version={USER_VERSION}")
            connection.execute("COMMIT")
            self._check(connection)

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """Run the block in a transaction; it is durable at the end of the block."""
        with self._used() as connection:
            connection.execute("BEGIN IMMEDIATE")
            yield connection
            connection.execute("COMMIT")

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """Run the block in a transaction that only reads."""
        with self._used() as connection:
            connection.execute("BEGIN")
            yield connection
            connection.execute("COMMIT")

    def changed(self) -> bool:
        """Whether another connection has written since the last call."""
        file = _signature(self.path)
        if file == self._signature and time.time_ns() - file.modified_at > SETTLED_NANOSECONDS:
            return False  # asking SQLite takes several times as long
        self._signature = file
        with self._used() as connection:
            version = connection.execute("PRAGMA data_version").fetchone()[0]
            before, self._data_version = self._data_version, version
        return bool(before != version)

    def close(self) -> None:
        """Close the connection; the next use opens it again."""
        with self._lock:
            self._close()

    # -- connection ---------------------------------------------------------------------------

    @contextmanager
    def _used(self, *, check: bool = True) -> Iterator[sqlite3.Connection]:
        with self._lock:
            try:
                connection = self._open(check=check)
                try:
                    yield connection
                finally:
                    if connection.in_transaction:
                        connection.execute("ROLLBACK")
            except OpenError:
                self._close()
                raise
            except sqlite3.Error as error:
                self._close()
                raise connections.translated(error, self.path) from error

    def _open(self, *, check: bool) -> sqlite3.Connection:
        if self._connection is None:
            self._data_version = None
            connection = connections.connect_to_keys(self.path, PRAGMAS)
            try:
                if check:
                    self._check(connection)
            except BaseException:
                connection.close()
                raise
            self._connection = connection
            # Python 3.13 warns of a connection that is dropped open, and keys need not be closed.
            self._dropped = weakref.finalize(self, connection.close)
            self._dropped.atexit = False
        return self._connection

    def _close(self) -> None:
        self._data_version = None
        if self._dropped is not None:
            self._dropped.detach()
        if self._connection is not None:
            connection, self._connection = self._connection, None
            with suppress(sqlite3.Error):
                connection.close()

    def _identity(self, connection: sqlite3.Connection) -> int:
        return int(connection.execute("PRAGMA application_id").fetchone()[0])

    def _check(self, connection: sqlite3.Connection) -> None:
        if self._identity(connection) != APPLICATION_ID:
            raise ForeignFileError(f"{self.path} is not a file of keys", path=self.path)
        version = int(connection.execute("PRAGMA user_version").fetchone()[0])
        self._check_version(version, USER_VERSION)


def _signature(path: str) -> _Signature:
    try:
        found = Path(path).stat()
    except OSError:
        return _Signature(0, 0, 0, 0)
    return _Signature(found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino)
