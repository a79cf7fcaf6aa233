"""
The full-text index: the texts of all items, by their trigrams. Off by default.

An event's texts make one row, under the event's position, with the case of letters folded. Popped, deleted
and cleared items stay in it, and the searcher skips them; erased ones are removed. The index finds every
event that holds a text, and some that do not: it stores which trigrams an event has, not where. That makes
it half as large, and the searcher decodes and checks each event anyway.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, repeat
from typing import ClassVar, Final

from agents_eventlog.eventlog import codec
from agents_eventlog.eventlog.events import (
    ITEM_EVENTS,
    JSON,
    ContentErased,
    Event,
    ItemRedacted,
    ItemsWithheld,
)
from agents_eventlog.eventlog.recorded_event import RecordedEvent
from agents_eventlog.eventlog.redacted_items import REDACTING, added_at
from agents_eventlog.eventlog.storage.engine import CREATE_FULL_TEXT
from agents_eventlog.eventlog.storage.transaction import Transaction
from agents_eventlog.projections import build
from agents_eventlog.projections.base import Projection
from agents_eventlog.projections.search import text as search_text

SHORTEST_CHARACTERS: Final = 3
"""A shorter text has no trigram, and the index cannot find it."""

ASKED_CHARACTERS: Final = 48
"""How much of a text the index matches; a longer expression takes longer and excludes few events more."""


class Search(Projection):
    """The full-text index: the texts of items, searched by substrings of three or more characters."""

    name: ClassVar[str] = "search"
    version: ClassVar[int] = 1
    schema: ClassVar[Sequence[str]] = (CREATE_FULL_TEXT,)
    handles: ClassVar[Sequence[type[Event]]] = (
        *ITEM_EVENTS,
        ItemRedacted,
        ItemsWithheld,
        ContentErased,
    )
    is_built_in_steps: ClassVar[bool] = True
    """Searches read events that are not indexed yet from the log itself."""

    def apply(self, tx: Transaction, events: Sequence[RecordedEvent]) -> None:
        """Add the texts of new items, replace those of redacted ones, and remove erased ones."""
        payloads = [
            (recorded.position, recorded.type, recorded.schema_version, recorded.data)
            for recorded in events
            if recorded.type != CONTENT_ERASED and recorded.data is not None
        ]
        decoded = iter(codec.decode_items(payloads))
        texts: dict[int, str] = {}
        removed: list[int] = []
        for recorded in events:
            event = recorded.event if recorded.type in _ABOUT_OTHERS else None
            if isinstance(event, ContentErased):
                erased = [*without_text(event.positions, event.structures)]
                removed += erased
                for position in erased:
                    texts.pop(position, None)
            elif recorded.data is not None:
                position = recorded.position
                if event is not None:
                    position = added_at(recorded)
                    removed.append(position)
                texts[position] = _text(next(decoded))
        if removed:
            take_out(tx, removed)
        _put(tx, texts)


CONTENT_ERASED: Final = ContentErased.type_name()
_ABOUT_OTHERS: Final = {CONTENT_ERASED, *REDACTING}


def without_text(positions: Iterable[int], structures: Iterable[JSON]) -> Iterator[int]:
    """
    Return the events whose texts an erasure removes, from the positions and structures that it recorded.

    The text of a redacted event is that of its newest redaction, and stays for as long as that does.
    """
    for position, structure in zip(positions, chain(structures, repeat(None)), strict=False):
        match structure:
            case {"replaced_by": int()}:
                pass
            case {"item": [int() as redacted, int()]}:
                yield redacted
            case _:
                yield position


def is_there(tx: Transaction) -> bool:
    """Whether the file has an index, however old it is."""
    return Search.name in build.checkpoints(tx)


def take_out(tx: Transaction, positions: Iterable[int]) -> None:
    """Remove the texts of events; call ``optimize`` once afterwards."""
    tx.engine.full_text.remove(tx, list(positions))


def put(tx: Transaction, items: Mapping[int, Iterable[JSON]]) -> None:
    """Add the texts of events that have none in the index, each given by its items."""
    _put(tx, {position: _text(each) for position, each in items.items()})


def _text(items: Iterable[JSON]) -> str:
    return "\n".join(text for item in items for text in search_text.texts(item))


def _put(tx: Transaction, texts: Mapping[int, str]) -> None:
    rows = [(position, indexed(text)) for position, text in texts.items() if text]
    tx.engine.full_text.put(tx, rows)


def optimize(tx: Transaction) -> None:
    """Remove the trigrams of removed texts, too, which otherwise stay for some time."""
    tx.engine.full_text.compact(tx)


def indexed(text: str) -> str:
    """
    Return a text as the index stores and matches it.

    SQLite cannot store half a surrogate pair, and FTS5 stops reading at a NUL.
    """
    return search_text.folded(text).replace("\0", "\ufffd").encode(errors="replace").decode()


# -- queries -----------------------------------------------------------------------------------


def expression(text: str) -> str | None:
    """
    Return the expression that finds a literal text in the index; None if the text is too short.

    Every third trigram covers all of the text.
    """
    needle = indexed(text)[:ASKED_CHARACTERS]
    if len(needle) < SHORTEST_CHARACTERS:
        return None
    last = len(needle) - SHORTEST_CHARACTERS
    starts = [*range(0, last, SHORTEST_CHARACTERS), last]
    trigrams = (needle[start : start + SHORTEST_CHARACTERS] for start in starts)
    return " ".join('"' + trigram.replace('"', '""') + '"' for trigram in trigrams)


def built_to(tx: Transaction) -> int | None:
    """Return the position up to which the index shows the log; None without a usable index."""
    checkpoint = build.checkpoints(tx).get(Search.name)
    if checkpoint is None or checkpoint.version != Search.version:
        return None
    return checkpoint.position


def positions(tx: Transaction, expression: str, first: int, last: int, limit: int) -> list[int]:
    """Return the newest events from ``first`` to ``last`` that the index finds, newest first."""
    return tx.engine.full_text.matches(tx, expression, first, last, limit)


def count(tx: Transaction, expression: str, limit: int) -> int:
    """Return how many events the index finds, counting no further than a limit."""
    return tx.engine.full_text.count(tx, expression, limit)
