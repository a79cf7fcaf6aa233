"""Times as people write and read them, in UTC unless a time zone is given."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta, tzinfo
from functools import lru_cache
from typing import Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from agents_eventlog.eventlog.errors import InvalidQueryError
from agents_eventlog.eventlog.reader import microseconds
from agents_eventlog.eventlog.recorded_event import EARLIEST, LATEST

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DURATION = re.compile(r"(\d{1,6})([smhdw])", re.ASCII)
_UNITS = {
    "s": timedelta(seconds=1),
    "m": timedelta(minutes=1),
    "h": timedelta(hours=1),
    "d": timedelta(days=1),
    "w": timedelta(weeks=1),
}


def instant(text: str, *, end_of_day: bool = False, tz: tzinfo = UTC) -> int:
    """
    Parse an ISO 8601 date or time; return microseconds since 1970 UTC.

    A time without a zone is in ``tz``. A date means its first moment, or with ``end_of_day`` the
    first moment of the next day. Raises ValueError.
    """
    try:
        day = date.fromisoformat(text)
    except ValueError:
        try:
            return _in(datetime.fromisoformat(text), tz)
        except (ValueError, OverflowError):
            raise ValueError(
                "invalid time: expected ISO 8601, for example 2026-11-04 or 2026-11-04T09:30:00, "
                f"got {text!r}"
            ) from None
    return _of_day(day, tz, end=end_of_day)


def typed(text: str, now: datetime, *, end_of_day: bool = False, tz: tzinfo = UTC) -> int:
    """
    Parse a time as ``instant`` does, and also ``today``, ``yesterday``, and a duration before ``now``: 30d.

    Raises ValueError.
    """
    if text in {"today", "yesterday"}:
        day = now.astimezone(tz).date() - timedelta(days=text == "yesterday")
        return _of_day(day, tz, end=end_of_day)
    if _DURATION.fullmatch(text):
        try:
            return microseconds(now - duration(text))
        except OverflowError:
            return EARLIEST
    try:
        return instant(text, end_of_day=end_of_day, tz=tz)
    except ValueError as error:
        raise ValueError(f"{error}; yesterday and 30d are accepted, too") from None


def _of_day(day: date, tz: tzinfo, *, end: bool) -> int:
    if end and day == date.max:
        return LATEST
    first = day + timedelta(days=end)  # not 24 hours later, where clocks change
    return _in(datetime(first.year, first.month, first.day), tz)  # noqa: DTZ001 - gets its zone there


def _in(at: datetime, tz: tzinfo) -> int:
    return microseconds(at if at.tzinfo is not None else at.replace(tzinfo=tz))


def _moment(name: str, at: object, tz: tzinfo, *, end_of_day: bool = False) -> int | None:
    if at is None:
        return None
    if isinstance(at, datetime):
        return _in(at, tz)
    if isinstance(at, date):
        return _of_day(at, tz, end=end_of_day)
    raise InvalidQueryError(
        f"invalid {name}: expected a datetime or a date, got {type(at).__name__}"
    )


def period(since: object, until: object, tz: tzinfo = UTC) -> tuple[int | None, int | None]:
    """
    Return the start and the exclusive end of a period, in microseconds since 1970 UTC; None is open.

    A time without a zone is in ``tz``; a date means the whole day. Raises InvalidQueryError for
    other types, and if the end is not after the start.
    """
    return _in_order(_moment("since", since, tz), _moment("until", until, tz, end_of_day=True))


def typed_period(
    since: str | None, until: str | None, tz: tzinfo = UTC, now: datetime | None = None
) -> tuple[int | None, int | None]:
    """Parse the start and the end of a period; with ``now``, as ``typed`` does. Raises ValueError."""

    def parsed(text: str, *, end_of_day: bool = False) -> int:
        if now is None:
            return instant(text, end_of_day=end_of_day, tz=tz)
        return typed(text, now, end_of_day=end_of_day, tz=tz)

    return _in_order(
        None if since is None else parsed(since),
        None if until is None else parsed(until, end_of_day=True),
    )


def _in_order(start: int | None, end: int | None) -> tuple[int | None, int | None]:
    if start is not None and end is not None and start >= end:
        raise InvalidQueryError("invalid period: until must be after since")
    return start, end


def zone(name: str) -> tzinfo:
    """Return a time zone by its IANA name. Raises InvalidQueryError for an unknown one."""
    if name == "UTC":
        return UTC  # without the system's files
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, TypeError, OSError):
        raise InvalidQueryError(
            f"unknown time zone: expected an IANA name, for example Europe/Berlin, got {name!r}; "
            "on a system without time zones, install the package tzdata"
        ) from None


def current(period: Literal["day", "month"], now: int, tz: tzinfo) -> tuple[int, str]:
    """Return the start of the current day or month, and its name: ``YYYY-MM-DD`` or ``YYYY-MM``."""
    today = _datetime(now).astimezone(tz).date()
    if period == "day":
        return _of_day(today, tz, end=False), f"{today}"
    return _of_day(today.replace(day=1), tz, end=False), f"{today}"[:7]


def duration(text: str) -> timedelta:
    """Parse a duration: a number and s, m, h, d or w. Raises ValueError."""
    found = _DURATION.fullmatch(text)
    if found is None:
        raise ValueError(f"invalid duration: expected for example 30d, 12h or 2w, got {text!r}")
    return int(found[1]) * _UNITS[found[2]]


def as_duration(seconds: int) -> str:
    """Format a duration of at least a second as ``duration`` parses it, in the largest exact unit."""
    units = {name: unit // _UNITS["s"] for name, unit in _UNITS.items()}
    name = next(name for name in reversed(units) if seconds % units[name] == 0)
    return f"{seconds // units[name]}{name}"


@lru_cache(maxsize=1_000)
def iso(time: int) -> str:
    """Format a time for programs: ISO 8601 with microseconds, in UTC."""
    return _datetime(time).isoformat(timespec="microseconds").replace("+00:00", "Z")


def as_text(time: int) -> str:
    """Format a time as the SDK's sessions do: UTC, ``YYYY-MM-DD HH:MM:SS``."""
    if not EARLIEST <= time <= LATEST:
        time = min(max(time, EARLIEST), LATEST)
    hours, second = divmod(time // 1_000_000, 3_600)
    return _hour(hours) + _minute_and_second(second)  # cached, as lists of turns format thousands


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
def _hour(hours: int) -> str:
    return (_EPOCH + timedelta(hours=hours)).isoformat(" ", "hours")[:13]


@lru_cache(maxsize=3_600)
def _minute_and_second(second: int) -> str:
    return f":{second // 60:02}:{second % 60:02}"


def _datetime(time: int) -> datetime:
    within = min(max(time, EARLIEST), LATEST)
    return _EPOCH + timedelta(microseconds=within)
