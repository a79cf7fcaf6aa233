"""Usage and cost: checks of a query, and the dicts that callers get."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from datetime import date, datetime
from typing import Any, cast

from agents_eventlog import projections
from agents_eventlog.adapters.conversations import timestamps
from agents_eventlog.adapters.conversations.item_search import check_filter
from agents_eventlog.adapters.conversations.rows import UsageStats, UsageSums
from agents_eventlog.eventlog.events import JSON
from agents_eventlog.eventlog.storage.engine import Store
from agents_eventlog.eventlog.storage.transaction import Transaction
from agents_eventlog.projections.usage import queries as usage_queries
from agents_eventlog.projections.usage.queries import Group, UsageQuery, UsageTotals

_announced: weakref.WeakKeyDictionary[Store, set[Future[None]]] = weakref.WeakKeyDictionary()


def announce(store: Store, recording: Future[None]) -> None:
    """Let queries on this store's usage wait for a background write that records usage."""
    futures = _announced.setdefault(store, set())
    futures.add(recording)
    recording.add_done_callback(futures.discard)


async def recorded(store: Store) -> None:
    """Wait until the usage of all answered requests is recorded."""
    if left := [*_announced.get(store, ())]:
        await asyncio.wait([asyncio.wrap_future(each) for each in left])


def wanted(
    by: Iterable[str] | str = (),
    *,
    since: date | datetime | None = None,
    until: date | datetime | None = None,
    user_id: str | None = None,
    session_id: str | None = None,
    live: bool = False,
    tz: str = "UTC",
) -> UsageQuery:
    """Check the parameters of a usage query and return the query. Raises InvalidQueryError."""
    checked = usage_queries.check_by(by)
    check_filter("user_id", user_id)
    check_filter("session_id", session_id)
    zone = timestamps.zone(tz)
    start, end = timestamps.period(since, until, zone)
    return UsageQuery(
        by=checked,
        since=start,
        until=end,
        user_id=user_id,
        session_id=session_id,
        live=live,
        tz=zone,
    )


def ask(tx: Transaction, asked: UsageQuery) -> UsageStats:
    """Return usage and cost as ``ConversationLog.usage`` does. Raises StaleProjectionError."""
    projections.default().require_fresh(tx)
    return answer(usage_queries.groups(tx, asked), asked.by)


def answer(found: Sequence[Group], by: Sequence[str]) -> UsageStats:
    """Return the sums of all groups and, if ``by`` is not empty, of each group."""
    totals = as_dict(usage_queries.total(found))
    stats: Any = dict(totals)
    if by:
        stats["groups"] = [{**group.keys, **as_dict(group.totals)} for group in found]
    return cast("UsageStats", stats)


def documents(stats: Mapping[str, Any]) -> Iterator[dict[str, JSON]]:
    """Yield the documents of ``eventlog usage`` for an answer with groups."""
    for group in stats["groups"]:
        yield {"kind": "usage", **group}
    yield {"kind": "total", **{name: sums for name, sums in stats.items() if name != "groups"}}


def as_dict(spent: UsageTotals) -> UsageSums:
    """Return sums under their public names."""
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
