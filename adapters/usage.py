"""
What a run used, read from the SDK's objects, and which of it was recorded before.

A run is known by its ``Usage`` object, which counts up through the run and through what it resumes. A run
that was resumed from a serialised state has a new one: it is known by having been given an approval, and by
continuing, request by request, a run of the session that was recorded as waiting for one.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

from eventlog.events import JSON, RequestUsage
from projections.spending import sum_details

_MARK = "_eventlog_run"


class Run(NamedTuple):
    """A run's identity, and its requests that are recorded already."""

    run_id: str
    recorded: tuple[RequestUsage, ...]


Place: TypeAlias = tuple[object, str]
"""Whose spend it is: a log, and a session in it."""


def run_of(usage: Any, place: Place) -> Run | None:
    """Return what is known of the run that this usage belongs to, as far as this session goes."""
    return _marks(usage).get(place)


def new_run() -> Run:
    """Return a run that nothing is recorded of yet."""
    return Run(uuid.uuid4().hex, ())


def remember(usage: Any, place: Place, run: Run | None) -> None:
    """Note with a usage object which run it is and what of it is recorded in this session."""
    marks = {**_marks(usage), place: run}
    try:
        object.__setattr__(usage, _MARK, {key: value for key, value in marks.items() if value})
    except (AttributeError, TypeError):
        return  # an object of the application's own that takes no attributes


def _marks(usage: Any) -> dict[Place, Run]:
    marks = getattr(usage, "__dict__", {}).get(_MARK)
    return marks if isinstance(marks, dict) else {}


def was_resumed(result: Any) -> bool | None:
    """Return whether a run was given approvals, as one that was resumed was; None if none can tell."""
    approvals = getattr(result.context_wrapper, "_approvals", None)
    return bool(approvals) if isinstance(approvals, dict) else None


def requests_of(result: Any) -> list[RequestUsage]:
    """
    Return a result's model requests, in order.

    Where the SDK's list of requests does not add up to its totals, one entry holds the sum of all.
    """
    usage = result.context_wrapper.usage
    total = _request(usage, requests=int(usage.requests or 0))
    entries = [_request(entry) for entry in getattr(usage, "request_usage_entries", None) or ()]
    if not entries or not _same(added(entries), total):
        return [total]
    responses = getattr(result, "raw_responses", None) or ()
    if len(responses) != len(entries):
        return entries
    return [
        _with_response(entry, getattr(response, "response_id", None))
        for entry, response in zip(entries, responses, strict=True)
    ]


def not_recorded(
    requests: Sequence[RequestUsage], recorded: Sequence[RequestUsage]
) -> list[RequestUsage]:
    """Return the requests of a run that are new, given those recorded before."""
    if continues(requests, recorded):
        return list(requests[len(recorded) :])
    rest = _minus(added(requests), added(recorded))
    return [rest] if _is_something(rest) else []


def continues(requests: Sequence[RequestUsage], recorded: Sequence[RequestUsage]) -> bool:
    """Whether these requests begin with the recorded ones."""
    return len(requests) >= len(recorded) and all(
        _numbers(request) == _numbers(before)
        and (before.response_id is None or request.response_id in (None, before.response_id))
        for request, before in zip(requests, recorded, strict=False)
    )


def added(requests: Sequence[RequestUsage]) -> RequestUsage:
    """Return the sum of requests as one entry."""
    numbers = [sum(column) for column in zip(*map(_numbers, requests), strict=True)] or [0] * 7
    input_details: dict[str, JSON] | None = None
    output_details: dict[str, JSON] | None = None
    for request in requests:
        input_details = sum_details(input_details, request.input_tokens_details)
        output_details = sum_details(output_details, request.output_tokens_details)
    return _of_numbers(numbers, input_details, output_details)


def _request(usage: Any, *, requests: int = 1) -> RequestUsage:
    input_details = _details(getattr(usage, "input_tokens_details", None))
    output_details = _details(getattr(usage, "output_tokens_details", None))
    return RequestUsage(
        requests=requests,
        input_tokens=int(usage.input_tokens or 0),
        output_tokens=int(usage.output_tokens or 0),
        total_tokens=int(usage.total_tokens or 0),
        cached_input_tokens=_count(input_details, "cached_tokens"),
        cache_write_tokens=_count(input_details, "cache_write_tokens"),
        reasoning_tokens=_count(output_details, "reasoning_tokens"),
        input_tokens_details=input_details,
        output_tokens_details=output_details,
    )


def _count(details: dict[str, JSON] | None, name: str) -> int:
    value = (details or {}).get(name)
    return value if isinstance(value, int) else 0


def _details(details: Any) -> dict[str, JSON] | None:
    """Return a provider's details with everything in them, also what the SDK's model does not name."""
    if not details:
        return None
    if hasattr(details, "model_dump"):
        dumped: dict[str, JSON] = details.model_dump(mode="json", warnings=False)
        return dumped
    return dict(details) if isinstance(details, dict) else dict(vars(details))


def _with_response(request: RequestUsage, response_id: Any) -> RequestUsage:
    if not isinstance(response_id, str):
        return request
    return RequestUsage(
        **{
            **{field: getattr(request, field) for field in request.__struct_fields__},
            "response_id": response_id,
        }
    )


def _numbers(request: RequestUsage) -> tuple[int, ...]:
    return (
        request.requests,
        request.input_tokens,
        request.output_tokens,
        request.total_tokens,
        request.cached_input_tokens,
        request.cache_write_tokens,
        request.reasoning_tokens,
    )


def _of_numbers(
    numbers: Sequence[int],
    input_details: dict[str, JSON] | None,
    output_details: dict[str, JSON] | None,
) -> RequestUsage:
    return RequestUsage(
        requests=numbers[0],
        input_tokens=numbers[1],
        output_tokens=numbers[2],
        total_tokens=numbers[3],
        cached_input_tokens=numbers[4],
        cache_write_tokens=numbers[5],
        reasoning_tokens=numbers[6],
        input_tokens_details=input_details,
        output_tokens_details=output_details,
    )


def _minus(left: RequestUsage, right: RequestUsage) -> RequestUsage:
    numbers = [max(0, a - b) for a, b in zip(_numbers(left), _numbers(right), strict=True)]
    details = {
        "input": {"cached_tokens": numbers[4], "cache_write_tokens": numbers[5]},
        "output": {"reasoning_tokens": numbers[6]},
    }
    return _of_numbers(numbers, details["input"], details["output"])


def _same(left: RequestUsage, right: RequestUsage) -> bool:
    return _numbers(left) == _numbers(right) and (
        (left.input_tokens_details, left.output_tokens_details)
        == (right.input_tokens_details, right.output_tokens_details)
    )


def _is_something(request: RequestUsage) -> bool:
    return any(_numbers(request))
