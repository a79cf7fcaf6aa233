"""
The readable texts of an item, and how a search matches them.

These are a message's text and refusals, a tool call's arguments, a tool output, and the summary of
reasoning. Names, ids, encrypted content and images are excluded.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

from agents_eventlog.eventlog.events import JSON

TEXT_KEYS: Final = frozenset(
    {
        *("content", "text", "refusal", "summary"),  # messages and reasoning
        *("arguments", "input", "action", "operation", "code", "query", "queries"),  # calls
        *("command", "commands", "diff", "path", "url"),
        *(
            "output",
            "outputs",
            "stdout",
            "stderr",
            "logs",
            "results",
            "error",
            "message",
        ),  # outputs
        "reason",  # the answer to a request for approval
    }
)
"""The keys of an item and of its parts that hold texts."""

MAX_LEVELS: Final = 8
"""How deep parts are read; the API's items have no more than three levels."""

SNIPPET_BEFORE, SNIPPET_CHARACTERS = 40, 160
"""How many characters a snippet shows before the match, and in all."""

TITLE_CHARACTERS: Final = 80

_NEVER_FOLDED = re.compile("[ßŉſǰİẖ-ẚẞ\u212aﬀ-ﬆ]")  # \u212a is the sign for kelvin


class Snippet(NamedTuple):
    """A piece of a text, and where the match is in it: ``text[start:end]``."""

    text: str
    start: int
    end: int


def texts(item: JSON) -> list[str]:
    """Return an item's texts, in their order."""
    return list(_texts(item, MAX_LEVELS)) if isinstance(item, Mapping) else []


def _texts(value: JSON, levels: int) -> Iterator[str]:
    """Walk the value of a key that holds texts."""
    if isinstance(value, str):
        yield value
    elif levels and isinstance(value, Mapping):
        for key, child in value.items():
            if key in TEXT_KEYS:
                yield from _texts(child, levels - 1)
    elif levels and isinstance(value, list):
        for child in value:
            yield from _texts(child, levels - 1)


def message_texts(item: JSON) -> list[str]:
    """Return the texts of a message: its content, or those of its parts."""
    return content_texts(item.get("content", "")) if isinstance(item, Mapping) else []


def content_texts(content: JSON) -> list[str]:
    """Return the texts of a message's content: the content itself, or those of its parts."""
    if isinstance(content, str):
        return [content]
    parts = content if isinstance(content, list) else []
    found = [part.get("text", "") for part in parts if isinstance(part, Mapping)]
    return [text for text in found if isinstance(text, str)]


def title(item: JSON) -> str:
    """Return the beginning of a message's text, on one line, cut with an ellipsis."""
    beginning = " ".join(text[: 10 * TITLE_CHARACTERS] for text in message_texts(item))
    line = " ".join(beginning.split())
    return line if len(line) <= TITLE_CHARACTERS else f"{line[: TITLE_CHARACTERS - 1]}…"


def ascii_folded(text: str) -> bytes:
    """Fold the case of ASCII letters only, as SQLite's LIKE does, and with it the SDK's searches."""
    return text.encode("utf-8", "surrogatepass").lower()


def folded(text: str) -> str:
    """
    Fold the case of letters, character by character.

    A letter beyond ASCII never becomes ASCII ones (ß stays, it does not become ss), so that ASCII text
    is found by what SQLite's LIKE takes for equal, too.
    """
    if text.isascii():
        return text.lower()
    if _NEVER_FOLDED.search(text) is None:
        return text.casefold()
    return "".join(
        character if _NEVER_FOLDED.match(character) else character.casefold() for character in text
    )


def as_stored(text: str) -> str:
    """Return a text as it comes back from JSON: two halves of a surrogate pair are one character."""
    if text.isascii():
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")


def snippet(text: str, needle: str) -> Snippet:
    """Return the surroundings of the first match of a folded needle in a text."""
    there = folded(text)
    start = there.find(needle)
    end = start + len(needle)
    if len(there) != len(text):
        start, end = _unfolded(text, start, end)
    first = max(0, start - SNIPPET_BEFORE)
    piece = text[first : max(first + SNIPPET_CHARACTERS, end)]
    return Snippet(piece[:SNIPPET_CHARACTERS], start - first, min(end - first, SNIPPET_CHARACTERS))


def _unfolded(text: str, start: int, end: int) -> tuple[int, int]:
    """Return which characters of a text became those from start to end when it was folded."""
    first = last = length = 0
    for number, character in enumerate(text):
        if length <= start:
            first = number
        if length < end:
            last = number + 1
        length += len(folded(character))
    return first, last
