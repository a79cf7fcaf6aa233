"""Descriptions of events for the audit trail: one line for each event."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from agents_eventlog.adapters.conversations import summary, timestamps
from agents_eventlog.eventlog import item_kind
from agents_eventlog.eventlog.errors import (
    KeysMissingError,
    ShreddedError,
    UndecodableEventError,
)
from agents_eventlog.eventlog.events import (
    ITEM_EVENTS,
    JSON,
    BranchCreated,
    BranchDeleted,
    BranchSwitched,
    ContentErased,
    Event,
    ExpirySet,
    ForkCreated,
    HistoryImported,
    ItemPopped,
    ItemRedacted,
    ItemRef,
    ItemsAdded,
    ItemsReplaced,
    ItemsWithheld,
    MetadataSet,
    SessionCleared,
    SessionDeleted,
    SessionForked,
    SessionRestored,
    TurnRedone,
    TurnUndone,
    UsageCorrected,
    UsageRecorded,
)
from agents_eventlog.projections.conversations.paths import Effect, Paths

if TYPE_CHECKING:
    from agents_eventlog.eventlog.recorded_event import RecordedEvent

HOW: Final = {
    "item_popped": "popped",
    "items_replaced": "replaced",
    "turn_undone": "undone",
    "branch_created": "replaced",  # only if the branch exists already, which no command does
    "branch_deleted": "deleted",
    "session_cleared": "cleared",
    "session_deleted": "deleted",
    "content_erased": "erased",
    "item_redacted": "redacted",
}
"""How an item was removed, by the type of the event that removed it."""

TOLD_ITEMS = 3
"""Maximum number of items that the description of an event shows."""
TOLD_CHARACTERS = 160
"""Maximum length of a part of a description, in characters."""


class Removal(NamedTuple):
    """How an item was removed from the last branch that had it, and the event that removed it."""

    how: str
    position: int
    version: int


class ItemTold(NamedTuple):
    """A short description of an item that an event added, and how the item was removed, if it was."""

    account: str
    gone: Removal | None


class EventDescription(NamedTuple):
    """
    The description of an event.

    account: the event in words.
    items: the items that it added.
    state: "whole", or why its content cannot be read: "erased", "sealed", "shredded" or "unreadable".
    """

    account: str
    items: list[ItemTold]
    state: str


def describe_event(
    recorded: RecordedEvent, paths: Paths | None, popped: JSON = None, *, full: bool = False
) -> EventDescription:
    """
    Return the description of an event; its texts may contain control characters.

    paths: those of its session, which show the effect of the event and later removals of its items.
    popped: the content of the item that a pop removed, if it is known.
    full: whether texts are complete; by default they are cut.
    """
    try:
        event = recorded.event
    except (KeysMissingError, ShreddedError):
        return _outlined(recorded, paths, str(recorded.withheld))
    except UndecodableEventError:
        return EventDescription(f"{recorded.type}: its content cannot be read", [], "unreadable")
    if event is None:
        return EventDescription(f"{recorded.type}: its content was erased", [], "erased")
    items = [
        ItemTold(brief(item, full=full), removal(paths, ItemRef(recorded.position, index)))
        for index, item in enumerate(event.items if isinstance(event, ITEM_EVENTS) else ())
    ]
    words = _WORDS[type(event)]
    effect = Effect() if paths is None else paths.effect(recorded.version)
    account = words(event, effect) + _of_one_call(recorded)
    if isinstance(event, ItemPopped):
        account += " an item" if popped is None else f" {brief(popped, full=full)}"
    return EventDescription(account if full else _short(account), items, "whole")


def _outlined(recorded: RecordedEvent, paths: Paths | None, state: str) -> EventDescription:
    """Return the description of an event from its outline: the types of its items, not their content."""
    event = recorded.outlined().event
    if event is None or isinstance(event, MetadataSet):
        return EventDescription(f"{recorded.type}: its content is {state}", [], state)
    items = [
        ItemTold(f"{_kind(item)}: ({state})", removal(paths, ItemRef(recorded.position, index)))
        for index, item in enumerate(event.items if isinstance(event, ITEM_EVENTS) else ())
    ]
    effect = Effect() if paths is None else paths.effect(recorded.version)
    account = _WORDS[type(event)](event, effect) + _of_one_call(recorded)
    return EventDescription(account, items, state)


def _kind(item: JSON) -> str:
    kind = item_kind.classify(item)
    return kind.type if kind.tool_name is None else f"{kind.type} {kind.tool_name}"


def removal(paths: Paths | None, ref: ItemRef) -> Removal | None:
    """Return how an item was removed; None if a branch has it."""
    version = None if paths is None else paths.removal(ref)
    if paths is None or version is None:
        return None
    change = paths.changes[version - 1]
    return Removal(HOW.get(change.type, "removed"), change.position, version)


def bound(recorded: RecordedEvent, name: str) -> str | None:
    """Return a value that a program bound to an event, such as its actor, as text."""
    try:
        value = recorded.metadata.get(name)
    except (ValueError, RecursionError, AttributeError):
        return None
    return value if isinstance(value, str | None) else summary.json_or_text(value)


def _of_one_call(recorded: RecordedEvent) -> str:
    """Return a note if the event was appended together with others."""
    try:
        count = recorded.metadata.get("events_in_append")
    except UndecodableEventError:
        return ""
    return (
        f" (with {count - 1:,} more events, by one call)"
        if type(count) is int and count > 1
        else ""
    )


def brief(item: JSON, *, full: bool = False) -> str:
    """Return a description of an item, with a message's text in quotes; a short one unless full."""
    role = item.get("role") if isinstance(item, Mapping) else None
    if isinstance(item, Mapping) and isinstance(role, str):
        text = summary.content(item)
        told = f"{role}: '{text if full else summary.shortened(text)}'"
    else:
        told = summary.brief(item, full=full)
    return told if full else _short(told)


def _short(text: str) -> str:
    return text if len(text) <= TOLD_CHARACTERS else f"{text[: TOLD_CHARACTERS - 1]}…"


def _added(event: ItemsAdded, _facts: Effect) -> str:
    return (
        "added" if len(event.items) == 1 else f"added {summary.counted(len(event.items), 'item')}"
    )


def _popped(_event: ItemPopped, facts: Effect) -> str:
    return "popped" if facts.number is None else f"popped #{facts.number:,}"


def _replaced(event: ItemsReplaced, facts: Effect) -> str:
    return f"replaced {summary.counted(facts.items, 'item')} by {len(event.items):,}"


def _undone(event: TurnUndone, _facts: Effect) -> str:
    return f"undid turn {event.turn:,} with {summary.counted(len(event.removed), 'item')}"


def _redone(event: TurnRedone, _facts: Effect) -> str:
    return f"redid turn {event.turn:,} with {summary.counted(len(event.items), 'item')}"


def _redacted(event: ItemRedacted, _facts: Effect) -> str:
    because = f": {event.reason}" if event.reason else ""
    return f"redacted item {event.item.index} at position {event.item.position}{because}"


def _withheld(event: ItemsWithheld, _facts: Effect) -> str:
    count = summary.counted(len(event.items), "item")
    return f"replaced {count} at position {event.position} by placeholders, for forks"


def _forked(event: SessionForked, _facts: Effect) -> str:
    count = summary.counted(sum(len(origin.items) for origin in event.origins), "item")
    return f"forked from session '{event.from_session_id}', {event.from_branch_id}, with {count}"


def _fork_created(event: ForkCreated, _facts: Effect) -> str:
    return f"forked {event.branch_id} into session '{event.session_id}'"


def _created(event: BranchCreated, _facts: Effect) -> str:
    turn = event.before_turn
    place = "at its end" if turn is None else f"before turn {turn}"
    return f"branched '{event.branch_id}' from {event.from_branch_id} {place}"


def _switched(event: BranchSwitched, _facts: Effect) -> str:
    return f"switched from {event.from_branch_id} to {event.branch_id}"


def _branch_deleted(event: BranchDeleted, facts: Effect) -> str:
    return f"deleted branch '{event.branch_id}' with {summary.counted(facts.items, 'item')}"


def _cleared(event: SessionCleared, facts: Effect) -> str:
    on = "1 branch" if facts.branches == 1 else f"{facts.branches:,} branches"
    because = ": the session had expired" if event.expired else ""
    return f"cleared {summary.counted(facts.items, 'item')} on {on}{because}"


def _expiry_set(event: ExpirySet, _facts: Effect) -> str:
    if event.expires_after_seconds is None:
        return "set the session to never expire"
    age = timestamps.as_duration(event.expires_after_seconds)
    return f"set the session to expire after {age} without use"


def _deleted(event: SessionDeleted, facts: Effect) -> str:
    because = f": {event.reason}" if event.reason else ""
    return f"deleted the session with {summary.counted(facts.items, 'item')}{because}"


def _restored(_event: SessionRestored, _facts: Effect) -> str:
    return "restored the session"


def _labelled(event: MetadataSet, _facts: Effect) -> str:
    parts = [] if event.user_id is None else [f"user id '{event.user_id}'"]
    if event.metadata is not None:
        parts.append(f"metadata {', '.join(event.metadata) or '(none)'}")
    return f"set {'; '.join(parts) or 'nothing'}"


def _used(event: UsageRecorded, _facts: Effect) -> str:
    requests = sum(request.requests for request in event.requests)
    tokens = sum(request.total_tokens for request in event.requests)
    costs = [request.cost_usd for request in event.requests if request.cost_usd is not None]
    parts = [summary.counted(requests, "request"), summary.counted(tokens, "token")]
    if costs:
        parts.append(f"${summary.usd(sum(costs))}")
    return f"recorded {', '.join(parts)}"


def _corrected(event: UsageCorrected, _facts: Effect) -> str:
    because = f": {event.reason}" if event.reason else ""
    return f"corrected the usage of {summary.counted(len(event.requests), 'request')}{because}"


def _erased(event: ContentErased, _facts: Effect) -> str:
    because = f": {event.reason}" if event.reason else ""
    if event.key_ids and not event.positions:
        return f"destroyed the key of the session{because}"
    whole = "the session, " if event.is_whole else ""
    count = summary.counted(len(event.positions), "event")
    keys = f", and destroyed {summary.counted(len(event.key_ids), 'key')}" if event.key_ids else ""
    return f"erased {whole}the content of {count}{keys}{because}"


def _imported(event: HistoryImported, _facts: Effect) -> str:
    counts = ", ".join(
        f"{number:,} {what.replace('_', ' ')}" for what, number in event.counts.items()
    )
    return f"imported from {event.source}: {counts or 'nothing'}"


_WORDS: dict[type[Event], Callable[[Any, Effect], str]] = {
    ItemsAdded: _added,
    ItemPopped: _popped,
    ItemsReplaced: _replaced,
    TurnUndone: _undone,
    TurnRedone: _redone,
    ItemRedacted: _redacted,
    ItemsWithheld: _withheld,
    SessionForked: _forked,
    ForkCreated: _fork_created,
    BranchCreated: _created,
    BranchSwitched: _switched,
    BranchDeleted: _branch_deleted,
    SessionCleared: _cleared,
    ExpirySet: _expiry_set,
    SessionDeleted: _deleted,
    SessionRestored: _restored,
    MetadataSet: _labelled,
    UsageRecorded: _used,
    UsageCorrected: _corrected,
    ContentErased: _erased,
    HistoryImported: _imported,
}
