"""
Keys that sign heads, in the text forms of C2SP signed notes.

    secret   PRIVATE+KEY+NAME+HASH+BASE64(0x01 + seed of 32 bytes)
    public   NAME+HASH+BASE64(0x01 + public key of 32 bytes)

NAME is the name of the log. HASH, 8 hex digits, is the beginning of SHA-256(NAME + newline + 0x01 + public
key); a signature begins with the same 4 bytes. Go's ``golang.org/x/mod/sumdb/note`` reads both.
"""

from __future__ import annotations

import base64
import hashlib
import re
import secrets
from typing import Final

from agents_eventlog.eventlog.errors import ProofError

ED25519: Final = b"\1"
KEY_BYTES: Final = 32
ID_BYTES: Final = 4
SECRET: Final = "PRIVATE+KEY+"  # noqa: S105 - how one begins
NAME: Final = re.compile(r"[^\s+\x00-\x1f\x7f]+")


class PublicKey:
    """A key that checks signatures, from the text of ``SigningKey.public_key``. Raises ProofError."""

    def __init__(self, text: str) -> None:
        self.text = text.strip()
        wanted = "public key: expected NAME+HASH+KEY, as `eventlog keys init-signing` prints"
        self.name, self.id, self._key = _parsed(self.text, wanted)
        if self.id != _id(self.name, self._key):
            raise ProofError(f"the public key of {self.name!r} is mistyped or cut")

    def is_by(self, text: bytes, signature: bytes) -> bool:
        """Whether a signature of a text, without the key's id, is by this key."""
        from agents_eventlog.eventlog.proofs import ed25519

        return ed25519.is_signed(self._key, text, signature)

    def __repr__(self) -> str:
        return f"<PublicKey {self.text}>"


class SigningKey:
    """
    A key that signs heads, from its text as ``generate_signing_key`` returns it. One key is for one log.

    name: the name of the log in its signed heads.
    public_key: the text of the key that checks the signatures. It is not secret.

    Raises ProofError for another text.
    """

    def __init__(self, text: str) -> None:
        from agents_eventlog.eventlog.proofs import ed25519

        wanted = "signing key: expected the text of a file of `eventlog keys init-signing`"
        plain = text.strip()
        if not plain.startswith(SECRET):
            raise ProofError(f"invalid {wanted}")
        self.name, self._id, self._seed = _parsed(plain.removeprefix(SECRET), wanted)
        key = ed25519.public_key(self._seed)
        if self._id != _id(self.name, key):
            raise ProofError(f"the signing key of {self.name!r} is mistyped or cut")
        self.public_key = _text(self.name, key, key)

    def sign(self, text: bytes) -> bytes:
        """Return the signature of a text, with the key's id before it."""
        from agents_eventlog.eventlog.proofs import ed25519

        return self._id + ed25519.sign(self._seed, text)

    def __repr__(self) -> str:
        return f"<SigningKey {self.public_key}>"


def generate_signing_key(name: str | None = None) -> str:
    """
    Return a new random signing key as text, for ``SigningKey``. Keep it apart from the log.

    name: the name of the log in its signed heads, for example ``example.com/support``, without spaces and
        plus signs; None for a random one.

    Raises ProofError for an invalid name.
    """
    from agents_eventlog.eventlog.proofs import ed25519

    name = f"eventlog/{secrets.token_hex(16)}" if name is None else name
    if not _is_name(name):
        raise ProofError(
            f"invalid name: expected a text without spaces and plus signs, got {name!r}"
        )
    seed = secrets.token_bytes(KEY_BYTES)
    return SECRET + _text(name, ed25519.public_key(seed), seed)


def _id(name: str, key: bytes) -> bytes:
    return hashlib.sha256(name.encode() + b"\n" + ED25519 + key).digest()[:ID_BYTES]


def _text(name: str, public_key: bytes, key: bytes) -> str:
    encoded = base64.b64encode(ED25519 + key).decode()
    return f"{name}+{_id(name, public_key).hex()}+{encoded}"


def _is_name(name: str) -> bool:
    return NAME.fullmatch(name) is not None and name.isprintable()


def _parsed(text: str, wanted: str) -> tuple[str, bytes, bytes]:
    """Return the name, id and bytes of a key. Raises ProofError."""
    try:
        name, key_id, encoded = text.split("+", 2)
        found, decoded = bytes.fromhex(key_id), base64.b64decode(encoded, validate=True)
    except ValueError:
        raise ProofError(f"invalid {wanted}") from None
    is_whole = (
        len(found) == ID_BYTES
        and found.hex() == key_id
        and len(decoded) == len(ED25519) + KEY_BYTES
    )
    if not is_whole or not _is_name(name) or not decoded.startswith(ED25519):
        raise ProofError(f"invalid {wanted}")
    return name, found, decoded[len(ED25519) :]
