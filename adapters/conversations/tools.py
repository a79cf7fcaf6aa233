"""
Counts of tool calls, failures and unanswered calls, by tool, session and day.

Each call on a live branch of a session that is not deleted counts once, even if several branches share it.
A call failed if its output has a failed status, an exit code or an error, or is the text that the Agents
SDK sends to the model instead of a result.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from datetime import date, datetime
from typing import Any, Final, NamedTuple, NotRequired, TypeAlias, TypedDict, Unpack, cast

from agents_eventlog.adapters.conversations import timestamps
from agents_eventlog.adapters.conversations.item_search import check_filter
from agents_eventlog.adapters.conversations.tool_calls import OUTPUTS, call_id_of
from agents_eventlog.eventlog import codec
from agents_eventlog.eventlog.cursor import check_progress
from agents_eventlog.eventlog.errors import InvalidQueryError
from agents_eventlog.eventlog.events import JSON
from agents_eventlog.eventlog.recorded_event import occurred_at
from agents_eventlog.eventlog.storage.transaction import Row, RunUnit, Transaction
from agents_eventlog.projections.conversations import labels
from agents_eventlog.projections.conversations import queries as conversation_queries

GROUPS: Final = {"tool": "tool_name", "session": "session_id", "day": "day"}
"""The groups that calls can be counted by, and their keys in a row."""

SESSIONS_AT_ONCE: Final = 50
"""Maximum number of sessions that one unit of work reads."""

OUTPUT_TYPES: Final = ("mcp_call", "mcp_approval_response", *OUTPUTS.values())
"""The types of items that hold the outcome of a call."""

FAILED: Final = frozenset({"failed", "incomplete"})
SDK_FAILURES: Final = re.compile(
    r"An error occurred while running the tool\b|Tool '.*' (not found\.|timed out after )"
)
"""The beginnings of the texts that the Agents SDK sends instead of an output."""

ANSWERS: Final = {output: call for call, output in OUTPUTS.items()}

Counts: TypeAlias = dict[tuple[str | None, ...], "Counter[str]"]


class ToolFilters(TypedDict, total=False):
    """
    Filters for calls; None does not filter. A call must match all of them.

    session_id: the session of the call.
    user_id: the user id of the call's session.
    since, until: times, ``since`` inclusive, ``until`` exclusive; without a zone they are UTC. A date means
        the whole day.
    """

    session_id: str | None
    user_id: str | None
    since: date | datetime | None
    until: date | datetime | None


class ToolCounts(TypedDict):
    """
    Numbers of tool calls.

    calls: all. failures: those whose output reports a failure. unanswered: those without an output.

    tool_name, session_id, day: the group's keys, if the calls are grouped by them.
    """

    tool_name: NotRequired[str | None]
    session_id: NotRequired[str]
    day: NotRequired[str]
    calls: int
    failures: int
    unanswered: int


class WantedCalls(NamedTuple):
    """Filters and groups of calls; times in microseconds since 1970 UTC, ``until`` exclusive."""

    by: tuple[str, ...]
    session_id: str | None
    user_id: str | None
    since: int | None
    until: int | None

    def includes(self, time: int) -> bool:
        """Whether the period includes a time."""
        is_late = self.until is not None and time >= self.until
        return not is_late and (self.since is None or self.since <= time)


class _Call:
    """A call, whose output may still follow."""

    def __init__(self, key: tuple[str | None, ...], *, waits: bool, failed: bool) -> None:
        self.key = key
        self.waits = waits
        self.failed = failed


async def count(
    read: RunUnit, by: Iterable[str] | str, **which: Unpack[ToolFilters]
) -> list[ToolCounts]:
    """Count calls as ``ConversationLog.tools`` does. Raises InvalidQueryError."""
    wanted = parse(by, **which)
    counts: Counts = {}
    after: str | None = ""
    while after is not None:

        def unit(tx: Transaction, after: str = after) -> tuple[Counts, str | None]:
            return _page(tx, wanted, after)

        found, after = await read(unit)
        for key, numbers in found.items():
            counts.setdefault(key, Counter()).update(numbers)
    return _rows(counts, wanted)


def parse(by: Iterable[str] | str, **which: Unpack[ToolFilters]) -> WantedCalls:
    """Check filters and groups. Raises InvalidQueryError, TypeError for an unknown filter."""
    if unknown := which.keys() - ToolFilters.__annotations__.keys():
        expected = ", ".join(ToolFilters.__annotations__)
        raise TypeError(f"unknown filter {min(unknown)!r}: expected one of {expected}")
    groups = (by,) if isinstance(by, str) else tuple(by)
    for group in groups:
        if group not in GROUPS:
            raise InvalidQueryError(
                f"invalid group: expected one of {', '.join(GROUPS)}, got {group!r}"
            )
    for name in ("session_id", "user_id"):
        check_filter(name, which.get(name))
    start, end = timestamps.period(which.get("since"), which.get("until"))
    return WantedCalls(
        by=tuple(dict.fromkeys(groups)),
        session_id=which.get("session_id"),
        user_id=which.get("user_id"),
        since=start,
        until=end,
    )


def _page(tx: Transaction, wanted: WantedCalls, after: str) -> tuple[Counts, str | None]:
    """Count the calls of the next sessions; return the counts and the last session, None at the end."""
    if wanted.session_id is not None:
        sessions, last = conversation_queries.owners(tx, session_id=wanted.session_id), None
    else:
        sessions = conversation_queries.owners(tx, after=after, limit=SESSIONS_AT_ONCE)
        last = sessions[-1][0] if len(sessions) == SESSIONS_AT_ONCE else None
        if last is not None:
            check_progress(after, last)
    counts: Counts = {}
    for session_id, user_id in sessions:
        if wanted.user_id is None or labels.is_of(tx, user_id, wanted.user_id):
            for call in _calls(tx, wanted, session_id):
                numbers = counts.setdefault(call.key, Counter())
                numbers.update(calls=1, failures=int(call.failed), unanswered=int(call.waits))
    return counts, last


def _calls(tx: Transaction, wanted: WantedCalls, session_id: str) -> list[_Call]:
    """Return a session's calls, each with its outcome."""
    calls: list[_Call] = []
    waiting: dict[tuple[str, str], _Call] = {}  # the last call of each kind and id
    for row, item in _items(tx, session_id):
        _, _, kind, tool_name, is_call, recorded_at, metadata, *_ = row
        if is_call:
            time = occurred_at(recorded_at, metadata, row[0])
            facts = {"tool": tool_name, "session": session_id, "day": timestamps.day(time)}
            key = tuple(facts[group] for group in wanted.by)
            is_request = kind == "mcp_approval_request"
            call = _Call(key, waits=kind in OUTPUTS or is_request, failed=failed(item))
            if wanted.includes(time):
                calls.append(call)
            waiting[kind, str(item.get("id") if is_request else call_id_of(item))] = call
        elif (answered := waiting.get(_answered(kind, item))) is not None:
            answered.waits = False
            answered.failed = answered.failed or failed(item)
    return calls


def _items(tx: Transaction, session_id: str) -> Iterator[tuple[Row, Mapping[str, JSON]]]:
    """Yield the row and the content of each call and output of a session; decode each event once."""
    for rows in conversation_queries.tool_items(tx, session_id, OUTPUT_TYPES):
        position, type_name, schema_version, data = rows[0][-4:]
        payload = (position, type_name, schema_version, data)
        items = [] if data is None else codec.decode_items([payload])[0]  # None: erased
        for row in rows:
            item = items[row[1]] if items else None
            yield row, item if isinstance(item, Mapping) else {}


def _answered(kind: str, item: Mapping[str, JSON]) -> tuple[str, str]:
    """Return the type and the id of the call that an item answers."""
    if kind in {"mcp_call", "mcp_approval_response"}:
        return "mcp_approval_request", str(item.get("approval_request_id"))
    return ANSWERS.get(kind, ""), str(call_id_of(item))


def failed(item: Mapping[str, JSON]) -> bool:
    """Whether an output, or a call that the provider runs, reports a failure."""
    if item.get("type") == "function_call":
        return False  # its status describes the text of the call, not the execution
    if item.get("status") in FAILED or (item.get("type") == "mcp_call" and item.get("error")):
        return True
    output = item.get("output")
    if isinstance(output, str):
        return SDK_FAILURES.match(output) is not None
    parts = output if isinstance(output, list) else []
    return any(isinstance(part, Mapping) and _part_failed(part) for part in parts)


def _part_failed(part: Mapping[str, JSON]) -> bool:
    """Whether a command of a shell call failed or timed out."""
    outcome = part.get("outcome")
    if not isinstance(outcome, Mapping):
        return False
    return outcome.get("type") == "timeout" or outcome.get("exit_code") not in (0, None)


def _rows(counts: Counts, wanted: WantedCalls) -> list[ToolCounts]:
    """Return the rows of counts: by day if grouped by day, then the most calls first."""
    names = [GROUPS[group] for group in wanted.by]
    if not wanted.by and not counts:
        counts = {(): Counter()}
    rows = [
        {
            **dict(zip(names, key, strict=True)),
            **{name: numbers[name] for name in ("calls", "failures", "unanswered")},
        }
        for key, numbers in counts.items()
    ]

    def order(row: dict[str, Any]) -> tuple[Any, ...]:
        return row.get("day", ""), -row["calls"], *(row[name] or "" for name in names)

    return [cast("ToolCounts", row) for row in sorted(rows, key=order)]
