"""
The present of every conversation: sessions, their branches, and the items of each.

A branch is a pointer: (segment, length). A segment is an append-only run of items; it leaves its parent
segment at a length. Items are keyed (segment, number in the branch), from 1. So a new branch copies
nothing, a shared item stands once, and all that one operation touches is found by a key, however long
the history is. No payload is kept here: an item row points at its event.

What an event says is taken as a fact; one that fits nothing (a pop of an item that is not the branch's
newest) changes nothing. The commands that append see to it that such events do not come about.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Final

import msgspec
from msgspec.structs import astuple

from eventlog.events import (
    BranchCreated,
    BranchDeleted,
    BranchSwitched,
    Event,
    HistoryImported,
    ItemPopped,
    ItemRef,
    ItemsAdded,
    ItemsReplaced,
    MetadataSet,
    SessionCleared,
    SessionDeleted,
    UsageRecorded,
)
from eventlog.log import Recorded
from eventlog.store import Transaction
from projections import segments, shape
from projections.segments import Pointer

MAIN: Final = "main"

SESSIONS = """
    CREATE TABLE sessions (
        session_id      TEXT    NOT NULL PRIMARY KEY,
        created_at      INTEGER NOT NULL,
        updated_at      INTEGER NOT NULL,
        user_id         TEXT,
        metadata        TEXT,
        branch_id       TEXT    NOT NULL,
        item_count      INTEGER NOT NULL,
        turn_count      INTEGER NOT NULL,
        branch_count    INTEGER NOT NULL,
        cleared_version INTEGER NOT NULL,
        deleted_at      INTEGER
    ) STRICT, WITHOUT ROWID
"""
BRANCHES = """
    CREATE TABLE branches (
        session_id       TEXT    NOT NULL,
        branch_id        TEXT    NOT NULL,
        segment_id       INTEGER,
        length           INTEGER NOT NULL,
        turn             INTEGER NOT NULL,
        is_live          INTEGER NOT NULL,
        is_generated     INTEGER NOT NULL,
        from_branch_id   TEXT,
        created_position INTEGER NOT NULL,
        created_at       INTEGER NOT NULL,
        updated_at       INTEGER NOT NULL,
        PRIMARY KEY (session_id, branch_id)
    ) STRICT, WITHOUT ROWID
"""
BRANCHES_OF_SEGMENT = """
    CREATE INDEX branches_of_segment ON branches (segment_id) WHERE segment_id IS NOT NULL
"""
GENERATED_BRANCHES = """
    CREATE INDEX generated_branches ON branches (branch_id) WHERE is_generated = 1
"""

SELECT_SESSION = """
    SELECT created_at, updated_at, user_id, metadata, branch_id, item_count, turn_count, branch_count,
        cleared_version, deleted_at
    FROM sessions
    WHERE session_id = ?
"""
UPSERT_SESSION = """
    INSERT INTO sessions (
        created_at, updated_at, user_id, metadata, branch_id, item_count, turn_count, branch_count,
        cleared_version, deleted_at, session_id
    ) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT (session_id) DO UPDATE SET
        updated_at = excluded.updated_at, user_id = excluded.user_id, metadata = excluded.metadata,
        branch_id = excluded.branch_id, item_count = excluded.item_count,
        turn_count = excluded.turn_count, branch_count = excluded.branch_count,
        cleared_version = excluded.cleared_version, deleted_at = excluded.deleted_at
"""
SELECT_BRANCH = """
    SELECT segment_id, length, turn, is_live, is_generated, from_branch_id, created_position,
        created_at, updated_at
    FROM branches
    WHERE session_id = ? AND branch_id = ?
"""
UPSERT_BRANCH = """
    INSERT INTO branches (
        segment_id, length, turn, is_live, is_generated, from_branch_id, created_position,
        created_at, updated_at, session_id, branch_id
    ) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT (session_id, branch_id) DO UPDATE SET
        segment_id = excluded.segment_id, length = excluded.length, turn = excluded.turn,
        is_live = excluded.is_live, is_generated = excluded.is_generated,
        from_branch_id = excluded.from_branch_id, created_position = excluded.created_position,
        created_at = excluded.created_at, updated_at = excluded.updated_at
"""
CLEAR_BRANCHES = """
    UPDATE branches SET segment_id = NULL, length = 0, turn = 0, is_live = 0 WHERE session_id = ?
"""


class _Session(msgspec.Struct):
    """A row of ``sessions``, in the order of its statements, without the key."""

    created_at: int
    updated_at: int
    user_id: str | None = None
    metadata: str | None = None
    branch_id: str = MAIN
    item_count: int = 0
    turn_count: int = 0
    branch_count: int = 0
    cleared_version: int = 0
    deleted_at: int | None = None


class _Branch(msgspec.Struct):
    """A row of ``branches``, in the order of its statements, without the key."""

    segment_id: int | None
    length: int
    turn: int
    is_live: int
    is_generated: int
    from_branch_id: str | None
    created_position: int
    created_at: int
    updated_at: int

    @property
    def pointer(self) -> Pointer:
        return Pointer(self.segment_id, self.length)

    def move(self, pointer: Pointer, turn: int) -> None:
        self.segment_id, self.length = pointer
        self.turn = turn


class Conversations:
    """Sessions, branches, segments and items."""

    name: ClassVar[str] = "conversations"
    version: ClassVar[int] = 1
    schema: ClassVar[Sequence[str]] = (
        SESSIONS,
        BRANCHES,
        BRANCHES_OF_SEGMENT,
        GENERATED_BRANCHES,
        *segments.SCHEMA,
    )
    handles: ClassVar[Sequence[type[Event]]] = (
        ItemsAdded,
        ItemPopped,
        ItemsReplaced,
        BranchCreated,
        BranchSwitched,
        BranchDeleted,
        SessionCleared,
        SessionDeleted,
        MetadataSet,
        UsageRecorded,
        HistoryImported,
    )

    def apply(self, tx: Transaction, events: Sequence[Recorded]) -> None:
        """Change the tables by what these events say."""
        batch = _Batch(tx)
        for recorded in events:
            batch.apply(recorded)
        batch.flush()


class _Batch:
    """What a batch of events touches, loaded once, changed in memory, written back together."""

    def __init__(self, tx: Transaction) -> None:
        self.tx = tx
        self.sessions: dict[str, _Session] = {}
        self.branches: dict[tuple[str, str], _Branch] = {}
        self.ends: dict[int, int] = {}
        self.new_items: list[tuple[Any, ...]] = []

    def apply(self, recorded: Recorded) -> None:
        session = self.session(recorded)
        session.updated_at = max(session.updated_at, recorded.occurred_at)
        handler = _HANDLERS.get(recorded.type)
        if handler is not None:
            handler(self, recorded, session)

    # -- identity maps ------------------------------------------------------------------------

    def session(self, recorded: Recorded) -> _Session:
        session_id = recorded.session_id
        session = self.sessions.get(session_id)
        if session is None:
            row = self.tx.one(SELECT_SESSION, (session_id,))
            at = recorded.occurred_at
            session = _Session(*row) if row else _Session(created_at=at, updated_at=at)
            self.sessions[session_id] = session
        return session

    def branch(self, recorded: Recorded, branch_id: str) -> _Branch:
        """Return a branch; one that there is not yet begins empty."""
        key = (recorded.session_id, branch_id)
        branch = self.branches.get(key)
        if branch is None:
            row = self.tx.one(SELECT_BRANCH, key)
            at = recorded.occurred_at
            branch = _Branch(*(row or (None, 0, 0, 0, 0, None, recorded.position, at, at)))
            self.branches[key] = branch
        return branch

    def live_branch(self, recorded: Recorded, branch_id: str, session: _Session) -> _Branch:
        """Return a branch that something happens on: whatever it was, it is live now."""
        branch = self.branch(recorded, branch_id)
        if not branch.is_live:
            branch.is_live = 1
            branch.created_at, branch.created_position = recorded.occurred_at, recorded.position
            session.branch_count += 1
        branch.updated_at = recorded.occurred_at
        return branch

    def flush(self) -> None:
        """Write everything that is in memory, so that SQL sees it."""
        if self.new_items:
            self.tx.executemany(segments.INSERT_ITEM, self.new_items)
            self.new_items = []
        if self.branches:
            rows = [(*astuple(branch), *key) for key, branch in self.branches.items()]
            self.tx.executemany(UPSERT_BRANCH, rows)
        if self.sessions:
            rows = [
                (*astuple(session), session_id) for session_id, session in self.sessions.items()
            ]
            self.tx.executemany(UPSERT_SESSION, rows)

    # -- what the events do -------------------------------------------------------------------

    def items_added(self, recorded: Recorded, session: _Session) -> None:
        branch = self.live_branch(recorded, recorded.branch_id or MAIN, session)
        self.extend(recorded, session, branch)

    def extend(self, recorded: Recorded, session: _Session, branch: _Branch) -> None:
        """Put the event's items at the end of the branch."""
        if recorded.data is None:
            return  # erased: nothing of it is live any more
        found = shape.shapes(recorded.position, recorded.data)
        if not found:
            return
        segment_id = self.segment_to_extend(recorded, branch)
        number, turn = branch.length, branch.turn
        for index, (kind, tool_name, is_tool_call) in enumerate(found):
            number += 1
            turn += kind == shape.USER
            self.new_items.append(
                (
                    segment_id,
                    number,
                    recorded.position,
                    index,
                    kind,
                    tool_name,
                    int(is_tool_call),
                    turn,
                )
            )
        session.item_count += len(found)
        session.turn_count += turn - branch.turn
        branch.move(Pointer(segment_id, number), turn)
        self.ends[segment_id] = number

    def segment_to_extend(self, recorded: Recorded, branch: _Branch) -> int:
        """Return the segment for the next item: the branch's own if it stands at its tip."""
        segment_id: int | None = branch.segment_id
        if segment_id is not None:
            end = self.ends.get(segment_id)
            if end is None:
                end = self.ends[segment_id] = segments.end(self.tx, segment_id)
            if end == branch.length:
                return segment_id
        self.tx.execute(
            segments.INSERT_SEGMENT,
            (recorded.position, recorded.session_id, segment_id, branch.length),
        )
        return recorded.position

    def item_popped(self, recorded: Recorded, session: _Session) -> None:
        event = recorded.event
        branch = self.branch(recorded, recorded.branch_id or MAIN)
        self.flush()
        item = segments.newest(self.tx, branch.pointer)
        if not isinstance(event, ItemPopped) or item is None or item.ref != event.item:
            return
        branch.updated_at = recorded.occurred_at
        self.cut(session, branch, branch.length - 1)

    def items_replaced(self, recorded: Recorded, session: _Session) -> None:
        event = recorded.event
        branch = self.live_branch(recorded, recorded.branch_id or MAIN, session)
        self.flush()
        if isinstance(event, ItemsReplaced):
            if event.first_item is None:
                self.cut(session, branch, 0)
            else:
                first = segments.find(self.tx, branch.pointer, event.first_item)
                if first is not None:
                    self.cut(session, branch, first.length - 1)
        self.extend(recorded, session, branch)

    def branch_created(self, recorded: Recorded, session: _Session) -> None:
        event = recorded.event
        if not isinstance(event, BranchCreated):
            return
        source = self.branch(recorded, event.from_branch_id)
        if event.from_branch_id == MAIN and not source.is_live:
            self.live_branch(recorded, MAIN, session)
        self.flush()
        pointer = _pointer_to(self.tx, source.pointer, event.last_item)
        branch = self.live_branch(recorded, event.branch_id, session)
        before = branch.pointer
        branch.move(pointer, segments.turn_at(self.tx, pointer))
        branch.is_generated = int(event.generated)
        branch.from_branch_id = event.from_branch_id
        session.branch_id = event.branch_id
        self.trim(session, before)

    def branch_switched(self, recorded: Recorded, session: _Session) -> None:
        if isinstance(recorded.event, BranchSwitched):
            session.branch_id = recorded.event.branch_id

    def branch_deleted(self, recorded: Recorded, session: _Session) -> None:
        event = recorded.event
        if not isinstance(event, BranchDeleted):
            return
        branch = self.branch(recorded, event.branch_id)
        session.branch_count -= branch.is_live
        branch.is_live = 0
        branch.updated_at = recorded.occurred_at
        if session.branch_id == event.branch_id:
            session.branch_id = MAIN
        self.cut(session, branch, 0)

    def session_cleared(self, recorded: Recorded, session: _Session) -> None:
        self.flush()
        session_id = recorded.session_id
        segments.delete_all(self.tx, session_id)
        self.tx.execute(CLEAR_BRANCHES, (session_id,))
        self.branches = {key: b for key, b in self.branches.items() if key[0] != session_id}
        self.ends.clear()
        session.item_count = session.turn_count = session.branch_count = 0
        session.cleared_version = recorded.version
        session.branch_id = MAIN

    def session_deleted(self, recorded: Recorded, session: _Session) -> None:
        session.deleted_at = recorded.occurred_at

    def metadata_set(self, recorded: Recorded, session: _Session) -> None:
        event = recorded.event
        if isinstance(event, MetadataSet):
            if event.user_id is not None:
                session.user_id = event.user_id
            if event.metadata is not None:
                session.metadata = shape.json_text(event.metadata)

    # -- cutting ------------------------------------------------------------------------------

    def cut(self, session: _Session, branch: _Branch, length: int) -> None:
        """Shorten a branch; items that no branch reaches any more go."""
        before = branch.pointer
        pointer = segments.at_length(self.tx, before, length)
        branch.move(pointer, segments.turn_at(self.tx, pointer))
        self.trim(session, before)

    def trim(self, session: _Session, pointer: Pointer) -> None:
        """Remove what nobody reaches any more in the segment of a pointer that has moved on."""
        if pointer.segment_id is None:
            return
        self.flush()
        items, turns = segments.trim(self.tx, pointer.segment_id)
        session.item_count -= items
        session.turn_count -= turns
        self.ends.clear()


def _pointer_to(tx: Transaction, source: Pointer, item: ItemRef | None) -> Pointer:
    found = None if item is None else segments.find(tx, source, item)
    return found or Pointer(None, 0)


_HANDLERS: dict[str, Callable[[_Batch, Recorded, _Session], None]] = {
    ItemsAdded.type_name(): _Batch.items_added,
    ItemPopped.type_name(): _Batch.item_popped,
    ItemsReplaced.type_name(): _Batch.items_replaced,
    BranchCreated.type_name(): _Batch.branch_created,
    BranchSwitched.type_name(): _Batch.branch_switched,
    BranchDeleted.type_name(): _Batch.branch_deleted,
    SessionCleared.type_name(): _Batch.session_cleared,
    SessionDeleted.type_name(): _Batch.session_deleted,
    MetadataSet.type_name(): _Batch.metadata_set,
}
