"""Checking a proof against a signed head: reads neither the log nor its keys."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from agents_eventlog.eventlog import integrity
from agents_eventlog.eventlog.cipher import envelope, identity
from agents_eventlog.eventlog.cipher.envelope import Envelope, Place
from agents_eventlog.eventlog.errors import KeysMissingError, ProofError
from agents_eventlog.eventlog.proofs import document, merkle
from agents_eventlog.eventlog.proofs.checkpoint import SignedHead
from agents_eventlog.eventlog.proofs.document import (
    ConsistencyProof,
    Growth,
    ProvenEvent,
    SessionProof,
)
from agents_eventlog.eventlog.recorded_event import RecordedEvent

NONCE: Final = slice(34, 46)


class ProvenSession(NamedTuple):
    """
    A session whose events are under a signed head.

    events: all of its events up to the last one here, in order. Sealed contents open if the proof has their
        keys; otherwise ``event`` raises KeysMissingError.
    signed: the head.
    """

    session_id: str
    events: tuple[RecordedEvent, ...]
    signed: SignedHead


class Consistency(NamedTuple):
    """Two signed heads of a log that only grew between them."""

    earlier: SignedHead
    signed: SignedHead


def check_proof(proof: str | bytes, signed_head: str | bytes, *, public_key: str) -> ProvenSession:
    """
    Check a proof of a session against a signed head; return its events.

    proof, signed_head: the texts that ``EventLog.prove`` and ``EventLog.sign`` returned.
    public_key: the text of the key that checks the signature; get it from the owner of the log, not with
        the proof.

    The session has these events in this order, without a gap. Whether it has later ones under the same
    head is not proven. Needs the package ``cryptography``, and no database. Raises ProofError.
    """
    signed = SignedHead.parse(signed_head, public_key)
    found = document.parse_as(SessionProof, proof)
    _check_head(signed, found.head, [lane.size for lane in found.lanes])
    lanes = len(found.lanes)
    digests: list[dict[int, bytes]] = [{} for _ in range(lanes)]
    events = []
    for version, event in enumerate(found.events, 1):
        recorded = _recorded(found, event, version)
        in_lane = digests[recorded.position % lanes]
        if event.leaf in in_lane:
            raise ProofError(f"the event at position {recorded.position} is in the proof twice")
        in_lane[event.leaf] = recorded.digest
        events.append(recorded)
    if not events:
        raise ProofError("the proof has no events")
    try:
        roots = [
            (lane.size, merkle.root_of(lane.size, in_lane, lane.hashes))
            for lane, in_lane in zip(found.lanes, digests, strict=True)
        ]
    except ValueError as error:
        raise ProofError(f"the hashes of the proof are not whole: {error}") from None
    if merkle.of_lanes(roots) != signed.root:
        raise ProofError(
            "the events are not under the signed head: an event or hash of the proof was changed"
        )
    return ProvenSession(found.session_id, tuple(_opening(events, found.keys)), signed)


def check_consistency(
    proof: str | bytes, earlier_head: str | bytes, signed_head: str | bytes, *, public_key: str
) -> Consistency:
    """
    Check that a log only grew between two signed heads: that no event was changed or removed.

    proof: the text that ``EventLog.prove_consistency`` returned. The other parameters and the errors are
    those of ``check_proof``.
    """
    earlier = SignedHead.parse(earlier_head, public_key)
    signed = SignedHead.parse(signed_head, public_key)
    found = document.parse_as(ConsistencyProof, proof)
    _check_head(earlier, found.earlier, [lane.earlier.size for lane in found.lanes])
    _check_head(signed, found.head, [lane.later.size for lane in found.lanes])
    if (
        merkle.of_lanes([(lane.earlier.size, lane.earlier.root) for lane in found.lanes])
        != earlier.root
        or merkle.of_lanes([(lane.later.size, lane.later.root) for lane in found.lanes])
        != signed.root
    ):
        raise ProofError("the proof does not have the roots of the signed heads: it was changed")
    for lane in found.lanes:
        _check_growth(lane)
    return Consistency(earlier, signed)


def _check_growth(lane: Growth) -> None:
    if lane.earlier.size == 0:
        if lane.earlier.root != merkle.EMPTY or lane.hashes:
            raise ProofError("the proof has hashes of a lane that had no events: it was changed")
        return
    try:
        root = merkle.grown_root(lane.earlier.size, lane.later.size, lane.earlier.root, lane.hashes)
    except ValueError as error:
        raise ProofError(f"the log did not only grow between the heads: {error}") from None
    if root != lane.later.root:
        raise ProofError("the log did not only grow between the heads: the later root is another")


def _check_head(signed: SignedHead, head: str, sizes: list[int]) -> None:
    if head == str(signed.head) and sum(sizes) == signed.size:
        return
    position = head.partition(":")[0]
    if position == str(signed.head.position):
        raise ProofError(
            f"the proof is of another log, or it was changed: expected the head {signed.head}, got {head}"
        )
    raise ProofError(
        f"the proof is for another head: expected position {signed.head.position}, got {position}; "
        "`eventlog prove --signed` makes one for a signed head"
    )


def _recorded(proof: SessionProof, event: ProvenEvent, version: int) -> RecordedEvent:
    position, session_id, own_version, kind, schema_version, branch_id = event.columns[:6]
    digest, metadata, key, recorded_at = event.columns[6:]
    where = f"the event at position {position}"
    if session_id != proof.session_id:
        raise ProofError(f"{where} is of another session than the proof")
    if own_version != version:
        raise ProofError(
            f"{where} is not the next of its session: expected version {version}, got {own_version}"
        )
    data = event.sealed if event.data is None else event.data.encode()
    try:
        data_digest = bytes.fromhex(digest)
    except ValueError:
        raise ProofError(f"{where} has an invalid digest of its data") from None
    if (event.data is not None and event.sealed is not None) or (
        data is not None and integrity.data_digest(data) != data_digest
    ):
        raise ProofError(f"the content of {where} does not match its digest: it was changed")
    linked = (position, session_id, own_version, kind, schema_version, branch_id)
    own = integrity.link(event.previous, *linked, data_digest, metadata, key, recorded_at)
    return RecordedEvent((*linked, data, data_digest, metadata, key, recorded_at, own))


# -- sealed contents --------------------------------------------------------------------------


def _opening(events: list[RecordedEvent], keys: list[bytes]) -> list[RecordedEvent]:
    """Return the events with envelopes that open with the keys of the proof."""
    positions = {event.version: event.position for event in events}
    opener = _Opener({identity.key_id(secret): secret for secret in keys})
    for event in events:
        if not envelope.is_sealed(event.data) or event.data is None:
            continue
        context = identity.context(
            event.session_id, event.type, event.schema_version, event.branch_id
        )
        place = Place(event.session_id, event.version, event.type, event.position, context)
        outline = envelope.placed(
            envelope.raw_outline(event.data), lambda version: positions.get(version, 0)
        )
        event.data = Envelope(event.data, place, outline, opener)
    return events


class _Opener:
    """Opens envelopes with the keys of a proof."""

    def __init__(self, secrets: Mapping[bytes, bytes]) -> None:
        self._secrets = secrets

    def unseal(self, sealed: bytes, session_id: str, version: int, position: int) -> bytes:
        """Return the plaintext. Raises KeysMissingError, TamperedPayloadError."""
        from agents_eventlog.eventlog.cipher import aead

        secret = self._secrets.get(envelope.key_id(sealed))
        if secret is None:
            raise KeysMissingError(
                f"the content of version {version} is sealed: the proof does not have its key"
            )
        end = envelope.START + len(envelope.raw_outline(sealed))
        cipher = aead.cipher(identity.cipher_key(secret, session_id))
        try:
            return cipher.decrypt(sealed[NONCE], sealed[end:], sealed[:end])
        except aead.REFUSED:
            raise envelope.tampered(position, "it does not open with its key") from None
