"""Queries of the events table, answered page by page."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import chain
from typing import Any

from agents_eventlog.eventlog import codec, payloads
from agents_eventlog.eventlog.appender import up_to_page_bytes
from agents_eventlog.eventlog.cursor import check_progress
from agents_eventlog.eventlog.erased_shapes import ErasedShapes
from agents_eventlog.eventlog.errors import InvalidQueryError
from agents_eventlog.eventlog.events import EVENT_TYPES, Event
from agents_eventlog.eventlog.recorded_event import RecordedEvent
from agents_eventlog.eventlog.storage.transaction import Transaction

DAY = 86_400_000_000
EVENT_COUNTS = """
    SELECT COUNT(*), COUNT(DISTINCT session_id), MIN(recorded_at), MAX(recorded_at) FROM events
"""

SESSION_IDS = """
    SELECT session_id FROM events
    WHERE session_id >= ? AND session_id < ? AND version = 1
    ORDER BY session_id
    LIMIT ?
"""
_LAST_CHARACTER = "\U0010ffff"


EVENTS_BEFORE = "WHERE session_id = ? AND version < ? ORDER BY version DESC LIMIT ?"
ACTORS = "SELECT metadata, COUNT(*) FROM events GROUP BY metadata"
DAYS = f"""
    SELECT (recorded_at - (recorded_at % {DAY} + {DAY}) % {DAY}) / {DAY}, COUNT(*)
    FROM events GROUP BY 1 ORDER BY 1
"""


def counts_by_actor(tx: Transaction) -> dict[str | None, int]:
    """Return the number of events of each actor; None for events without one."""
    found: dict[str | None, int] = {}
    for metadata, count in tx.execute(ACTORS):
        actor = None
        if metadata is not None and '"actor"' in metadata:
            actor = codec.decode_recording(metadata, position=0).get("actor")
        name = actor if isinstance(actor, str | None) else codec.encode_json(actor).decode()
        found[name] = found.get(name, 0) + count
    return found


def counts_by_day(tx: Transaction) -> list[tuple[int, int]]:
    """Return (day since 1970 UTC, events recorded on it), in order."""
    return [(day, count) for day, count in tx.execute(DAYS)]


def event_counts(tx: Transaction) -> tuple[int, int, int | None, int | None]:
    """Return the number of events and of sessions, and when the first and the last were recorded."""
    events, sessions, first, last = tx.one(EVENT_COUNTS) or (0, 0, None, None)
    return events, sessions, first, last


def session_ids(tx: Transaction, prefix: str, *, limit: int) -> list[str]:
    """Return ids of sessions that begin with a prefix, in order."""
    rows = tx.all(SESSION_IDS, (prefix, prefix + _LAST_CHARACTER, limit))
    return [session_id for (session_id,) in rows]


class Query:
    """A query of the events table, answered page by page."""

    def __init__(
        self,
        session_id: str | None,
        branch_id: str | None,
        types: Sequence[str | type[Event]] | None,
        after: int,
        until: int | None,
        since: datetime | None,
        before: datetime | None,
        *,
        backward: bool,
    ) -> None:
        _check_times(since=since, before=before)
        conditions: dict[str, Sequence[Any]] = {"position > ?": [after]}
        if session_id is not None:
            conditions["session_id = ?"] = [session_id]
        if branch_id is not None:
            conditions["branch_id = ?"] = [branch_id]
        if until is not None:
            conditions["position <= ?"] = [until]
        if since is not None:
            conditions["recorded_at >= ?"] = [microseconds(since)]
        if before is not None:
            conditions["recorded_at < ?"] = [microseconds(before)]
        if types is not None:
            names = type_names(types)
            conditions[f"type IN ({', '.join('?' * len(names))})"] = names
        self._conditions = conditions
        self._backward = backward
        self._structures = ErasedShapes()
        self._place: int | None = None
        # A session's events are found by its own index, in the same order.
        self._order = "version" if session_id is not None else "position"

    def seek(self, last: RecordedEvent) -> None:
        """Continue after this event."""
        place = last.version if self._order == "version" else last.position
        if self._place is not None:
            check_progress(*((place, self._place) if self._backward else (self._place, place)))
        self._place = place
        self._conditions[f"{self._order} {'<' if self._backward else '>'} ?"] = [place]

    def matches(self, recorded: RecordedEvent) -> bool:
        """Return True."""
        return True

    def page(self, tx: Transaction, size: int) -> list[RecordedEvent]:
        """Return the next events, at most ``size``; an empty list at the end."""
        where = " AND ".join(self._conditions)
        parameters = chain.from_iterable(self._conditions.values())
        direction = "DESC" if self._backward else "ASC"
        rest = f"WHERE {where} ORDER BY {self._order} {direction} LIMIT ?"
        rows = payloads.event_rows(tx, rest, (*parameters, size))
        page = [RecordedEvent(row) for row in up_to_page_bytes(rows)]
        self._structures.fill(tx, page)
        return page


def type_names(types: Sequence[str | type[Event]]) -> list[str]:
    """Return the names of event types. Raises InvalidQueryError."""
    if isinstance(types, str):
        raise InvalidQueryError(
            f"invalid types: expected a sequence, got a str; did you mean types=[{types!r}]?"
        )
    names = [kind if isinstance(kind, str) else kind.type_name() for kind in types]
    if unknown := [name for name in names if name not in EVENT_TYPES]:
        raise InvalidQueryError(
            f"unknown event type {unknown[0]!r}; expected one of: {', '.join(EVENT_TYPES)}"
        )
    return names


def _check_times(**times: datetime | None) -> None:
    for name, time in times.items():
        if time is not None and not isinstance(time, datetime):
            raise InvalidQueryError(
                f"invalid {name}: expected a datetime, got {type(time).__name__}"
            )


def microseconds(time: datetime) -> int:
    """Return a time in microseconds since 1970 UTC; a time without a zone is UTC."""
    aware = time if time.tzinfo is not None else time.replace(tzinfo=UTC)
    return (aware - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


def events_before(
    tx: Transaction, session_id: str, version: int, limit: int
) -> list[RecordedEvent]:
    """Return the last events of a session before a version, the newest first; at most ``limit``."""
    rows = payloads.event_rows(tx, EVENTS_BEFORE, (session_id, version, limit))
    page = [RecordedEvent(row) for row in up_to_page_bytes(rows)]
    ErasedShapes().fill(tx, page)
    return page


def event_at(tx: Transaction, position: int) -> RecordedEvent | None:
    """Return an event by its position; None if the log has no event there."""
    for row in payloads.event_rows(tx, "WHERE position = ?", (position,)):
        return RecordedEvent(row)
    return None
