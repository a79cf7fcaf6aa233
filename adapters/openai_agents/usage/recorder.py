"""The recorder of the usage of a session's runs; the package's docstring has the rule."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Mapping
from concurrent.futures import Future
from contextlib import suppress
from functools import cache
from typing import Any, TypeVar

import msgspec
from agents import RunConfig
from agents.tool_context import ToolContext

from agents_eventlog.adapters.conversations import pricing
from agents_eventlog.adapters.conversations import usage as usage_calls
from agents_eventlog.adapters.conversations.commands import SessionContext
from agents_eventlog.adapters.conversations.concurrent_runs import RunCall
from agents_eventlog.adapters.conversations.pricing import Prices
from agents_eventlog.adapters.openai_agents import request_origin, sdk_internals
from agents_eventlog.adapters.openai_agents.request_origin import RequestOrigin
from agents_eventlog.adapters.openai_agents.unit_runner import UnitRunner
from agents_eventlog.adapters.openai_agents.usage import observation, runs
from agents_eventlog.adapters.openai_agents.usage import snapshot as usage_snapshot
from agents_eventlog.adapters.openai_agents.usage.budget_check import BudgetCheck
from agents_eventlog.adapters.openai_agents.usage.observation import runs_of
from agents_eventlog.adapters.openai_agents.usage.runs import RunTracker, TrackedRun
from agents_eventlog.eventlog.events import RequestUsage
from agents_eventlog.eventlog.storage.transaction import Transaction, Unit

T = TypeVar("T")


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
        budgets: BudgetCheck,
        logger: logging.Logger,
    ) -> None:
        self._runner = runner
        self._context = context
        self._prices = pricing.checked(prices)
        self._logger = logger
        self._is_automatic = is_automatic
        self._budgets = budgets
        if is_automatic:
            sdk_internals.check_run_context()
        self._unrecorded: dict[int, Any] = {}
        """Usage objects, by their ids, whose usage a later write records."""
        self._waiting: set[asyncio.Task[None]] = set()

    # -- from the Runner and from hooks ---------------------------------------------------------

    def track(self, wrapper: Any, *, from_hooks: bool = False) -> None:
        """Observe the run of a run context, if there is one. Never raises an Exception."""
        if wrapper is None or not (self._is_automatic or from_hooks):
            return
        try:
            self._track(wrapper, from_hooks=from_hooks)
        except Exception as error:
            self._log_error(error)

    def _track(self, wrapper: Any, *, from_hooks: bool) -> None:
        if not isinstance(self._prices, pricing.OnlyPrices):
            pricing.prepare()
        usage, is_nested = wrapper.usage, isinstance(wrapper, ToolContext)
        count = len(usage_snapshot.snapshot(usage).entries)
        run = observation.observe(
            usage, self._record_soon, is_nested=is_nested, in_task=not from_hooks
        )
        tracker, session_id = run.tracker(self._runner.log.store), self._context.session_id
        is_new = session_id not in tracker.begins
        tracker.begin(session_id, count, is_nested=is_nested)
        tracker.approved = sdk_internals.has_approvals(wrapper)
        tracker.has_hooks |= from_hooks
        has_missed = is_new and count > tracker.begins[session_id]
        if has_missed or not isinstance(usage, observation.ObservedUsage):
            self._unrecorded[id(usage)] = usage

    def _record_soon(self, usage: Any, run: TrackedRun) -> None:
        """Record a request that was just answered, in the background."""
        recording = self._recording(usage, run)
        if recording is None:
            return
        self._budgets.warn_without_hooks(run.tracker(self._runner.log.store))
        done = self._runner.write_ahead(recording)
        usage_calls.announce(self._runner.log.store, done)

        def note(done: Future[None]) -> None:
            if (error := done.exception()) is not None:
                self._unrecorded[id(usage)] = usage
                self._log_error(error)

        done.add_done_callback(note)
        try:
            task = asyncio.get_running_loop().create_task(_until(done))
        except RuntimeError:
            return  # the application called ``Usage.add`` outside of an event loop
        # A program that does not run its loop to the end must not see a warning of asyncio's.
        task._log_destroy_pending = False  # type: ignore[attr-defined] # noqa: SLF001
        self._waiting.add(task)
        task.add_done_callback(self._waiting.discard)

    async def record_answered(self, wrapper: Any) -> None:
        """Wait until the answered requests of a run context are recorded. Never raises an Exception."""
        self.track(wrapper, from_hooks=True)
        try:
            if self._unrecorded:
                await self.write(lambda _: None)
            if self._waiting:
                await asyncio.wait(self._waiting)
        except Exception as error:
            self._log_error(error)

    def write(
        self, unit: Unit[T], wrapper: Any = None, call: RunCall | None = None
    ) -> Awaitable[T]:
        """
        Submit a unit of work, and record usage that is not recorded yet in the same transaction.

        wrapper: the run context of the call: requests that the session missed belong to its items' turn.
        call: the call of a run, which the unit of work is a part of.
        """
        if not self._unrecorded and (call is None or call.place is None):
            return self._runner.write(unit)
        return self._write_with_usage(unit, wrapper, call)

    async def _write_with_usage(self, unit: Unit[T], wrapper: Any, call: RunCall | None) -> T:
        left, self._unrecorded = self._unrecorded, {}
        mine = id(getattr(wrapper, "usage", None))
        units = {each: self._recording(usage, runs_of(usage)) for each, usage in left.items()}
        before = [each for key, each in units.items() if each is not None and key != mine]
        after = units.get(mine)

        def with_usage(tx: Transaction) -> T:
            if call is not None:
                call.enter(tx)
            for recording in before:
                recording(tx)
            result = unit(tx)
            if call is not None:
                call.leave(tx)
            if after is not None:
                after(tx)
            return result

        try:
            return await self._runner.write(with_usage)
        except BaseException:
            self._unrecorded = {**left, **self._unrecorded}  # recorded twice is counted once
            raise

    def _recording(self, usage: Any, run: TrackedRun) -> Unit[None] | None:
        """Read a run's usage; return the unit that records it, or None if the usage cannot be read."""
        tracker = run.tracker(self._runner.log.store)
        try:
            snapshot = usage_snapshot.snapshot(usage, tracker.known(self._context.session_id))
        except Exception as error:
            self._log_error(error)
            return None
        snapshot = snapshot._replace(requests=self._complete(snapshot.requests, run.origins))

        def recording(tx: Transaction) -> None:
            runs.record(tx, self._context, tracker, snapshot)

        return recording

    # -- from results -----------------------------------------------------------------------------

    async def store_run_usage(self, result: Any, run_config: RunConfig | None) -> None:
        """Record the unrecorded usage of a run's result. Never raises an Exception."""
        try:
            self._runner.check_not_closed()
            usage = result.context_wrapper.usage
            if usage is not None:
                await self._store(result, usage, run_config)
        except Exception as error:
            self._log_error(error)

    async def _store(self, result: Any, usage: Any, run_config: RunConfig | None) -> None:
        run = runs_of(usage)
        tracker, context = run.tracker(self._runner.log.store), self._context
        tracker.approved = sdk_internals.has_approvals(result.context_wrapper)
        snapshot = usage_snapshot.snapshot(usage)
        # The configuration of a run that was observed is unknown here, and may name another model.
        config = None if tracker.begins and run_config is None else run_config or _default_config()
        found = request_origin.origins_from_result(result, snapshot.entries, config)
        origins = {**dict(enumerate(found)), **run.origins}
        known = tracker.known(context.session_id)
        new = {index: each for index, each in snapshot.requests.items() if index not in known}
        snapshot = snapshot._replace(requests=self._complete(new, origins))
        await self._runner.write(
            lambda tx: runs.record(tx, context, tracker, snapshot, even_nothing=True)
        )
        late = {index: each for index, each in origins.items() if index in known}
        if late and (better := self._learnt(tracker, late)):
            reason = "completed from the run result"
            await self._runner.write(lambda tx: runs.correct(tx, context, tracker, better, reason))

    def _learnt(
        self, tracker: RunTracker, origins: Mapping[int, RequestOrigin]
    ) -> dict[int, RequestUsage]:
        """Return the recorded requests that the origins complete, by index."""
        better = {}
        recorded = {} if tracker.run is None else tracker.run.requests
        for (session_id, index), known in recorded.items():
            if session_id == self._context.session_id:
                request = _with_origin(known.request, origins.get(index))
                if request != known.request:
                    if request.cost_usd is None:
                        request = self._priced(request, known.at)
                    better[index] = request
        return better

    # -- origins and prices -----------------------------------------------------------------------

    def _complete(
        self, requests: Mapping[int, RequestUsage], origins: Mapping[int, RequestOrigin]
    ) -> dict[int, RequestUsage]:
        """Return requests with their origins and costs, if these are known."""
        now = self._runner.log.store.clock()
        return {
            index: self._priced(_with_origin(request, origins.get(index)), now)
            for index, request in requests.items()
        }

    def _priced(self, request: RequestUsage, at: int) -> RequestUsage:
        try:
            return pricing.priced(request, at, self._prices)
        except Exception as error:  # raised by the application's prices
            self._log_error(error, "Failed to price a request")
            return request

    def _log_error(
        self, error: BaseException, message: str = "Failed to store session usage"
    ) -> None:
        session_id = self._context.session_id
        sdk_internals.log_error(self._logger, message, error, session_id=session_id)


@cache
def _default_config() -> RunConfig:
    return RunConfig()  # which takes as long as all else that is done for a small run


async def _until(done: Future[None]) -> None:
    """
    Wait for a background write. A cancelled task waits too.

    ``asyncio.run`` cancels the remaining tasks and waits for them, so the write ends before the program.
    """
    while not done.done():
        with suppress(asyncio.CancelledError):
            await asyncio.wait([asyncio.wrap_future(done)])


def _with_origin(request: RequestUsage, origin: RequestOrigin | None) -> RequestUsage:
    """Return a request with its origin; recorded values take precedence."""
    learnt = {
        name: value.encode(errors="replace").decode()
        for name, value in ({} if origin is None else origin._asdict()).items()
        if isinstance(value, str) and getattr(request, name) is None
    }
    return msgspec.structs.replace(request, **learnt) if learnt else request
