"""
Signed heads: C2SP checkpoints, which are signed notes.

    eventlog/5f8c...
    11
    CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=
    head 11:eace08...

    — eventlog/5f8c... Az3grl...

The lines are the name of the log, its number of events, the root of the tree over their digests, and the
head as ``eventlog verify --head`` prints it. After an empty line follow the signatures; others may
add theirs.
"""

from __future__ import annotations

import base64
import re
from typing import Final, NamedTuple

from agents_eventlog.eventlog.errors import ProofError
from agents_eventlog.eventlog.integrity import Head
from agents_eventlog.eventlog.proofs.signing import ID_BYTES, PublicKey, SigningKey

HEAD: Final = "head "
DASH: Final = "—"
"""How a line with a signature begins."""

SIZE: Final = re.compile(r"0|[1-9][0-9]{0,18}")
ROOT_BYTES: Final = 32
MAX_SIGNATURES: Final = 100


class SignedHead(NamedTuple):
    """
    A signed head of a log.

    name: of the log. size: its number of events. root: of the tree over their digests.
    head: the log's head, from which ``eventlog prove`` finds the events.
    signed_by: the public key that checked the signature; None if it was not checked.
    """

    name: str
    size: int
    root: bytes
    head: Head
    signed_by: str | None = None

    @classmethod
    def parse(cls, note: str | bytes, public_key: str | None = None) -> SignedHead:
        """
        Parse the text of a signed head, and check that it is signed by a public key.

        public_key: None leaves the signature unchecked.

        Raises ProofError.
        """
        text, signatures = _parts(note)
        lines = text.split("\n")[:-1]
        heads = [line.removeprefix(HEAD) for line in lines[3:] if line.startswith(HEAD)]
        if len(lines) < 4 or not all(lines) or len(heads) != 1 or not SIZE.fullmatch(lines[1]):
            raise _invalid()
        try:
            root, head = base64.b64decode(lines[2], validate=True), Head.parse(heads[0])
        except ValueError:
            raise _invalid() from None
        if len(root) != ROOT_BYTES:
            raise _invalid()
        if public_key is not None:
            _check(text, signatures, lines[0], public_key)
        return cls(lines[0], int(lines[1]), root, head, public_key)


def signed(key: SigningKey, size: int, root: bytes, head: Head) -> str:
    """Return the text of a signed head."""
    text = f"{key.name}\n{size}\n{base64.b64encode(root).decode()}\n{HEAD}{head}\n"
    signature = base64.b64encode(key.sign(text.encode())).decode()
    return f"{text}\n{DASH} {key.name} {signature}\n"


def _parts(note: str | bytes) -> tuple[str, list[tuple[str, bytes]]]:
    """Return the signed text, and each signature with the name of its key. Raises ProofError."""
    try:
        whole = note.decode() if isinstance(note, bytes) else note
        text, separator, rest = whole.rpartition("\n\n")
        lines = rest.split("\n")
        found = [line.split(" ") for line in lines[:-1]]
        signatures = [
            (name, base64.b64decode(encoded, validate=True)) for _, name, encoded in found
        ]
    except ValueError:
        raise _invalid() from None
    is_whole = separator and lines[-1] == "" and all(parts[0] == DASH for parts in found)
    if not is_whole or not 0 < len(found) <= MAX_SIGNATURES:
        raise _invalid()
    return f"{text}\n", signatures


def _check(text: str, signatures: list[tuple[str, bytes]], name: str, public_key: str) -> None:
    key = PublicKey(public_key)
    own = [
        signature[ID_BYTES:]
        for signer, signature in signatures
        if signer == key.name and signature[:ID_BYTES] == key.id
    ]
    if not own:
        raise ProofError(
            f"the head is signed by another key: expected {key.name}+{key.id.hex()}, "
            f"got {', '.join(f'{signer}+{found[:ID_BYTES].hex()}' for signer, found in signatures)}"
        )
    if not all(key.is_by(text.encode(), signature) for signature in own):
        raise ProofError(f"the signature by {key.name} does not fit the head: one was changed")
    if name != key.name:
        raise ProofError(f"the head is of another log: expected {key.name!r}, got {name!r}")


def _invalid() -> ProofError:
    return ProofError(
        "invalid signed head: expected what `eventlog sign` prints, whole and unchanged"
    )
