"""Tokens and cost of every model request; and their sums by day, session, model and agent."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import chain, islice
from operator import attrgetter
from typing import Any, ClassVar, Final, TypeAlias

from agents_eventlog.eventlog.events import (
    JSON,
    BranchDeleted,
    Event,
    ItemPopped,
    RequestUsage,
    SessionCleared,
    TurnRedone,
    TurnUndone,
    UsageCorrected,
    UsageCorrection,
    UsageRecorded,
)
from agents_eventlog.eventlog.item_kind import json_text
from agents_eventlog.eventlog.recorded_event import RecordedEvent
from agents_eventlog.eventlog.storage.transaction import Insert, Row, Transaction
from agents_eventlog.projections.base import Projection

DAY: Final = 86_400_000_000
"""Microseconds. Days are counted from 1970, in UTC."""

NANOS: Final = 1_000_000_000
"""Costs are summed in billionths of a USD: whole numbers give the same sum in any order."""

MOST_NANOS: Final = 2**53

USAGE = """
    CREATE TABLE usage (
        position             INTEGER NOT NULL,
        index_in_event       INTEGER NOT NULL,
        session_id           TEXT    NOT NULL,
        branch_id            TEXT    NOT NULL,
        turn                 INTEGER,
        is_live              INTEGER NOT NULL,
        run_id               TEXT    NOT NULL,
        begins_run           INTEGER NOT NULL,
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
        endpoint             TEXT,
        service_tier         TEXT,
        cost_usd             REAL,
        cost_nanos           INTEGER NOT NULL,
        price_source         TEXT,
        occurred_at          INTEGER NOT NULL,
        undone_version       INTEGER,
        PRIMARY KEY (position, index_in_event)
    )
"""
USAGE_OF_TURN = "CREATE INDEX usage_of_turn ON usage (session_id, branch_id, turn)"
USAGE_OF_RUN = "CREATE INDEX usage_of_run ON usage (session_id, run_id) WHERE begins_run = 1"
USAGE_BY_DAY = """
    CREATE TABLE usage_by_day (
        day                  INTEGER NOT NULL,
        session_id           TEXT    NOT NULL,
        model                TEXT    NOT NULL,
        agent                TEXT    NOT NULL,
        entries              INTEGER NOT NULL,
        runs                 INTEGER NOT NULL,
        requests             INTEGER NOT NULL,
        input_tokens         INTEGER NOT NULL,
        output_tokens        INTEGER NOT NULL,
        total_tokens         INTEGER NOT NULL,
        cached_input_tokens  INTEGER NOT NULL,
        cache_write_tokens   INTEGER NOT NULL,
        reasoning_tokens     INTEGER NOT NULL,
        cost_nanos           INTEGER NOT NULL,
        unpriced_requests    INTEGER NOT NULL,
        PRIMARY KEY (day, session_id, model, agent)
    )
"""
COUNTS: Final = (
    "requests",
    "input_tokens",
    "output_tokens",
    "total_tokens",
    "cached_input_tokens",
    "cache_write_tokens",
    "reasoning_tokens",
)
"""What is counted of a request, in the order of the columns."""

SUMMED: Final = ("entries", "runs", *COUNTS, "cost_nanos", "unpriced_requests")
INSERT = Insert(
    "usage",
    (
        *("position", "index_in_event", "session_id", "branch_id", "turn", "is_live", "run_id"),
        *("begins_run", "is_interrupted", *COUNTS, "input_token_details", "output_token_details"),
        *("response_id", "model", "agent", "endpoint", "service_tier"),
        *("cost_usd", "cost_nanos", "price_source", "occurred_at"),
    ),
)
ADD = f"""
    INSERT INTO usage_by_day VALUES ({", ".join("?" * 15)})
    ON CONFLICT (day, session_id, model, agent) DO UPDATE SET
    {", ".join(f"{name} = usage_by_day.{name} + excluded.{name}" for name in SUMMED)}
"""
DROP_EMPTY = """
    DELETE FROM usage_by_day
    WHERE day = ? AND session_id = ? AND model = ? AND agent = ? AND entries = 0
"""
KNOWN_RUNS = """
    SELECT session_id, run_id
    FROM (VALUES (?, ?)) AS asked
    JOIN usage ON session_id = asked.column1 AND run_id = asked.column2
    WHERE begins_run = 1
"""
MOST_ASKED = 500
"""After how many runs one statement asks."""
REQUEST = f"""
    SELECT session_id, response_id, model, agent, endpoint, service_tier, cost_usd, price_source,
        occurred_at, begins_run, {", ".join(COUNTS)}
    FROM usage
    WHERE position = ? AND index_in_event = ?
"""
CORRECT = """
    UPDATE usage
    SET response_id = ?, model = ?, agent = ?, endpoint = ?, service_tier = ?,
        cost_usd = ?, cost_nanos = ?, price_source = ?
    WHERE position = ? AND index_in_event = ?
"""
END_TURN = """
    UPDATE usage SET is_live = 0
    WHERE session_id = ? AND branch_id = ? AND turn = ? AND is_live = 1
"""
END_BRANCH = """
    UPDATE usage SET is_live = 0 WHERE session_id = ? AND branch_id = ? AND is_live = 1
"""
END_SESSION = "UPDATE usage SET is_live = 0 WHERE session_id = ? AND is_live = 1"
UNDO_TURN = """
    UPDATE usage SET is_live = 0, undone_version = ?
    WHERE session_id = ? AND branch_id = ? AND turn = ? AND is_live = 1
"""
REDO_TURN = """
    UPDATE usage SET is_live = 1, undone_version = NULL
    WHERE session_id = ? AND branch_id = ? AND undone_version = ?
"""

numbers: Final[Callable[[RequestUsage], tuple[int, ...]]] = attrgetter(*COUNTS)
"""Returns how many requests and tokens of each kind, in the order of the columns."""

RunKey: TypeAlias = tuple[str, str]
"""A session and the id of one of its runs."""

DayGroup: TypeAlias = tuple[int, str, str, str]
"""A day, a session, a model and an agent; what is not known is the empty text."""


class Usage(Projection):
    """
    ``usage``: one row for each model request (or each sum of requests, where only that is known).
    ``usage_by_day``: their sums by day, session, model and agent.

    ``is_live``: whether its turn is active; rows of other turns still count in totals. ``undone_version``:
    the version of the session at which its turn was undone, unless it was redone.
    ``begins_run``: 1 for the first request of each of a session's runs, so that its sum is the number of
    runs.
    """

    name: ClassVar[str] = "usage"
    version: ClassVar[int] = 5  # 5: whether the turn of each request was undone
    schema: ClassVar[Sequence[str]] = (USAGE, USAGE_OF_TURN, USAGE_OF_RUN, USAGE_BY_DAY)
    handles: ClassVar[Sequence[type[Event]]] = (
        UsageRecorded,
        UsageCorrected,
        ItemPopped,
        TurnUndone,
        TurnRedone,
        BranchDeleted,
        SessionCleared,
    )

    def apply(self, tx: Transaction, events: Sequence[RecordedEvent]) -> None:
        """Add rows for what was used; correct rows; end those whose turn, branch or history is gone."""
        batch = _Batch(tx, _known_runs(tx, events))
        for recorded in events:
            event = recorded.event
            if isinstance(event, UsageRecorded):
                batch.record(recorded, event)
            elif isinstance(event, UsageCorrected):
                batch.correct(event)
            elif (change := _change_of(recorded, event)) is not None:
                batch.write_rows()
                tx.execute(*change)
        batch.write_rows()
        batch.write_sums()


class _Batch:
    """The rows and sums that a batch of events adds, until they are written together."""

    def __init__(self, tx: Transaction, known_runs: set[RunKey]) -> None:
        self._tx = tx
        self._known_runs = known_runs
        self._rows: list[tuple[Any, ...]] = []
        self._counted: dict[DayGroup, list[list[int]]] = {}
        self._left: set[DayGroup] = set()

    def record(self, recorded: RecordedEvent, event: UsageRecorded) -> None:
        """Add what a run's requests used."""
        begins_run = bool(event.requests) and self._begins(recorded.session_id, event.run_id)
        for index, request in enumerate(event.requests):
            begins = int(begins_run and index == 0)
            self._rows.append(_row(recorded, event, index, request, begins))
            group = _group(recorded.occurred_at, recorded.session_id, request.model, request.agent)
            self._add(group, _counted(begins, numbers(request), request.cost_usd))

    def correct(self, event: UsageCorrected) -> None:
        """Replace requests by their corrections, and update the sums."""
        self.write_rows()
        for correction in event.requests:
            ref = correction.request
            known = self._tx.one(REQUEST, (ref.position, ref.index))
            if known is not None:
                self._correct(known, correction)

    def write_rows(self) -> None:
        """Write the rows of requests; statements that look for them see them then."""
        if self._rows:
            self._tx.defer(INSERT, self._rows)
            self._rows = []

    def write_sums(self) -> None:
        """Add to the sums of each group; one that nothing belongs to any more goes."""
        sums = [
            (*group, *map(sum, zip(*counted, strict=True)))
            for group, counted in self._counted.items()
        ]
        if sums:
            self._tx.defer(ADD, sums)
        if self._left:
            self._tx.executemany(DROP_EMPTY, self._left)

    def _begins(self, session_id: str, run_id: str) -> bool:
        run = (session_id, run_id)
        begins = run not in self._known_runs
        self._known_runs.add(run)
        return begins

    def _correct(self, known: Row, correction: UsageCorrection) -> None:
        session_id, response_id, model, agent, endpoint, tier, cost, source, *rest = known
        at, begins_run, *used = rest
        before = _group(at, session_id, model, agent)
        self._add(before, [-number for number in _counted(begins_run, used, cost)])
        self._left.add(before)
        model, agent = _better(correction.model, model), _better(correction.agent, agent)
        cost = _better(correction.cost_usd, cost)
        self._add(_group(at, session_id, model, agent), _counted(begins_run, used, cost))
        learnt = (
            _better(correction.response_id, response_id),
            model,
            agent,
            _better(correction.endpoint, endpoint),
            _better(correction.service_tier, tier),
            cost,
            nanos(cost),
            _better(correction.price_source, source),
        )
        ref = correction.request
        self._tx.execute(CORRECT, (*learnt, ref.position, ref.index))

    def _add(self, group: DayGroup, counted: list[int]) -> None:
        self._counted.setdefault(group, []).append(counted)


def _known_runs(tx: Transaction, events: Sequence[RecordedEvent]) -> set[RunKey]:
    """Return which runs of these events the tables know already."""
    runs = {
        (recorded.session_id, event.run_id): None  # in order
        for recorded in events
        if isinstance(event := recorded.event, UsageRecorded)
    }
    known: set[RunKey] = set()
    asking = iter(runs)
    while some := [*islice(asking, MOST_ASKED)]:
        sql = KNOWN_RUNS.replace("(?, ?)", ", ".join(["(?, ?)"] * len(some)))
        known.update(tx.execute(sql, [*chain.from_iterable(some)]))
    return known


def nanos(cost_usd: float | None) -> int:
    """Return a cost in billionths of a USD; 0 where it is not known, or no amount of money."""
    if cost_usd is None or not math.isfinite(cost_usd):
        return 0
    return round(max(-MOST_NANOS, min(MOST_NANOS, cost_usd * NANOS)))


def _group(occurred_at: int, session_id: str, model: str | None, agent: str | None) -> DayGroup:
    return occurred_at // DAY, session_id, model or "", agent or ""


def _counted(begins_run: int, used: Sequence[int], cost_usd: float | None) -> list[int]:
    """Return what one request adds to the sums, in the order of ``SUMMED``."""
    unpriced = used[0] if cost_usd is None else 0
    return [1, begins_run, *used, nanos(cost_usd), unpriced]


def _better(learnt: Any, known: Any) -> Any:
    return known if learnt is None else learnt


def _change_of(recorded: RecordedEvent, event: Event | None) -> tuple[str, tuple[Any, ...]] | None:
    """Return the statement for the rows that this event ends or makes live again, if any."""
    session_id, branch_id = recorded.session_id, recorded.branch_id or "main"
    if isinstance(event, ItemPopped) and event.emptied_turn is not None:
        return END_TURN, (session_id, branch_id, event.emptied_turn)
    if isinstance(event, TurnUndone):
        return UNDO_TURN, (recorded.version, session_id, branch_id, event.turn)
    if isinstance(event, TurnRedone):
        return REDO_TURN, (session_id, branch_id, event.undone_version)
    if isinstance(event, BranchDeleted):
        return END_BRANCH, (session_id, event.branch_id)
    if isinstance(event, SessionCleared):
        return END_SESSION, (session_id,)
    return None


def _row(
    recorded: RecordedEvent,
    event: UsageRecorded,
    index: int,
    request: RequestUsage,
    begins_run: int,
) -> tuple[Any, ...]:
    return (
        recorded.position,
        index,
        recorded.session_id,
        recorded.branch_id or "main",
        event.turn,
        int(event.turn is not None),
        event.run_id,
        begins_run,
        int(event.interrupted),
        *numbers(request),
        _details(request.input_tokens_details),
        _details(request.output_tokens_details),
        request.response_id,
        request.model,
        request.agent,
        request.endpoint,
        request.service_tier,
        request.cost_usd,
        nanos(request.cost_usd),
        request.price_source,
        recorded.occurred_at,
    )


def _details(details: dict[str, JSON] | None) -> str | None:
    return None if details is None else json_text(details)
