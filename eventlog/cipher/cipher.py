"""The cipher of a sealed log: it remembers open keys, seals payloads and opens envelopes."""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Final, NamedTuple

from agents_eventlog.eventlog.cipher import aead, identity
from agents_eventlog.eventlog.cipher import envelope as envelopes
from agents_eventlog.eventlog.cipher.keys import Destroyed, Key, Keys, LogKeys, Shredding, where
from agents_eventlog.eventlog.errors import KeyNotFoundError, ShreddedError, WrongKeyError

REMEMBERED_SECONDS: Final = 300.0
MAX_REMEMBERED: Final = 10_000
"""How long, and how many, open keys are remembered: opening one takes 20 to 60 µs."""

PARTS: Final = struct.Struct(">34s12sQ16xI")
"""Of an envelope: its format, flags and key, nonce, version, and the length of its outline."""

POOL_KEYS: Final = 64
"""How many keys are taken from the store at once, which is one commit there."""


class OpenKey(NamedTuple):
    """A session's key, ready to seal and to open."""

    key_id: bytes
    aead: aead.AEAD
    deadline: float


class Cipher:
    """
    The cipher of one log in one process. Safe to use from any thread.

    Keys are remembered until another connection changes the store of keys; ``refresh`` looks.
    """

    def __init__(
        self,
        keys: Keys,
        log_id: bytes,
        kept: LogKeys,
        shredded: Mapping[bytes, Shredding] | None = None,
    ) -> None:
        self.keys = keys
        self.log_id = log_id
        self.sealed_from = kept.sealed_from
        self.shredded: Mapping[bytes, Shredding] = shredded or {}
        """The keys that the log calls destroyed, though it still has their contents."""
        self.index_key = kept.index_key
        self._open: dict[tuple[bytes, str], OpenKey] = {}
        self._current: dict[str, OpenKey] = {}
        self._pool: list[Key] = []
        self._pid = os.getpid()
        self._generation = -1
        self.batch = 0
        self.noted_batch = 0  # the last that the log knows of

    @property
    def where(self) -> str:
        """The store of keys, for errors."""
        return where(self.keys)

    def refresh(self) -> bool:
        """Forget the remembered keys if any may have been destroyed; return whether that is so."""
        generation = self.keys.generation()
        if generation == self._generation:
            return False
        self._generation = generation
        self._open.clear()
        self._current.clear()
        return True

    def forget(self) -> None:
        """Have the next transaction look at the keys and at what the log says of them."""
        self._generation = -1

    def token(self, kind: str, *parts: str) -> str:
        """Return the token that the log's tables hold in place of a value."""
        return identity.token(self.index_key, kind, *parts)

    # -- keys ---------------------------------------------------------------------------------

    def current(self, session_id: str) -> OpenKey | None:
        """Return the key that seals a session's payloads, if it is remembered."""
        key = self._current.get(session_id)
        return key if key is not None and key.deadline > time.monotonic() else None

    def remember_current(self, session_id: str, key: OpenKey) -> None:
        """Remember the key that seals a session's payloads."""
        if len(self._current) >= MAX_REMEMBERED:
            self._current.clear()
        self._current[session_id] = key

    def forget_current(self, session_id: str) -> None:
        """Forget which key seals a session's payloads."""
        self._current.pop(session_id, None)

    def is_pool_empty(self) -> bool:
        """Whether the next new key comes from the store. A child of a fork never uses its parent's."""
        if self._pid != os.getpid():
            self._pool, self._pid = [], os.getpid()
        return not self._pool

    def fill_pool(self, batch: int) -> None:
        """Take keys from the store. batch: the last batch that the log knows of."""
        self.batch, self._pool = self.keys.take(self.log_id, POOL_KEYS, batch=batch)

    def new_key(self, session_id: str) -> OpenKey:
        """Return a key that no session has; the pool must not be empty."""
        key = self._remembered(self._pool.pop(), session_id)
        self.remember_current(session_id, key)
        return key

    def key(self, key_id: bytes, session_id: str, position: int) -> OpenKey:
        """
        Return a session's key by its id.

        Raises KeyNotFoundError, WrongKeyError, and ShreddedError for a destroyed one.
        """
        found = self._open.get((key_id, session_id))
        if found is not None and found.deadline > time.monotonic():
            return found
        return self._remembered(self.stored(key_id, position), session_id)

    def stored(self, key_id: bytes, position: int) -> Key:
        """Return a key by its id, with its secret, as the store has it now. Raises what ``key`` raises."""
        recorded = self.shredded.get(key_id)
        if recorded is not None:  # even if an older copy of the store has the key
            raise _shredded(position, recorded)
        stored = self.keys.find([key_id]).get(key_id)
        if stored is None:
            raise KeyNotFoundError(
                f"the key {key_id.hex()[:16]} of the event at position {position} is not in "
                f"{self.where}: it is of another log, or a copy from before the session began"
            )
        if isinstance(stored, Destroyed):
            raise _shredded(position, Shredding(stored.destroyed_at, None, None))
        if identity.key_id(stored.secret) != key_id:
            raise WrongKeyError(
                f"what {self.where} returns as key {key_id.hex()[:16]} is another key"
            )
        return stored

    def _remembered(self, key: Key, session_id: str) -> OpenKey:
        cipher = aead.cipher(identity.cipher_key(key.secret, session_id))
        opened = OpenKey(key.key_id, cipher, time.monotonic() + REMEMBERED_SECONDS)
        if len(self._open) >= MAX_REMEMBERED:
            self._open.clear()
        self._open[key.key_id, session_id] = opened
        return opened

    # -- payloads -----------------------------------------------------------------------------

    def seal(
        self, key: OpenKey, version: int, context: bytes, plaintext: bytes, outline: bytes
    ) -> bytes:
        """Return the envelope of a plaintext for its place in the session."""
        nonce = aead.nonce()
        columns = (key.key_id, nonce, version, context, len(outline))
        head = envelopes.HEADER.pack(envelopes.FORMAT, 0, *columns) + outline
        return head + key.aead.encrypt(nonce, plaintext, head)

    def unseal(self, envelope: bytes, session_id: str, version: int, position: int) -> bytes:
        """
        Return the plaintext of an envelope that is in this place.

        Raises KeyNotFoundError, ShreddedError, TamperedPayloadError.
        """
        return self.unsealer(session_id)(envelope, version, position)

    def unsealer(self, session_id: str) -> Callable[[bytes, int, int], bytes]:
        """Return a function that does as ``unseal`` for envelopes of a session, and remembers their key."""
        unpack, start = PARTS.unpack_from, envelopes.START
        known = b""
        decrypt: Callable[[bytes, bytes, bytes | None], bytes]

        def unseal(sealed: bytes, version: int, position: int) -> bytes:
            nonlocal known, decrypt
            try:
                begin, nonce, sealed_for, length = unpack(sealed)
            except struct.error:
                raise envelopes.tampered(position, "it is too short") from None
            if begin != known or sealed_for != version:
                envelopes.check_header(sealed, version, position)
                key_id = envelopes.key_id(sealed)
                known, decrypt = begin, self.key(key_id, session_id, position).aead.decrypt
            end = start + length
            try:
                return decrypt(nonce, sealed[end:], sealed[:end])
            except aead.REFUSED:
                raise envelopes.tampered(position, "it does not open with its key") from None

        return unseal


def _shredded(position: int, recorded: Shredding) -> ShreddedError:
    at, actor, reason = recorded
    time_of = datetime.fromtimestamp(at // 1_000_000, UTC).strftime("%Y-%m-%d %H:%M:%S")
    by = f" by {actor}" if actor else ""
    because = f": {reason}" if reason else ""
    return ShreddedError(
        f"the content of the event at position {position} was shredded: "
        f"its key was destroyed at {time_of} UTC{by}{because}",
        position=position,
        destroyed_at=at,
        actor=actor,
        reason=reason,
    )
