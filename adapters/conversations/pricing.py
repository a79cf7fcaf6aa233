"""
What a request costs, in USD, at the time it is made.

By default with the prices that genai-prices brings along: no network, and nothing is looked up twice.
A model that is not in the list costs None, which is counted as unpriced, never as nothing.
"""

from __future__ import annotations

import importlib
import math
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import msgspec

if TYPE_CHECKING:
    from agents_eventlog.eventlog.events import RequestUsage

MILLION: Final = 1_000_000
ROUTERS: Final = ("litellm/", "any-llm/")
"""Prefixes of model names by which the SDK chooses a client, not a model."""

APPLICATION: Final = "application"
"""The price source of prices that the application gave."""


@dataclass(frozen=True, slots=True)
class Price:
    """
    What a model costs, in USD per million tokens.

    Cached input and cache writes are parts of the input; without a price of their own they cost what
    input does.
    """

    input: float
    output: float
    cached_input: float | None = None
    cache_write: float | None = None

    def cost(self, request: RequestUsage) -> float:
        """Return what a request costs."""
        cached, written = request.cached_input_tokens, request.cache_write_tokens
        plain = max(0, request.input_tokens - cached - written)
        dollars = (
            plain * self.input
            + cached * (self.input if self.cached_input is None else self.cached_input)
            + written * (self.input if self.cache_write is None else self.cache_write)
            + request.output_tokens * self.output
        )
        return dollars / MILLION


Prices: TypeAlias = "Mapping[str, Price] | Callable[[RequestUsage, datetime], float | None] | None"
"""A price list by model; or what tells a request's cost at a time; or None: genai-prices."""


def checked(prices: Prices) -> Prices:
    """Return prices as they were given. Raises TypeError for what tells no prices."""
    if prices is None or callable(prices):
        return prices
    if not isinstance(prices, Mapping):
        raise TypeError(f"prices are a mapping or a callable, not of type {type(prices).__name__}")
    for model, price in prices.items():
        if not isinstance(price, Price):
            raise TypeError(
                f"the price of {model!r} is a Price, not of type {type(price).__name__}"
            )
    return prices


def priced(request: RequestUsage, at: int, prices: Prices) -> RequestUsage:
    """
    Return a request with its cost and where that comes from, or as it is where no price is known.

    at: microseconds since 1970 UTC. Raises what a callable of the application raises, and ValueError
    for what it returns that is no amount of money.
    """
    source = APPLICATION
    if prices is None:
        cost = bundled(request, _datetime(at))
        source = bundled_source() if cost is not None else ""
    elif callable(prices):
        cost = prices(request, _datetime(at))
    else:
        price = prices.get(request.model or "")
        cost = None if price is None else price.cost(request)
    if cost is None:
        return request
    if not math.isfinite(float(cost)):
        raise ValueError(f"a cost is a number of USD, not {cost!r}")
    return msgspec.structs.replace(request, cost_usd=float(cost), price_source=source)


def bundled(request: RequestUsage, at: datetime) -> float | None:
    """
    Return what a request costs by the prices that genai-prices brings along; None if it has none.

    Of a sum of several requests it cannot tell: prices may depend on the size of each.
    """
    if not request.model or request.requests != 1:
        return None
    genai_prices: Any = importlib.import_module("genai_prices")
    usage = genai_prices.Usage(
        input_tokens=request.input_tokens,
        cache_read_tokens=request.cached_input_tokens,
        cache_write_tokens=request.cache_write_tokens,
        output_tokens=request.output_tokens,
    )
    for model, provider in _names(request.model):
        try:
            calculated = genai_prices.calc_price(
                usage, model, provider_id=provider, genai_request_timestamp=at
            )
        except (LookupError, ValueError):  # no such model; parts that exceed their whole
            continue
        return float(calculated.total_price)
    return None


@cache
def bundled_source() -> str:
    """Return the price source of what ``bundled`` tells: the package and its version."""
    genai_prices: Any = importlib.import_module("genai_prices")
    return f"genai-prices {genai_prices.__version__}"


@cache
def prepare() -> None:
    """Load the price list beside the program's work: that takes a moment, which no request waits for."""
    threading.Thread(
        target=importlib.import_module, args=("genai_prices",), name="eventlog-prices", daemon=True
    ).start()


def _names(model: str) -> list[tuple[str, str | None]]:
    """Return what a model may be called in the price list, and by which provider."""
    for router in ROUTERS:
        model = model.removeprefix(router)
    provider, slash, name = model.partition("/")
    return [(model, None), (name, provider)] if slash else [(model, None)]


def _datetime(at: int) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=at)
