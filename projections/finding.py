"""
Finding items by what they say and what they are, in one session or in all.

The log is walked from its newest event to its oldest, on the shortest of several ways (see ``walking``);
what is found is the same on each. Hits come in windows: of the newest so many the best first, then of the
next, so that a search that everything answers costs no more than another.

A find goes in steps: ``look`` is a unit of work that reads a bounded part of the log and changes nothing,
``take`` keeps what it saw. Others may write between two steps.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from eventlog import codec
from eventlog.errors import InvalidQueryError
from eventlog.events import JSON, ItemRef
from eventlog.recorded import occurred_at
from eventlog.transaction import Transaction
from projections import contents, conversations, segments, shape, walking
from projections.contents import Snippet
from projections.segments import Pointer, Span
from projections.shape import Shape
from projections.walking import Leg, Reason

WINDOW_HITS: Final = 100
"""So many of the newest hits, and what else their last event holds, are ranked together."""

WINDOW_BYTES: Final = 8 * 1024 * 1024
"""A window is full, too, when the payloads of its hits make up so much."""

USUAL_CHARACTERS: Final = 400
"""How long an item's texts are taken to be usually, when long ones are ranked behind short ones."""

EVENT = """
    SELECT session_id, type, schema_version, CAST(data AS BLOB), recorded_at, metadata FROM events
    WHERE position = ? AND type IN ('items_added', 'items_replaced')
"""
LIVE_BRANCHES = """
    SELECT branch_id, segment_id, length FROM branches
    WHERE session_id = ? AND is_live = 1
    ORDER BY created_position, branch_id <> 'main', branch_id
"""
_CURSOR = re.compile(r"(\d{1,18})-(\d{1,18})-(\d{1,7})-(\d{1,18})-(\d{1,18})", re.ASCII)


class Sought(NamedTuple):
    """
    Which items are sought; None does not matter. Times in microseconds since 1970 UTC.

    text: stands in one of the item's texts, literally, in either case of letters.
    type, tool_name: as ``projections.shape`` tells them; role: a message's own.
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
    """
    An item that was sought, and the live branches that it stands on, in the order they were made.

    score: how well it fits, from 0 to a million: how often what was sought stands in how much text.
    """

    session_id: str
    branch_ids: tuple[str, ...]
    turn: int
    ref: ItemRef
    shape: Shape
    item: JSON
    snippet: Snippet
    occurred_at: int
    score: int

    @property
    def rank(self) -> tuple[int, int, int]:
        """Where it stands in its window: the best first, of equal ones the newest."""
        return -self.score, -self.ref.position, -self.ref.index


class Cursor(NamedTuple):
    """A place behind a hit: the newest and oldest event of its window, and its rank there."""

    newest: int
    oldest: int
    rank: tuple[int, int, int]

    def __str__(self) -> str:
        return "-".join(str(abs(number)) for number in (self.newest, self.oldest, *self.rank))

    @classmethod
    def parse(cls, text: object) -> Cursor:
        """Read what ``str`` wrote. Raises InvalidQueryError."""
        found = _CURSOR.fullmatch(text) if isinstance(text, str) else None
        if found is None:
            raise InvalidQueryError("after is no cursor of an item that was found")
        newest, oldest, score, position, index = map(int, found.groups())
        return cls(newest, oldest, (-score, -position, -index))


class SearchedEvent(NamedTuple):
    """The hits of one event, the newest first, and how long its payload is."""

    position: int
    hits: list[Hit]
    payload_bytes: int


class Looked(NamedTuple):
    """What a step saw: events with hits, the legs that are left, how many events it scanned."""

    events: list[SearchedEvent]
    legs: tuple[Leg, ...]
    reason: Reason | None
    scanned: int


class Finder:
    """
    A find under way: ``while finder.take(read(finder.look)): pass``, then ``hits`` are complete.

    limit: at most so many hits; None for all.
    after: the cursor of a hit, to go on behind it. Raises InvalidQueryError for what is none.

    ``scanned`` is how many events were gone through without the index; ``reason`` is why none was
    found by it, None if the index was asked.
    """

    def __init__(self, sought: Sought, *, limit: int | None, after: object = None) -> None:
        self.hits: list[tuple[Hit, Cursor]] = []
        self.scanned = 0
        self.reason: Reason | None = None
        text = None if sought.text is None else contents.as_stored(sought.text)
        self._sought = sought._replace(text=text)
        self._needle = None if text is None else contents.folded(text)
        self._limit = limit
        self._after = None if after is None else Cursor.parse(after)
        self._legs: tuple[Leg, ...] | None = None
        self._window: list[Hit] = []
        self._window_bytes = 0

    # -- in a unit of work --------------------------------------------------------------------

    def look(self, tx: Transaction) -> Looked:
        """Read the next part of the log."""
        legs, reason = self._legs, self.reason
        if legs is None:
            sought, last = self._sought, None if self._after is None else self._after.newest
            legs, reason = walking.plan(tx, sought.text, sought.session_id, sought.user_id, last)
        step = legs[0].step(tx)
        live = Live(tx)
        events = [self._event(tx, live, position) for position in step.positions]
        rest = legs[1:] if step.rest is None else (step.rest, *legs[1:])
        return Looked([event for event in events if event.hits], rest, reason, step.scanned)

    def _event(self, tx: Transaction, live: Live, position: int) -> SearchedEvent:
        row = tx.one(EVENT, (position,))
        if row is None or row[3] is None:
            return SearchedEvent(position, [], 0)  # erased
        session_id, *stored, recorded_at, metadata = row
        time = occurred_at(recorded_at, metadata, position)
        if not self._is_asked_for(tx, session_id, time):
            return SearchedEvent(position, [], 0)
        items = codec.decode_items([(position, *stored)])[0]
        hits = [
            hit
            for index in range(len(items) - 1, -1, -1)
            if (hit := self._hit(live, session_id, ItemRef(position, index), items[index], time))
        ]
        return SearchedEvent(position, hits, len(stored[-1]))

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

    def _hit(self, live: Live, session_id: str, ref: ItemRef, item: JSON, time: int) -> Hit | None:
        sought = self._sought
        said = _said(item, self._needle)
        if said is None:
            return None
        kind = shape.shape(item)
        if sought.type not in (None, kind.type) or sought.tool_name not in (None, kind.tool_name):
            return None
        if sought.role is not None and (
            not isinstance(item, dict) or item.get("role") != sought.role
        ):
            return None
        place = live.place(session_id, ref)
        if place is None:
            return None
        (turn, branch_ids), (snippet, score) = place, said
        if sought.branch_id is not None and sought.branch_id not in branch_ids:
            return None
        return Hit(session_id, branch_ids, turn, ref, kind, item, snippet, time, score)

    # -- between them -------------------------------------------------------------------------

    def take(self, looked: Looked) -> bool:
        """Keep what a step saw; return whether there is more to look at."""
        self._legs, self.reason = looked.legs, looked.reason
        self.scanned += looked.scanned
        for event in looked.events:
            if self._after is not None and event.position < self._after.oldest:
                self._close_window(self._after.oldest)
            self._window += event.hits
            self._window_bytes += event.payload_bytes
            if self._after is None and self._window_is_full():
                self._close_window(event.position)
            if self._is_complete():
                return False
        if not looked.legs:
            self._close_window(1 if self._after is None else self._after.oldest)
        return bool(looked.legs) and not self._is_complete()

    def _is_complete(self) -> bool:
        return self._limit is not None and len(self.hits) >= self._limit

    def _window_is_full(self) -> bool:
        if not self._needle:
            return True  # nothing to rank: the newest first
        return len(self._window) >= WINDOW_HITS or self._window_bytes >= WINDOW_BYTES

    def _close_window(self, oldest: int) -> None:
        """Rank the window's hits and keep those that are behind the cursor, up to the limit."""
        window, self._window, self._window_bytes = self._window, [], 0
        after, self._after = self._after, None
        newest = max((hit.ref.position for hit in window), default=0)
        if after is not None:
            newest = after.newest
            window = [hit for hit in window if hit.rank > after.rank]
        left = None if self._limit is None else self._limit - len(self.hits)
        ranked = sorted(window, key=lambda hit: hit.rank)[:left]
        self.hits += [(hit, Cursor(newest, oldest, hit.rank)) for hit in ranked]


class Live:
    """Where items stand on live branches; each session is looked at once."""

    def __init__(self, tx: Transaction) -> None:
        self._tx = tx
        self._sessions: dict[str, dict[int, list[tuple[str, Span]]]] = {}

    def place(self, session_id: str, ref: ItemRef) -> tuple[int, tuple[str, ...]] | None:
        """Return an item's turn, and the ids of the branches that it is on; None if it is on none."""
        for segment_id, uses in self._segments(session_id).items():
            if segment_id > ref.position:
                continue  # it was begun by a later event
            longest = max((span for _, span in uses), key=lambda span: span.last)
            number, item = segments.within(self._tx, longest, ref)
            if item is not None:
                return item.turn, tuple(branch for branch, span in uses if span.last >= number)
        return None

    def _segments(self, session_id: str) -> dict[int, list[tuple[str, Span]]]:
        """Return how far each branch of a session uses which segment."""
        found = self._sessions.get(session_id)
        if found is None:
            found = self._sessions[session_id] = {}
            for branch_id, *pointer in self._tx.all(LIVE_BRANCHES, (session_id,)):
                for span in segments.spans(self._tx, Pointer(*pointer)):
                    found.setdefault(span.segment_id, []).append((branch_id, span))
        return found


def _said(item: JSON, needle: str | None) -> tuple[Snippet, int] | None:
    """Return where an item says what is sought, and how well that fits; None if it does not."""
    texts = contents.texts(item)
    if not needle:
        nothing_fits = needle is not None and not texts
        return None if nothing_fits else (contents.snippet(texts[0] if texts else "", ""), 0)
    counts = [contents.folded(text).count(needle) for text in texts]
    times = sum(counts)
    if not times:
        return None
    first = next(text for text, count in zip(texts, counts, strict=True) if count)
    # As in BM25, with k1 = 1.2 and b = 0.75, but for how rare it is, which is the same for all.
    damping = 0.3 + 0.9 * sum(map(len, texts)) / USUAL_CHARACTERS
    return contents.snippet(first, needle), int(1_000_000 * times / (times + damping))
