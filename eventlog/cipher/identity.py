"""Identities that need no cipher: of keys, of an envelope's place, and of values that are only compared."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from functools import lru_cache
from typing import Final

from agents_eventlog.eventlog.events import JSON

KEY_BYTES: Final = 32
CONTEXT_BYTES: Final = 16

TOKEN: Final = "sealed:"  # noqa: S105 - no password
"""How a token begins, in the tables and columns that hold it in place of a value."""

_KEY_ID: Final = b"eventlog key id v1\0"
_PAYLOAD: Final = b"eventlog payload v1\0"


def key_id(secret: bytes) -> bytes:
    """Return the id of a session's key, which commits to it: no other key has this id."""
    return hashlib.sha256(_KEY_ID + secret).digest()


def cipher_key(secret: bytes, session_id: str) -> bytes:
    """Return the AES key of a session: HKDF-Expand (RFC 5869) with SHA-256, one block."""
    info = _PAYLOAD + session_id.encode()
    return hmac.digest(secret, info + b"\1", "sha256")


@lru_cache(maxsize=4_096)
def context(session_id: str, type_name: str, schema_version: int, branch_id: str | None) -> bytes:
    """Return what an envelope says of its event's columns."""
    columns = [session_id, type_name, schema_version, branch_id]
    text = json.dumps(columns, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).digest()[:CONTEXT_BYTES]


def token(index_key: bytes, kind: str, *parts: JSON) -> str:
    """
    Return a keyed token for a value: equal values have equal tokens, which need the key to be computed.

    kind: what the value is, so that a user id and a title with the same text have different tokens.
    """
    texts = [part if isinstance(part, str) else json.dumps(part) for part in parts]
    text = "\0".join([kind, *texts]).encode("utf-8", "surrogatepass")
    digest = hmac.digest(index_key, text, "sha256")[:16]
    return TOKEN + base64.urlsafe_b64encode(digest).decode().rstrip("=")
