"""
The documents of proofs, as JSON; hashes, digests and other bytes are in base64.

A proof of a session:

    {"kind": "proof", "format": 1, "session_id": "s", "head": "11:eace...", "lanes": [{"size": 11,
     "hashes": [...]}], "events": [{"leaf": 0, "previous": "...", "columns": [...], "data": "...",
     "sealed": null}], "keys": []}

``head`` is the head of the log that it is for. ``lanes`` has for each of the log's chains its number of
events, and the hashes that its tree needs beside the session's events (``merkle.root_of``). An event is in
the lane ``position % len(lanes)``, at the index ``leaf``. ``previous`` is the digest of the event before it
in the lane, ``columns`` what ``integrity`` hashes. ``data`` is the payload as stored, ``sealed`` an
envelope; both are null if the content was erased or redacted. ``keys`` has the session's
keys, if the owner added them.

A proof of consistency:

    {"kind": "consistency", "format": 1, "earlier": "7:07ab...", "head": "11:eace...", "lanes": [{"earlier":
     {"size": 7, "root": "..."}, "later": {"size": 11, "root": "..."}, "hashes": [...]}]}

``hashes`` are those of RFC 6962 (``merkle.grown_root``), empty for a lane that had no events.
"""

from __future__ import annotations

from typing import Annotated, Final, TypeVar

import msgspec

from agents_eventlog.eventlog.errors import ProofError

FORMAT: Final = 1

Count = Annotated[int, msgspec.Meta(ge=0, le=2**62)]
Number = Annotated[int, msgspec.Meta(ge=-(2**62), le=2**62)]
Columns = tuple[Count, str, Count, str, Number, str | None, str, str | None, str | None, Number]


class Lane(msgspec.Struct, frozen=True):
    """A lane's number of events, and the hashes that its tree needs beside the session's events."""

    size: Count
    hashes: list[bytes]


class ProvenEvent(msgspec.Struct, frozen=True):
    """An event of the session, with its index in its lane."""

    leaf: Count
    previous: bytes
    columns: Columns
    data: str | None
    sealed: bytes | None


class SessionProof(msgspec.Struct, frozen=True, tag_field="kind", tag="proof"):
    """A proof of a session's events."""

    format: int
    session_id: str
    head: str
    lanes: list[Lane]
    events: list[ProvenEvent]
    keys: list[bytes]


class Point(msgspec.Struct, frozen=True):
    """A lane's number of events, and the root of its tree."""

    size: Count
    root: bytes


class Growth(msgspec.Struct, frozen=True):
    """A lane at an earlier and at a later head, and the proof that it only grew."""

    earlier: Point
    later: Point
    hashes: list[bytes]


class ConsistencyProof(msgspec.Struct, frozen=True, tag_field="kind", tag="consistency"):
    """A proof that a log only grew since an earlier head."""

    format: int
    earlier: str
    head: str
    lanes: list[Growth]


Proof = SessionProof | ConsistencyProof
P = TypeVar("P", SessionProof, ConsistencyProof)

_decoder: Final = msgspec.json.Decoder(Proof)


def parse(text: str | bytes) -> Proof:
    """Parse a proof. Raises ProofError, without any content in its message."""
    try:
        proof = _decoder.decode(text)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        why = str(error) if isinstance(error, msgspec.ValidationError) else "it is not whole JSON"
        raise ProofError(
            f"invalid proof: expected what `eventlog prove` prints, unchanged: {why}"
        ) from None
    if proof.format != FORMAT:
        raise ProofError(
            f"the proof has format {proof.format}, this program knows {FORMAT}: upgrade agents-eventlog"
        )
    if not proof.lanes:
        raise ProofError("invalid proof: expected one lane or more, got none")
    return proof


def parse_as(kind: type[P], text: str | bytes) -> P:
    """Parse a proof of one kind. Raises ProofError."""
    proof = parse(text)
    if not isinstance(proof, kind):
        wanted, got = (
            "a proof of consistency" if each is ConsistencyProof else "a proof of a session"
            for each in (kind, type(proof))
        )
        raise ProofError(f"invalid proof: expected {wanted}, got {got}")
    return proof


def write(proof: Proof) -> str:
    """Return the text of a proof, on one line."""
    return msgspec.json.encode(proof).decode()
