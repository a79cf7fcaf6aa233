"""Finding items, for session objects and logs: what is asked, checked, and rows as callers get them."""

from __future__ import annotations

from datetime import date, datetime
from typing import Any, Final, TypedDict, Unpack

from adapters import telling, timing
from eventlog import codec, logs
from eventlog.errors import InvalidEventError, InvalidQueryError
from eventlog.transaction import RunUnit
from projections.finding import Cursor, Finder, Hit, Sought
from projections.walking import Reason

log = logs.get_logger("eventlog.search")

"""Runs a unit of work that reads."""

WHY_SCANNED: Final[dict[Reason, str]] = {
    "no index": "there is no full-text index",
    "no text": "no text is sought",
    "short text": "fewer than 3 characters are not in the full-text index",
    "few events": "it is often found, and these sessions are few",
}


class ItemFilters(TypedDict, total=False):
    """
    Which items; None does not filter. An item must match all that are given.

    type: as in ``get_conversation_by_turns``: "user", "assistant", "function_call" ...
    tool_name: which tool it calls. role: a message's own.
    session_id, user_id: of this session; of the sessions that are labelled with this user.
    branch_id: on this live branch.
    since, until: said from then on, said before then; without a zone it is UTC, a day alone counts whole.
    """

    type: str | None
    tool_name: str | None
    role: str | None
    session_id: str | None
    user_id: str | None
    branch_id: str | None
    since: date | datetime | None
    until: date | datetime | None


class Found(list[dict[str, Any]]):
    """
    The items that were found, and how.

    indexed: whether the full-text index was asked.
    scanned: how many events were gone through without it: what it does not show yet, or all.
    account: that in words; empty if nothing was scanned.
    """

    def __init__(self, rows: list[dict[str, Any]], *, scanned: int, reason: Reason | None) -> None:
        super().__init__(rows)
        self.indexed = reason is None
        self.scanned = scanned
        self.reason = reason

    @property
    def account(self) -> str:
        """How they were found, in words."""
        if not self.scanned:
            return ""
        why = "the full-text index does not show them yet"
        if self.reason is not None:
            why = WHY_SCANNED[self.reason]
        return f"scanned {telling.counted(self.scanned, 'event')}: {why}"


async def find_items(
    read: RunUnit,
    text: str | None,
    *,
    limit: int | None,
    after: str | None,
    first_turn: int = 1,
    **which: Unpack[ItemFilters],
) -> Found:
    """Return the items that are sought, in rows. Raises InvalidQueryError."""
    if limit is not None and (type(limit) is not int or limit < 0):
        raise InvalidQueryError(f"limit is a number from 0 on, not {limit!r}"[:200])
    finder = Finder(sought(text, **which), limit=limit, after=after)
    while finder.take(await read(finder.look)):
        pass
    if finder.scanned:
        log.info("search.scanned", events=finder.scanned, reason=finder.reason)
    rows = [row(hit, cursor, first_turn) for hit, cursor in finder.hits]
    return Found(rows, scanned=finder.scanned, reason=finder.reason)


def sought(text: str | None, **which: Unpack[ItemFilters]) -> Sought:
    """Return what is sought, checked. Raises InvalidQueryError, TypeError for an unknown filter."""
    if unknown := which.keys() - ItemFilters.__annotations__.keys():
        raise TypeError(f"there is no filter {min(unknown)!r}")
    for name, value in (("text", text), *which.items()):
        if name not in {"since", "until"} and not isinstance(value, str | None):
            raise InvalidQueryError(f"{name} is of type {type(value).__name__}, not a string")
    for name in ("session_id", "user_id"):
        check_filter(name, which.get(name))
    start, end = timing.period(which.get("since"), which.get("until"))
    return Sought(
        text=text,
        type=which.get("type"),
        tool_name=which.get("tool_name"),
        role=which.get("role"),
        session_id=which.get("session_id"),
        user_id=which.get("user_id"),
        branch_id=which.get("branch_id"),
        since=start,
        until=end,
    )


def check_filter(name: str, value: object) -> None:
    """Raise InvalidQueryError unless a value is None or text that a row can hold."""
    if value is not None:
        try:
            codec.check_text(name, value)
        except InvalidEventError as error:
            raise InvalidQueryError(str(error)) from None


def row(hit: Hit, cursor: Cursor, first_turn: int = 1) -> dict[str, Any]:
    """Return a hit as callers get it."""
    return {
        "session_id": hit.session_id,
        "branch_ids": list(hit.branch_ids),
        "turn": hit.turn + first_turn - 1,
        "position": hit.ref.position,
        "index": hit.ref.index,
        "type": hit.shape.type,
        "role": hit.item.get("role") if isinstance(hit.item, dict) else None,
        "tool_name": hit.shape.tool_name,
        "item": hit.item,
        "snippet": hit.snippet.text,
        "hit": (hit.snippet.start, hit.snippet.end),
        "occurred_at": timing.as_text(hit.occurred_at),
        "cursor": str(cursor),
    }
