"""Two branches side by side, each now or at an earlier version. Does not depend on an SDK."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import groupby
from typing import NamedTuple

from agents_eventlog.adapters.conversations import branch_usage, comparison, timestamps
from agents_eventlog.adapters.conversations.comparison import (
    BranchComparison,
    ComparedTurn,
    TurnSide,
    TurnUsage,
)
from agents_eventlog.adapters.conversations.transcript import TranscriptRow
from agents_eventlog.adapters.conversations.window import ItemReader, ShownItem
from agents_eventlog.eventlog.errors import BranchNotFoundError, VersionNotFoundError
from agents_eventlog.eventlog.storage.transaction import Transaction
from agents_eventlog.projections.conversations.builder import MAIN
from agents_eventlog.projections.conversations.paths import Lifeline, Node, Paths
from agents_eventlog.projections.usage.queries import TurnRequest

AT_VERSION = re.compile(r"(.+)@(\d{1,15})", re.ASCII | re.DOTALL)


class Point(NamedTuple):
    """A branch at a version of its session."""

    branch_id: str
    version: int


def compare(
    tx: Transaction, session_id: str, a: str, b: str, paths: Paths | None = None
) -> BranchComparison:
    """
    Compare two branches as ``compare_branches`` does, or earlier versions: ``"main@12"`` is main then.

    paths: those of the session, if they are known.

    Raises BranchNotFoundError, VersionNotFoundError.
    """
    if not any(AT_VERSION.fullmatch(each) for each in (a, b)):
        return comparison.compare_branches(tx, session_id, a, b)
    paths = Paths.read(tx, session_id) if paths is None else paths
    points = [_point(paths, session_id, each) for each in (a, b)]
    tips = [paths.tip(*point) for point in points]
    top = paths.shared(*tips)
    nexts = [paths.nodes[path[0]].turn for tip in tips if (path := paths.path(tip, top))]
    first = min(nexts, default=paths.nodes[top].turn + 1)
    one, other = (_sides(tx, paths, session_id, point, first) for point in points)
    return BranchComparison(
        a=a,
        b=b,
        shared_turns=max(0, first - 1),
        shared_items=paths.nodes[top].depth,
        turns=[
            ComparedTurn(turn=turn, a=one.get(turn), b=other.get(turn))
            for turn in sorted(one.keys() | other.keys())
        ],
        total_a=comparison.total(list(one.values())),
        total_b=comparison.total(list(other.values())),
    )


def _point(paths: Paths, session_id: str, text: str) -> Point:
    found = None if text in paths.moves else AT_VERSION.fullmatch(text)
    branch_id, version = (found[1], int(found[2])) if found else (text, paths.version)
    if version > paths.version:
        raise VersionNotFoundError(session_id=session_id, version=version, actual=paths.version)
    if branch_id != MAIN and not paths.exists(branch_id, version):
        raise BranchNotFoundError(branch_id)
    return Point(branch_id, version)


def _sides(
    tx: Transaction, paths: Paths, session_id: str, point: Point, first: int
) -> dict[int, TurnSide]:
    """Return the turns of a branch at a version from ``first`` on, by their numbers."""
    reader = ItemReader(tx, paths)
    last = paths.nodes[paths.tip(*point)].turn
    used = branch_usage.requests(
        tx, paths, session_id, point.branch_id, point.version, first_turn=first, last_turn=last
    )
    requests: dict[int, list[TurnRequest]] = {}
    for request in used:
        then = paths.version_of(request.position)
        theirs = paths.turn_opening(request.branch_id, request.turn, then)
        if theirs == paths.turn_opening(point.branch_id, request.turn, point.version):
            requests.setdefault(request.turn, []).append(request)
    nodes = (node for node in paths.items(*point) if node.turn >= first)
    sides = {}
    for turn, some in groupby(nodes, key=lambda node: node.turn):
        shown = [(node, _shown(reader, paths, node, point.version)) for node in some]
        times = [item.origin.occurred_at for _, item in shown]
        sides[turn] = TurnSide(
            **_usage(requests.get(turn, []), (times[-1] - times[0]) / 1_000_000),
            started_at=timestamps.iso(times[0]),
            items=[_row(node, item) for node, item in shown],
        )
    return sides


def _shown(reader: ItemReader, paths: Paths, node: Node, version: int) -> ShownItem:
    return reader.shown(Lifeline(paths.number(node.ref) or 0, node.version, None), version)


def _row(node: Node, item: ShownItem) -> TranscriptRow:
    return TranscriptRow(
        turn=node.turn,
        position=node.ref.position,
        index=node.ref.index,
        version=node.version,
        time=timestamps.iso(item.origin.occurred_at),
        branch_id=node.branch_id,
        actor=item.origin.actor,
        item=item.item,
        is_erased=item.withheld == "erased",
        withheld=item.withheld,
        is_redacted=item.redaction is not None,
    )


def _usage(requests: Sequence[TurnRequest], seconds: float) -> TurnUsage:
    return TurnUsage(
        requests=sum(each.requests for each in requests),
        input_tokens=sum(each.input_tokens for each in requests),
        output_tokens=sum(each.output_tokens for each in requests),
        total_tokens=sum(each.total_tokens for each in requests),
        total_cost=sum(each.cost_usd or 0.0 for each in requests),
        unpriced_requests=sum(each.requests for each in requests if each.cost_usd is None),
        models=sorted({each.model for each in requests if each.model is not None}),
        seconds=seconds,
    )
