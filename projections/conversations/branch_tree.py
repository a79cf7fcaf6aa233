"""
Segments and items: where the items of a branch are, and how to find them.

A pointer (segment, length) names a place in a branch: its segment holds item number ``length``. The empty
place is (None, 0). In any branch the items ascend by (position, index), so an item is found by bisection.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from agents_eventlog.eventlog.errors import ProjectionError
from agents_eventlog.eventlog.events import ItemRef
from agents_eventlog.eventlog.storage.transaction import Insert, Transaction

SEGMENTS = """
    CREATE TABLE segments (
        segment_id        INTEGER NOT NULL PRIMARY KEY,
        session_id        TEXT    NOT NULL,
        parent_segment_id INTEGER,
        parent_length     INTEGER NOT NULL
    )
"""
SEGMENTS_OF_SESSION = "CREATE INDEX segments_of_session ON segments (session_id)"
SEGMENTS_OF_PARENT = """
    CREATE INDEX segments_of_parent ON segments (parent_segment_id, parent_length)
    WHERE parent_segment_id IS NOT NULL
"""
ITEMS = """
    CREATE TABLE items (
        segment_id     INTEGER NOT NULL,
        number         INTEGER NOT NULL,
        position       INTEGER NOT NULL,
        index_in_event INTEGER NOT NULL,
        type           TEXT    NOT NULL,
        tool_name      TEXT,
        is_tool_call   INTEGER NOT NULL,
        turn           INTEGER NOT NULL,
        PRIMARY KEY (segment_id, number)
    )
"""
# A covering index for queries on user items. Turns are numbered from 1, so "turn > 0" excludes nothing; it
# makes SQLite choose this index.
TURNS = """
    CREATE INDEX turns ON items (segment_id, turn, number, position, index_in_event, type)
    WHERE type = 'user'
"""
SCHEMA = (SEGMENTS, SEGMENTS_OF_SESSION, SEGMENTS_OF_PARENT, ITEMS, TURNS)

INSERT_SEGMENT = """
    INSERT INTO segments (segment_id, session_id, parent_segment_id, parent_length)
    VALUES (?, ?, ?, ?)
"""
INSERT_ITEM = Insert(
    "items",
    (
        *("segment_id", "number", "position", "index_in_event"),
        *("type", "tool_name", "is_tool_call", "turn"),
    ),
)
SELECT_PARENT = "SELECT parent_segment_id, parent_length FROM segments WHERE segment_id = ?"
SELECT_TAIL = """
    SELECT number, position, index_in_event, turn, type FROM items
    WHERE segment_id = ? AND number BETWEEN ? - 1 AND ?
"""
SELECT_END = "SELECT MAX(number) FROM items WHERE segment_id = ?"
SELECT_ITEM = """
    SELECT position, index_in_event, turn, type FROM items WHERE segment_id = ? AND number = ?
"""
SELECT_REACH = """
    SELECT MAX(reach) FROM (
        SELECT MAX(length) AS reach FROM branches WHERE segment_id = ?
        UNION ALL
        SELECT MAX(parent_length) FROM segments WHERE parent_segment_id = ?
        UNION ALL
        SELECT ?
    ) AS reaches
"""
SELECT_TURN_NUMBER = """
    SELECT MIN(number) FROM items
    WHERE segment_id = ? AND turn = ? AND type = 'user' AND number <= ?
"""
COUNT_BEYOND = """
    SELECT COUNT(*), COUNT(CASE WHEN type = 'user' THEN 1 END)
    FROM items
    WHERE segment_id = ? AND number > ?
"""
DELETE_UNREACHED = """
    DELETE FROM items
    WHERE segment_id = ? AND number = ?
        AND NOT EXISTS (SELECT 1 FROM branches WHERE segment_id = ? AND length >= ?)
        AND NOT EXISTS (SELECT 1 FROM segments WHERE parent_segment_id = ? AND parent_length >= ?)
"""
DELETE_BEYOND = "DELETE FROM items WHERE segment_id = ? AND number > ?"
DELETE_SEGMENT = "DELETE FROM segments WHERE segment_id = ?"
DELETE_ITEMS_OF_SESSION = """
    DELETE FROM items
    WHERE segment_id IN (SELECT segment_id FROM segments WHERE session_id = ?)
"""
DELETE_SEGMENTS_OF_SESSION = "DELETE FROM segments WHERE session_id = ?"


class Pointer(NamedTuple):
    """A place in a branch: the segment that holds item number ``length``."""

    segment_id: int | None
    length: int


class Span(NamedTuple):
    """A segment's part of a branch: the items numbered ``first`` to ``last`` in that segment."""

    segment_id: int
    first: int
    last: int


class Item(NamedTuple):
    """An item's row: which it is, and its turn."""

    ref: ItemRef
    turn: int
    type: str


@dataclass
class Known:
    """
    What is remembered of segments, by their ids: parents, last numbers, and last items.

    redactions_exist: whether the log has a redaction; None if that is not known yet.
    """

    parents: dict[int, Pointer] = field(default_factory=dict)
    ends: dict[int, int] = field(default_factory=dict)
    tails: dict[int | None, tuple[int, Item | None, Item | None]] = field(default_factory=dict)
    redactions_exist: bool | None = None

    def __len__(self) -> int:
        return len(self.parents) + len(self.ends) + len(self.tails)


def spans(tx: Transaction, pointer: Pointer) -> Iterator[Span]:
    """Walk a branch from its end to its beginning, segment by segment."""
    segment_id, length = pointer
    while segment_id is not None:
        origin = parent(tx, segment_id)
        if origin is None:
            return
        yield Span(segment_id, origin.length + 1, length)
        segment_id, length = origin


def parent(tx: Transaction, segment_id: int) -> Pointer | None:
    """Return where a segment leaves its parent, from the transaction's cache if possible."""
    parents = tx.cache[Known].parents
    found = parents.get(segment_id)
    if found is None and (row := tx.one(SELECT_PARENT, (segment_id,))):
        found = parents[segment_id] = Pointer(*row)
    if found is not None:
        check_parent(segment_id, found.segment_id)
    return found


def check_parent(segment_id: int, parent_id: int | None) -> None:
    """Raise ProjectionError unless a segment's parent is older: a walk along others might not end."""
    if parent_id is not None and parent_id >= segment_id:
        raise ProjectionError(
            f"segment {segment_id} has a parent that is not older: `eventlog replay` rebuilds the tables",
            projection="conversations",
        )


def end(tx: Transaction, segment_id: int) -> int | None:
    """Return the number of a segment's last item, from the transaction's cache if possible."""
    last = tx.cache[Known].ends.get(segment_id)
    if last is None:
        (last,) = tx.execute(SELECT_END, (segment_id,)).fetchone()
    return last


def newest(tx: Transaction, pointer: Pointer) -> Item | None:
    """Return the item at a pointer; None at the empty place."""
    row = tx.one(SELECT_ITEM, pointer)
    return None if row is None else _item(*row)


def tail(tx: Transaction, pointer: Pointer) -> tuple[Item | None, Item | None]:
    """
    Return the item at a pointer, and the one before it in the same segment.

    Read from the transaction's cache if possible.
    """
    tails = tx.cache[Known].tails
    known = tails.get(pointer.segment_id)
    if known is None or known[0] != pointer.length:
        found = tx.all(SELECT_TAIL, (*pointer, pointer.length))
        items = {number: _item(*row) for number, *row in found}
        known = pointer.length, items.get(pointer.length), items.get(pointer.length - 1)
        tails[pointer.segment_id] = known
    return known[1:]


def drop_newest(tx: Transaction, pointer: Pointer) -> bool:
    """Remove the item at a pointer, unless a branch or a child segment reaches it."""
    segment_id, number = pointer
    dropped = tx.execute(DELETE_UNREACHED, pointer * 3).rowcount > 0
    if dropped and segment_id is not None:
        _remember_end(tx, segment_id, number - 1)
    return dropped


def turn_at(tx: Transaction, pointer: Pointer) -> int:
    """Return the turn of the item at a pointer; 0 at the empty place."""
    item = newest(tx, pointer)
    return 0 if item is None else item.turn


def at_length(tx: Transaction, pointer: Pointer, length: int) -> Pointer:
    """Return the place in the same branch after its first ``length`` items."""
    for span in spans(tx, pointer):
        if span.first <= length:
            return Pointer(span.segment_id, min(length, span.last))
    return Pointer(None, 0)


def shared_length(tx: Transaction, one: Pointer, other: Pointer) -> int:
    """Return how many items two branches have in common, from the first."""
    length = 0
    pairs = zip([*spans(tx, one)][::-1], [*spans(tx, other)][::-1], strict=False)
    for mine, theirs in pairs:
        if mine.segment_id != theirs.segment_id:
            break
        length = min(mine.last, theirs.last)
        if mine.last != theirs.last:
            break
    return length


def find(tx: Transaction, pointer: Pointer, ref: ItemRef) -> Pointer | None:
    """Return the place of an item in a branch, or None. Takes O(log items)."""
    for span in spans(tx, pointer):
        number, item = within(tx, span, ref)
        if item is not None:
            return Pointer(span.segment_id, number)
        if number > span.first:
            return None  # it would be in this span
    return None


def within(tx: Transaction, span: Span, ref: ItemRef) -> tuple[int, Item | None]:
    """Return an item's number in a span and its row; without the item in the span, the row is null."""
    low, high = span.first, span.last
    while low <= high:
        middle = (low + high) // 2
        row = tx.one(SELECT_ITEM, (span.segment_id, middle))
        if row is None:
            break  # the table is not as the builder made it
        item = _item(*row)
        if item.ref < ref:
            low = middle + 1
        elif item.ref > ref:
            high = middle - 1
        else:
            return middle, item
    return low, None


def before_turn(tx: Transaction, pointer: Pointer, turn: int) -> Pointer | None:
    """Return the place before the user item that opens a turn; None if the branch has no such turn."""
    for span in spans(tx, pointer):
        row = tx.one(SELECT_TURN_NUMBER, (span.segment_id, turn, span.last))
        if row is not None and row[0] is not None:
            return at_length(tx, pointer, row[0] - 1)
    return None


def trim(tx: Transaction, segment_id: int | None) -> tuple[int, int]:
    """
    Remove what neither a branch nor a child segment reaches, up through the parents.

    Returns how many items went, and how many of them opened a turn.
    """
    items = turns = 0
    while segment_id is not None:
        origin = parent(tx, segment_id)
        if origin is None:
            break
        (reach,) = tx.execute(SELECT_REACH, (segment_id, segment_id, origin.length)).fetchone()
        beyond, opening = tx.execute(COUNT_BEYOND, (segment_id, reach)).fetchone()
        if beyond:
            items, turns = items + beyond, turns + opening
            tx.execute(DELETE_BEYOND, (segment_id, reach))
            _remember_end(tx, segment_id, reach)
        if reach > origin.length:
            break
        tx.execute(DELETE_SEGMENT, (segment_id,))
        segment_id = origin.segment_id
    return items, turns


def _item(position: int, index: int, turn: int, kind: str) -> Item:
    return Item(ItemRef(position, index), turn, kind)


def _remember_end(tx: Transaction, segment_id: int, last: int) -> None:
    """Remember where a segment ends now that items went off it."""
    known = tx.cache[Known]
    known.ends[segment_id] = last
    known.tails.pop(segment_id, None)


def delete_all(tx: Transaction, session_id: str) -> None:
    """Remove all items and segments of a session."""
    tx.execute(DELETE_ITEMS_OF_SESSION, (session_id,))
    tx.execute(DELETE_SEGMENTS_OF_SESSION, (session_id,))
