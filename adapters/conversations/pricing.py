"""
The cost of a request, in USD, at the time of the request.

The default prices are the list included in genai-prices, without network access. A request to a model
that is not in the list costs None: it is counted as unpriced, not as free.
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
"""Prefixes of model names that select a client of the SDK, not a model."""

OPENROUTER: Final = "://openrouter.ai/"
FREE: Final = ":free"
"""Suffix of the free variants of models at OpenRouter."""

APPLICATION: Final = "application"
"""The price source of costs that the application computed."""


@dataclass(frozen=True, slots=True)
class Price:
    """
    The price of a model, in USD per million tokens.

    cached_input, cache_write: the prices of input tokens that were read from, or written to, the provider's
        cache; None for the price of ``input``.
    """

    input: float
    output: float
    cached_input: float | None = None
    cache_write: float | None = None

    def cost(self, request: RequestUsage) -> float:
        """Return the cost of a request, in USD."""
        cached, written = request.cached_input_tokens, request.cache_write_tokens
        plain = max(0, request.input_tokens - cached - written)
        dollars = (
            plain * self.input
            + cached * (self.input if self.cached_input is None else self.cached_input)
            + written * (self.input if self.cache_write is None else self.cache_write)
            + request.output_tokens * self.output
        )
        return dollars / MILLION


OwnPrices: TypeAlias = (
    "Mapping[str, Price] | Mapping[str | tuple[str, str], Price]"
    " | Callable[[RequestUsage, datetime], float | None]"
)
"""
Prices of the application: by model, or by (model, service tier) for other tiers than the default one; or a
callable that returns a request's cost at a time, or None if it has no price for it.
"""


@dataclass(frozen=True)
class OnlyPrices:
    """
    Prices of the application, without the list included in genai-prices.

    prices: a mapping or callable, as for a session. Requests that it does not price have no cost.
    """

    prices: OwnPrices


Prices: TypeAlias = "OwnPrices | OnlyPrices | None"
"""The application's prices, which come before the list; without the list; or None for the list alone."""


def checked(prices: Prices) -> Prices:
    """Return prices unchanged. Raises TypeError for other types than ``Prices``."""
    own = prices.prices if isinstance(prices, OnlyPrices) else prices
    if callable(own) or (own is None and own is prices):
        return prices
    if not isinstance(own, Mapping):
        raise TypeError(
            f"invalid prices: expected a mapping or a callable, got {type(own).__name__}"
        )
    for model, price in own.items():
        if not isinstance(price, Price):
            raise TypeError(
                f"invalid price of {model!r}: expected a Price, got {type(price).__name__}"
            )
    return prices


def priced(request: RequestUsage, at: int, prices: Prices) -> RequestUsage:
    """
    Return a request with its cost and the source of the price; unchanged if the price is unknown.

    at: the time of the request, in microseconds since 1970 UTC.
    prices: a callable's exceptions are not caught.

    Raises ValueError if the callable returns a cost that is not a finite number.
    """
    own = prices.prices if isinstance(prices, OnlyPrices) else prices
    cost, source = None if own is None else _own_cost(request, at, own), APPLICATION
    if cost is None and not isinstance(prices, OnlyPrices):
        cost = bundled(request, _datetime(at))
        source = bundled_source() if cost is not None else ""
    if cost is None:
        return request
    if not math.isfinite(float(cost)):
        raise ValueError(f"invalid cost: expected a finite number of USD, got {cost!r}")
    return msgspec.structs.replace(request, cost_usd=float(cost), price_source=source)


def _own_cost(request: RequestUsage, at: int, prices: OwnPrices) -> float | None:
    if callable(prices):
        return prices(request, _datetime(at))
    by_key: Mapping[Any, Price] = prices
    model, tier = request.model or "", request.service_tier
    price = by_key.get(model if tier is None else (model, tier))
    return None if price is None else price.cost(request)


def bundled(request: RequestUsage, at: datetime) -> float | None:
    """
    Return the cost of a request by the list included in genai-prices; None if it has no price.

    The sum of several requests has no price: a price may depend on the size of each request. Free variants
    of models at OpenRouter cost 0. A model at an endpoint of an unlisted provider has no price. Of the
    service tiers, only OpenAI's flex has one: half of the default tier's.
    """
    if not request.model or request.requests != 1:
        return None
    if request.model.endswith(FREE):  # in the list, the rest of the name is that of a paid model
        return 0.0 if request.endpoint is None or OPENROUTER in request.endpoint else None
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
                usage,
                model,
                provider_id=None if request.endpoint else provider,
                provider_api_url=request.endpoint,
                genai_request_timestamp=at,
            )
        except (LookupError, ValueError):  # no such model; parts that exceed their whole
            continue
        if request.service_tier is None:
            return float(calculated.total_price)
        is_flex = (calculated.provider.id, request.service_tier) == ("openai", "flex")
        return float(calculated.total_price) / 2 if is_flex else None
    return None


@cache
def bundled_source() -> str:
    """Return the price source of ``bundled``: the package and its version."""
    genai_prices: Any = importlib.import_module("genai_prices")
    return f"genai-prices {genai_prices.__version__}"


@cache
def prepare() -> None:
    """Load the price list in a background thread, so that no request waits for it."""
    threading.Thread(
        target=importlib.import_module, args=("genai_prices",), name="eventlog-prices", daemon=True
    ).start()


def _names(model: str) -> list[tuple[str, str | None]]:
    """Return the names that a model may have in the price list, each with its provider or None."""
    for router in ROUTERS:
        model = model.removeprefix(router)
    provider, slash, name = model.partition("/")
    return [(model, None), (name, provider)] if slash else [(model, None)]


def _datetime(at: int) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=at)
