"""
Forks: sessions that began with the items of another session's branch, and refer to them.

A fork's first segment has the position of its ``SessionForked`` event. The items that it refers to were
added before, so those and only those have a smaller position than their segment.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from agents_eventlog.eventlog.events import ItemRef, SessionForked
from agents_eventlog.eventlog.item_kind import ItemKind, classify
from agents_eventlog.eventlog.storage.transaction import Transaction

FORKS = """
    CREATE TABLE forks (
        session_id        TEXT NOT NULL,
        origin_session_id TEXT NOT NULL,
        PRIMARY KEY (session_id, origin_session_id)
    )
"""
FORKS_OF_ORIGIN = "CREATE INDEX forks_of_origin ON forks (origin_session_id, session_id)"
SCHEMA = (FORKS, FORKS_OF_ORIGIN)

PUT = """
    INSERT INTO forks (session_id, origin_session_id) VALUES (?, ?)
    ON CONFLICT (session_id, origin_session_id) DO NOTHING
"""
OF_ORIGIN = "SELECT session_id FROM forks WHERE origin_session_id = ? ORDER BY session_id"

HOLDING = """
    SELECT DISTINCT f.session_id
    FROM forks AS f
    JOIN segments AS s ON s.session_id = f.session_id
    JOIN items AS i ON i.segment_id = s.segment_id AND i.position < s.segment_id
    JOIN events AS e ON e.position = i.position AND e.session_id = f.origin_session_id
    WHERE f.origin_session_id = ?
    ORDER BY f.session_id
"""
HELD = """
    SELECT DISTINCT i.position
    FROM forks AS f
    JOIN segments AS s ON s.session_id = f.session_id
    JOIN items AS i ON i.segment_id = s.segment_id AND i.position < s.segment_id
    WHERE f.origin_session_id = ?
"""

LAST = "SELECT MAX(session_id) FROM forks"
WITH_FORKS = """
    SELECT session_id FROM ({own}) AS own
    UNION
    SELECT f.session_id FROM ({own}) AS own JOIN forks AS f ON f.origin_session_id = own.session_id
"""


def put(tx: Transaction, session_id: str, event: SessionForked) -> None:
    """Record whose items a fork has, for the builder."""
    tx.executemany(PUT, [(session_id, origin.session_id) for origin in event.origins])


def items(event: SessionForked) -> list[tuple[int, int, ItemKind]]:
    """Return the position, index and kind of each item that a fork begins with."""
    kinds = [classify(each) for each in event.kinds]
    return [
        (position, index, kinds[kind])
        for origin in event.origins
        for position, index, kind in origin.items
    ]


def of_session(tx: Transaction, session_id: str) -> list[str]:
    """Return the sessions that began with items of this one."""
    return [fork for (fork,) in tx.all(OF_ORIGIN, (session_id,))]


def holding(tx: Transaction, session_id: str) -> tuple[str, ...]:
    """Return the forks that have items of a session on a branch."""
    return tuple(fork for (fork,) in tx.all(HOLDING, (session_id,)))


def held(tx: Transaction, session_id: str) -> set[int]:
    """Return the positions of events whose items a fork of the session has on a branch."""
    return {position for (position,) in tx.all(HELD, (session_id,))}


def with_forks(
    tx: Transaction, sessions: tuple[str, tuple[Any, ...]]
) -> tuple[str, tuple[Any, ...]]:
    """Return a statement that selects sessions, with its parameters, with their forks."""
    if tx.one(LAST) == (None,):
        return sessions
    own, parameters = sessions
    return WITH_FORKS.format(own=own), (*parameters, *parameters)


def fits(event: SessionForked, version: int, last: ItemRef | None, *, is_last_forked: bool) -> bool:
    """
    Whether a fork's items can follow the last item of a branch: at the beginning of the session, or after
    other forked items, in ascending order.
    """
    refs = [ItemRef(position, index) for position, index, _ in items(event)]
    if last is not None:
        refs.insert(0, last)
    is_place = version == 1 if last is None else is_last_forked
    return is_place and all(one < other for one, other in pairwise(refs))
