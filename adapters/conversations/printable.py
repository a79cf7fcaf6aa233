"""Text of users, tools and models as people may safely see it, in a terminal or a page."""

from __future__ import annotations

import unicodedata

_SHOWN = {"Cc", "Cs", "Zl", "Zp"}
_TURNING = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def printable(text: str, *, lines: bool = False) -> str:
    """
    Escape control characters, terminal escapes, bidirectional characters and lone surrogates.

    ``lines`` keeps line breaks.
    """
    if text.isprintable():
        return text  # the common case
    return "".join(
        character
        if not _is_shown(character) or (lines and character == "\n")
        else character.encode("unicode_escape").decode()
        for character in text
    )


def _is_shown(character: str) -> bool:
    return unicodedata.category(character) in _SHOWN or character in _TURNING
