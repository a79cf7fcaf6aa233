"""The usage of a branch with all turns that it shows: the requests of those that it shares, too."""

from __future__ import annotations

from typing import TypedDict

from agents_eventlog.adapters.conversations import timestamps
from agents_eventlog.adapters.conversations.outline import check_branch
from agents_eventlog.eventlog import codec
from agents_eventlog.eventlog.storage.transaction import RunUnit, Transaction
from agents_eventlog.projections.conversations import as_of as past
from agents_eventlog.projections.conversations.as_of import AsOf
from agents_eventlog.projections.conversations.paths import Paths
from agents_eventlog.projections.usage import queries as usage_queries
from agents_eventlog.projections.usage.queries import TurnRequest


class BranchRequest(TypedDict):
    """
    A model request of a turn that a branch shows.

    branch_id: the branch on which it was recorded. version: of the session, after it was recorded.
    requests: the number of requests, if only their sum was recorded.
    is_live: False if its turn was removed. cost_usd: None without a known price. time: ISO 8601, in UTC.
    """

    turn: int
    branch_id: str
    version: int
    time: str
    run_id: str
    model: str | None
    agent: str | None
    requests: int
    input_tokens: int
    cached_input_tokens: int
    output_tokens: int
    total_tokens: int
    cost_usd: float | None
    is_live: bool


def requests(
    tx: Transaction,
    paths: Paths,
    session_id: str,
    branch_id: str,
    version: int,
    *,
    first_turn: int,
    last_turn: int,
) -> list[TurnRequest]:
    """
    Return the requests of turns that a branch shows at a version, in the order of recording.

    A shared turn was recorded on the branch on which it was written. The requests of turns that were
    removed from the branch itself are included.
    """
    if not version:
        return []
    last_position = paths.changes[version - 1].position
    found = []
    for request in usage_queries.requests_of_turns(tx, session_id, first_turn, last_turn):
        if request.position > last_position:
            continue
        then = paths.version_of(request.position)
        theirs = paths.turn_opening(request.branch_id, request.turn, then)
        ours = paths.turn_opening(branch_id, request.turn, version)
        was_ours = request.branch_id == branch_id  # on a turn that was removed since
        if theirs is not None and (theirs == ours or was_ours):
            found.append(request)
    return found


async def branch_usage(
    read: RunUnit, session_id: str, *, branch_id: str | None, as_of: AsOf | None
) -> list[BranchRequest]:
    """Return the rows of ``ConversationLog.branch_usage``."""
    codec.check_text("session_id", session_id)

    def unit(tx: Transaction) -> list[BranchRequest]:
        paths = Paths.read(tx, session_id)
        version = paths.version if as_of is None else past.version_at(tx, session_id, as_of)
        branch = check_branch(tx, paths, session_id, branch_id)
        last = paths.lifelines(branch).last_turn(version)
        found = requests(tx, paths, session_id, branch, version, first_turn=0, last_turn=last)
        return [_row(paths, each) for each in found]

    rows: list[BranchRequest] = await read(unit)
    return rows


def _row(paths: Paths, request: TurnRequest) -> BranchRequest:
    return BranchRequest(
        turn=request.turn,
        branch_id=request.branch_id,
        version=paths.version_of(request.position),
        time=timestamps.iso(request.occurred_at),
        run_id=request.run_id,
        model=request.model,
        agent=request.agent,
        requests=request.requests,
        input_tokens=request.input_tokens,
        cached_input_tokens=request.cached_input_tokens,
        output_tokens=request.output_tokens,
        total_tokens=request.total_tokens,
        cost_usd=request.cost_usd,
        is_live=bool(request.is_live),
    )
