"""Two branches of a session, turn beside turn: items, tokens, cost and time. Does not depend on an SDK."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import TypedDict

from agents_eventlog.adapters.conversations import commands, timestamps, transcript
from agents_eventlog.adapters.conversations.transcript import TranscriptRow
from agents_eventlog.adapters.conversations.window import Origin, ShownItem
from agents_eventlog.eventlog.errors import BranchNotFoundError
from agents_eventlog.eventlog.events import JSON, ItemRef
from agents_eventlog.eventlog.item_kind import ItemKind
from agents_eventlog.eventlog.storage.transaction import Transaction
from agents_eventlog.projections.conversations import branch_tree
from agents_eventlog.projections.conversations import queries as conversation_queries
from agents_eventlog.projections.conversations.branch_tree import Pointer
from agents_eventlog.projections.conversations.builder import MAIN
from agents_eventlog.projections.conversations.paths import ROOT, Paths
from agents_eventlog.projections.conversations.queries import Entry
from agents_eventlog.projections.usage import queries as usage_queries
from agents_eventlog.projections.usage.queries import RequestOfTurn, UsageTotals


class TurnUsage(TypedDict):
    """
    The requests of a turn, or of several turns.

    total_cost: of the priced requests, in USD. models: the models that answered. seconds: from the first
    item of a turn to its last.
    """

    requests: int
    input_tokens: int
    output_tokens: int
    total_tokens: int
    total_cost: float
    unpriced_requests: int
    models: list[str]
    seconds: float


class TurnSide(TurnUsage):
    """A turn of one of the branches. started_at: ISO 8601, in UTC."""

    started_at: str
    items: list[TranscriptRow]


class ComparedTurn(TypedDict):
    """A turn of both branches; None if a branch does not have it."""

    turn: int
    a: TurnSide | None
    b: TurnSide | None


class BranchComparison(TypedDict):
    """
    Two branches: how much they share, the turns after that, and the sums of these turns.

    a, b: the ids of the branches. shared_turns: the number of turns that are the same items on both.
    """

    a: str
    b: str
    shared_turns: int
    shared_items: int
    turns: list[ComparedTurn]
    total_a: TurnUsage
    total_b: TurnUsage


def compare_branches(tx: Transaction, session_id: str, a: str, b: str) -> BranchComparison:
    """Compare two branches of a session. Raises BranchNotFoundError."""
    pointers = [_pointer(tx, session_id, branch_id) for branch_id in (a, b)]
    shared_items = branch_tree.shared_length(tx, *pointers)
    nexts = [turn for each in pointers if (turn := _turn_after(tx, each, shared_items)) is not None]
    first = min(nexts, default=branch_tree.turn_at(tx, pointers[0]) + 1)
    sides = [
        _sides(
            *(tx, session_id, branch_id),
            conversation_queries.entries(tx, pointer, first, session_id=session_id),
        )
        for branch_id, pointer in zip((a, b), pointers, strict=True)
    ]
    return BranchComparison(
        a=a,
        b=b,
        shared_turns=max(0, first - 1),
        shared_items=shared_items,
        turns=[
            ComparedTurn(turn=turn, a=sides[0].get(turn), b=sides[1].get(turn))
            for turn in sorted(sides[0].keys() | sides[1].keys())
        ],
        total_a=total(list(sides[0].values())),
        total_b=total(list(sides[1].values())),
    )


def shown_item(row: TranscriptRow, kind: ItemKind) -> ShownItem:
    """Return an item of a side as a window has it. kind: that of the item."""
    time = timestamps.instant(row["time"])
    origin = Origin(row["position"], row["version"], time, row["actor"], None)
    ref = ItemRef(row["position"], row["index"])
    item = None if row["withheld"] else row["item"]
    withheld = row["withheld"]
    return ShownItem(ref, kind, item, origin, row["version"], None, None, None, withheld)


def documents(session_id: str, found: BranchComparison) -> Iterator[dict[str, JSON]]:
    """Yield the documents of ``eventlog compare``."""
    heading = {name: value for name, value in found.items() if name != "turns"}
    yield {"kind": "comparison", "session_id": session_id, **heading}
    for turn in found["turns"]:
        yield {"kind": "turn", **turn}


def _pointer(tx: Transaction, session_id: str, branch_id: str) -> Pointer:
    commands.check_branch_id(branch_id)
    place = conversation_queries.place(tx, session_id, branch_id)
    if branch_id != MAIN and not place.branch_exists:
        raise BranchNotFoundError(branch_id)
    return place.pointer


def _turn_after(tx: Transaction, pointer: Pointer, length: int) -> int | None:
    """Return the turn of the item after the first ``length`` ones of a branch, if there is one."""
    if pointer.length == length:
        return None
    return branch_tree.turn_at(tx, branch_tree.at_length(tx, pointer, length + 1))


def _sides(
    tx: Transaction, session_id: str, branch_id: str, entries: Sequence[Entry]
) -> dict[int, TurnSide]:
    """Return the turns of a branch, by their numbers."""
    return {
        turn: _side(tx, session_id, branch_id, list(some))
        for turn, some in groupby(entries, key=lambda entry: entry.turn)
    }


def _side(tx: Transaction, session_id: str, branch_id: str, entries: Sequence[Entry]) -> TurnSide:
    usage = _usage(_requests(tx, session_id, branch_id, entries))
    usage["seconds"] = (entries[-1].occurred_at - entries[0].occurred_at) / 1_000_000
    return TurnSide(
        **usage,
        started_at=timestamps.iso(entries[0].occurred_at),
        items=[transcript.row_of(entry) for entry in entries],
    )


def _requests(
    tx: Transaction, session_id: str, branch_id: str, entries: Sequence[Entry]
) -> list[RequestOfTurn]:
    """
    Return the requests of a turn. Usage is recorded on the branch on which the turn was written.

    If that branch shows another version of the turn by now, only the requests before the end of this one
    belong to it.
    """
    found = []
    first_on = {entry.branch_id: entry.ref for entry in reversed(entries)}
    for name in {**first_on, branch_id: None}:
        requests = usage_queries.of_turn(tx, session_id, name, entries[0].turn)
        pointer = conversation_queries.place(tx, session_id, name).pointer
        if name == branch_id or branch_tree.find(tx, pointer, first_on[name]) is not None:
            found += [each for each in requests if each.is_live]
        elif requests:
            start, end = first_on[name].position, _end_on(tx, session_id, name, first_on[name])
            found += [each for each in requests if start < each.position < end]
    return found


def _end_on(tx: Transaction, session_id: str, branch_id: str, ref: ItemRef) -> int:
    """Return the position of the event that removed an item from a branch."""
    paths = Paths.read(tx, session_id)
    [line, *_] = paths.lifelines(branch_id).of_node(paths.number(ref) or ROOT)
    return paths.changes[(line.until or paths.version) - 1].position


def _usage(requests: Sequence[RequestOfTurn]) -> TurnUsage:
    totals = sum((each.totals for each in requests), UsageTotals())
    return TurnUsage(
        requests=totals.requests,
        input_tokens=totals.input_tokens,
        output_tokens=totals.output_tokens,
        total_tokens=totals.total_tokens,
        total_cost=totals.cost_usd,
        unpriced_requests=totals.unpriced_requests,
        models=sorted({each.model for each in requests if each.model is not None}),
        seconds=0.0,
    )


def total(sides: Sequence[TurnSide]) -> TurnUsage:
    """Return the sums of turns."""
    return TurnUsage(
        requests=sum(side["requests"] for side in sides),
        input_tokens=sum(side["input_tokens"] for side in sides),
        output_tokens=sum(side["output_tokens"] for side in sides),
        total_tokens=sum(side["total_tokens"] for side in sides),
        total_cost=sum(side["total_cost"] for side in sides),
        unpriced_requests=sum(side["unpriced_requests"] for side in sides),
        models=sorted({model for side in sides for model in side["models"]}),
        seconds=sum(side["seconds"] for side in sides),
    )
