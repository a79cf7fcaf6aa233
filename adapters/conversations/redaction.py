"""Redact an item: replace its content by a placeholder, wherever the item is. Does not depend on an SDK."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypedDict

from agents_eventlog.eventlog import codec
from agents_eventlog.eventlog.appender import MOST_EVENTS, append_all
from agents_eventlog.eventlog.appending import encode_checked
from agents_eventlog.eventlog.erased_shapes import ErasedShapes
from agents_eventlog.eventlog.errors import (
    ItemErasedError,
    ItemNotFoundError,
    ItemRedactedError,
)
from agents_eventlog.eventlog.events import (
    ITEM_EVENTS,
    JSON,
    ItemRedacted,
    ItemRef,
    TurnRedone,
    TurnUndone,
)
from agents_eventlog.eventlog.item_kind import classify
from agents_eventlog.eventlog.reader import event_at
from agents_eventlog.eventlog.recorded_event import RecordedEvent
from agents_eventlog.eventlog.storage.transaction import Transaction
from agents_eventlog.projections.conversations import builder as conversations
from agents_eventlog.projections.conversations import forks, redactions
from agents_eventlog.projections.conversations import queries as conversation_queries
from agents_eventlog.projections.conversations.placeholder import placeholder


class Redaction(TypedDict):
    """
    A redaction, or what one would do.

    position, index: the identity of the item. type: its type, as ``get_conversation_by_turns`` names it.
    placeholder: what every read returns in its place.
    copies: [position, index] of its copies, which are redacted, too: redoing an undone turn makes them, in
    the session or in its forks.
    """

    session_id: str
    position: int
    index: int
    type: str
    placeholder: JSON
    copies: list[list[int]]


def redact(
    tx: Transaction,
    ref: ItemRef,
    reason: str | None,
    *,
    session_id: str | None = None,
    dry_run: bool = False,
) -> Redaction:
    """
    Replace an item's content, and that of its copies, by placeholders; see ``Redaction``.

    session_id: the session that the item must be of; None allows any.
    dry_run: write nothing.
    """
    added = event_at(tx, ref.position)
    if added is None or session_id not in (None, added.session_id) or not _adds_items(added):
        raise ItemNotFoundError(position=ref.position, index=ref.index, session_id=session_id)
    conversations.session(tx, added.session_id)  # locks it: what is read next must not change
    redacted = _item(tx, ref, session_id)
    before = redactions.of_event(tx, ref.position).get(ref.index)
    if before is not None:
        raise ItemRedactedError(
            position=ref.position, index=ref.index, redaction_position=before.position
        )
    copies = _copies(tx, ref, is_everywhere=session_id is None)
    for other in sorted({_session_of(tx, each) for each in copies} - {added.session_id}):
        conversations.session(tx, other)
    copies = [each for each in copies if _is_whole(tx, each)]
    if not dry_run:
        _replace(tx, [ref, *copies], reason)
    return Redaction(
        session_id=added.session_id,
        position=ref.position,
        index=ref.index,
        type=classify(redacted).type,
        placeholder=placeholder(redacted),
        copies=[[each.position, each.index] for each in copies],
    )


def parse(position: int, index: int, reason: str | None) -> ItemRef:
    """
    Check what a caller passes, and return the item's identity.

    Raises TypeError, InvalidEventError for a reason that is not valid text, and ItemNotFoundError for
    numbers that no item has.
    """
    for name, number in (("position", position), ("index", index)):
        if type(number) is not int:
            raise TypeError(f"invalid {name}: expected an int, got {type(number).__name__}")
    if reason is not None:
        codec.check_text("reason", reason)
    if not (0 < position <= MOST_EVENTS and 0 <= index <= MOST_EVENTS):
        raise ItemNotFoundError(position=position, index=index)
    return ItemRef(position, index)


def _adds_items(recorded: RecordedEvent) -> bool:
    return recorded.type in {kind.type_name() for kind in ITEM_EVENTS}


def _items(tx: Transaction, position: int) -> list[JSON] | None:
    """Return the items of an event, redacted ones as placeholders; None if their content was erased."""
    row = redactions.at(tx, position)
    return None if row is None or row[-1] is None else codec.decode_items([row])[0]


def _item(tx: Transaction, ref: ItemRef, session_id: str | None) -> JSON:
    items = _items(tx, ref.position)
    if items is None:
        raise ItemErasedError(position=ref.position, index=ref.index)
    if ref.index >= len(items):
        raise ItemNotFoundError(position=ref.position, index=ref.index, session_id=session_id)
    return items[ref.index]


def _is_whole(tx: Transaction, ref: ItemRef) -> bool:
    """Whether an item was neither redacted nor erased."""
    items = _items(tx, ref.position)
    is_redacted = ref.index in redactions.of_event(tx, ref.position)
    return items is not None and ref.index < len(items) and not is_redacted


def _replace(tx: Transaction, refs: list[ItemRef], reason: str | None) -> None:
    """Append a redaction of each item; what the next one of the same event keeps includes it."""
    changed: dict[int, list[JSON]] = {}
    events: dict[str, list[tuple[ItemRedacted, bytes]]] = {}
    for ref in refs:
        items = changed.get(ref.position) or _items(tx, ref.position) or []
        items = [*items]
        items[ref.index] = placeholder(items[ref.index])
        changed[ref.position] = items
        redacted = ItemRedacted(item=ref, items=items, reason=reason)
        events.setdefault(_session_of(tx, ref), []).append((redacted, encode_checked(redacted)))
    for session_id, added in events.items():
        append_all(tx, session_id, added)


def _session_of(tx: Transaction, ref: ItemRef) -> str:
    added = event_at(tx, ref.position)
    if added is None:
        raise ItemNotFoundError(position=ref.position, index=ref.index)
    return added.session_id


def _copies(tx: Transaction, ref: ItemRef, *, is_everywhere: bool) -> list[ItemRef]:
    """
    Return the copies of an item that redoing turns made, and the items that it is a copy of.

    Copies are in the item's session and in its forks. What a fork's item is a copy of may be in the session
    that was forked: it is returned if the search is everywhere.
    """
    links: dict[ItemRef, set[ItemRef]] = {}
    family: set[str] = set()
    found, waiting = {ref}, [ref]
    while waiting:
        one = waiting.pop()
        for session_id in _with_forks(tx, _session_of(tx, one)):
            if session_id not in family:
                family.add(session_id)
                for first, second in _copied(tx, session_id):
                    links.setdefault(first, set()).add(second)
                    links.setdefault(second, set()).add(first)
        new = links.get(one, set()) - found
        if not is_everywhere:
            new = {each for each in new if _session_of(tx, each) in family}
        found |= new
        waiting += new
    return sorted(found - {ref})


def _with_forks(tx: Transaction, session_id: str) -> list[str]:
    """Return a session, its forks, and theirs."""
    sessions = [session_id]
    for each in sessions:
        sessions += [fork for fork in forks.of_session(tx, each) if fork not in sessions]
    return sessions


def _copied(tx: Transaction, session_id: str) -> Iterator[tuple[ItemRef, ItemRef]]:
    """Yield each item that was undone, and the item that redoing it added."""
    events = [*conversation_queries.undone_and_redone(tx, session_id)]
    ErasedShapes().fill(tx, events)
    undone: dict[int, Iterator[ItemRef]] = {}
    for recorded in events:
        match recorded.outlined().event:
            case TurnUndone(removed=removed):
                undone[recorded.version] = iter(removed)
            case TurnRedone(undone_version=version, items=items) if version in undone:
                # Several events redo a large turn, one after the other.
                refs = (ItemRef(recorded.position, index) for index in range(len(items)))
                yield from zip(refs, undone[version], strict=False)
