"""
The full-text index: the texts of all items, by their trigrams. Off by default.

An event's texts make one row, under the event's position, with the case of letters folded. What has been
popped, deleted or cleared since stays in it and is told apart when it is found; what is erased goes.
The index finds every event that holds a text, and some that do not: it knows which trigrams an event has,
not where. That makes it half as large as one that does, and each find is looked at anyway.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import ClassVar, Final

from agents_eventlog.eventlog import codec
from agents_eventlog.eventlog.events import (
    ContentErased,
    Event,
    ItemsAdded,
    ItemsReplaced,
)
from agents_eventlog.eventlog.recorded_event import Recorded
from agents_eventlog.eventlog.storage.transaction import Transaction
from agents_eventlog.projections import build
from agents_eventlog.projections.base import Projection
from agents_eventlog.projections.search import text as search_text

ITEM_TEXTS = """
    CREATE VIRTUAL TABLE item_texts USING fts5 (
        text, tokenize = 'trigram case_sensitive 1', detail = 'none', columnsize = 0
    )
"""
INSERT_TEXT = "INSERT INTO item_texts (rowid, text) VALUES (?, ?)"
DELETE_TEXT = "DELETE FROM item_texts WHERE rowid = ?"
OPTIMIZE = "INSERT INTO item_texts (item_texts) VALUES ('optimize')"
FIND = """
    SELECT rowid FROM item_texts
    WHERE item_texts MATCH ? AND rowid BETWEEN ? AND ?
    ORDER BY rowid DESC
    LIMIT ?
"""
COUNT = "SELECT COUNT(*) FROM (SELECT 1 FROM item_texts WHERE item_texts MATCH ? LIMIT ?) AS some"
SESSIONS = """
    SELECT DISTINCT e.session_id
    FROM item_texts
    JOIN events AS e ON e.position = item_texts.rowid
    WHERE item_texts MATCH ?
"""

SHORTEST_CHARACTERS: Final = 3
"""What is shorter has no trigram, and the index cannot find it."""

ASKED_CHARACTERS: Final = 48
"""So much of what is sought the index is asked for; more narrows it no further, and takes longer."""


class Search(Projection):
    """The texts of items, to be found by any three characters in a row."""

    name: ClassVar[str] = "search"
    version: ClassVar[int] = 1
    schema: ClassVar[Sequence[str]] = (ITEM_TEXTS,)
    handles: ClassVar[Sequence[type[Event]]] = (ItemsAdded, ItemsReplaced, ContentErased)
    is_built_in_steps: ClassVar[bool] = True
    """Nobody waits for it: whoever reads finds what it does not show yet in the log itself."""

    def apply(self, tx: Transaction, events: Sequence[Recorded]) -> None:
        """Put the texts of new items in, and take those of erased events out."""
        payloads = [
            (recorded.position, recorded.type, recorded.schema_version, recorded.data)
            for recorded in events
            if recorded.type != CONTENT_ERASED and recorded.data is not None
        ]
        for (position, *_), items in zip(payloads, codec.decode_items(payloads), strict=True):
            text = indexed("\n".join(text for item in items for text in search_text.texts(item)))
            if text:
                tx.defer(INSERT_TEXT, (position, text))
        erased = [
            position
            for recorded in events
            if recorded.type == CONTENT_ERASED and isinstance(recorded.event, ContentErased)
            for position in recorded.event.positions
        ]
        if erased:
            take_out(tx, erased)


CONTENT_ERASED: Final = ContentErased.type_name()


def is_there(tx: Transaction) -> bool:
    """Whether the file has an index, however old it is."""
    return Search.name in build.checkpoints(tx)


def take_out(tx: Transaction, positions: Iterable[int]) -> None:
    """Take the texts of events out; ``optimize`` does the rest, once for many."""
    tx.executemany(DELETE_TEXT, ((position,) for position in positions))


def optimize(tx: Transaction) -> None:
    """Merge the index into one piece, or the trigrams of what was taken out stay in it some time."""
    tx.execute(OPTIMIZE)


def indexed(text: str) -> str:
    """
    Return a text as it stands in the index, or is sought there.

    Half a surrogate pair cannot stand in a row, and FTS5 reads no further than a NUL.
    """
    return search_text.folded(text).replace("\0", "\ufffd").encode(errors="replace").decode()


# -- asking -----------------------------------------------------------------------------------


def expression(text: str) -> str | None:
    """
    Return what finds a text in the index, whatever stands in it; None for one that is too short.

    Every third trigram covers all of the text.
    """
    sought = indexed(text)[:ASKED_CHARACTERS]
    if len(sought) < SHORTEST_CHARACTERS:
        return None
    last = len(sought) - SHORTEST_CHARACTERS
    starts = [*range(0, last, SHORTEST_CHARACTERS), last]
    trigrams = (sought[start : start + SHORTEST_CHARACTERS] for start in starts)
    return " ".join('"' + trigram.replace('"', '""') + '"' for trigram in trigrams)


def built_to(tx: Transaction) -> int | None:
    """Return up to which position the index shows the log; None when there is none to be used."""
    checkpoint = build.checkpoints(tx).get(Search.name)
    if checkpoint is None or checkpoint.version != Search.version:
        return None
    return checkpoint.position


def positions(tx: Transaction, expression: str, first: int, last: int, limit: int) -> list[int]:
    """Return the newest events from ``first`` to ``last`` that the index finds, newest first."""
    return [position for (position,) in tx.execute(FIND, (expression, first, last, limit))]


def count(tx: Transaction, expression: str, limit: int) -> int:
    """Return how many events the index finds, counting no further than a limit."""
    row = tx.one(COUNT, (expression, limit))
    return 0 if row is None else int(row[0])
