"""Queries for sessions: filters, an order, a page. Parsed once; never part of SQL."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Final, Literal, NamedTuple, TypeAlias, TypedDict, Unpack, get_args

from agents_eventlog.eventlog import codec, metadata_leaves
from agents_eventlog.eventlog.errors import InvalidEventError, InvalidQueryError
from agents_eventlog.eventlog.events import JSON
from agents_eventlog.eventlog.metadata_leaves import Leaf
from agents_eventlog.eventlog.reader import microseconds

OrderBy: TypeAlias = Literal["updated_at", "created_at"]

MAX_LEAVES: Final = 32
"""Maximum number of leaves in a filter."""

MAX_NUMBER: Final = 2**62
"""More than any count; a larger number means the same."""


class SessionFilters(TypedDict, total=False):
    """
    Filters for sessions; None does not filter. A session must match all of them.

    session_id: the session's id.
    user_id: the session's user id.
    metadata: keys, nested ones too, and their values: ``{"customer": {"tier": 2}}`` matches every session
        with that tier; other keys are ignored. Values compare as JSON: 1 equals 1.0, but not true; a list
        must be equal as a whole.
    created_after, created_before, updated_after, updated_before: times, ``after`` inclusive, ``before``
        exclusive; without a zone they are UTC. Every event updates its session.
    text: a substring of a user or assistant message on any branch; ASCII letters are case-insensitive.
    min_items: minimum number of items.
    """

    session_id: str | None
    user_id: str | None
    metadata: Mapping[str, JSON] | None
    created_after: datetime | None
    created_before: datetime | None
    updated_after: datetime | None
    updated_before: datetime | None
    text: str | None
    min_items: int | None


class Period(NamedTuple):
    """A time from one moment up to before another, in microseconds since 1970 UTC; None is open."""

    start: int | None = None
    end: int | None = None


class SessionCursor(NamedTuple):
    """A place in an order: after this session, when it had this time."""

    time: int
    session_id: str


@dataclass(frozen=True, kw_only=True)
class SessionQuery:
    """
    Filters for sessions, an order, and a page.

    user_names, leaf_names: what the tables may hold for the user id and for each leaf, where that is known;
        in a sealed log there are two of each.
    now: the time of the transaction, at which a session may have expired.
    """

    session_id: str | None = None
    user_id: str | None = None
    user_names: tuple[str, ...] = ()
    leaves: tuple[Leaf, ...] = ()
    leaf_names: tuple[tuple[Leaf, ...], ...] = ()
    periods: Mapping[OrderBy, Period] = field(default_factory=dict)
    text: str | None = None
    min_items: int | None = None
    is_deleted: bool = False
    order_by: OrderBy = "updated_at"
    is_reversed: bool = False
    after: SessionCursor | None = None
    limit: int | None = None
    now: int = 0

    @property
    def matches_all(self) -> bool:
        """Whether nothing is filtered: an empty text and 0 items filter nothing."""
        everything = SessionQuery(order_by=self.order_by, is_reversed=self.is_reversed)
        filtering = replace(self, text=self.text or None, min_items=self.min_items or None)
        return replace(filtering, after=None, limit=None, is_deleted=False) == everything

    def created_by(self, time: int) -> SessionQuery:
        """Return the same query, without sessions created after this time."""
        start, end = self.periods.get("created_at", Period())
        end = time + 1 if end is None else min(end, time + 1)
        return replace(self, periods={**self.periods, "created_at": Period(start, end)})


def parse(
    *,
    limit: int | None = None,
    after: str | None = None,
    order_by: OrderBy = "updated_at",
    reverse: bool = False,
    deleted: bool = False,
    **filters: Unpack[SessionFilters],
) -> SessionQuery:
    """Parse a caller's filters. Raises InvalidQueryError, UnserialisableError."""
    if unknown := filters.keys() - SessionFilters.__annotations__.keys():
        raise TypeError(f"unknown filter {min(unknown)!r}")
    if order_by not in get_args(OrderBy):
        raise InvalidQueryError(
            f"invalid order_by: expected 'updated_at' or 'created_at', got {order_by!r}"
        )
    return SessionQuery(
        session_id=_text("session_id", filters.get("session_id")),
        user_id=_text("user_id", filters.get("user_id")),
        leaves=_leaves(filters.get("metadata")),
        periods=_periods(filters),
        text=_any_text("text", filters.get("text")),
        min_items=_number("min_items", filters.get("min_items")),
        is_deleted=bool(deleted),
        order_by=order_by,
        is_reversed=bool(reverse),
        after=None if after is None else _place(after, order_by),
        limit=_number("limit", limit),
    )


def _any_text(what: str, value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    raise InvalidQueryError(f"invalid {what}: expected a str, got {type(value).__name__}")


def _text(what: str, value: Any) -> str | None:
    """Return a text that a row can hold."""
    if value is not None:
        try:
            codec.check_text(what, value)
        except InvalidEventError as error:
            raise InvalidQueryError(str(error)) from None
    return None if value is None else str(value)


def _number(what: str, value: Any) -> int | None:
    if value is None:
        return None
    if type(value) is not int or value < 0:
        raise InvalidQueryError(f"invalid {what}: expected 0 or more, got {value!r}"[:200])
    return min(value, MAX_NUMBER)


def _periods(filters: SessionFilters) -> dict[OrderBy, Period]:
    given: dict[OrderBy, Period] = {
        "created_at": Period(
            _time("created_after", filters.get("created_after")),
            _time("created_before", filters.get("created_before")),
        ),
        "updated_at": Period(
            _time("updated_after", filters.get("updated_after")),
            _time("updated_before", filters.get("updated_before")),
        ),
    }
    return {column: period for column, period in given.items() if period != Period()}


def _time(what: str, value: Any) -> int | None:
    if value is None:
        return None
    if not isinstance(value, datetime):
        raise InvalidQueryError(f"invalid {what}: expected a datetime, got {type(value).__name__}")
    return microseconds(value)


def _leaves(metadata: Any) -> tuple[Leaf, ...]:
    if metadata is None:
        return ()
    if not isinstance(metadata, Mapping):
        raise InvalidQueryError(
            f"invalid metadata: expected a mapping, got {type(metadata).__name__}"
        )
    try:
        plain = codec.decode_metadata(codec.encode_json(dict(metadata)).decode())
        found = tuple(metadata_leaves.leaves_to_match(plain))
    except (metadata_leaves.TooDeepError, RecursionError):
        raise InvalidQueryError(
            f"invalid metadata: expected at most {metadata_leaves.MAX_LEVELS} levels"
        ) from None
    if len(found) > MAX_LEAVES:
        raise InvalidQueryError(
            f"invalid metadata: expected at most {MAX_LEAVES} values, got {len(found):,}"
        )
    return found


# -- cursors ------------------------------------------------------------------------------------


def cursor(order_by: OrderBy, place: SessionCursor) -> str:
    """Return a place as text for ``after``: opaque to callers."""
    return base64.urlsafe_b64encode(json.dumps([order_by, *place]).encode()).decode()


def _place(text: Any, order_by: OrderBy) -> SessionCursor:
    try:
        order, time, session_id = json.loads(base64.b64decode(text, b"-_", validate=True))
        codec.check_text("after", session_id)
    except (ValueError, TypeError, RecursionError):
        raise InvalidQueryError(
            "invalid after: expected the cursor of a row of list_sessions()"
        ) from None
    if order != order_by:
        raise InvalidQueryError(
            f"invalid after: expected a cursor of order_by={order_by!r}, got one of {order!r}"[:200]
        )
    if type(time) is not int or abs(time) > MAX_NUMBER:
        raise InvalidQueryError("invalid after: expected the cursor of a row of list_sessions()")
    return SessionCursor(time, session_id)
