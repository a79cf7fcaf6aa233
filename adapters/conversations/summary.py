"""Short texts for people: items, numbers and costs, each in one line."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from agents_eventlog.adapters.conversations import media
from agents_eventlog.eventlog.events import JSON

SHORT_CHARACTERS = 48


def brief(item: JSON, *, full: bool = False) -> str:
    """Return a description of an item, cut unless full; it may contain control characters."""
    cut = str if full else shortened
    if not isinstance(item, Mapping):
        return cut(str(item))
    kind = item.get("type")
    if kind == "function_call":
        return f"calls {call(item)}"
    if kind == "function_call_output":
        return f"gets {cut(output(item))}"
    role = item.get("role")
    if role:
        return f"{role}: {cut(content(item))}"
    return json_or_text(dict(item)) if full else str(kind or "an item")


def call(item: Mapping[str, Any]) -> str:
    """Return a tool call in the form ``name(argument=value)``."""
    arguments = item.get("arguments")
    try:
        given = json.loads(arguments) if isinstance(arguments, str) else None
    except (ValueError, RecursionError):
        given = None
    if not isinstance(given, dict):
        return f"{item.get('name')}({shortened(json_or_text(arguments))})"
    shown = ", ".join(
        f"{name}={json.dumps(media.compact(value), ensure_ascii=False)}"
        for name, value in given.items()
    )
    return f"{item.get('name')}({shown})"


def content(item: Mapping[str, Any]) -> str:
    """Return the text of a message, with pictures, sound, files and refusals described."""
    return "\n".join(filter(None, media.texts(item.get("content"))))


def output(item: Mapping[str, Any]) -> str:
    """Return a tool's output: its text and its files, or JSON if it has another form."""
    value = item.get("output")
    return "\n".join(media.texts(value)) if media.readable(value) else json_or_text(value)


def json_or_text(value: JSON) -> str:
    """Return a str, and any other value as JSON; embedded files are described."""
    shown = media.compact(value)
    return shown if isinstance(shown, str) else json.dumps(shown, ensure_ascii=False)


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
