"""Repricing of recorded requests, each at its time; changed costs are recorded as corrections."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from agents_eventlog.adapters.conversations import commands, pricing
from agents_eventlog.adapters.conversations.pricing import Prices
from agents_eventlog.eventlog.cursor import check_progress
from agents_eventlog.eventlog.events import UsageCorrection
from agents_eventlog.eventlog.storage.engine import Store
from agents_eventlog.eventlog.storage.transaction import Transaction
from agents_eventlog.projections import default
from agents_eventlog.projections.usage import queries as usage_queries
from agents_eventlog.projections.usage.builder import NANOS, nanos
from agents_eventlog.projections.usage.queries import RecordedRequest, UsageQuery

SESSIONS_IN_A_UNIT = 100
"""Maximum number of sessions that one transaction corrects."""

Corrections: TypeAlias = dict[str, list[UsageCorrection]]


@dataclass(frozen=True)
class RepriceResult:
    """
    The result of repricing, or of its dry run.

    requests: the number of requests that were checked.
    changed: the number of requests whose cost changed; sessions: the number of their sessions.
    unpriced: the number of requests without a known price, also after this.
    dry_run: whether it was a dry run.
    cost_before, cost_after: the cost of all checked requests, in USD.
    """

    requests: int = 0
    changed: int = 0
    sessions: int = 0
    unpriced: int = 0
    cost_before: float = 0.0
    cost_after: float = 0.0
    dry_run: bool = False


@dataclass
class _Counts:
    requests: int = 0
    changed: int = 0
    sessions: int = 0
    unpriced: int = 0
    nanos_before: int = 0
    nanos_after: int = 0
    corrections: Corrections = field(default_factory=dict)


def reprice(
    store: Store,
    wanted: UsageQuery,
    *,
    model: str | None,
    prices: Prices,
    only_unpriced: bool,
    dry_run: bool,
    on_progress: Callable[[RepriceResult], None] | None = None,
) -> RepriceResult:
    """
    Price the requests of a query again, and record the costs that changed. Blocks.

    Costs that an application computed stay, unless ``prices`` is not None. Requests to a model without a
    price keep their recorded cost. The call may be interrupted at any time and repeated.
    """
    done = RepriceResult(dry_run=dry_run)
    counts = _Counts()
    for session_ids in _sessions(store, wanted.session_id):
        for session_id in session_ids:
            found = store.read_sync(
                lambda tx, session_id=session_id: _requests(tx, wanted, session_id, model)  # type: ignore[misc]
            )
            corrections = list(_corrections(found, counts, prices, only_unpriced=only_unpriced))
            if corrections:
                counts.sessions += 1
                counts.corrections[session_id] = corrections
        if counts.corrections and not dry_run:
            _record(store, counts.corrections)
        counts.corrections = {}
        done = _told(counts, done)
        if on_progress is not None:
            on_progress(done)
    return done


def _sessions(store: Store, session_id: str | None) -> Iterator[list[str]]:
    """Yield the ids of the sessions with usage, a batch at a time."""
    if session_id is not None:
        yield [session_id]
        return
    after: str | None = None
    while found := store.read_sync(
        lambda tx: usage_queries.sessions_after(_fresh(tx), after, SESSIONS_IN_A_UNIT)  # noqa: B023 - run at once
    ):
        if after is not None:
            check_progress(after, found[-1])
        yield found
        after = found[-1]


def _fresh(tx: Transaction) -> Transaction:
    default().require_fresh(tx)
    return tx


def _requests(
    tx: Transaction, wanted: UsageQuery, session_id: str, model: str | None
) -> list[RecordedRequest]:
    found = usage_queries.requests(_fresh(tx), wanted._replace(session_id=session_id))
    return [each for each in found if model in (None, each.request.model)]


def _corrections(
    found: list[RecordedRequest], counts: _Counts, prices: Prices, *, only_unpriced: bool
) -> Iterator[UsageCorrection]:
    bundled = pricing.bundled_source()
    for known in found:
        before = known.request
        if only_unpriced and before.cost_usd is not None:
            continue
        counts.requests += before.requests
        counts.nanos_before += nanos(before.cost_usd)
        after = pricing.priced(before, known.at, prices)
        if (before.price_source, after.price_source) == (pricing.APPLICATION, bundled):
            after = before  # the application knew better than the list
        counts.nanos_after += nanos(after.cost_usd)
        if after.cost_usd is None:
            counts.unpriced += before.requests
        elif before.cost_usd is None or nanos(before.cost_usd) != nanos(after.cost_usd):
            counts.changed += before.requests
            yield commands.correction(known.ref, before, after)


def _record(store: Store, corrections: Mapping[str, list[UsageCorrection]]) -> None:
    def unit(tx: Transaction) -> None:
        for session_id, corrected in corrections.items():
            commands.correct_usage(tx, session_id, corrected, "repriced")

    store.write_sync(unit)


def _told(counts: _Counts, done: RepriceResult) -> RepriceResult:
    return replace(
        done,
        requests=counts.requests,
        changed=counts.changed,
        sessions=counts.sessions,
        unpriced=counts.unpriced,
        cost_before=counts.nanos_before / NANOS,
        cost_after=counts.nanos_after / NANOS,
    )
