"""The branches that a session ever had: where each forked, how large it is, and how it ended."""

from __future__ import annotations

from typing import NamedTuple, TypedDict

from agents_eventlog.adapters.conversations import commands, summary, timestamps
from agents_eventlog.adapters.conversations.commands import SessionContext
from agents_eventlog.adapters.conversations.rows import BranchRow as LiveBranch
from agents_eventlog.eventlog.appender import session_version
from agents_eventlog.eventlog.errors import TurnNotFoundError
from agents_eventlog.eventlog.events import (
    JSON,
    BranchCreated,
    BranchDeleted,
    ItemRef,
    SessionCleared,
    SessionDeleted,
    SessionRestored,
)
from agents_eventlog.eventlog.storage.transaction import Transaction
from agents_eventlog.projections.conversations import as_of as past
from agents_eventlog.projections.conversations import branch_tree
from agents_eventlog.projections.conversations import builder as conversations
from agents_eventlog.projections.conversations import queries as conversation_queries
from agents_eventlog.projections.conversations.branch_tree import Pointer
from agents_eventlog.projections.conversations.queries import BranchRow


class BranchNode(TypedDict):
    """
    A branch in the tree of a session; the first has no ``from_branch_id``.

    before_turn: the turn that it left out when it was created; None if it was created at the end.
    fork_turn: the last turn that it shares with the branch that it was created from; None for the first.
    last_item: [position, index] of the last item that it shared when it was created.
    own_items: the number of its items after the fork.
    first_words: the beginning of the first user message after the fork, if there is one.
    is_current: whether it is the current branch.
    ended: "deleted" or "cleared". last_version: the last version of the session in which it existed.

    Times are ISO 8601, in UTC.
    """

    branch_id: str
    from_branch_id: str | None
    before_turn: int | None
    fork_turn: int | None
    last_item: tuple[int, int] | None
    items: int
    own_items: int
    turns: int
    first_words: str | None
    created_at: str
    last_used_at: str
    is_live: bool
    is_current: bool
    ended: str | None
    ended_at: str | None
    last_version: int | None


class Sibling(TypedDict):
    """
    A version of a turn: the user item that opens it, and where it is.

    number: 1 for the oldest version. branch_ids: the live branches that show it. branch_id: the current
    one of them, or else the one that was used last. item: None if its content was erased. time: ISO 8601.
    """

    number: int
    turn: int
    branch_id: str
    branch_ids: list[str]
    position: int
    index: int
    time: str
    item: JSON
    is_current: bool


class Branch(NamedTuple):
    """A branch of a session: its fork point, size, last use and end."""

    branch_id: str
    from_branch_id: str | None
    before_turn: int | None
    fork_turn: int | None
    last_item: tuple[int, int] | None
    items: int
    own_items: int
    turns: int
    first_words: str | None
    created_at: int
    last_used_at: int
    is_live: bool
    is_current: bool
    ended: str | None
    ended_at: int | None
    last_version: int | None

    def node(self) -> BranchNode:
        """Return the branch for programs."""
        return BranchNode(
            branch_id=self.branch_id,
            from_branch_id=self.from_branch_id,
            before_turn=self.before_turn,
            fork_turn=self.fork_turn,
            last_item=self.last_item,
            items=self.items,
            own_items=self.own_items,
            turns=self.turns,
            first_words=self.first_words,
            created_at=timestamps.iso(self.created_at),
            last_used_at=timestamps.iso(self.last_used_at),
            is_live=self.is_live,
            is_current=self.is_current,
            ended=self.ended,
            ended_at=None if self.ended_at is None else timestamps.iso(self.ended_at),
            last_version=self.last_version,
        )

    def document(self, session_id: str) -> dict[str, JSON]:
        """Return the document of ``eventlog branches``."""
        return {"kind": "branch", "session_id": session_id, **self.node()}


def live_branches(tx: Transaction, context: SessionContext) -> list[LiveBranch]:
    """Return the live branches of a session, in order of creation; [] for an empty session."""
    rows = commands.list_branches(tx, context)
    return [
        LiveBranch(
            branch_id=branch_id,
            message_count=length,
            user_turns=turns,
            is_current=branch_id == context.branch_id,
            created_at=timestamps.as_text(created_at),
        )
        for branch_id, length, turns, created_at in rows
    ]


def branches(tx: Transaction, session_id: str) -> list[Branch]:
    """Return all branches that a session ever had, in order of creation, from its events."""
    with past.session_as_of(tx, session_id, session_version(tx, session_id)) as present:
        return current_branches(tx, session_id, present)


def current_branches(
    tx: Transaction, session_id: str, present: Transaction | None = None
) -> list[Branch]:
    """
    Return all branches that a session ever had, in order of creation, from the tables.

    present: where the tables are; by default in the log's file.
    """
    present = tx if present is None else present
    forks, ends = _forks_and_ends(tx, session_id)
    session = conversations.session(present, session_id)
    is_shown = (
        session is not None and session.deleted_at is None and not session.is_expired(present.now)
    )
    found = []
    for row in conversation_queries.all_branches(present, session_id):
        name, position = row.branch_id, row.created_position
        is_live = bool(row.is_live) and is_shown
        ended = [
            end
            for end in ends
            if end.branch_id in (name, None) and end.position > position and not is_live
        ]
        end = ended[0] if ended else None
        fork = forks.get(name)
        pointer = Pointer(row.segment_id, row.length)
        own_items = _own_items(present, pointer, fork)
        shared = branch_tree.at_length(present, pointer, pointer.length - own_items)
        fork_turn = branch_tree.turn_at(present, shared)
        found.append(
            Branch(
                branch_id=name,
                from_branch_id=row.from_branch_id,
                before_turn=None if fork is None else fork.before_turn,
                fork_turn=None if fork is None else fork_turn,
                last_item=_pair(fork),
                items=row.length,
                own_items=own_items,
                turns=row.turn,
                first_words=_words(present, session_id, pointer, fork_turn + 1),
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


def siblings(tx: Transaction, context: SessionContext, turn: int, called: int) -> list[Sibling]:
    """
    Return all versions of a turn of the current branch on live branches, the oldest first.

    Versions of a turn follow the same item. The turn after the last one has versions, too.

    called: the turn's number in the caller's numbering, for errors.
    """
    here = commands.look(tx, context)
    before = here.pointer
    if turn != here.turn + 1:
        found = branch_tree.before_turn(tx, here.pointer, turn) if turn > 0 else None
        if found is None:
            raise TurnNotFoundError(called, context.branch_id)
        before = found
    parent = branch_tree.newest(tx, before)
    versions: dict[ItemRef, list[BranchRow]] = {}
    is_empty = here.is_deleted or here.is_expired
    rows = [] if is_empty else conversation_queries.all_branches(tx, context.session_id)
    for row in rows:
        pointer = Pointer(row.segment_id, row.length)
        opening = conversation_queries.opening(tx, pointer, turn) if row.is_live else None
        if opening is not None:
            place = branch_tree.before_turn(tx, pointer, turn) or Pointer(None, 0)
            if branch_tree.newest(tx, place) == parent:
                versions.setdefault(opening, []).append(row)
    return [
        _sibling(tx, context, ref, turn, number, versions[ref])
        for number, ref in enumerate(sorted(versions), 1)
    ]


def _sibling(
    tx: Transaction,
    context: SessionContext,
    ref: ItemRef,
    turn: int,
    number: int,
    rows: list[BranchRow],
) -> Sibling:
    names = [row.branch_id for row in rows]
    is_current = context.branch_id in names
    last_used = max(rows, key=lambda row: (row.updated_at, row.created_position)).branch_id
    return Sibling(
        number=number,
        turn=turn,
        branch_id=context.branch_id if is_current else last_used,
        branch_ids=names,
        position=ref.position,
        index=ref.index,
        time=timestamps.iso(conversation_queries.time(tx, ref.position)),
        item=conversation_queries.item(tx, ref, session_id=context.session_id, instead=_nothing),
        is_current=is_current,
    )


def _words(tx: Transaction, session_id: str, pointer: Pointer, turn: int) -> str | None:
    """Return the beginning of the user message that opens a turn, if there is one."""
    ref = conversation_queries.opening(tx, pointer, turn)
    if ref is None:
        return None
    item = conversation_queries.item(tx, ref, session_id=session_id, instead=_nothing)
    return None if item is None else summary.shortened(summary.content(item))


def _nothing(_why: object) -> None:
    """Return None for a content that cannot be read."""


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
    if (found := branch_tree.find(tx, pointer, last)) is not None:
        return pointer.length - found.length
    return sum(ref > last for ref in conversation_queries.refs(tx, pointer))
