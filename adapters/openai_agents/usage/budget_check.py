"""The check of a session object's budgets, before a run and before its requests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from agents_eventlog.adapters.conversations import budgets, commands
from agents_eventlog.adapters.conversations import usage as usage_calls
from agents_eventlog.adapters.conversations.budgets import Budget, BudgetUsage
from agents_eventlog.adapters.conversations.commands import SessionContext
from agents_eventlog.adapters.openai_agents.unit_runner import UnitRunner
from agents_eventlog.adapters.openai_agents.usage import runs
from agents_eventlog.adapters.openai_agents.usage import snapshot as usage_snapshot
from agents_eventlog.adapters.openai_agents.usage.observation import runs_of
from agents_eventlog.adapters.openai_agents.usage.runs import RunTracker
from agents_eventlog.eventlog.storage.transaction import Transaction

if TYPE_CHECKING:
    import structlog


class BudgetCheck:
    """Checks the budgets of one session object; each warning is logged once per budget."""

    def __init__(
        self,
        runner: UnitRunner,
        context: SessionContext,
        limits: Sequence[Budget],
        events: structlog.stdlib.BoundLogger,
    ) -> None:
        self._runner = runner
        self._context = context
        self._limits = limits
        self._events = events
        self._warned: set[tuple[str, Budget]] = set()

    async def check(self, wrapper: Any) -> None:
        """Raise BudgetExceededError if a budget is used up, with the usage of all answered requests."""
        limits = self._all()
        if not limits:
            return
        await usage_calls.recorded(self._runner.log.store)
        found = await self._runner.read(
            lambda tx: [self._used(tx, budget, wrapper.usage) for budget in limits]
        )
        for used in found:
            if used.unpriced_requests and used.budget.usd is not None:
                self._warn("Requests without a known price do not count", used.budget, used)
            if used.is_exceeded and not used.budget.soft:
                raise used.error()
            if used.is_exceeded:
                self._warn("A soft budget is used up", used.budget, used)

    def warn_without_hooks(self, tracker: RunTracker) -> None:
        """Warn of budgets per run that no hooks check, when the first request of a run is answered."""
        for budget in () if tracker.has_hooks else self._all():
            if budget.scope == "run":
                self._warn("A budget per run has no effect without hooks=UsageHooks", budget)

    def _all(self) -> list[Budget]:
        return [*dict.fromkeys([*self._limits, *budgets.of_logs(self._runner.log.store)])]

    def _used(self, tx: Transaction, budget: Budget, usage: Any) -> BudgetUsage:
        context = self._context
        if budget.scope == "run":
            tracker = runs_of(usage).tracker(self._runner.log.store)
            return runs.used(tx, context, tracker, usage_snapshot.snapshot(usage), budget)
        user_id = commands.user_of(tx, context)
        return budgets.of_session(tx, budget, context.session_id, user_id, tx.now)

    def _warn(self, message: str, budget: Budget, used: BudgetUsage | None = None) -> None:
        if (message, budget) in self._warned:
            return
        self._warned.add((message, budget))
        facts: dict[str, Any] = {}
        if used is not None:
            facts = {
                "cost_usd": used.cost_usd,
                "tokens": used.tokens,
                "unpriced_requests": used.unpriced_requests,
                **used.keys,
            }
        self._events.warning(message, budget=str(budget), **facts)
