"""Fork a session: a new session that begins with the items of a branch, and copies none."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from operator import itemgetter
from typing import Final, NamedTuple, TypedDict

from agents_eventlog.adapters.conversations import commands
from agents_eventlog.adapters.conversations.commands import SessionContext
from agents_eventlog.eventlog import codec, reader
from agents_eventlog.eventlog.appender import append, append_all, session_version
from agents_eventlog.eventlog.errors import (
    BranchNotFoundError,
    SessionDeletedError,
    SessionExistsError,
    SessionNotFoundError,
)
from agents_eventlog.eventlog.events import JSON, Event, ForkCreated, ForkedItems, SessionForked
from agents_eventlog.eventlog.item_kind import ItemKind, smallest
from agents_eventlog.eventlog.storage.transaction import Row, Transaction
from agents_eventlog.projections.conversations import builder as conversations
from agents_eventlog.projections.conversations import labels as labels_of
from agents_eventlog.projections.conversations import queries as conversation_queries
from agents_eventlog.projections.conversations.builder import MAIN
from agents_eventlog.projections.conversations.paths import Paths

MAX_EVENT_ITEMS: Final = 1_000
"""Maximum number of items that one event of a fork refers to."""

MAX_LINKS: Final = 10
"""Maximum number of forks that ``links`` returns."""


class Fork(TypedDict):
    """
    A new session with the items of another session's branch.

    session_id: the new session. branch_id: the branch of the other one. items, turns: their numbers.
    """

    session_id: str
    from_session_id: str
    from_branch_id: str
    items: int
    turns: int


class ForkLinks(NamedTuple):
    """
    Where a session was forked from, and the sessions that were forked from it.

    source: the session and branch that it began with; None for a session that was not forked.
    forks: the newest ones, each with the branch that was forked and the session's version.
    more: how many older forks are not among ``forks``.
    """

    source: tuple[str, str] | None
    forks: list[tuple[str, str, int]]
    more: int


def links(tx: Transaction, paths: Paths, version: int) -> ForkLinks:
    """Return the forks that a session has to do with, at a version."""
    changes = list(enumerate(paths.changes[:version], 1))
    made = [each for each in changes if each[1].type == ForkCreated.type_name()]
    found: list[tuple[str, str, int]] = []
    for number, change in made[: -MAX_LINKS - 1 : -1]:
        match _event(tx, change.position):
            case ForkCreated(session_id=session_id, branch_id=branch_id):
                found.append((session_id, branch_id, number))
    source = None
    if changes and changes[0][1].type == SessionForked.type_name():
        match _event(tx, changes[0][1].position):
            case SessionForked(from_session_id=session_id, from_branch_id=branch_id):
                source = session_id, branch_id
    return ForkLinks(source, found, max(0, len(made) - MAX_LINKS))


def _event(tx: Transaction, position: int) -> Event | None:
    recorded = reader.event_at(tx, position)
    return None if recorded is None else recorded.event


def fork(
    tx: Transaction,
    context: SessionContext,
    new_session_id: str,
    branch_id: str | None,
    *,
    user_id: str | None = None,
    metadata: Mapping[str, JSON] | None = None,
) -> Fork:
    """
    Create a session that begins with the items of a branch, by default the current one; see ``Fork``.

    user_id, metadata: those of the new session; None for those of the context's session.
    """
    session_id = context.session_id
    for each in sorted({session_id, new_session_id}):
        tx.lock_session(each)
    here = commands.look_at(tx, context, branch_id)
    branch_id = context.branch_id if branch_id is None else branch_id
    source = conversations.session(tx, session_id)
    if source is None:
        raise SessionNotFoundError(session_id)
    if here.is_deleted:
        raise SessionDeletedError(session_id)
    if branch_id != MAIN and not here.branch_exists:
        raise BranchNotFoundError(branch_id)
    if session_version(tx, new_session_id):
        raise SessionExistsError(new_session_id)
    items = conversation_queries.items_to_fork(tx, here.pointer)
    # First here, so that the positions of the new session are above those of all its items.
    append(tx, session_id, ForkCreated(session_id=new_session_id, branch_id=branch_id))
    parts = [*_parts(items, session_id, branch_id)]
    events = [(part, codec.encode(part)) for part in parts]
    append_all(tx, new_session_id, events, branch_id=MAIN)
    stored = labels_of.require(tx, session_id, source.user_id, source.metadata)
    user_id, labels = commands.check_labels(
        stored.user_id if user_id is None else user_id,
        stored.metadata if metadata is None else metadata,
    )
    if user_id or labels:
        target = SessionContext(new_session_id)
        commands.record_labels(tx, target, user_id or None, labels or None)
    return Fork(
        session_id=new_session_id,
        from_session_id=session_id,
        from_branch_id=branch_id,
        items=here.pointer.length,
        turns=here.turn,
    )


def check_new_id(new_session_id: str) -> str:
    """Return the id of a new session. Raises InvalidEventError."""
    return codec.check_session_id(new_session_id)


def _parts(items: Sequence[Row], session_id: str, branch_id: str) -> Iterator[SessionForked]:
    """Yield the events of a fork; one without items has one, too."""
    for start in range(0, max(1, len(items)), MAX_EVENT_ITEMS):
        kinds: dict[ItemKind, int] = {}
        origins = []
        for origin, rows in groupby(items[start : start + MAX_EVENT_ITEMS], key=itemgetter(0)):
            refs = []
            for _, position, index, kind, tool_name, is_tool_call in rows:
                shape = ItemKind(kind, tool_name, is_tool_call=bool(is_tool_call))
                refs.append((position, index, kinds.setdefault(shape, len(kinds))))
            origins.append(ForkedItems(session_id=origin, items=refs))
        yield SessionForked(
            from_session_id=session_id,
            from_branch_id=branch_id,
            origins=origins,
            kinds=[smallest(shape) for shape in kinds],
        )
