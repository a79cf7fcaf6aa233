"""
Search plans: the events that a search reads, from the newest to the oldest.

A plan has stages, each read in bounded batches, so that no other reader waits for long.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Final, NamedTuple, TypeAlias

from agents_eventlog.eventlog import payloads, sealing
from agents_eventlog.eventlog.appender import last_position
from agents_eventlog.eventlog.events import ITEM_EVENT_NAMES
from agents_eventlog.eventlog.storage.transaction import Transaction
from agents_eventlog.projections.conversations import redactions
from agents_eventlog.projections.search import index as search_index

BATCH_EVENTS: Final = 50
"""Maximum number of events in a batch."""

BATCH_POSITIONS: Final = 5_000
"""Maximum number of events that a scan passes for one batch."""

FEW_EVENTS: Final = 2_000
"""If the index finds no more events than this, all are read, in any session."""

SCOPED_EVENTS: Final = 50_000
"""If the filtered sessions have no more events than this in all, only these are read."""

EVENTS_OF_SESSION = "SELECT position FROM events WHERE session_id = ? ORDER BY version DESC LIMIT ?"
FORKED_EVENTS = """
    SELECT i.position
    FROM segments AS s
    JOIN items AS i ON i.segment_id = s.segment_id AND i.position < s.segment_id
    WHERE s.session_id = ?
    LIMIT ?
"""
"""The events of other sessions whose items a fork has."""
COUNT_EVENTS = "SELECT COUNT(*) FROM events WHERE position > ? AND position <= ?"
SESSIONS_OF_USER = "SELECT session_id FROM sessions WHERE user_id = ?"


class Batch(NamedTuple):
    """Events to read, newest first; the rest of the stage; the number of events scanned."""

    positions: Sequence[int]
    rest: Stage | None
    scanned: int


class Scanned(NamedTuple):
    """All events from ``last`` down to ``first`` whose payloads may hold a text."""

    last: int
    first: int
    text: str | None

    def read(self, tx: Transaction) -> Batch:
        """Return the next batch, in a unit of work."""
        first = max(self.first, self.last - BATCH_POSITIONS * tx.engine.lanes + 1)
        condition, parameters = payloads.narrowed(tx, self.text or "")
        rows = tx.all(
            redactions.present(tx, _scan(condition)), (first, self.last, *parameters, BATCH_EVENTS)
        )
        found = [position for (position,) in rows]
        last = found[-1] - 1 if len(found) == BATCH_EVENTS else first - 1
        rest = None if last < self.first else self._replace(last=last)
        return Batch(found, rest, _events_between(tx, last, self.last))


class Indexed(NamedTuple):
    """The events from ``last`` down to ``first`` that the full-text index finds."""

    last: int
    first: int
    expression: str

    def read(self, tx: Transaction) -> Batch:
        """Return the next batch, in a unit of work."""
        found = search_index.positions(tx, self.expression, self.first, self.last, BATCH_EVENTS)
        is_end = len(found) < BATCH_EVENTS
        return Batch(found, None if is_end else self._replace(last=found[-1] - 1), 0)


class Listed(NamedTuple):
    """Listed events, newest first."""

    positions: Sequence[int]

    def read(self, tx: Transaction) -> Batch:
        """Return the next batch, in a unit of work."""
        found, rest = self.positions[:BATCH_EVENTS], self.positions[BATCH_EVENTS:]
        return Batch(found, Listed(rest) if rest else None, len(found))


Stage: TypeAlias = Scanned | Indexed | Listed


class SearchPlan(NamedTuple):
    """The stages of a search, and whether they use the index."""

    stages: tuple[Stage, ...]
    indexed: bool


def plan(
    tx: Transaction, text: str | None, session_id: str | None, user_id: str | None, last: int | None
) -> SearchPlan:
    """
    Choose how to read the events that may hold a text, from the position ``last`` or the newest down.

    With an index that can match the text, read its hits, and scan the events that it does not show yet.
    Otherwise scan the filtered sessions. A text that is frequent in the index is also found by that scan
    if the sessions have few events: the index would return the events of all other sessions.
    """
    end = last_position(tx) if last is None else last
    expression = None if text is None else search_index.expression(text)
    if tx.engine.is_sealed(tx):
        expression = None  # what is sealed is in no index
    built_to = None if expression is None else search_index.built_to(tx)
    if expression is None or built_to is None:
        return SearchPlan((_scope(tx, session_id, user_id, end) or Scanned(end, 1, text),), False)
    if search_index.count(tx, expression, FEW_EVENTS + 1) > FEW_EVENTS:
        scope = _scope(tx, session_id, user_id, end)
        if scope is not None:
            return SearchPlan((scope,), False)
    new, old = Scanned(end, built_to + 1, text), Indexed(min(end, built_to), 1, expression)
    return SearchPlan((new, old) if new.last >= new.first else (old,), True)


def _scope(
    tx: Transaction, session_id: str | None, user_id: str | None, last: int
) -> Listed | None:
    """Return the events of the filtered sessions; None without such a filter, or if there are too many."""
    if session_id is None and user_id is None:
        return None
    found = array("q")
    sessions = [(session_id,)]
    if session_id is None and user_id is not None:
        names = sealing.user_names(tx, user_id)
        sessions = [row for name in names for row in tx.all(SESSIONS_OF_USER, (name,))]
    for (each,) in sessions:
        left = SCOPED_EVENTS + 1 - len(found)
        found.extend(position for (position,) in tx.execute(EVENTS_OF_SESSION, (each, left)))
        found.extend(position for (position,) in tx.execute(FORKED_EVENTS, (each, left)))
        if len(found) > SCOPED_EVENTS:
            return None
    return Listed(array("q", sorted({p for p in found if p <= last}, reverse=True)))


def _events_between(tx: Transaction, after: int, last: int) -> int:
    """Return how many events there are after one position, up to another."""
    if tx.engine.lanes == 1:
        return last - after  # without gaps
    ((count,),) = tx.execute(COUNT_EVENTS, (after, last))
    return int(count)


def _scan(condition: str) -> str:
    return f"""
        SELECT {{o}}.position FROM events AS {{o}}
        {{join}}
        WHERE {{o}}.position BETWEEN ? AND ? AND {{o}}.type IN ({ITEM_EVENT_NAMES}) {condition}
        ORDER BY {{o}}.position DESC
        LIMIT ?
    """
