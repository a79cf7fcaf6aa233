"""Times as people write and read them; UTC throughout."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta

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
    Return a time that was typed, in microseconds since 1970 UTC.

    ISO 8601, a day or a time of day on it; without a zone it is UTC. A day alone is its beginning,
    or with ``end_of_day`` the beginning of the next. Raises ValueError.
    """
    try:
        day = date.fromisoformat(text)
    except ValueError:
        try:
            return microseconds(datetime.fromisoformat(text))
        except (ValueError, OverflowError):
            raise ValueError(
                f"{text!r} is no time: write 2026-11-04 or 2026-11-04T09:30:00"
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
    raise InvalidQueryError(f"{name} is of type {type(at).__name__}, not a datetime or a date")


def period(since: object, until: object) -> tuple[int | None, int | None]:
    """
    Return from when to when a caller asks, in microseconds since 1970 UTC; the end is not part of it.

    A time without a zone is UTC; a day alone counts whole. Raises InvalidQueryError, also for an end
    that is not after the beginning.
    """
    return _in_order(_moment("since", since), _moment("until", until, end_of_day=True))


def typed_period(since: str | None, until: str | None) -> tuple[int | None, int | None]:
    """Do as ``period`` does for times that were typed. Raises ValueError."""
    return _in_order(
        None if since is None else instant(since),
        None if until is None else instant(until, end_of_day=True),
    )


def _in_order(start: int | None, end: int | None) -> tuple[int | None, int | None]:
    if start is not None and end is not None and start >= end:
        raise InvalidQueryError("until is not after since")
    return start, end


def duration(text: str) -> timedelta:
    """Return a length of time that was typed: a number and s, m, h, d or w. Raises ValueError."""
    found = re.fullmatch(r"(\d{1,6})([smhdw])", text, re.ASCII)
    if found is None:
        raise ValueError(f"{text!r} is no length of time: write 30d, 12h or 2w")
    return int(found[1]) * _UNITS[found[2]]


def iso(time: int) -> str:
    """Return a time for programs: ISO 8601 with microseconds, in UTC."""
    return _datetime(time).isoformat(timespec="microseconds").replace("+00:00", "Z")


def as_text(time: int) -> str:
    """Return a time as the SDK's sessions do: UTC, ``YYYY-MM-DD HH:MM:SS``."""
    return _datetime(time).isoformat(" ", "seconds")[:19]  # half the time of a format


def day(time: int) -> str:
    """Return the day of a time."""
    return f"{_datetime(time):%Y-%m-%d}"


def clock(time: int) -> str:
    """Return the time of day, to the second."""
    return f"{_datetime(time):%H:%M:%S}"


def minute(time: int) -> str:
    """Return a day and a time of day, to the minute."""
    return f"{_datetime(time):%Y-%m-%d %H:%M}"


def _datetime(time: int) -> datetime:
    within = min(max(time, EARLIEST), LATEST)
    return _EPOCH + timedelta(microseconds=within)
