"""
Which requests of a run are recorded already: each is recorded once in a log.

A run is known by its ``Usage`` object, which counts up through the run, through the runs of agents that
it uses as tools, and through what it resumes; what is recorded of it is noted there. A run that was
resumed from a serialised state has a new one: it is known by continuing, request by request, a run of
the session that was recorded as waiting for an approval, or in the branch's last turn.
"""

from __future__ import annotations

import secrets
import weakref
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, TypeAlias

from agents_eventlog.adapters.conversations import commands
from agents_eventlog.adapters.conversations.commands import Seat
from agents_eventlog.adapters.openai_agents.request_origin import Answerer, Setting
from agents_eventlog.adapters.openai_agents.usage.snapshot import (
    NOTHING,
    Numbers,
    Seen,
    continues,
    minus,
    of_numbers,
)
from agents_eventlog.eventlog.events import ItemRef, RequestUsage, UsageCorrection
from agents_eventlog.eventlog.storage.sqlite.store import Store
from agents_eventlog.eventlog.storage.transaction import Transaction
from agents_eventlog.projections.conversations import queries as conversation_queries
from agents_eventlog.projections.usage import queries as usage_queries
from agents_eventlog.projections.usage.builder import numbers

_MARKS = "_eventlog_runs"

LogName: TypeAlias = "str | weakref.ref[Store]"
"""What tells a log from others. It is copied with the usage object, so it is nothing but a name."""


class Taken(NamedTuple):
    """A request that is recorded: where, when, and what is recorded of it."""

    ref: ItemRef
    at: int
    request: RequestUsage


@dataclass(frozen=True)
class Run:
    """
    What is recorded of a run.

    taken: its requests, by session and index in the usage object's list.
    rest: by session, the sum of what was recorded beside them.
    """

    run_id: str
    taken: Mapping[tuple[str, int], Taken] = field(default_factory=dict)
    rest: Mapping[str, Numbers] = field(default_factory=dict)


@dataclass
class Mark:
    """
    What a log knows of the run that a usage object belongs to.

    begins: by each session that the Runner feeds, from which request on it takes part.
    before: how many requests there were when the Runner first showed it; they may stand in the log.
    run: what is recorded; changed inside units of work only, and changed back when they are rolled back.
    setting, told: what is known of who answers: by the run's configuration, and by hooks.
    """

    begins: dict[str, int] = field(default_factory=dict)
    before: int | None = None
    run: Run | None = None
    setting: Setting | None = None
    told: dict[int, Answerer] = field(default_factory=dict)

    def begin(self, session_id: str, count: int, *, is_nested: bool) -> None:
        """
        Note that the Runner feeds a session, when the run has made ``count`` requests.

        What was used before belongs to a session that takes part already, or to the agent that uses
        this run as a tool. Where there is neither it is this session's, and may be recorded.
        """
        if self.before is None:
            self.before = 0 if is_nested else count
        is_own = self.run is not None and any(
            session == session_id for session, _ in self.run.taken
        )
        is_first = not self.begins and not is_nested
        self.begins.setdefault(session_id, 0 if is_own or is_first else count)

    def known(self, session_id: str) -> set[int]:
        """Return the indexes of the requests that are not this session's to record."""
        taken = () if self.run is None else self.run.taken
        if session_id not in self.begins:  # it was given the result of others: it takes all of it
            return {index for session, index in taken if session == session_id}
        return {index for _, index in taken} | set(range(self.begins[session_id]))

    def rest_known(self, session_id: str) -> Numbers:
        """Return the sum of the rest that is not this session's to record."""
        rest = {} if self.run is None else self.run.rest
        if session_id not in self.begins:
            return rest.get(session_id, NOTHING)
        return tuple(map(sum, zip(*rest.values(), strict=True))) or NOTHING


def log_name(store: Store) -> LogName:
    """Return what a store's log is called."""
    return weakref.ref(store) if store.is_memory else store.path


def mark_of(usage: Any, log: LogName) -> Mark:
    """Return what a log knows of a usage object's run; copies of the object take it along."""
    try:
        marks: dict[LogName, Mark] = usage.__dict__.setdefault(_MARKS, {})
    except AttributeError:
        return Mark()  # an object of the application's own that takes no attributes
    return marks.setdefault(log, Mark())


def record(
    tx: Transaction,
    seat: Seat,
    mark: Mark,
    seen: Seen,
    *,
    interrupted: bool = False,
    approved: bool | None = None,
    even_nothing: bool = False,
) -> Run:
    """
    Record what is new of a run on the last turn of the seat's branch; return what is recorded then.

    approved: whether the run was given approvals, as one is that is resumed.
    even_nothing: record that nothing was used, if that is all there is.
    """
    session_id = seat.session_id
    before = mark.run
    tx.on_rollback(lambda: setattr(mark, "run", before))
    run = mark.run = (
        before or _resumed(tx, seat, mark, seen, approved) or Run(secrets.token_hex(16))
    )
    known = mark.known(session_id)
    new = {index: request for index, request in seen.requests.items() if index not in known}
    rest = tuple(max(0, n) for n in minus(numbers(seen.rest), mark.rest_known(session_id)))
    requests = list(new.values())
    if any(rest) or (even_nothing and not (run.taken or run.rest or requests)):
        is_whole = rest == numbers(seen.rest)
        requests.append(seen.rest if is_whole else of_numbers(rest))
    if not requests:
        return run
    position = commands.record_usage(
        tx, seat, run_id=run.run_id, requests=requests, interrupted=interrupted
    )
    taken = {
        (session_id, index): Taken(ItemRef(position, place), tx.now, request)
        for place, (index, request) in enumerate(new.items())
    }
    run = replace(run, taken={**run.taken, **taken})
    if len(requests) > len(new):
        summed = minus(rest, tuple(-n for n in run.rest.get(session_id, NOTHING)))
        run = replace(run, rest={**run.rest, session_id: summed})
    mark.run = run
    return run


def _resumed(
    tx: Transaction, seat: Seat, mark: Mark, seen: Seen, approved: bool | None
) -> Run | None:
    """Return the run that these requests continue, of which another process recorded the first ones."""
    if mark.before == 0 or (mark.before is None and approved is False):
        return None
    entries = seen.entries[: mark.before]
    for found in _candidates(tx, seat, mark, approved):
        if found.requests and continues(entries, [each.request for each in found.requests]):
            taken = {
                (seat.session_id, index): Taken(each.ref, each.at, each.request)
                for index, each in enumerate(found.requests)
            }
            return Run(found.run_id, taken)
    return None


def _candidates(
    tx: Transaction, seat: Seat, mark: Mark, approved: bool | None
) -> list[usage_queries.RecordedRun]:
    """Return the runs that may go on: those that wait, and the last ones of the branch's last turn."""
    session_id, branch_id = seat.session_id, seat.branch_id
    turn = conversation_queries.place(tx, session_id, branch_id).turn
    waiting = [] if approved is False else usage_queries.waiting_runs(tx, session_id)
    found = [run for run in waiting if approved or (run.branch_id, run.turn) == (branch_id, turn)]
    return found + (
        usage_queries.runs_of_turn(tx, session_id, branch_id, turn) if mark.before else []
    )


def correct(
    tx: Transaction, seat: Seat, mark: Mark, better: Mapping[int, RequestUsage], reason: str
) -> None:
    """Record what was learnt of recorded requests, by their index in the run."""
    before = mark.run
    if before is None:
        return
    tx.on_rollback(lambda: setattr(mark, "run", before))
    taken = dict(before.taken)
    corrections = []
    for index, request in better.items():
        known = taken[seat.session_id, index]
        if request != known.request:  # nobody else was faster
            taken[seat.session_id, index] = known._replace(request=request)
            corrections.append(correction(known.ref, known.request, request))
    commands.correct_usage(tx, seat.session_id, corrections, reason)
    mark.run = replace(before, taken=taken)


def correction(ref: ItemRef, known: RequestUsage, better: RequestUsage) -> UsageCorrection:
    """Return what differs between what is recorded of a request and what is known now."""
    names = ("response_id", "model", "agent", "cost_usd", "price_source")
    learnt = {
        name: value
        for name in names
        if (value := getattr(better, name)) is not None and value != getattr(known, name)
    }
    return UsageCorrection(request=ref, **learnt)
