"""
The digest chain, which makes every change of history detectable.

    data_digest = SHA-256(data)
    digest      = SHA-256(previous digest + columns)

``previous digest`` is the one of the event before, 32 zero bytes for the first. ``columns`` is the JSON
array ``[position, session_id, version, type, schema_version, branch_id, hex(data_digest), metadata,
idempotency_key, recorded_at]`` in UTF-8 without spaces, as ``json.dumps(columns, ensure_ascii=False,
separators=(",", ":"))`` writes it. An erased event keeps its ``data_digest`` and so its place in the
chain.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from types import NoneType
from typing import Any, Final, NamedTuple

import msgspec

from agents_eventlog.eventlog import codec
from agents_eventlog.eventlog.cipher import envelope
from agents_eventlog.eventlog.cipher.envelope import Envelope, Planted
from agents_eventlog.eventlog.errors import TamperedPayloadError, UndecodableEventError
from agents_eventlog.eventlog.storage.transaction import Lane

FIRST: Final = bytes(32)
"""What the first event of a log is linked to."""

_COLUMNS: Final[tuple[tuple[str, tuple[type, ...]], ...]] = (
    ("position", (int,)),
    ("session_id", (str,)),
    ("version", (int,)),
    ("type", (str,)),
    ("schema_version", (int,)),
    ("branch_id", (str, NoneType)),
    ("data", (bytes, NoneType)),
    ("data_digest", (bytes,)),
    ("metadata", (str, NoneType)),
    ("idempotency_key", (str, NoneType)),
    ("recorded_at", (int,)),
    ("digest", (bytes,)),
)
"""What each column holds; a text that is not UTF-8 is read as bytes."""

_encode = msgspec.json.Encoder().encode


class Head(Lane):
    """
    The end of the log: the last event's position (0 without events) and digest.

    lanes: if the log has several chains, the last position of each that has events; the digest is then
        the SHA-256 of the JSON array of their ``[position, hex(digest)]``, in the order of positions.
    """

    lanes: tuple[int, ...] = ()

    def __str__(self) -> str:
        lanes = f":{','.join(map(str, self.lanes))}" if self.lanes else ""
        return f"{self.position}:{self.digest.hex()}{lanes}"

    @classmethod
    def parse(cls, text: str) -> Head:
        """Parse ``str(head)``: ``POSITION:DIGEST``, or with lanes. Raises ValueError for another format."""
        position, _, rest = text.partition(":")
        digest, _, lanes = rest.partition(":")
        refused = ValueError(f"invalid head: expected POSITION:DIGEST, got {text!r}")
        try:
            head = cls(int(position), bytes.fromhex(digest))
            head.lanes = tuple(map(int, lanes.split(","))) if lanes else ()
        except ValueError as error:
            raise refused from error
        if head.position < 0 or len(head.digest) != len(FIRST):
            raise refused
        return head


def head_of(ends: Iterable[Lane], *, lanes: int) -> Head:
    """Return the head of a log of several lanes from the ends of those that have events."""
    ordered = sorted(ends)
    if not ordered:
        return Head(0, FIRST)
    if lanes == 1:
        return Head(*ordered[0])
    digest = _encode([(end.position, end.digest.hex()) for end in ordered])
    head = Head(ordered[-1].position, hashlib.sha256(digest).digest())
    head.lanes = tuple(end.position for end in ordered)
    return head


def is_in(head: Head, digests: Mapping[int, bytes]) -> bool:
    """Whether this is the head of a log in which these positions have these digests."""
    if not head.lanes:
        return digests.get(head.position) == head.digest
    if not digests.keys() >= set(head.lanes):
        return False
    ends = [Lane(position, digests[position]) for position in head.lanes]
    return head == head_of(ends, lanes=len(ends) + 1)


class Finding(NamedTuple):
    """A problem that ``verify`` found, and the position of the event; None for the whole table."""

    position: int | None
    problem: str


def missing_head(head: Head) -> Finding:
    """Return the problem of a log that does not contain a head."""
    problem = "the event that was expected here, by its digest, is not in the log"
    return Finding(head.position, problem)


class Verification(NamedTuple):
    """The result of a verification: the last verified event, the number of events, and the problems."""

    head: Head
    events: int
    findings: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        """Whether there are no findings."""
        return not self.findings


def data_digest(data: bytes) -> bytes:
    """Return the digest of an event's payload."""
    return hashlib.sha256(data).digest()


def link(
    previous: bytes,
    position: int,
    session_id: str,
    version: int,
    type_name: str,
    schema_version: int,
    branch_id: str | None,
    payload_digest: bytes,
    metadata: str | None,
    idempotency_key: str | None,
    recorded_at: int,
) -> bytes:
    """Return an event's digest, from the one before and the event's columns."""
    columns = (
        position,
        session_id,
        version,
        type_name,
        schema_version,
        branch_id,
        payload_digest.hex(),
        metadata,
        idempotency_key,
        recorded_at,
    )
    return hashlib.sha256(previous + _encode(columns)).digest()


class Verifier:
    """
    Reads the log in order, once, and collects what is wrong. Memory grows with the sessions.

    after: the ends of lanes that are known to be right. The rows must then follow them.
    known: digests of events before those, which the expected head may refer to.
    """

    def __init__(
        self,
        expect_head: Head | None = None,
        *,
        lanes: int = 1,
        after: Iterable[Lane] = (),
        known: Iterable[Lane] = (),
    ) -> None:
        self.events = 0
        self.findings: list[Finding] = []
        self._lanes = [Lane(lane, FIRST) for lane in range(lanes)]
        for end in after:
            self._lanes[end.position % lanes] = end
        self._begins_later = any(lane.digest != FIRST for lane in self._lanes)
        self._versions: dict[Any, int] = {}
        self._expected = expect_head
        # The digests at the positions of the expected head.
        self._wanted: set[int] = (
            {*expect_head.lanes, expect_head.position} if expect_head else set()
        )
        self._digests = {0: FIRST, **{end.position: end.digest for end in known}}

    @property
    def head(self) -> Head:
        """The head up to the last row."""
        lanes = len(self._lanes)
        return head_of((lane for lane in self._lanes if lane.position >= lanes), lanes=lanes)

    def read(self, rows: Iterable[tuple[Any, ...]]) -> None:
        """Take the next rows, in ascending position."""
        for row in rows:
            before = self._lanes[row[0] % len(self._lanes)]
            self.findings.extend(
                Finding(row[0], problem) for problem in self._problems(row, before)
            )
            self._advance(row)

    def read_session(self, rows: Iterable[tuple[Any, ...]]) -> None:
        """Take the next rows of one session, each with the digest of the event before it in the log."""
        lanes = len(self._lanes)
        for *row, previous in rows:
            before = Lane(row[0] - lanes, FIRST if previous is None else previous)
            self._lanes[row[0] % lanes] = before
            self.read([tuple(row)])

    def _problems(self, row: tuple[Any, ...], before: Lane) -> Iterator[str]:
        position, session_id, version, kind, schema_version, branch, data, digest_of_data = row[:8]
        metadata, key, recorded_at, digest = row[8:]
        # Of several lanes, only the chain shows that an event is missing: their positions have gaps.
        if len(self._lanes) == 1 and position != before.position + 1:
            yield f"events {before.position + 1} to {position - 1} are missing"
        if strange := [
            name
            for (name, kinds), value in zip(_COLUMNS, row, strict=True)
            if not isinstance(value, kinds)
        ]:
            yield f"{' and '.join(strange)} cannot be read: not UTF-8, or of the wrong type"
            return
        first_version = version if self._begins_later else 1
        expected_version = self._versions.get(session_id, first_version - 1) + 1
        if version != expected_version:
            yield f"session {session_id!r} jumps to version {version} (expected {expected_version})"
        if data is not None:
            if data_digest(data) != digest_of_data:
                yield "payload does not match its recorded digest"
            elif (problem := _problem_of_data(kind, schema_version, data, position)) is not None:
                yield problem
        if metadata is not None and not _is_metadata(metadata, position):
            yield "metadata cannot be decoded"
        columns = (position, session_id, version, kind, schema_version, branch, digest_of_data)
        if link(before.digest, *columns, metadata, key, recorded_at) != digest:
            yield "the chain is broken: the event, or its position, was changed"

    def _advance(self, row: tuple[Any, ...]) -> None:
        position, session_id, version, digest = row[0], row[1], row[2], row[11]
        end = Lane(position, digest if isinstance(digest, bytes) else FIRST)
        self._lanes[position % len(self._lanes)] = end
        self.events += 1
        if isinstance(version, int):
            self._versions[session_id] = version
        if position in self._wanted:
            self._digests[position] = end.digest

    def stop(self, why: object) -> None:
        """Record that the file cannot be read any further."""
        problem = f"the file cannot be read from here on: {why}"
        self.findings.append(Finding(self.head.position + 1, problem))

    def doubt(self, problems: Iterable[str]) -> None:
        """Record problems of the table's indexes: a read by a damaged index misses rows."""
        self.findings.extend(Finding(None, f"the table is damaged: {why}") for why in problems)

    def finish(self, positions_given: int) -> Verification:
        """End the verification. ``positions_given`` is the highest position ever given."""
        head = self.head
        if positions_given > head.position:
            missing = f"events {head.position + 1} to {positions_given} are missing at the end"
            self.findings.append(Finding(head.position + 1, missing))
        if self._expected is not None and not is_in(self._expected, self._digests):
            self.findings.append(missing_head(self._expected))
        return Verification(head, self.events, tuple(self.findings))


def _problem_of_data(kind: str, schema_version: int, data: bytes, position: int) -> str | None:
    """Return what is wrong with a payload; what is sealed is checked without its key."""
    try:
        if isinstance(data, Planted):
            return "its content is not sealed, though the log is"
        if isinstance(data, Envelope):
            envelope.check(data, data.place)
            data = data.outline
        codec.decode(kind, schema_version, data, position=position)
    except TamperedPayloadError:
        return "its payload was sealed for another place"
    except UndecodableEventError:
        return f"data cannot be decoded as {kind!r} of schema version {schema_version}"
    return None


def _is_metadata(text: str, position: int) -> bool:
    try:
        codec.decode_recording(text, position=position)
    except UndecodableEventError:
        return False
    return True
