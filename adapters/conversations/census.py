"""What the events of a log are: how many of each type, by each actor, on each day."""

from __future__ import annotations

from typing import TypedDict

from agents_eventlog.adapters.conversations import timestamps
from agents_eventlog.eventlog import payloads, reader
from agents_eventlog.eventlog.storage.transaction import Transaction


class CensusOfType(TypedDict):
    """The events of a type: their number, the bytes of their contents, and the number of erased ones."""

    events: int
    bytes: int
    erased: int


class Census(TypedDict):
    """
    The events of a log.

    types: by event type, the one with the most bytes first.
    actors: the number of events of each actor, the most first; None for events without one.
    days: the number of events recorded on each day, ``YYYY-MM-DD`` in UTC, in order.
    """

    types: dict[str, CensusOfType]
    actors: dict[str | None, int]
    days: dict[str, int]


def census(tx: Transaction) -> Census:
    """Count the events of a log."""
    actors = reader.counts_by_actor(tx)
    return Census(
        types={
            kind: CensusOfType(events=events, bytes=size, erased=erased)
            for kind, events, size, erased in payloads.sizes(tx)
        },
        actors=dict(sorted(actors.items(), key=lambda each: (-each[1], each[0] or ""))),
        days={timestamps.day(day * reader.DAY): count for day, count in reader.counts_by_day(tx)},
    )
