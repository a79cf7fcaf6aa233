"""Heads to sign and proofs, from the log: only digests are read, and the events of the session."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from functools import partial
from typing import Final, NamedTuple

from agents_eventlog.eventlog import integrity, payloads
from agents_eventlog.eventlog.appender import ends_at, read_linked_rows, stored_head
from agents_eventlog.eventlog.cipher import envelope
from agents_eventlog.eventlog.cipher.access import cipher_of
from agents_eventlog.eventlog.cipher.envelope import Planted
from agents_eventlog.eventlog.cursor import Cursor
from agents_eventlog.eventlog.errors import (
    CorruptFileError,
    ProofError,
    SessionNotFoundError,
)
from agents_eventlog.eventlog.integrity import Head, is_in
from agents_eventlog.eventlog.proofs import checkpoint, document, merkle
from agents_eventlog.eventlog.proofs.checkpoint import SignedHead
from agents_eventlog.eventlog.proofs.document import (
    FORMAT,
    ConsistencyProof,
    Growth,
    Lane,
    Point,
    ProvenEvent,
    SessionProof,
)
from agents_eventlog.eventlog.proofs.signing import SigningKey
from agents_eventlog.eventlog.recorded_event import RecordedEvent
from agents_eventlog.eventlog.redacted_items import REDACTIONS, added_at
from agents_eventlog.eventlog.storage.transaction import Row, RunUnit, Transaction

PAGE_DIGESTS: Final = 10_000
DIGESTS: Final = "SELECT position, digest FROM events {rest}"


class Trees(NamedTuple):
    """
    The trees of a log's lanes up to a head.

    leaves: the index in its lane of each position that was wanted.
    earlier: each lane at an earlier head.
    """

    trees: list[merkle.Tree]
    leaves: dict[int, int]
    earlier: list[Point]

    @property
    def size(self) -> int:
        """The number of events."""
        return sum(tree.size for tree in self.trees)

    @property
    def ends(self) -> list[Point]:
        """Each lane at the head."""
        return [Point(tree.size, tree.root()) for tree in self.trees]

    def root(self) -> bytes:
        """Return the root of the log."""
        return merkle.of_lanes([(end.size, end.root) for end in self.ends])


async def sign(read: RunUnit, lanes: int, key: SigningKey, earlier: str | bytes | None) -> str:
    """Return the signed head of a log, which contains an earlier one."""
    signed = None if earlier is None else SignedHead.parse(earlier, key.public_key)
    if signed is not None:
        await _check_contained(read, signed)
    head = await read(stored_head)
    trees = await _trees(read, lanes, head, earlier=None if signed is None else signed.head)
    if signed is not None:
        _check_signed(signed, trees.earlier)
    return checkpoint.signed(key, trees.size, trees.root(), head)


async def prove(
    read: RunUnit,
    lanes: int,
    session_id: str,
    signed_head: str | bytes | None,
    *,
    with_key: bool,
) -> str:
    """Return the proof of a session's events up to a signed head, or to the end of the log."""
    signed, head = await _up_to(read, signed_head)
    ends = _by_lane(head, lanes)
    rows: list[Row] = []
    keys: dict[bytes, bytes] = {}
    version = 0
    while True:
        page = await read(
            partial(_events, session_id=session_id, version=version, with_key=with_key)
        )
        rows += [row for row in page.rows if row[0] <= ends[row[0] % lanes]]
        keys.update(page.keys)
        if not page.rows or page.rows[-1][0] > ends[page.rows[-1][0] % lanes]:
            break
        version = page.rows[-1][2]
    if not rows and not page.rows:
        raise SessionNotFoundError(session_id)
    if not rows:
        raise ProofError(f"session {session_id!r} has no events up to the signed head {head}")
    trees = await _trees(read, lanes, head, [row[0] for row in rows])
    if signed is not None:
        _check_signed(signed, trees.ends)
    withheld = await read(partial(_redacted, session_id=session_id))
    events = [_proven(row, trees.leaves[row[0]], is_withheld=row[0] in withheld) for row in rows]
    used = {envelope.key_id(each.sealed) for each in events if each.sealed is not None}
    return document.write(
        SessionProof(
            FORMAT,
            session_id,
            str(head),
            [
                Lane(tree.size, tree.prove(_indexes(trees, number, lanes)))
                for number, tree in enumerate(trees.trees)
            ],
            events,
            [secret for key_id, secret in keys.items() if key_id in used],
        )
    )


async def prove_consistency(
    read: RunUnit, lanes: int, earlier_head: str | bytes, signed_head: str | bytes | None
) -> str:
    """Return the proof that the log only grew from an earlier head to a signed one, or to its end."""
    earlier = SignedHead.parse(earlier_head)
    signed, head = await _up_to(read, signed_head)
    await _check_contained(read, earlier)
    before, after = _by_lane(earlier.head, lanes), _by_lane(head, lanes)
    if any(before[lane] > after[lane] for lane in range(lanes)):
        raise ProofError(
            f"the earlier head is the later one: expected one before {head}, got {earlier.head}"
        )
    trees = await _trees(read, lanes, head, earlier=earlier.head)
    _check_signed(earlier, trees.earlier)
    if signed is not None:
        _check_signed(signed, trees.ends)
    return document.write(
        ConsistencyProof(
            FORMAT,
            str(earlier.head),
            str(head),
            [
                Growth(small, end, tree.prove_consistency(small.size))
                for small, end, tree in zip(trees.earlier, trees.ends, trees.trees, strict=True)
            ],
        )
    )


# -- heads ------------------------------------------------------------------------------------


async def _up_to(read: RunUnit, note: str | bytes | None) -> tuple[SignedHead | None, Head]:
    """Return a signed head that the log contains, or None; and the head up to which to prove."""
    if note is None:
        return None, await read(stored_head)
    signed = SignedHead.parse(note)
    await _check_contained(read, signed)
    return signed, signed.head


async def _check_contained(read: RunUnit, signed: SignedHead) -> None:
    if signed.head.position == 0:
        return
    ends = await read(partial(ends_at, head=signed.head))
    if not is_in(signed.head, {end.position: end.digest for end in ends}):
        raise ProofError(
            f"the log does not contain the signed head {signed.head}: it is of another log, "
            "or the log was cut off or changed"
        )


def _by_lane(head: Head, lanes: int) -> list[int]:
    """Return the last position of each lane up to a head; 0 for a lane without events."""
    ends = [0] * lanes
    for position in head.lanes or (head.position,):
        ends[position % lanes] = position
    return ends


def _check_signed(signed: SignedHead, points: list[Point]) -> None:
    size = sum(point.size for point in points)
    root = merkle.of_lanes([(point.size, point.root) for point in points])
    if (size, root) != (signed.size, signed.root):
        raise ProofError(
            f"the log up to {signed.head} is not the signed one: run `eventlog verify` to locate "
            "the changed event"
        )


# -- digests ----------------------------------------------------------------------------------


async def _trees(
    read: RunUnit,
    lanes: int,
    head: Head,
    wanted: Iterable[int] = (),
    *,
    earlier: Head | None = None,
) -> Trees:
    """Read the digests up to a head, and keep what proves the events at these positions."""
    ends = _by_lane(head, lanes)
    marks = [0] * lanes if earlier is None else _by_lane(earlier, lanes)
    found = Trees(
        [merkle.Tree() for _ in range(lanes)], {}, [Point(0, merkle.EMPTY) for _ in range(lanes)]
    )
    cursor = Cursor(lanes)
    kept = frozenset(wanted)
    while any(read_to < end for read_to, end in zip(cursor.ends, ends, strict=True)):
        rows = await read(partial(_digests, cursor=cursor))
        if not rows:
            raise CorruptFileError("events are missing at the end: run `eventlog verify`")
        cursor.advance([position for position, _ in rows])
        await asyncio.to_thread(_add, found, rows, ends, kept, marks)
    return found


def _add(
    found: Trees, rows: list[Row], ends: list[int], kept: frozenset[int], marks: list[int]
) -> None:
    lanes = len(ends)
    for position, digest in rows:
        lane = position % lanes
        tree = found.trees[lane]
        if position > ends[lane]:
            continue
        tree.add(bytes(digest))
        if position in kept:
            found.leaves[position] = tree.keep()
        if position == marks[lane]:
            tree.keep()
            found.earlier[lane] = Point(tree.size, tree.root())


def _digests(tx: Transaction, cursor: Cursor) -> list[Row]:
    rest, parameters = tx.engine.events_after(cursor.ends, PAGE_DIGESTS)
    return tx.all(DIGESTS.format(rest=rest), parameters)


def _indexes(trees: Trees, lane: int, lanes: int) -> list[int]:
    return [index for position, index in trees.leaves.items() if position % lanes == lane]


# -- events -----------------------------------------------------------------------------------


class _Page(NamedTuple):
    rows: list[Row]
    keys: dict[bytes, bytes]


def _events(tx: Transaction, session_id: str, version: int, *, with_key: bool) -> _Page:
    """Return a session's next events, each with the digest of the one before it, and their keys."""
    rows = read_linked_rows(tx, session_id, version)
    keys: dict[bytes, bytes] = {}
    for row in rows if with_key else ():
        if envelope.is_sealed(row[6]) and (key_id := envelope.key_id(row[6])) not in keys:
            keys[key_id] = _secret(tx, key_id, row[0])
    return _Page(rows, keys)


def _secret(tx: Transaction, key_id: bytes, position: int) -> bytes:
    cipher = cipher_of(tx)
    if cipher is None:
        raise envelope.missing_keys()
    return cipher.stored(key_id, position).secret


def _redacted(tx: Transaction, session_id: str) -> set[int]:
    """Return the positions of events whose contents a later event replaced by placeholders."""
    newest: dict[int, int] = {}
    replaced = set()
    for row in payloads.event_rows(tx, REDACTIONS, (session_id,)):
        position = added_at(RecordedEvent(row))
        replaced.add(newest.get(position, position))
        newest[position] = row[0]
    return replaced


def _proven(row: Row, leaf: int, *, is_withheld: bool) -> ProvenEvent:
    """Return an event of a proof, without its content if that was redacted. Raises CorruptFileError."""
    position, session_id, version, kind, schema_version, branch_id, data, data_digest = row[:8]
    metadata, key, recorded_at, digest, previous = row[8:]
    before = integrity.FIRST if previous is None else bytes(previous)
    linked = (position, session_id, version, kind, schema_version, branch_id, bytes(data_digest))
    content = data.opened() if isinstance(data, Planted) else data and bytes(data)
    if integrity.link(before, *linked, metadata, key, recorded_at) != digest or (
        content is not None and integrity.data_digest(content) != data_digest
    ):
        raise CorruptFileError(
            f"the event at position {position} does not match its digest: run `eventlog verify`"
        )
    columns = (*linked[:6], bytes(data_digest).hex(), metadata, key, recorded_at)
    if is_withheld:
        content = None
    is_sealed = envelope.is_sealed(content)
    text = None if content is None or is_sealed else content.decode()
    return ProvenEvent(leaf, before, columns, text, content if is_sealed else None)
