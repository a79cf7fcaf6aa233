"""Items in words: what a person is told of them, in one line."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from agents_eventlog.eventlog.events import JSON
from agents_eventlog.projections.search.text import message_texts

SHORT_CHARACTERS = 48


def brief(item: JSON) -> str:
    """Return an item in a few words; not made printable yet."""
    if not isinstance(item, Mapping):
        return shortened(str(item))
    kind = item.get("type")
    if kind == "function_call":
        return f"calls {call(item)}"
    if kind == "function_call_output":
        return f"gets {shortened(json_or_text(item.get('output')))}"
    role = item.get("role")
    return f"{role}: {shortened(content(item))}" if role else str(kind or "an item")


def call(item: Mapping[str, Any]) -> str:
    """Return a tool call as code would write it."""
    arguments = item.get("arguments")
    try:
        given = json.loads(arguments) if isinstance(arguments, str) else None
    except ValueError:
        given = None
    if not isinstance(given, dict):
        return f"{item.get('name')}({shortened(json_or_text(arguments))})"
    shown = ", ".join(
        f"{name}={json.dumps(value, ensure_ascii=False)}" for name, value in given.items()
    )
    return f"{item.get('name')}({shown})"


def content(item: Mapping[str, Any]) -> str:
    """Return the text of a message: its own, or that of its parts."""
    return "\n".join(filter(None, message_texts(dict(item))))


def json_or_text(value: JSON) -> str:
    """Return a text as it is, anything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def shortened(text: str) -> str:
    """Return a text on one line, cut with an ellipsis where it is long."""
    line = " ".join(text.split())
    return line if len(line) <= SHORT_CHARACTERS else f"{line[: SHORT_CHARACTERS - 1]}…"


def usd(cost: float) -> str:
    """Return a cost to the cent, a small one as exactly as it takes to see it."""
    return f"{cost:,.2f}" if cost == 0 or abs(cost) >= 1 else f"{cost:.6f}"


def counted(number: int, what: str) -> str:
    """Return a number with its noun."""
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"
