"""
The origin of a request: the agent that made it, the model that answered it, and where and how.

A value that is not found stays unknown; nothing is guessed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import FrameType
from typing import Any, Final, NamedTuple

from agents import RunConfig
from agents.models import get_default_model
from agents.models.multi_provider import MultiProvider
from agents.models.openai_provider import OpenAIProvider

from agents_eventlog.adapters.openai_agents import sdk_internals
from agents_eventlog.adapters.openai_agents.usage.snapshot import entry_numbers

DEFAULT_TIERS: Final = (None, "auto", "default", "standard")


class RequestOrigin(NamedTuple):
    """
    Where a request came from; None if unknown.

    endpoint: the base URL of the client, unless it is OpenAI's own.
    service_tier: the tier that the response names or else the request asked for, unless it is the default.
    """

    agent: str | None = None
    model: str | None = None
    response_id: str | None = None
    endpoint: str | None = None
    service_tier: str | None = None


UNKNOWN: Final = RequestOrigin()


def counted_in(frame: FrameType) -> RequestOrigin:
    """Return the origin of the request that a function of the SDK counts. Never raises an Exception."""
    try:
        request = sdk_internals.request_in(frame)
        if request is None:
            return UNKNOWN
        tier = getattr(request.terminal, "service_tier", None) or _tier_asked(request.settings)
        return _origin(request.agent, request.model, request.response, tier)
    except Exception:  # an object of the application that raises on access
        return UNKNOWN


def _origin(agent: Any, model: Any, response: Any, tier: str | None) -> RequestOrigin:
    return RequestOrigin(
        _text(getattr(agent, "name", None)),
        _text(model if isinstance(model, str) else getattr(model, "model", None)),
        _text(getattr(response, "response_id", None)),
        None if isinstance(model, str) else sdk_internals.endpoint_of(model),
        None if tier in DEFAULT_TIERS else _text(tier),
    )


def _tier_asked(settings: Any) -> str | None:
    for name in ("extra_args", "extra_body"):
        given = getattr(settings, name, None)
        if isinstance(given, Mapping) and given.get("service_tier") is not None:
            return _text(given["service_tier"])
    return None


def _tier_asked_of(agent: Any, config: RunConfig | None) -> str | None:
    settings = None if config is None else config.model_settings
    return _tier_asked(settings) or _tier_asked(getattr(agent, "model_settings", None))


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _model_of(agent: Any, config: RunConfig | None) -> Any:
    """Return an agent's model, or its name; None if it is unknown."""
    if config is None:
        return None
    model = config.model if config.model is not None else getattr(agent, "model", None)
    has_default = isinstance(config.model_provider, MultiProvider | OpenAIProvider)
    return get_default_model() if model is None and has_default else model


def origins_from_result(
    result: Any, numbers: Sequence[tuple[int, ...]], config: RunConfig | None
) -> list[RequestOrigin]:
    """
    Match the responses of a run's result with its requests; return the origin of each request.

    numbers: the usage numbers of each request.
    config: the run's configuration; None if it is unknown.

    A result lists only the responses of its own agents, not those of agents used as tools. If the numbers
    of a response match several requests, their origin stays unknown.
    """
    responses = list(getattr(result, "raw_responses", None) or ())
    answers = [UNKNOWN] * len(numbers)
    agents = _agents_of(result)
    for response, index in zip(responses, _aligned(responses, numbers), strict=True):
        if index is not None:
            agent = _agent_of(response, agents)
            if agent is None:
                answers[index] = _origin(None, None, response, None)
            else:
                model, tier = _model_of(agent, config), _tier_asked_of(agent, config)
                answers[index] = _origin(agent, model, response, tier)
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
