"""
Root keys: what wraps the keys of a key file.

``EVENTLOG_KEY`` is a name, 32 random bytes and a check, so that a mistyped or truncated key is found before
anything is opened. A key ring or a cloud's key service is a class with the methods of ``Root``.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import os
import secrets
from collections.abc import Mapping
from typing import Final, Protocol

from agents_eventlog.eventlog.cipher.identity import KEY_BYTES
from agents_eventlog.eventlog.errors import WrongKeyError

ENVIRONMENT: Final = "EVENTLOG_KEY"
PREFIX: Final = "evk1"
CHECK_BYTES: Final = 4


class Root(Protocol):
    """
    A key that wraps other keys, wherever it is kept: called once when a key file is opened or rotated.

    id: names the key in the key file, so that another one is recognised. It is not secret.
    """

    @property
    def id(self) -> str:
        """The key's name."""

    def wrap(self, key: bytes, context: Mapping[str, str]) -> bytes:
        """Return a key of 32 bytes encrypted, bound to the context."""

    def unwrap(self, wrapped: bytes, context: Mapping[str, str]) -> bytes:
        """Return the key. Raises WrongKeyError, or an error of its own."""


class RootKey:
    """A root key as text, as ``generate_root_key`` returns it. Raises WrongKeyError for another text."""

    def __init__(self, text: str) -> None:
        self._key = _parsed(text)
        digest = hashlib.sha256(b"eventlog root id v1\0" + self._key).hexdigest()
        self._id = f"{PREFIX}:{digest[:16]}"

    @property
    def id(self) -> str:
        """The key's name: a part of its hash."""
        return self._id

    def wrap(self, key: bytes, context: Mapping[str, str]) -> bytes:
        """Return a key encrypted with AES-256-GCM, bound to the context."""
        from agents_eventlog.eventlog.cipher import aead

        return aead.wrap(self._key, key, _bytes(context))

    def unwrap(self, wrapped: bytes, context: Mapping[str, str]) -> bytes:
        """Return the key. Raises WrongKeyError."""
        from agents_eventlog.eventlog.cipher import aead

        key = aead.unwrap(self._key, wrapped, _bytes(context))
        if key is None:
            raise WrongKeyError(
                f"the root key {self._id} does not open what it should have wrapped"
            )
        return key

    def __repr__(self) -> str:
        return f"<RootKey {self._id}>"


def generate_root_key() -> str:
    """Return a new random root key as text, for ``EVENTLOG_KEY``. Keep it apart from the key file."""
    return _text(secrets.token_bytes(KEY_BYTES))


def from_environment() -> RootKey | None:
    """Return the root key in ``EVENTLOG_KEY``; None if it is not set. Raises WrongKeyError."""
    text = os.environ.get(ENVIRONMENT)
    return RootKey(text) if text else None


def _text(key: bytes) -> str:
    check = hashlib.sha256(key).digest()[:CHECK_BYTES]
    return PREFIX + base64.b32encode(key + check).decode().rstrip("=").lower()


def _parsed(text: str) -> bytes:
    plain = text.strip()
    body = plain.removeprefix(PREFIX).upper()
    try:
        decoded = base64.b32decode(body + "=" * (-len(body) % 8))
    except (binascii.Error, ValueError):
        decoded = b""
    key = decoded[:KEY_BYTES]
    if len(decoded) != KEY_BYTES + CHECK_BYTES or _text(key) != plain.lower():
        raise WrongKeyError(
            f"the root key is mistyped or cut: expected {PREFIX!r} and {len(_text(bytes(KEY_BYTES))) - 4} "
            f"letters and digits, as `eventlog keys init` prints them"
        )
    return key


def _bytes(context: Mapping[str, str]) -> bytes:
    return json.dumps(dict(context), sort_keys=True, separators=(",", ":")).encode()
