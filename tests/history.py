"""
Histories for tests: recorded events without a log, tables built from them, and what the fold says.

`seen` and `meant` give the same picture, one from the tables and one from the fold, so that a test
can ask for their equality.
"""

from __future__ import annotations

import json
import sqlite3
from contextlib import contextmanager
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

from agents_eventlog.eventlog import codec, integrity, recording_context
from agents_eventlog.eventlog.appender import read_events
from agents_eventlog.eventlog.cursor import Cursor
from agents_eventlog.eventlog.recorded_event import RecordedEvent
from agents_eventlog.eventlog.storage.sqlite.engine import SQLITE
from agents_eventlog.eventlog.storage.transaction import Transaction
from agents_eventlog.projections.base import Projection, tables
from agents_eventlog.projections.build import apply
from agents_eventlog.projections.conversations.branch_tree import Pointer, spans

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from agents_eventlog.eventlog import Event, EventLog
    from agents_eventlog.eventlog.events import JSON
    from agents_eventlog.projections.reference import Session, State

START = 1_700_000_000_000_000
"""When the first event of a made-up history happens, in microseconds since 1970 UTC."""


REDACTIONS = "(redactions)"
"""The name under which a picture has the redactions, beside the sessions."""


class Entry(NamedTuple):
    """An event, and where it happened."""

    event: Event
    session_id: str = "s"
    branch_id: str | None = "main"


def recorded(position: int, version: int, entry: Entry) -> RecordedEvent:
    """Return an entry as it would stand in a log: encoded, and decoded again when asked for."""
    data = codec.encode(entry.event)
    columns = (position, entry.session_id, version, entry.event.type_name())
    stored = (entry.event.schema_version, entry.branch_id, data, integrity.data_digest(data))
    return RecordedEvent((*columns, *stored, None, None, START + position, bytes(32)))


def history(entries: Iterable[Entry]) -> list[RecordedEvent]:
    """Return entries as a log's events, at positions and versions from 1."""
    versions: dict[str, int] = {}
    events = []
    for position, entry in enumerate(entries, start=1):
        version = versions[entry.session_id] = versions.get(entry.session_id, 0) + 1
        events.append(recorded(position, version, entry))
    return events


def empty(projections: Sequence[Projection]) -> Transaction:
    """Return a database in memory that holds the projections' tables. Close its connection."""
    connection = sqlite3.connect(":memory:", isolation_level=None)
    for projection in projections:
        for statement in projection.schema:
            connection.execute(statement)
    return Transaction(connection, now=0, engine=SQLITE)


def build(
    tx: Transaction,
    projections: Sequence[Projection],
    events: Sequence[RecordedEvent],
    cuts: Iterable[int] = (),
    *,
    forgetful: bool = False,
) -> None:
    """Apply events in the batches that the cuts leave; ``forgetful``: remember nothing between."""
    edges = [0, *sorted({cut for cut in cuts if 0 < cut < len(events)}), len(events)]
    for start, end in pairwise(edges):
        if forgetful:
            tx.flush()
            tx.cache.clear()
        apply(tx, projections, events[start:end])


def stored(log: EventLog) -> list[RecordedEvent]:
    """Return all events of a log."""

    def unit(tx: Transaction) -> list[RecordedEvent]:
        events: list[RecordedEvent] = []
        cursor = Cursor(tx.engine.lanes)
        while page := read_events(tx, cursor):
            events += page
            cursor.advance(recorded.position for recorded in page)
        return events

    return log.store.read_sync(unit)


def dump(tx: Transaction, projections: Iterable[Projection]) -> dict[str, list[tuple[Any, ...]]]:
    """Return every row of the projections' tables, with each value's storage class."""
    found = {}
    for projection in projections:
        for table in tables(SQLITE, projection):
            kind = "typeof" if tx.engine.lanes == 1 else "pg_typeof"
            columns = ", ".join(
                f'"{name}", CAST({kind}("{name}") AS TEXT)' for name in table.columns
            )
            order = ", ".join(f'"{name}"' for name in table.key)
            found[table.name] = tx.all(f'SELECT {columns} FROM "{table.name}" ORDER BY {order}')
    return found


# -- the picture, from the tables --------------------------------------------------------------


def seen(tx: Transaction) -> dict[str, dict[str, Any]]:
    """Return each session as the tables have it, and the redactions of all."""
    sessions = {
        row[0]: _seen_session(tx, row)
        for row in tx.all(
            "SELECT session_id, created_at, updated_at, user_id, metadata, branch_id, item_count,"
            " turn_count, branch_count, cleared_version, cleared_at, deleted_at, erased_at,"
            " expires_after, is_filled, expired_version"
            " FROM sessions"
        )
    }
    redacted = tx.all("SELECT position, index_in_event, redaction_position, reason FROM redactions")
    return {
        **sessions,
        REDACTIONS: {str((at, index)): tuple(rest) for at, index, *rest in redacted},
    }


def _seen_session(tx: Transaction, row: tuple[Any, ...]) -> dict[str, Any]:
    session_id, created_at, updated_at, user_id, metadata, branch_id, *numbers = row
    return {
        "times": (created_at, updated_at),
        "labels": (user_id, None if metadata is None else json.loads(metadata)),
        "leaves": tx.all(
            "SELECT path, value FROM session_labels WHERE session_id = ? ORDER BY path",
            (session_id,),
        ),
        "on": branch_id,
        "counts, cleared, deleted, erased, expiry": tuple(numbers),
        "branches": _seen_branches(tx, session_id),
        "usage": tx.all(
            "SELECT position, index_in_event, branch_id, turn, is_live, run_id, is_interrupted,"
            " requests, total_tokens, response_id, model, agent, cost_usd, price_source, occurred_at"
            " FROM usage WHERE session_id = ? ORDER BY position, index_in_event",
            (session_id,),
        ),
    }


def _seen_branches(tx: Transaction, session_id: str) -> dict[str, Any]:
    rows = tx.all(
        "SELECT branch_id, segment_id, length, turn, is_live, is_generated, from_branch_id,"
        " created_position, created_at, updated_at FROM branches WHERE session_id = ?",
        (session_id,),
    )
    return {
        branch_id: (turn, rest, items_of(tx, Pointer(segment_id, length)))
        for branch_id, segment_id, length, turn, *rest in rows
    }


def items_of(tx: Transaction, pointer: Pointer) -> list[tuple[Any, ...]]:
    """Return a branch's item rows, in order, by walking its segments; numbers must have no gap."""
    rows = [
        row
        for span in list(spans(tx, pointer))[::-1]
        for row in tx.all(
            "SELECT number, position, index_in_event, type, tool_name, is_tool_call, turn"
            " FROM items WHERE segment_id = ? AND number BETWEEN ? AND ? ORDER BY number",
            span,
        )
    ]
    assert [number for number, *_ in rows] == list(range(1, pointer.length + 1))
    return [tuple(row[1:]) for row in rows]


# -- the picture, from the fold ----------------------------------------------------------------


def meant(state: State) -> dict[str, dict[str, Any]]:
    """Return each session as the fold has it, and the redactions of all."""
    sessions = {name: _meant_session(session) for name, session in state.sessions.items()}
    return {**sessions, REDACTIONS: {str(_place(r)): rest for r, rest in state.redactions.items()}}


def _meant_session(session: Session) -> dict[str, Any]:
    return {
        "times": (session.created_at, session.updated_at),
        "labels": (session.user_id, session.metadata),
        "leaves": sorted(_leaves(session.metadata or {}, [])),
        "on": session.branch_id,
        "counts, cleared, deleted, erased, expiry": (
            session.item_count,
            session.turn_count,
            session.branch_count,
            session.cleared_version,
            session.cleared_at,
            session.deleted_at,
            session.erased_at,
            session.expires_after,
            int(session.is_filled),
            session.expired_version,
        ),
        "branches": {
            branch_id: (
                branch.turn,
                [
                    int(branch.is_live),
                    int(branch.is_generated),
                    branch.from_branch_id,
                    branch.created_position,
                    branch.created_at,
                    branch.updated_at,
                ],
                [
                    (*_place(item.ref), *item.kind[:2], int(item.kind.is_tool_call), item.turn)
                    for item in branch.items
                ],
            )
            for branch_id, branch in session.branches.items()
        },
        "usage": [
            (
                used.position,
                used.index,
                used.branch_id,
                used.turn,
                int(used.is_live),
                used.run_id,
                int(used.interrupted),
                used.request.requests,
                used.request.total_tokens,
                used.request.response_id,
                used.request.model,
                used.request.agent,
                used.request.cost_usd,
                used.request.price_source,
                used.occurred_at,
            )
            for used in session.usage
        ],
    }


def _leaves(metadata: dict[str, Any], above: list[str]) -> Iterator[tuple[str, str]]:
    for key, value in metadata.items():
        path = [*above, key]
        if isinstance(value, dict) and value:
            yield from _leaves(value, path)
        else:
            is_whole = isinstance(value, float) and value.is_integer()
            yield (
                json.dumps(path, separators=(",", ":")),
                json.dumps(int(value) if is_whole else value, separators=(",", ":")),
            )


def _place(ref: Any) -> tuple[int, int]:
    return ref.position, ref.index


def live_refs(state: State) -> list[tuple[int, int]]:
    """Return which items stand on any live branch, each once for each session, in order."""
    return sorted(
        place
        for session in state.sessions.values()
        for place in {
            _place(item.ref) for branch in session.branches.values() for item in branch.items
        }
    )


@contextmanager
def found_in_metadata(**values: JSON) -> Iterator[None]:
    """Record values as ``recording`` does, reserved names too: as an import or another release may."""
    token = recording_context._recorded.set({**recording_context.recorded_values(), **values})
    try:
        yield
    finally:
        recording_context._recorded.reset(token)
