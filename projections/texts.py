"""The texts of an item that people read, and how one is found in them."""

from __future__ import annotations

from typing import Final

from eventlog.events import JSON

TITLE_CHARACTERS: Final = 80


def texts(item: JSON) -> list[str]:
    """Return the texts of a message: its content, or those of its parts."""
    content = item.get("content", "") if isinstance(item, dict) else None
    if isinstance(content, str):
        return [content]
    parts = content if isinstance(content, list) else []
    found = [part.get("text", "") for part in parts if isinstance(part, dict)]
    return [text for text in found if isinstance(text, str)]


def folded(text: str) -> bytes:
    """Fold the case of ASCII letters, and of nothing else."""
    return text.encode("utf-8", "surrogatepass").lower()


def title(item: JSON) -> str:
    """Return the beginning of a message's text, on one line, cut with an ellipsis."""
    beginning = " ".join(text[: 10 * TITLE_CHARACTERS] for text in texts(item))
    line = " ".join(beginning.split())
    return line if len(line) <= TITLE_CHARACTERS else f"{line[: TITLE_CHARACTERS - 1]}…"
