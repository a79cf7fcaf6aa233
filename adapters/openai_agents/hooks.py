"""Run hooks that record who answered each request, when it is answered."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from agents import RunHooks

if TYPE_CHECKING:
    from agents import Agent, ModelResponse, RunConfig, RunContextWrapper, TResponseInputItem

    from agents_eventlog.adapters.openai_agents.session import EventLogSession


class UsageHooks(RunHooks[Any]):
    """
    Record each model request of a run at once, with its agent, its model and its response id.

    ``Runner.run(agent, question, session=session, hooks=UsageHooks(session))``; an application with
    hooks of its own derives them from this class, and awaits ``super()``'s. It works without
    ``session=``, and where the session is wrapped in another one.

    run_config: the run's, if it names a model and the Runner is not given the session itself.
    """

    def __init__(self, session: EventLogSession, *, run_config: RunConfig | None = None) -> None:
        self._session = session
        self._run_config = run_config

    async def on_llm_start(
        self,
        context: RunContextWrapper[Any],
        agent: Agent[Any],
        system_prompt: str | None,
        input_items: list[TResponseInputItem],
    ) -> None:
        """Track the run."""
        self._session._usage.track(context, always=True)  # noqa: SLF001 - one part of the adapter to another

    async def on_llm_end(
        self, context: RunContextWrapper[Any], agent: Agent[Any], response: ModelResponse
    ) -> None:
        """Record the request."""
        await self._session._usage.record_response(  # noqa: SLF001
            context, agent, response, self._run_config
        )
