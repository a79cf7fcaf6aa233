"""
Events with the placeholders of their redacted items.

A redacted event keeps its payload until the next erasure. What shows or hands on whole events replaces
their items first.
"""

from __future__ import annotations

import copy
from typing import Final

from msgspec import structs

from agents_eventlog.eventlog import codec, payloads
from agents_eventlog.eventlog.errors import KeysMissingError, UndecodableEventError
from agents_eventlog.eventlog.events import (
    JSON,
    ItemRedacted,
    ItemRef,
    ItemsAdded,
    ItemsReplaced,
    TurnRedone,
)
from agents_eventlog.eventlog.recorded_event import RecordedEvent
from agents_eventlog.eventlog.storage.transaction import Transaction

REDACTIONS: Final = "WHERE session_id = ? AND type = 'item_redacted' ORDER BY version"


class RedactedItems:
    """
    The redactions of some sessions: feed it their events, or read those of one session.

    items: the redacted items, each with the position of its redaction.
    """

    def __init__(self) -> None:
        self.items: dict[ItemRef, int] = {}
        self._left: dict[int, list[JSON]] = {}

    @classmethod
    def of_session(cls, tx: Transaction, session_id: str) -> RedactedItems:
        """Return the redactions of a session."""
        found = cls()
        for row in payloads.event_rows(tx, REDACTIONS, (session_id,)):
            found.learn(RecordedEvent(row))
        return found

    def learn(self, recorded: RecordedEvent) -> None:
        """Take the next event of a session. Raises UndecodableEventError for one that cannot be read."""
        if recorded.type != ItemRedacted.type_name() or recorded.withheld in ("sealed", "shredded"):
            return
        event = recorded.event
        if isinstance(event, ItemRedacted):
            self.items[event.item] = recorded.position
            self._left[event.item.position] = event.items

    def covered(self, recorded: RecordedEvent) -> RecordedEvent:
        """Return an event with the placeholders of its redacted items; unchanged if it has none."""
        left = self._left.get(added_at(recorded)) if self._left else None
        return recorded if left is None else with_items(recorded, left)


def added_at(recorded: RecordedEvent) -> int:
    """Return the position of the event that added the items in this event: its own, or that redacted."""
    if recorded.type != ItemRedacted.type_name():
        return recorded.position
    try:
        event = recorded.outlined().event
    except UndecodableEventError:
        event = None
    return event.item.position if isinstance(event, ItemRedacted) else recorded.position


def with_items(recorded: RecordedEvent, items: list[JSON]) -> RecordedEvent:
    """Return an event with other items in its data; unchanged if it cannot be read."""
    try:
        event = recorded.event
    except (UndecodableEventError, KeysMissingError):
        return recorded
    if not isinstance(event, ItemsAdded | ItemsReplaced | TurnRedone | ItemRedacted):
        return recorded
    replaced = structs.replace(event, items=items)
    covered = copy.copy(recorded)
    covered.event, covered.data = replaced, codec.encode(replaced)
    return covered
