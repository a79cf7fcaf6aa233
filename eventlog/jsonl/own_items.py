"""
Forks as they are exported: with the items that they began with as their own.

So a fork is exported and imported without the session that it was forked from. The event ``session_forked``
becomes ``items_added``, and later events refer to its items.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from msgspec import structs

from agents_eventlog.eventlog import codec, payloads
from agents_eventlog.eventlog.events import (
    JSON,
    BranchCreated,
    ContentErased,
    Event,
    ItemPopped,
    ItemRef,
    ItemsAdded,
    ItemsReplaced,
    SessionForked,
    TurnUndone,
)
from agents_eventlog.eventlog.recorded_event import RecordedEvent
from agents_eventlog.eventlog.redacted_items import RedactedItems
from agents_eventlog.eventlog.storage.transaction import Transaction


def with_own_items(
    tx: Transaction, recorded: RecordedEvent, moved: dict[ItemRef, ItemRef]
) -> RecordedEvent:
    """
    Return a session's next event; that of a fork with its items, others that refer to them accordingly.

    moved: the places of these items, which is kept up to date.
    """
    if recorded.type == SessionForked.type_name() and isinstance(recorded.event, SessionForked):
        items = _items(tx, recorded, recorded.event, moved)
        return _replaced(recorded, ItemsAdded(items=items))
    event = recorded.event if moved else None
    if event is None:
        return recorded
    own = _with_refs(event, lambda ref: moved.get(ref, ref))
    return recorded if own is event else _replaced(recorded, own)


def _replaced(recorded: RecordedEvent, event: Event) -> RecordedEvent:
    replaced = copy.copy(recorded)
    replaced.type, replaced.schema_version = event.type_name(), event.schema_version
    replaced.event, replaced.data = event, codec.encode(event)
    return replaced


def _items(
    tx: Transaction, recorded: RecordedEvent, event: SessionForked, moved: dict[ItemRef, ItemRef]
) -> list[JSON]:
    found: list[JSON] = []
    for origin in event.origins:
        redacted = RedactedItems.of_session(tx, origin.session_id)
        contents: dict[int, list[JSON] | None] = {}
        for position, index, kind in origin.items:
            if position not in contents:
                contents[position] = redacted.left.get(position) or _stored(tx, position)
            items = contents[position]
            moved[ItemRef(position, index)] = ItemRef(recorded.position, len(found))
            found.append(event.kinds[kind] if items is None else items[index])
    return found


def _stored(tx: Transaction, position: int) -> list[JSON] | None:
    row = payloads.at(tx, position)
    return None if row is None or row[-1] is None else codec.decode_items([row])[0]


def _with_refs(event: Event, own: Callable[[ItemRef], ItemRef]) -> Event:
    match event:
        case ItemPopped(item=ref):
            return structs.replace(event, item=own(ref))
        case ItemsReplaced(first_item=ItemRef() as ref):
            return structs.replace(event, first_item=own(ref))
        case BranchCreated(last_item=ItemRef() as ref):
            return structs.replace(event, last_item=own(ref))
        case TurnUndone(removed=refs):
            return structs.replace(event, removed=[own(ref) for ref in refs])
        case ContentErased(structures=structures):
            return structs.replace(event, structures=[_structure(each, own) for each in structures])
    return event


def _structure(structure: Any, own: Callable[[ItemRef], ItemRef]) -> JSON:
    match structure:
        case {"first_item": [int() as position, int() as index]}:
            ref = own(ItemRef(position, index))
            return {**structure, "first_item": [ref.position, ref.index]}
    return structure
