"""Ed25519: imports ``cryptography``, which is an extra."""

from __future__ import annotations

from agents_eventlog.eventlog.errors import KeysError

try:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import (
        Ed25519PrivateKey,
        Ed25519PublicKey,
    )
except ImportError as error:  # pragma: no cover - a test runs it in a process without the package
    raise KeysError(
        "signed heads need the package cryptography: pip install 'agents-eventlog[encrypt]'"
    ) from error


def public_key(seed: bytes) -> bytes:
    """Return the public key of a secret one. Both are 32 bytes."""
    return Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()


def sign(seed: bytes, text: bytes) -> bytes:
    """Return the signature of a text: 64 bytes."""
    return Ed25519PrivateKey.from_private_bytes(seed).sign(text)


def is_signed(key: bytes, text: bytes, signature: bytes) -> bool:
    """Whether a signature of a text is by a public key."""
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, text)
    except InvalidSignature:
        return False
    return True
