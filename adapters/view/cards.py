"""
Items of a conversation as the page shows them: messages as cards, the work between them as lines.

A tool call and its output are one line, wherever the output is: ``name(argument=value) -> output``.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any, Final, NamedTuple

from agents_eventlog.adapters.conversations import media, summary
from agents_eventlog.adapters.conversations import tools as tool_rules
from agents_eventlog.adapters.conversations.tool_calls import OUTPUTS, call_id_of
from agents_eventlog.adapters.conversations.window import SHOWN_CHARACTERS, Removal, ShownItem
from agents_eventlog.adapters.view import rendering
from agents_eventlog.eventlog.cipher.envelope import Withheld
from agents_eventlog.eventlog.events import JSON, ItemRef
from agents_eventlog.eventlog.item_kind import ItemKind

IMAGES: Final = {
    "image/png": re.compile(rb"\x89PNG\r\n\x1a\n"),
    "image/jpeg": re.compile(rb"\xff\xd8\xff"),
    "image/gif": re.compile(rb"GIF8[79]a"),
    "image/webp": re.compile(rb"RIFF....WEBP", re.DOTALL),
}
"""The media types of pictures that the page shows, and how their bytes begin."""

TRACEBACK: Final = "Traceback (most recent call last)"
LINE_CHARACTERS: Final = 160
CONTENTS: Final = ("content", "output")
"""The members of an item whose parts may be pictures, in the order in which parts are numbered."""

_DATA_URL: Final = re.compile(r"data:(image/(?:png|jpeg|gif|webp));base64,", re.ASCII)


class Part(NamedTuple):
    """
    A part of a message: "text", "image" (``text`` is its address), "note", or "marked" (``text`` is HTML).

    more: the address of the whole text, and its length, if it is cut here.
    """

    kind: str
    text: str
    more: tuple[str, int] | None = None


class Card(NamedTuple):
    """
    An item in the page.

    kind: "message", "reasoning", "call", "output", "other", or what hides the content: "erased".
    line: what it is in one line; body: its text or JSON, for those that are folded.
    more: the address of the whole body, and its length, if it is cut here.
    """

    kind: str
    who: str
    line: str
    parts: list[Part]
    body: str
    is_failure: bool = False
    more: tuple[str, int] | None = None


class Row(NamedTuple):
    """An item, or a tool call with its output; ``waits`` for a call that nothing has answered yet."""

    item: ShownItem
    card: Card
    output: ShownItem | None = None
    output_card: Card | None = None
    waits: bool = False

    @property
    def is_failure(self) -> bool:
        """Whether the call failed."""
        return self.card.is_failure or (
            self.output_card is not None and self.output_card.is_failure
        )


class Group(NamedTuple):
    """Rows that follow each other; those that were removed in one go have a ``removal``."""

    removal: Removal | None
    rows: list[Row]

    @property
    def since(self) -> int:
        """The first version at which one of them was on the branch."""
        return min(row.item.since for row in self.rows)

    @property
    def until(self) -> int:
        """The first version at which one of them was removed; 0 if they have expired."""
        return min(row.item.until or 0 for row in self.rows)

    @property
    def size(self) -> int:
        """The number of items."""
        return sum(1 + (row.output is not None) for row in self.rows)


def groups(items: Sequence[ShownItem], *, embeds_pictures: bool = False) -> list[Group]:
    """Return the items of a turn as the page shows them."""
    rows = _rows(items, embeds_pictures=embeds_pictures)
    found = []
    for _, some in groupby(rows, key=lambda row: _removal_key(row.item.removal)):
        members = list(some)
        found.append(Group(members[-1].item.removal, members))
    return found


def _removal_key(removal: Removal | None) -> tuple[str | None, ...] | None:
    if removal is None:
        return None
    return removal.how, removal.origin.actor, removal.reason


def _rows(items: Sequence[ShownItem], *, embeds_pictures: bool) -> list[Row]:
    outputs: dict[tuple[str, str], ShownItem] = {}
    for shown in items:
        if (key := _answers(shown)) is not None:
            outputs.setdefault(key, shown)
    rows = []
    used: set[ItemRef] = set()
    for shown in items:
        if shown.ref in used:
            continue
        row = _card(shown, embeds_pictures=embeds_pictures)
        key = _asks(shown)
        output = None if key is None else outputs.get(key)
        if output is None or (output.removal is None) != (shown.removal is None):
            rows.append(Row(shown, row, waits=key is not None))
            continue
        used.add(output.ref)
        answer = _card(output, embeds_pictures=embeds_pictures)
        rows.append(Row(shown, row, output, answer))
    return [row for row in rows if row.item.ref not in used]


def _card(shown: ShownItem, *, embeds_pictures: bool) -> Card:
    return card(
        *(shown.item, shown.ref, shown.kind),
        withheld=shown.withheld,
        embeds_pictures=embeds_pictures,
    )


def _asks(shown: ShownItem) -> tuple[str, str] | None:
    """Return what the output of a call must have: its type and the call's id."""
    item = shown.item
    if shown.kind is None or not isinstance(item, Mapping) or shown.kind.type not in OUTPUTS:
        return None
    call_id = call_id_of(item)
    return None if call_id is None else (OUTPUTS[shown.kind.type], call_id)


def _answers(shown: ShownItem) -> tuple[str, str] | None:
    item = shown.item
    if shown.kind is None or not isinstance(item, Mapping):
        return None
    if shown.kind.type not in OUTPUTS.values():
        return None
    call_id = call_id_of(item)
    return None if call_id is None else (shown.kind.type, call_id)


def card(
    item: JSON,
    ref: ItemRef,
    kind: ItemKind | None,
    *,
    withheld: Withheld | None = None,
    embeds_pictures: bool = False,
) -> Card:
    """
    Return an item as the page shows it; an item that is None cannot be read.

    withheld: why it cannot be read.
    embeds_pictures: the addresses of pictures hold their bytes, and nothing is cut, for a page that is a
        file.
    """
    name = "" if kind is None else kind.type
    # What hides content is shown here: an erased item has no content, and sealed content gets a card of a
    # kind of its own. A redacted item is its placeholder, beside which its row says by whom and why.
    if item is None:
        return Card("erased", name, f"content {withheld or 'erased'}", [], "")
    place = None if embeds_pictures else ref
    if not isinstance(item, Mapping):
        return _folded("other", name, summary.shortened(str(item)), rendering.pretty(item), place)
    if isinstance(item.get("role"), str):
        parts = list(_parts(item, ref, embeds_pictures=embeds_pictures))
        return Card("message", item["role"], summary.brief(item), parts, "")
    if item.get("type") == "reasoning":
        texts = media.texts(item.get("summary")) + media.texts(item.get("content"))
        text = "\n\n".join(filter(None, texts))
        line = _line(text.replace("**", "")) or "not shown by the model"
        return _folded("reasoning", "reasoning", line, rendering.shown(text), place)
    if kind is not None and kind.is_tool_call:
        line = summary.call(item) if "arguments" in item else str(kind.tool_name or kind.type)
        body = rendering.arguments(item) if "arguments" in item else rendering.pretty(item)
        is_failure = tool_rules.failed(item)
        return _folded("call", "calls", _line(line), body, place, is_failure=is_failure)
    if "output" in item:
        text = summary.output(item)
        is_failure = tool_rules.failed(item) or text.startswith(TRACEBACK)
        pictures = list(_pictures(item, ref, embeds_pictures=embeds_pictures))
        answer = _folded(
            "output",
            "gets",
            _line(text),
            rendering.indented(text),
            place,
            is_failure=is_failure,
        )
        return answer._replace(parts=pictures)
    body = rendering.pretty(media.compact(dict(item)))
    return _folded("other", name, name, body, place)


def _line(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= LINE_CHARACTERS else f"{line[: LINE_CHARACTERS - 1]}…"


def _folded(
    kind: str, who: str, line: str, body: str, place: ItemRef | None, *, is_failure: bool = False
) -> Card:
    body, more = _cut(body, place)
    return Card(kind, who, line, [], body, is_failure, more)


def _cut(text: str, place: ItemRef | None) -> tuple[str, tuple[str, int] | None]:
    """Return the beginning of a text, and where the page shows all of it; None if that is all."""
    if place is None or len(text) <= SHOWN_CHARACTERS:
        return text, None
    address = rendering.url("/item", position=place.position, index=place.index)
    return text[:SHOWN_CHARACTERS], (address, len(text))


def image(item: JSON, number: int) -> tuple[bytes, str] | None:
    """
    Return the bytes and the media type of a part of an item; None if it is not a picture.

    number: counts the parts of its content, then those of its output.
    """
    parts = list(_all_parts(item)) if isinstance(item, Mapping) else []
    address = _address(parts[number]) if 0 <= number < len(parts) else ""
    found = _DATA_URL.match(address)
    if found is None:
        return None
    try:
        data = base64.b64decode(address[found.end() :], validate=True)
    except (binascii.Error, ValueError):
        return None
    return (data, found[1]) if IMAGES[found[1]].match(data) else None


def _all_parts(item: Mapping[str, Any]) -> Iterator[JSON]:
    for name in CONTENTS:
        value = item.get(name)
        yield from value if isinstance(value, list) else ()
    if isinstance(item.get("output"), Mapping):
        yield item["output"]  # a screenshot


def _parts(item: Mapping[str, Any], ref: ItemRef, *, embeds_pictures: bool) -> Iterator[Part]:
    content = item.get("content")
    place = None if embeds_pictures else ref
    if not isinstance(content, list):
        text = content if isinstance(content, str) else summary.json_or_text(content)
        yield Part("text", *_cut(text, place))
        return
    for number, (part, text) in enumerate(zip(content, media.texts(content), strict=True)):
        picture = _picture(item, number, part, ref, embeds_pictures=embeds_pictures)
        if picture is not None:
            yield picture
        elif isinstance(part, Mapping) and isinstance(part.get("text"), str):
            yield Part("text", *_cut(part["text"], place))
        else:
            yield Part("note", text)


def _pictures(item: Mapping[str, Any], ref: ItemRef, *, embeds_pictures: bool) -> Iterator[Part]:
    """Yield the pictures of a tool's output."""
    for number, part in enumerate(_all_parts(item)):
        picture = _picture(item, number, part, ref, embeds_pictures=embeds_pictures)
        if picture is not None:
            yield picture


def _picture(
    item: Mapping[str, Any], number: int, part: JSON, ref: ItemRef, *, embeds_pictures: bool
) -> Part | None:
    address = _address(part)
    if not _DATA_URL.match(address):
        return None
    if embeds_pictures:
        return Part("image", address) if image(item, number) is not None else None
    place = {"position": ref.position, "index": ref.index, "part": number}
    return Part("image", rendering.url("/item/part", **place))


def _address(part: Any) -> str:
    if not isinstance(part, Mapping):
        return ""
    given = part.get("image_url")
    if isinstance(given, Mapping):
        given = given.get("url")
    return given if isinstance(given, str) else ""
