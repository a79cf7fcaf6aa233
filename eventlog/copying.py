"""
Copy a log into another one, also on another engine, while programs append to the source.

Events keep their session, version, type, branch, time, metadata, key and payload. Positions and digests are
new, so the positions in payloads are replaced by those of the same events in the target. The target
remembers, in the transaction of the events, which head of the source it has: a copy that was killed
continues there, and a target with other events is refused.

A copy of a sealed log has the same envelopes, and belongs to the same keys, which the copy does not need.
``encrypt_log`` copies a log that is not sealed, or only from some position on, into a sealed one: another
log for the keys.

Projections are built at the end, once: an event may be copied long before the one that erased it.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import groupby
from types import MappingProxyType
from typing import Any, Final, NamedTuple, TypeAlias

from agents_eventlog.eventlog import codec, erasure, integrity, payloads, sealing
from agents_eventlog.eventlog.appender import (
    PAGE_EVENTS,
    Ends,
    SessionEnd,
    StoredEvent,
    ledger,
    read_events,
    session_version,
    stored_head,
    up_to_page_bytes,
)
from agents_eventlog.eventlog.cipher.envelope import SEALED_TYPES, Envelope, Planted
from agents_eventlog.eventlog.cipher.keys import Keys, UsedKey
from agents_eventlog.eventlog.cursor import Cursor
from agents_eventlog.eventlog.errors import CopyError
from agents_eventlog.eventlog.events import ContentErased
from agents_eventlog.eventlog.integrity import Head, head_of
from agents_eventlog.eventlog.jsonl.format import REFERRING, positions_in, with_positions
from agents_eventlog.eventlog.log import EventLog
from agents_eventlog.eventlog.properties import get_property, set_property
from agents_eventlog.eventlog.reader import event_counts
from agents_eventlog.eventlog.recorded_event import RecordedEvent
from agents_eventlog.eventlog.sealing import SealedAs
from agents_eventlog.eventlog.storage.transaction import Lane, Transaction

COPIED: Final = "copied_from"
"""The property of a target: the head of the source that it has, and its own head then."""

SESSIONS_AT_ONCE: Final = 100
MAX_NAMED: Final = 10
"""How many sessions an error names."""

DIGESTS: Final = "SELECT position, digest FROM events WHERE position IN ({marks})"
PLACE: Final = "SELECT session_id, version FROM events WHERE position = ?"
POSITION: Final = "SELECT position FROM events WHERE session_id = ? AND version = ?"
SESSION_ENDS: Final = """
    SELECT session_id, MAX(version), MAX(position) FROM events
    WHERE session_id IN ({marks}) GROUP BY session_id
"""
VERSIONS: Final = "SELECT session_id, MAX(version) FROM events GROUP BY session_id"
POSITIONS: Final = "SELECT session_id, version, position FROM events"
IN_ORDER: Final = "WHERE (session_id, version) > (?, ?) ORDER BY session_id, version LIMIT ?"
OF_SESSION: Final = "WHERE session_id = ? AND version BETWEEN ? AND ? ORDER BY version"

CONTENT_ERASED: Final = ContentErased.type_name()


Place: TypeAlias = tuple[str, int]
"""A session and a version of it."""


class CopyProgress(NamedTuple):
    """The progress of a copy: events in the target, and in the source."""

    events: int
    total: int


class Copied(NamedTuple):
    """
    The result of a copy: what the target has in total, and how much of it was copied now.

    source, target: the head of the source up to which it was copied, and the head of the target.
    """

    sessions: int
    events: int
    copied: int
    source: Head
    target: Head


OnProgress: TypeAlias = Callable[[CopyProgress], None]


async def copy_log(
    source: EventLog,
    target: EventLog,
    *,
    follow: Callable[[], bool] | None = None,
    poll_seconds: float = 0.25,
    on_progress: OnProgress | None = None,
) -> Copied:
    """
    Copy the events that the target does not have yet, then compare all events of both logs.

    target: empty, or an earlier copy of this source, opened without projections.
    follow: called when all events are copied; while it returns True, the copy waits for new ones.
    on_progress: called after each page of events.

    Other programs can append to the source, but not to the target. Raises CopyError if the target has other
    events than the source, or the source is sealed and holds contents in plaintext; UndecodableEventError
    for an event of a newer release.
    """
    copy = _Copy(source, target)
    await copy.resume()
    total = (await source.query(event_counts))[0]
    if on_progress is not None:
        on_progress(CopyProgress(copy.events, max(total, copy.events)))
    while True:
        if await copy.next_page():
            total = max(total, copy.events)
            if on_progress is not None:
                on_progress(CopyProgress(copy.events, total))
        elif follow is not None and follow():
            await asyncio.sleep(poll_seconds)
        else:
            break
    return await copy.compared()


async def encrypt_log(
    source: EventLog, target: EventLog, keys: Keys, *, on_progress: OnProgress | None = None
) -> Copied:
    """
    Copy a log with contents in plaintext into a sealed log, as ``copy_log`` does.

    source: opened with the same keys, if a part of it is sealed; that part is copied unopened.
    target: empty, or an earlier copy of this kind. It is sealed with the keys before the first event.

    Session ids, versions, times, metadata and payloads stay; idempotency keys become tokens. Raises what
    ``check_encryption`` raises, and KeysError for keys of another log than the source.
    """
    await check_encryption(source, target)
    await asyncio.to_thread(sealing.seal_copy, target.store, keys, like=source.store)
    return await copy_log(source, target, on_progress=on_progress)


async def check_encryption(source: EventLog, target: EventLog | None) -> None:
    """Raise CopyError for a source without contents in plaintext, or a target with events in plaintext."""
    is_sealed = await source.query(sealing.sealed_as) is not None
    if is_sealed and not (await source.query(payloads.contents)).in_plaintext:
        raise CopyError(
            f"{source.path} is sealed, and holds no contents in plaintext: copy it with `eventlog copy`",
            path=source.path,
        )
    if target is None or await target.query(sealing.sealed_as) is not None:
        return
    if (await target.query(event_counts))[0]:
        raise CopyError(
            f"{target.path} holds events in plaintext: expected an empty log, or an earlier copy",
            path=target.path,
        )


class _Page(NamedTuple):
    """
    Events of a log.

    places: session and version of the events that they refer to, by position; None if unknown.
    blanked: the positions of the payloads that they erased.
    sealed_as: what the log is called where it keeps keys; None if it is not sealed.
    keys: the keys of those sessions that have contents in plaintext here, and sealed ones.
    """

    events: list[RecordedEvent]
    places: dict[int, Place | None]
    blanked: frozenset[int] = frozenset()
    sealed_as: SealedAs | None = None
    keys: Mapping[str, UsedKey] = MappingProxyType({})


class _Copy:
    """A copy under way: how far the source was read, and what the target remembers of it."""

    def __init__(self, source: EventLog, target: EventLog) -> None:
        self._source = source
        self._target = target
        self._cursor = Cursor(source.store.engine.lanes)
        self._ends: dict[int, Lane] = {}  # of the source's lanes
        self._remembered: str | None = None
        self.events = self._copied = 0

    def _head(self) -> Head:
        return head_of(self._ends.values(), lanes=len(self._cursor.ends))

    # -- resuming -----------------------------------------------------------------------------

    async def resume(self) -> None:
        """Continue an earlier copy, or begin one in an empty target. Raises CopyError."""
        self._remembered, head, events = await self._target.query(_present)
        self.events = events
        if self._remembered is None:
            if events:
                raise CopyError(
                    f"{self._target.path} holds {events:,} events that were not copied from "
                    f"{self._source.path}: expected an empty log, or an earlier copy",
                    path=self._target.path,
                )
            return
        heads = json.loads(self._remembered)
        copied = Head.parse(heads["source"])
        self._ends = await self._source.query(partial(_ends_at, head=copied))
        digests = {0: integrity.FIRST, **{end.position: end.digest for end in self._ends.values()}}
        if not integrity.is_in(copied, digests):
            raise CopyError(
                f"{self._target.path} was copied from another log than {self._source.path}, or its "
                "events were changed since",
                path=self._target.path,
            )
        self._cursor = Cursor.of(len(self._cursor.ends), copied)
        if str(head) != heads["target"]:
            await self._refuse_others()

    async def _refuse_others(self) -> None:
        """Raise CopyError for a target that another program has appended to."""
        theirs: dict[str, int] = dict(await self._target.query(lambda tx: tx.all(VERSIONS)))
        ours = await self._source.query(partial(_versions_up_to, ends=self._cursor.ends))
        other = [name for name, version in theirs.items() if ours.get(name) != version]
        raise self._conflict(sorted(other))

    def _conflict(self, sessions: Sequence[str]) -> CopyError:
        named = ", ".join(map(repr, sessions[:MAX_NAMED]))
        more = f" and {len(sessions) - MAX_NAMED:,} more" if len(sessions) > MAX_NAMED else ""
        return CopyError(
            f"{self._target.path} has other events than {self._source.path} in the sessions "
            f"{named}{more}: expected only copied events",
            path=self._target.path,
            sessions=tuple(sessions),
        )

    # -- copying ------------------------------------------------------------------------------

    async def next_page(self) -> bool:
        """Copy the next page of events; return False at the end of the source."""
        page = await self._source.query(partial(_read, cursor=self._cursor))
        if not page.events:
            return False
        lanes = len(self._cursor.ends)
        ends = {event.position % lanes: Lane(event.position, event.digest) for event in page.events}
        self._ends = {**self._ends, **ends}
        self._remembered = await self._target.write(partial(self._write, page=page))
        self._cursor.advance(event.position for event in page.events)
        self.events += len(page.events)
        self._copied += len(page.events)
        return True

    def _write(self, tx: Transaction, page: _Page) -> str:
        """Append a page in a unit of work; return what the target remembers from then on."""
        if get_property(tx, COPIED) != self._remembered:
            raise CopyError(
                f"another program copies into {self._target.path} at the same time",
                path=self._target.path,
            )
        self._seal(tx, page)
        _load_ends(tx, {event.session_id for event in page.events})
        positions: dict[tuple[str, int], int] = {}

        def position_of(position: int) -> int:
            place = page.places[position]
            if place is None:
                return 0
            found = positions.get(place)
            if found is None:
                row = tx.one(POSITION, place)
                found = 0 if row is None else int(row[0])
            tx.newest = max(tx.newest, found)  # also a fork's events come after what they refer to
            return found

        for session_id, events in groupby(page.events, key=lambda event: event.session_id):
            for group in _groups(events):
                version = session_version(tx, session_id)
                if version != group[0].version - 1:
                    raise self._conflict([session_id])
                stored = [_stored(tx, event, position_of) for event in group]
                times = [event.recorded_at for event in group]
                written = ledger(tx).put(tx, session_id, version, stored, times)
                positions.update({(session_id, each.version): each.position for each in written})
                if group[0].type == CONTENT_ERASED:
                    erasure.record_shredding(tx, group[0])
                    blanked = page.blanked.intersection(_references(group[0]))
                    copies = [*map(position_of, blanked)]
                    erasure.blank_copies(tx, copies)
        target = stored_head(tx)
        remembered = json.dumps({"source": str(self._head()), "target": str(target)})
        set_property(tx, COPIED, remembered)
        return remembered

    def _seal(self, tx: Transaction, page: _Page) -> None:
        """Make the target fit for sealed events, in a unit of work. Raises CopyError."""
        theirs, ours = page.sealed_as, sealing.sealed_as(tx)
        if theirs is None:
            return
        if ours is None and self.events:
            raise CopyError(
                f"{self._source.path} was sealed after it was copied to {self._target.path}: "
                "expected an empty log",
                path=self._target.path,
            )
        if _are_others(theirs, ours):
            if not sealing.is_alike(tx, self._source.store):
                raise CopyError(
                    f"{self._target.path} is sealed as another log than {self._source.path}: "
                    "expected an empty log, or an earlier copy",
                    path=self._target.path,
                )
            sealing.use_keys(tx, page.keys)
            return
        if any(map(_is_in_plaintext, page.events)):
            raise CopyError(
                f"{self._source.path} holds contents in plaintext from before it was sealed: "
                "seal them with `eventlog encrypt`",
                path=self._source.path,
            )
        sealing.become(tx, theirs)

    # -- comparing ----------------------------------------------------------------------------

    async def compared(self) -> Copied:
        """Compare all events, and verify the target's chain. Raises CopyError for the first difference."""
        differing: list[str] = []
        names = [await log.query(sealing.sealed_as) for log in (self._source, self._target)]
        seals = _are_others(*names)
        sessions = events = 0
        after: tuple[str, int] = ("", 0)
        last: str | None = None
        while page := await self._source.query(partial(_read_in_order, after=after)):
            after = page.events[-1].session_id, page.events[-1].version
            ends = self._cursor.ends
            ours = [
                each for each in page.events if each.position <= ends[each.position % len(ends)]
            ]
            theirs, tokens = await self._target.query(partial(_counterparts, events=ours))
            known = {(each.session_id, each.version): each for each in theirs.events}
            for event in ours:
                if event.session_id != last:
                    last, sessions = event.session_id, sessions + 1
                events += 1
                other = known.get((event.session_id, event.version))
                event.idempotency_key = tokens[event.position]
                if other is None or not _are_same(
                    event, page.places, other, theirs.places, seals=seals
                ):
                    differing.append(event.session_id)
        verified = await self._target.verify()
        if verified.events != events and not differing:
            await self._refuse_others()
        if differing:
            raise self._conflict([*dict.fromkeys(differing)])
        if verified.findings:
            raise CopyError(
                f"the copy in {self._target.path} does not verify: {verified.findings[0].problem}",
                path=self._target.path,
            )
        return Copied(sessions, events, self._copied, self._head(), verified.head)


# -- units of work on the source --------------------------------------------------------------


def _read(tx: Transaction, cursor: Cursor) -> _Page:
    events = read_events(tx, cursor, limit=PAGE_EVENTS)
    erased = {
        position
        for event in events
        if event.type == CONTENT_ERASED
        for position in _references(event)
    }
    blanked = {position for position in erased if payloads.is_blanked(tx, position)}
    sealed_as = sealing.sealed_as(tx)
    keys: dict[str, UsedKey] = {}
    if sealed_as is not None:
        for session_id in {each.session_id for each in events if _is_in_plaintext(each)}:
            if (key := payloads.newest_key(tx, session_id)) is not None:
                keys[session_id] = key
    return _Page(events, _places(tx, events), frozenset(blanked), sealed_as, keys)


def _is_in_plaintext(event: RecordedEvent) -> bool:
    """Whether an event has content that is not sealed."""
    is_content = event.type in SEALED_TYPES and event.data is not None
    return is_content and (not event.is_sealed or isinstance(event.data, Planted))


def _read_in_order(tx: Transaction, after: tuple[str, int]) -> _Page | None:
    """Return the next events by session and version."""
    rows = payloads.event_rows(tx, IN_ORDER, (*after, PAGE_EVENTS))
    events = [RecordedEvent(row) for row in up_to_page_bytes(rows)]
    return _Page(events, _places(tx, events)) if events else None


def _places(tx: Transaction, events: Iterable[RecordedEvent]) -> dict[int, Place | None]:
    """Return session and version of the events that these events refer to."""
    places: dict[int, Place | None] = {}
    for event in events:
        for position in _references(event):
            row = tx.one(PLACE, (position,)) if position < event.position else None
            places[position] = None if row is None else (row[0], row[1])
    return places


def _references(event: RecordedEvent) -> list[int]:
    codec.check_known(event.type, event.schema_version, position=event.position)
    return positions_in(event.outlined().event) if event.type in REFERRING else []


# -- units of work on the target --------------------------------------------------------------


def _present(tx: Transaction) -> tuple[str | None, Head, int]:
    """Return what the target remembers, its head, and its number of events."""
    return get_property(tx, COPIED), stored_head(tx), event_counts(tx)[0]


def _ends_at(tx: Transaction, head: Head) -> dict[int, Lane]:
    """Return the events at the positions of a head, by lane."""
    positions = head.lanes or (head.position,)
    sql = DIGESTS.format(marks=_marks(positions))
    return {row[0] % tx.engine.lanes: Lane(*row) for row in tx.all(sql, positions)}


def _versions_up_to(tx: Transaction, ends: Sequence[int]) -> dict[str, int]:
    """Return the version that each session has up to a cursor."""
    found: dict[str, int] = {}
    lanes = len(ends)
    for session_id, version, position in tx.execute(POSITIONS):
        if position <= ends[position % lanes]:
            found[session_id] = max(version, found.get(session_id, 0))
    return found


def _load_ends(tx: Transaction, session_ids: Collection[str]) -> None:
    """Load the ends of many sessions with few statements."""
    ends = tx.cache[Ends].sessions
    wanted = [each for each in session_ids if each not in ends]
    for start in range(0, len(wanted), SESSIONS_AT_ONCE):
        some = wanted[start : start + SESSIONS_AT_ONCE]
        rows = tx.all(SESSION_ENDS.format(marks=_marks(some)), some)
        ends.update(dict.fromkeys(some, SessionEnd(0, 0)))
        ends.update({session_id: SessionEnd(*end) for session_id, *end in rows})


def _marks(values: Collection[Any]) -> str:
    return ", ".join("?" * len(values))


def _groups(events: Iterable[RecordedEvent]) -> Iterator[list[RecordedEvent]]:
    """Split a session's events so that those that refer to others are alone: their positions are known."""
    for refers, group in groupby(events, key=lambda event: event.type in REFERRING):
        if refers:
            yield from ([event] for event in group)
        else:
            yield list(group)


def _stored(
    tx: Transaction, event: RecordedEvent, position_of: Callable[[int], int]
) -> StoredEvent:
    """Return an event's columns for the target. Envelopes refer to versions, and do not change."""
    data, digest, schema_version = event.data, event.data_digest, event.schema_version
    new = {position: position_of(position) for position in _references(event)}
    is_moved = any(old != position for old, position in new.items())
    if isinstance(data, Planted):
        data = data.opened()  # raises TamperedPayloadError
    elif is_moved and not isinstance(data, Envelope) and event.event is not None:
        data = codec.encode(with_positions(event.event, new.__getitem__))
        digest = integrity.data_digest(data)
        schema_version = event.event.schema_version
    kind = (event.type, schema_version, event.branch_id)
    key = sealing.imported_key(tx, event.session_id, event.idempotency_key)
    return (*kind, data, digest, event.metadata_json, key)


# -- comparing --------------------------------------------------------------------------------


def _are_others(source: SealedAs | None, target: SealedAs | None) -> bool:
    """Whether the target seals contents that are in plaintext in the source."""
    return target is not None and (source is None or source.log_id != target.log_id)


def _counterparts(
    tx: Transaction, events: Sequence[RecordedEvent]
) -> tuple[_Page, dict[int, str | None]]:
    """Return the events of the same sessions and versions, and the idempotency keys that they must have."""
    found: list[RecordedEvent] = []
    for session_id, group in groupby(events, key=lambda event: event.session_id):
        versions = [event.version for event in group]
        between = (session_id, versions[0], versions[-1])
        found += [RecordedEvent(row) for row in payloads.event_rows(tx, OF_SESSION, between)]
    keys = {
        event.position: sealing.imported_key(tx, event.session_id, event.idempotency_key)
        for event in events
    }
    return _Page(found, _places(tx, found)), keys


def _are_same(
    ours: RecordedEvent,
    our_places: dict[int, Place | None],
    theirs: RecordedEvent,
    their_places: dict[int, Place | None],
    *,
    seals: bool,
) -> bool:
    """
    Whether two events are the same but for positions, digests of the chain, and erased content.

    seals: whether the target seals contents that the source has in plaintext.
    """
    if _columns(ours) != _columns(theirs):
        return False
    if ours.type not in REFERRING or isinstance(ours.data, Envelope):
        return ours.schema_version == theirs.schema_version and (
            ours.data_digest == theirs.data_digest
            or (seals and _is_sealed_from(ours.data, theirs.data))
        )
    if ours.event is None or theirs.event is None:  # the digest covers positions
        return True
    ours_to = [our_places[position] for position in positions_in(ours.event)]
    theirs_to = [their_places[position] for position in positions_in(theirs.event)]
    return ours_to == theirs_to and (
        codec.encode(with_positions(ours.event, lambda _: 0))
        == codec.encode(with_positions(theirs.event, lambda _: 0))
    )


def _is_sealed_from(ours: bytes | None, theirs: bytes | None) -> bool:
    """Whether an envelope contains this content. Content that was erased is not compared."""
    if ours is None or theirs is None:
        return True
    return isinstance(theirs, Envelope) and theirs.opened() == ours


def _columns(event: RecordedEvent) -> tuple[Any, ...]:
    recording = (event.metadata_json, event.idempotency_key, event.recorded_at)
    return (event.session_id, event.version, event.type, event.branch_id, *recording)
