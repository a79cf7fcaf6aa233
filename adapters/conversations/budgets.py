"""
Budgets: limits on the usage and cost of a run, a session, a user, a day or a month.

A budget is used up when its recorded usage reaches the limit. Requests that are not answered yet are not
counted: n runs at the same time can exceed a budget by up to n requests.
"""

from __future__ import annotations

import math
import re
import weakref
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import product
from typing import Any, Final, Literal, NamedTuple, TypeAlias, get_args

from agents_eventlog.adapters.conversations import timestamps
from agents_eventlog.eventlog.errors import BudgetExceededError
from agents_eventlog.eventlog.log import EventLog
from agents_eventlog.eventlog.storage.engine import Store
from agents_eventlog.eventlog.storage.transaction import Transaction
from agents_eventlog.projections.usage import queries as usage_queries
from agents_eventlog.projections.usage.builder import nanos
from agents_eventlog.projections.usage.queries import BY, UsageQuery, UsageTotals

Per: TypeAlias = Literal["run", "session", "user", "day", "month"]
PERIODS: Final = ("day", "month")
_PER: Final = {frozenset((name,)) for name in get_args(Per)} | {
    frozenset(pair) for pair in product(("session", "user"), PERIODS)
}
_TEXT: Final = re.compile(
    r"((?P<usd>\d+(\.\d+)?) ?usd|(?P<tokens>\d+) ?tokens)(?P<per>(/[a-z]+)+)", re.ASCII
)


_Applied: TypeAlias = tuple[weakref.ref[EventLog], tuple["Budget", ...]]

_applied: weakref.WeakKeyDictionary[Store, tuple[_Applied, ...]] = weakref.WeakKeyDictionary()
"""The budgets of log objects. Each value is replaced as a whole: other threads may read it meanwhile."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """
    A limit on usage: in USD, in tokens (input and output), or both.

    usd, tokens: the limit; at least one of them. The budget is used up when recorded usage reaches it.
    per: what the limit applies to. "run": each run. "session": each session. "user": all sessions of each
        user together; a session without a user id alone. "day" and "month": all sessions of the log
        together, in the current day or month. A pair combines two: ("user", "month") is each user's usage
        in the current month.
    soft: only log a warning when the budget is used up, instead of raising BudgetExceededError.
    tz: the IANA time zone of days and months.

    Requests without a known price count as 0 USD; a warning is logged.
    """

    usd: float | None = None
    tokens: int | None = None
    per: Per | tuple[Per, ...] = "session"
    soft: bool = False
    tz: str = "UTC"

    def __post_init__(self) -> None:
        """Raise ValueError for a limit that is not a number, or an unknown ``per`` or ``tz``."""
        for name, limit in (("usd", self.usd), ("tokens", self.tokens)):
            if limit is not None and not (math.isfinite(limit) and limit >= 0):
                raise ValueError(f"invalid {name}: expected 0 or more, got {limit!r}")
        if self.usd is None and self.tokens is None:
            raise ValueError("invalid budget: expected usd or tokens, got neither")
        if frozenset(self._names) not in _PER or len(self._names) > 2:
            raise ValueError(
                f"invalid per: expected one of {get_args(Per)}, or session or user with day or month, "
                f"got {self.per!r}"
            )
        timestamps.zone(self.tz)

    @property
    def _names(self) -> tuple[str, ...]:
        return (self.per,) if isinstance(self.per, str) else tuple(self.per)

    @property
    def scope(self) -> str | None:
        """What the limit applies to: "run", "session", "user", or None for all sessions of the log."""
        return next((name for name in self._names if name not in PERIODS), None)

    @property
    def period(self) -> Literal["day", "month"] | None:
        """The period of the limit: "day", "month", or None for all time."""
        return "day" if "day" in self._names else "month" if "month" in self._names else None

    def __str__(self) -> str:
        limits = [] if self.usd is None else [f"{self.usd:g} USD"]
        limits += [] if self.tokens is None else [f"{self.tokens:,} tokens"]
        return f"{' or '.join(limits)} per {' and '.join(self._names)}"


Budgets: TypeAlias = "Budget | Iterable[Budget]"


class BudgetUsage(NamedTuple):
    """
    The usage that counts towards a budget.

    keys: the run, session or user, and the day or month, that used it: run_id, session_id, user_id, day,
        month. A user_id of None means sessions without one.
    unpriced_requests: the number of requests without a known price, which ``cost_usd`` does not include.
    """

    budget: Budget
    keys: dict[str, str | None]
    cost_usd: float
    tokens: int
    unpriced_requests: int = 0

    @property
    def is_exceeded(self) -> bool:
        """Whether the budget is used up: the usage has reached a limit."""
        usd, tokens = self.budget.usd, self.budget.tokens
        return (usd is not None and nanos(self.cost_usd) >= nanos(usd)) or (
            tokens is not None and self.tokens >= tokens
        )

    @property
    def fraction(self) -> float:
        """The used fraction of the limit: 1.0 is all of it. With two limits, the greater fraction."""
        parts = ((self.cost_usd, self.budget.usd), (self.tokens, self.budget.tokens))
        return max(
            (used / limit if limit else math.inf) for used, limit in parts if limit is not None
        )

    def error(self) -> BudgetExceededError:
        """Return the BudgetExceededError for this usage."""
        return BudgetExceededError(
            budget=self.budget, keys=self.keys, cost_usd=self.cost_usd, tokens=self.tokens
        )


def checked(budgets: Budgets) -> tuple[Budget, ...]:
    """Return budgets as a tuple. Raises TypeError for other types."""
    each = (budgets,) if isinstance(budgets, Budget) else tuple(budgets)
    for budget in each:
        if not isinstance(budget, Budget):
            raise TypeError(f"invalid budget: expected a Budget, got {type(budget).__name__}")
    return each


def apply_while_open(log: EventLog, limits: tuple[Budget, ...]) -> None:
    """Apply budgets to all sessions of this process on a log's file, until this log object is closed."""
    if limits:
        _applied[log.store] = (*_open(log.store), (weakref.ref(log), limits))


def of_logs(store: Store) -> list[Budget]:
    """Return the budgets of the open log objects of a store."""
    return [budget for _, limits in _open(store) for budget in limits]


def _open(store: Store) -> list[_Applied]:
    return [
        each
        for each in _applied.get(store, ())
        if (log := each[0]()) is not None and not log.is_closed
    ]


def parsed(text: str) -> Budget:
    """Parse a budget such as "20usd/user/month" or "100000tokens/session". Raises ValueError."""
    found = _TEXT.fullmatch(text)
    if found is None:
        raise ValueError(
            f"invalid budget: expected for example 20usd/user/month or 5000tokens/run, got {text!r}"
        )
    per: Any = tuple(found["per"].split("/")[1:])  # checked by the class
    if found["tokens"] is not None:
        return Budget(tokens=int(found["tokens"]), per=per)
    return Budget(usd=float(found["usd"]), per=per)


def of_session(
    tx: Transaction, budget: Budget, session_id: str, user_id: str | None, now: int
) -> BudgetUsage:
    """Return the usage that counts towards a budget, other than one per run, for a session."""
    keys, since = _period(budget, now)
    query = UsageQuery(since=since)
    if budget.scope == "session" or (budget.scope == "user" and user_id is None):
        query, keys = query._replace(session_id=session_id), {"session_id": session_id, **keys}
    elif budget.scope == "user":
        query, keys = query._replace(user_id=user_id), {"user_id": user_id, **keys}
    return _usage(budget, keys, usage_queries.total(usage_queries.groups(tx, query)))


def used(tx: Transaction, budget: Budget, query: UsageQuery, now: int) -> list[BudgetUsage]:
    """
    Return the usage that counts towards a budget, for each run, session or user; the most used first.

    query: only this user's sessions, or this session.
    """
    period, since = _period(budget, now)
    by: tuple[str, ...] = () if budget.scope is None else (budget.scope,)
    if by == ("user",):
        by = ("user", "session")
    sums: dict[tuple[str, str | None], UsageTotals] = {}
    for group in usage_queries.groups(tx, query._replace(by=by, since=since)):
        name = "" if budget.scope is None else BY[budget.scope]
        if name == "user_id" and group.keys["user_id"] is None:
            name = "session_id"  # counted alone
        key = (name, None if not name else str(group.keys[name]))
        sums[key] = sums.get(key, UsageTotals()) + group.totals
    found = [
        _usage(budget, {**({name: value} if name else {}), **period}, total)
        for (name, value), total in sums.items()
    ]
    return sorted(found, key=lambda each: -each.fraction)


def _usage(budget: Budget, keys: dict[str, str | None], total: UsageTotals) -> BudgetUsage:
    return BudgetUsage(budget, keys, total.cost_usd, total.total_tokens, total.unpriced_requests)


def _period(budget: Budget, now: int) -> tuple[dict[str, str | None], int | None]:
    """Return the key and the start of the current period."""
    if budget.period is None:
        return {}, None
    start, name = timestamps.current(budget.period, now, timestamps.zone(budget.tz))
    return {budget.period: name}, start
