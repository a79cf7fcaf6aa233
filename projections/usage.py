"""Tokens and cost of every model request, by request, turn, branch, run and session."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, NamedTuple

from eventlog import codec
from eventlog.events import (
    JSON,
    BranchDeleted,
    Event,
    ItemPopped,
    RequestUsage,
    SessionCleared,
    UsageRecorded,
)
from eventlog.recorded import Recorded
from eventlog.transaction import Transaction
from projections.shape import json_text

USAGE = """
    CREATE TABLE usage (
        position             INTEGER NOT NULL,
        index_in_event       INTEGER NOT NULL,
        session_id           TEXT    NOT NULL,
        branch_id            TEXT    NOT NULL,
        turn                 INTEGER,
        is_live              INTEGER NOT NULL,
        run_id               TEXT    NOT NULL,
        is_interrupted       INTEGER NOT NULL,
        requests             INTEGER NOT NULL,
        input_tokens         INTEGER NOT NULL,
        output_tokens        INTEGER NOT NULL,
        total_tokens         INTEGER NOT NULL,
        cached_input_tokens  INTEGER NOT NULL,
        cache_write_tokens   INTEGER NOT NULL,
        reasoning_tokens     INTEGER NOT NULL,
        input_token_details  TEXT,
        output_token_details TEXT,
        response_id          TEXT,
        model                TEXT,
        agent                TEXT,
        cost_usd             REAL,
        price_source         TEXT,
        occurred_at          INTEGER NOT NULL,
        PRIMARY KEY (position, index_in_event)
    ) STRICT, WITHOUT ROWID
"""
USAGE_OF_TURN = "CREATE INDEX usage_of_turn ON usage (session_id, branch_id, turn)"
INSERT = f"INSERT INTO usage VALUES ({', '.join('?' * 23)})"
END_TURN = """
    UPDATE usage SET is_live = 0
    WHERE session_id = ? AND branch_id = ? AND turn = ? AND is_live = 1
"""
END_BRANCH = """
    UPDATE usage SET is_live = 0 WHERE session_id = ? AND branch_id = ? AND is_live = 1
"""
END_SESSION = "UPDATE usage SET is_live = 0 WHERE session_id = ? AND is_live = 1"


class Usage:
    """
    One row for each model request (or each sum of requests, where only that is known).

    ``is_live`` tells whether the turn that it belongs to still stands; what was spent stays either way.
    """

    name: ClassVar[str] = "usage"
    version: ClassVar[int] = 1
    schema: ClassVar[Sequence[str]] = (USAGE, USAGE_OF_TURN)
    handles: ClassVar[Sequence[type[Event]]] = (
        UsageRecorded,
        ItemPopped,
        BranchDeleted,
        SessionCleared,
    )

    def apply(self, tx: Transaction, events: Sequence[Recorded]) -> None:
        """Add rows for what was used; end rows whose turn, branch or history is gone."""
        rows: list[tuple[Any, ...]] = []
        for recorded in events:
            event = recorded.event
            if isinstance(event, UsageRecorded):
                rows.extend(_rows(recorded, event))
                continue
            end = _end_of(recorded, event)
            if end is not None:
                tx.executemany(INSERT, rows)
                rows = []
                tx.execute(*end)
        tx.executemany(INSERT, rows)


def _end_of(recorded: Recorded, event: Event | None) -> tuple[str, tuple[Any, ...]] | None:
    """Return the statement that ends what this event takes away, if it takes away anything."""
    session_id, branch_id = recorded.session_id, recorded.branch_id or "main"
    if isinstance(event, ItemPopped) and event.emptied_turn is not None:
        return END_TURN, (session_id, branch_id, event.emptied_turn)
    if isinstance(event, BranchDeleted):
        return END_BRANCH, (session_id, event.branch_id)
    if isinstance(event, SessionCleared):
        return END_SESSION, (session_id,)
    return None


def _rows(recorded: Recorded, event: UsageRecorded) -> list[tuple[Any, ...]]:
    return [
        (
            recorded.position,
            index,
            recorded.session_id,
            recorded.branch_id or "main",
            event.turn,
            int(event.turn is not None),
            event.run_id,
            int(event.interrupted),
            *_numbers(request),
            _details(request.input_tokens_details),
            _details(request.output_tokens_details),
            request.response_id,
            request.model,
            request.agent,
            request.cost_usd,
            request.price_source,
            recorded.occurred_at,
        )
        for index, request in enumerate(event.requests)
    ]


def _numbers(request: RequestUsage) -> tuple[int, ...]:
    return (
        request.requests,
        request.input_tokens,
        request.output_tokens,
        request.total_tokens,
        request.cached_input_tokens,
        request.cache_write_tokens,
        request.reasoning_tokens,
    )


def _details(details: dict[str, JSON] | None) -> str | None:
    return None if details is None else json_text(details)


# -- what readers ask ---------------------------------------------------------------------------

SUMS = """
    SUM(requests), SUM(input_tokens), SUM(output_tokens), SUM(total_tokens),
    SUM(cached_input_tokens), SUM(cache_write_tokens), SUM(reasoning_tokens)
"""
TURNS = """
    SELECT turn, requests, input_tokens, output_tokens, total_tokens, input_token_details,
        output_token_details
    FROM usage
    WHERE session_id = ? AND branch_id = ? AND turn IS NOT NULL AND is_live = 1
    ORDER BY turn, position, index_in_event
"""
LIVE_TOTAL = """
    SELECT SUM(requests), SUM(input_tokens), SUM(output_tokens), SUM(total_tokens), COUNT(*)
    FROM (
        SELECT SUM(requests) AS requests, SUM(input_tokens) AS input_tokens,
            SUM(output_tokens) AS output_tokens, SUM(total_tokens) AS total_tokens
        FROM usage
        WHERE session_id = ? AND (? IS NULL OR branch_id = ?) AND is_live = 1
        GROUP BY branch_id, turn
    ) AS turns
"""
SPENT = f"""
    SELECT COUNT(DISTINCT run_id), {SUMS}, SUM(cost_usd),
        SUM(CASE WHEN cost_usd IS NULL THEN requests ELSE 0 END)
    FROM usage
    WHERE session_id = ?
"""
INTERRUPTED_RUNS = """
    SELECT run_id, MAX(position) AS last
    FROM usage
    WHERE session_id = ? AND is_interrupted = 1
    GROUP BY run_id
    ORDER BY last DESC
"""
REQUESTS_OF_RUN = """
    SELECT branch_id, turn, is_interrupted, requests, input_tokens, output_tokens, total_tokens,
        cached_input_tokens, cache_write_tokens, reasoning_tokens, response_id
    FROM usage
    WHERE session_id = ? AND run_id = ?
    ORDER BY position, index_in_event
"""


_REQUEST_FIELDS = (
    "requests",
    "input_tokens",
    "output_tokens",
    "total_tokens",
    "cached_input_tokens",
    "cache_write_tokens",
    "reasoning_tokens",
    "response_id",
)


class WaitingRun(NamedTuple):
    """A run that waits for an approval: where it stood, and its requests so far."""

    run_id: str
    branch_id: str
    turn: int | None
    requests: list[RequestUsage]


class Tokens(NamedTuple):
    """Sums of tokens. The details are summed key by key where they are numbers."""

    requests: int
    input_tokens: int
    output_tokens: int
    total_tokens: int
    input_tokens_details: dict[str, JSON] | None
    output_tokens_details: dict[str, JSON] | None


class Spent(NamedTuple):
    """All that a session ever used, whatever became of its items."""

    runs: int
    requests: int
    input_tokens: int
    output_tokens: int
    total_tokens: int
    cached_input_tokens: int
    cache_write_tokens: int
    reasoning_tokens: int
    cost_usd: float
    unpriced_requests: int


def by_turn(tx: Transaction, session_id: str, branch_id: str) -> dict[int, Tokens]:
    """Return what each live turn of a branch used, by turn."""
    turns: dict[int, Tokens] = {}
    for turn, *numbers, input_details, output_details in tx.execute(TURNS, (session_id, branch_id)):
        requests, read, written, total = numbers
        details = (_loaded(input_details), _loaded(output_details))
        used = Tokens(requests, read, written, total, *details)
        turns[turn] = used if turn not in turns else _plus(turns[turn], used)
    return turns


def live_total(
    tx: Transaction, session_id: str, branch_id: str | None
) -> tuple[int, int, int, int, int] | None:
    """Return (requests, input, output, total tokens, turns) of live turns; None if there are none."""
    row = tx.one(LIVE_TOTAL, (session_id, branch_id, branch_id))
    return None if row is None or row[0] is None else (row[0], row[1], row[2], row[3], row[4])


def spent(tx: Transaction, session_id: str) -> Spent:
    """Return all that a session ever used."""
    row = tx.one(SPENT, (session_id,)) or ()
    numbers = [value or 0 for value in row]
    numbers[8] = float(numbers[8])
    return Spent(*numbers)


def waiting_runs(tx: Transaction, session_id: str) -> Iterator[WaitingRun]:
    """Return the session's runs that wait for an approval as far as is recorded, the last first."""
    for run_id, _ in tx.all(INTERRUPTED_RUNS, (session_id,)):
        rows = tx.all(REQUESTS_OF_RUN, (session_id, run_id))
        branch_id, turn, is_interrupted = rows[-1][:3]
        if is_interrupted:
            requests = [
                RequestUsage(**dict(zip(_REQUEST_FIELDS, row[3:], strict=True))) for row in rows
            ]
            yield WaitingRun(run_id, branch_id, turn, requests)


def sum_details(
    left: dict[str, JSON] | None, right: dict[str, JSON] | None
) -> dict[str, JSON] | None:
    """Add two details key by key; what is no number is taken from the later one."""
    if left is None or right is None:
        return right if left is None else left
    summed = {**left, **right}
    for key in left.keys() & right.keys():
        if isinstance(left[key], int | float) and isinstance(right[key], int | float):
            summed[key] = left[key] + right[key]
    return summed


def _plus(left: Tokens, right: Tokens) -> Tokens:
    return Tokens(
        left.requests + right.requests,
        left.input_tokens + right.input_tokens,
        left.output_tokens + right.output_tokens,
        left.total_tokens + right.total_tokens,
        sum_details(left.input_tokens_details, right.input_tokens_details),
        sum_details(left.output_tokens_details, right.output_tokens_details),
    )


def _loaded(details: str | None) -> dict[str, JSON] | None:
    return None if details is None else codec.decode_metadata(details)
