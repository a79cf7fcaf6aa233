"""
Which agent's model answers: read from the SDK, which does not hand it to a session.

The agent that is at work is named by the current span, also where tracing is off. Its model is its own
or the run's; the run's configuration stands only in the Runner's frames, from which every call to a
session comes. Whatever is not found where it is expected is not known, and nothing is guessed.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from types import FrameType
from typing import Any, Final, NamedTuple

from agents import AgentSpanData, Model, RunConfig, get_current_span
from agents.models import get_default_model
from agents.models.multi_provider import MultiProvider
from agents.models.openai_provider import OpenAIProvider
from agents.run_internal import agent_tool_configuration

from agents_eventlog.adapters.openai_agents.usage.snapshot import entry_numbers

RUNNERS: Final = {
    ("agents.run", "_run_impl"),
    ("agents.run_internal.run_loop", "start_streaming"),
}
"""The functions that run an agent, as (module, name); each has a local ``run_config``."""


class Answerer(NamedTuple):
    """Who answered a request, as far as is known."""

    agent: str | None = None
    model: str | None = None
    response_id: str | None = None


class Setting(NamedTuple):
    """
    What a run's configuration says of models.

    overrides, model: whether one model answers for all agents, and its name.
    has_default: whether an agent without a model gets the SDK's default.
    """

    overrides: bool = False
    model: str | None = None
    has_default: bool = True


UNKNOWN: Final = Answerer()
PLAIN: Final = Setting()


def setting_of(config: RunConfig) -> Setting:
    """Return what a run's configuration says of models."""
    return Setting(
        config.model is not None,
        _name(config.model),
        isinstance(config.model_provider, MultiProvider | OpenAIProvider),
    )


def setting_here() -> Setting | None:
    """Return the setting of the run that this is called from; None if it cannot be told."""
    config = _run_config()
    return None if config is None else setting_of(config)


def present(setting: Setting | None) -> Answerer:
    """Return the agent at work where this is called, and the model that answers it."""
    data = getattr(get_current_span(), "span_data", None)
    if not isinstance(data, AgentSpanData) or not isinstance(data.name, str):
        return UNKNOWN
    agents = _agents_called(data.name)
    return Answerer(data.name, model_of(agents[0], setting) if len(agents) == 1 else None)


def model_of(agent: Any, setting: Setting | None) -> str | None:
    """Return the name of the model that answers an agent, None where that cannot be told."""
    model = getattr(agent, "model", None)
    if setting is None:
        return None
    if setting.overrides:
        return setting.model
    if model is None:
        return get_default_model() if setting.has_default else None
    return _name(model)


def _name(model: Any) -> str | None:
    name = getattr(model, "model", None) if isinstance(model, Model) else model
    return name if isinstance(name, str) else None


def told_by(
    result: Any, numbers: Sequence[tuple[int, ...]], setting: Setting | None
) -> list[Answerer]:
    """
    Return what a result tells of each of its run's requests, given their numbers of tokens.

    A result lists the responses of its own agents; requests of agents that were used as tools stand
    between them. Where the numbers leave open which response answered a request, it is not known.
    """
    responses = list(getattr(result, "raw_responses", None) or ())
    answers = [UNKNOWN] * len(numbers)
    agents = _agents_of(result)
    for response, index in zip(responses, _aligned(responses, numbers), strict=True):
        if index is not None:
            agent = _agent_of(response, agents)
            response_id = getattr(response, "response_id", None)
            answers[index] = Answerer(
                None if agent is None else str(agent.name),
                None if agent is None else model_of(agent, setting),
                response_id if isinstance(response_id, str) else None,
            )
    return answers


def _aligned(responses: Sequence[Any], numbers: Sequence[tuple[int, ...]]) -> list[int | None]:
    """Return which request each response answered, in order; None where there are two ways."""
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
    """Return for each wanted entry the next one that is equal."""
    found: list[int | None] = []
    start = 0
    for each in wanted:
        index = next((i for i in range(start, len(numbers)) if numbers[i] == each), None)
        found.append(index)
        start = start if index is None else index + 1
    return found


def _agents_of(result: Any) -> dict[Any, Any]:
    """Return the agent that each item of a result came from, by the item's identity and its ids."""
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


def _agents_called(name: str) -> list[Any]:
    """Return the agents of this name in the run that this is called from."""
    current = getattr(agent_tool_configuration, "_current_run", None)
    run = None if current is None else current.get()
    taking_part = getattr(run, "resolutions", None) or {}
    return [each.agent for each in list(taking_part.values()) if each.agent.name == name]


def _run_config() -> RunConfig | None:
    """Return the configuration of the innermost run that this is called from."""
    frame: FrameType | None = sys._getframe(1)  # noqa: SLF001 - nowhere else does a run's configuration stand
    while frame is not None:
        if (frame.f_globals.get("__name__"), frame.f_code.co_name) in RUNNERS:
            config = frame.f_locals.get("run_config")
            return config if isinstance(config, RunConfig) else None
        frame = frame.f_back
    return None
