"""
How tools were used: calls, those that failed, those that nobody answered; by tool, session and day.

Every call that stands on a live branch of a session that is not deleted counts once, however many branches
share it. Whether it failed its output tells: a status, an exit code, an error, or the text that the
Agents SDK gives the model instead of a result.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from datetime import date, datetime
from itertools import groupby
from operator import itemgetter
from typing import Any, Final, NamedTuple, NotRequired, TypeAlias, TypedDict, Unpack, cast

from agents_eventlog.adapters.conversations import timestamps
from agents_eventlog.adapters.conversations.item_search import check_filter
from agents_eventlog.adapters.conversations.tool_calls import OUTPUTS
from agents_eventlog.eventlog import codec, payloads
from agents_eventlog.eventlog.appender import check_progress
from agents_eventlog.eventlog.errors import InvalidQueryError
from agents_eventlog.eventlog.events import JSON
from agents_eventlog.eventlog.recorded_event import occurred_at
from agents_eventlog.eventlog.storage.transaction import Row, RunUnit, Transaction

GROUPS: Final = {"tool": "tool_name", "session": "session_id", "day": "day"}
"""By what calls can be counted, and under which key a row tells it."""

SESSIONS_AT_ONCE: Final = 50
"""How many sessions one unit of work reads."""

SESSIONS = """
    SELECT session_id, user_id FROM sessions
    WHERE session_id > ? AND deleted_at IS NULL
    ORDER BY session_id
    LIMIT ?
"""
SESSION = "SELECT session_id, user_id FROM sessions WHERE session_id = ? AND deleted_at IS NULL"
SEGMENTS = "SELECT segment_id FROM segments WHERE session_id = ? ORDER BY segment_id"
TOOL_ITEM_COLUMNS = """
    i.position, i.index_in_event, i.type, i.tool_name, i.is_tool_call, e.recorded_at, e.metadata
"""
TOOL_ITEMS = f"""
    items AS i
    JOIN events AS e ON e.position = i.position
    WHERE i.segment_id = ? AND (i.is_tool_call = 1 OR i.type IN (
        'mcp_call', 'mcp_approval_response', {", ".join(f"'{kind}'" for kind in OUTPUTS.values())}
    ))
    ORDER BY i.number
"""

FAILED: Final = frozenset({"failed", "incomplete"})
SDK_FAILURES: Final = re.compile(
    r"An error occurred while running the tool\b|Tool '.*' (not found\.|timed out after )"
)
"""How the texts begin that the Agents SDK puts in place of an output."""

ANSWERS: Final = {output: call for call, output in OUTPUTS.items()}

Counts: TypeAlias = dict[tuple[str | None, ...], "Counter[str]"]


class ToolFilters(TypedDict, total=False):
    """
    Which calls; None does not filter.

    session_id, user_id: of this session; of the sessions that are labelled with this user.
    since, until: made in this time; without a zone it is UTC, a day alone counts whole.
    """

    session_id: str | None
    user_id: str | None
    since: date | datetime | None
    until: date | datetime | None


class ToolCounts(TypedDict):
    """
    How many calls there were, how many of them failed, and how many have no output.

    tool_name, session_id, day: of which calls, as far as they are counted by these.
    """

    tool_name: NotRequired[str | None]
    session_id: NotRequired[str]
    day: NotRequired[str]
    calls: int
    failures: int
    unanswered: int


class WantedCalls(NamedTuple):
    """What is to be counted; times in microseconds since 1970 UTC, ``until`` exclusive."""

    by: tuple[str, ...]
    session_id: str | None
    user_id: str | None
    since: int | None
    until: int | None

    def includes(self, time: int) -> bool:
        """Whether calls of this time are counted."""
        is_late = self.until is not None and time >= self.until
        return not is_late and (self.since is None or self.since <= time)


class _Call:
    """A call, until it is known what became of it."""

    def __init__(self, key: tuple[str | None, ...], *, waits: bool, failed: bool) -> None:
        self.key = key
        self.waits = waits
        self.failed = failed


async def count(
    read: RunUnit, by: Iterable[str] | str, **which: Unpack[ToolFilters]
) -> list[ToolCounts]:
    """Return the counts as ``ConversationLog.tools`` does. Raises InvalidQueryError."""
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
    """Return what is to be counted, checked. Raises InvalidQueryError, TypeError."""
    if unknown := which.keys() - ToolFilters.__annotations__.keys():
        raise TypeError(f"there is no filter {min(unknown)!r}")
    groups = (by,) if isinstance(by, str) else tuple(by)
    for group in groups:
        if group not in GROUPS:
            raise InvalidQueryError(f"calls are counted by {', '.join(GROUPS)}, not by {group!r}")
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
    """Count the calls of the next sessions; return with the counts behind which to go on, if at all."""
    if wanted.session_id is not None:
        sessions, last = tx.all(SESSION, (wanted.session_id,)), None
    else:
        sessions = tx.all(SESSIONS, (after, SESSIONS_AT_ONCE))
        last = sessions[-1][0] if len(sessions) == SESSIONS_AT_ONCE else None
        if last is not None:
            check_progress(after, last)
    counts: Counts = {}
    for session_id, user_id in sessions:
        if wanted.user_id in (None, user_id):
            for call in _calls(tx, wanted, session_id):
                numbers = counts.setdefault(call.key, Counter())
                numbers.update(calls=1, failures=int(call.failed), unanswered=int(call.waits))
    return counts, last


def _calls(tx: Transaction, wanted: WantedCalls, session_id: str) -> list[_Call]:
    """Return a session's calls, each with what became of it."""
    calls: list[_Call] = []
    waiting: dict[tuple[str, str], _Call] = {}  # the last call of each kind and id
    for (segment_id,) in tx.all(SEGMENTS, (session_id,)):
        for row, item in _items(tx, segment_id):
            _, _, kind, tool_name, is_call, recorded_at, metadata, *_ = row
            if is_call:
                time = occurred_at(recorded_at, metadata, row[0])
                facts = {"tool": tool_name, "session": session_id, "day": timestamps.day(time)}
                key = tuple(facts[group] for group in wanted.by)
                is_request = kind == "mcp_approval_request"
                call = _Call(key, waits=kind in OUTPUTS or is_request, failed=failed(item))
                if wanted.includes(time):
                    calls.append(call)
                waiting[kind, str(item.get("id" if is_request else "call_id"))] = call
            elif (answered := waiting.get(_answered(kind, item))) is not None:
                answered.waits = False
                answered.failed = answered.failed or failed(item)
    return calls


def _items(tx: Transaction, segment_id: int) -> Iterator[tuple[Row, Mapping[str, JSON]]]:
    """Return a segment's calls and outputs: rows and contents; each event is decoded once."""
    found = payloads.stored(tx, TOOL_ITEMS, (segment_id,), columns=TOOL_ITEM_COLUMNS)
    for _, group in groupby(found, key=itemgetter(0)):
        rows = list(group)
        position, type_name, schema_version, data = rows[0][-4:]
        payload = (position, type_name, schema_version, data)
        items = [] if data is None else codec.decode_items([payload])[0]  # None: erased
        for row in rows:
            item = items[row[1]] if items else None
            yield row, item if isinstance(item, Mapping) else {}


def _answered(kind: str, item: Mapping[str, JSON]) -> tuple[str, str]:
    """Return the kind and the id of the call that an item answers."""
    if kind in {"mcp_call", "mcp_approval_response"}:
        return "mcp_approval_request", str(item.get("approval_request_id"))
    return ANSWERS.get(kind, ""), str(item.get("call_id"))


def failed(item: Mapping[str, JSON]) -> bool:
    """Whether an output, or a call that the model's side runs, tells that the call failed."""
    if item.get("type") == "function_call":
        return False  # its status tells of the call's own text
    if item.get("status") in FAILED or (item.get("type") == "mcp_call" and item.get("error")):
        return True
    output = item.get("output")
    if isinstance(output, str):
        return SDK_FAILURES.match(output) is not None
    parts = output if isinstance(output, list) else []
    return any(isinstance(part, Mapping) and _part_failed(part) for part in parts)


def _part_failed(part: Mapping[str, JSON]) -> bool:
    """Whether a command of a shell call ended with an error, or not in time."""
    outcome = part.get("outcome")
    if not isinstance(outcome, Mapping):
        return False
    return outcome.get("type") == "timeout" or outcome.get("exit_code") not in (0, None)


def _rows(counts: Counts, wanted: WantedCalls) -> list[ToolCounts]:
    """Return the counts as callers get them: days in their order, else the most calls first."""
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
