"""Operations on whole sessions: list, set metadata, delete, restore. Does not depend on an SDK."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Final, Literal, NamedTuple, TypeAlias, TypedDict

from agents_eventlog.adapters.conversations import commands, timestamps
from agents_eventlog.adapters.conversations.commands import SessionContext
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
from agents_eventlog.projections.conversations import labels
from agents_eventlog.projections.conversations.labels import Labels
from agents_eventlog.projections.erasure.eraser import ErasureResult
from agents_eventlog.projections.sessions import expiry, filters
from agents_eventlog.projections.sessions import queries as session_queries
from agents_eventlog.projections.sessions.filters import SessionCursor, SessionQuery
from agents_eventlog.projections.sessions.queries import Session, SessionUsage
from agents_eventlog.projections.usage.builder import NANOS

TOLD_AT_ONCE = 500
"""Maximum number of sessions whose first messages are in memory at the same time."""

DELETED_AT_ONCE = 100
"""Maximum number of sessions that one unit of work deletes, all or none."""


TITLE: Final = session_queries.TITLE

SessionState: TypeAlias = Literal["active", "deleted", "erased", "unknown"]
"""The state of a session; an erased one is deleted, too."""


class SessionRow(TypedDict):
    """
    A listed session. Times are UTC, ``YYYY-MM-DD HH:MM:SS``.

    expires_at: when the session expires unless it is used before; None for never, or if it is empty.
    title: that of ``set_title``, or else the first user message on ``current_branch``.
    current_branch: the branch that the session was last switched to.
    item_count, turn_count: on all branches together; what branches share counts once.
    branch_count: without deleted branches.
    total_tokens, total_cost: tokens, and cost in USD, also of removed turns.
    unpriced_requests: the number of requests that ``total_cost`` does not include.
    cursor: pass it as ``after=`` to continue after this session.
    """

    session_id: str
    title: str | None
    created_at: str
    updated_at: str
    deleted_at: str | None
    expires_at: str | None
    item_count: int
    turn_count: int
    branch_count: int
    current_branch: str
    user_id: str | None
    metadata: dict[str, JSON] | None
    total_tokens: int
    total_cost: float
    unpriced_requests: int
    cursor: str


class StoredMetadata(TypedDict):
    """The stored user id and metadata of a session; a value that is not set is None."""

    user_id: str | None
    metadata: dict[str, JSON] | None


class Retention(NamedTuple):
    """What ``retain`` deleted and erased, or would in a dry run; None without its parameter."""

    deletion: Deletion | None
    erasure: ErasureResult | None


class Deletion(NamedTuple):
    """The sessions that were deleted, or would be in a dry run: ids, and sums of items, tokens and USD."""

    session_ids: list[str]
    items: int
    total_tokens: int
    total_cost: float
    unpriced_requests: int
    dry_run: bool


# -- listing ------------------------------------------------------------------------------------


async def list_sessions(read: RunUnit, query: SessionQuery) -> list[SessionRow]:
    """Return the sessions that match a query; a text search may take several reads."""

    def unit(tx: Transaction) -> tuple[list[SessionRow], SessionCursor | None]:
        found, after = session_queries.page(tx, query)
        return rows(tx, found, query), after

    listed: list[SessionRow] = []
    while True:
        some, after = await read(unit)
        listed += some
        if query.limit is not None:
            query = replace(query, limit=query.limit - len(some))
        if after is None or query.limit == 0:
            return listed
        query = replace(query, after=after)


def rows(tx: Transaction, found: list[Session], query: SessionQuery) -> list[SessionRow]:
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


def _row(session: Session, title: str | None, spent: SessionUsage, cursor: str) -> SessionRow:
    return {
        "session_id": session.session_id,
        "title": title,
        "created_at": timestamps.as_text(session.created_at),
        "updated_at": timestamps.as_text(session.updated_at),
        "deleted_at": None
        if session.deleted_at is None
        else timestamps.as_text(session.deleted_at),
        "expires_at": None
        if session.expires_at is None
        else timestamps.as_text(session.expires_at),
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


def document(row: SessionRow) -> dict[str, JSON]:
    """Return the document of ``eventlog sessions`` for a session."""
    times = {
        name: None if (time := row[name]) is None else f"{time.replace(' ', 'T')}Z"
        for name in ("created_at", "updated_at", "deleted_at", "expires_at")
    }
    return {"kind": "session", **row, **times}


def _metadata(text: str | None) -> dict[str, JSON] | None:
    return None if text is None else codec.decode_metadata(text)


# -- metadata -----------------------------------------------------------------------------------


def set_metadata(
    tx: Transaction, context: SessionContext, user_id: str | None, metadata: dict[str, JSON] | None
) -> None:
    """
    Record a user id and metadata if they differ from the stored ones, and create the session.

    None keeps the stored value, of a new session that of the context; an empty value removes it. The
    session object continues to work for the new user.
    """
    here = commands.look(tx, context)
    if here.is_deleted:
        raise SessionDeletedError(context.session_id)
    commands.require_lease(tx, context)
    session = conversations.session(tx, context.session_id)
    before = _labels(tx, context.session_id, session)
    if session is None:
        user_id = context.user_id if user_id is None else user_id
        metadata = context.metadata if metadata is None else metadata
    after = Labels(
        before.user_id if user_id is None else user_id or None,
        before.metadata if metadata is None else metadata or None,
    )
    if not _same(after, before):
        commands.record_labels(tx, context, user_id, metadata)
    if user_id is not None and context.user_id not in (None, user_id):
        tx.on_rollback(partial(setattr, context, "user_id", context.user_id))
        context.user_id = user_id


def _labels(tx: Transaction, session_id: str, session: conversations.Session | None) -> Labels:
    """Return a session's user id and metadata. Raises KeysMissingError, ShreddedError."""
    if session is None:
        return Labels(None, None)
    return labels.require(tx, session_id, session.user_id, session.metadata)


def _same(left: Labels, right: Labels) -> bool:
    """Whether two are equal as JSON texts: 1 is not 1.0, and the order of keys counts."""
    texts = [
        None if each.metadata is None else codec.encode_json(each.metadata)
        for each in (left, right)
    ]
    return left.user_id == right.user_id and texts[0] == texts[1]


def update_metadata(tx: Transaction, context: SessionContext, patch: dict[str, JSON]) -> None:
    """Merge a patch into the metadata, and record the result."""
    session = conversations.session(tx, context.session_id)
    stored = context.metadata
    if session is not None:
        stored = _labels(tx, context.session_id, session).metadata
    set_metadata(tx, context, None, merge_patch(stored, patch))


def check_patch(patch: Mapping[str, JSON]) -> dict[str, JSON]:
    """Return a patch as JSON has it. Raises TypeError unless it is a mapping, and UnserialisableError."""
    if not isinstance(patch, Mapping):
        raise TypeError(f"invalid patch: expected a mapping, got {type(patch).__name__}")
    return codec.decode_metadata(codec.encode_json(dict(patch)).decode())


def title_patch(title: str | None) -> dict[str, JSON]:
    """Return the patch that sets or removes a title. Raises InvalidEventError for an invalid text."""
    if title is not None:
        codec.check_text("title", title)
    return {TITLE: title or None}


def merge_patch(target: JSON, patch: JSON) -> JSON:
    """Return a JSON value with a JSON Merge Patch (RFC 7396) applied: null removes a member."""
    if not isinstance(patch, dict):
        return patch
    merged = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            merged.pop(name, None)
        else:
            merged[name] = merge_patch(merged.get(name), value)
    return merged


def get_metadata(tx: Transaction, context: SessionContext) -> StoredMetadata:
    """Return the session's stored user id and metadata; None for each without one."""
    session = conversations.session(tx, context.session_id)
    if session is None or session.deleted_at is not None:
        return {"user_id": None, "metadata": None}
    found = _labels(tx, context.session_id, session)
    return {"user_id": found.user_id, "metadata": found.metadata}


def state(tx: Transaction, session_id: str) -> SessionState:
    """Return whether a session is active, deleted, erased, or unknown."""
    session = conversations.session(tx, session_id)
    if session is None:
        return "unknown"
    if session.erased_at is not None:
        return "erased"
    return "active" if session.deleted_at is None else "deleted"


# -- deleting and restoring -----------------------------------------------------------------------


def delete_session(tx: Transaction, session_id: str, reason: str | None = None) -> None:
    """Delete a session; usage stays. Raises SessionNotFoundError, also if it is deleted already."""
    session = conversations.session(tx, session_id)
    if session is None or session.deleted_at is not None:
        raise SessionNotFoundError(session_id)
    if session.is_expired(tx.now):  # else a restored one would have its items again
        expiry.expire(tx, session_id)
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


def set_expiry(tx: Transaction, session_id: str, seconds: int | None) -> None:
    """Record after how long without use a session expires. Raises SessionNotFoundError."""
    session = conversations.session(tx, session_id)
    if session is None or session.deleted_at is not None:
        raise SessionNotFoundError(session_id)
    if session.is_expired(tx.now):
        expiry.expire(tx, session_id)
    commands.record_expiry(tx, session_id, seconds)


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
