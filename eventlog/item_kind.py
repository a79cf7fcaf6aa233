"""
What an item is: its type, the tool that it calls, whether it opens a turn.

The one rule for all of them, applied to the few keys that it needs; the content is never looked at.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Final, NamedTuple

import msgspec
from msgspec import UNSET, UnsetType

from agents_eventlog.eventlog import codec
from agents_eventlog.eventlog.events import JSON

USER: Final = "user"
"""The type of items that open a turn."""

NAMED_BY_TYPE: Final = frozenset(
    {
        "apply_patch_call",
        "code_interpreter_call",
        "computer_call",
        "file_search_call",
        "shell_call",
        "web_search_call",
    }
)
"""Calls without a name; their type names the tool."""

TOOL_CALLS: Final = NAMED_BY_TYPE | {
    "custom_tool_call",
    "function_call",
    "mcp_approval_request",
    "mcp_call",
    "tool_call",
    "tool_search_call",
}
"""The types that count as the use of a tool."""


class ItemKind(NamedTuple):
    """An item as the projections see it."""

    type: str
    tool_name: str | None
    is_tool_call: bool


class _Keys(msgspec.Struct, frozen=True):
    role: str | UnsetType | None = UNSET
    type: str | UnsetType | None = UNSET
    name: str | UnsetType | None = UNSET
    namespace: str | UnsetType | None = UNSET
    server_label: str | UnsetType | None = UNSET
    approval_request_id: str | UnsetType | None = UNSET


class _Items(msgspec.Struct):
    items: list[_Keys]


_KEYS = _Keys.__struct_fields__
_decoder = msgspec.json.Decoder(_Items)
_OTHER: Final = ItemKind("other", None, is_tool_call=False)


def classify_items(
    position: int, type_name: str, schema_version: int, data: bytes
) -> list[ItemKind]:
    """Return the shapes of the items in an event's data, whichever release wrote it."""
    present = codec.lifted(type_name, schema_version, data, position=position)
    try:
        return [_remembered_shape(keys) for keys in _decoder.decode(present).items]
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        stored = (position, type_name, schema_version, data)
        # An item is not an object, a key is not text, or msgspec cannot decode the JSON.
        return [classify(item) for item in codec.decode_items([stored])[0]]


def classify(item: JSON) -> ItemKind:
    """Return the kind of an item; an item that is not an object has the type "other"."""
    if not isinstance(item, Mapping):
        return _OTHER
    return _shape(_Keys(**{key: item[key] for key in _KEYS if key in item}))


def _shape(keys: _Keys) -> ItemKind:
    if isinstance(keys.role, str) and keys.role in {USER, "assistant"}:
        return ItemKind(keys.role, None, is_tool_call=False)
    kind = _text(keys.type) if keys.type is not UNSET and keys.type else "other"
    is_tool_call = kind in TOOL_CALLS and not (
        kind == "mcp_call" and isinstance(keys.approval_request_id, str)  # its request counted
    )
    return ItemKind(kind, _tool_name(keys, kind), is_tool_call)


_remembered_shape = lru_cache(maxsize=4_096)(_shape)


def _tool_name(keys: _Keys, kind: str) -> str | None:
    if kind in {"mcp_call", "mcp_approval_request"} and keys.server_label is not UNSET:
        parts = [
            _text(part) for part in (keys.server_label, keys.name) if part not in (UNSET, None)
        ]
        return ".".join(part for part in parts if part) or None
    if kind in {"tool_search_call", "tool_search_output"}:
        return "tool_search"
    if kind in NAMED_BY_TYPE:
        return kind
    if keys.role is not UNSET or keys.name in (UNSET, None):
        return None  # a message's name is its author's
    name = _text(keys.name)
    namespace = "" if keys.namespace in (UNSET, None) else _text(keys.namespace)
    return name if not name or not namespace or namespace == name else f"{namespace}.{name}"


def _text(value: JSON) -> str:
    """Return a value as text that a row can hold: of a lone surrogate, a question mark remains."""
    return str(value).encode(errors="replace").decode()


def json_text(value: JSON) -> str:
    """Return a value as the JSON text that is kept in a row."""
    return codec.encode_json(value).decode()


def outline(position: int, type_name: str, schema_version: int, data: bytes) -> dict[str, JSON]:
    """Return an event's data with each item replaced by the smallest one of the same kind."""
    seen = classify_items(position, type_name, schema_version, data)
    return {"items": [smallest(shape) for shape in seen]}


@lru_cache(maxsize=4_096)
def smallest(wanted: ItemKind) -> dict[str, JSON]:
    """Return the smallest item of a kind: it holds no content."""
    kind, tool_name, _ = wanted
    typed = {"type": kind}
    named = {**typed, "name": tool_name}
    candidates: tuple[dict[str, JSON], ...] = (
        {},
        {"role": kind},
        typed,
        {**typed, "approval_request_id": ""},
        named,
        {**named, "approval_request_id": ""},
    )
    return next(candidate for candidate in candidates if classify(candidate) == wanted)


@lru_cache(maxsize=4_096)
def of_outline(type_name: str, schema_version: int, outline: bytes) -> Sequence[ItemKind]:
    """Do as ``classify_items`` does for an outline; many events have the same one."""
    return tuple(classify_items(0, type_name, schema_version, outline))


def outline_json(position: int, type_name: str, schema_version: int, data: bytes) -> bytes:
    """Return the outline of an event's items as JSON."""
    return _outline_json(tuple(classify_items(position, type_name, schema_version, data)))


@lru_cache(maxsize=4_096)
def _outline_json(seen: tuple[ItemKind, ...]) -> bytes:
    return codec.encode_json({"items": [smallest(kind) for kind in seen]})
