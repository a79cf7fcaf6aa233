"""
Items as the SDK's ``EncryptedSession`` stored them, opened with its key.

A stored item is ``{"__enc__": 1, "v": 1, "kid": "hkdf-v1", "payload": token}``. The token is Fernet's,
under a key that HKDF-SHA256 derives from the session's encryption key and id. It has the second of its
encryption, which is when the item was added.
"""

from __future__ import annotations

import base64
import hmac
from datetime import timedelta
from typing import Any, Final, NamedTuple

from agents_eventlog.adapters.conversations.commands import check_age
from agents_eventlog.eventlog.errors import KeysError, WrongKeyError
from agents_eventlog.eventlog.events import JSON

KEY_BYTES: Final = 32
VERSION: Final = (1, "hkdf-v1")
INFO: Final = b"agents.session-store.hkdf.v1"


class Opened(NamedTuple):
    """An opened item as JSON, and when it was added, in microseconds since 1970 UTC."""

    data: bytes
    occurred_at: int


class EncryptedItems:
    """
    Opens the items of ``EncryptedSession``.

    key: the ``encryption_key`` that it was given. Raises WrongKeyError if that is empty, and KeysError
        without the extra ``encrypt``.
    ttl: turns that are older are left out, whole turns only; None leaves out none.
    """

    def __init__(self, key: str, ttl: timedelta | None = None) -> None:
        self.ttl = None if ttl is None else check_age("encrypted_ttl", ttl)
        if not key:
            raise WrongKeyError(
                "the encryption key is empty: expected that of the EncryptedSession"
            )
        try:
            from cryptography import fernet
        except ImportError as error:  # pragma: no cover - it is installed with the tests
            raise KeysError(
                "items of EncryptedSession need the package cryptography: "
                "pip install 'agents-eventlog[encrypt]'"
            ) from error
        self._fernet = fernet
        self._key = _key_bytes(key)

    def opened(self, session_id: str, item: JSON) -> Opened | None:
        """Return an opened item; None if it does not open with the key."""
        if not isinstance(item, dict) or (item.get("v"), item.get("kid")) != VERSION:
            return None
        token: Any = item.get("payload")
        cipher = self._fernet.Fernet(self._derived(session_id))
        try:
            data = cipher.decrypt(token)
            seconds = cipher.extract_timestamp(token)
        except (self._fernet.InvalidToken, TypeError, ValueError):
            return None
        return Opened(data, seconds * 1_000_000)

    def _derived(self, session_id: str) -> bytes:
        """Return the session's key for Fernet: HKDF (RFC 5869) with SHA-256, one block."""
        extracted = hmac.digest(session_id.encode(), self._key, "sha256")
        return base64.urlsafe_b64encode(hmac.digest(extracted, INFO + b"\1", "sha256"))


def is_encrypted(item: JSON) -> bool:
    """Whether ``EncryptedSession`` stored this item."""
    return isinstance(item, dict) and item.get("__enc__") == 1 and "payload" in item


def _key_bytes(key: str) -> bytes:
    """Return a key as ``EncryptedSession`` reads it: 32 bytes in base64 for URLs, or else the text."""
    try:
        decoded = base64.urlsafe_b64decode(key)
    except ValueError:
        decoded = b""
    return decoded if len(decoded) == KEY_BYTES else key.encode()
