"""Items of a conversation as the page shows them: messages as cards, the work between them as lines."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

from agents_eventlog.adapters.conversations import media, summary
from agents_eventlog.adapters.view import rendering
from agents_eventlog.eventlog.cipher.envelope import Withheld
from agents_eventlog.eventlog.events import JSON, ItemRef
from agents_eventlog.eventlog.item_kind import ItemKind

IMAGES: Final = {
    "image/png": b"\x89PNG\r\n\x1a\n",
    "image/jpeg": b"\xff\xd8\xff",
    "image/gif": b"GIF8",
    "image/webp": b"RIFF",
}
"""The media types of pictures that the page shows, and how their bytes begin."""

_DATA_URL: Final = re.compile(r"data:(image/(?:png|jpeg|gif|webp));base64,", re.ASCII)
_HIDDEN: Final = {"reasoning"}


class Part(NamedTuple):
    """A part of a message: "text", "image" (``text`` is its address), or "note"."""

    kind: str
    text: str


class Card(NamedTuple):
    """
    An item in the page.

    kind: "message", "reasoning", "call", "output", "other", or "erased".
    line: what it is in one line; body: its text or JSON, for those that are folded.
    """

    kind: str
    who: str
    line: str
    parts: list[Part]
    body: str
    is_failure: bool = False


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

    embeds_pictures: the addresses of pictures hold their bytes, for a page that is a file.
    """
    name = "" if kind is None else kind.type
    if item is None:
        return Card("erased", name, f"content {withheld or 'erased'}", [], "")
    if not isinstance(item, Mapping):
        return Card("other", name, summary.shortened(str(item)), [], rendering.pretty(item))
    if isinstance(item.get("role"), str):
        return Card(
            "message",
            item["role"],
            summary.brief(item),
            list(_parts(item, ref, embeds_pictures=embeds_pictures)),
            "",
        )
    if item.get("type") in _HIDDEN:
        texts = media.texts(item.get("summary")) + media.texts(item.get("content"))
        text = "\n\n".join(filter(None, texts))
        return Card("reasoning", "reasoning", summary.shortened(text), [], rendering.shown(text))
    if kind is not None and kind.is_tool_call:
        line = summary.call(item) if "arguments" in item else str(kind.tool_name)
        body = rendering.arguments(item) if "arguments" in item else rendering.pretty(item)
        return Card("call", "calls", line, [], body)
    if "output" in item:
        text = summary.output(item)
        return Card(
            "output", "gets", summary.shortened(text), [], rendering.shown(text), _failed(text)
        )
    return Card("other", name, name, [], rendering.pretty(media.compact(dict(item))))


def image(item: JSON, index: int) -> tuple[bytes, str] | None:
    """Return the bytes and the media type of a part of an item; None if it is not a picture."""
    content = item.get("content") if isinstance(item, Mapping) else None
    part = content[index] if isinstance(content, list) and 0 <= index < len(content) else None
    address = _address(part)
    found = _DATA_URL.match(address)
    if found is None:
        return None
    try:
        data = base64.b64decode(address[found.end() :], validate=True)
    except (binascii.Error, ValueError):
        return None
    return (data, found[1]) if data.startswith(IMAGES[found[1]]) else None


def _parts(item: Mapping[str, Any], ref: ItemRef, *, embeds_pictures: bool) -> Iterator[Part]:
    content = item.get("content")
    if not isinstance(content, list):
        yield Part("text", content if isinstance(content, str) else summary.json_or_text(content))
        return
    for index, (part, text) in enumerate(zip(content, media.texts(content), strict=True)):
        if embeds_pictures and image(item, index) is not None:
            yield Part("image", _address(part))
        elif not embeds_pictures and _DATA_URL.match(_address(part)):
            place = {"position": ref.position, "index": ref.index, "part": index}
            yield Part("image", rendering.url("/item/part", **place))
        elif isinstance(part, Mapping) and isinstance(part.get("text"), str):
            yield Part("text", part["text"])
        else:
            yield Part("note", text)


def _address(part: Any) -> str:
    if not isinstance(part, Mapping):
        return ""
    given = part.get("image_url")
    if isinstance(given, Mapping):
        given = given.get("url")
    return given if isinstance(given, str) else ""


def _failed(output: str) -> bool:
    return output.startswith(("An error occurred while running the tool", "Traceback "))
