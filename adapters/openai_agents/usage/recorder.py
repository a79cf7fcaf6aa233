"""
The recorder of the usage of a session's runs.

The SDK does not pass usage to a session. The Runner passes its run context with each call instead, and the
context holds one usage object, which gains an entry with each request of the run. Each writing call
compares the usage object with the recorded requests, and records the new ones in its own transaction.
An example: the session "talk", and an agent Desk with a tool that runs an agent Expert:

    call of the Runner             entries of the usage object   recorded in the same transaction
    get_items()                    none                          nothing: reads never write
    add_items([question])          none                          nothing; turn 1 starts
    (Desk answers: call the tool)  0
    (Expert answers the tool)      0 1
    add_items([call, its output])  0 1                           0: run r, turn 1, Desk and its model
                                                                 1: run r, turn 1, agent unknown
    (Desk answers)                 0 1 2
    add_items([answer])            0 1 2                         2: run r, turn 1, Desk and its model

Run: the usage object identifies the run (see ``usage.runs``); Expert's run shares that of Desk. Turn:
requests are recorded before the items of the call. They get the turn that they answered, even if the new
items start another turn. Agent and model: if the items contain output of a model, the current agent made
the first new request. For other requests, hooks (``UsageHooks``) or the result (``store_run_usage``)
supply the agent and the model; otherwise they are unknown.

If a tool raises or a guardrail trips, the SDK never adds the items of a request. Such a request is recorded

- in the background, when the task of the run ends;
- with the next call of the session object from the same task, which means that the run has ended;
- after the session object is garbage-collected: when the event loop continues, at the latest before the
  next write of any session in the process;
- on ``close()``, and at the latest when the program ends.
"""

from __future__ import annotations

import asyncio
import atexit
import logging
import os
import weakref
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from typing import Any, TypeVar

import msgspec
from agents import RunConfig
from agents.tool_context import ToolContext

from agents_eventlog.adapters.conversations import pricing
from agents_eventlog.adapters.conversations.commands import SessionContext
from agents_eventlog.adapters.conversations.concurrent_runs import RunCall
from agents_eventlog.adapters.conversations.pricing import Prices
from agents_eventlog.adapters.openai_agents import request_origin, sdk_internals
from agents_eventlog.adapters.openai_agents.request_origin import RequestOrigin
from agents_eventlog.adapters.openai_agents.unit_runner import UnitRunner
from agents_eventlog.adapters.openai_agents.usage import runs
from agents_eventlog.adapters.openai_agents.usage import snapshot as usage_snapshot
from agents_eventlog.adapters.openai_agents.usage.runs import RunTracker
from agents_eventlog.eventlog.events import RequestUsage
from agents_eventlog.eventlog.storage.engine import Store
from agents_eventlog.eventlog.storage.transaction import Transaction, Unit

T = TypeVar("T")


@dataclass(frozen=True)
class _Account:
    """The store, context and prices for a session object's usage. Does not reference the object."""

    store: Store
    context: SessionContext
    prices: Prices
    logger: logging.Logger

    def complete(
        self, requests: Mapping[int, RequestUsage], origins: Mapping[int, RequestOrigin]
    ) -> dict[int, RequestUsage]:
        """Return requests with their origins and costs, if these are known."""
        now = self.store.clock()
        return {
            index: self.priced(_with_origin(request, origins.get(index)), now)
            for index, request in requests.items()
        }

    def priced(self, request: RequestUsage, at: int) -> RequestUsage:
        try:
            return pricing.priced(request, at, self.prices)
        except Exception as error:  # raised by the application's prices
            self.log_error(error, "Failed to price a request")
            return request

    def log_error(self, error: Exception, message: str = "Failed to store session usage") -> None:
        sdk_internals.log_error(self.logger, message, error, session_id=self.context.session_id)


@dataclass(eq=False)
class TrackedRun:
    """
    A run of the Runner with a session object, until its usage is recorded and its task has ended.

    is_late: whether the run had made requests before its first call: its next items start their turn.
    approved: whether the run has approvals; None if unknown.
    recorded_size: the size of the usage object when it was last recorded.
    task: the task of the Runner.
    pid: the id of the process; a forked child does not record the usage of its parent's runs.
    """

    account: _Account
    usage: Any
    tracker: RunTracker
    is_late: bool
    approved: bool | None = None
    recorded_size: tuple[Any, int] = (0, 0)
    task: asyncio.Task[Any] | None = None
    pid: int = field(default_factory=os.getpid)

    def is_under_way(self) -> bool:
        """Whether another task still executes this run, and will record its usage."""
        return self.task is not None and not self.task.done() and self.task is not _current_task()

    def has_unrecorded(self) -> bool:
        """Whether the run has unrecorded usage."""
        return usage_snapshot.size(self.usage) != self.recorded_size and self.pid == os.getpid()

    def recording(self, items: Sequence[Any] = ()) -> Unit[None] | None:
        """Read the run's usage; return the unit that records it, or None if the usage cannot be read."""
        try:
            return self._recording(items)
        except Exception as error:
            self.account.log_error(error)
            return None

    def _recording(self, items: Sequence[Any]) -> Unit[None]:
        tracker, context = self.tracker, self.account.context
        size = usage_snapshot.size(self.usage)
        snapshot = usage_snapshot.snapshot(self.usage, tracker.known(context.session_id))
        origins = dict(tracker.origins)
        if snapshot.requests and any(usage_snapshot.is_answer(item) for item in items):
            # The first request only: requests of agents used as tools follow it.
            origins.setdefault(
                min(snapshot.requests), request_origin.current_origin(tracker.resolution)
            )
        snapshot = snapshot._replace(requests=self.account.complete(snapshot.requests, origins))
        interrupted = usage_snapshot.waits(items)

        def recording(tx: Transaction) -> None:
            before = self.recorded_size
            tx.on_rollback(lambda: setattr(self, "recorded_size", before))
            self.recorded_size = size
            runs.record(
                tx, context, tracker, snapshot, interrupted=interrupted, approved=self.approved
            )

        return recording


class UsageRecorder:
    """
    Records the usage and cost of the runs of one session object.

    is_automatic: record usage from the Runner's calls; otherwise only from hooks and results.
    """

    def __init__(
        self,
        runner: UnitRunner,
        context: SessionContext,
        *,
        prices: Prices,
        is_automatic: bool,
        logger: logging.Logger,
    ) -> None:
        self._runner = runner
        self._account = _Account(runner.log.store, context, pricing.checked(prices), logger)
        self._is_automatic = is_automatic
        if is_automatic:
            sdk_internals.check_run_context()
        self._runs: dict[
            int, TrackedRun
        ] = {}  # by id of the usage object, which the run keeps alive

    def track(self, wrapper: Any, *, always: bool = False) -> TrackedRun | None:
        """
        Track the run of a run context and return it; None without one. Never raises an Exception.

        always: track it even if recording is not automatic.
        """
        if wrapper is None:
            return None
        try:
            return self._track(wrapper, always=always)
        except Exception as error:
            self._account.log_error(error)
            return None

    def _track(self, wrapper: Any, *, always: bool) -> TrackedRun | None:
        usage, is_nested = wrapper.usage, isinstance(wrapper, ToolContext)
        run = self._runs.get(id(usage))
        if run is None:
            tracker = runs.tracker_of(usage, self._account.store)
            tracker.resolution = request_origin.current_resolution() or tracker.resolution
            count = len(usage_snapshot.snapshot(usage).entries)
            if not (self._is_automatic or always):
                return None
            session_id = self._account.context.session_id
            is_late = count > 0 and session_id not in tracker.begins
            tracker.begin(session_id, count, is_nested=is_nested)
            run = self._runs[id(usage)] = TrackedRun(self._account, usage, tracker, is_late)
            _register(run, self)
        run.approved = sdk_internals.has_approvals(wrapper)
        task = _current_task()
        # A tool may call its run's session from another task, which ends before the run.
        if task is not None and task is not run.task and not (always or (is_nested and run.task)):
            run.task = task
            task.add_done_callback(lambda ended: _task_ended(run, ended))
        return run

    async def write(
        self,
        unit: Unit[T],
        run: TrackedRun | None = None,
        items: Sequence[Any] = (),
        call: RunCall | None = None,
    ) -> T:
        """Run a unit of work, and record the runs' new usage in the same transaction."""
        _record_orphans()
        before, after = self._recordings(run, items)
        if not (before or after or call):
            return await self._runner.write(unit)

        def with_usage(tx: Transaction) -> T:
            if call is not None:
                call.enter(tx)
            for recording in before:
                recording(tx)
            result = unit(tx)
            if call is not None:
                call.leave(tx)
            for recording in after:
                recording(tx)
            return result

        return await self._runner.write(with_usage)

    def _recordings(
        self, run: TrackedRun | None, items: Sequence[Any]
    ) -> tuple[list[Unit[None]], list[Unit[None]]]:
        """Return the units that record usage before the call's own unit, and those after it."""
        before: list[Unit[None]] = []
        after: list[Unit[None]] = []
        for each in list(self._runs.values()):
            if each.is_under_way():
                continue
            if each.has_unrecorded():
                recording = each.recording(items if each is run else ())
                if recording is not None:
                    (after if each is run and each.is_late else before).append(recording)
            elif run is not None and each is not run:
                _forget(each)  # its task has started another run
        if run is not None:
            run.is_late = False
        return before, after

    async def record_response(
        self, context: Any, agent: Any, response: Any, run_config: RunConfig | None
    ) -> None:
        """Record the request that a model has just answered, with its origin. Never raises an Exception."""
        try:
            run = self.track(context, always=True)
            if run is None:
                return
            tracker = run.tracker
            resolution = tracker.resolution or request_origin.NO_CONFIG
            if run_config is not None:
                resolution = request_origin.resolution_of(run_config)
            numbers = usage_snapshot.entry_numbers(response.usage)
            entries = usage_snapshot.snapshot(run.usage).entries
            fitting = [
                i
                for i, entry in enumerate(entries)
                if entry == numbers and i not in tracker.origins
            ]
            if fitting:
                tracker.origins[fitting[-1]] = RequestOrigin(
                    getattr(agent, "name", None),
                    request_origin.model_of(agent, resolution),
                    getattr(response, "response_id", None),
                )
            await self.write(_nothing)
        except Exception as error:
            self._account.log_error(error)

    async def store_run_usage(self, result: Any, run_config: RunConfig | None) -> None:
        """Record the unrecorded usage of a run's result. Never raises an Exception."""
        try:
            self._runner.check_not_closed()
            usage = result.context_wrapper.usage
            if usage is not None:
                await self._store(result, usage, run_config)
        except Exception as error:
            self._account.log_error(error)

    async def _store(self, result: Any, usage: Any, run_config: RunConfig | None) -> None:
        _record_orphans()
        account, context = self._account, self._account.context
        tracker = runs.tracker_of(usage, account.store)
        snapshot = usage_snapshot.snapshot(usage)
        resolution = tracker.resolution or (None if tracker.begins else request_origin.NO_CONFIG)
        if run_config is not None:
            resolution = request_origin.resolution_of(run_config)
        found = request_origin.origins_from_result(result, snapshot.entries, resolution)
        origins = {**dict(enumerate(found)), **tracker.origins}
        known = tracker.known(context.session_id)
        new = {index: each for index, each in snapshot.requests.items() if index not in known}
        snapshot = snapshot._replace(requests=account.complete(new, origins))
        interrupted = bool(getattr(result, "interruptions", None))
        approved = sdk_internals.has_approvals(result.context_wrapper)
        await self._runner.write(
            lambda tx: runs.record(
                tx,
                context,
                tracker,
                snapshot,
                interrupted=interrupted,
                approved=approved,
                even_nothing=True,
            )
        )
        late = {index: each for index, each in origins.items() if index in known}
        if late and (better := self._learnt(tracker, late)):
            await self._runner.write(
                lambda tx: runs.correct(
                    tx, context, tracker, better, "completed from the run result"
                )
            )

    def _learnt(
        self, tracker: RunTracker, origins: Mapping[int, RequestOrigin]
    ) -> dict[int, RequestUsage]:
        """Return the recorded requests that the origins complete, by index."""
        better = {}
        recorded = {} if tracker.run is None else tracker.run.requests
        for (session_id, index), known in recorded.items():
            if session_id == self._account.context.session_id:
                request = _with_origin(known.request, origins.get(index))
                if request != known.request:
                    if request.cost_usd is None:
                        request = self._account.priced(request, known.at)
                    better[index] = request
        return better

    def close(self) -> None:
        """Record the usage that no call has recorded. Blocks; never raises an Exception."""
        runs = list(self._runs.values())
        left = [each.recording() for each in runs if each.has_unrecorded()]
        try:
            if any(left):
                self._account.store.write_sync(lambda tx: [unit(tx) for unit in left if unit])
        except Exception as error:
            self._account.log_error(error)
        for run in runs:
            _forget(run)


# -- the tracked runs of the process ----------------------------------------------------------

_tracked: dict[TrackedRun, weakref.ref[UsageRecorder]] = {}
_orphans: deque[TrackedRun] = deque()
"""Runs whose session object was garbage-collected."""


def _register(run: TrackedRun, recorder: UsageRecorder) -> None:
    def orphaned(_: object) -> None:
        # May run during garbage collection in any thread, where locks and writes are unsafe.
        _orphans.append(run)
        if run.task is not None:
            with suppress(RuntimeError):  # the event loop is closed
                run.task.get_loop().call_soon_threadsafe(_record_orphans)

    _record_at_exit()
    _tracked[run] = weakref.ref(recorder, orphaned)
    if run.account.prices is None:
        pricing.prepare()


def _forget(run: TrackedRun) -> None:
    recorder = _tracked.pop(run, _gone)()
    if recorder is not None:
        recorder._runs.pop(id(run.usage), None)  # noqa: SLF001 - private to the module


def _gone() -> None:
    return None


def _task_ended(run: TrackedRun, task: asyncio.Task[Any]) -> None:
    if run.task is task:
        run.task = None
        _record_in_background(run)


def _record_orphans() -> None:
    """Queue the usage of orphaned runs, before the units of later calls."""
    while _orphans:
        with suppress(IndexError):  # another thread removed it first
            _record_in_background(_orphans.popleft())


def _record_in_background(run: TrackedRun) -> None:
    """Queue the usage of a run that has ended; forget the run when the usage is recorded."""
    if run not in _tracked:
        return
    recording = run.recording() if run.has_unrecorded() else None
    if recording is None:
        _forget(run)
        return
    outcome: Future[None] = Future()
    outcome.add_done_callback(
        lambda done: _forget(run) if done.exception() is None else None  # the next write retries
    )
    try:
        run.account.store.submit_write(recording, outcome)
    except Exception:  # the log was closed
        _forget(run)


@cache
def _record_at_exit() -> None:
    """Queue unrecorded usage at exit; the stores, registered with atexit earlier, write it afterwards."""
    atexit.register(_record_all)


def _record_all() -> None:
    for run in list(_tracked):
        _record_in_background(run)


def _current_task() -> asyncio.Task[Any] | None:
    try:
        return asyncio.current_task()
    except RuntimeError:
        return None  # no event loop runs here


def _nothing(_: Transaction) -> None:
    """Do nothing: a unit for writes that only record usage."""


def _with_origin(request: RequestUsage, origin: RequestOrigin | None) -> RequestUsage:
    """Return a request with its origin; recorded values take precedence."""
    learnt = {
        name: value.encode(errors="replace").decode()
        for name, value in ({} if origin is None else origin._asdict()).items()
        if isinstance(value, str) and getattr(request, name) is None
    }
    return msgspec.structs.replace(request, **learnt) if learnt else request
