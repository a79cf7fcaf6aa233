"""What was spent, as programs ask for it and get it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

import projections
from eventlog.errors import InvalidQueryError
from eventlog.query import microseconds
from eventlog.transaction import Transaction
from projections import spending
from projections.spending import Group, Spent, Wanted


def wanted(
    by: Iterable[str] | str = (),
    *,
    since: date | datetime | None = None,
    until: date | datetime | None = None,
    user_id: str | None = None,
    session_id: str | None = None,
    live: bool = False,
) -> Wanted:
    """Return which spend is asked for. Raises InvalidQueryError for a group or a time that is none."""
    return Wanted(
        by=spending.check_by(by),
        since=None if since is None else _instant("since", since),
        until=None if until is None else _instant("until", until, end_of_day=True),
        user_id=user_id,
        session_id=session_id,
        live=live,
    )


def ask(tx: Transaction, asked: Wanted) -> dict[str, Any]:
    """Return what was spent, as ``ConversationLog.usage`` does. Raises StaleProjectionError."""
    projections.default().require_fresh(tx)
    return answer(spending.groups(tx, asked), asked.by)


def answer(found: Sequence[Group], by: Sequence[str]) -> dict[str, Any]:
    """Return the sums of all groups and, where groups were asked for, each of them."""
    totals = as_dict(spending.total(found))
    if not by:
        return totals
    return {**totals, "groups": [{**group.keys, **as_dict(group.spent)} for group in found]}


def as_dict(spent: Spent) -> dict[str, Any]:
    """Return sums under the names that users know."""
    return {
        "total_runs": spent.runs,
        "total_requests": spent.requests,
        "total_tokens": spent.total_tokens,
        "input_tokens": spent.input_tokens,
        "output_tokens": spent.output_tokens,
        "cached_tokens": spent.cached_input_tokens,
        "cache_write_tokens": spent.cache_write_tokens,
        "reasoning_tokens": spent.reasoning_tokens,
        "total_cost": spent.cost_usd,
        "unpriced_requests": spent.unpriced_requests,
    }


def _instant(name: str, at: date | datetime, *, end_of_day: bool = False) -> int:
    """Return a time in microseconds since 1970; a day alone is its beginning, or its end."""
    if isinstance(at, datetime):
        return microseconds(at)
    if not isinstance(at, date):
        raise InvalidQueryError(f"{name} is of type {type(at).__name__}, not a date or a datetime")
    return microseconds(datetime.combine(at, time(), UTC) + timedelta(days=end_of_day))
