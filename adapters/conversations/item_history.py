"""The removal of each item, and the effect of each event, computed from whole histories."""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING, NamedTuple

from agents_eventlog.eventlog.events import (
    BranchCreated,
    BranchDeleted,
    ItemPopped,
    ItemsReplaced,
    MetadataSet,
    SessionCleared,
    SessionDeleted,
    SessionRestored,
    TurnUndone,
    UsageCorrected,
    UsageRecorded,
)
from agents_eventlog.eventlog.redacted_items import RedactedItems
from agents_eventlog.projections.reference import MAIN, State

if TYPE_CHECKING:
    from collections.abc import Iterable

    from agents_eventlog.eventlog.events import Event, ItemRef
    from agents_eventlog.eventlog.recorded_event import RecordedEvent
    from agents_eventlog.projections.reference import Branch, Item

_HOW: dict[type[Event], str] = {
    ItemPopped: "popped",
    ItemsReplaced: "replaced",
    TurnUndone: "undone",
    BranchDeleted: "deleted",
    SessionCleared: "cleared",
    SessionDeleted: "deleted",
    BranchCreated: "replaced",  # only if the branch exists already, which no command does
}
_ABOUT_NO_ITEM = {kind.type_name() for kind in (MetadataSet, UsageRecorded, UsageCorrected)}


class Removal(NamedTuple):
    """How an item was removed from the last branch that held it, and the position of the event."""

    how: str
    position: int


class EventEffect(NamedTuple):
    """What an event removed: numbers of items and of branches; a popped item's number on its branch."""

    items: int
    branches: int
    number: int | None = None


class ItemHistory:
    """
    Follows sessions from their first event, using the reference implementation of a history.

    redacted: the redactions so far.

    Memory use grows with the number of active and removed items.
    """

    def __init__(self) -> None:
        self.gone: dict[ItemRef, Removal] = {}
        self.facts: dict[int, EventEffect] = {}
        self.redacted = RedactedItems()
        self._state = State()

    def follow(self, recorded: RecordedEvent) -> None:
        """Apply a session's next event; an event that cannot be read is ignored."""
        if recorded.type in _ABOUT_NO_ITEM:
            return
        recorded = recorded.outlined()
        try:
            event = recorded.event
            self.redacted.learn(recorded)
            how = None if event is None else _HOW.get(type(event))
            before = {} if event is None or how is None else self._touched(recorded, event)
            sizes = {name: len(items) for name, items in before.items()}
            self._state.apply(recorded)
        except (ValueError, RecursionError):
            return
        if isinstance(event, SessionRestored):
            self._stand_again(recorded.session_id)
        if event is None or how is None:
            return
        session = self._state.sessions[recorded.session_id]
        is_deleted = isinstance(event, SessionDeleted)
        left: set[ItemRef] = set()
        for name, items in before.items():
            now = [] if is_deleted else session.branches[name].items
            left.update(_left(items, now))
        for ref in left:
            if is_deleted or not _stands(session.branches.values(), ref):
                self.gone.setdefault(ref, Removal(how, recorded.position))
        number = next(iter(sizes.values())) if isinstance(event, ItemPopped) and left else None
        self.facts[recorded.position] = EventEffect(len(left), len(before), number)

    def _stand_again(self, session_id: str) -> None:
        for branch in self._state.sessions[session_id].branches.values():
            for item in branch.items:
                self.gone.pop(item.ref, None)

    def _touched(self, recorded: RecordedEvent, event: Event) -> dict[str, list[Item]]:
        """Return the items of the live branches that an event may remove items from."""
        session = self._state.sessions.get(recorded.session_id)
        if session is None:
            return {}
        names = {recorded.branch_id or MAIN}
        if isinstance(event, BranchDeleted | BranchCreated):
            names = {event.branch_id}
        elif isinstance(event, SessionCleared | SessionDeleted):
            names = set(session.branches)
        found = {name: session.branches[name] for name in names if name in session.branches}
        # A branch that gains items keeps its list; one that loses items gets a new list.
        return {name: branch.items for name, branch in found.items() if branch.is_live}


def _left(before: list[Item], now: list[Item]) -> Iterable[ItemRef]:
    """Return the items that were removed from a branch: a suffix of it."""
    kept = len(now)
    while kept and (kept > len(before) or now[kept - 1] is not before[kept - 1]):
        kept -= 1
    return [item.ref for item in before[kept:]]


def _stands(branches: Iterable[Branch], ref: ItemRef) -> bool:
    """Whether an item is on one of the branches, whose items are sorted by their refs."""
    for branch in branches:
        place = bisect_left(branch.items, ref, key=lambda item: item.ref)
        if place < len(branch.items) and branch.items[place].ref == ref:
            return True
    return False
