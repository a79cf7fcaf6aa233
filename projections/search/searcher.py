"""
Finding items by what they say and what they are, in one session or in all, the newest first.

The log is walked from its newest event to its oldest, through the full-text index or by a scan (see
``walking``); what is found is the same on each way.

A find goes in steps: ``look`` is a unit of work that reads a bounded part of the log and changes nothing,
``take`` keeps what it saw. Others may write between two steps.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator
from typing import NamedTuple

from agents_eventlog.eventlog import codec, payloads
from agents_eventlog.eventlog.errors import InvalidQueryError
from agents_eventlog.eventlog.events import JSON, ItemRef
from agents_eventlog.eventlog.recorded_event import occurred_at
from agents_eventlog.eventlog.storage.transaction import Transaction
from agents_eventlog.projections.conversations import branch_tree, item_kind
from agents_eventlog.projections.conversations import builder as conversations
from agents_eventlog.projections.conversations.branch_tree import Span
from agents_eventlog.projections.conversations.item_kind import Shape
from agents_eventlog.projections.search import plan
from agents_eventlog.projections.search import text as search_text
from agents_eventlog.projections.search.plan import Leg
from agents_eventlog.projections.search.text import Snippet

EVENT = """
    events AS e WHERE e.position = ? AND e.type IN ('items_added', 'items_replaced')
"""
EVENT_COLUMNS = "e.session_id, e.branch_id, e.recorded_at, e.metadata"
LIVE_BRANCHES = """
    SELECT branch_id, segment_id, length FROM branches
    WHERE session_id = ? AND is_live = 1
    ORDER BY created_position, branch_id <> 'main', branch_id
"""
SEGMENTS = """
    SELECT s.segment_id, s.parent_segment_id, s.parent_length, i.number, i.position
    FROM segments AS s
    JOIN items AS i ON i.segment_id = s.segment_id
        AND i.number = (SELECT MAX(number) FROM items WHERE segment_id = s.segment_id)
    WHERE s.session_id = ?
    ORDER BY s.segment_id
"""
_CURSOR = re.compile(r"(\d{1,18})-(\d{1,18})", re.ASCII)


class Sought(NamedTuple):
    """
    Which items are sought; None does not matter. Times in microseconds since 1970 UTC.

    text: stands in one of the item's texts, literally, in either case of letters.
    type, tool_name: as ``projections.conversations.item_kind`` tells them; role: a message's own.
    branch_id: a live branch that it stands on.
    since, until: when it was said, ``until`` exclusive.
    """

    text: str | None = None
    type: str | None = None
    tool_name: str | None = None
    role: str | None = None
    session_id: str | None = None
    user_id: str | None = None
    branch_id: str | None = None
    since: int | None = None
    until: int | None = None


class Hit(NamedTuple):
    """An item that was sought, and the live branches that it stands on, in the order they were made."""

    session_id: str
    branch_ids: tuple[str, ...]
    turn: int
    ref: ItemRef
    shape: Shape
    item: JSON
    snippet: Snippet
    occurred_at: int


def cursor(ref: ItemRef) -> str:
    """Return the place behind an item as text for ``after``."""
    return f"{ref.position}-{ref.index}"


def parse_cursor(text: object) -> ItemRef:
    """Read what ``cursor`` wrote. Raises InvalidQueryError."""
    found = _CURSOR.fullmatch(text) if isinstance(text, str) else None
    if found is None:
        raise InvalidQueryError(f"invalid after: expected a result's cursor, got {text!r}"[:200])
    return ItemRef(int(found[1]), int(found[2]))


class Looked(NamedTuple):
    """What a step saw: hits, the newest first; the legs that are left; how many events it scanned."""

    hits: list[Hit]
    legs: tuple[Leg, ...]
    indexed: bool
    scanned: int


class Finder:
    """
    A find under way: ``while finder.take(read(finder.look)): pass``, then ``hits`` are complete.

    limit: maximum number of hits; None for all.
    after: the cursor of a hit, to resume behind it. Raises InvalidQueryError for an invalid one.

    ``indexed`` is whether the full-text index is asked; ``scanned`` is how many events were read
    without it.
    """

    def __init__(self, sought: Sought, *, limit: int | None, after: object = None) -> None:
        self.hits: list[Hit] = []
        self.scanned = 0
        self.indexed = False
        text = None if sought.text is None else search_text.as_stored(sought.text)
        self._sought = sought._replace(text=text)
        self._needle = None if text is None else search_text.folded(text)
        self._limit = limit
        self._after = None if after is None else parse_cursor(after)
        self._legs: tuple[Leg, ...] | None = None

    # -- in a unit of work --------------------------------------------------------------------

    def look(self, tx: Transaction) -> Looked:
        """Read the next part of the log."""
        legs, indexed = self._legs, self.indexed
        if legs is None:
            sought, last = self._sought, None if self._after is None else self._after.position
            legs, indexed = plan.plan(tx, sought.text, sought.session_id, sought.user_id, last)
        step = legs[0].step(tx)
        live = Live(tx)
        hits = [hit for position in step.positions for hit in self._hits(tx, live, position)]
        rest = legs[1:] if step.rest is None else (step.rest, *legs[1:])
        return Looked(hits, rest, indexed, step.scanned)

    def _hits(self, tx: Transaction, live: Live, position: int) -> Iterator[Hit]:
        """Return the hits of an event, the newest first."""
        row = next(payloads.stored(tx, EVENT, (position,), columns=EVENT_COLUMNS), None)
        if row is None or row[-1] is None:
            return  # erased
        session_id, branch_id, recorded_at, metadata, *stored = row
        time = occurred_at(recorded_at, metadata, position)
        if not self._is_asked_for(tx, session_id, time):
            return
        items = codec.decode_items([tuple(stored)])[0]
        for index in range(len(items) - 1, -1, -1):
            ref, item = ItemRef(position, index), items[index]
            if self._after is not None and ref >= self._after:
                continue
            said = self._said(item)
            place = None if said is None else live.place(session_id, branch_id, ref)
            if said is None or place is None:
                continue
            (kind, snippet), (turn, branch_ids) = said, place
            if self._sought.branch_id in (None, *branch_ids):
                yield Hit(session_id, branch_ids, turn, ref, kind, item, snippet, time)

    def _is_asked_for(self, tx: Transaction, session_id: str, time: int) -> bool:
        sought = self._sought
        if sought.session_id not in (None, session_id):
            return False
        if sought.since is not None and time < sought.since:
            return False
        if sought.until is not None and time >= sought.until:
            return False
        session = conversations.session(tx, session_id)
        if session is None or session.deleted_at is not None:
            return False
        return sought.user_id in (None, session.user_id)

    def _said(self, item: JSON) -> tuple[Shape, Snippet] | None:
        """Return what an item is and where it says what is sought; None if it is not sought."""
        sought, kind = self._sought, item_kind.shape(item)
        if sought.type not in (None, kind.type) or sought.tool_name not in (None, kind.tool_name):
            return None
        if sought.role is not None and (
            not isinstance(item, dict) or item.get("role") != sought.role
        ):
            return None
        readable, needle = search_text.texts(item), self._needle
        if needle is None:
            return kind, search_text.snippet(readable[0] if readable else "", "")
        found = next((text for text in readable if needle in search_text.folded(text)), None)
        return None if found is None else (kind, search_text.snippet(found, needle))

    # -- between them -------------------------------------------------------------------------

    def take(self, looked: Looked) -> bool:
        """Keep what a step saw; return whether there is more to look at."""
        self._legs, self.indexed = looked.legs, looked.indexed
        self.scanned += looked.scanned
        self.hits += looked.hits
        if self._limit is None:
            return bool(looked.legs)
        del self.hits[self._limit :]
        return bool(looked.legs) and len(self.hits) < self._limit


class Live:
    """Where items stand on live branches; the segments of each session are read once."""

    def __init__(self, tx: Transaction) -> None:
        self._tx = tx
        self._trees: dict[str, Tree] = {}

    def place(
        self, session_id: str, branch_id: str | None, ref: ItemRef
    ) -> tuple[int, tuple[str, ...]] | None:
        """
        Return an item's turn, and the ids of the branches that it is on; None if it is on none.

        branch_id: the branch that the item was added to.
        """
        tree = self._trees.get(session_id)
        if tree is None:
            tree = self._trees[session_id] = Tree(self._tx, session_id)
        for span in tree.candidates(branch_id, ref.position):
            number, item = branch_tree.within(self._tx, span, ref)
            if item is not None:
                branch_ids = tree.branches(span.segment_id, number)
                return (item.turn, branch_ids) if branch_ids else None
        return None


class Tree:
    """
    A session's segments and live branches, read by two statements, however many there are.

    To walk each branch from its end instead takes time in the square of the branches where each leaves
    the one before.
    """

    def __init__(self, tx: Transaction, session_id: str) -> None:
        self._spans: dict[int, Span] = {}
        self._newest: dict[int, int] = {}  # the position of each segment's last item
        self._parents: dict[int, int | None] = {}
        self._children: dict[int, list[tuple[int, int]]] = {}  # and at which length they leave
        self._ends: dict[int, list[tuple[int, int, str]]] = {}  # length, order, branch
        self._own: dict[str, int] = {}  # the segment in which each branch ends
        for segment_id, parent_id, parent_length, last, newest in tx.all(SEGMENTS, (session_id,)):
            branch_tree.check_parent(segment_id, parent_id)
            self._spans[segment_id] = Span(segment_id, parent_length + 1, last)
            self._newest[segment_id] = newest
            self._parents[segment_id] = parent_id
            if parent_id is not None:
                leaving = self._children.setdefault(parent_id, [])
                leaving.append((segment_id, parent_length))
        self._ids = [*self._spans]  # ascending
        for order, (branch_id, end, length) in enumerate(tx.execute(LIVE_BRANCHES, (session_id,))):
            if end is not None:
                self._ends.setdefault(end, []).append((length, order, branch_id))
                self._own[branch_id] = end

    def candidates(self, branch_id: str | None, position: int) -> Iterator[Span]:
        """
        Return where the items of an event can stand, the likeliest place first.

        A segment's id is the position of the event that began it.
        """
        own = self._own.get(branch_id or conversations.MAIN)
        while own is not None and own > position:
            own = self._parents.get(own)
        if own in self._spans:
            yield self._spans[own]
        # They are not there if the branch popped them, or is no longer live, but another one has them.
        for at in range(bisect_right(self._ids, position) - 1, -1, -1):
            segment_id = self._ids[at]
            if segment_id != own and self._newest[segment_id] >= position:
                yield self._spans[segment_id]

    def branches(self, segment_id: int, number: int) -> tuple[str, ...]:
        """Return the live branches that hold an item of a segment, in the order they were made."""
        found: list[tuple[int, str]] = []
        reaching = [(segment_id, number)]
        while reaching:
            segment_id, number = reaching.pop()
            found += [
                (order, branch_id)
                for length, order, branch_id in self._ends.get(segment_id, ())
                if length >= number
            ]
            reaching += [
                (child, 0)  # whoever ends in or below a child holds it
                for child, length in self._children.get(segment_id, ())
                if length >= number
            ]
        return tuple(branch_id for _, branch_id in sorted(found))
