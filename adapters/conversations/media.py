"""
Pictures, sound, files and refusals in items, as short texts for people: "(image, png, 10 MB)".

Programs read the items themselves; nothing here changes what is stored.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from agents_eventlog.eventlog.events import JSON

LONG_CHARACTERS: Final = 256
"""Shorter values are shown unchanged, even if they look like base64."""

KINDS: Final = {
    "input_image": "image",
    "output_image": "image",
    "image_url": "image",
    "computer_screenshot": "image",
    "input_audio": "audio",
    "output_audio": "audio",
    "audio": "audio",
    "input_file": "file",
    "file": "file",
    "input_video": "video",
    "video_url": "video",
}
"""The types of parts without a text, and what people call them."""

_HOLDERS: Final = ("input_audio", "audio", "image_url", "file", "video_url", "source")
"""The keys under which some releases nest a part's content."""
_CONTENTS: Final = ("data", "image_url", "file_data", "audio_url", "video_url", "url", "file_url")
_FORMATS: Final = ("format", "media_type", "mime_type")

_DATA_URL: Final = re.compile(r"data:([\w.+-]+/[\w.+-]+)?[^,]*,", re.ASCII)
_BASE64: Final = re.compile(r"[A-Za-z0-9+/_-]+={0,2}", re.ASCII)
_LONG_DATA_URL: Final = re.compile(
    rf"data:([\w.+-]+/[\w.+-]+)?[\w;=.+-]*,([A-Za-z0-9+/_%-]{{{LONG_CHARACTERS},}}=*)", re.ASCII
)
_UNITS: Final = ("B", "kB", "MB", "GB")


def texts(content: JSON) -> list[str]:
    """Return the content of a message as texts, one for each part."""
    if isinstance(content, str):
        return [content]
    return [_part(part) for part in content] if isinstance(content, list) else []


def readable(content: JSON) -> bool:
    """Whether ``texts`` returns all that people can read of a message's content."""
    if isinstance(content, list):
        return all(isinstance(part, Mapping) and _is_known(part) for part in content)
    return isinstance(content, str)


def compact(value: JSON) -> JSON:
    """Return a value with each embedded file replaced by a short text."""
    if isinstance(value, str):
        return _without_files(value)
    if isinstance(value, Mapping):
        return {key: compact(child) for key, child in value.items()}
    return [compact(child) for child in value] if isinstance(value, list) else value


def _is_known(part: Mapping[str, Any]) -> bool:
    is_text = isinstance(part.get("text"), str) or isinstance(part.get("refusal"), str)
    return is_text or part.get("type") in KINDS


def _part(part: JSON) -> str:
    """Return a part of a message as a text, "" if it has nothing to read."""
    if not isinstance(part, Mapping):
        return ""
    if isinstance(part.get("text"), str):
        return str(part["text"])
    if isinstance(part.get("refusal"), str):
        return f"(refusal) {part['refusal']}"
    kind = part.get("type")
    if not isinstance(kind, str) or kind not in KINDS:
        return f"({kind})" if kind else ""
    facts = ", ".join((KINDS[kind], *_facts(part)))
    transcript = next(
        (each["transcript"] for each in _holders(part) if isinstance(each.get("transcript"), str)),
        "",
    )
    return f"({facts}) {transcript}".rstrip()


def _facts(part: Mapping[str, Any]) -> Iterator[str]:
    """Yield what is known of a part: its name, its format and its size or address."""
    given = _holders(part)
    for name in ("filename", "file_id"):
        yield from _texts_at(given, name)
    formats = list(_texts_at(given, *_FORMATS))
    yield from formats
    for content in _texts_at(given, *_CONTENTS):
        form = _DATA_URL.match(content)
        if form is not None:
            if form[1] and not formats:
                yield _subtype(form[1])
            yield _size(content[form.end() :])
        elif "://" in content:
            yield content
        else:
            yield _size(content)


def _holders(part: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    nested = (part.get(name) for name in _HOLDERS)
    return [part, *(each for each in nested if isinstance(each, Mapping))]


def _texts_at(given: list[Mapping[str, Any]], *names: str) -> Iterator[str]:
    found = (each.get(name) for each in given for name in names)
    yield from (value for value in found if isinstance(value, str) and value)


def _without_files(text: str) -> str:
    """Return a text with descriptions of its long data URLs, or of itself if it is all base64."""
    if len(text) < LONG_CHARACTERS:
        return text
    if _BASE64.fullmatch(text):
        return f"(base64, {_size(text)})"
    return _LONG_DATA_URL.sub(lambda found: f"({found[1] or 'data'}, {_size(found[2])})", text)


def _subtype(media_type: str) -> str:
    return media_type.rpartition("/")[2]


def _size(base64: str) -> str:
    """Return the number of bytes that a base64 text encodes, in decimal units."""
    size: float = len(base64.rstrip("=")) * 3 // 4
    for unit in _UNITS:
        if size < 1_000 or unit == _UNITS[-1]:
            break
        size /= 1_000
    return f"{size:.0f} {unit}"
