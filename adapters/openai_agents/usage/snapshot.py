"""Snapshots of the SDK's usage objects."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, Final, NamedTuple, TypeAlias

from agents_eventlog.eventlog import codec
from agents_eventlog.eventlog.events import JSON, RequestUsage
from agents_eventlog.projections.usage.builder import COUNTS

Numbers: TypeAlias = tuple[int, ...]
"""Numbers of requests and tokens, in the order of ``COUNTS``."""

NOTHING: Final[Numbers] = (0,) * len(COUNTS)
_MOST: Final = 2**53


class UsageSnapshot(NamedTuple):
    """
    The contents of a usage object at one moment.

    entries: the numbers of each listed request, in order.
    requests: the listed requests that the caller does not know yet, by index.
    rest: the total without the listed requests, for example requests without tokens.
    """

    entries: list[Numbers]
    requests: dict[int, RequestUsage]
    rest: RequestUsage


def snapshot(usage: Any, known: Collection[int] = ()) -> UsageSnapshot:
    """
    Read a usage object.

    known: the indexes of requests to leave out of ``requests``.

    If the listed requests exceed the total, the list is ignored and ``rest`` is the total. Raises
    ValueError for numbers that are not counts.
    """
    total = _numbers(usage, requests=usage.requests)
    listed = list(getattr(usage, "request_usage_entries", None) or ())
    entries = [entry_numbers(entry) for entry in listed]
    rest = minus(total, *entries)
    if min(rest, default=0) < 0:
        listed, entries, rest = [], [], total
    requests = {
        index: _request(entry, entries[index])
        for index, entry in enumerate(listed)
        if index not in known
    }
    left = _request(usage, rest) if not listed else of_numbers(rest)
    return UsageSnapshot(entries, requests, left)


def entry_numbers(entry: Any) -> Numbers:
    """Return the numbers of one request."""
    return _numbers(entry, requests=getattr(entry, "requests", 1))


def minus(left: Numbers, *others: Numbers) -> Numbers:
    """Subtract numbers from others, element by element."""
    return tuple(value - sum(taken) for value, *taken in zip(left, *others, strict=True))


def of_numbers(
    counted: Sequence[int],
    input_details: dict[str, JSON] | None = None,
    output_details: dict[str, JSON] | None = None,
) -> RequestUsage:
    """Return a request, or a sum of several, from its numbers and the provider's details."""
    counts: dict[str, Any] = dict(zip(COUNTS, counted, strict=True))
    return RequestUsage(
        **counts, input_tokens_details=input_details, output_tokens_details=output_details
    )


def _request(usage: Any, counted: Numbers) -> RequestUsage:
    return of_numbers(
        counted,
        _details(getattr(usage, "input_tokens_details", None)),
        _details(getattr(usage, "output_tokens_details", None)),
    )


def _numbers(usage: Any, *, requests: Any) -> Numbers:
    read = getattr(usage, "input_tokens_details", None)
    written = getattr(usage, "output_tokens_details", None)
    counted = (
        int(requests or 0),
        int(usage.input_tokens or 0),
        int(usage.output_tokens or 0),
        int(usage.total_tokens or 0),
        _count(read, "cached_tokens"),
        _count(read, "cache_write_tokens"),
        _count(written, "reasoning_tokens"),
    )
    if min(counted) < 0 or max(counted) > _MOST:
        raise ValueError("invalid usage: expected numbers from 0 to 2**53")
    return counted


def _count(details: Any, name: str) -> int:
    value = details.get(name) if isinstance(details, dict) else getattr(details, name, None)
    return value if isinstance(value, int) else 0


def _details(details: Any) -> dict[str, JSON] | None:
    """Return all of a provider's details, including fields that the SDK's model does not define."""
    if not details:
        return None
    if hasattr(details, "model_dump"):
        dumped: dict[str, JSON] = details.model_dump(mode="json", warnings=False)
        return dumped
    found = dict(details) if isinstance(details, dict) else dict(vars(details))
    codec.encode_json(found)  # raises a TypeError here, not in the write
    return found
