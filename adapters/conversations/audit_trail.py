"""The audit trail: each event in words, with its actor and the later removals of its items."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple, TypedDict

from agents_eventlog.adapters.conversations import event_descriptions, timestamps
from agents_eventlog.adapters.conversations.event_descriptions import EventDescription
from agents_eventlog.eventlog import codec, reader
from agents_eventlog.eventlog.appender import PAGE_EVENTS, session_version
from agents_eventlog.eventlog.errors import EventLogError, InvalidQueryError, SessionNotFoundError
from agents_eventlog.eventlog.events import ITEM_EVENTS, JSON, ItemPopped, UsageRecorded
from agents_eventlog.eventlog.reader import type_names
from agents_eventlog.eventlog.recorded_event import RecordedEvent
from agents_eventlog.eventlog.redacted_items import RedactedItems
from agents_eventlog.eventlog.storage.transaction import RunUnit, Transaction
from agents_eventlog.projections.conversations.paths import Paths


class TimelineItem(TypedDict):
    """
    An item that an event added.

    removed: "popped", "undone", "replaced", "deleted", "cleared", "erased"; None if a branch has the item.
    removed_at: the position of the event that removed it. removed_version: its version in the session.
    """

    index: int
    account: str
    removed: str | None
    removed_at: int | None
    removed_version: int | None


class TimelineRow(TypedDict):
    """
    An event of a session, in words.

    time: ISO 8601, in UTC. account: what happened; long texts are cut.
    state: "whole", or why its content cannot be read: "erased", "sealed", "shredded" or "unreadable".
    items: the items that it added.
    """

    version: int
    position: int
    time: str
    type: str
    branch_id: str | None
    actor: str | None
    trace_id: str | None
    account: str
    state: str
    items: list[TimelineItem]


class Filters(NamedTuple):
    """Event filters; times in microseconds since 1970 UTC, ``until`` exclusive."""

    session_id: str | None = None
    branch_id: str | None = None
    since: int | None = None
    until: int | None = None
    types: Sequence[str] = ()
    actor: str | None = None
    limit: int | None = None

    def fits(self, recorded: RecordedEvent) -> bool:
        """Return whether an event matches all filters."""
        if self.session_id is not None and recorded.session_id != self.session_id:
            return False
        if self.types and recorded.type not in self.types:
            return False
        time = recorded.happened_at
        if self.since is not None and time < self.since:
            return False
        if self.until is not None and time >= self.until:
            return False
        if self.actor is not None and event_descriptions.bound(recorded, "actor") != self.actor:
            return False
        return self.branch_id is None or self.branch_id in branches_of(recorded)


class Entry(NamedTuple):
    """An event of the audit trail. popped: the content of the item that a pop removed, if it is known."""

    recorded: RecordedEvent
    described: EventDescription
    popped: JSON


class Histories:
    """
    The paths of the sessions whose events it follows, each from its first event on.

    redacted: the redactions so far.
    """

    def __init__(self) -> None:
        self.paths: dict[str, Paths] = defaultdict(Paths)
        self.redacted = RedactedItems()

    def follow(self, recorded: RecordedEvent) -> None:
        """Take a session's next event; one that cannot be read changes nothing."""
        try:
            self.paths[recorded.session_id].feed(recorded)
            self.redacted.learn(recorded)
        except (ValueError, RecursionError):
            return


def branches_of(recorded: RecordedEvent) -> set[str | None]:
    """Return the branch of an event, and the branches that it names."""
    try:
        event = recorded.outlined().event
    except (ValueError, RecursionError):
        event = None
    names = {recorded.branch_id}
    return names | {getattr(event, name, None) for name in ("branch_id", "from_branch_id")}


def entry(
    recorded: RecordedEvent, paths: Paths | None, popped: JSON = None, *, full: bool = False
) -> Entry:
    """Describe an event. paths: those of its session; None shows no removals. full: do not cut texts."""
    described = event_descriptions.describe_event(recorded, paths, popped, full=full)
    return Entry(recorded, described, popped)


def popped_item(tx: Transaction, recorded: RecordedEvent, redacted: RedactedItems) -> JSON:
    """Return the content of the item that an event popped, if it is one that did and can be read."""
    try:
        event = recorded.event
        if not isinstance(event, ItemPopped):
            return None
        added = reader.event_at(tx, event.item.position)
        adding = None if added is None else redacted.covered(added).event
        return adding.items[event.item.index] if isinstance(adding, ITEM_EVENTS) else None
    except (EventLogError, IndexError):
        return None  # unreadable


def newest(
    tx: Transaction, paths: Paths, filters: Filters, *, before: int | None = None
) -> list[Entry]:
    """
    Return a session's newest events that match, the newest first, up to ``filters.limit``.

    before: only events of lower versions.
    """
    version = paths.version + 1 if before is None else before
    limit = paths.version if filters.limit is None else filters.limit
    redacted = RedactedItems.of_session(tx, filters.session_id or "")
    found: list[Entry] = []
    while len(found) < limit and version > 1:
        size = min(PAGE_EVENTS, max(limit, 50))
        page = reader.events_before(tx, filters.session_id or "", version, size)
        if not page:
            break
        matching = [recorded for recorded in page if filters.fits(recorded)]
        found += [
            entry(redacted.covered(each), paths, popped_item(tx, each, redacted))
            for each in matching[: limit - len(found)]
        ]
        version = page[-1].version
    return found


async def timeline(
    read: RunUnit,
    session_id: str,
    *,
    before: int | None,
    limit: int,
    types: Sequence[str] | None,
    actor: str | None,
    branch_id: str | None,
) -> list[TimelineRow]:
    """Return the rows of ``ConversationLog.timeline``."""
    codec.check_text("session_id", session_id)
    for name, value in (("before", before), ("limit", limit)):
        if value is not None and (type(value) is not int or value < 0):
            raise InvalidQueryError(f"invalid {name}: expected 0 or more, got {value!r}"[:200])
    names = [] if types is None else type_names(types)
    filters = Filters(session_id, branch_id, types=names, actor=actor, limit=limit)
    rows: list[TimelineRow] = await read(partial(_rows, filters=filters, before=before))
    return rows


def _rows(tx: Transaction, filters: Filters, before: int | None) -> list[TimelineRow]:
    session_id = filters.session_id or ""
    if not session_version(tx, session_id):
        raise SessionNotFoundError(session_id)
    return [row_of(each) for each in newest(tx, Paths.read(tx, session_id), filters, before=before)]


def row_of(each: Entry) -> TimelineRow:
    """Return an event of the audit trail for programs."""
    recorded, described, _ = each
    return TimelineRow(
        version=recorded.version,
        position=recorded.position,
        time=timestamps.iso(recorded.happened_at),
        type=recorded.type,
        branch_id=recorded.branch_id,
        actor=event_descriptions.bound(recorded, "actor"),
        trace_id=event_descriptions.bound(recorded, "trace_id"),
        account=described.account,
        state=described.state,
        items=[
            TimelineItem(
                index=index,
                account=item.account,
                removed=None if item.gone is None else item.gone.how,
                removed_at=None if item.gone is None else item.gone.position,
                removed_version=None if item.gone is None else item.gone.version,
            )
            for index, item in enumerate(described.items)
        ],
    )


def document(each: Entry) -> dict[str, JSON]:
    """Return the document of ``eventlog audit`` for an event."""
    recorded, described, popped = each
    event = recorded.event if described.state == "whole" else None
    return {
        "kind": "event",
        "position": recorded.position,
        "session_id": recorded.session_id,
        "version": recorded.version,
        "branch_id": recorded.branch_id,
        "type": recorded.type,
        "occurred_at": timestamps.iso(recorded.happened_at),
        "recorded_at": timestamps.iso(recorded.recorded_at),
        "actor": event_descriptions.bound(recorded, "actor"),
        "trace_id": event_descriptions.bound(recorded, "trace_id"),
        "account": described.account,
        "state": described.state,
        "data": None if event is None else json.loads(codec.encode(event)),
        "popped": popped,
        "items": [
            {
                "account": item.account,
                "gone": None if item.gone is None else item.gone.how,
                "gone_at": None if item.gone is None else item.gone.position,
            }
            for item in described.items
        ],
    }


class TimelineStep(NamedTuple):
    """
    Neighbours of the timeline that do the same thing, as one; mostly one event.

    entries: the newest first.
    """

    entries: list[Entry]

    @property
    def newest(self) -> Entry:
        """The event with the highest version."""
        return self.entries[0]

    @property
    def account(self) -> str:
        """What happened, in words."""
        if len(self.entries) == 1:
            return self.newest.described.account
        if self.newest.recorded.type == ItemPopped.type_name():
            return f"popped {len(self.entries):,} items"
        return f"recorded usage {len(self.entries):,} times"

    @property
    def oldest(self) -> Entry:
        """The event with the lowest version."""
        return self.entries[-1]


def steps(entries: Sequence[Entry]) -> list[TimelineStep]:
    """Return a timeline in which removals of one actor on one branch that follow each other are one."""
    found: list[TimelineStep] = []
    for each in entries:
        if found and _kind(found[-1].oldest) == _kind(each) is not None:
            found[-1].entries.append(each)
        else:
            found.append(TimelineStep([each]))
    return found


def _kind(each: Entry) -> tuple[str | None, ...] | None:
    """Return what makes an event equal to its neighbours; None for one that has its own row."""
    recorded = each.recorded
    if recorded.type not in {ItemPopped.type_name(), UsageRecorded.type_name()}:
        return None
    bound = (event_descriptions.bound(recorded, name) for name in ("actor", "reason", "trace_id"))
    return recorded.type, recorded.branch_id, *bound
