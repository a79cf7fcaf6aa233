"""
Every path that a session ever took: a tree of items, and the tip of each branch at every version.

Each item has one parent, the item before it when it was added. A branch is a name that points to an item,
as in git, and its moves are the reflog. One pass over a session's events answers for every version what
``as_of`` answers for one: the items of a branch, what was removed from it when, what two branches share.
There is no content in it, and it only grows: read it once, then feed it the new events.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from agents_eventlog.eventlog import events, payloads
from agents_eventlog.eventlog.appender import PAGE_EVENTS, up_to_page_bytes
from agents_eventlog.eventlog.cursor import check_progress
from agents_eventlog.eventlog.erased_shapes import ErasedShapes
from agents_eventlog.eventlog.events import JSON, ItemRef
from agents_eventlog.eventlog.item_kind import USER, ItemKind, classify
from agents_eventlog.eventlog.recorded_event import RecordedEvent
from agents_eventlog.eventlog.storage.transaction import Transaction
from agents_eventlog.projections.conversations import forks
from agents_eventlog.projections.conversations.builder import MAIN

ROOT: Final = 0
"""The number of the node before the first items."""

ADDING: Final = {kind.type_name() for kind in events.ITEM_EVENTS}
"""The types of events that add items; they make a branch live even if their content was erased."""

AFTER: Final = "WHERE session_id = ? AND version > ? ORDER BY version LIMIT ?"


class Node(NamedTuple):
    """
    An item in the tree.

    parent, jump: numbers of nodes above it. ``jump`` shortens the way to distant ones.
    depth: the number of items from the root up to it.
    opening: the number of the node that opened its turn.
    branch_id: the branch that it was added to.
    """

    ref: ItemRef
    version: int
    parent: int
    jump: int
    depth: int
    turn: int
    opening: int
    kind: ItemKind | None
    branch_id: str


class Move(NamedTuple):
    """From ``version`` on, a branch ends with the item ``tip``; ``is_live``: whether it exists then."""

    version: int
    position: int
    tip: int
    is_live: bool


class Lifeline(NamedTuple):
    """A node was on a branch from one version until another; None means until now."""

    node: int
    since: int
    until: int | None


class Effect(NamedTuple):
    """What an event removed: numbers of items and of branches; a popped item's number on its branch."""

    items: int = 0
    branches: int = 0
    number: int | None = None


class Change(NamedTuple):
    """
    An event of the session; its version is its place in ``Paths.changes``, from 1.

    occurred_at: microseconds since 1970 UTC; the time of recording if the metadata cannot be read.
    """

    position: int
    type: str
    branch_id: str
    occurred_at: int


class Lifelines:
    """
    When each item was on a branch, in the order in which they came; mostly once each.

    lines: all of them. Their ``since`` never decreases.
    """

    def __init__(self, paths: Paths, branch_id: str) -> None:
        self.lines: list[Lifeline] = []
        self._paths = paths
        self._branch_id = branch_id
        self._by_turn: dict[int, list[int]] = {}
        self._last_turns: list[int] = []
        self._open: dict[int, int] = {}
        self._nodes = {ROOT}
        self._tip = ROOT
        self._moves = 0

    def catch_up(self) -> None:
        """Take the branch's moves that came since."""
        paths = self._paths
        moves = paths.moves.get(self._branch_id, [])
        for move in moves[self._moves :]:
            top = paths.shared(self._tip, move.tip)
            for node in paths.path(self._tip, top):
                index = self._open.pop(node)
                self.lines[index] = self.lines[index]._replace(until=move.version)
            for node in paths.path(move.tip, top):
                self._add(node, move.version)
            self._tip = move.tip
        self._moves = len(moves)

    def _add(self, node: int, version: int) -> None:
        turn = self._paths.nodes[node].turn
        self._open[node] = len(self.lines)
        self._by_turn.setdefault(turn, []).append(len(self.lines))
        last = self._last_turns[-1] if self._last_turns else 0
        self._last_turns.append(max(turn, last))
        self._nodes.add(node)
        self.lines.append(Lifeline(node, version, None))

    def __contains__(self, node: int) -> bool:
        """Whether the branch ever had a node, or it is the root."""
        return node in self._nodes

    def of_turn(self, turn: int, version: int) -> list[Lifeline]:
        """Return the items that a turn had by a version, with those that were removed by then."""
        lines = (self.lines[index] for index in self._by_turn.get(turn, ()))
        return [line for line in lines if line.since <= version]

    def last_turn(self, version: int) -> int:
        """Return the highest turn that the branch had by a version, even if it was removed by then."""
        count = bisect_right(self.lines, version, key=lambda line: line.since)
        return self._last_turns[count - 1] if count else 0

    def of_node(self, node: int) -> list[Lifeline]:
        """Return when a node was on the branch."""
        indexes = self._by_turn.get(self._paths.nodes[node].turn, ())
        return [self.lines[index] for index in indexes if self.lines[index].node == node]


class Redacted(NamedTuple):
    """
    The redaction of an item.

    version, position: its event, whose items replace those of the item's event from then on.
    """

    ref: ItemRef
    version: int
    position: int
    reason: str | None


class Paths:
    """
    Every path of one session.

    nodes: the items in the order in which they were added; number 0 is the root, which is not an item.
    moves: the moves of each branch that ever existed, in order.
    forks: the version and the node at which each branch was created, from which branch.
    changes: the session's events, in order.
    redactions: those of each redacted event, by its position, in order.
    forked: the positions of events of other sessions whose items this one began with.
    """

    def __init__(self) -> None:
        root = Node(ItemRef(0, 0), 0, ROOT, ROOT, 0, 0, ROOT, None, MAIN)
        self.nodes = [root]
        self.moves: dict[str, list[Move]] = {}
        self.forks: dict[str, Fork] = {}
        self.changes: list[Change] = []
        self.redactions: dict[int, list[Redacted]] = {}
        self.forked: set[int] = set()
        self._numbers: dict[ItemRef, int] = {}
        self._left_at: dict[int, int] = {}
        self._deletions: list[int] = []
        self._lifelines: dict[str, Lifelines] = {}

    @classmethod
    def read(cls, tx: Transaction, session_id: str) -> Paths:
        """Return the paths of a session; those of one that does not exist have no branches."""
        paths = cls()
        paths.catch_up(tx, session_id)
        return paths

    def catch_up(self, tx: Transaction, session_id: str) -> None:
        """Take the events of the session that were appended since."""
        structures = ErasedShapes()
        while True:
            rows = payloads.event_rows(tx, AFTER, (session_id, self.version, PAGE_EVENTS))
            page = [RecordedEvent(row) for row in up_to_page_bytes(rows)]
            if not page:
                return
            check_progress(self.version, page[-1].version)
            structures.fill(tx, page)
            for recorded in page:
                self.feed(recorded)

    @property
    def version(self) -> int:
        """The version of the last event."""
        return len(self.changes)

    # -- questions ------------------------------------------------------------------------------

    def tip(self, branch_id: str, version: int | None = None) -> int:
        """Return the node that a branch ended with at a version, or ends with now."""
        move = self._move(branch_id, version)
        return ROOT if move is None else move.tip

    def exists(self, branch_id: str, version: int | None = None) -> bool:
        """Whether a branch existed at a version, or exists now."""
        move = self._move(branch_id, version)
        return move is not None and move.is_live

    def began(self, branch_id: str) -> int:
        """Return the version from which on a branch existed."""
        return self.moves[branch_id][0].version

    def last_tip(self, branch_id: str, version: int) -> int:
        """Return the node that a branch ended with when it last existed, up to a version."""
        moves = self.moves.get(branch_id, [])
        index = bisect_right(moves, version, key=lambda move: move.version)
        return next((move.tip for move in reversed(moves[:index]) if move.is_live), ROOT)

    def version_of(self, position: int) -> int:
        """Return the version of an event of the session by its position."""
        return bisect_left(self.changes, position, key=lambda change: change.position) + 1

    def turn_opening(self, branch_id: str, turn: int, version: int) -> int | None:
        """Return the node that opened a turn of a branch at a version; None without that turn."""
        node = self.nodes[self.tip(branch_id, version)]
        while node.turn > turn and node.turn > 0:
            node = self.nodes[self.nodes[node.opening].parent]
        return node.opening if node.turn == turn else None

    def number(self, ref: ItemRef) -> int | None:
        """Return the number of an item's node; None if the session never had the item."""
        return self._numbers.get(ref)

    def redacted(self, ref: ItemRef, version: int) -> tuple[int, Redacted | None]:
        """Return the position of an item's content at a version, and the redaction of the item by then."""
        found = [each for each in self.redactions.get(ref.position, ()) if each.version <= version]
        position = found[-1].position if found else ref.position
        return position, next((each for each in found if each.ref == ref), None)

    def path(self, tip: int, above: int = ROOT) -> list[int]:
        """Return the nodes up to a tip, in order, from the one after ``above``."""
        found = []
        depth = self.nodes[above].depth
        while self.nodes[tip].depth > depth:
            found.append(tip)
            tip = self.nodes[tip].parent
        return found[::-1]

    def items(self, branch_id: str, version: int | None = None) -> list[Node]:
        """Return the items of a branch at a version, or now."""
        return [self.nodes[number] for number in self.path(self.tip(branch_id, version))]

    def ancestor(self, node: int, depth: int) -> int:
        """Return the node at a depth on the path to another node."""
        nodes = self.nodes
        while nodes[node].depth > depth:
            jump = nodes[node].jump
            node = jump if nodes[jump].depth >= depth else nodes[node].parent
        return node

    def shared(self, one: int, other: int) -> int:
        """Return the last node that the paths to two nodes have in common."""
        nodes = self.nodes
        depth = min(nodes[one].depth, nodes[other].depth)
        one, other = self.ancestor(one, depth), self.ancestor(other, depth)
        while one != other:
            if nodes[one].jump != nodes[other].jump:
                one, other = nodes[one].jump, nodes[other].jump
            else:
                one, other = nodes[one].parent, nodes[other].parent
        return one

    def lifelines(self, branch_id: str) -> Lifelines:
        """Return when each item was on a branch; kept, so that a later call costs little."""
        found = self._lifelines.get(branch_id)
        if found is None:
            found = self._lifelines[branch_id] = Lifelines(self, branch_id)
        found.catch_up()
        return found

    def removal(self, ref: ItemRef) -> int | None:
        """
        Return the version of the event that removed an item from the last branch that had it.

        None if a branch has it, and the session is not deleted.
        """
        node = self._numbers.get(ref)
        if node is None:
            return None
        added = self.nodes[node].version
        deletion = next((version for version in self._deletions if version > added), None)
        left = self._left_at.get(node)
        if left is None or self._is_on_a_branch(node):
            return deletion
        return left if deletion is None else min(left, deletion)

    def _is_on_a_branch(self, node: int) -> bool:
        depth = self.nodes[node].depth
        tips = (moves[-1].tip for moves in self.moves.values())
        return any(
            self.nodes[tip].depth >= depth and self.ancestor(tip, depth) == node for tip in tips
        )

    def branches_with(self, ref: ItemRef, version: int | None = None) -> list[str]:
        """Return the branches that had an item at a version, or have it now, in order of creation."""
        return [
            name for name in self.moves if self._on_path(ref, self.tip(name, version)) is not None
        ]

    def effect(self, version: int) -> Effect:
        """Return what the event of a version removed."""
        if not 0 < version <= self.version:
            return Effect()  # of a damaged log, in which versions are missing
        change = self.changes[version - 1]
        if change.type == events.SessionDeleted.type_name():
            live = [name for name in self.moves if self.exists(name, version)]
            tips = [self.tip(name, version) for name in live]
            return Effect(len(self._union((tip, ROOT) for tip in tips)), len(live))
        parted = []
        for name in self.moves:
            before, after = self._move(name, version - 1), self._move(name, version)
            if before is not None and before.is_live and after is not before and after is not None:
                parted.append((before.tip, self.shared(before.tip, after.tip)))
        removed = self._union(parted)
        is_pop = change.type == events.ItemPopped.type_name() and len(removed) > 0
        number = self.nodes[parted[0][0]].depth if is_pop else None
        return Effect(len(removed), len(parted), number)

    def _union(self, parts: Iterable[tuple[int, int]]) -> set[int]:
        """Return the nodes on the paths to some tips, each from after another node on."""
        found: set[int] = set()
        for tip, top in parts:
            depth, node = self.nodes[top].depth, tip
            while self.nodes[node].depth > depth and node not in found:
                found.add(node)
                node = self.nodes[node].parent
        return found

    def _move(self, branch_id: str, version: int | None) -> Move | None:
        moves = self.moves.get(branch_id, [])
        if version is None:
            return moves[-1] if moves else None
        index = bisect_right(moves, version, key=lambda move: move.version)
        return moves[index - 1] if index else None

    # -- events ---------------------------------------------------------------------------------

    def feed(self, recorded: RecordedEvent) -> None:  # noqa: C901, PLR0912 - one case for each event
        """Take the session's next event. Raises UndecodableEventError for one that cannot be read."""
        recorded = recorded.outlined()
        here = recorded.branch_id or MAIN
        self.changes.append(Change(recorded.position, recorded.type, here, recorded.happened_at))
        match recorded.event:
            case None:
                if recorded.type in ADDING:
                    self._point(recorded, here, self.tip(here))
            case events.ItemsAdded(items=items) | events.TurnRedone(items=items):
                self._add(recorded, here, self.tip(here), items)
            case events.ItemPopped(item=ref):
                tip = self.tip(here)
                if tip != ROOT and self.nodes[tip].ref == ref:
                    self._point(recorded, here, self.nodes[tip].parent, keep=True)
            case events.TurnUndone(removed=[first, *_]):
                if (start := self._on_path(first, self.tip(here))) is not None:
                    self._point(recorded, here, self.nodes[start].parent, keep=True)
            case events.ItemRedacted(item=ref, reason=reason):
                self._redact(recorded, [ref], reason)
            case events.ItemsWithheld(position=position, items=items, reason=reason):
                refs = [ItemRef(position, index) for index in range(len(items))]
                self._redact(recorded, refs, reason)
            case events.SessionForked() as event:
                self._fork(recorded, here, event)
            case events.ItemsReplaced(first_item=first, items=items):
                tip = self.tip(here)
                start = ROOT if first is None else self._on_path(first, tip)
                above = tip if start is None else self.nodes[start].parent
                self._add(recorded, here, above, items)
            case events.BranchCreated() as event:
                self._create(recorded, event)
            case events.BranchDeleted(branch_id=branch_id):
                if branch_id in self.moves:
                    self._point(recorded, branch_id, ROOT, is_live=False)
            case events.SessionCleared():
                self._end_all(recorded)
            case events.SessionDeleted():
                self._deletions.append(self.version)
            case events.SessionRestored():
                self._deletions.clear()
            case events.ContentErased(is_whole=True):
                self._end_all(recorded)
            case _:
                pass

    def _redact(self, recorded: RecordedEvent, refs: Iterable[ItemRef], reason: str | None) -> None:
        for ref in refs:
            redacted = Redacted(ref, recorded.version, recorded.position, reason)
            self.redactions.setdefault(ref.position, []).append(redacted)

    def _fork(self, recorded: RecordedEvent, here: str, event: events.SessionForked) -> None:
        tip = self.tip(here)
        last = None if tip == ROOT else self.nodes[tip].ref
        is_forked = last is not None and last.position in self.forked
        if forks.fits(event, recorded.version, last, is_last_forked=is_forked):
            found = forks.items(event)
            refs = [ItemRef(position, index) for position, index, _ in found]
            self.forked.update(ref.position for ref in refs)
            self._put(recorded, here, tip, refs, [kind for *_, kind in found])

    def _create(self, recorded: RecordedEvent, event: events.BranchCreated) -> None:
        if event.from_branch_id == MAIN and not self.exists(MAIN):
            self._point(recorded, MAIN, ROOT)
        source = self.tip(event.from_branch_id)
        last = None if event.last_item is None else self._on_path(event.last_item, source)
        tip = ROOT if last is None else last
        self.forks[event.branch_id] = Fork(self.version, tip, event.from_branch_id)
        self._point(recorded, event.branch_id, tip)

    def _add(
        self, recorded: RecordedEvent, branch_id: str, tip: int, items: Iterable[JSON]
    ) -> None:
        kinds = [classify(content) for content in items]
        refs = [ItemRef(recorded.position, index) for index in range(len(kinds))]
        self._put(recorded, branch_id, tip, refs, kinds)

    def _put(
        self,
        recorded: RecordedEvent,
        branch_id: str,
        tip: int,
        refs: Sequence[ItemRef],
        kinds: Sequence[ItemKind],
    ) -> None:
        for ref, kind in zip(refs, kinds, strict=True):
            opens = kind.type == USER
            above = self.nodes[tip]
            jumped = self.nodes[above.jump]
            # A skew-binary jump pointer: the way to any ancestor takes a logarithm of steps.
            is_even = above.depth - jumped.depth == jumped.depth - self.nodes[jumped.jump].depth
            node = Node(
                ref=ref,
                version=self.version,
                parent=tip,
                jump=jumped.jump if is_even else tip,
                depth=above.depth + 1,
                turn=above.turn + opens,
                opening=len(self.nodes) if opens else above.opening,
                kind=kind,
                branch_id=branch_id,
            )
            tip = self._numbers[ref] = len(self.nodes)
            self.nodes.append(node)
        self._point(recorded, branch_id, tip)

    def _on_path(self, ref: ItemRef, tip: int) -> int | None:
        """Return the number of an item if it is on the path to a tip."""
        number = self._numbers.get(ref)
        if number is None or self.nodes[number].depth > self.nodes[tip].depth:
            return None
        return number if self.ancestor(tip, self.nodes[number].depth) == number else None

    def _point(
        self,
        recorded: RecordedEvent,
        branch_id: str,
        tip: int,
        *,
        is_live: bool = True,
        keep: bool = False,
    ) -> None:
        """Let a branch end with a node from this event on. keep: it is live only if it was."""
        is_live = self.exists(branch_id) if keep else is_live
        moves = self.moves.setdefault(branch_id, [])
        before = moves[-1].tip if moves else ROOT
        for node in self.path(before, self.shared(before, tip)):
            self._left_at[node] = self.version
        moves.append(Move(self.version, recorded.position, tip, is_live))

    def _end_all(self, recorded: RecordedEvent) -> None:
        for branch_id in self.moves:
            self._point(recorded, branch_id, ROOT, is_live=False)


class Fork(NamedTuple):
    """The version at which a branch was created, the node that it began with, and its parent branch."""

    version: int
    node: int
    from_branch_id: str
