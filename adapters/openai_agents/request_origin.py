"""
The origin of a request: the agent that made it, and the model that answered it.

The current span names the agent, even if tracing is disabled. The model is that of the agent or of the
run. A value that is not found stays unknown; nothing is guessed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from agents import AgentSpanData, Model, RunConfig, get_current_span
from agents.models import get_default_model
from agents.models.multi_provider import MultiProvider
from agents.models.openai_provider import OpenAIProvider

from agents_eventlog.adapters.openai_agents import sdk_internals
from agents_eventlog.adapters.openai_agents.usage.snapshot import entry_numbers


class RequestOrigin(NamedTuple):
    """The agent and the model of a request, and the provider's id of the response; None if unknown."""

    agent: str | None = None
    model: str | None = None
    response_id: str | None = None


class ModelResolution(NamedTuple):
    """
    The model settings of a run's configuration.

    overrides: whether one model replaces the models of all agents.
    model: the name of that model; None if unknown.
    has_default: whether an agent without a model gets the SDK's default model.
    """

    overrides: bool = False
    model: str | None = None
    has_default: bool = True


UNKNOWN: Final = RequestOrigin()
NO_CONFIG: Final = ModelResolution()


def resolution_of(config: RunConfig) -> ModelResolution:
    """Return the model settings of a run's configuration."""
    return ModelResolution(
        config.model is not None,
        _name(config.model),
        isinstance(config.model_provider, MultiProvider | OpenAIProvider),
    )


def current_resolution() -> ModelResolution | None:
    """Return the model settings of the current run; None if they are unknown."""
    config = sdk_internals.runner_state().config
    return None if config is None else resolution_of(config)


def current_origin(resolution: ModelResolution | None) -> RequestOrigin:
    """Return the current agent of the current run, and its model."""
    data = getattr(get_current_span(), "span_data", None)
    if not isinstance(data, AgentSpanData) or not isinstance(data.name, str):
        return UNKNOWN
    agent = sdk_internals.agent_named(data.name)
    return RequestOrigin(data.name, None if agent is None else model_of(agent, resolution))


def model_of(agent: Any, resolution: ModelResolution | None) -> str | None:
    """Return the name of an agent's model; None if it is unknown."""
    model = getattr(agent, "model", None)
    if resolution is None:
        return None
    if resolution.overrides:
        return resolution.model
    if model is None:
        return get_default_model() if resolution.has_default else None
    return _name(model)


def _name(model: Any) -> str | None:
    name = getattr(model, "model", None) if isinstance(model, Model) else model
    return name if isinstance(name, str) else None


def origins_from_result(
    result: Any, numbers: Sequence[tuple[int, ...]], resolution: ModelResolution | None
) -> list[RequestOrigin]:
    """
    Match the responses of a run's result with its requests; return the origin of each request.

    numbers: the usage numbers of each request.

    A result lists only the responses of its own agents, not those of agents used as tools. If the numbers
    of a response match several requests, their origin stays unknown.
    """
    responses = list(getattr(result, "raw_responses", None) or ())
    answers = [UNKNOWN] * len(numbers)
    agents = _agents_of(result)
    for response, index in zip(responses, _aligned(responses, numbers), strict=True):
        if index is not None:
            agent = _agent_of(response, agents)
            response_id = getattr(response, "response_id", None)
            answers[index] = RequestOrigin(
                None if agent is None else str(agent.name),
                None if agent is None else model_of(agent, resolution),
                response_id if isinstance(response_id, str) else None,
            )
    return answers


def _aligned(responses: Sequence[Any], numbers: Sequence[tuple[int, ...]]) -> list[int | None]:
    """Return the index of each response's request, in order; None if it is ambiguous."""
    wanted = [entry_numbers(response.usage) for response in responses]
    if wanted == numbers:
        return [*range(len(wanted))]
    first = _matched(wanted, numbers)
    last = [
        None if index is None else len(numbers) - 1 - index
        for index in _matched(wanted[::-1], numbers[::-1])[::-1]
    ]
    return [one if one == other else None for one, other in zip(first, last, strict=True)]


def _matched(
    wanted: Sequence[tuple[int, ...]], numbers: Sequence[tuple[int, ...]]
) -> list[int | None]:
    """Return for each wanted entry the index of the next equal one; None without one."""
    found: list[int | None] = []
    start = 0
    for each in wanted:
        index = next((i for i in range(start, len(numbers)) if numbers[i] == each), None)
        found.append(index)
        start = start if index is None else index + 1
    return found


def _agents_of(result: Any) -> dict[Any, Any]:
    """Return the agents of a result's items, by the identity and the call id of the item."""
    agents: dict[Any, Any] = {}
    for item in getattr(result, "new_items", None) or ():
        agent = getattr(item, "agent", None)
        if agent is not None:
            for key in _keys(getattr(item, "raw_item", None)):
                agents.setdefault(key, agent)
    return agents


def _agent_of(response: Any, agents: dict[Any, Any]) -> Any:
    for output in response.output:
        for key in _keys(output):
            if key in agents:
                return agents[key]
    return None


def _keys(item: Any) -> list[Any]:
    call_id = item.get("call_id") if isinstance(item, dict) else getattr(item, "call_id", None)
    return [id(item)] if call_id is None else [id(item), (type(item), call_id)]
