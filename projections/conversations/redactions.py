"""
Which items were redacted, and where the content that replaces theirs is.

A redaction carries all items of the event whose item it redacts, so reads take the payload of an event's
newest redaction in place of the event's own. This module is the only one that knows of it: others read the
payloads of items through it.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Final, NamedTuple

from agents_eventlog.eventlog import payloads, reader
from agents_eventlog.eventlog.events import ItemRedacted, ItemRef, ItemsWithheld
from agents_eventlog.eventlog.recorded_event import RecordedEvent
from agents_eventlog.eventlog.redacted_items import added_at, with_items
from agents_eventlog.eventlog.storage.transaction import Row, Transaction
from agents_eventlog.projections.conversations import branch_tree

REDACTIONS = """
    CREATE TABLE redactions (
        position           INTEGER NOT NULL,
        index_in_event     INTEGER NOT NULL,
        redaction_position INTEGER NOT NULL,
        reason             TEXT,
        PRIMARY KEY (position, index_in_event)
    )
"""
SCHEMA = (REDACTIONS,)

PUT = """
    INSERT INTO redactions (position, index_in_event, redaction_position, reason)
    VALUES (?, ?, ?, ?)
    ON CONFLICT (position, index_in_event) DO UPDATE SET
        redaction_position = excluded.redaction_position, reason = excluded.reason
"""
LAST_REDACTED = "SELECT MAX(position) FROM redactions"
"""Shows by one step in an index whether there is any."""
OF_EVENT = """
    SELECT index_in_event, redaction_position, reason FROM redactions
    WHERE position = ?
    ORDER BY index_in_event
"""
NEWEST = "SELECT MAX(redaction_position) FROM redactions WHERE position = ?"
NEWEST_OF: Final = """
    COALESCE((SELECT MAX(r.redaction_position) FROM redactions AS r WHERE r.position = {0}), {0})
"""
BOTH_EVENTS: Final = f"JOIN events AS e ON e.position = {NEWEST_OF.format('o.position')}"


class Redaction(NamedTuple):
    """The redaction of an item: the position of its event, and its reason."""

    position: int
    reason: str | None


def exist(tx: Transaction) -> bool:
    """Whether the log has a redaction, from the transaction's cache if possible."""
    known = tx.cache[branch_tree.Known]
    if known.redactions_exist is None:
        known.redactions_exist = tx.one(LAST_REDACTED) != (None,)
    return known.redactions_exist


def put(tx: Transaction, redaction: int, event: ItemRedacted | ItemsWithheld) -> None:
    """Record a redaction, for the builder."""
    if isinstance(event, ItemRedacted):
        refs = [event.item]
    else:
        refs = [ItemRef(event.position, index) for index in range(len(event.items))]
    rows = [(ref.position, ref.index, redaction, event.reason) for ref in refs]
    tx.executemany(PUT, rows)
    tx.cache[branch_tree.Known].redactions_exist = True


def present(tx: Transaction, source: str) -> str:
    """
    Return a source for ``payloads.stored`` that gives the payloads of items with their placeholders.

    source: names, in braces, what depends on redactions: ``{o}``, the alias of the event that added the
        items; ``{join}``, which follows its join and gives the event ``e`` with their payload; and
        ``{payload}``, the position of that payload for the row ``i`` of an item.

    In a log without redactions, the statement does not mention them.
    """
    return forms(source)[exist(tx)]


@lru_cache(maxsize=256)
def forms(source: str) -> tuple[str, str]:
    """Return a source for a log without redactions, and for one with some."""
    return (
        source.format(o="e", join="", payload="i.position"),
        source.format(o="o", join=BOTH_EVENTS, payload=NEWEST_OF.format("i.position")),
    )


def newest(tx: Transaction, position: int) -> int | None:
    """Return the position of the newest redaction of an event; None without one."""
    if not exist(tx):
        return None
    row = tx.one(NEWEST, (position,))
    return None if row is None else row[0]


def at(
    tx: Transaction, position: int, *, session_id: str | None = None, is_opened: bool = True
) -> Row | None:
    """Return the payload with the items of an event, as ``payloads.at`` does."""
    where = newest(tx, position) or position
    return payloads.at(tx, where, session_id=session_id, is_opened=is_opened)


def of_event(tx: Transaction, position: int) -> dict[int, Redaction]:
    """Return the redactions of an event's items, by their indexes."""
    if not exist(tx):
        return {}
    return {index: Redaction(*rest) for index, *rest in tx.all(OF_EVENT, (position,))}


def of_items(tx: Transaction, refs: Iterable[ItemRef]) -> dict[ItemRef, Redaction]:
    """Return the redactions of these items, and of others of the same events."""
    if not exist(tx):
        return {}
    positions = dict.fromkeys(ref.position for ref in refs)
    return {
        ItemRef(position, index): redaction
        for position in positions
        for index, redaction in of_event(tx, position).items()
    }


def covered(tx: Transaction, recorded: RecordedEvent) -> RecordedEvent:
    """Return an event with the placeholders of its redacted items."""
    found = newest(tx, added_at(recorded))
    redaction = None if found is None else reader.event_at(tx, found)
    if redaction is None or not isinstance(redaction.event, ItemRedacted | ItemsWithheld):
        return recorded
    return with_items(recorded, redaction.event.items)
