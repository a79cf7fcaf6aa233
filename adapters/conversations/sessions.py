"""Operations on whole sessions: list, set metadata, delete, restore. Does not depend on an SDK."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

from agents_eventlog.adapters.conversations import timestamps
from agents_eventlog.adapters.conversations.commands import SessionContext, look, record_labels
from agents_eventlog.eventlog import codec
from agents_eventlog.eventlog.appender import append
from agents_eventlog.eventlog.errors import (
    InvalidQueryError,
    SessionDeletedError,
    SessionErasedError,
    SessionNotFoundError,
)
from agents_eventlog.eventlog.events import JSON, SessionDeleted, SessionRestored
from agents_eventlog.eventlog.storage.transaction import RunUnit, Transaction
from agents_eventlog.projections.conversations import builder as conversations
from agents_eventlog.projections.erasure.eraser import ErasureResult
from agents_eventlog.projections.sessions import filters
from agents_eventlog.projections.sessions import queries as session_queries
from agents_eventlog.projections.sessions.filters import SessionCursor, SessionQuery
from agents_eventlog.projections.sessions.queries import Session, SessionUsage
from agents_eventlog.projections.usage.builder import NANOS

TOLD_AT_ONCE = 500
"""Maximum number of sessions whose first messages are in memory at the same time."""

DELETED_AT_ONCE = 100
"""Maximum number of sessions that one unit of work deletes, all or none."""


class Retention(NamedTuple):
    """What a retention period deleted and erased, or would; None if it was not asked for."""

    deletion: Deletion | None
    erasure: ErasureResult | None


class Deletion(NamedTuple):
    """The sessions that a bulk deletion deleted or would delete: ids, items, tokens, and cost in USD."""

    session_ids: list[str]
    items: int
    total_tokens: int
    total_cost: float
    unpriced_requests: int
    dry_run: bool


# -- listing ------------------------------------------------------------------------------------


async def list_sessions(read: RunUnit, query: SessionQuery) -> list[dict[str, Any]]:
    """Return the sessions that match a query; a text search may take several reads."""

    def unit(tx: Transaction) -> tuple[list[dict[str, Any]], SessionCursor | None]:
        found, after = session_queries.page(tx, query)
        return rows(tx, found, query), after

    listed: list[dict[str, Any]] = []
    while True:
        some, after = await read(unit)
        listed += some
        if query.limit is not None:
            query = replace(query, limit=query.limit - len(some))
        if after is None or query.limit == 0:
            return listed
        query = replace(query, after=after)


def rows(tx: Transaction, found: list[Session], query: SessionQuery) -> list[dict[str, Any]]:
    """Return the rows of sessions, with titles, usage and cursors."""
    told = []
    for start in range(0, len(found), TOLD_AT_ONCE):
        some = found[start : start + TOLD_AT_ONCE]
        details = zip(
            some, session_queries.titles(tx, some), session_queries.usage(tx, some), strict=True
        )
        for session, title, spent in details:
            cursor = filters.cursor(query.order_by, session.place(query))
            told.append(_row(session, title, spent, cursor))
    return told


def _row(session: Session, title: str | None, spent: SessionUsage, cursor: str) -> dict[str, Any]:
    return {
        "session_id": session.session_id,
        "title": title,
        "created_at": timestamps.as_text(session.created_at),
        "updated_at": timestamps.as_text(session.updated_at),
        "deleted_at": None
        if session.deleted_at is None
        else timestamps.as_text(session.deleted_at),
        "item_count": session.item_count,
        "turn_count": session.turn_count,
        "branch_count": session.branch_count,
        "current_branch": session.branch_id,
        "user_id": session.user_id,
        "metadata": _metadata(session.metadata),
        "total_tokens": spent.total_tokens,
        "total_cost": spent.cost_nanos / NANOS,
        "unpriced_requests": spent.unpriced_requests,
        "cursor": cursor,
    }


def _metadata(text: str | None) -> dict[str, JSON] | None:
    return None if text is None else codec.decode_metadata(text)


# -- metadata -----------------------------------------------------------------------------------


def set_metadata(
    tx: Transaction, context: SessionContext, user_id: str | None, metadata: dict[str, JSON] | None
) -> None:
    """Record a user id and metadata; None means the constructor's, an empty value removes it."""
    if look(tx, context).is_deleted:
        raise SessionDeletedError(context.session_id)
    first_user_id, first_metadata = context.labels or (None, None)
    record_labels(
        tx,
        context,
        first_user_id if user_id is None else user_id,
        first_metadata if metadata is None else metadata,
    )


def get_metadata(tx: Transaction, context: SessionContext) -> dict[str, Any]:
    """Return the session's user id and metadata, including those that the next write records."""
    session = conversations.session(tx, context.session_id)
    if session is not None and session.deleted_at is not None:
        return {"user_id": None, "metadata": None}
    user_id, metadata = context.labels or (None, None)
    if session is not None:
        user_id = session.user_id if user_id is None else user_id
        metadata = _metadata(session.metadata) if metadata is None else metadata
    return {"user_id": user_id or None, "metadata": metadata or None}


# -- deleting and restoring -----------------------------------------------------------------------


def delete_session(tx: Transaction, session_id: str, reason: str | None = None) -> None:
    """Delete a session; usage stays. Raises SessionNotFoundError, also if it is deleted already."""
    session = conversations.session(tx, session_id)
    if session is None or session.deleted_at is not None:
        raise SessionNotFoundError(session_id)
    append(tx, session_id, SessionDeleted(reason=reason))


def restore_session(tx: Transaction, session_id: str) -> None:
    """
    Restore a deleted session; a session that is not deleted does not change.

    Raises SessionNotFoundError, and SessionErasedError for an erased session.
    """
    session = conversations.session(tx, session_id)
    if session is None:
        raise SessionNotFoundError(session_id)
    if session.erased_at is not None:
        raise SessionErasedError(session_id)
    if session.deleted_at is not None:
        append(tx, session_id, SessionRestored())


async def delete_sessions(
    run: RunUnit,
    query: SessionQuery,
    *,
    before: int,
    dry_run: bool,
    reason: str | None,
    everything: bool,
) -> Deletion:
    """
    Delete the sessions that match a query, oldest first, in units of bounded size.

    run: runs the units: a log's write, or its read for a dry run.
    before: a time in microseconds since 1970 UTC. Later sessions are not deleted, so that the call ends.
    everything: accept a query without filters.

    Raises InvalidQueryError for a query without filters.
    """
    if query.matches_all and not everything:
        raise InvalidQueryError(
            "refusing to delete every session: expected a filter or all_sessions=True"
        )

    def unit(tx: Transaction) -> tuple[list[Session], list[SessionUsage], SessionCursor | None]:
        found, after = session_queries.page(tx, query)
        spent = session_queries.usage(tx, found)
        if not dry_run:
            for session in found:
                delete_session(tx, session.session_id, reason)
        return found, spent, after

    query = query.created_by(before)
    query = replace(query, order_by="created_at", is_reversed=True, limit=DELETED_AT_ONCE)
    deleted: list[Session] = []
    all_spent: list[SessionUsage] = []
    while True:
        found, spent, after = await run(unit)
        deleted += found
        all_spent += spent
        if after is None:
            return _deletion(deleted, all_spent, dry_run=dry_run)
        query = replace(query, after=after)


def _deletion(deleted: list[Session], spent: list[SessionUsage], *, dry_run: bool) -> Deletion:
    return Deletion(
        session_ids=[session.session_id for session in deleted],
        items=sum(session.item_count for session in deleted),
        total_tokens=sum(each.total_tokens for each in spent),
        total_cost=sum(each.cost_nanos for each in spent) / NANOS,
        unpriced_requests=sum(each.unpriced_requests for each in spent),
        dry_run=dry_run,
    )
