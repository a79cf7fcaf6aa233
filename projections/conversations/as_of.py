"""
The past: a session's branches and items as they were at an earlier version.

The session's events up to that version are applied to the builder of the present, on a scratch
database, where ``projections.conversations.queries`` returns what it would have returned then. Content that
was erased since stays erased: its items keep their places, but cannot be read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Final, TypeAlias, TypeVar

from agents_eventlog.eventlog import payloads
from agents_eventlog.eventlog.appender import PAGE_EVENTS, session_version, up_to_page_bytes
from agents_eventlog.eventlog.cipher.access import cipher_of
from agents_eventlog.eventlog.cursor import check_progress
from agents_eventlog.eventlog.erased_shapes import ErasedShapes
from agents_eventlog.eventlog.errors import VersionNotFoundError
from agents_eventlog.eventlog.events import JSON, ItemRedacted, ItemsWithheld
from agents_eventlog.eventlog.log import EventLog
from agents_eventlog.eventlog.reader import microseconds
from agents_eventlog.eventlog.recorded_event import RecordedEvent
from agents_eventlog.eventlog.redacted_items import REDACTIONS, added_at
from agents_eventlog.eventlog.storage.transaction import Transaction
from agents_eventlog.projections import build
from agents_eventlog.projections.conversations import queries as conversation_queries
from agents_eventlog.projections.conversations import redactions
from agents_eventlog.projections.conversations.builder import MAIN, Conversations

T = TypeVar("T")

AsOf: TypeAlias = int | datetime
"""A session's version, 0 for before its first event, or a time; one without a zone is UTC."""

EVENTS: Final = """
    WHERE session_id = ? AND version > ? AND version <= ?
    ORDER BY version LIMIT ?
"""
FORKED: Final = "SELECT DISTINCT position FROM items WHERE position < segment_id"
READ_POSITIONS: Final = """
    SELECT position FROM items UNION SELECT redaction_position FROM redactions
"""
FORKING_EVENTS: Final = "WHERE session_id = ? AND version <= ? AND type = 'session_forked'"
"""The events that say whose items a fork has: its reads may open the contents of those sessions."""

TIMES: Final = """
    SELECT position, session_id, version, type, schema_version, branch_id, NULL, data_digest,
        metadata, idempotency_key, recorded_at, digest
    FROM events
    WHERE session_id = ?
    ORDER BY version
"""


def version_at(tx: Transaction, session_id: str, as_of: AsOf) -> int:
    """
    Return the version that a session had.

    as_of: a version; or a time, which means the version before the first event that happened later.
        Imported events keep the time of the original event.

    Raises VersionNotFoundError for a version that the session never had.
    """
    if isinstance(as_of, datetime):
        return _version_at_time(tx, session_id, microseconds(as_of))
    if type(as_of) is not int:
        raise TypeError(
            f"invalid as_of: expected a version or a datetime, got {type(as_of).__name__}"
        )
    actual = session_version(tx, session_id)
    if not 0 <= as_of <= actual:
        raise VersionNotFoundError(session_id=session_id, version=as_of, actual=actual)
    return as_of


@contextmanager
def session_as_of(tx: Transaction, session_id: str, as_of: AsOf) -> Iterator[Transaction]:
    """
    Yield a transaction in which ``projections.conversations.queries`` finds the session at that version.

    Use it inside a unit of work. Its time grows with the number of events up to then, its memory with
    the contents on any branch then; SQLite moves large ones to a temporary file.
    """
    version = version_at(tx, session_id, as_of)
    with tx.engine.scratch() as past:
        past.now = 0  # nothing has expired: its own time is the past
        past.cipher, past.is_refreshed = cipher_of(tx), True
        past.engine.create_log(past)
        for statement in Conversations.schema:
            past.execute(past.engine.create_statement(statement))
        past.execute("BEGIN")
        if tx.engine.is_sealed(tx):
            past.engine.begin_sealing(past)
        _build(tx, past, session_id, version)
        _redact_forked(tx, past)
        for (position,) in past.all(READ_POSITIONS):
            payloads.insert(past, list(payloads.event_rows(tx, "WHERE position = ?", (position,))))
        payloads.insert(past, list(payloads.event_rows(tx, FORKING_EVENTS, (session_id, version))))
        yield past


async def query_as_of(
    log: EventLog, session_id: str, as_of: AsOf, question: Callable[[Transaction], T]
) -> T:
    """Return what a unit reads from the past, e.g. one of ``projections.conversations.queries``."""

    def unit(tx: Transaction) -> T:
        with session_as_of(tx, session_id, as_of) as past:
            return question(past)

    return await log.query(unit)


async def items_as_of(
    log: EventLog, session_id: str, as_of: AsOf, *, branch_id: str = MAIN
) -> list[JSON]:
    """
    Return a branch's items at an earlier version or time; [] if the branch did not exist.

    as_of: a version of the session, or a datetime; without a zone it is UTC.

    Raises VersionNotFoundError for a version that the session never had, and UndecodableEventError if the
    content of an item was erased since.
    """
    return await query_as_of(
        log,
        session_id,
        as_of,
        lambda past: conversation_queries.items(
            past,
            conversation_queries.place(past, session_id, branch_id).pointer,
            session_id=session_id,
        ),
    )


def _build(tx: Transaction, past: Transaction, session_id: str, until: int) -> None:
    conversations = [Conversations()]
    structures = ErasedShapes()

    def page_after(version: int) -> list[RecordedEvent]:
        rows = payloads.event_rows(tx, EVENTS, (session_id, version, until, PAGE_EVENTS))
        page = [RecordedEvent(row) for row in up_to_page_bytes(rows)]
        if page:
            check_progress(version, page[-1].version)
        return page

    version = 0
    while page := page_after(version):
        structures.fill(tx, page)
        build.apply(past, conversations, page)
        version = page[-1].version


def _redact_forked(tx: Transaction, past: Transaction) -> None:
    """Record the redactions of items of other sessions, which this one was forked from."""
    forked = {position for (position,) in past.all(FORKED)}
    origins = {
        row[1]
        for position in forked
        for row in payloads.event_rows(tx, "WHERE position = ?", (position,))
    }
    for session_id in sorted(origins):
        for row in payloads.event_rows(tx, REDACTIONS, (session_id,)):
            recorded = RecordedEvent(row)
            if isinstance(recorded.event, ItemRedacted | ItemsWithheld) and (
                added_at(recorded) in forked
            ):
                redactions.put(past, recorded.position, recorded.event)


def _version_at_time(tx: Transaction, session_id: str, time: int) -> int:
    version = 0
    for row in tx.execute(TIMES, (session_id,)):
        recorded = RecordedEvent(row)
        if recorded.occurred_at > time:
            break
        version = recorded.version
    return version
