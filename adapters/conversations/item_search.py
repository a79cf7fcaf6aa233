"""Finding items, for session objects and logs: what is asked, checked, and rows as callers get them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import TypedDict, Unpack, overload

from agents_eventlog.adapters.conversations import timestamps
from agents_eventlog.eventlog import _logging, codec
from agents_eventlog.eventlog.errors import InvalidEventError, InvalidQueryError
from agents_eventlog.eventlog.events import JSON
from agents_eventlog.eventlog.storage.transaction import RunUnit
from agents_eventlog.projections.search.searcher import (
    Hit,
    ItemQuery,
    Searcher,
    cursor,
)

log = _logging.get_logger("eventlog.search")


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


class ItemHit(TypedDict):
    """
    An item that was found.

    branch_ids: the live branches that it is on, in the order they were made.
    position, index: which event holds it, and where in the event.
    snippet, hit: ``snippet[hit[0]:hit[1]]`` is what was found.
    occurred_at: UTC. cursor: for ``after=``, to resume behind this item.
    """

    session_id: str
    branch_ids: list[str]
    turn: int
    position: int
    index: int
    type: str
    role: JSON
    tool_name: str | None
    item: JSON
    snippet: str
    hit: tuple[int, int]
    occurred_at: str
    cursor: str


@dataclass(frozen=True, kw_only=True)
class SearchResults(Sequence[ItemHit]):
    """
    The items that were found, the newest first: a sequence of its rows.

    cursor: for ``after=``, to get the next page; None if there are no more items.
    indexed: whether the full-text index was asked.
    scanned: how many events were read without it: all, or those that the index does not show yet.
    """

    rows: tuple[ItemHit, ...]
    cursor: str | None
    indexed: bool
    scanned: int

    @overload
    def __getitem__(self, index: int) -> ItemHit: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[ItemHit]: ...
    def __getitem__(self, index: int | slice) -> ItemHit | Sequence[ItemHit]:
        """Return a row, or several."""
        return self.rows[index]

    def __len__(self) -> int:
        """Return how many rows there are."""
        return len(self.rows)


async def find_items(
    read: RunUnit,
    text: str | None,
    *,
    limit: int | None,
    after: str | None,
    first_turn: int = 1,
    **which: Unpack[ItemFilters],
) -> SearchResults:
    """Return the items that are sought. Raises InvalidQueryError."""
    if limit is not None and (type(limit) is not int or limit < 0):
        raise InvalidQueryError(f"invalid limit: expected 0 or more, got {limit!r}"[:200])
    # One more than is returned shows whether there are more.
    searcher = Searcher(
        sought(text, **which), limit=None if limit is None else limit + 1, after=after
    )
    while searcher.collect(await read(searcher.read_batch)):
        pass
    if searcher.scanned:
        log.info("search.scanned", events=searcher.scanned)
    rows = tuple(row(hit, first_turn) for hit in searcher.hits[:limit])
    return SearchResults(
        rows=rows,
        cursor=rows[-1]["cursor"] if rows and len(searcher.hits) > len(rows) else None,
        indexed=searcher.indexed,
        scanned=searcher.scanned,
    )


def sought(text: str | None, **which: Unpack[ItemFilters]) -> ItemQuery:
    """Return what is sought, checked. Raises InvalidQueryError, TypeError for an unknown filter."""
    if unknown := which.keys() - ItemFilters.__annotations__.keys():
        raise TypeError(f"there is no filter {min(unknown)!r}")
    for name, value in (("text", text), *which.items()):
        if name not in {"since", "until"} and not isinstance(value, str | None):
            raise InvalidQueryError(f"{name} is of type {type(value).__name__}, not a string")
    for name in ("session_id", "user_id"):
        check_filter(name, which.get(name))
    start, end = timestamps.period(which.get("since"), which.get("until"))
    return ItemQuery(
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


def row(hit: Hit, first_turn: int = 1) -> ItemHit:
    """Return a hit as callers get it."""
    return {
        "session_id": hit.session_id,
        "branch_ids": list(hit.branch_ids),
        "turn": hit.turn + first_turn - 1,
        "position": hit.ref.position,
        "index": hit.ref.index,
        "type": hit.kind.type,
        "role": hit.item.get("role") if isinstance(hit.item, dict) else None,
        "tool_name": hit.kind.tool_name,
        "item": hit.item,
        "snippet": hit.snippet.text,
        "hit": (hit.snippet.start, hit.snippet.end),
        "occurred_at": timestamps.as_text(hit.occurred_at),
        "cursor": cursor(hit.ref),
    }
