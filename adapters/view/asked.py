"""What the address of a page says: numbers, names and times, checked."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request

from agents_eventlog.adapters.view.rendering import url
from agents_eventlog.eventlog.events import ItemRef

LONGEST_NUMBER = 18
"""Numbers with more digits are not positions or versions."""


def required(request: Request, name: str) -> str:
    """Return a parameter that a page needs."""
    value = request.query_params.get(name)
    if value is None:
        raise HTTPException(400, f"the address lacks {name}=")
    return value


def text(request: Request, name: str) -> str | None:
    """Return a parameter; None if it is empty or missing."""
    return request.query_params.get(name, "").strip() or None


def number(request: Request, name: str) -> int | None:
    """Return a number; None if it is empty or missing."""
    given = request.query_params.get(name)
    if not given:
        return None
    if not (given.isascii() and given.isdigit() and len(given) <= LONGEST_NUMBER):
        raise HTTPException(400, f"invalid {name}: expected a number")
    return int(given)


def item(request: Request, name: str) -> ItemRef | None:
    """Return an item, which an address has as ``position.index``."""
    given = request.query_params.get(name, "")
    found = re.fullmatch(r"(\d{1,15})\.(\d{1,9})", given, re.ASCII)
    return None if found is None else ItemRef(int(found[1]), int(found[2]))


def needed_number(request: Request, name: str) -> int:
    """Return a number that a page needs."""
    found = number(request, name)
    if found is None:
        raise HTTPException(400, f"the address lacks {name}=")
    return found


def flag(request: Request, name: str) -> bool:
    """Return whether a box is checked."""
    return request.query_params.get(name) == "1"


def wants_json(request: Request) -> bool:
    """Return whether the address wants documents for programs instead of a page."""
    return request.query_params.get("format") == "json"


def moment(micros: int | None) -> datetime | None:
    """Return a time in microseconds as a datetime."""
    return (
        None if micros is None else datetime.fromtimestamp(0, UTC) + timedelta(microseconds=micros)
    )


def again(request: Request, **changes: Any) -> str:
    """Return the address of the page with other parameters; None leaves one out."""
    asked: Mapping[str, Any] = {**request.query_params, **changes}
    return url(request.url.path, **asked)
