"""Lanes and locks: how many transactions append to one log at the same time."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from agents_eventlog.eventlog.storage.postgres.schema import (
    LANES,
    SEALED_VERSION,
    VERSION_PROPERTY,
    SealedLog,
)
from agents_eventlog.eventlog.storage.transaction import Lane, Transaction

FREE_LANE: Final = f"""
    SELECT lane, CAST(pg_current_xact_id() AS TEXT) FROM lanes
    ORDER BY (lane + ?) % {LANES} LIMIT 1
    FOR UPDATE SKIP LOCKED
"""
WAIT_FOR_LANE: Final = """
    SELECT lane, CAST(pg_current_xact_id() AS TEXT) FROM lanes WHERE lane = ? FOR UPDATE
"""
LANE_END: Final = f"""
    SELECT e.position, e.digest, newest.position,
        (SELECT value FROM log_properties WHERE name = '{VERSION_PROPERTY}')
    FROM (SELECT MAX(position) AS position FROM events) AS newest
    LEFT JOIN LATERAL (
        SELECT position, digest FROM events
        WHERE position % {LANES} = ? ORDER BY position DESC LIMIT 1
    ) AS e ON TRUE
"""
LANE_ENDS: Final = f"""
    SELECT e.position, e.digest FROM lanes
    JOIN LATERAL (
        SELECT position, digest FROM events
        WHERE position % {LANES} = lanes.lane ORDER BY position DESC LIMIT 1
    ) AS e ON TRUE
"""
PREVIOUS_POSITION: Final = f"""
    (SELECT MAX(earlier.position) FROM events AS earlier
    WHERE earlier.position % {LANES} = events.position % {LANES}
        AND earlier.position < events.position)
"""
EVENTS_AFTER: Final = f"""
    WHERE position IN (
        SELECT e.position FROM unnest(CAST(? AS BIGINT[])) WITH ORDINALITY AS ends (after, number)
        JOIN LATERAL (
            SELECT position FROM events
            WHERE position % {LANES} = ends.number - 1 AND position > ends.after
            ORDER BY position LIMIT ?
        ) AS e ON TRUE
        ORDER BY e.position LIMIT ?
    )
    ORDER BY position
"""
LOCK_SESSION: Final = "SELECT 1 FROM session_locks WHERE session_id = ? FOR UPDATE"
LOCK_ONE_MORE: Final = f"{LOCK_SESSION} NOWAIT"
ADD_SESSION: Final = "INSERT INTO session_locks (session_id) VALUES (?) ON CONFLICT DO NOTHING"


class Claim(NamedTuple):
    """What identifies a transaction that writes: its number, and what its lane ended with before it."""

    tx: Transaction
    transaction_id: str
    end: Lane

    @property
    def appended(self) -> Lane | None:
        """The last event that it appended, if any."""
        return None if self.tx.lane == self.end else self.tx.lane


class LockedSessions(set[str]):
    """The sessions that a transaction has to itself."""


def claim(tx: Transaction) -> Lane:
    """
    Lock a lane, and return its end.

    The end is read by a statement of its own, after the lock: it then sees what the last holder committed.
    """
    wanted = random.randrange(LANES)  # noqa: S311
    row = tx.one(FREE_LANE, (wanted,)) or tx.one(WAIT_FOR_LANE, (wanted,)) or (0, None)
    lane, transaction_id = row
    position, digest, newest, version = tx.one(LANE_END, (lane,)) or (None, None, None, None)
    tx.cache[SealedLog].is_sealed = int(version or 0) >= SEALED_VERSION
    tx.newest = newest or 0
    end = Lane(lane, bytes(32)) if position is None else Lane(position, digest)
    tx.connection.claim = Claim(tx, transaction_id, end)
    return end


def ends(tx: Transaction) -> list[Lane]:
    """Return the ends of the lanes that have events."""
    return [Lane(*row) for row in tx.all(LANE_ENDS)]


def events_after(after: Sequence[int], limit: int) -> tuple[str, tuple[Any, ...]]:
    """Return what follows ``FROM events`` to select those after a position in each lane."""
    return EVENTS_AFTER, (list(after), limit, limit)


def lock_session(tx: Transaction, session_id: str) -> None:
    """
    Lock a session's row, so that what is read of it stays true until the commit.

    A transaction that has a session already does not wait for another one, which could wait for it in
    turn: the error lets the writer roll back, and begin again.
    """
    locked = tx.cache[LockedSessions]
    if session_id in locked:
        return
    lock = LOCK_ONE_MORE if locked else LOCK_SESSION
    if tx.one(lock, (session_id,)) is None:
        tx.execute(ADD_SESSION, (session_id,))
        tx.one(lock, (session_id,))
    locked.add(session_id)
