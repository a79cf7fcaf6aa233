"""Run hooks that record each request with its agent and model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from agents import RunHooks

if TYPE_CHECKING:
    from agents import Agent, ModelResponse, RunContextWrapper, TResponseInputItem

    from agents_eventlog.adapters.openai_agents.session import EventLogSession


class UsageHooks(RunHooks[Any]):
    """
    Run hooks that record each model request when it ends, with its agent, model and response id.

    Use it as ``Runner.run(agent, question, session=session, hooks=UsageHooks(session))``. An application
    with hooks of its own derives them from this class, and awaits the methods of ``super()``. The hooks
    also work in a run without ``session=``, or with a session that wraps this one.

    Before each model request they check the budgets of the session and its log: a budget that is used up
    raises BudgetExceededError from the run.
    """

    def __init__(self, session: EventLogSession) -> None:
        self._session = session

    async def on_llm_start(
        self,
        context: RunContextWrapper[Any],
        agent: Agent[Any],
        system_prompt: str | None,
        input_items: list[TResponseInputItem],
    ) -> None:
        """Check the budgets before the request. Raises BudgetExceededError."""
        self._session._usage.track(context, from_hooks=True)  # noqa: SLF001 - private to the adapter
        await self._session._budgets.check(context)  # noqa: SLF001

    async def on_llm_end(
        self, context: RunContextWrapper[Any], agent: Agent[Any], response: ModelResponse
    ) -> None:
        """Record the request."""
        await self._session._usage.record_answered(context)  # noqa: SLF001
