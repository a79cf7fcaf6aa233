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
    ItemsAdded,
    ItemsReplaced,
    ItemsWithheld,
    TurnRedone,
)
from agents_eventlog.eventlog.recorded_event import RecordedEvent
from agents_eventlog.eventlog.storage.transaction import Transaction

REDACTING: Final = {ItemRedacted.type_name(), ItemsWithheld.type_name()}
"""The types of events whose items replace those of another event."""

REDACTIONS: Final = """
    WHERE session_id = ? AND type IN ('item_redacted', 'items_withheld') ORDER BY version
"""


class RedactedItems:
    """
    The redactions of some sessions: feed it their events, or read those of one session.

    left: the items of each redacted event with their placeholders, by the event's position.
    """

    def __init__(self) -> None:
        self.left: dict[int, list[JSON]] = {}

    @classmethod
    def of_session(cls, tx: Transaction, session_id: str) -> RedactedItems:
        """Return the redactions of a session."""
        found = cls()
        for row in payloads.event_rows(tx, REDACTIONS, (session_id,)):
            found.learn(RecordedEvent(row))
        return found

    def learn(self, recorded: RecordedEvent) -> None:
        """Take the next event of a session. Raises UndecodableEventError for one that cannot be read."""
        if recorded.type not in REDACTING or recorded.withheld in ("sealed", "shredded"):
            return
        event, position = recorded.event, added_at(recorded)
        if (
            isinstance(event, ItemRedacted | ItemsWithheld) and position
        ):  # an import may not know it
            self.left[position] = event.items

    def covered(self, recorded: RecordedEvent) -> RecordedEvent:
        """Return an event with the placeholders of its redacted items; unchanged if it has none."""
        left = self.left.get(added_at(recorded)) if self.left else None
        return recorded if left is None else with_items(recorded, left)


def added_at(recorded: RecordedEvent) -> int:
    """Return the position of the event that added the items in this event: its own, or that redacted."""
    if recorded.type not in REDACTING:
        return recorded.position
    try:
        event = recorded.outlined().event
    except UndecodableEventError:
        event = None
    if isinstance(event, ItemsWithheld):
        return event.position
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
