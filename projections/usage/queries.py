"""
Queries on usage and cost.

Sums over whole days come from ``usage_by_day``, which is small. Other groups and filters (a time of day,
a run, a turn, a branch, live usage) read ``usage`` by its index of sessions, and find the sessions of a
period in ``usage_by_day``. Both give the same sums.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, date, datetime, timedelta, tzinfo
from typing import Any, Final, NamedTuple

from agents_eventlog.eventlog import codec, sealing
from agents_eventlog.eventlog.errors import InvalidQueryError
from agents_eventlog.eventlog.events import JSON, ItemRef, RequestUsage
from agents_eventlog.eventlog.recorded_event import EARLIEST, LATEST
from agents_eventlog.eventlog.storage.transaction import Row, Transaction
from agents_eventlog.projections.conversations import labels
from agents_eventlog.projections.usage.builder import COUNTS, DAY, NANOS

WEEK: Final = 7 * DAY
"""No time zone changes its offset twice in a week."""

BY: Final = {
    "session": "session_id",
    "user": "user_id",
    "branch": "branch_id",
    "turn": "turn",
    "run": "run_id",
    "model": "model",
    "agent": "agent",
    "day": "day",
    "month": "month",
}
"""The names to group usage by, and the key of each in a group."""

ONLY_ROWS: Final = {"branch", "turn", "run"}
"""Groups that sums by day do not distinguish."""

COLUMNS: Final = {"user_id": "sessions.user_id", "month": "summed.day"}
"""The columns of keys that are not columns of the usage itself. Days are added up to months later."""

PERIODS: Final = {"day", "month"}


class UsageQuery(NamedTuple):
    """
    Filters for usage, and how to group it.

    by: any of ``BY``, in the order in which the groups are sorted.
    since, until: microseconds since 1970 UTC, the latter excluded.
    live: only live usage: not that of popped, deleted, cleared or expired turns.
    tz: the time zone of days and months.
    user_names: what the tables may hold for the user id, where that is known.
    now: the time of the transaction, at which a session may have expired.
    """

    by: Sequence[str] = ()
    since: int | None = None
    until: int | None = None
    user_id: str | None = None
    session_id: str | None = None
    live: bool = False
    tz: tzinfo = UTC
    user_names: tuple[str, ...] = ()
    now: int = 0


class UsageTotals(NamedTuple):
    """Sums. A run counts in the group where its first request does."""

    runs: int = 0
    requests: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    total_tokens: int = 0
    cached_input_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0
    cost_nanos: int = 0
    unpriced_requests: int = 0

    @property
    def cost_usd(self) -> float:
        """The cost of all requests with a price."""
        return self.cost_nanos / NANOS

    def __add__(self, other: UsageTotals) -> UsageTotals:  # type: ignore[override]
        """Add two sums."""
        return UsageTotals(*(mine + theirs for mine, theirs in zip(self, other, strict=True)))


class Group(NamedTuple):
    """The sums under one value of each key; an unknown value is null."""

    keys: dict[str, str | int | None]
    totals: UsageTotals


class TurnRequest(NamedTuple):
    """A recorded model request (or several, recorded together) of a turn."""

    position: int
    branch_id: str
    turn: int
    is_live: int
    run_id: str
    requests: int
    input_tokens: int
    output_tokens: int
    total_tokens: int
    cached_input_tokens: int
    model: str | None
    agent: str | None
    cost_usd: float | None
    occurred_at: int


OF_TURNS: Final = f"""
    SELECT {", ".join(TurnRequest._fields)} FROM usage
    WHERE session_id = ? AND turn BETWEEN ? AND ?
    ORDER BY position, index_in_event
"""
TOKENS_BY_TURN: Final = """
    SELECT session_id, SUM(total_tokens) FROM usage
    WHERE session_id IN ({}) AND turn IS NOT NULL
    GROUP BY session_id, turn
    ORDER BY session_id, turn
"""
SUMS = ", ".join(f"SUM({name})" for name in UsageTotals._fields)
OF_DAYS = f"""
    day, session_id, NULLIF(model, '') AS model, NULLIF(agent, '') AS agent,
        {", ".join(UsageTotals._fields)}
"""
OF_ROWS = f"""
    (local_time - (local_time % {DAY} + {DAY}) % {DAY}) / {DAY} AS day,
        session_id, NULLIF(model, '') AS model, NULLIF(agent, '') AS agent,
        begins_run AS runs, {", ".join(UsageTotals._fields[1:-1])},
        CASE WHEN cost_usd IS NULL THEN requests ELSE 0 END AS unpriced_requests
"""
DAYS_WITH_USAGE = """
    SELECT (SELECT MIN(day) FROM usage_by_day), (SELECT MAX(day) FROM usage_by_day)
"""
OF_USER = "session_id IN (SELECT session_id FROM sessions WHERE user_id = ?)"
A_SESSION_OF_USER = "SELECT session_id, metadata FROM sessions WHERE user_id = ? LIMIT 1"
IS_READ = """
    NOT EXISTS (
        SELECT 1 FROM sessions AS s
        WHERE s.session_id = usage.session_id AND (
            s.deleted_at IS NOT NULL
            OR (
                s.is_filled = 1 AND s.expires_after IS NOT NULL
                AND s.updated_at + COALESCE(s.expires_after, 0) <= ?
            )
        )
    )
"""
"""The session is neither deleted nor expired."""


def check_by(by: Iterable[str] | str) -> tuple[str, ...]:
    """Return the names to group by; raise InvalidQueryError for an unknown or repeated one."""
    try:
        names = (by,) if isinstance(by, str) else tuple(by)
    except TypeError:
        names = (str(by),)
    for name in names:
        if name not in BY:
            raise InvalidQueryError(
                f"cannot group usage by {name!r}; expected one of: {', '.join(BY)}"
            )
    if len(set(names)) < len(names):
        raise InvalidQueryError("invalid by: expected each name once")
    return names


def groups(tx: Transaction, query: UsageQuery) -> list[Group]:
    """Return the usage by groups; without groups, one group of all."""
    query = query._replace(now=tx.now)
    if query.user_id is not None:
        query = query._replace(user_names=sealing.user_names(tx, query.user_id))
    source, parameters = _source(tx, query)
    keys = [BY[name] for name in query.by]
    columns = [COLUMNS.get(key, f"summed.{key}") for key in keys]
    joined = "LEFT JOIN sessions ON sessions.session_id = summed.session_id"
    selected = ", ".join([*columns, SUMS])
    sql = f"SELECT {selected} FROM ({source}) AS summed {joined if 'user_id' in keys else ''}"
    if columns:
        order = ", ".join(f"{column} NULLS FIRST" for column in columns)
        sql += f" GROUP BY {', '.join(columns)} ORDER BY {order}"
    rows = tx.all(sql, parameters)
    found = [_group(keys, row) for row in rows if row[-1] is not None or columns]
    if "user_id" in keys and tx.cipher is not None:
        found = _with_user_ids(tx, found)
        return _merged(keys, found)
    return _merged(keys, found) if "month" in keys else found


def _with_user_ids(tx: Transaction, found: Iterable[Group]) -> list[Group]:
    """Return groups with the user ids themselves where the tables have tokens."""
    user_ids: dict[str, str | None] = {}
    for group in found:
        name = group.keys["user_id"]
        if isinstance(name, str) and name not in user_ids:
            session_id, metadata = tx.one(A_SESSION_OF_USER, (name,)) or ("", None)
            user_ids[name] = labels.read(tx, session_id, name, metadata).user_id
    return [
        group._replace(keys={**group.keys, "user_id": user_ids.get(str(group.keys["user_id"]))})
        for group in found
    ]


def _merged(keys: Sequence[str], found: Iterable[Group]) -> list[Group]:
    """Add up groups with the same values: the days of a month."""
    sums: dict[tuple[str | int | None, ...], UsageTotals] = {}
    for group in found:
        values = tuple(group.keys.values())
        sums[values] = sums.get(values, UsageTotals()) + group.totals
    order = sorted(sums, key=lambda values: [(value is not None, value) for value in values])
    return [Group(dict(zip(keys, values, strict=True)), sums[values]) for values in order]


def total(found: Iterable[Group]) -> UsageTotals:
    """Return the sum of groups."""
    return sum((group.totals for group in found), UsageTotals())


def _group(keys: Sequence[str], row: Row) -> Group:
    values = dict(zip(keys, row, strict=False))
    for name in PERIODS & values.keys():
        ordinal = date(1970, 1, 1).toordinal() + values[name]
        day = date.fromordinal(min(max(ordinal, 1), date.max.toordinal()))
        values[name] = f"{day}"[:7] if name == "month" else f"{day}"
    return Group(values, UsageTotals(*row[len(keys) :]))


def _source(tx: Transaction, query: UsageQuery) -> tuple[str, list[Any]]:
    """Return the statement that gives the rows to be summed, and its parameters."""
    by_rows = query.live or query.session_id is not None or query.user_id is not None
    if query.tz is not UTC and PERIODS & set(query.by):
        return _rows(query, _offset(tx, query.tz))
    if by_rows or ONLY_ROWS & set(query.by):
        return _rows(query)
    return _days(query.since, query.until)


def _days(since: int | None, until: int | None) -> tuple[str, list[Any]]:
    """Read whole days from their sums, and the edges of the range from rows."""
    first = None if since is None else -(-since // DAY)
    end = None if until is None else until // DAY
    if first is not None and end is not None and first >= end:
        return _rows(UsageQuery(since=since, until=until))
    conditions, parameters = _range("day", first, end)
    parts = [f"SELECT {OF_DAYS} FROM usage_by_day {_where(conditions)}"]
    for edge in (
        UsageQuery(since=since, until=None if first is None else first * DAY),
        UsageQuery(since=None if end is None else end * DAY, until=until),
    ):
        if edge.since is not None and edge.until is not None and edge.since < edge.until:
            sql, more = _rows(edge)
            parts.append(sql)
            parameters += more
    return " UNION ALL ".join(parts), parameters


def _offset(tx: Transaction, tz: tzinfo) -> str:
    """Return SQL for the offset of a time zone at ``occurred_at``, in microseconds."""
    row = tx.one(DAYS_WITH_USAGE)
    first, last = (0, 0) if row is None or row[0] is None else row
    changes = []
    at, offset = first * DAY, _offset_at(first * DAY, tz)
    while at < (last + 1) * DAY:
        start, end = at, at + WEEK
        if _offset_at(end, tz) == offset:
            at = end
            continue
        while end - start > 1:  # the change is after start, and not after end
            middle = (start + end) // 2
            start, end = (middle, end) if _offset_at(middle, tz) == offset else (start, middle)
        changes.append(f"WHEN occurred_at < {end} THEN {offset}")
        at, offset = end, _offset_at(end, tz)
    return f"CASE {' '.join(changes)} ELSE {offset} END" if changes else str(offset)


def _offset_at(at: int, tz: tzinfo) -> int:
    within = min(max(at, EARLIEST + DAY), LATEST - DAY)
    moment = (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=within)).astimezone(tz)
    return (moment.utcoffset() or timedelta()) // timedelta(microseconds=1)


def _rows(query: UsageQuery, offset: str = "0") -> tuple[str, list[Any]]:
    """
    Read single requests.

    offset: SQL for the offset of the time zone that days are in.
    """
    more = "".join(f", {BY[name]}" for name in query.by if name in ONLY_ROWS)
    conditions, parameters = _conditions(query)
    of_rows = OF_ROWS.replace("local_time", f"(occurred_at + {offset})")
    return f"SELECT {of_rows}{more} FROM usage {_where(conditions)}", parameters


def _conditions(query: UsageQuery) -> tuple[list[str], list[Any]]:
    conditions, parameters = _range("occurred_at", query.since, query.until)
    if conditions and query.session_id is None and query.user_id is None:
        last = None if query.until is None else query.until // DAY + 1
        days, bounds = _range("day", None if query.since is None else query.since // DAY, last)
        conditions.append(f"session_id IN (SELECT session_id FROM usage_by_day {_where(days)})")
        parameters += bounds
    if query.session_id is not None:
        conditions.append("session_id = ?")
        parameters.append(query.session_id)
    if query.user_id is not None:
        names = query.user_names or (query.user_id,)
        conditions.append(f"({' OR '.join([OF_USER] * len(names))})")
        parameters += names
    if query.live:
        conditions += ["is_live = 1", IS_READ]
        parameters.append(query.now)
    return conditions, parameters


def _range(column: str, since: int | None, until: int | None) -> tuple[list[str], list[Any]]:
    bounds = [(f"{column} >= ?", since), (f"{column} < ?", until)]
    given = [(condition, bound) for condition, bound in bounds if bound is not None]
    return [condition for condition, _ in given], [bound for _, bound in given]


def _where(conditions: list[str]) -> str:
    return f"WHERE {' AND '.join(conditions)}" if conditions else ""


# -- of one session -----------------------------------------------------------------------------

_REQUEST_FIELDS = (
    *(*COUNTS, "response_id", "model", "agent", "endpoint", "service_tier"),
    *("cost_usd", "price_source"),
)
_REQUEST_COLUMNS = (*_REQUEST_FIELDS, "input_token_details", "output_token_details")
TURNS = """
    SELECT turn, requests, input_tokens, output_tokens, total_tokens, input_token_details,
        output_token_details
    FROM usage
    WHERE session_id = ? AND branch_id = ? AND turn IS NOT NULL AND is_live = 1
    ORDER BY turn, position, index_in_event
"""
REQUESTS_OF_TURN = f"""
    SELECT position, is_live, NULLIF(model, ''), begins_run, {", ".join(UsageTotals._fields[1:-1])},
        CASE WHEN cost_usd IS NULL THEN requests ELSE 0 END
    FROM usage
    WHERE session_id = ? AND branch_id = ? AND turn = ?
    ORDER BY position, index_in_event
"""
LIVE_TOTAL = """
    SELECT SUM(requests), SUM(input_tokens), SUM(output_tokens), SUM(total_tokens), COUNT(*)
    FROM (
        SELECT SUM(requests) AS requests, SUM(input_tokens) AS input_tokens,
            SUM(output_tokens) AS output_tokens, SUM(total_tokens) AS total_tokens
        FROM usage
        WHERE session_id = ? AND (CAST(? AS TEXT) IS NULL OR branch_id = ?) AND is_live = 1
        GROUP BY branch_id, turn
    ) AS turns
"""
RUNS_BEGINNING = f"""
    SELECT run_id
    FROM usage
    WHERE session_id = ? AND begins_run = 1 AND {" AND ".join(f"{name} = ?" for name in COUNTS)}
        AND (
            CAST(? AS TEXT) IS NULL
            OR run_id IN (
                SELECT run_id FROM usage WHERE session_id = ? AND branch_id = ? AND turn = ?
            )
        )
    ORDER BY position DESC
"""
HAS_RUN = "SELECT 1 FROM usage WHERE session_id = ? AND run_id = ? AND begins_run = 1 LIMIT 1"
REQUESTS_OF_RUN = f"""
    SELECT position, index_in_event, occurred_at, {", ".join(_REQUEST_COLUMNS)}
    FROM usage
    WHERE session_id = ? AND run_id = ?
    ORDER BY position, index_in_event
"""

SESSIONS_AFTER = """
    SELECT DISTINCT session_id FROM usage WHERE session_id > ? ORDER BY session_id LIMIT ?
"""
FIRST_SESSIONS = "SELECT DISTINCT session_id FROM usage ORDER BY session_id LIMIT ?"


class RecordedRequest(NamedTuple):
    """A request after corrections: where and when it was recorded."""

    ref: ItemRef
    at: int
    request: RequestUsage


class RequestOfTurn(NamedTuple):
    """A request that was recorded on a turn of a branch, and whether it is live."""

    position: int
    is_live: bool
    model: str | None
    totals: UsageTotals


class RecordedRun(NamedTuple):
    """A run so far."""

    run_id: str
    requests: list[RecordedRequest]


class Tokens(NamedTuple):
    """Sums of tokens. The details are summed key by key where they are numbers."""

    requests: int
    input_tokens: int
    output_tokens: int
    total_tokens: int
    input_tokens_details: dict[str, JSON] | None
    output_tokens_details: dict[str, JSON] | None


def by_turn(tx: Transaction, session_id: str, branch_id: str) -> dict[int, Tokens]:
    """Return the usage of each live turn of a branch."""
    turns: dict[int, Tokens] = {}
    for turn, *numbers, input_details, output_details in tx.all(TURNS, (session_id, branch_id)):
        requests, read, written, total = numbers
        details = (_loaded(input_details), _loaded(output_details))
        used = Tokens(requests, read, written, total, *details)
        turns[turn] = used if turn not in turns else _plus(turns[turn], used)
    return turns


def of_turn(tx: Transaction, session_id: str, branch_id: str, turn: int) -> list[RequestOfTurn]:
    """Return the requests that were recorded on a turn of a branch, live or not."""
    return [
        RequestOfTurn(position, bool(is_live), model, UsageTotals(*counts))
        for position, is_live, model, *counts in tx.all(
            REQUESTS_OF_TURN, (session_id, branch_id, turn)
        )
    ]


def live_total(
    tx: Transaction, session_id: str, branch_id: str | None
) -> tuple[int, int, int, int, int] | None:
    """Return (requests, input, output, total tokens, turns) of live turns, or None."""
    row = tx.one(LIVE_TOTAL, (session_id, branch_id, branch_id))
    return None if row is None or row[0] is None else (row[0], row[1], row[2], row[3], row[4])


def sessions_after(tx: Transaction, after: str | None, limit: int) -> list[str]:
    """Return the next sessions that used anything, by their ids; None: from the first."""
    rows = (
        tx.all(FIRST_SESSIONS, (limit,))
        if after is None
        else tx.all(SESSIONS_AFTER, (after, limit))
    )
    return [session_id for (session_id,) in rows]


def requests(tx: Transaction, query: UsageQuery) -> list[RecordedRequest]:
    """Return the matching requests of one session, after corrections."""
    conditions, parameters = _conditions(query)
    sql = f"""
        SELECT position, index_in_event, occurred_at, {", ".join(_REQUEST_COLUMNS)}
        FROM usage {_where(conditions)}
        ORDER BY position, index_in_event
    """
    return [_recorded_request(row) for row in tx.all(sql, parameters)]


def has_run(tx: Transaction, session_id: str, run_id: str) -> bool:
    """Return whether usage of a run was recorded in a session."""
    return tx.one(HAS_RUN, (session_id, run_id)) is not None


def runs_beginning(
    tx: Transaction, session_id: str, first: Sequence[int], turn: tuple[str, int] | None
) -> Iterator[RecordedRun]:
    """
    Yield a session's runs whose first request has these numbers, the last run first.

    first: the request's numbers, in the order of ``COUNTS``.
    turn: a branch and its turn, for only the runs that took part in it.
    """
    branch_id, number = turn or (None, None)
    parameters = (session_id, *first, branch_id, session_id, branch_id, number)
    for (run_id,) in tx.all(RUNS_BEGINNING, parameters):
        rows = tx.all(REQUESTS_OF_RUN, (session_id, run_id))
        yield RecordedRun(run_id, [_recorded_request(row) for row in rows])


def _recorded_request(row: Row) -> RecordedRequest:
    position, index, at, *request, read, written = row
    known = RequestUsage(
        **dict(zip(_REQUEST_FIELDS, request, strict=True)),
        input_tokens_details=_loaded(read),
        output_tokens_details=_loaded(written),
    )
    return RecordedRequest(ItemRef(position, index), at, known)


def sum_details(
    left: dict[str, JSON] | None, right: dict[str, JSON] | None
) -> dict[str, JSON] | None:
    """Add two details key by key; a value that is not a number comes from the later one."""
    if left is None or right is None:
        return right if left is None else left
    summed = {**left, **right}
    for key in left.keys() & right.keys():
        if isinstance(left[key], int | float) and isinstance(right[key], int | float):
            summed[key] = left[key] + right[key]
    return summed


def _plus(left: Tokens, right: Tokens) -> Tokens:
    return Tokens(
        left.requests + right.requests,
        left.input_tokens + right.input_tokens,
        left.output_tokens + right.output_tokens,
        left.total_tokens + right.total_tokens,
        sum_details(left.input_tokens_details, right.input_tokens_details),
        sum_details(left.output_tokens_details, right.output_tokens_details),
    )


def _loaded(details: str | None) -> dict[str, JSON] | None:
    return None if details is None else codec.decode_metadata(details)


def requests_of_turns(tx: Transaction, session_id: str, first: int, last: int) -> list[TurnRequest]:
    """Return the recorded requests of some turns, on all branches of a session, in order."""
    return [TurnRequest(*row) for row in tx.all(OF_TURNS, (session_id, first, last))]


def tokens_by_turn(tx: Transaction, session_ids: Sequence[str]) -> dict[str, list[int]]:
    """Return the tokens of each turn of some sessions, on all branches together, in order."""
    found: dict[str, list[int]] = {session_id: [] for session_id in session_ids}
    if found:
        sql = TOKENS_BY_TURN.format(", ".join("?" * len(found)))
        for session_id, tokens in tx.execute(sql, list(found)):
            found[session_id].append(tokens)
    return found
