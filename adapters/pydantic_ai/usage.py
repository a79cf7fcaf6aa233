"""The usage of model responses, each request once, with its model and cost."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Any, Final

from msgspec import structs
from pydantic_ai.messages import ModelMessage, ModelResponse

from agents_eventlog.adapters.conversations import pricing
from agents_eventlog.adapters.conversations.pricing import OnlyPrices, Prices
from agents_eventlog.eventlog.events import RequestUsage

REPORTED: Final = "pydantic-ai"
"""The price source of costs that Pydantic AI computed, or that its gateway reported."""

_log = logging.getLogger("eventlog.session")


def requests_of(
    messages: Iterable[ModelMessage], *, agent: str | None, prices: Prices
) -> list[RequestUsage]:
    """Return the model requests behind the responses among messages, those that failed before, too."""
    return [
        _priced(request, getattr(usage, "cost", None), at, prices)  # not in the first releases of 2
        for message in messages
        if isinstance(message, ModelResponse)
        for request, usage, at in _requests(message, agent)
    ]


def _requests(
    response: ModelResponse, agent: str | None
) -> Iterator[tuple[RequestUsage, Any, datetime]]:
    for attempt in getattr(response, "failed_attempts", None) or ():  # not before 2.60
        if attempt.usage is not None:
            yield (
                _request(attempt.usage, attempt.model_name, agent),
                attempt.usage,
                attempt.timestamp,
            )
    request = structs.replace(
        _request(response.usage, response.model_name, agent),
        response_id=response.provider_response_id,
        endpoint=response.provider_url,
    )
    yield request, response.usage, response.timestamp


def _request(usage: Any, model: str | None, agent: str | None) -> RequestUsage:
    return RequestUsage(
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        total_tokens=usage.input_tokens + usage.output_tokens,
        cached_input_tokens=usage.cache_read_tokens,
        cache_write_tokens=usage.cache_write_tokens,
        reasoning_tokens=getattr(
            usage, "output_reasoning_tokens", 0
        ),  # not in the first releases of 2
        output_tokens_details=dict(usage.details) or None,
        model=model,
        agent=agent,
    )


def _priced(request: RequestUsage, reported: Any, at: datetime, prices: Prices) -> RequestUsage:
    """Return a request with its cost: by the application's prices, as reported, or by the list."""
    micros = round(at.replace(tzinfo=at.tzinfo or UTC).timestamp() * 1_000_000)
    own = prices.prices if isinstance(prices, OnlyPrices) else prices
    try:
        if own is not None:
            priced = pricing.priced(request, micros, OnlyPrices(own))
            if priced.cost_usd is not None or isinstance(prices, OnlyPrices):
                return priced
        if reported is not None:
            return structs.replace(request, cost_usd=float(reported), price_source=REPORTED)
        return pricing.priced(request, micros, None)
    except Exception:  # raised by the application's prices
        _log.exception("Failed to price a request")
        return request
