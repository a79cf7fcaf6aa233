"""Item search for session objects and logs: checks of the filters, and the rows that callers get."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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
    Filters for items; None does not filter. An item must match all of them.

    type: as in ``get_conversation_by_turns``: "user", "assistant", "function_call" ...
    tool_name: the tool that the item calls.
    role: the role of a message.
    session_id: the session of the item.
    user_id: the user id of the item's session.
    branch_id: a branch that has the item, and is not deleted.
    since, until: times, ``since`` inclusive, ``until`` exclusive; without a zone they are UTC. A date means
        the whole day.
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
    An item that matches a search.

    branch_ids: the branches that have the item and are not deleted, in the order of their creation.
    added_on: the branch that the item was added to.
    is_active: False for an item that was removed, and for items of deleted sessions.
    turn: None for an item that was removed.
    position, index: the position of the event that added the item, and the item's index in the event.
    item: the item itself.
    snippet, hit: the text around the match, which is ``snippet[hit[0]:hit[1]]``.
    occurred_at: UTC, ``YYYY-MM-DD HH:MM:SS``.
    cursor: pass it as ``after=`` to continue after this item.
    """

    session_id: str
    branch_ids: list[str]
    added_on: str | None
    is_active: bool
    turn: int | None
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
    The items that match a search, newest first: a sequence of rows.

    cursor: pass it as ``after=`` to get the next page; None on the last page.
    indexed: whether the search used the full-text index.
    scanned: the number of events that were read and searched without the index.
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
        """Return a row, or a sequence of rows for a slice."""
        return self.rows[index]

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.rows)


async def find_items(
    read: RunUnit,
    text: str | None,
    *,
    limit: int | None,
    after: str | None,
    first_turn: int = 1,
    include_removed: bool = False,
    **which: Unpack[ItemFilters],
) -> SearchResults:
    """Return the items that match, as ``ConversationLog.find_items`` does. Raises InvalidQueryError."""
    if limit is not None and (type(limit) is not int or limit < 0):
        raise InvalidQueryError(f"invalid limit: expected 0 or more, got {limit!r}"[:200])
    # One more than is returned shows whether there are more.
    searcher = Searcher(
        sought(text, **which)._replace(include_removed=include_removed),
        limit=None if limit is None else limit + 1,
        after=after,
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
    """Check filters and return the query. Raises InvalidQueryError, TypeError for an unknown filter."""
    if unknown := which.keys() - ItemFilters.__annotations__.keys():
        expected = ", ".join(ItemFilters.__annotations__)
        raise TypeError(f"unknown filter {min(unknown)!r}: expected one of {expected}")
    for name, value in (("text", text), *which.items()):
        if name not in {"since", "until"} and not isinstance(value, str | None):
            raise InvalidQueryError(f"invalid {name}: expected a str, got {type(value).__name__}")
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
    """Raise InvalidQueryError unless a value is None or valid text."""
    if value is not None:
        try:
            codec.check_text(name, value)
        except InvalidEventError as error:
            raise InvalidQueryError(str(error)) from None


def row(hit: Hit, first_turn: int = 1) -> ItemHit:
    """Return the row of a hit."""
    return {
        "session_id": hit.session_id,
        "branch_ids": list(hit.branch_ids),
        "added_on": hit.added_on,
        "is_active": hit.is_active,
        "turn": None if hit.turn is None else hit.turn + first_turn - 1,
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


def documents(found: SearchResults) -> Iterator[dict[str, JSON]]:
    """Yield the documents of ``eventlog search``."""
    for hit in found:
        occurred_at = hit["occurred_at"].replace(" ", "T") + "Z"
        yield {"kind": "item", **hit, "occurred_at": occurred_at}
    yield {
        "kind": "searched",
        "items": len(found),
        "indexed": found.indexed,
        "scanned": found.scanned,
        "after": found.cursor,
    }
