"""The log inside a transaction: its head, its versions, and how events are appended and read there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import repeat
from typing import NamedTuple, Protocol, TypeAlias

from agents_eventlog.eventlog import codec, integrity, payloads, sealing
from agents_eventlog.eventlog.appending import check_names, encode_checked
from agents_eventlog.eventlog.cipher.envelope import VersionOf
from agents_eventlog.eventlog.cursor import Cursor, check_progress
from agents_eventlog.eventlog.erased_shapes import ErasedShapes
from agents_eventlog.eventlog.errors import CorruptFileError
from agents_eventlog.eventlog.events import JSON, Event
from agents_eventlog.eventlog.integrity import Head, head_of
from agents_eventlog.eventlog.recorded_event import RecordedEvent
from agents_eventlog.eventlog.storage.engine import Store
from agents_eventlog.eventlog.storage.transaction import Lane, Row, Transaction

PAGE_EVENTS = 1_000
PAGE_BYTES = 8 * 1024 * 1024
"""Limits of one page of events (the bytes are approximate), which keep memory flat."""


MOST_EVENTS = 2**62

VERSION_OF = "SELECT version, session_id FROM events WHERE position = ?"
PREVIOUS_DIGEST = """
    , (SELECT previous.digest FROM events AS previous
        WHERE previous.position = {previous_position})
"""
DIGEST = "SELECT position, digest FROM events WHERE position = ?"
SESSION_EVENTS_AFTER = "WHERE session_id = ? AND version > ? ORDER BY version LIMIT ?"
SESSION_END = """
    SELECT version, position FROM events WHERE session_id = ? ORDER BY version DESC LIMIT 1
"""


LEAVE_ALL_BEHIND = "UPDATE checkpoints SET position = 0 WHERE position > 0"
"""With several lanes, a checkpoint shows all events or none: a position could not say which it shows."""

StoredEvent: TypeAlias = tuple[
    str, int, str | None, bytes | None, bytes | None, str | None, str | None
]
"""
An event's own columns: type, schema version, branch, data, its digest, metadata, idempotency key.

The digest is only given for erased data. Data may be sealed already.
"""


class SessionEnd(NamedTuple):
    """A session's version, and the position of its last event; both 0 if it has none."""

    version: int
    position: int


@dataclass
class Ends:
    """The last known end of the lane and of sessions."""

    lane: Lane | None = None
    sessions: dict[str, SessionEnd] = field(default_factory=dict)
    has_grown: bool = False

    def __len__(self) -> int:
        return len(self.sessions)


class Projector(Protocol):
    """What keeps projections up to date inside the log's transactions (see ``projections``)."""

    def join(self, store: Store) -> None:
        """Update this projector's tables, and keep them up to date with each append."""

    def begin(self, tx: Transaction, head: Lane) -> None:
        """Refuse newer tables, catch up with what others appended."""

    def project(self, tx: Transaction, events: Sequence[RecordedEvent]) -> None:
        """Apply events that were just appended."""

    def before_commit(self, tx: Transaction, head: Lane) -> None:
        """Write the checkpoints."""

    def require_fresh(self, tx: Transaction) -> None:
        """Raise StaleProjectionError when a reader would see less than the log holds."""


class Appender:
    """The log's part in each writing transaction: it knows the head, and carries it forward."""

    def __init__(self) -> None:
        self.projector: Projector | None = None

    def begin(self, tx: Transaction) -> None:
        """Load the end of the lane."""
        ends = tx.cache[Ends]
        if ends.lane is None:
            ends.lane = tx.engine.claim_lane(tx)
        tx.lane = ends.lane
        if self.projector is not None:
            self.projector.begin(tx, tx.lane)

    def before_commit(self, tx: Transaction) -> None:
        """Write the checkpoints."""
        if self.projector is not None:
            self.projector.before_commit(tx, tx.lane)
        elif tx.engine.lanes > 1 and tx.cache[Ends].has_grown:
            tx.execute(LEAVE_ALL_BEHIND)

    def append(
        self,
        tx: Transaction,
        session_id: str,
        events: Iterable[tuple[Event, bytes]],
        *,
        branch_id: str | None,
        version: int,
        metadata: str | None,
        idempotency_key: str | None = None,
    ) -> list[RecordedEvent]:
        """Append encoded events after ``version``, link them, and project them."""
        stored = []
        for event, data in events:
            kind = (event.type_name(), event.schema_version, branch_id)
            stored.append((*kind, data, None, metadata, idempotency_key))
            idempotency_key = None  # only the first event has it
        return self.put(tx, session_id, version, stored)

    def put(
        self,
        tx: Transaction,
        session_id: str,
        version: int,
        events: Iterable[StoredEvent],
        times: Iterable[int] | None = None,
    ) -> list[RecordedEvent]:
        """
        Append events as their columns hold them after ``version``, seal, link and project them.

        times: when each was recorded, if that is not now.

        Raises KeysMissingError for content in a sealed log that was opened without keys.
        """
        session_id = codec.check_text("session_id", session_id)
        recorded = []
        rows: list[Row] = []
        head = tx.lane
        ends = tx.cache[Ends]
        end = ends.sessions.get(session_id) or session_end(tx, session_id)
        position = max(head.position, tx.newest, end.position)
        if position > MOST_EVENTS or version > MOST_EVENTS:
            raise _uncountable(position, version)
        lanes = tx.engine.lanes
        lane = head.position % lanes
        seals = tx.cipher is not None or tx.engine.is_sealed(tx)
        for event, recorded_at in zip(events, times or repeat(tx.now), strict=False):
            name, schema_version, branch, given, given_digest, metadata, given_key = event
            # SQLite would store the number 7 as text "7", which is not what the digest covers.
            branch_id = None if branch is None else codec.check_text("branch_id", branch)
            key = None if given_key is None else codec.check_text("idempotency_key", given_key)
            version += 1
            position = (position // lanes + 1) * lanes + lane
            data, data_digest = given, given_digest or integrity.FIRST
            if given is not None:
                if seals:
                    columns = (session_id, version, position, name, schema_version, branch_id)
                    version_of = _version_of(tx, session_id, rows)
                    data = sealing.seal(tx, *columns, given, version_of)
                data_digest = integrity.data_digest(data or given)
            linked = (position, session_id, version, name, schema_version, branch_id)
            rest = (data_digest, metadata, key, recorded_at)
            digest = integrity.link(head.digest, *linked, *rest)
            row = (*linked, data, *rest, digest)
            rows.append(row)
            head = Lane(position, digest)
            recorded.append(RecordedEvent(row))
        if seals:
            payloads.insert(tx, rows)
        else:
            tx.defer(payloads.INSERT_EVENT, rows)
        tx.lane = ends.lane = head
        ends.has_grown = True
        ends.sessions[session_id] = SessionEnd(version, position)
        if self.projector is not None:
            try:
                self.projector.project(tx, recorded)
            except BaseException as error:
                tx.broken = error  # an event without its rows is never committed
                raise
        return recorded


def _version_of(tx: Transaction, session_id: str, rows: Sequence[Row]) -> VersionOf:
    """Return a function for the version of the event at a position; 0 if there is no event."""

    def version_of(position: int) -> int | tuple[int, str]:
        found = next((row for row in rows if row[0] == position), None)
        if found is not None:
            return int(found[2])
        row = tx.one(VERSION_OF, (position,))
        if row is None:
            return 0
        version, of = row
        return version if of == session_id else (version, of)

    return version_of


def append(
    tx: Transaction, session_id: str, event: Event, *, branch_id: str | None = None
) -> RecordedEvent:
    """
    Append one event in a unit of work. What the unit reads from projections afterwards includes it.

    branch_id: the branch that the event belongs to; None for an event of the whole session.

    Raises InvalidEventError for an invalid id, or an event of a class that is not in
    ``agents_eventlog.eventlog``; UnserialisableError for a value that cannot be stored as JSON.
    """
    check_names(session_id=session_id, branch_id=branch_id)
    return append_all(tx, session_id, ((event, encode_checked(event)),), branch_id=branch_id)[0]


def append_all(
    tx: Transaction,
    session_id: str,
    events: Sequence[tuple[Event, bytes]],
    *,
    branch_id: str | None = None,
    occurred_at: int | None = None,
    idempotency_key: str | None = None,
) -> list[RecordedEvent]:
    """
    Append events, each with what ``codec.encode_checked`` returned for it, in a unit of work.

    idempotency_key: recorded with the first event, for ``first_result``; the unit of work asks it first.
    """
    recording = tx.recording
    if len(events) > 1 or idempotency_key is not None:
        recording = {**recording, "events_in_append": len(events)}
    if occurred_at is not None:
        recording = {**recording, "occurred_at": occurred_at}
    return ledger(tx).append(
        tx,
        session_id,
        events,
        branch_id=branch_id,
        version=session_end(tx, session_id).version,
        metadata=metadata_json(recording),
        idempotency_key=None
        if idempotency_key is None
        else sealing.idempotency_key(tx, session_id, idempotency_key),
    )


def position_before(tx: Transaction, session_id: str) -> int:
    """Return the position after which the next event of a session is placed."""
    return max(tx.lane.position, tx.newest, session_end(tx, session_id).position)


def position_after(tx: Transaction, position: int) -> int:
    """Return the first position after this one in the transaction's lane."""
    lanes = tx.engine.lanes
    return (position // lanes + 1) * lanes + tx.lane.position % lanes


def session_end(tx: Transaction, session_id: str) -> SessionEnd:
    """Return where a session ends, in a unit of work. One that writes has the session to itself."""
    ends = tx.cache[Ends].sessions
    end = ends.get(session_id)
    if end is None:
        tx.lock_session(session_id)
        row = tx.one(SESSION_END, (session_id,))
        end = ends[session_id] = SessionEnd(0, 0) if row is None else SessionEnd(*row)
    return end


def session_version(tx: Transaction, session_id: str) -> int:
    """Return a session's version in a unit of work; 0 when it does not exist."""
    return session_end(tx, session_id).version


def last_assigned(tx: Transaction) -> int:
    """Return the highest position ever assigned, even if its event is missing; 0 for none."""
    row = tx.one(f"SELECT {tx.engine.last_position}")
    return 0 if row is None or row[0] is None else int(row[0])


def read_head(tx: Transaction) -> Head:
    """Return the head in a unit of work. Positions are never assigned twice, even if the tail was cut."""
    head = stored_head(tx)
    assigned = last_assigned(tx)
    return head if assigned <= head.position else Head(assigned, head.digest)


def stored_head(tx: Transaction) -> Head:
    """Return the head of the events that are there, in a unit of work."""
    return head_of(tx.engine.lane_ends(tx), lanes=tx.engine.lanes)


def ends_at(tx: Transaction, head: Head) -> list[Lane]:
    """Return what the log holds now at the positions of a head, in a unit of work."""
    positions = head.lanes or (head.position,)
    found = (tx.one(DIGEST, (position,)) for position in positions)
    return [Lane(*row) for row in found if row is not None]


def complete_checkpoint(tx: Transaction) -> int:
    """Return the checkpoint of a projection that shows all events, in a unit of work."""
    row = tx.one(f"SELECT {tx.engine.complete_checkpoint}")
    return 0 if row is None else int(row[0])


def last_position(tx: Transaction) -> int:
    """
    Return the last event's position in a unit of work; 0 of an empty log.

    Raises CorruptFileError for a log that holds events, but not where they are looked for.
    """
    row = tx.one("SELECT MAX(position) FROM events")
    last = 0 if row is None or row[0] is None else int(row[0])
    if last < 1 and tx.one("SELECT 1 FROM events LIMIT 1"):
        raise CorruptFileError("the events are out of order: run `eventlog doctor` for details")
    return last


def _uncountable(position: int, version: int) -> CorruptFileError:
    """Return the error for a number that no log comes to by counting."""
    what, number = ("position", position) if position > MOST_EVENTS else ("version", version)
    return CorruptFileError(f"an event has {what} {number}: run `eventlog verify` to locate it")


def read_rows(tx: Transaction, cursor: Cursor, limit: int = PAGE_EVENTS) -> list[Row]:
    """Return the next page of events after a cursor as rows, in a unit of work."""
    rest = tx.engine.events_after(cursor.ends, limit)
    rows = list(up_to_page_bytes(payloads.event_rows(tx, *rest)))
    cursor.check([row[0] for row in rows])
    return rows


def read_rows_as_stored(tx: Transaction, cursor: Cursor, limit: int = PAGE_EVENTS) -> list[Row]:
    """Do as ``read_rows`` does; a text that is not UTF-8 comes as bytes."""
    with tx.engine.text_as_stored(tx):
        return read_rows(tx, cursor, limit)


def read_linked_rows(tx: Transaction, session_id: str, version: int) -> list[Row]:
    """Return a session's next events after a version, each with the digest of the one before it."""
    with tx.engine.text_as_stored(tx):
        found = payloads.event_rows(
            tx,
            SESSION_EVENTS_AFTER,
            (session_id, version, PAGE_EVENTS),
            more=PREVIOUS_DIGEST.format(previous_position=tx.engine.previous_position),
        )
        rows = list(up_to_page_bytes(found))
    if rows:
        check_progress(version, rows[-1][2])
    return rows


def read_events(
    tx: Transaction,
    cursor: Cursor,
    *,
    limit: int = PAGE_EVENTS,
    structures: ErasedShapes | None = None,
) -> list[RecordedEvent]:
    """
    Return the next page of events after a cursor, in a unit of work.

    structures: what was found so far of erased payloads; erased events come with theirs.
    """
    page = [RecordedEvent(row) for row in read_rows(tx, cursor, limit)]
    (structures or ErasedShapes()).fill(tx, page)
    return page


def up_to_page_bytes(rows: Iterable[Row]) -> Iterable[Row]:
    """Yield rows until their payloads reach the size of a page."""
    size = 0
    for row in rows:
        yield row
        size += len(row[6] or b"")
        if size > PAGE_BYTES:
            return


def ledger(tx: Transaction) -> Appender:
    """Return the log's part in this transaction. Raises RuntimeError where nothing can be appended."""
    if not isinstance(tx.participant, Appender):
        raise RuntimeError("cannot append in a reading transaction: use EventLog.write")  # noqa: TRY004
    return tx.participant


def metadata_json(recording: Mapping[str, JSON]) -> str | None:
    """Return what is recorded with an event as its column holds it."""
    return codec.encode_json(dict(recording)).decode() if recording else None
