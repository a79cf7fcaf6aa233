"""
A window on a conversation: some turns of a branch at a version, with what was removed in its place.

What it costs depends on the size of the window, and on ``Paths``, which is read once for a session. The
newest turns of a long conversation can be read from the tables before that.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import Final, NamedTuple

from agents_eventlog.adapters.conversations import branch_usage, event_descriptions, outline
from agents_eventlog.adapters.conversations.event_descriptions import HOW
from agents_eventlog.adapters.conversations.outline import Leaving
from agents_eventlog.eventlog import codec, item_kind, reader
from agents_eventlog.eventlog.cipher.envelope import Withheld
from agents_eventlog.eventlog.events import JSON, ItemRef
from agents_eventlog.eventlog.item_kind import ItemKind
from agents_eventlog.eventlog.recorded_event import RecordedEvent
from agents_eventlog.eventlog.storage.transaction import Transaction
from agents_eventlog.projections.conversations import branch_tree, redactions
from agents_eventlog.projections.conversations import queries as conversation_queries
from agents_eventlog.projections.conversations.paths import Lifeline, Paths
from agents_eventlog.projections.usage import queries as usage_queries
from agents_eventlog.projections.usage.queries import TurnRequest

WINDOW_ITEMS: Final = 120
WINDOW_CHARACTERS: Final = 60_000
"""
About how much a window has, so that its page stays below 100 KB. Turns are whole,
unless one alone has much more.
"""
SHOWN_CHARACTERS: Final = 4_000
"""How much of an item is shown at most, unless it is opened."""


class Origin(NamedTuple):
    """The event behind something that is shown: its place, time and actor."""

    position: int
    version: int
    occurred_at: int
    actor: str | None
    trace_id: str | None


class Removal(NamedTuple):
    """How and by which event items were removed from a branch or redacted, and why."""

    how: str
    origin: Origin
    reason: str | None


class ShownItem(NamedTuple):
    """
    An item in a window.

    item: its content, or its placeholder; None if it cannot be read, for the reason in ``withheld``.
    since, until: the versions of the session between which the branch had the item; None means now.
    removal, redaction: how it was removed, or redacted, by the version that is shown.
    """

    ref: ItemRef
    kind: ItemKind | None
    item: JSON | None
    origin: Origin
    since: int
    until: int | None
    removal: Removal | None
    redaction: Removal | None
    withheld: Withheld | None = None


class ShownTurn(NamedTuple):
    """
    A turn of a branch: its number, items, requests, and the branches that leave before it.

    earlier, later: the nearest item before and after those, and the number of them, if the turn has more
        items than a window.
    """

    number: int
    items: list[ShownItem]
    requests: list[TurnRequest]
    forks: list[Leaving]
    earlier: tuple[ItemRef, int] | None = None
    later: tuple[ItemRef, int] | None = None


class Window(NamedTuple):
    """
    Turns of a branch at a version.

    turns: those in the window, in order. first_turn, last_turn: those of the whole branch.
    forks: the branches that leave at the end of the branch, if the window shows it.
    is_complete: False if it was read from the tables, without removed items and forks.
    """

    session_id: str
    branch_id: str
    version: int
    turns: list[ShownTurn]
    first_turn: int
    last_turn: int
    forks: list[Leaving]
    is_complete: bool = True

    @property
    def first(self) -> int:
        """The first turn in the window."""
        return self.turns[0].number if self.turns else 0

    @property
    def last(self) -> int:
        """The last turn in the window."""
        return self.turns[-1].number if self.turns else 0

    @property
    def has_earlier(self) -> bool:
        """Whether the branch has turns before the window."""
        return bool(self.turns) and self.first > self.first_turn

    @property
    def has_later(self) -> bool:
        """Whether the branch has turns after the window."""
        return bool(self.turns) and self.last < self.last_turn


def window(
    tx: Transaction,
    paths: Paths,
    session_id: str,
    branch_id: str,
    *,
    version: int | None = None,
    around: int | None = None,
    before: int | None = None,
    after: int | None = None,
    item: ItemRef | None = None,
    limit: int = WINDOW_ITEMS,
    characters: int = WINDOW_CHARACTERS,
) -> Window:
    """
    Return a window on a branch at a version, by default the newest turns now.

    around: a turn that must be in the window.
    before, after: only turns before this one, the nearest ones; only turns after it.
    item: an item that must be in the window if ``around`` is its turn. Only a turn that has more items than
        twice the limit is not shown whole.
    limit, characters: the numbers of items and of characters after which the window ends; it always has at
        least one turn.
    """
    most = limit
    version = paths.version if version is None else version
    lifelines = paths.lifelines(branch_id)
    last_turn = lifelines.last_turn(version)
    first_turn = 0 if lifelines.of_turn(0, version) else 1
    start = first_turn if after is None else max(first_turn, after + 1)
    end = last_turn if before is None else min(last_turn, before - 1)
    reader_of = ItemReader(tx, paths)
    expired = reader_of.expiry(outline.expired_at(tx, paths, session_id, version))
    chosen: dict[int, list[Lifeline]] = {}
    for number in _outward(start, end, last_turn if around is None else around, after):
        lines = lifelines.of_turn(number, version)
        if lines:
            chosen[number] = lines
            limit -= len(lines)
            characters -= reader_of.characters(lines[: 2 * most])
        if limit <= 0 or characters <= 0:
            break
    numbers = sorted(chosen)
    forks: dict[int, list[Leaving]] = {}
    for each in outline.leaving(paths, branch_id, version):
        if each.depth == 0:
            forks.setdefault(min(each.turn, last_turn + 1), []).append(each)
    used = _requests(tx, paths, session_id, branch_id, numbers, version)
    middle = None if item is None else paths.number(item)
    turns = []
    for number in numbers:
        lines = chosen[number]
        start, end = _clipped(lines, middle, most)
        turns.append(
            ShownTurn(
                number,
                [reader_of.shown(line, version, expired) for line in lines[start:end]],
                used.get(number, []),
                forks.get(number, []),
                _beside(paths, lines[:start], -1),
                _beside(paths, lines[end:], 0),
            )
        )
    shows_end = not numbers or numbers[-1] == last_turn
    leaving = forks.get(last_turn + 1, []) if shows_end else []
    return Window(session_id, branch_id, version, turns, first_turn, last_turn, leaving)


def _clipped(lines: Sequence[Lifeline], middle: int | None, limit: int) -> tuple[int, int]:
    """Return which items of a turn are shown: all, or those around one, by default the newest."""
    if len(lines) <= 2 * limit:
        return 0, len(lines)
    places = (place for place, line in enumerate(lines) if line.node == middle)
    place = next(places, len(lines) - 1)
    start = max(0, min(place - limit // 2, len(lines) - limit))
    return start, start + limit


def _beside(paths: Paths, lines: Sequence[Lifeline], nearest: int) -> tuple[ItemRef, int] | None:
    return (paths.nodes[lines[nearest].node].ref, len(lines)) if lines else None


def _outward(start: int, end: int, around: int, after: int | None) -> Iterator[int]:
    """Yield turns in the order in which a window takes them: those next to its middle first."""
    middle = start if after is not None else min(max(around, start), end)
    if start > end:
        return
    yield middle
    below, above = middle - 1, middle + 1
    while below >= start or above <= end:
        if above <= end and (above - middle <= middle - below or below < start):
            yield above
            above += 1
        else:
            yield below
            below -= 1


class ItemReader:
    """Reads the events behind items, each once."""

    def __init__(self, tx: Transaction, paths: Paths) -> None:
        self._tx = tx
        self._paths = paths
        self._events: dict[int, RecordedEvent | None] = {}

    def event(self, position: int) -> RecordedEvent | None:
        """Return an event of the session."""
        if position not in self._events:
            self._events[position] = reader.event_at(self._tx, position)
        return self._events[position]

    def characters(self, lines: Sequence[Lifeline]) -> int:
        """Return about how many characters some items show."""
        total = 0
        nodes = (self._paths.nodes[line.node] for line in lines)
        for position, some in groupby(nodes, key=lambda node: node.ref.position):
            recorded = self.event(position)
            size = 0 if recorded is None or recorded.data is None else len(recorded.data)
            total += min(size, SHOWN_CHARACTERS * len(list(some)))
        return total

    def expiry(self, expired_at: int | None) -> Removal | None:
        """Return the removal of the items of a session that expired, which no event has recorded yet."""
        if expired_at is None:
            return None
        last = self._paths.changes[-1]
        origin = Origin(last.position, self._paths.version, expired_at, None, None)
        return Removal("expired", origin, None)

    def shown(self, line: Lifeline, version: int, expired: Removal | None = None) -> ShownItem:
        """Return an item at a version. expired: the removal of items that are on the branch."""
        node = self._paths.nodes[line.node]
        recorded = self.event(node.ref.position)
        content, redaction = self._content(node.ref, version)
        holder = recorded if content == node.ref.position else self.event(content)
        withheld = "erased" if holder is None else holder.withheld
        event = None if holder is None or withheld else holder.event
        item = None if event is None else getattr(event, "items", [])[node.ref.index]
        is_removed = line.until is not None and line.until <= version
        return ShownItem(
            node.ref,
            node.kind,
            item,
            self._origin(node.ref.position, node.version, recorded),
            line.since,
            line.until,
            self._removal(line.until or 0) if is_removed else expired,
            redaction,
            withheld,
        )

    def _content(self, ref: ItemRef, version: int) -> tuple[int, Removal | None]:
        """Return the position of the event with an item's content at a version, and its redaction."""
        if ref.position not in self._paths.forked:
            content, redacted = self._paths.redacted(ref, version)
            return content, None if redacted is None else self._removal(redacted.version)
        # It was redacted in its own session, which has other versions.
        content = redactions.newest(self._tx, ref.position) or ref.position
        found = redactions.of_event(self._tx, ref.position).get(ref.index)
        recorded = None if found is None else self.event(found.position)
        if found is None or recorded is None:
            return content, None
        actor, trace_id = _bound(recorded)
        origin = Origin(found.position, recorded.version, recorded.occurred_at, actor, trace_id)
        return content, Removal("redacted", origin, found.reason)

    def _removal(self, version: int) -> Removal:
        change = self._paths.changes[version - 1]
        recorded = self.event(change.position)
        event = None if recorded is None else recorded.outlined().event
        reason = getattr(event, "reason", None)
        if reason is None and recorded is not None:
            reason = event_descriptions.bound(recorded, "reason")
        how = HOW.get(change.type, "removed")
        return Removal(how, self._origin(change.position, version, recorded), reason)

    def _origin(self, position: int, version: int, recorded: RecordedEvent | None) -> Origin:
        change = self._paths.changes[version - 1]
        # A fork has items that are older than the fork.
        occurred_at = change.occurred_at if recorded is None else recorded.happened_at
        return Origin(position, version, occurred_at, *_bound(recorded))


def _bound(recorded: RecordedEvent | None) -> tuple[str | None, str | None]:
    """Return the actor and the trace of an event."""
    if recorded is None:
        return None, None
    return event_descriptions.bound(recorded, "actor"), event_descriptions.bound(
        recorded, "trace_id"
    )


def _requests(
    tx: Transaction,
    paths: Paths,
    session_id: str,
    branch_id: str,
    turns: Sequence[int],
    version: int,
) -> dict[int, list[TurnRequest]]:
    """Return the model requests of turns that a branch shows, by turn."""
    if not turns:
        return {}
    place = {"first_turn": turns[0], "last_turn": turns[-1]}
    found = branch_usage.requests(tx, paths, session_id, branch_id, version, **place)
    return _by_turn(found)


def _by_turn(requests: Iterable[TurnRequest]) -> dict[int, list[TurnRequest]]:
    found: dict[int, list[TurnRequest]] = {}
    for request in requests:
        found.setdefault(request.turn, []).append(request)
    return found


# -- from the tables --------------------------------------------------------------------------


def newest_window(
    tx: Transaction, session_id: str, branch_id: str, version: int, *, around: int | None = None
) -> Window:
    """
    Return a window on a branch now, from the tables, in time that does not depend on its length.

    It has neither the items that were removed nor the branches that leave; ``is_complete`` is False.
    """
    place = conversation_queries.place(tx, session_id, branch_id)
    last = place.turn if around is None else max(0, min(around, place.turn))
    end = branch_tree.before_turn(tx, place.pointer, last + 1) or place.pointer
    first = branch_tree.turn_at(
        tx, branch_tree.at_length(tx, end, max(1, end.length - WINDOW_ITEMS + 1))
    )
    if last > first and end.length > WINDOW_ITEMS:
        first += 1  # its first items are before the window
    most = 2 * WINDOW_ITEMS
    entries = conversation_queries.entries(tx, place.pointer, first, last, newest=most)
    start = branch_tree.before_turn(tx, place.pointer, first) or branch_tree.Pointer(None, 0)
    left = end.length - start.length - len(entries)
    earlier = (entries[0].ref, left) if left > 0 and entries else None
    branches = {branch_id, *(entry.branch_id for entry in entries)}
    used = _by_turn(
        request
        for request in usage_queries.requests_of_turns(tx, session_id, first, last)
        if request.is_live and request.branch_id in branches
    )
    turns = [
        ShownTurn(
            number,
            [_entry(entry) for entry in some],
            used.get(number, []),
            [],
            earlier if number == first else None,
        )
        for number, some in groupby(entries, key=lambda entry: entry.turn)
    ]
    opening = branch_tree.turn_at(tx, branch_tree.at_length(tx, place.pointer, 1)) if turns else 0
    return Window(session_id, branch_id, version, turns, opening, place.turn, [], is_complete=False)


def _entry(entry: conversation_queries.Entry) -> ShownItem:
    bound = {}
    if entry.metadata_json is not None:
        bound = codec.decode_recording(entry.metadata_json, position=entry.ref.position)
    given = (bound.get(name) for name in ("actor", "trace_id"))
    actor, trace_id = (value if isinstance(value, str) else None for value in given)
    origin = Origin(entry.ref.position, entry.version, entry.occurred_at, actor, trace_id)
    kind = None if entry.is_erased else item_kind.classify(entry.content)
    return ShownItem(entry.ref, kind, entry.content, origin, entry.version, None, None, None)
