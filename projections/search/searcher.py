"""
Search for items by text and kind, in one session or in all, the newest first.

A search reads the log from its newest event to its oldest, by the full-text index or by a scan (see
``plan``); both find the same items.

It works in batches: ``read_batch`` is a unit of work that reads a bounded part of the log and changes
nothing, ``collect`` keeps its result. Others may write between two batches.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator
from typing import NamedTuple

from agents_eventlog.eventlog import codec, item_kind, payloads
from agents_eventlog.eventlog.errors import InvalidQueryError
from agents_eventlog.eventlog.events import ITEM_EVENT_NAMES, JSON, ItemRef
from agents_eventlog.eventlog.item_kind import ItemKind
from agents_eventlog.eventlog.recorded_event import occurred_at
from agents_eventlog.eventlog.storage.transaction import Transaction
from agents_eventlog.projections.conversations import branch_tree, forks, labels, redactions
from agents_eventlog.projections.conversations import builder as conversations
from agents_eventlog.projections.conversations.branch_tree import Span
from agents_eventlog.projections.search import plan
from agents_eventlog.projections.search import text as search_text
from agents_eventlog.projections.search.plan import Stage
from agents_eventlog.projections.search.text import Snippet

EVENT = f"""
    events AS {{o}} {{join}} WHERE {{o}}.position = ? AND {{o}}.type IN ({ITEM_EVENT_NAMES})
"""
EVENT_COLUMNS = "{o}.session_id, {o}.branch_id, {o}.recorded_at, {o}.metadata"
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


class ItemQuery(NamedTuple):
    """
    Filters for items; None does not filter. Times in microseconds since 1970 UTC.

    text: a literal, case-insensitive substring of one of the item's texts.
    type, tool_name: as ``eventlog.item_kind`` classifies them; role: a message's own.
    branch_id: a live branch that holds the item; for a removed one, the branch that it was added to.
    since, until: when it was said, ``until`` exclusive.
    include_removed: whether to find items on no live branch, and those of deleted sessions, too.
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
    include_removed: bool = False


class Hit(NamedTuple):
    """
    A matching item, and the live branches that hold it, in the order of their creation.

    added_on: the branch that the item was added to.
    is_active: whether a live branch of a session that is not deleted holds it; a removed item has no turn.
    """

    session_id: str
    added_on: str | None
    branch_ids: tuple[str, ...]
    is_active: bool
    turn: int | None
    ref: ItemRef
    kind: ItemKind
    snippet: Snippet
    item: JSON
    occurred_at: int


def cursor(ref: ItemRef) -> str:
    """Return the place after an item as text for ``after``."""
    return f"{ref.position}-{ref.index}"


def parse_cursor(text: object) -> ItemRef:
    """Read what ``cursor`` wrote. Raises InvalidQueryError."""
    found = _CURSOR.fullmatch(text) if isinstance(text, str) else None
    if found is None:
        raise InvalidQueryError(f"invalid after: expected a result's cursor, got {text!r}"[:200])
    return ItemRef(int(found[1]), int(found[2]))


class SearchedBatch(NamedTuple):
    """The result of a batch: hits, the newest first; the remaining stages; the number of events scanned."""

    hits: list[Hit]
    stages: tuple[Stage, ...]
    indexed: bool
    scanned: int


class Searcher:
    """
    A running search: ``while searcher.collect(read(searcher.read_batch)): pass`` completes ``hits``.

    limit: maximum number of hits; None for all.
    after: the cursor of a hit, to resume after it. Raises InvalidQueryError for an invalid one.

    ``indexed`` is whether the full-text index is used; ``scanned`` is how many events were read
    without it.
    """

    def __init__(self, query: ItemQuery, *, limit: int | None, after: object = None) -> None:
        self.hits: list[Hit] = []
        self.scanned = 0
        self.indexed = False
        text = None if query.text is None else search_text.as_stored(query.text)
        self._query = query._replace(text=text)
        self._needle = None if text is None else search_text.folded(text)
        self._limit = limit
        self._after = None if after is None else parse_cursor(after)
        self._stages: tuple[Stage, ...] | None = None

    # -- in a unit of work --------------------------------------------------------------------

    def read_batch(self, tx: Transaction) -> SearchedBatch:
        """Read the next part of the log."""
        stages, indexed = self._stages, self.indexed
        if stages is None:
            query, last = self._query, None if self._after is None else self._after.position
            stages, indexed = plan.plan(tx, query.text, query.session_id, query.user_id, last)
        batch = stages[0].read(tx)
        live = Live(tx)
        hits = [hit for position in batch.positions for hit in self._hits(tx, live, position)]
        rest = stages[1:] if batch.rest is None else (batch.rest, *stages[1:])
        return SearchedBatch(hits, rest, indexed, batch.scanned)

    def _hits(self, tx: Transaction, live: Live, position: int) -> Iterator[Hit]:
        """
        Return the hits of an event, the newest first.

        An item is one hit: of the session that it was added to, or else of the first fork that has it.
        """
        source, columns = redactions.present(tx, EVENT), redactions.present(tx, EVENT_COLUMNS)
        row = next(payloads.stored(tx, source, (position,), columns=columns), None)
        if row is None or row[-1] is None:
            return  # erased
        owner, added_on, recorded_at, metadata, *stored = row
        time = occurred_at(recorded_at, metadata, position)
        names = (owner, *live.forks(owner))
        holders = [(name, each) for name in names if (each := self._session(tx, name, time))]
        if not holders:
            return
        items = codec.decode_items([tuple(stored)])[0]
        for index in range(len(items) - 1, -1, -1):
            ref, item = ItemRef(position, index), items[index]
            if self._after is not None and ref >= self._after:
                continue
            said = self._match(item)
            if said is None:
                continue
            for session_id, session in holders:
                branch_id = added_on if session_id == owner else None
                place = live.place(session_id, branch_id, ref, is_forked=session_id != owner)
                if place is None and not (self._query.include_removed and session_id == owner):
                    continue
                turn, branch_ids = place or (None, ())
                if self._query.branch_id in (None, *(branch_ids or (branch_id,))):
                    is_active = (
                        bool(branch_ids)
                        and session.deleted_at is None
                        and not session.is_expired(tx.now)
                    )
                    told = (session_id, branch_id, branch_ids, is_active, turn, ref)
                    yield Hit(*told, *said, item, time)
                    break

    def _session(self, tx: Transaction, session_id: str, time: int) -> conversations.Session | None:
        """Return the session of an event; None if the event's session or time does not match."""
        query = self._query
        if query.session_id not in (None, session_id):
            return None
        if query.since is not None and time < query.since:
            return None
        if query.until is not None and time >= query.until:
            return None
        session = conversations.session(tx, session_id)
        if session is None:
            return None
        is_active = session.deleted_at is None and not session.is_expired(tx.now)
        if not (is_active or query.include_removed):
            return None
        if query.user_id is not None and not labels.is_of(tx, session.user_id, query.user_id):
            return None
        return session

    def _match(self, item: JSON) -> tuple[ItemKind, Snippet] | None:
        """Return an item's kind and the snippet that matches; None if the item does not match."""
        query, kind = self._query, item_kind.classify(item)
        if query.type not in (None, kind.type) or query.tool_name not in (None, kind.tool_name):
            return None
        if query.role is not None and (
            not isinstance(item, dict) or item.get("role") != query.role
        ):
            return None
        readable, needle = search_text.texts(item), self._needle
        if needle is None:
            return kind, search_text.snippet(readable[0] if readable else "", "")
        found = next((text for text in readable if needle in search_text.folded(text)), None)
        return None if found is None else (kind, search_text.snippet(found, needle))

    # -- between them -------------------------------------------------------------------------

    def collect(self, searched: SearchedBatch) -> bool:
        """Keep the result of a batch; return whether more batches follow."""
        self._stages, self.indexed = searched.stages, searched.indexed
        self.scanned += searched.scanned
        self.hits += searched.hits
        if self._limit is None:
            return bool(searched.stages)
        del self.hits[self._limit :]
        return bool(searched.stages) and len(self.hits) < self._limit


class Live:
    """The places of items on live branches; the segments of each session are read once."""

    def __init__(self, tx: Transaction) -> None:
        self._tx = tx
        self._trees: dict[str, Tree] = {}
        self._forks: dict[str, list[str]] = {}

    def forks(self, session_id: str) -> list[str]:
        """Return the sessions that began with items of a session."""
        found = self._forks.get(session_id)
        if found is None:
            found = self._forks[session_id] = forks.of_session(self._tx, session_id)
        return found

    def place(
        self, session_id: str, branch_id: str | None, ref: ItemRef, *, is_forked: bool = False
    ) -> tuple[int, tuple[str, ...]] | None:
        """
        Return an item's turn, and the ids of the branches that it is on; None if it is on none.

        branch_id: the branch that the item was added to.
        is_forked: whether it was added to another session, which this one was forked from.
        """
        tree = self._trees.get(session_id)
        if tree is None:
            tree = self._trees[session_id] = Tree(self._tx, session_id)
        spans = tree.spans() if is_forked else tree.candidates(branch_id, ref.position)
        for span in spans:
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
        Return the spans that can hold the items of an event, the likeliest first.

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

    def spans(self) -> Iterator[Span]:
        """Return the spans of all segments, the first one first."""
        return (self._spans[segment_id] for segment_id in self._ids)

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
                (child, 0)  # each branch that ends in or below a child holds it
                for child, length in self._children.get(segment_id, ())
                if length >= number
            ]
        return tuple(branch_id for _, branch_id in sorted(found))
