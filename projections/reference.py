"""
The reference fold: what a history means, without a database or segments; each branch is a list.

Tests compare the projections' tables with it. It is written for reading, not for speed, and
shares with the builders only the classification of items. It takes any sequence of events: what an
event says is a fact (items added to a branch make it live), and what fits nothing (a
pop of an item that is not the branch's newest) changes nothing. An event whose content was erased
still counts as it did, by the structure that was kept of it; where none was, no items remain.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import msgspec

from agents_eventlog.eventlog import events
from agents_eventlog.eventlog.events import JSON, ItemRef
from agents_eventlog.eventlog.item_kind import USER, ItemKind, classify

if TYPE_CHECKING:
    from collections.abc import Iterable

    from agents_eventlog.eventlog.recorded_event import RecordedEvent

MAIN: Final = "main"

_REDACTING: Final = {events.ItemRedacted.type_name(), events.ItemsWithheld.type_name()}


@dataclass(frozen=True, slots=True)
class Item:
    """An item of a branch: which it is, what it looks like, and the turn that it belongs to."""

    ref: ItemRef
    kind: ItemKind
    turn: int
    is_forked: bool = False


@dataclass
class Branch:
    """A branch and its items, in order. A branch that is not live has none; its id stays taken."""

    created_position: int
    created_at: int
    updated_at: int
    items: list[Item] = field(default_factory=list)
    is_live: bool = False
    is_generated: bool = False
    from_branch_id: str | None = None

    @property
    def turn(self) -> int:
        """The turn of the last item; 0 without items."""
        return self.items[-1].turn if self.items else 0

    def number_of(self, ref: ItemRef | None) -> int:
        """Return an item's number in the branch, from 1; 0 when it is not in it."""
        refs = [item.ref for item in self.items]
        return refs.index(ref) + 1 if ref in refs else 0

    def add(self, position: int, items: Iterable[JSON]) -> None:
        """Put an event's items at the end; each user item opens a turn."""
        for index, content in enumerate(items):
            seen = classify(content)
            turn = self.turn + (seen.type == USER)
            self.items.append(Item(ItemRef(position, index), seen, turn))


@dataclass
class Used:
    """What one model request used, on which branch and turn, and whether that turn is still live."""

    position: int
    index: int
    branch_id: str
    turn: int | None
    is_live: bool
    run_id: str
    interrupted: bool
    request: events.RequestUsage
    occurred_at: int
    undone_version: int | None = None


@dataclass
class Session:
    """A conversation: its branches by id, its user id and metadata, and all its usage."""

    created_at: int
    updated_at: int
    user_id: str | None = None
    metadata: dict[str, JSON] | None = None
    branch_id: str = MAIN
    cleared_version: int = 0
    cleared_at: int = 0
    deleted_at: int | None = None
    erased_at: int | None = None
    expires_after: int | None = None
    is_filled: bool = False
    expired_version: int | None = None
    branches: dict[str, Branch] = field(default_factory=dict)
    usage: list[Used] = field(default_factory=list)

    @property
    def item_count(self) -> int:
        """The number of different items on live branches; a shared one counts once."""
        return len(self._live_items())

    @property
    def turn_count(self) -> int:
        """The number of different user items on live branches."""
        return sum(item.kind.type == USER for item in self._live_items().values())

    @property
    def branch_count(self) -> int:
        """How many branches are live."""
        return sum(branch.is_live for branch in self.branches.values())

    def _live_items(self) -> dict[ItemRef, Item]:
        return {item.ref: item for branch in self.branches.values() for item in branch.items}

    def live(self, branch_id: str, recorded: RecordedEvent) -> Branch:
        """Return the branch that an event happens on, and make it live."""
        at = recorded.occurred_at
        branch = self.branches.setdefault(branch_id, Branch(recorded.position, at, at))
        if not branch.is_live:
            branch.is_live = self.is_filled = True
            branch.created_position, branch.created_at = recorded.position, at
        branch.updated_at = at
        return branch

    def end_usage(self, branch_id: str | None = None, turn: int | None = None) -> None:
        """Note that a turn, a branch (no turn given) or everything (no branch given) is gone."""
        for used in self.usage:
            if branch_id in (None, used.branch_id) and turn in (None, used.turn):
                used.is_live = False


@dataclass
class State:
    """Every session of a log, by id."""

    sessions: dict[str, Session] = field(default_factory=dict)
    redactions: dict[ItemRef, tuple[int, str | None]] = field(default_factory=dict)
    """The position of the newest redaction of each redacted item, and its reason."""

    def apply(self, recorded: RecordedEvent) -> None:  # noqa: C901, PLR0912, PLR0915 - a case for each
        """Take the next event. Raises UndecodableEventError for one that cannot be read."""
        recorded = recorded.outlined()
        if recorded.type == events.ContentErased.type_name():
            self._erase(recorded)  # about payloads, not about the conversation
            return
        if recorded.type in _REDACTING:
            self._redact(recorded)  # about payloads, too
            return
        if recorded.type == events.ForkCreated.type_name():
            return  # the session itself is as before
        if isinstance(correction := recorded.event, events.UsageCorrected):
            self._correct(correction)  # about the books, not about the conversation
            return
        at = recorded.occurred_at
        session = self.sessions.setdefault(recorded.session_id, Session(at, at))
        here = recorded.branch_id or MAIN
        if recorded.type == events.UsageRecorded.type_name():  # about the books, too
            if isinstance(used := recorded.event, events.UsageRecorded):
                _use(session, recorded, used, here)
            return
        if isinstance(expiry := recorded.event, events.ExpirySet):  # no use of the session
            seconds = expiry.expires_after_seconds
            session.expires_after = None if seconds is None else seconds * 1_000_000
            return
        session.updated_at = max(session.updated_at, at)
        match recorded.event:
            case None:
                if recorded.type in {kind.type_name() for kind in events.ITEM_EVENTS}:
                    session.live(here, recorded)
            case events.ItemsAdded(items=items):
                session.live(here, recorded).add(recorded.position, items)
            case events.ItemPopped() as event:
                _pop(session, recorded, event, here)
            case events.ItemsReplaced() as event:
                _replace(session, recorded, event, here)
            case events.TurnUndone() as event:
                _undo(session, recorded, event, here)
            case events.TurnRedone() as event:
                _redo(session, recorded, event, here)
            case events.BranchCreated() as event:
                _create(session, recorded, event)
            case events.SessionForked() as event:
                _fork(session, recorded, event, here)
            case events.BranchSwitched(branch_id=branch_id):
                session.branch_id = branch_id
            case events.BranchDeleted(branch_id=branch_id):
                _delete(session, recorded, branch_id)
            case events.SessionCleared(expired=expired):
                _clear(session, recorded)
                if expired:
                    session.is_filled, session.expired_version = False, recorded.version
            case events.SessionDeleted():
                session.deleted_at = at
            case events.SessionRestored():
                session.deleted_at = None
            case events.MetadataSet(user_id=user_id, metadata=metadata):
                session.user_id = session.user_id if user_id is None else user_id or None
                session.metadata = session.metadata if metadata is None else metadata or None
            case _:
                pass  # an import begins: its items follow as events

    def _redact(self, recorded: RecordedEvent) -> None:
        match recorded.event:
            case events.ItemRedacted(item=ref, reason=reason):
                self.redactions[ref] = recorded.position, reason
            case events.ItemsWithheld(position=position, items=items, reason=reason):
                for index in range(len(items)):
                    self.redactions[ItemRef(position, index)] = recorded.position, reason

    def _erase(self, recorded: RecordedEvent) -> None:
        session = self.sessions.get(recorded.session_id)
        event = recorded.event
        if session is None or not isinstance(event, events.ContentErased):
            return
        if event.expired_version == session.expired_version:
            session.expired_version = None
        if event.is_whole:
            _empty(session)
            session.user_id, session.metadata = event.pseudonym, None
            session.erased_at = recorded.occurred_at
            session.is_filled, session.expired_version = False, None

    def _correct(self, event: events.UsageCorrected) -> None:
        used = {(u.position, u.index): u for s in self.sessions.values() for u in s.usage}
        for correction in event.requests:
            known = used.get((correction.request.position, correction.request.index))
            if known is None:
                continue
            known.request = msgspec.structs.replace(
                known.request,
                **{
                    field: value
                    for field in correction.__struct_fields__
                    if field != "request" and (value := getattr(correction, field)) is not None
                },
            )


def fold(history: Iterable[RecordedEvent]) -> State:
    """Return what a history means: the events of whole sessions, in their order."""
    state = State()
    for recorded in history:
        state.apply(recorded)
    return state


def _pop(session: Session, recorded: RecordedEvent, event: events.ItemPopped, here: str) -> None:
    branch = session.branches.get(here)
    if branch is not None and branch.items and branch.items[-1].ref == event.item:
        branch.items = branch.items[:-1]
        branch.updated_at = recorded.occurred_at
    if event.emptied_turn is not None:
        session.end_usage(here, event.emptied_turn)


def _replace(
    session: Session, recorded: RecordedEvent, event: events.ItemsReplaced, here: str
) -> None:
    branch = session.live(here, recorded)
    if event.first_item is None:
        branch.items = []
    elif number := branch.number_of(event.first_item):
        branch.items = branch.items[: number - 1]
    branch.add(recorded.position, event.items)


def _undo(session: Session, recorded: RecordedEvent, event: events.TurnUndone, here: str) -> None:
    branch = session.branches.get(here)
    number = branch.number_of(event.removed[0]) if branch is not None and event.removed else 0
    if branch is not None and number:
        branch.items = branch.items[: number - 1]
        branch.updated_at = recorded.occurred_at
    for used in session.usage:
        if used.is_live and (used.branch_id, used.turn) == (here, event.turn):
            used.is_live, used.undone_version = False, recorded.version


def _redo(session: Session, recorded: RecordedEvent, event: events.TurnRedone, here: str) -> None:
    session.live(here, recorded).add(recorded.position, event.items)
    for used in session.usage:
        if used.undone_version == event.undone_version and used.branch_id == here:
            used.is_live, used.undone_version = True, None


def _fork(
    session: Session, recorded: RecordedEvent, event: events.SessionForked, here: str
) -> None:
    before = session.branches[here].items if here in session.branches else []
    refs = [ItemRef(*ref[:2]) for origin in event.origins for ref in origin.items]
    if [*(item.ref for item in before[-1:]), *refs] != sorted(
        {*(i.ref for i in before[-1:]), *refs}
    ):
        return  # the items of a branch ascend
    if not (before[-1].is_forked if before else recorded.version == 1):
        return  # a session begins with what it was forked from
    branch = session.live(here, recorded)
    for origin in event.origins:
        for position, index, kind in origin.items:
            seen = classify(event.kinds[kind])
            turn = branch.turn + (seen.type == USER)
            branch.items.append(Item(ItemRef(position, index), seen, turn, is_forked=True))


def _create(session: Session, recorded: RecordedEvent, event: events.BranchCreated) -> None:
    source = session.branches.get(event.from_branch_id)
    if event.from_branch_id == MAIN and (source is None or not source.is_live):
        source = session.live(MAIN, recorded)  # main is there as soon as anything leaves it
    kept = [] if source is None else source.items[: source.number_of(event.last_item)]
    branch = session.live(event.branch_id, recorded)
    branch.items = list(kept)
    branch.is_generated = event.generated
    branch.from_branch_id = event.from_branch_id
    session.branch_id = event.branch_id


def _delete(session: Session, recorded: RecordedEvent, branch_id: str) -> None:
    branch = session.branches.get(branch_id)
    if branch is not None:
        branch.is_live, branch.items = False, []
        branch.updated_at = recorded.occurred_at
    if session.branch_id == branch_id:
        session.branch_id = MAIN
    session.end_usage(branch_id)


def _empty(session: Session) -> None:
    for branch in session.branches.values():
        branch.is_live, branch.items = False, []
    session.branch_id = MAIN


def _clear(session: Session, recorded: RecordedEvent) -> None:
    _empty(session)
    session.cleared_version, session.cleared_at = recorded.version, recorded.occurred_at
    session.end_usage()


def _use(session: Session, recorded: RecordedEvent, event: events.UsageRecorded, here: str) -> None:
    for index, request in enumerate(event.requests):
        session.usage.append(
            Used(
                position=recorded.position,
                index=index,
                branch_id=here,
                turn=event.turn,
                is_live=event.turn is not None,
                run_id=event.run_id,
                interrupted=event.interrupted,
                request=request,
                occurred_at=recorded.occurred_at,
            )
        )
