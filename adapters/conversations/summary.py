"""Short texts for people: items, numbers and costs, each in one line."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from agents_eventlog.eventlog.events import JSON
from agents_eventlog.projections.search.text import message_texts

SHORT_CHARACTERS = 48


def brief(item: JSON) -> str:
    """Return a short description of an item; it may contain control characters."""
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
    """Return a tool call in the form ``name(argument=value)``."""
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
    """Return the text of a message, or of its parts."""
    return "\n".join(filter(None, message_texts(dict(item))))


def json_or_text(value: JSON) -> str:
    """Return a str unchanged, any other value as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def shortened(text: str) -> str:
    """Return a text on one line; a long text is truncated with an ellipsis."""
    line = " ".join(text.split())
    return line if len(line) <= SHORT_CHARACTERS else f"{line[: SHORT_CHARACTERS - 1]}…"


def usd(cost: float) -> str:
    """Return a cost with two decimals, or with six if it is below 1 USD."""
    return f"{cost:,.2f}" if cost == 0 or abs(cost) >= 1 else f"{cost:.6f}"


def counted(number: int, what: str) -> str:
    """Return a number and its noun, in the plural except for 1."""
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"
