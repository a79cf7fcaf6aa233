"""Events and items in words: what a person is told of them, in one line."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from adapters.terminal import printable
from eventlog.events import (
    JSON,
    BranchCreated,
    BranchDeleted,
    BranchSwitched,
    ContentErased,
    Event,
    HistoryImported,
    ItemPopped,
    ItemsAdded,
    ItemsReplaced,
    MetadataSet,
    SessionCleared,
    SessionDeleted,
    UsageRecorded,
)

if TYPE_CHECKING:
    from eventlog.recorded import Recorded

SHORT_CHARACTERS = 48


def account(recorded: Recorded) -> str:
    """Return what an event says, in one printable line."""
    event = recorded.event
    return "its content was erased" if event is None else printable(_account(event))


def _account(event: Event) -> str:
    words = _WORDS.get(type(event))
    return event.type_name() if words is None else words(event)


def _added(event: ItemsAdded) -> str:
    return "; ".join(brief(item) for item in event.items)


def _popped(event: ItemPopped) -> str:
    return f"item {event.item.position}.{event.item.index} taken off"


def _replaced(event: ItemsReplaced) -> str:
    return f"{counted(len(event.items), 'item')} in the place of earlier ones"


def _switched(event: BranchSwitched) -> str:
    return f"from {event.from_branch_id} to {event.branch_id}"


def _branch_deleted(event: BranchDeleted) -> str:
    return f"{event.branch_id} is gone"


def _cleared(_event: SessionCleared) -> str:
    return "all branches emptied"


def _deleted(event: SessionDeleted) -> str:
    return f"deleted: {event.reason}" if event.reason else "deleted"


def _erased(event: ContentErased) -> str:
    return f"content of {counted(len(event.positions), 'event')} erased"


def _imported(event: HistoryImported) -> str:
    brought = ", ".join(f"{number} {what}" for what, number in event.counts.items())
    return f"from {event.source}: {brought or 'nothing'}"


def _created(event: BranchCreated) -> str:
    last = event.last_item
    kept = "keeps nothing" if last is None else f"keeps all up to item {last.position}.{last.index}"
    place = "" if event.before_turn is None else f" before turn {event.before_turn}"
    return f"{event.branch_id} leaves {event.from_branch_id}{place}, {kept}"


def _used(event: UsageRecorded) -> str:
    read = sum(request.input_tokens for request in event.requests)
    written = sum(request.output_tokens for request in event.requests)
    requests = counted(sum(request.requests for request in event.requests), "request")
    turn = "a turn that is gone" if event.turn is None else f"turn {event.turn}"
    return f"{turn}: {requests}, {read:,} tokens in, {written:,} out"


def _labelled(event: MetadataSet) -> str:
    labels: list[str] = [] if event.user_id is None else [f"user {event.user_id}"]
    if event.metadata is not None:
        labels.append(", ".join(event.metadata) or "no metadata")
    return "; ".join(labels) or "nothing"


_WORDS: dict[type[Event], Callable[[Any], str]] = {
    ItemsAdded: _added,
    ItemPopped: _popped,
    ItemsReplaced: _replaced,
    BranchCreated: _created,
    BranchSwitched: _switched,
    BranchDeleted: _branch_deleted,
    SessionCleared: _cleared,
    SessionDeleted: _deleted,
    MetadataSet: _labelled,
    UsageRecorded: _used,
    ContentErased: _erased,
    HistoryImported: _imported,
}


def brief(item: JSON) -> str:
    """Return an item in a few words; not made printable yet."""
    if not isinstance(item, Mapping):
        return shortened(str(item))
    kind = item.get("type")
    if kind == "function_call":
        return f"calls {call(item)}"
    if kind == "function_call_output":
        return f"gets {shortened(json_or_text(item.get('output')))}"
    role = item.get("role")
    return f"{role}: {shortened(content(item))}" if role else str(kind or "an item")


def call(item: Mapping[str, Any]) -> str:
    """Return a tool call as code would write it."""
    arguments = item.get("arguments")
    try:
        given = json.loads(arguments) if isinstance(arguments, str) else None
    except ValueError:
        given = None
    if not isinstance(given, dict):
        return f"{item.get('name')}({shortened(json_or_text(arguments))})"
    shown = ", ".join(
        f"{name}={json.dumps(value, ensure_ascii=False)}" for name, value in given.items()
    )
    return f"{item.get('name')}({shown})"


def content(item: Mapping[str, Any]) -> str:
    """Return the text of a message: its own, or that of its parts."""
    parts = item.get("content")
    if isinstance(parts, str):
        return parts
    if not isinstance(parts, list):
        return ""
    texts = (part.get("text") for part in parts if isinstance(part, Mapping))
    return "\n".join(text for text in texts if isinstance(text, str))


def json_or_text(value: JSON) -> str:
    """Return a text as it is, anything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def shortened(text: str) -> str:
    """Return a text on one line, cut with an ellipsis where it is long."""
    line = " ".join(text.split())
    return line if len(line) <= SHORT_CHARACTERS else f"{line[: SHORT_CHARACTERS - 1]}…"


def counted(number: int, what: str) -> str:
    """Return a number with its noun."""
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"
