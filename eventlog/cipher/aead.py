"""AES-256-GCM: imports ``cryptography``, which is an extra."""

from __future__ import annotations

import os
import time
from typing import Final, Protocol

from agents_eventlog.eventlog.errors import KeysError

try:
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM
except ImportError as error:  # pragma: no cover - a test runs it in a process without the package
    raise KeysError(
        "sealed logs need the package cryptography: pip install 'agents-eventlog[encrypt]'"
    ) from error

REFUSED: Final = (InvalidTag, ValueError)
"""What ``decrypt`` raises for a ciphertext of another key, or with other associated data."""

NONCE_BYTES = 12
TAG_BYTES = 16


class AEAD(Protocol):
    """A cipher under one key."""

    def encrypt(self, nonce: bytes, data: bytes, associated_data: bytes | None) -> bytes:
        """Return the ciphertext and the tag."""

    def decrypt(self, nonce: bytes, data: bytes, associated_data: bytes | None) -> bytes:
        """Return the plaintext. Raises InvalidTag."""


def cipher(key: bytes) -> AEAD:
    """Return the cipher under a key of 32 bytes. Making one takes longer than sealing: keep it."""
    return AESGCM(key)


def nonce() -> bytes:
    """
    Return a new nonce: random, combined with the time.

    The snapshot of a virtual machine, started twice, may repeat the kernel's random numbers; then it
    would have to repeat the microsecond as well.
    """
    drawn = int.from_bytes(os.urandom(NONCE_BYTES), "big")
    return (drawn ^ time.time_ns() // 1_000).to_bytes(NONCE_BYTES, "big")


def wrap(key: bytes, secret: bytes, associated: bytes) -> bytes:
    """Return a secret encrypted under another key: nonce, ciphertext and tag."""
    chosen = nonce()
    return chosen + AESGCM(key).encrypt(chosen, secret, associated)


def unwrap(key: bytes, wrapped: bytes, associated: bytes) -> bytes | None:
    """Return what ``wrap`` encrypted; None if the key or the associated data is another."""
    try:
        return AESGCM(key).decrypt(wrapped[:NONCE_BYTES], wrapped[NONCE_BYTES:], associated)
    except REFUSED:
        return None
