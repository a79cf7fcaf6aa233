"""
Key stores: session keys wrapped by the key of an epoch, which a root key wraps.

A key is known by its id, which commits to it, and envelopes name that id. So the tables say neither which
session uses a key nor how many sessions there are. Keys are made ahead, so that a copy of the store is good
for the sessions that begin after it was made.
"""

from __future__ import annotations

import os
import secrets
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple, TypeAlias

from agents_eventlog.eventlog.cipher import identity, root
from agents_eventlog.eventlog.cipher.identity import KEY_BYTES
from agents_eventlog.eventlog.cipher.keys import Destroyed, Key, Keys, LogKeys
from agents_eventlog.eventlog.cipher.root import Root
from agents_eventlog.eventlog.errors import KeyNotFoundError, KeysError, WrongKeyError
from agents_eventlog.eventlog.storage.engines import POSTGRES
from agents_eventlog.eventlog.storage.keys import KeyStorage, KeyTransaction
from agents_eventlog.eventlog.storage.sqlite import connections
from agents_eventlog.eventlog.storage.sqlite.key_storage import SQLiteKeyStorage

AHEAD: Final = 1_000
"""How many unused keys a store keeps for each log."""

SCHEMA: Final = (
    """
    CREATE TABLE epochs (
        epoch      INTEGER NOT NULL PRIMARY KEY,
        root_id    TEXT,
        wrapped    BLOB    NOT NULL,
        created_at INTEGER NOT NULL
    )
    """,
    """
    CREATE TABLE keys (
        key_id       BLOB    NOT NULL PRIMARY KEY,
        log_id       BLOB    NOT NULL,
        epoch        INTEGER NOT NULL,
        wrapped      BLOB,
        created_at   INTEGER NOT NULL,
        taken_at     INTEGER,
        destroyed_at INTEGER
    )
    """,
    """
    CREATE INDEX keys_ahead ON keys (log_id) WHERE taken_at IS NULL
    """,
    """
    CREATE TABLE logs (
        log_id      BLOB    NOT NULL PRIMARY KEY,
        sealed_from INTEGER NOT NULL,
        epoch       INTEGER NOT NULL,
        index_key   BLOB    NOT NULL,
        batches     INTEGER NOT NULL
    )
    """,
)
LAST_EPOCH: Final = "SELECT epoch, root_id, wrapped FROM epochs ORDER BY epoch DESC LIMIT 1"
EPOCH: Final = "SELECT epoch, root_id, wrapped FROM epochs WHERE epoch = ?"
INSERT_EPOCH: Final = "INSERT INTO epochs (epoch, root_id, wrapped, created_at) VALUES (?, ?, ?, ?)"
INSERT_KEY: Final = """
    INSERT INTO keys (key_id, log_id, epoch, wrapped, created_at) VALUES (?, ?, ?, ?, ?)
"""
SELECT_KEY: Final = "SELECT log_id, epoch, wrapped, destroyed_at FROM keys WHERE key_id = ?"
UNUSED: Final = """
    SELECT key_id, epoch, wrapped FROM keys WHERE log_id = ? AND taken_at IS NULL LIMIT ?
"""
COUNT_UNUSED: Final = "SELECT COUNT(*) FROM keys WHERE log_id = ? AND taken_at IS NULL"
TAKE: Final = "UPDATE keys SET taken_at = ? WHERE key_id = ?"
TAKE_ALL: Final = "UPDATE keys SET taken_at = ? WHERE log_id = ? AND taken_at IS NULL"
DESTROY: Final = """
    UPDATE keys SET wrapped = NULL, destroyed_at = ? WHERE key_id = ? AND wrapped IS NOT NULL
"""
LIVING_KEYS: Final = "SELECT key_id, log_id, epoch, wrapped FROM keys WHERE wrapped IS NOT NULL"
WRAP_KEY: Final = "UPDATE keys SET epoch = ?, wrapped = ? WHERE key_id = ?"
INDEX_KEYS: Final = "SELECT log_id, epoch, index_key FROM logs"
WRAP_INDEX_KEY: Final = "UPDATE logs SET epoch = ?, index_key = ? WHERE log_id = ?"
DROP_EPOCHS: Final = "DELETE FROM epochs WHERE epoch < ?"
EPOCHS: Final = """
    SELECT e.epoch, e.root_id, e.created_at,
        (SELECT COUNT(*) FROM keys AS k WHERE k.epoch = e.epoch AND k.wrapped IS NOT NULL)
    FROM epochs AS e ORDER BY e.epoch
"""
LOGS: Final = """
    SELECT log_id, sealed_from,
        (SELECT COUNT(*) FROM keys AS k WHERE k.log_id = l.log_id AND k.taken_at IS NULL),
        (SELECT COUNT(*) FROM keys AS k
            WHERE k.log_id = l.log_id AND k.taken_at IS NOT NULL AND k.wrapped IS NOT NULL),
        (SELECT COUNT(*) FROM keys AS k WHERE k.log_id = l.log_id AND k.wrapped IS NULL)
    FROM logs AS l ORDER BY log_id
"""
INSERT_LOG: Final = """
    INSERT INTO logs (log_id, sealed_from, epoch, index_key, batches) VALUES (?, ?, ?, ?, 0)
"""
SELECT_LOG: Final = "SELECT sealed_from, epoch, index_key FROM logs WHERE log_id = ?"
BATCHES: Final = "SELECT batches FROM logs WHERE log_id = ?"
SET_BATCHES: Final = "UPDATE logs SET batches = ? WHERE log_id = ?"


class _Epoch(NamedTuple):
    epoch: int
    key: bytes


class KeyEpoch(NamedTuple):
    """
    A key that wraps session keys.

    root_id: the root key that wraps it; None if the store itself is the secret. created_at: when, in
    microseconds since 1970 UTC. keys: how many keys it wraps.
    """

    epoch: int
    root_id: str | None
    created_at: int
    keys: int


class KeyCounts(NamedTuple):
    """
    The keys of a log: the log's id, the position from which on it is sealed, and how many keys there are.

    unused: made ahead for sessions to come. used: taken for a session. destroyed: destroyed for good.
    """

    log_id: bytes
    sealed_from: int
    unused: int
    used: int
    destroyed: int


class KeyStore:
    """
    Session keys in the tables of a database. Safe to use from any thread, and after a fork.

    root: the key that wraps them; None leaves the store itself as the secret.
    ahead: how many unused keys to keep for each log.
    """

    def __init__(self, storage: KeyStorage, root: Root | None, *, ahead: int = AHEAD) -> None:
        self._storage = storage
        self._root = root
        self._ahead = ahead
        self._epochs: dict[int, bytes] = {}
        self._lock = threading.Lock()
        self._generation = 0

    @property
    def path(self) -> str:
        """Where the keys are kept."""
        return self._storage.path

    def __eq__(self, other: object) -> bool:
        return isinstance(other, KeyStore) and self._names() == other._names()

    def __hash__(self) -> int:
        return hash(self._names())

    def _names(self) -> tuple[str, str | None]:
        return self.path, None if self._root is None else self._root.id

    def __repr__(self) -> str:
        return f"<{type(self).__name__} path={self.path!r}>"

    def exists(self) -> bool:
        """Whether the store was created."""
        return self._storage.exists()

    def create(self) -> None:
        """Create the store, unless it exists, with the key that wraps the first keys."""
        self._storage.create(SCHEMA)
        with self._storage.writing() as tx:
            self._current_epoch(tx)

    # -- Keys ---------------------------------------------------------------------------------

    def register(
        self, log_id: bytes, sealed_from: int, *, index_key: bytes | None = None
    ) -> LogKeys:
        """Begin to keep keys for a log, in a new store if needed; durable when it returns."""
        self.create()
        index_key = index_key or secrets.token_bytes(KEY_BYTES)
        with self._storage.writing() as tx:
            epoch = self._current_epoch(tx)
            wrapped = _wrap(epoch.key, index_key, _of_index(log_id))
            tx.execute(INSERT_LOG, (log_id, sealed_from, epoch.epoch, wrapped))
            self._make(tx, log_id, epoch, self._ahead)
        return LogKeys(sealed_from, index_key)

    def log(self, log_id: bytes) -> LogKeys | None:
        """Return what is kept of a log; None if it is not known."""
        self._require()
        with self._storage.reading() as tx:
            row = tx.execute(SELECT_LOG, (log_id,)).fetchone()
            if row is None:
                return None
            sealed_from, epoch, wrapped = row
            return LogKeys(sealed_from, self._index_key(tx, log_id, epoch, bytes(wrapped)))

    def take(self, log_id: bytes, count: int, *, batch: int) -> tuple[int, list[Key]]:
        """Return new keys for sessions of a log, and the number of this batch."""
        self._require()
        now = _now()
        with self._storage.writing() as tx:
            row = tx.execute(BATCHES, (log_id,)).fetchone()
            if row is None:
                raise KeyNotFoundError(f"{self.path} keeps no keys of this log")
            if batch > row[0]:  # an older copy: what it made ahead may be in use
                tx.execute(TAKE_ALL, (now, log_id))
            number = max(batch, row[0]) + 1
            epoch = self._current_epoch(tx)
            (unused,) = tx.execute(COUNT_UNUSED, (log_id,)).fetchone()
            self._make(tx, log_id, epoch, self._ahead + count - unused)
            rows = tx.execute(UNUSED, (log_id, count)).fetchall()
            keys = [self._opened(tx, log_id, *row) for row in rows]
            tx.executemany(TAKE, [(now, key.key_id) for key in keys])
            tx.execute(SET_BATCHES, (number, log_id))
        return number, keys

    def find(self, key_ids: Sequence[bytes]) -> Mapping[bytes, Key | Destroyed]:
        """Return the keys with these ids that exist or existed."""
        self._require()
        found: dict[bytes, Key | Destroyed] = {}
        with self._storage.reading() as tx:
            for key_id in key_ids:
                row = tx.execute(SELECT_KEY, (key_id,)).fetchone()
                if row is None:
                    continue
                log_id, epoch, wrapped, destroyed_at = row
                if wrapped is None:
                    found[key_id] = Destroyed(destroyed_at or 0)
                else:
                    found[key_id] = self._opened(tx, bytes(log_id), key_id, epoch, wrapped)
        return found

    def destroy(self, key_ids: Sequence[bytes]) -> int:
        """Destroy keys for good; return how many there were."""
        self._require()
        now, destroyed = _now(), 0
        with self._storage.writing() as tx:
            for key_id in key_ids:
                destroyed += tx.execute(DESTROY, (now, key_id)).rowcount
        with self._lock:
            self._generation += 1
        return destroyed

    def generation(self) -> int:
        """Return a number that is another one once keys may have been destroyed, by any process."""
        with self._lock:
            if self._storage.changed():
                self._epochs.clear()
                self._generation += 1
            return self._generation

    def close(self) -> None:
        """Close the connection; the next use opens it again."""
        self._storage.close()

    # -- care ---------------------------------------------------------------------------------

    def rotate(self, new_root: Root | None = None) -> int:
        """
        Wrap all keys with a new key, destroy the one that wrapped them, and return how many keys there are.

        new_root: wraps the new key, from now on. Older copies of the store open with the old root key only:
            once that is destroyed, so are the keys in them. None: the present root key.

        Either all of it happens, or nothing. Sealed contents do not change. Raises KeyNotFoundError,
        KeysError and WrongKeyError.
        """
        self._require()
        root = self._root if new_root is None else new_root
        with self._storage.writing() as tx:
            number = self._current_epoch(tx).epoch + 1
            key = secrets.token_bytes(KEY_BYTES)
            wrapped = key if root is None else root.wrap(key, _context(number))
            tx.execute(INSERT_EPOCH, (number, None if root is None else root.id, wrapped, _now()))
            wrapped_anew = []
            for key_id, log_id, epoch, old in tx.execute(LIVING_KEYS).fetchall():
                opened = self._opened(tx, bytes(log_id), key_id, epoch, old)
                anew = _wrap(key, opened.secret, _of_key(opened.key_id, bytes(log_id)))
                wrapped_anew.append((number, anew, opened.key_id))
            tx.executemany(WRAP_KEY, wrapped_anew)
            for log_id, epoch, index_key in tx.execute(INDEX_KEYS).fetchall():
                secret = self._index_key(tx, bytes(log_id), epoch, bytes(index_key))
                again = _wrap(key, secret, _of_index(bytes(log_id)))
                tx.execute(WRAP_INDEX_KEY, (number, again, log_id))
            tx.execute(DROP_EPOCHS, (number,))
        self._root = root
        self._epochs = {number: key}
        return len(wrapped_anew)

    def destroyed_at(self, key_ids: Sequence[bytes]) -> dict[bytes, int | None]:
        """
        Return when keys were destroyed; None for those that live. Needs no root key.

        Times are in microseconds since 1970 UTC. A key that is not here is left out.
        """
        self._require()
        with self._storage.reading() as tx:
            found = ((key_id, tx.execute(SELECT_KEY, (key_id,)).fetchone()) for key_id in key_ids)
            return {
                key_id: None if row[2] is not None else row[3] or 0
                for key_id, row in found
                if row is not None
            }

    def epochs(self) -> list[KeyEpoch]:
        """Return the keys that wrap session keys, the oldest first. Needs no root key."""
        self._require()
        with self._storage.reading() as tx:
            return [KeyEpoch(*row) for row in tx.execute(EPOCHS).fetchall()]

    def logs(self) -> list[KeyCounts]:
        """Return the logs whose keys are here, and how many those are. Needs no root key."""
        self._require()
        with self._storage.reading() as tx:
            return [KeyCounts(bytes(row[0]), *row[1:]) for row in tx.execute(LOGS).fetchall()]

    # -- in a transaction ---------------------------------------------------------------------

    def _require(self) -> None:
        if not self._storage.exists():
            raise KeyNotFoundError(
                f"there are no keys at {self.path}: expected an existing key file"
            )

    def _current_epoch(self, tx: KeyTransaction) -> _Epoch:
        """Return the epoch that new keys are wrapped in; the first one is made here."""
        row = tx.execute(LAST_EPOCH).fetchone()
        if row is not None:
            return _Epoch(row[0], self._epoch_key(tx, row[0]))
        key = secrets.token_bytes(KEY_BYTES)
        root_id = None if self._root is None else self._root.id
        wrapped = key if self._root is None else self._root.wrap(key, _context(1))
        tx.execute(INSERT_EPOCH, (1, root_id, wrapped, _now()))
        return _Epoch(1, key)

    def _epoch_key(self, tx: KeyTransaction, epoch: int) -> bytes:
        known = self._epochs.get(epoch)
        if known is not None:
            return known
        row = tx.execute(EPOCH, (epoch,)).fetchone()
        if row is None:
            raise KeyNotFoundError(f"{self.path} lacks the key of epoch {epoch}")
        _, root_id, wrapped = row
        key = self._from_root(root_id, bytes(wrapped), epoch)
        self._epochs[epoch] = key
        return key

    def _from_root(self, root_id: str | None, wrapped: bytes, epoch: int) -> bytes:
        if root_id is None:
            return wrapped
        if self._root is None:
            raise KeysError(
                f"{self.path} is wrapped by the root key {root_id}: "
                f"expected it in {root.ENVIRONMENT}, or as root="
            )
        if self._root.id != root_id:
            raise WrongKeyError(
                f"{self.path} is wrapped by another root key: expected {root_id}, got {self._root.id}"
            )
        return self._root.unwrap(wrapped, _context(epoch))

    def _make(self, tx: KeyTransaction, log_id: bytes, epoch: _Epoch, count: int) -> None:
        tx.executemany(INSERT_KEY, list(_new_keys(log_id, epoch, count)))

    def _index_key(self, tx: KeyTransaction, log_id: bytes, epoch: int, wrapped: bytes) -> bytes:
        index_key = _unwrap(self._epoch_key(tx, epoch), wrapped, _of_index(log_id))
        if index_key is None:
            raise WrongKeyError(
                f"what {self.path} keeps as the index key of this log is another key"
            )
        return index_key

    def _opened(
        self, tx: KeyTransaction, log_id: bytes, key_id: bytes, epoch: int, wrapped: bytes
    ) -> Key:
        key_id = bytes(key_id)
        secret = _unwrap(self._epoch_key(tx, epoch), bytes(wrapped), _of_key(key_id, log_id))
        if secret is None or identity.key_id(secret) != key_id:
            raise WrongKeyError(f"what {self.path} keeps as key {key_id.hex()[:16]} is another key")
        return Key(key_id, secret)


class KeyFile(KeyStore):
    """
    Session keys in a file of their own, apart from the log: who has only one of the two reads nothing.

    path: the file; it is created when a log is first opened with it.
    root: the key that wraps the keys, e.g. ``RootKey(text)``. None: the file itself is the secret.
    ahead: how many unused keys to keep, so that a copy of the file is good for as many new sessions.

    Back the file up, apart from the log's backups: without it, the contents of the log are lost.
    """

    def __init__(
        self, path: str | os.PathLike[str], root: Root | None = None, *, ahead: int = AHEAD
    ) -> None:
        super().__init__(SQLiteKeyStorage(connections.resolve(path)), root, ahead=ahead)


class KeyDatabase(KeyStore):
    """
    Session keys in a schema of a PostgreSQL database, for programs on several machines.

    url: of the database, with ``?schema=`` for another schema than "eventlog"; it is created when a log is
        first opened with it. Use another database than the log's, with other backups and other roles.
    root, ahead: as of ``KeyFile``.

    Needs the extra ``postgres``.
    """

    def __init__(self, url: str, root: Root | None = None, *, ahead: int = AHEAD) -> None:
        from agents_eventlog.eventlog.storage.postgres.key_storage import PostgresKeyStorage

        super().__init__(PostgresKeyStorage(url), root, ahead=ahead)


KeysOption: TypeAlias = "str | os.PathLike[str] | Keys | None"
"""What ``keys=`` takes: the path or URL of keys, a store of keys, or None for EVENTLOG_KEYS."""

ENVIRONMENT: Final = "EVENTLOG_KEYS"


def keys_of(keys: KeysOption) -> Keys | None:
    """
    Return the store of keys that ``keys=`` means; None without keys.

    The root key of a path or URL is in ``EVENTLOG_KEY``. Raises WrongKeyError for a mistyped one, and
    KeysError if a new store would be the secret itself, which only ``KeyFile(path)`` makes.
    """
    if keys is None:
        keys = os.environ.get(ENVIRONMENT) or None
    if not isinstance(keys, str | os.PathLike):
        return keys
    key = root.from_environment()
    store = key_store(keys, key)
    if key is None and not store.exists():
        raise KeysError(
            f"there are no keys at {store.path}, and {root.ENVIRONMENT} has no root key for new ones: "
            "set it, or run `eventlog keys init`"
        )
    return store


def key_store(path: str | os.PathLike[str], root: Root | None) -> KeyStore:
    """Return the store of keys at a path, or at the URL of a PostgreSQL database."""
    is_url = os.fspath(path).startswith(POSTGRES)
    return KeyDatabase(os.fspath(path), root) if is_url else KeyFile(path, root)


def _new_keys(log_id: bytes, epoch: _Epoch, count: int) -> Iterator[tuple[Any, ...]]:
    now = _now()
    for _ in range(count):
        secret = secrets.token_bytes(KEY_BYTES)
        key_id = identity.key_id(secret)
        wrapped = _wrap(epoch.key, secret, _of_key(key_id, log_id))
        yield key_id, log_id, epoch.epoch, wrapped, now


def _of_key(key_id: bytes, log_id: bytes) -> bytes:
    return b"eventlog key v1\0" + key_id + log_id


def _of_index(log_id: bytes) -> bytes:
    return b"eventlog index key v1\0" + log_id


def _context(epoch: int) -> dict[str, str]:
    return {"purpose": "eventlog epoch key v1", "epoch": str(epoch)}


def _wrap(key: bytes, secret: bytes, associated: bytes) -> bytes:
    from agents_eventlog.eventlog.cipher import aead

    return aead.wrap(key, secret, associated)


def _unwrap(key: bytes, wrapped: bytes, associated: bytes) -> bytes | None:
    from agents_eventlog.eventlog.cipher import aead

    return aead.unwrap(key, wrapped, associated)


def _now() -> int:
    return time.time_ns() // 1_000
