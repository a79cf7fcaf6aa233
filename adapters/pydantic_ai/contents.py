"""The contents of prompts and tool outputs, which may hold pictures, sound and files, as parts of items."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from agents_eventlog.eventlog.events import JSON

OWN: Final = "pydantic_ai"
"""The key under which an item, or a part of its content, has what its form lacks."""

URLS: Final = {
    "image-url": ("input_image", "image_url"),
    "audio-url": ("input_audio", "audio_url"),
    "video-url": ("input_video", "video_url"),
    "document-url": ("input_file", "file_url"),
}
DATA: Final = {
    "image": ("input_image", "image_url"),
    "audio": ("input_audio", "data"),
    "video": ("input_video", "video_url"),
}
FILE: Final = ("input_file", "file_data")
UPLOADED: Final = ("input_file", "file_id")

FILES: Final = frozenset({*URLS, "binary", "uploaded-file"})
_TO_STANDARD: Final = str.maketrans("-_", "+/")
_FROM_STANDARD: Final = str.maketrans("+/", "-_")


def of_prompt(content: JSON) -> JSON:
    """Return the content of a prompt: a text, or its parts."""
    return content if isinstance(content, str) else [of(each) for each in content]


def of_output(content: JSON) -> JSON:
    """Return the output of a tool: a text, its parts if it has files, or else JSON text."""
    if isinstance(content, str):
        return content
    if _is_file(content):
        return [{**of(content), "is_alone": True}]
    if isinstance(content, list) and any(map(_is_file, content)):
        return [of(each) for each in content]
    return json.dumps(content, ensure_ascii=False)


def of(value: JSON) -> dict[str, JSON]:
    """Return a part of a content."""
    if isinstance(value, str):
        return {"type": "input_text", "text": value}
    rest = dict(value) if isinstance(value, Mapping) else {}
    match rest.get("kind"):
        case "text-content":
            return {"type": "input_text", "text": rest.pop("content"), OWN: rest}
        case "binary":
            kind, key = DATA.get(rest["media_type"].partition("/")[0], FILE)
            data = rest.pop("data").translate(_TO_STANDARD)
            return {"type": kind, key: f"data:{rest['media_type']};base64,{data}", OWN: rest}
        case "uploaded-file":
            kind, key = UPLOADED
            return {"type": kind, key: rest.pop("file_id"), OWN: rest}
        case str(name) if name in URLS:
            kind, key = URLS[name]
            return {"type": kind, key: rest.pop("url"), OWN: rest}
    return {"type": "json", "text": json.dumps(value, ensure_ascii=False)}


def from_prompt(content: JSON) -> JSON:
    """Return what ``of_prompt`` was given."""
    return [from_(each) for each in content] if isinstance(content, list) else content


def from_output(output: JSON) -> JSON:
    """Return what ``of_output`` was given, unless that was stored as JSON text."""
    if not isinstance(output, list):
        return output
    parts = [from_(each) for each in output]
    return parts[0] if output and output[0].get("is_alone") else parts


def from_(part: Any) -> JSON:
    """Return what ``of`` was given; of another SDK's part, its text or its address."""
    rest = dict(part.get(OWN) or {})
    match part.get("type"), rest.get("kind"):
        case _, "text-content":
            return {**rest, "content": part["text"]}
        case _, "binary":
            _, key = DATA.get(rest["media_type"].partition("/")[0], FILE)
            data = part[key].partition(",")[2]
            return {**rest, "data": data.translate(_FROM_STANDARD)}
        case _, "uploaded-file":
            return {**rest, "file_id": part["file_id"]}
        case _, str(name) if name in URLS:
            return {**rest, "url": part[URLS[name][1]]}
        case "json", _:
            return json.loads(part["text"])
        case "input_image", _ if isinstance(part.get("image_url"), str):
            return {"kind": "image-url", "url": part["image_url"]}
    return text([part])


def text(content: JSON) -> str:
    """Return the text of a message's content."""
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    return "".join(each.get("text") or each.get("refusal") or "" for each in parts)


def _is_file(value: JSON) -> bool:
    return isinstance(value, Mapping) and value.get("kind") in FILES
