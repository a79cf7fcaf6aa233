"""The branches that a session ever had: where each forked, how large it is, and how it ended."""

from __future__ import annotations

from typing import NamedTuple

from agents_eventlog.adapters.conversations import timestamps
from agents_eventlog.eventlog.appender import session_version
from agents_eventlog.eventlog.events import (
    JSON,
    BranchCreated,
    BranchDeleted,
    SessionCleared,
    SessionDeleted,
    SessionRestored,
)
from agents_eventlog.eventlog.storage.transaction import Transaction
from agents_eventlog.projections.conversations import as_of as past
from agents_eventlog.projections.conversations import builder as conversations
from agents_eventlog.projections.conversations import queries as conversation_queries
from agents_eventlog.projections.conversations.branch_tree import Pointer


class Branch(NamedTuple):
    """A branch of a session: its fork point, size, last use and end."""

    branch_id: str
    from_branch_id: str | None
    before_turn: int | None
    last_item: tuple[int, int] | None
    items: int
    own_items: int
    turns: int
    created_at: int
    last_used_at: int
    is_live: bool
    is_current: bool
    ended: str | None
    ended_at: int | None
    last_version: int | None

    def document(self, session_id: str) -> dict[str, JSON]:
        """Return the branch for programs."""
        times = {
            name: None if (time := getattr(self, name)) is None else timestamps.iso(time)
            for name in ("created_at", "last_used_at", "ended_at")
        }
        return {"kind": "branch", "session_id": session_id, **self._asdict(), **times}


def branches(tx: Transaction, session_id: str) -> list[Branch]:
    """Return all branches that a session ever had, in order of creation."""
    forks, ends = _forks_and_ends(tx, session_id)
    with past.session_as_of(tx, session_id, session_version(tx, session_id)) as present:
        session = conversations.session(present, session_id)
        found = []
        for row in conversation_queries.all_branches(present, session_id):
            name, position = row.branch_id, row.created_position
            is_live = bool(row.is_live) and session is not None and session.deleted_at is None
            ended = [
                end
                for end in ends
                if end.branch_id in (name, None) and end.position > position and not is_live
            ]
            end = ended[0] if ended else None
            fork = forks.get(name)
            found.append(
                Branch(
                    branch_id=name,
                    from_branch_id=row.from_branch_id,
                    before_turn=None if fork is None else fork.before_turn,
                    last_item=_pair(fork),
                    items=row.length,
                    own_items=_own_items(present, Pointer(row.segment_id, row.length), fork),
                    turns=row.turn,
                    created_at=row.created_at,
                    last_used_at=row.updated_at,
                    is_live=is_live,
                    is_current=is_live and session is not None and name == session.branch_id,
                    ended=None if end is None else end.how,
                    ended_at=None if end is None else end.occurred_at,
                    last_version=None if end is None else end.version - 1,
                )
            )
    return found


class _End(NamedTuple):
    """End of a branch, or of all branches if ``branch_id`` is None."""

    branch_id: str | None
    how: str
    position: int
    version: int
    occurred_at: int


def _forks_and_ends(
    tx: Transaction, session_id: str
) -> tuple[dict[str, BranchCreated], list[_End]]:
    forks: dict[str, BranchCreated] = {}
    ends: list[_End] = []
    for recorded in conversation_queries.forks_and_ends(tx, session_id):
        where = (recorded.position, recorded.version, recorded.occurred_at)
        match recorded.event:
            case BranchCreated() as event:
                forks[event.branch_id] = event
            case BranchDeleted(branch_id=branch_id):
                ends.append(_End(branch_id, "deleted", *where))
            case SessionCleared():
                ends.append(_End(None, "cleared", *where))
            case SessionDeleted():
                ends.append(_End(None, "deleted", *where))
            case SessionRestored():
                ends = [end for end in ends if (end.branch_id, end.how) != (None, "deleted")]
            case _:
                pass  # its content was erased
    return forks, ends


def _pair(fork: BranchCreated | None) -> tuple[int, int] | None:
    if fork is None or fork.last_item is None:
        return None
    return fork.last_item.position, fork.last_item.index


def _own_items(tx: Transaction, pointer: Pointer, fork: BranchCreated | None) -> int:
    """Count the items after the fork; a branch's items are sorted by position and index."""
    last = None if fork is None else fork.last_item
    if last is None:
        return pointer.length
    return sum(ref > last for ref in conversation_queries.refs(tx, pointer))
