"""
Ways through the log for whoever seeks items: which events to look at, from the newest to the oldest.

A way has legs, each walked in steps of bounded work, so that no reader waits for a long walk.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Final, NamedTuple, TypeAlias

from agents_eventlog.eventlog import payloads
from agents_eventlog.eventlog.appender import read_head
from agents_eventlog.eventlog.storage.transaction import Transaction
from agents_eventlog.projections.search import index as search_index

STEP_EVENTS: Final = 50
"""How many events a step names at most."""

STEP_POSITIONS: Final = 5_000
"""How many events a step of a scan goes past at most."""

FEW_EVENTS: Final = 2_000
"""What the index finds no more often than this is looked at, whatever the session."""

SCOPED_EVENTS: Final = 50_000
"""Sessions with no more events than this in all are looked through by themselves."""

EVENTS_OF_SESSION = "SELECT position FROM events WHERE session_id = ? ORDER BY version DESC LIMIT ?"
SESSIONS_OF_USER = "SELECT session_id FROM sessions WHERE user_id = ? AND deleted_at IS NULL"


class Step(NamedTuple):
    """The events that a step names, newest first; the rest of its leg; how many it scanned."""

    positions: Sequence[int]
    rest: Leg | None
    scanned: int


class Scanned(NamedTuple):
    """All events from ``last`` down to ``first`` whose payloads may hold a text."""

    last: int
    first: int
    text: str | None

    def step(self, tx: Transaction) -> Step:
        """Go on, in a unit of work."""
        first = max(self.first, self.last - STEP_POSITIONS + 1)
        condition, parameters = payloads.may_hold(self.text or "")
        rows = tx.all(_scan(condition), (first, self.last, *parameters, STEP_EVENTS))
        found = [position for (position,) in rows]
        last = found[-1] - 1 if len(found) == STEP_EVENTS else first - 1
        rest = None if last < self.first else self._replace(last=last)
        return Step(found, rest, self.last - last)


class Indexed(NamedTuple):
    """The events from ``last`` down to ``first`` that the full-text index finds."""

    last: int
    first: int
    expression: str

    def step(self, tx: Transaction) -> Step:
        """Go on, in a unit of work."""
        found = search_index.positions(tx, self.expression, self.first, self.last, STEP_EVENTS)
        is_end = len(found) < STEP_EVENTS
        return Step(found, None if is_end else self._replace(last=found[-1] - 1), 0)


class Listed(NamedTuple):
    """These events, newest first."""

    positions: Sequence[int]

    def step(self, tx: Transaction) -> Step:
        """Go on, in a unit of work."""
        found, rest = self.positions[:STEP_EVENTS], self.positions[STEP_EVENTS:]
        return Step(found, Listed(rest) if rest else None, len(found))


Leg: TypeAlias = Scanned | Indexed | Listed


class Way(NamedTuple):
    """The legs of a walk, and whether they go through the index."""

    legs: tuple[Leg, ...]
    indexed: bool


def plan(
    tx: Transaction, text: str | None, session_id: str | None, user_id: str | None, last: int | None
) -> Way:
    """
    Choose the way to the events that may hold a text, from the position ``last`` or the newest on.

    Through the index, if there is one and it can help; what it does not show yet is scanned. Else by a
    scan of the sessions that are asked for. A text that the index finds often is sought by that scan, too,
    if they are few: through the index the walk would go past the events of all other sessions.
    """
    end = read_head(tx).position if last is None else last
    expression = None if text is None else search_index.expression(text)
    built_to = None if expression is None else search_index.built_to(tx)
    if expression is None or built_to is None:
        return Way((_scope(tx, session_id, user_id, end) or Scanned(end, 1, text),), False)
    if search_index.count(tx, expression, FEW_EVENTS + 1) > FEW_EVENTS:
        scope = _scope(tx, session_id, user_id, end)
        if scope is not None:
            return Way((scope,), False)
    new, old = Scanned(end, built_to + 1, text), Indexed(min(end, built_to), 1, expression)
    return Way((new, old) if new.last >= new.first else (old,), True)


def _scope(
    tx: Transaction, session_id: str | None, user_id: str | None, last: int
) -> Listed | None:
    """Return the events of the sessions that are asked for; None if all are, or they are too many."""
    if session_id is None and user_id is None:
        return None
    found = array("q")
    sessions = (
        [(session_id,)] if session_id is not None else tx.execute(SESSIONS_OF_USER, (user_id,))
    )
    for (each,) in sessions:
        left = SCOPED_EVENTS + 1 - len(found)
        found.extend(position for (position,) in tx.execute(EVENTS_OF_SESSION, (each, left)))
        if len(found) > SCOPED_EVENTS:
            return None
    return Listed(array("q", sorted((p for p in found if p <= last), reverse=True)))


def _scan(condition: str) -> str:
    return f"""
        SELECT e.position FROM events AS e
        WHERE e.position BETWEEN ? AND ? AND e.type IN ('items_added', 'items_replaced') {condition}
        ORDER BY e.position DESC
        LIMIT ?
    """
