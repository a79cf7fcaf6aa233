"""What the log needs of a store of keys."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol


class Key(NamedTuple):
    """A session's key: its id, which envelopes name, and its secret of 32 bytes."""

    key_id: bytes
    secret: bytes

    def __repr__(self) -> str:
        return f"Key({self.key_id.hex()[:16]})"


class Destroyed(NamedTuple):
    """What is left of a destroyed key: when that was, in microseconds since 1970 UTC."""

    destroyed_at: int


class UsedKey(NamedTuple):
    """The id of a session's key, and the position of a content that it sealed."""

    key_id: bytes
    position: int


class UsedKeys(NamedTuple):
    """A key of a session in a log, how many contents it sealed, and the position of the newest."""

    session_id: str
    key_id: bytes
    contents: int
    position: int


class Shredding(NamedTuple):
    """
    What the log recorded of a destroyed key whose contents it still has.

    at: when, in microseconds since 1970 UTC. actor, reason: who did it and why, if that was recorded.
    """

    at: int
    actor: str | None
    reason: str | None


class LogKeys(NamedTuple):
    """
    What a store of keys keeps of a log.

    sealed_from: from this position on, content in plaintext is refused.
    index_key: the key of the tokens that replace user ids, metadata and idempotency keys.
    """

    sealed_from: int
    index_key: bytes

    def __repr__(self) -> str:
        return f"LogKeys(sealed_from={self.sealed_from})"


def where(keys: Keys) -> str:
    """Return where keys are kept, for messages."""
    return str(getattr(keys, "path", None) or repr(keys))


class Keys(Protocol):
    """
    A store of session keys. ``KeyFile`` is one; a program may have another.

    A key belongs to one session of one log, for ever: ``take`` never returns a key twice.
    """

    def register(
        self, log_id: bytes, sealed_from: int, *, index_key: bytes | None = None
    ) -> LogKeys:
        """
        Begin to keep keys for a log; durable when it returns.

        index_key: that of a log whose tokens the new one shares; None makes one.
        """

    def log(self, log_id: bytes) -> LogKeys | None:
        """Return what is kept of a log; None if it is not known."""

    def take(self, log_id: bytes, count: int, *, batch: int) -> tuple[int, list[Key]]:
        """
        Return new keys for sessions of a log, and the number of this batch; durable when it returns.

        batch: the last batch that the log knows of. If it is later than the store's own, the store is an
            older copy, and keys that it made ahead may be in use: none of them is returned.
        """

    def find(self, key_ids: Sequence[bytes]) -> Mapping[bytes, Key | Destroyed]:
        """Return the keys with these ids that exist or existed."""

    def destroy(self, key_ids: Sequence[bytes]) -> int:
        """Destroy keys for good; return how many there were. Durable when it returns."""

    def generation(self) -> int:
        """Return a number that is another one once keys may have been destroyed, by any process."""
