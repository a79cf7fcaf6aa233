"""The words that only one of two messages has, marked in both; the marks keep their formatting."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from difflib import SequenceMatcher
from itertools import chain, zip_longest
from typing import Final

from markdown_it.token import Token
from markupsafe import Markup, escape

from agents_eventlog.adapters.view import rendering
from agents_eventlog.adapters.view.cards import Part, Row

MAX_WORDS: Final = 1_000
"""Maximum number of words of a message that is compared: the time grows with their square."""
MAX_PAGE_WORDS: Final = 10_000
"""Maximum number of words that are compared for one page."""
LEAST_ALIKE: Final = 0.4
"""Texts with a smaller part of words in common are different answers, and nothing in them is marked."""

WORDS: Final = re.compile(r"\w+|[^\w\s]|\s+")
MARKS: Final = {"del": Markup("<del>{}</del>"), "ins": Markup("<ins>{}</ins>")}


class WordMarks:
    """Marks the words of messages for one page, as far as ``MAX_PAGE_WORDS`` reaches."""

    def __init__(self) -> None:
        self.is_used = False
        self._left = MAX_PAGE_WORDS

    def turn(self, one: Sequence[Row], other: Sequence[Row]) -> tuple[list[Row], list[Row]]:
        """Return the items of a turn of two branches, the first message of a role beside the first."""
        sides = list(one), list(other)
        for role in ("user", "assistant"):
            places = [_messages(rows, role) for rows in sides]
            for a, b in zip(*places, strict=False):
                before, after = sides[0][a].card, sides[1][b].card
                parts = [self._parts(*pair) for pair in zip_longest(before.parts, after.parts)]
                ones, others = (
                    [pair[side] for pair in parts if pair[side] is not None] for side in (0, 1)
                )
                sides[0][a] = sides[0][a]._replace(card=before._replace(parts=ones))
                sides[1][b] = sides[1][b]._replace(card=after._replace(parts=others))
        return sides

    def _parts(self, a: Part | None, b: Part | None) -> tuple[Part | None, Part | None]:
        if a is None or b is None or a == b:
            return a, b
        if {a.kind, b.kind} != {"text"} or a.more or b.more:
            return a, b
        found = marked(a.text, b.text, min(MAX_WORDS, self._left))
        if found is None:
            return a, b
        count, (before, after) = found
        self._left -= count
        self.is_used = True
        return Part("marked", before), Part("marked", after)


def marked(a: str, b: str, most: int = MAX_WORDS) -> tuple[int, tuple[Markup, Markup]] | None:
    """
    Return the number of words that were compared, and both texts as HTML with their own words marked.

    None if a text has more than ``most`` words, or if they have little in common.
    """
    tokens = [rendering.parsed(rendering.shown(text)) for text in (a, b)]
    words = [[word for leaf in _leaves(side) for word in _words(leaf)] for side in tokens]
    spoken = [[word for word in side if not word.isspace()] for side in words]
    if max(map(len, spoken)) > most:
        return None
    matcher = SequenceMatcher(None, spoken[0], spoken[1])
    same = matcher.get_matching_blocks()
    if sum(each.size for each in same) < LEAST_ALIKE * max(map(len, spoken), default=0):
        return None
    kept = (
        {place for each in same for place in range(each[side], each[side] + each.size)}
        for side in (0, 1)
    )
    html = [
        _rendered(side, own, mark)
        for side, own, mark in zip(tokens, kept, ("del", "ins"), strict=True)
    ]
    return sum(map(len, spoken)), (html[0], html[1])


def _messages(rows: Sequence[Row], role: str) -> list[int]:
    return [
        number
        for number, row in enumerate(rows)
        if row.card.kind == "message" and row.card.who == role
    ]


def _leaves(tokens: Sequence[Token]) -> Iterator[Token]:
    """Yield the tokens that hold text which is read."""
    for token in chain.from_iterable(each.children or [each] for each in tokens):
        if token.type in {"text", "code_inline", "fence", "code_block"}:
            yield token


def _words(token: Token) -> list[str]:
    return WORDS.findall(token.content)


def _rendered(tokens: Sequence[Token], kept: set[int], mark: str) -> Markup:
    """Return tokens as HTML; words whose numbers are not kept are marked."""
    number = 0
    for token in _leaves(tokens):
        html = Markup()
        for word in _words(token):
            is_own = not word.isspace() and number not in kept
            number += not word.isspace()
            html += MARKS[mark].format(word) if is_own else escape(word)
        code = Markup("<code>{}</code>").format(html)
        token.content = {
            "text": html,
            "code_inline": code,
        }.get(token.type, Markup("<pre>{}</pre>\n").format(code))
        token.type = "html_inline" if token.type in {"text", "code_inline"} else "html_block"
    return rendering.rendered(tokens)
