"""
The recorded requests of a run: a log records each request once.

A run is identified by its ``Usage`` object, which also counts the requests of agents used as tools, and of
the run when it is resumed. A ``RunTracker`` attached to the object holds the recorded requests. A run that
was resumed from a serialised state has a new object. It is recognised by its first requests: the session
has recorded a run with the same ones. A state may be resumed several times: each time adds only its own
requests.
"""

from __future__ import annotations

import copy
import secrets
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

from agents_eventlog.adapters.conversations import commands
from agents_eventlog.adapters.conversations.budgets import Budget, BudgetUsage
from agents_eventlog.adapters.conversations.commands import SessionContext
from agents_eventlog.adapters.conversations.concurrent_runs import RunPlace
from agents_eventlog.adapters.openai_agents.request_origin import RequestOrigin
from agents_eventlog.adapters.openai_agents.usage.snapshot import (
    NOTHING,
    Numbers,
    UsageSnapshot,
    minus,
    of_numbers,
)
from agents_eventlog.eventlog.events import ItemRef, RequestUsage
from agents_eventlog.eventlog.storage.engine import Store
from agents_eventlog.eventlog.storage.transaction import Transaction
from agents_eventlog.projections.conversations import queries as conversation_queries
from agents_eventlog.projections.usage import queries as usage_queries
from agents_eventlog.projections.usage.builder import numbers
from agents_eventlog.projections.usage.queries import RecordedRequest

LogName: TypeAlias = "str | weakref.ref[Store]"
"""Identifies a log. It is copied with the usage object, so it must not hold the store."""


@dataclass(frozen=True)
class RunRecord:
    """
    The recorded usage of a run.

    requests: recorded requests that the usage object lists, by session id and index in the list.
    unitemised: by session id, the sum of the recorded usage that the list does not contain.
    """

    run_id: str
    requests: Mapping[tuple[str, int], RecordedRequest] = field(default_factory=dict)
    unitemised: Mapping[str, Numbers] = field(default_factory=dict)


@dataclass
class RunTracker:
    """
    The state of a usage object's run in one log.

    begins: by id of each session that the Runner uses, the index of the first request it may record.
    before: the number of requests before the Runner's first call; the log may hold them already.
    run: the recorded usage. Only units of work change it; a rollback restores the former value.
    approved: whether the run has approvals, as a resumed run does; None if unknown.
    has_hooks: whether hooks see the run's requests.
    places: where the run is in each session that it uses, by session id.
    """

    begins: dict[str, int] = field(default_factory=dict)
    before: int | None = None
    run: RunRecord | None = None
    approved: bool | None = None
    has_hooks: bool = False
    places: dict[str, RunPlace] = field(default_factory=dict)

    def begin(self, session_id: str, count: int, *, is_nested: bool) -> None:
        """
        Register a session that the Runner uses, after the run's first ``count`` requests.

        is_nested: whether a tool of the run calls the session.

        Earlier requests belong to a session registered before, or to the agent that uses this run as a
        tool. Without either, they belong to this session, and may be recorded already.
        """
        if self.before is None:
            self.before = 0 if is_nested else count
        is_own = self.run is not None and any(
            session == session_id for session, _ in self.run.requests
        )
        is_first = not self.begins and not is_nested
        self.begins.setdefault(session_id, 0 if is_own or is_first else count)

    # Which session records which requests of a run:
    #
    # 1. The Runner uses only session "a": "a" records each request once; recorded requests are known.
    # 2. The Runner also uses "b", from request n (an agent used as a tool has its own session, or a tool
    #    adds items to another session): requests that "a" or "b" recorded are known to both. The first n
    #    requests are always known to "b", because "a" records them.
    # 3. The Runner does not use "c", but the application calls ``c.store_run_usage(result)`` to count the
    #    whole run there, too: only requests that "c" recorded itself are known.

    def known(self, session_id: str) -> set[int]:
        """Return the indexes of the requests that the session must not record."""
        recorded = () if self.run is None else self.run.requests
        if session_id not in self.begins:
            return {index for session, index in recorded if session == session_id}
        return {index for _, index in recorded} | set(range(self.begins[session_id]))

    def rest_known(self, session_id: str) -> Numbers:
        """Return the sum of the unitemised usage that the session must not record."""
        recorded = {} if self.run is None else self.run.unitemised
        if session_id not in self.begins:
            return recorded.get(session_id, NOTHING)
        return tuple(map(sum, zip(*recorded.values(), strict=True))) or NOTHING


def log_name(store: Store) -> LogName:
    """Return what identifies a store's log."""
    return weakref.ref(store) if store.is_memory else store.path


@dataclass(eq=False)
class TrackedRun:
    """
    The state that is attached to a usage object; copies of the object get a copy, pickled ones none.

    origins: the origin of each observed request, by its index.
    trackers: what each log has recorded.
    """

    origins: dict[int, RequestOrigin] = field(default_factory=dict)
    trackers: dict[LogName, RunTracker] = field(default_factory=dict)

    def tracker(self, store: Store) -> RunTracker:
        """Return the run's tracker in a store's log."""
        return self.trackers.setdefault(log_name(store), RunTracker())

    def __deepcopy__(self, memo: dict[int, Any]) -> TrackedRun:
        """Return a copy, as the SDK needs it for each state of an interrupted run."""
        return TrackedRun(dict(self.origins), copy.deepcopy(self.trackers, memo))

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle without state: tasks and stores belong to this process."""
        return TrackedRun, ()


def record(
    tx: Transaction,
    context: SessionContext,
    tracker: RunTracker,
    snapshot: UsageSnapshot,
    *,
    even_nothing: bool = False,
) -> RunRecord:
    """
    Record a run's new usage on the turn that it answers; return the run's recorded usage.

    even_nothing: record a run without usage, too.
    """
    session_id = context.session_id
    before = tracker.run
    tx.on_rollback(lambda: setattr(tracker, "run", before))
    run = tracker.run = (
        before or _resumed(tx, context, tracker, snapshot) or RunRecord(secrets.token_hex(16))
    )
    known = tracker.known(session_id)
    new = {index: request for index, request in snapshot.requests.items() if index not in known}
    rest = tuple(max(0, n) for n in minus(numbers(snapshot.rest), tracker.rest_known(session_id)))
    requests = list(new.values())
    if any(rest) or (even_nothing and not (run.requests or run.unitemised or requests)):
        is_whole = rest == numbers(snapshot.rest)
        requests.append(snapshot.rest if is_whole else of_numbers(rest))
    if not requests:
        return run
    place = tracker.places.get(session_id)
    if place is not None and place.context is not None:
        context = place.context
    turn = None if place is None else place.turn_on(context.branch_id)
    position = commands.record_usage(tx, context, run_id=run.run_id, requests=requests, turn=turn)
    taken = {
        (session_id, index): RecordedRequest(ItemRef(position, at), tx.now, request)
        for at, (index, request) in enumerate(new.items())
    }
    run = replace(run, requests={**run.requests, **taken})
    if len(requests) > len(new):
        summed = minus(rest, tuple(-n for n in run.unitemised.get(session_id, NOTHING)))
        run = replace(run, unitemised={**run.unitemised, session_id: summed})
    tracker.run = run
    return run


def used(
    tx: Transaction,
    context: SessionContext,
    tracker: RunTracker,
    snapshot: UsageSnapshot,
    budget: Budget,
) -> BudgetUsage:
    """Return a run's recorded usage in all sessions, for a budget per run."""
    run = tracker.run or _resumed(tx, context, tracker, snapshot)
    if run is None:
        return BudgetUsage(budget, {"run_id": None}, 0.0, 0)
    requests = {index: each.request for (_, index), each in run.requests.items()}.values()
    rest = tracker.rest_known(context.session_id)
    return BudgetUsage(
        budget,
        {"run_id": run.run_id},
        sum(request.cost_usd or 0.0 for request in requests),
        sum(request.total_tokens for request in requests) + rest[3],
        sum(request.requests for request in requests if request.cost_usd is None) + rest[0],
    )


def _resumed(
    tx: Transaction, context: SessionContext, tracker: RunTracker, snapshot: UsageSnapshot
) -> RunRecord | None:
    """Return the run that these requests continue, if another process recorded its first requests."""
    entries = snapshot.entries[: tracker.before]
    if not entries or (tracker.before is None and tracker.approved is False):
        return None
    session_id, branch_id = context.session_id, context.branch_id
    turn = conversation_queries.place(tx, session_id, branch_id).turn
    here = None if tracker.approved else (branch_id, turn)
    for run in usage_queries.runs_beginning(tx, session_id, entries[0], here):
        if (same := _same(entries, run.requests)) is not None:
            taken = {(session_id, index): each for index, each in same.items()}
            return RunRecord(run.run_id, taken)
    return None


def _same(
    entries: Sequence[Numbers], recorded: Sequence[RecordedRequest]
) -> dict[int, RecordedRequest] | None:
    """
    Match requests with recorded ones, in order; None unless all entries or all recorded ones match.

    Between them may be recorded requests of the same state, resumed another time.
    """
    same: dict[int, RecordedRequest] = {}
    left = iter(recorded)
    for index, entry in enumerate(entries):
        found = next((each for each in left if numbers(each.request) == entry), None)
        if found is None:
            break
        same[index] = found
    return same if len(same) in (len(entries), len(recorded)) else None


def correct(
    tx: Transaction,
    context: SessionContext,
    tracker: RunTracker,
    better: Mapping[int, RequestUsage],
    reason: str,
) -> None:
    """Record corrections of recorded requests, given by their index in the run."""
    before = tracker.run
    if before is None:
        return
    tx.on_rollback(lambda: setattr(tracker, "run", before))
    taken = dict(before.requests)
    corrections = []
    for index, request in better.items():
        known = taken[context.session_id, index]
        if request != known.request:  # otherwise another call has recorded it already
            taken[context.session_id, index] = known._replace(request=request)
            corrections.append(commands.correction(known.ref, known.request, request))
    commands.correct_usage(tx, context.session_id, corrections, reason)
    tracker.run = replace(before, requests=taken)
