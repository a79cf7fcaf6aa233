"""
A window on a conversation: some turns of a branch at a version, with what was removed in its place.

What it costs depends on the size of the window, and on ``Paths``, which is read once for a session.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from agents_eventlog.adapters.conversations import event_descriptions
from agents_eventlog.eventlog import reader
from agents_eventlog.eventlog.cipher.envelope import Withheld
from agents_eventlog.eventlog.events import JSON, ItemRef
from agents_eventlog.eventlog.recorded_event import RecordedEvent
from agents_eventlog.eventlog.storage.transaction import Transaction
from agents_eventlog.projections.conversations.paths import ROOT, Lifeline, Node, Paths
from agents_eventlog.projections.usage import queries as usage_queries
from agents_eventlog.projections.usage.queries import TurnRequest

WINDOW_ITEMS: Final = 200
"""About how many items a window has; turns are whole, so that one turn may have more."""

HOW: Final = {
    "item_popped": "popped",
    "items_replaced": "replaced",
    "turn_undone": "undone",
    "branch_deleted": "deleted with its branch",
    "session_cleared": "cleared",
    "content_erased": "erased",
}


class Origin(NamedTuple):
    """The event behind something that is shown: its place, time and actor."""

    position: int
    version: int
    occurred_at: int
    actor: str | None
    trace_id: str | None


class Removal(NamedTuple):
    """How and by which event items were removed from a branch."""

    how: str
    origin: Origin
    reason: str | None


class ShownItem(NamedTuple):
    """
    An item in a window.

    item: its content; None if it cannot be read, for the reason in ``withheld``.
    since, until: the versions of the session between which the branch had the item; None means now.
    """

    ref: ItemRef
    node: Node
    item: JSON | None
    origin: Origin
    since: int
    until: int | None
    removal: Removal | None
    withheld: Withheld | None = None


class ShownTurn(NamedTuple):
    """A turn of a branch: its number, items, requests, and the branches that leave before it."""

    number: int
    items: list[ShownItem]
    requests: list[TurnRequest]
    forks: list[str]


class Window(NamedTuple):
    """
    Turns of a branch at a version.

    turns: those in the window, in order; ``last_turn`` is that of the whole branch.
    forks: the branches that leave at the end of the branch.
    """

    session_id: str
    branch_id: str
    version: int
    turns: list[ShownTurn]
    first: int
    last: int
    last_turn: int
    forks: list[str]


def window(
    tx: Transaction,
    paths: Paths,
    session_id: str,
    branch_id: str,
    *,
    version: int | None = None,
    around: int | None = None,
    limit: int = WINDOW_ITEMS,
) -> Window:
    """
    Return a window on a branch at a version, by default the newest turns now.

    around: a turn that must be in the window.
    limit: the number of items after which the window ends; it always has at least one turn.
    """
    version = paths.version if version is None else version
    lines = [line for line in paths.lifelines(branch_id) if line.since <= version]
    by_turn: dict[int, list[Lifeline]] = {}
    for line in lines:
        by_turn.setdefault(paths.nodes[line.node].turn, []).append(line)
    numbers = sorted(by_turn)
    chosen = _choose(numbers, by_turn, around, limit)
    forks = _forks(paths, branch_id, version)
    events = _events(
        tx, (paths.nodes[line.node].ref.position for n in chosen for line in by_turn[n])
    )
    removals = _removals(tx, paths, [line for n in chosen for line in by_turn[n]], version)
    used = _requests(tx, paths, session_id, branch_id, chosen, version)
    turns = [
        ShownTurn(
            number,
            [_shown(paths, line, events, removals, version) for line in by_turn[number]],
            used.get(number, []),
            forks.get(number, []),
        )
        for number in chosen
    ]
    first, last = (chosen[0], chosen[-1]) if chosen else (0, 0)
    last_turn = numbers[-1] if numbers else 0
    leaving = forks.get(last_turn + 1, [])
    return Window(session_id, branch_id, version, turns, first, last, last_turn, leaving)


def _choose(
    numbers: Sequence[int], by_turn: dict[int, list[Lifeline]], around: int | None, limit: int
) -> list[int]:
    """Return the turns of the window: around one, or the newest; they follow each other."""
    if not numbers:
        return []
    middle = len(numbers) - 1
    if around is not None:
        middle = min(range(len(numbers)), key=lambda index: abs(numbers[index] - around))
    start = end = middle
    left = limit - len(by_turn[numbers[middle]])
    while left > 0 and (start > 0 or end < len(numbers) - 1):
        if end < len(numbers) - 1 and (start == 0 or end - middle <= middle - start):
            end += 1
            left -= len(by_turn[numbers[end]])
        else:
            start -= 1
            left -= len(by_turn[numbers[start]])
    return list(numbers[start : end + 1])


def _forks(paths: Paths, branch_id: str, version: int) -> dict[int, list[str]]:
    """Return the branches that leave a branch, by the turn before which they do."""
    on_branch = {line.node for line in paths.lifelines(branch_id)} | {ROOT}
    found: dict[int, list[str]] = {}
    for name, fork in paths.forks.items():
        if name != branch_id and fork.version <= version and fork.node in on_branch:
            found.setdefault(paths.nodes[fork.node].turn + 1, []).append(name)
    return found


def _events(tx: Transaction, positions: Iterable[int]) -> dict[int, RecordedEvent]:
    found = ((position, reader.event_at(tx, position)) for position in sorted(set(positions)))
    return {position: recorded for position, recorded in found if recorded is not None}


def _removals(
    tx: Transaction, paths: Paths, lines: Iterable[Lifeline], version: int
) -> dict[int, Removal]:
    """Return the removals that have happened by a version, by their own versions."""
    ends = {line.until for line in lines if line.until is not None and line.until <= version}
    positions = {end: paths.changes[end - 1].position for end in ends}
    events = _events(tx, positions.values())
    return {
        end: Removal(HOW.get(paths.changes[end - 1].type, "removed"), _origin(events[at]), None)
        for end, at in positions.items()
    }


def _origin(recorded: RecordedEvent) -> Origin:
    return Origin(
        recorded.position,
        recorded.version,
        recorded.occurred_at,
        event_descriptions.bound(recorded, "actor"),
        event_descriptions.bound(recorded, "trace_id"),
    )


def _shown(
    paths: Paths,
    line: Lifeline,
    events: dict[int, RecordedEvent],
    removals: dict[int, Removal],
    version: int,
) -> ShownItem:
    node = paths.nodes[line.node]
    recorded = events[node.ref.position]
    withheld = recorded.withheld
    item = None if withheld else getattr(recorded.event, "items", [])[node.ref.index]
    until = None if line.until is None or line.until > version else line.until
    removal = None if until is None else removals[until]
    return ShownItem(
        node.ref, node, item, _origin(recorded), line.since, line.until, removal, withheld
    )


def _requests(
    tx: Transaction,
    paths: Paths,
    session_id: str,
    branch_id: str,
    turns: Sequence[int],
    version: int,
) -> dict[int, list[TurnRequest]]:
    """Return the model requests of the turns that a branch shows, by turn; of shared turns, too."""
    if not turns or not version:
        return {}
    found: dict[int, list[TurnRequest]] = {}
    last_position = paths.changes[version - 1].position
    for request in usage_queries.requests_of_turns(tx, session_id, turns[0], turns[-1]):
        if request.position > last_position:
            continue
        then = paths.version_of(request.position)
        theirs = paths.turn_opening(request.branch_id, request.turn, then)
        ours = paths.turn_opening(branch_id, request.turn, version)
        was_ours = request.branch_id == branch_id  # on a turn that was removed since
        if theirs is not None and (theirs == ours or was_ours):
            found.setdefault(request.turn, []).append(request)
    return found
