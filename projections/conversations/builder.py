"""
The present of every conversation: sessions, their branches, and the items of each.

A branch is a pointer: (segment, length). A segment is an append-only run of items; it leaves its parent
segment at a length. Items are keyed (segment, number in the branch), from 1. So a new branch copies
nothing, a shared item is stored once, and each operation finds its rows by key, however long the
history is. No payload is kept here: an item row points at its event.

What an event says is taken as a fact; one that fits nothing (a pop of an item that is not the branch's
newest) changes nothing. The commands that append see to it that such events do not come about.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import count, repeat
from typing import Any, ClassVar, Final

import msgspec
from msgspec.structs import astuple

from agents_eventlog.eventlog import item_kind
from agents_eventlog.eventlog.events import (
    BranchCreated,
    BranchDeleted,
    BranchSwitched,
    ContentErased,
    Event,
    ExpirySet,
    HistoryImported,
    ItemPopped,
    ItemRedacted,
    ItemRef,
    ItemsAdded,
    ItemsReplaced,
    ItemsWithheld,
    MetadataSet,
    SessionCleared,
    SessionDeleted,
    SessionForked,
    SessionRestored,
    TurnRedone,
    TurnUndone,
    UsageRecorded,
)
from agents_eventlog.eventlog.item_kind import ItemKind
from agents_eventlog.eventlog.recorded_event import RecordedEvent
from agents_eventlog.eventlog.storage.transaction import Transaction
from agents_eventlog.projections.base import Projection
from agents_eventlog.projections.conversations import (
    branch_tree,
    forks,
    labels,
    metadata_index,
    redactions,
)
from agents_eventlog.projections.conversations.branch_tree import Pointer

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
        cleared_at      INTEGER NOT NULL,
        deleted_at      INTEGER,
        erased_at       INTEGER,
        expires_after   INTEGER,
        is_filled       INTEGER NOT NULL,
        expired_version INTEGER
    )
"""
SESSIONS_BY_UPDATE = """
    CREATE INDEX sessions_by_update ON sessions (updated_at DESC, session_id)
    WHERE deleted_at IS NULL
"""
SESSIONS_BY_CREATION = """
    CREATE INDEX sessions_by_creation ON sessions (created_at DESC, session_id)
    WHERE deleted_at IS NULL
"""
SESSIONS_OF_USER = """
    CREATE INDEX sessions_of_user ON sessions (user_id, updated_at DESC, session_id)
    WHERE user_id IS NOT NULL
"""
DELETED_SESSIONS = """
    CREATE INDEX deleted_sessions ON sessions (updated_at DESC, session_id)
    WHERE deleted_at IS NOT NULL
"""
EXPIRING_SESSIONS = """
    CREATE INDEX expiring_sessions ON sessions ((updated_at + expires_after), session_id)
    WHERE expires_after IS NOT NULL AND is_filled = 1 AND deleted_at IS NULL
"""
EXPIRED_SESSIONS = """
    CREATE INDEX expired_sessions ON sessions (session_id) WHERE expired_version IS NOT NULL
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
    )
"""
BRANCHES_OF_SEGMENT = """
    CREATE INDEX branches_of_segment ON branches (segment_id) WHERE segment_id IS NOT NULL
"""
GENERATED_BRANCHES = """
    CREATE INDEX generated_branches ON branches (branch_id) WHERE is_generated = 1
"""

MICROSECONDS: Final = 1_000_000

MAX_CACHED = 10_000
"""Bounds how many rows a replay keeps in memory."""

SELECT_SESSION = """
    SELECT created_at, updated_at, user_id, metadata, branch_id, item_count, turn_count, branch_count,
        cleared_version, cleared_at, deleted_at, erased_at, expires_after, is_filled, expired_version
    FROM sessions
    WHERE session_id = ?
"""
UPSERT_SESSION = """
    INSERT INTO sessions (
        created_at, updated_at, user_id, metadata, branch_id, item_count, turn_count, branch_count,
        cleared_version, cleared_at, deleted_at, erased_at, expires_after, is_filled, expired_version,
        session_id
    ) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT (session_id) DO UPDATE SET
        updated_at = excluded.updated_at, user_id = excluded.user_id, metadata = excluded.metadata,
        branch_id = excluded.branch_id, item_count = excluded.item_count,
        turn_count = excluded.turn_count, branch_count = excluded.branch_count,
        cleared_version = excluded.cleared_version, cleared_at = excluded.cleared_at,
        deleted_at = excluded.deleted_at, erased_at = excluded.erased_at,
        expires_after = excluded.expires_after, is_filled = excluded.is_filled,
        expired_version = excluded.expired_version
"""
SELECT_BRANCH = """
    SELECT segment_id, length, turn, is_live, is_generated, from_branch_id, created_position,
        created_at, updated_at
    FROM branches
    WHERE session_id = ? AND branch_id = ?
"""
SELECT_BOTH = f"""
    SELECT s.created_at, s.updated_at, s.user_id, s.metadata, s.branch_id, s.item_count, s.turn_count,
        s.branch_count, s.cleared_version, s.cleared_at, s.deleted_at, s.erased_at, s.expires_after,
        s.is_filled, s.expired_version,
        b.segment_id, b.length, b.turn, b.is_live, b.is_generated, b.from_branch_id, b.created_position,
         b.created_at, b.updated_at,
        p.parent_segment_id, p.parent_length, ({redactions.LAST_REDACTED})
    FROM sessions AS s
    LEFT JOIN branches AS b ON b.session_id = s.session_id AND b.branch_id = ?
    LEFT JOIN segments AS p ON p.segment_id = b.segment_id
    WHERE s.session_id = ?
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
GROW_SESSION = """
    UPDATE sessions SET updated_at = ?, item_count = ?, turn_count = ? WHERE session_id = ?
"""
GROW_BRANCH = """
    UPDATE branches SET length = ?, turn = ?, updated_at = ? WHERE session_id = ? AND branch_id = ?
"""
BRANCH_IDS = "SELECT branch_id FROM branches WHERE session_id = ?"


class Session(msgspec.Struct):
    """
    A row of ``sessions``, in the order of its statements, without the key.

    expires_after: the microseconds without use after which it expires.
    is_filled: 1 if it had items since it last expired, though they may be removed.
    expired_version: that of the event with which it expired, until the contents from before are erased.
    """

    created_at: int
    updated_at: int
    user_id: str | None = None
    metadata: str | None = None
    branch_id: str = MAIN
    item_count: int = 0
    turn_count: int = 0
    branch_count: int = 0
    cleared_version: int = 0
    cleared_at: int = 0
    deleted_at: int | None = None
    erased_at: int | None = None
    expires_after: int | None = None
    is_filled: int = 0
    expired_version: int | None = None

    @property
    def expires_after_seconds(self) -> int | None:
        """After how many seconds without use it expires; None for never."""
        return None if self.expires_after is None else self.expires_after // MICROSECONDS

    @property
    def expires_at(self) -> int | None:
        """When it expires, in microseconds since 1970 UTC; None for never, or if nothing is to expire."""
        if self.expires_after is None or not self.is_filled or self.deleted_at is not None:
            return None
        return self.updated_at + self.expires_after

    def is_expired(self, now: int) -> bool:
        """Whether it has expired by a time: it is read as if it were cleared, and is cleared when used."""
        expires_at = self.expires_at
        return expires_at is not None and expires_at <= now


class Branch(msgspec.Struct):
    """A row of ``branches``, in the order of its statements, without the key."""

    segment_id: int | None = None
    length: int = 0
    turn: int = 0
    is_live: int = 0
    is_generated: int = 0
    from_branch_id: str | None = None
    created_position: int = 0
    created_at: int = 0
    updated_at: int = 0

    @property
    def pointer(self) -> Pointer:
        """Where the branch ends."""
        return Pointer(self.segment_id, self.length)

    def move(self, pointer: Pointer, turn: int) -> None:
        """End somewhere else."""
        self.segment_id, self.length = pointer
        self.turn = turn


@dataclass
class Rows:
    """The rows of sessions and branches that are remembered, by their keys."""

    sessions: dict[str, Session] = field(default_factory=dict)
    branches: dict[tuple[str, str], Branch] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.sessions) + len(self.branches)


def session(tx: Transaction, session_id: str) -> Session | None:
    """Return a session's row, from memory where the transaction has it there."""
    sessions = tx.cache[Rows].sessions
    found = sessions.get(session_id)
    if found is None:
        tx.lock_session(session_id)
        if row := tx.one(SELECT_SESSION, (session_id,)):
            found = sessions[session_id] = Session(*row)
    return found


def branch(tx: Transaction, session_id: str, branch_id: str) -> Branch | None:
    """Return a branch's row, from memory where the transaction has it there."""
    branches, key = tx.cache[Rows].branches, (session_id, branch_id)
    found = branches.get(key)
    if found is None and (row := tx.one(SELECT_BRANCH, key)):
        found = branches[key] = Branch(*row)
    return found


def both(tx: Transaction, session_id: str, branch_id: str) -> tuple[Session | None, Branch | None]:
    """Return a session's and a branch's row: from memory, or with one statement."""
    rows = tx.cache[Rows]
    known = rows.sessions.get(session_id)
    if known is not None:
        on_it = rows.branches.get((session_id, branch_id))
        return known, on_it or branch(tx, session_id, branch_id)
    tx.lock_session(session_id)
    row = tx.one(SELECT_BOTH, (branch_id, session_id))
    if row is None:
        return None, None
    segments = tx.cache[branch_tree.Known]
    segments.redactions_exist = row[-1] is not None
    found = rows.sessions[session_id] = Session(*row[:15])
    segment_id, length = row[15:17]
    if length is None:
        return found, None
    if row[25] is not None:
        segments.parents[segment_id] = Pointer(*row[24:26])
    on_it = rows.branches[session_id, branch_id] = Branch(*row[15:24])
    return found, on_it


class Conversations(Projection):
    """Sessions, their branches, and the segments of items that branches share."""

    name: ClassVar[str] = "conversations"
    version: ClassVar[int] = 6  # 6: expiry
    schema: ClassVar[Sequence[str]] = (
        SESSIONS,
        SESSIONS_BY_UPDATE,
        SESSIONS_BY_CREATION,
        SESSIONS_OF_USER,
        DELETED_SESSIONS,
        EXPIRING_SESSIONS,
        EXPIRED_SESSIONS,
        BRANCHES,
        BRANCHES_OF_SEGMENT,
        GENERATED_BRANCHES,
        *branch_tree.SCHEMA,
        *metadata_index.SCHEMA,
        *redactions.SCHEMA,
        *forks.SCHEMA,
    )
    handles: ClassVar[Sequence[type[Event]]] = (
        ItemsAdded,
        ItemPopped,
        ItemsReplaced,
        TurnUndone,
        TurnRedone,
        ItemRedacted,
        BranchCreated,
        BranchSwitched,
        BranchDeleted,
        SessionCleared,
        ExpirySet,
        SessionDeleted,
        SessionRestored,
        MetadataSet,
        UsageRecorded,
        HistoryImported,
        ContentErased,
        SessionForked,
        ItemsWithheld,
    )

    def apply(self, tx: Transaction, events: Sequence[RecordedEvent]) -> None:
        """Update the tables with these events."""
        if len(events) > 1 and tx.cache.rows() > MAX_CACHED:  # a replay is one long transaction
            tx.cache.pop(Rows, None)
            tx.cache.pop(branch_tree.Known, None)
        batch = _Batch(tx)
        for recorded in events:
            batch.apply(recorded)
        batch.write()


class _Batch:
    """What events touch, changed in memory and written back together."""

    def __init__(self, tx: Transaction) -> None:
        self.tx = tx
        self.rows = tx.cache[Rows]
        self.new_items: list[tuple[Any, ...]] = []
        # What was touched, each with whether more than its growth is to be written.
        self.sessions: dict[str, bool] = {}
        self.branches: dict[tuple[str, str], bool] = {}

    def apply(self, recorded: RecordedEvent) -> None:
        if recorded.type == CONTENT_ERASED:
            self.content_erased(recorded)
            return
        if recorded.type in REDACTING:
            self.item_redacted(recorded)
            return
        session = self.session(recorded)
        if recorded.type == USAGE_RECORDED:
            return  # about the books; but a session that used something is one
        if recorded.type == EXPIRY_SET:
            self.expiry_set(recorded, session)
            return
        session.updated_at = max(session.updated_at, recorded.occurred_at)
        handler = _HANDLERS.get(recorded.type)
        if handler is not None:
            handler(self, recorded, session)
        is_whole = recorded.type not in _GROWTH
        self.sessions[recorded.session_id] = self.sessions.get(recorded.session_id) or is_whole

    # -- rows in memory -----------------------------------------------------------------------

    def session(self, recorded: RecordedEvent) -> Session:
        session_id = recorded.session_id
        found = self.rows.sessions.get(session_id) or session(self.tx, session_id)
        if found is None:
            at = recorded.occurred_at
            found = self.rows.sessions[session_id] = Session(created_at=at, updated_at=at)
            self.sessions[session_id] = True
        return found

    def branch(self, recorded: RecordedEvent, branch_id: str, *, grows: bool = False) -> Branch:
        """Return a branch that is about to change; one that there is not yet begins empty."""
        key = (recorded.session_id, branch_id)
        found = self.rows.branches.get(key) or branch(self.tx, *key)
        if found is None:
            return Branch()  # kept once it is live
        self.branches[key] = self.branches.get(key) or not grows
        return found

    def live_branch(
        self, recorded: RecordedEvent, branch_id: str, session: Session, *, grows: bool = False
    ) -> Branch:
        """Return the branch that an event happens on, and make it live."""
        found = self.branch(recorded, branch_id, grows=grows)
        if not found.is_live:
            found.is_live = 1
            self.rows.branches[recorded.session_id, branch_id] = found
            found.created_at, found.created_position = recorded.occurred_at, recorded.position
            session.branch_count += 1
            session.is_filled = 1
            self.sessions[recorded.session_id] = True
            self.branches[recorded.session_id, branch_id] = True
        found.updated_at = recorded.occurred_at
        return found

    def write(self) -> None:
        """Write what was touched, so that SQL sees it. What is changed after is to be touched again."""
        self.write_items()
        self.write_branches()
        for session_id, is_whole in self.sessions.items():
            session = self.rows.sessions[session_id]
            if is_whole:
                self.tx.execute(UPSERT_SESSION, (*astuple(session), session_id))
            else:
                counts = (session.updated_at, session.item_count, session.turn_count)
                self.tx.defer(GROW_SESSION, [(*counts, session_id)])
        self.sessions.clear()

    def write_items(self) -> None:
        if self.new_items:
            self.tx.defer(branch_tree.INSERT_ITEM, self.new_items)
            self.new_items = []

    def write_branches(self) -> None:
        for key, is_whole in self.branches.items():
            branch = self.rows.branches[key]
            if is_whole:
                self.tx.execute(UPSERT_BRANCH, (*astuple(branch), *key))
            else:
                grown = (branch.length, branch.turn, branch.updated_at)
                self.tx.defer(GROW_BRANCH, [(*grown, *key)])
        self.branches.clear()

    # -- what the events do -------------------------------------------------------------------

    def items_added(self, recorded: RecordedEvent, session: Session) -> None:
        branch = self.live_branch(recorded, recorded.branch_id or MAIN, session, grows=True)
        self.extend(recorded, session, branch)

    def extend(self, recorded: RecordedEvent, session: Session, branch: Branch) -> None:
        """Put the event's items at the end of the branch."""
        if recorded.data is None:
            return  # erased by a release that kept no structure
        columns = (recorded.type, recorded.schema_version, recorded.data)
        if recorded.is_outline:
            found = item_kind.of_outline(*columns)
        else:
            found = item_kind.classify_items(recorded.position, *columns)
        self.put(recorded, session, branch, list(zip(repeat(recorded.position), count(), found)))

    def put(
        self,
        recorded: RecordedEvent,
        session: Session,
        branch: Branch,
        found: Sequence[tuple[int, int, ItemKind]],
    ) -> None:
        """Put items, each with its position and index, at the end of the branch."""
        if not found:
            return
        segment_id = self.segment_to_extend(recorded, branch)
        number, turn = branch.length, branch.turn
        for position, index, (kind, tool_name, is_tool_call) in found:
            number += 1
            if kind == item_kind.USER:
                turn += 1
            call = 1 if is_tool_call else 0  # a bool takes sqlite3 several times as long
            self.new_items.append(
                (segment_id, number, position, index, kind, tool_name, call, turn)
            )
        session.item_count += len(found)
        session.turn_count += turn - branch.turn
        key = recorded.session_id, recorded.branch_id or MAIN
        self.branches[key] = self.branches.get(key) or segment_id != branch.segment_id
        branch.segment_id, branch.length, branch.turn = segment_id, number, turn
        self.tx.cache[branch_tree.Known].ends[segment_id] = number

    def segment_to_extend(self, recorded: RecordedEvent, branch: Branch) -> int:
        """Return the segment for the next item: the branch's own if the branch ends at its tip."""
        segment_id: int | None = branch.segment_id
        if segment_id is not None and branch_tree.end(self.tx, segment_id) == branch.length:
            return segment_id
        self.tx.execute(
            branch_tree.INSERT_SEGMENT,
            (recorded.position, recorded.session_id, segment_id, branch.length),
        )
        self.tx.cache[branch_tree.Known].parents[recorded.position] = branch.pointer
        return recorded.position

    def item_popped(self, recorded: RecordedEvent, session: Session) -> None:
        event, branch_id = recorded.event, recorded.branch_id or MAIN
        self.write_items()
        branch = self.branch(recorded, branch_id, grows=True)
        end = branch.pointer
        newest, before = branch_tree.tail(self.tx, end)
        if not isinstance(event, ItemPopped) or newest is None or newest.ref != event.item:
            return
        branch.updated_at = recorded.occurred_at
        if before is None:  # it was the first of its segment
            self.cut(session, self.branch(recorded, branch_id), end.length - 1)
            return
        branch.move(Pointer(end.segment_id, end.length - 1), before.turn)
        self.write_branches()
        if branch_tree.drop_newest(self.tx, end):
            session.item_count -= 1
            session.turn_count -= newest.type == item_kind.USER

    def items_replaced(self, recorded: RecordedEvent, session: Session) -> None:
        self.write()
        event = recorded.event
        branch = self.live_branch(recorded, recorded.branch_id or MAIN, session)
        if isinstance(event, ItemsReplaced):
            if event.first_item is None:
                self.cut(session, branch, 0)
            else:
                first = branch_tree.find(self.tx, branch.pointer, event.first_item)
                if first is not None:
                    self.cut(session, branch, first.length - 1)
        self.extend(recorded, session, branch)

    def turn_undone(self, recorded: RecordedEvent, session: Session) -> None:
        event = recorded.event
        if not isinstance(event, TurnUndone) or not event.removed:
            return
        self.write()
        branch = self.branch(recorded, recorded.branch_id or MAIN)
        first = branch_tree.find(self.tx, branch.pointer, event.removed[0])
        if first is not None:
            branch.updated_at = recorded.occurred_at
            self.cut(session, branch, first.length - 1)

    def branch_created(self, recorded: RecordedEvent, session: Session) -> None:
        event = recorded.event
        if not isinstance(event, BranchCreated):
            return
        source = self.branch(recorded, event.from_branch_id)
        if event.from_branch_id == MAIN and not source.is_live:
            self.live_branch(recorded, MAIN, session)
        self.write()
        pointer = _pointer_to(self.tx, source.pointer, event.last_item)
        branch = self.live_branch(recorded, event.branch_id, session)
        before = branch.pointer
        branch.move(pointer, branch_tree.turn_at(self.tx, pointer))
        branch.is_generated = int(event.generated)
        branch.from_branch_id = event.from_branch_id
        session.branch_id = event.branch_id
        self.trim(session, before)

    def branch_switched(self, recorded: RecordedEvent, session: Session) -> None:
        if isinstance(recorded.event, BranchSwitched):
            session.branch_id = recorded.event.branch_id

    def branch_deleted(self, recorded: RecordedEvent, session: Session) -> None:
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

    def session_cleared(self, recorded: RecordedEvent, session: Session) -> None:
        self.empty(recorded, session)
        session.cleared_version, session.cleared_at = recorded.version, recorded.occurred_at
        if isinstance(recorded.event, SessionCleared) and recorded.event.expired:
            session.is_filled, session.expired_version = 0, recorded.version

    def expiry_set(self, recorded: RecordedEvent, session: Session) -> None:
        """Note when the session expires; the time at which it was last used stays."""
        event = recorded.event
        if isinstance(event, ExpirySet):
            seconds = event.expires_after_seconds
            session.expires_after = None if seconds is None else seconds * MICROSECONDS
            self.sessions[recorded.session_id] = True

    def session_deleted(self, recorded: RecordedEvent, session: Session) -> None:
        session.deleted_at = recorded.occurred_at

    def session_restored(self, recorded: RecordedEvent, session: Session) -> None:
        session.deleted_at = None

    def metadata_set(self, recorded: RecordedEvent, session: Session) -> None:
        event = recorded.event
        if isinstance(event, MetadataSet):
            session.user_id, session.metadata = labels.stored_after(
                session.user_id, session.metadata, recorded, event
            )
            if event.metadata is not None:
                leaves = labels.leaves(recorded, event.metadata)
                metadata_index.set_leaves(self.tx, recorded.session_id, leaves)

    def content_erased(self, recorded: RecordedEvent) -> None:
        """Empty a session that was erased as a whole; else it is about payloads, and none is kept here."""
        event = recorded.event
        found = session(self.tx, recorded.session_id)
        if found is None or not isinstance(event, ContentErased):
            return
        if event.expired_version is not None and event.expired_version == found.expired_version:
            found.expired_version = None
            self.sessions[recorded.session_id] = True
        if event.is_whole:
            self.empty(recorded, found)
            found.user_id, found.metadata = event.pseudonym, None
            metadata_index.set_leaves(self.tx, recorded.session_id, ())
            found.erased_at = recorded.occurred_at
            found.is_filled, found.expired_version = 0, None

    def session_forked(self, recorded: RecordedEvent, session: Session) -> None:
        event = recorded.event
        if not isinstance(event, SessionForked):
            return
        self.write_items()
        branch = self.branch(recorded, recorded.branch_id or MAIN)
        newest = branch_tree.newest(self.tx, branch.pointer)
        last = None if newest is None else newest.ref
        is_forked = last is not None and last.position < (branch.segment_id or 0)
        if forks.fits(event, recorded.version, last, is_last_forked=is_forked):
            branch = self.live_branch(recorded, recorded.branch_id or MAIN, session)
            self.put(recorded, session, branch, forks.items(event))
            forks.put(self.tx, recorded.session_id, event)

    def item_redacted(self, recorded: RecordedEvent) -> None:
        """Remember whose content replaces that of an event; the item keeps its place, type and tool."""
        event = recorded.event
        if isinstance(event, ItemRedacted | ItemsWithheld):
            redactions.put(self.tx, recorded.position, event)

    # -- cutting ------------------------------------------------------------------------------

    def empty(self, recorded: RecordedEvent, session: Session) -> None:
        """Take everything off all branches, and end them; their ids stay taken."""
        self.write()
        self.sessions[recorded.session_id] = True
        branch_tree.delete_all(self.tx, recorded.session_id)
        for (branch_id,) in self.tx.all(BRANCH_IDS, (recorded.session_id,)):
            branch = self.branch(recorded, branch_id)
            branch.is_live = 0
            branch.move(Pointer(None, 0), 0)
        session.item_count = session.turn_count = session.branch_count = 0
        session.branch_id = MAIN

    def cut(self, session: Session, branch: Branch, length: int) -> None:
        """Shorten a branch; items that no branch reaches any more go."""
        before = branch.pointer
        pointer = branch_tree.at_length(self.tx, before, length)
        branch.move(pointer, branch_tree.turn_at(self.tx, pointer))
        self.trim(session, before)

    def trim(self, session: Session, pointer: Pointer) -> None:
        """Remove the items after a pointer's old place that no branch reaches any more."""
        if pointer.segment_id is None:
            return
        self.write()
        items, turns = branch_tree.trim(self.tx, pointer.segment_id)
        session.item_count -= items
        session.turn_count -= turns


def _pointer_to(tx: Transaction, source: Pointer, item: ItemRef | None) -> Pointer:
    found = None if item is None else branch_tree.find(tx, source, item)
    return found or Pointer(None, 0)


CONTENT_ERASED: Final = ContentErased.type_name()
REDACTING: Final = {ItemRedacted.type_name(), ItemsWithheld.type_name()}
USAGE_RECORDED: Final = UsageRecorded.type_name()
EXPIRY_SET: Final = ExpirySet.type_name()
_GROWTH: Final = {kind.type_name() for kind in (ItemsAdded, ItemPopped, HistoryImported)}
"""What changes no more of a session than its counts, and the time of its last change."""
_HANDLERS: Final[dict[str, Callable[[_Batch, RecordedEvent, Session], None]]] = {
    ItemsAdded.type_name(): _Batch.items_added,
    ItemPopped.type_name(): _Batch.item_popped,
    ItemsReplaced.type_name(): _Batch.items_replaced,
    TurnUndone.type_name(): _Batch.turn_undone,
    TurnRedone.type_name(): _Batch.items_added,
    BranchCreated.type_name(): _Batch.branch_created,
    BranchSwitched.type_name(): _Batch.branch_switched,
    BranchDeleted.type_name(): _Batch.branch_deleted,
    SessionCleared.type_name(): _Batch.session_cleared,
    SessionDeleted.type_name(): _Batch.session_deleted,
    SessionRestored.type_name(): _Batch.session_restored,
    MetadataSet.type_name(): _Batch.metadata_set,
    SessionForked.type_name(): _Batch.session_forked,
}
