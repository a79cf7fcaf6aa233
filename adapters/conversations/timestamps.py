"""Times as people write and read them, always in UTC."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache

from agents_eventlog.eventlog.errors import InvalidQueryError
from agents_eventlog.eventlog.reader import microseconds
from agents_eventlog.eventlog.recorded_event import EARLIEST, LATEST

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_UNITS = {
    "s": timedelta(seconds=1),
    "m": timedelta(minutes=1),
    "h": timedelta(hours=1),
    "d": timedelta(days=1),
    "w": timedelta(weeks=1),
}


def instant(text: str, *, end_of_day: bool = False) -> int:
    """
    Parse an ISO 8601 date or time; return microseconds since 1970 UTC.

    A time without a zone is UTC. A date means its first moment, or with ``end_of_day`` the first moment of
    the next day. Raises ValueError.
    """
    try:
        day = date.fromisoformat(text)
    except ValueError:
        try:
            return microseconds(datetime.fromisoformat(text))
        except (ValueError, OverflowError):
            raise ValueError(
                "invalid time: expected ISO 8601, for example 2026-11-04 or 2026-11-04T09:30:00, "
                f"got {text!r}"
            ) from None
    return _of_day(day, end=end_of_day)


def _of_day(day: date, *, end: bool) -> int:
    beginning = microseconds(datetime(day.year, day.month, day.day, tzinfo=UTC))
    return min(beginning + 86_400_000_000 * end, LATEST)


def _moment(name: str, at: object, *, end_of_day: bool = False) -> int | None:
    if at is None:
        return None
    if isinstance(at, datetime):
        return microseconds(at)
    if isinstance(at, date):
        return _of_day(at, end=end_of_day)
    raise InvalidQueryError(
        f"invalid {name}: expected a datetime or a date, got {type(at).__name__}"
    )


def period(since: object, until: object) -> tuple[int | None, int | None]:
    """
    Return the start and the exclusive end of a period, in microseconds since 1970 UTC; None is open.

    A time without a zone is UTC; a date means the whole day. Raises InvalidQueryError for other types, and
    if the end is not after the start.
    """
    return _in_order(_moment("since", since), _moment("until", until, end_of_day=True))


def typed_period(since: str | None, until: str | None) -> tuple[int | None, int | None]:
    """Parse the start and the end of a period, as ``period`` does. Raises ValueError."""
    return _in_order(
        None if since is None else instant(since),
        None if until is None else instant(until, end_of_day=True),
    )


def _in_order(start: int | None, end: int | None) -> tuple[int | None, int | None]:
    if start is not None and end is not None and start >= end:
        raise InvalidQueryError("invalid period: until must be after since")
    return start, end


def duration(text: str) -> timedelta:
    """Parse a duration: a number and s, m, h, d or w. Raises ValueError."""
    found = re.fullmatch(r"(\d{1,6})([smhdw])", text, re.ASCII)
    if found is None:
        raise ValueError(f"invalid duration: expected for example 30d, 12h or 2w, got {text!r}")
    return int(found[1]) * _UNITS[found[2]]


def iso(time: int) -> str:
    """Format a time for programs: ISO 8601 with microseconds, in UTC."""
    return _datetime(time).isoformat(timespec="microseconds").replace("+00:00", "Z")


def as_text(time: int) -> str:
    """Format a time as the SDK's sessions do: UTC, ``YYYY-MM-DD HH:MM:SS``."""
    # Several times faster than a datetime's methods, and lists of turns format thousands of times.
    days, second = divmod(min(max(time, EARLIEST), LATEST) // 1_000_000, 86_400)
    minutes, second = divmod(second, 60)
    hour, minute = divmod(minutes, 60)
    return f"{_date(days)} {hour:02}:{minute:02}:{second:02}"


def day(time: int) -> str:
    """Format the date of a time: ``YYYY-MM-DD``."""
    return f"{_datetime(time):%Y-%m-%d}"


def clock(time: int) -> str:
    """Format the time of day: ``HH:MM:SS``."""
    return f"{_datetime(time):%H:%M:%S}"


def minute(time: int) -> str:
    """Format a time to the minute: ``YYYY-MM-DD HH:MM``."""
    return f"{_datetime(time):%Y-%m-%d %H:%M}"


@lru_cache(maxsize=1_000)
def _date(days: int) -> str:
    return (_EPOCH + timedelta(days=days)).date().isoformat()


def _datetime(time: int) -> datetime:
    within = min(max(time, EARLIEST), LATEST)
    return _EPOCH + timedelta(microseconds=within)
