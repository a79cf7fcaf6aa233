"""
Events to bytes and back: the one place that encodes and decodes payloads.

A payload comes back as ``json.loads(json.dumps(payload))`` would give it. msgspec is used where it
proves equal, by decoding what it wrote and comparing; where it is not (NaN, lone surrogates, keys that
are not strings, types that JSON lacks) the standard library is used.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from typing import Any, TypeAlias

import msgspec

from agents_eventlog.eventlog.errors import (
    InvalidEventError,
    UndecodableEventError,
    UnserialisableError,
)
from agents_eventlog.eventlog.events import (
    EVENT_TYPES,
    JSON,
    Event,
    ItemRef,
    RequestUsage,
    UsageCorrected,
    UsageCorrection,
    UsageRecorded,
)

UPCASTS: dict[tuple[str, int], Callable[[dict[str, JSON]], dict[str, JSON]]] = {
    ("content_erased", 1): lambda fields: fields,  # the fields that are new have defaults
    ("content_erased", 2): lambda fields: fields,
    ("content_erased", 3): lambda fields: fields,
    ("content_erased", 4): lambda fields: fields,
    ("metadata_set", 1): lambda fields: fields,
    ("session_cleared", 1): lambda fields: fields,
}
"""From (type, schema version) to a pure step that lifts the data to the next schema version."""

StoredPayload: TypeAlias = tuple[Any, ...]
"""A payload as stored: position, type, schema version, data; other columns may be before them."""

MAX_PLACE_LEVELS = 16
"""How deep an error locates a value that is not JSON; a value may contain itself."""


class _Items(msgspec.Struct, gc=False):
    items: list[JSON]


class _Content(msgspec.Struct, gc=False):
    content: msgspec.Raw = msgspec.Raw(b'""')


class _Contents(msgspec.Struct, gc=False):
    items: list[_Content]


_encoder = msgspec.json.Encoder()
_decoders: dict[str, msgspec.json.Decoder[Event]] = {
    name: msgspec.json.Decoder(kind) for name, kind in EVENT_TYPES.items()
}
_tags = {name: _encoder.encode({"type": name})[:-1] for name in EVENT_TYPES}
_items_decoder = msgspec.json.Decoder(_Items)
_contents_decoder = msgspec.json.Decoder(_Contents)
_json_decoder = msgspec.json.Decoder()
_COMPACT: dict[str, Any] = {"separators": (",", ":")}
_compact = json.JSONEncoder(**_COMPACT)  # making one takes as long as a short document
_CANNOT_ENCODE = (TypeError, ValueError, OverflowError, RecursionError, msgspec.MsgspecError)
_CANNOT_DECODE = (msgspec.MsgspecError, UnicodeDecodeError)
_CANNOT_LIFT = (ValueError, KeyError, RecursionError, msgspec.MsgspecError)


def encode(event: Event) -> bytes:
    """
    Return the event's data as JSON.

    Raises UnserialisableError (a TypeError) that names the place of a value that is not JSON, and
    InvalidEventError for a field of the wrong type.
    """
    name = event.type_name()
    try:
        tagged = _encoder.encode(event)
        if _decoders[name].decode(tagged) == event:
            rest = tagged[len(_tags[name]) :]
            return b"{}" if rest == b"}" else b"{" + rest[1:]
    except _CANNOT_ENCODE:
        pass
    data = encode_json(_fields(event), default=_plain)
    _check_readable(event, data)
    return data


def encode_json(value: JSON, *, default: Callable[[Any], JSON] | None = None) -> bytes:
    """Return what ``json.dumps`` writes; raise UnserialisableError for what it refuses."""
    try:
        encoder = _compact if default is None else json.JSONEncoder(**_COMPACT, default=default)
        return encoder.encode(value).encode()
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        place, culprit = _locate(value, "$", default)
        raise UnserialisableError(
            f"{place} cannot be stored as JSON: {type(culprit).__name__}", place=place
        ) from error


def decode(type_name: str, schema_version: int, data: bytes, *, position: int) -> Event:
    """Return the event, lifted to its type's present shape. Raises UndecodableEventError."""
    kind = check_known(type_name, schema_version, position=position)
    try:
        if schema_version == kind.schema_version:
            try:
                return _decoders[type_name].decode(data)
            except _CANNOT_DECODE:
                pass  # the standard library may still know: NaN, lone surrogates
        event = msgspec.convert(_lifted(kind, schema_version, json.loads(data)), kind)
        _check_texts(event)
    except _CANNOT_LIFT as error:
        raise _undecodable(type_name, position) from error
    return event


def lifted(type_name: str, schema_version: int, data: bytes, *, position: int) -> bytes:
    """
    Return an event's data in its type's current shape: unchanged, unless an older release wrote it.

    Raises UndecodableEventError.
    """
    kind = check_known(type_name, schema_version, position=position)
    if schema_version == kind.schema_version:
        return data
    try:
        return encode_json(_lifted(kind, schema_version, json.loads(data)))
    except _CANNOT_LIFT as error:
        raise _undecodable(type_name, position) from error


def _lifted(kind: type[Event], schema_version: int, fields: dict[str, JSON]) -> dict[str, JSON]:
    for version in range(schema_version, kind.schema_version):
        fields = UPCASTS[kind.type_name(), version](fields)
    return fields


def _undecodable(type_name: str, position: int) -> UndecodableEventError:
    return UndecodableEventError(
        f"event at position {position} cannot be decoded as {type_name!r}", position=position
    )


def check_known(type_name: str, schema_version: int, *, position: int) -> type[Event]:
    """Return an event's type. Raises UndecodableEventError for one of a newer release."""
    kind = EVENT_TYPES.get(type_name)
    if kind is None or schema_version > kind.schema_version:
        raise UndecodableEventError(
            f"event at position {position} is a {type_name!r} of schema version {schema_version}, "
            "which this release does not know",
            position=position,
        )
    return kind


def decode_recording(text: str, *, position: int) -> dict[str, JSON]:
    """Return what was bound by ``recording``. Raises UndecodableEventError."""
    try:
        metadata = decode_metadata(text)
        if isinstance(metadata, dict):
            return metadata
    except (ValueError, RecursionError):
        pass
    raise UndecodableEventError(
        f"the metadata of the event at position {position} cannot be decoded", position=position
    )


def decode_metadata(text: str) -> dict[str, JSON]:
    """Decode a JSON object that has a column of its own: metadata, details. Raises ValueError."""
    try:
        metadata: dict[str, JSON] = msgspec.json.decode(text)
    except _CANNOT_DECODE:
        metadata = json.loads(text)
    return metadata


def decode_items(payloads: Sequence[StoredPayload]) -> list[list[JSON]]:
    """
    Return the items of events that hold items, lifted to their types' present shapes.

    All are decoded as one document, which is several times faster than one by one.
    """
    present = _present(payloads)
    decoded = decode_lines_of_items(b"\n".join(present), len(present))
    if decoded is not None:
        return decoded
    return [_items_of(stored[-4], data) for stored, data in zip(payloads, present, strict=True)]


def contents(payloads: Sequence[StoredPayload], places: Sequence[tuple[int, int]]) -> list[JSON]:
    """
    Return the ``content`` of items ("" for none), each given by the indexes of its payload and in that.

    Other items are not decoded.
    """
    present = _present(payloads)
    try:
        decoded = _contents_decoder.decode_lines(b"\n".join(present))
        if len(decoded) == len(present):
            decode = _json_decoder.decode
            return [decode(decoded[number].items[index].content) for number, index in places]
    except (*_CANNOT_DECODE, RecursionError):
        pass  # a damaged one, or a number that only the json module takes
    items = decode_items(payloads)
    return [items[number][index].get("content", "") for number, index in places]


def older_item_shapes() -> list[tuple[str, int]]:
    """Return (type, schema version) of the older shapes that events with items may have; today none."""
    return _with_items(tuple(UPCASTS))


@cache
def _with_items(shapes: tuple[tuple[str, int], ...]) -> list[tuple[str, int]]:
    return [shape for shape in shapes if "items" in EVENT_TYPES[shape[0]].__struct_fields__]


def _present(payloads: Sequence[StoredPayload]) -> list[bytes]:
    if not older_item_shapes():
        return [stored[-1] for stored in payloads]
    return [lifted(*stored[-3:], position=stored[-4]) for stored in payloads]


def decode_lines_of_items(document: bytes, count: int) -> list[list[JSON]] | None:
    """Return the items of ``count`` events, one line of data each; None if msgspec refuses a line."""
    try:
        decoded = _items_decoder.decode_lines(document)
    except (*_CANNOT_DECODE, RecursionError):
        return None
    if len(decoded) != count:  # damaged ones may be a document only together
        return None
    return [event.items for event in decoded]


def _items_of(position: int, data: bytes) -> list[JSON]:
    try:
        items = json.loads(data)["items"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise _undecodable_items(position) from error
    if not isinstance(items, list):
        raise _undecodable_items(position)
    return items


def _undecodable_items(position: int) -> UndecodableEventError:
    return UndecodableEventError(
        f"the items of the event at position {position} cannot be decoded", position=position
    )


def _check_readable(event: Event, data: bytes) -> None:
    """Refuse data that would not decode to this event again, or that no column can hold."""
    name = event.type_name()
    try:
        read = decode(name, event.schema_version, data, position=0)
    except UndecodableEventError as error:
        if isinstance(error.__cause__, RecursionError):
            raise UnserialisableError("$ is nested too deeply", place="$") from error
        if isinstance(error.__cause__, InvalidEventError):
            raise error.__cause__ from None
        raise InvalidEventError(f"invalid {name!r} event: a field has the wrong type") from error
    _check_texts(read)


def _check_texts(event: Event) -> None:
    """Raise InvalidEventError for a field that no column can hold."""
    requests = event.requests if isinstance(event, UsageRecorded | UsageCorrected) else ()
    for part in (event, *requests):
        for field in part.__struct_fields__:
            if isinstance(value := getattr(part, field), str):
                check_text(field, value)


def _fields(struct: msgspec.Struct) -> dict[str, Any]:
    return {
        field: value
        for field, default in zip(struct.__struct_fields__, _defaults(type(struct)), strict=True)
        if (value := getattr(struct, field)) is not default
    }


def _defaults(kind: type[msgspec.Struct]) -> Iterable[Any]:
    fields = msgspec.structs.fields(kind)
    return [field.default for field in fields]


def _plain(value: Any) -> JSON:
    if type(value) in (RequestUsage, UsageCorrection):
        return _fields(value)
    if type(value) is ItemRef:
        return [value.position, value.index]
    raise TypeError(type(value).__name__)


def _locate(
    value: Any, place: str, default: Callable[[Any], JSON] | None, levels: int = MAX_PLACE_LEVELS
) -> tuple[str, Any]:
    """Locate the value that cannot be encoded: descend into the first such child, up to ``levels``."""
    if levels == 0:
        return place, value
    children: Iterable[tuple[str, Any]] = ()
    if isinstance(value, dict):
        for key in value:
            if not isinstance(key, str | int | float | bool | None):
                return f"{place} (a key)", key
        children = ((f"{place}.{key}", child) for key, child in value.items())
    elif isinstance(value, list | tuple):
        children = ((f"{place}[{index}]", child) for index, child in enumerate(value))
    for child_place, child in children:
        try:
            json.dumps(child, default=default)
        except (TypeError, ValueError, OverflowError, RecursionError):
            return _locate(child, child_place, default, levels - 1)
    return place, value


def encode_text(text: str) -> bytes:
    """Return text as a payload holds it, without quotes; empty if msgspec cannot encode it."""
    try:
        return _encoder.encode(text)[1:-1]
    except UnicodeEncodeError:
        return b""


def readable(value: JSON) -> str:
    """Return a value as readable JSON text."""
    return json.dumps(value, ensure_ascii=False)


def check_text(what: str, value: object) -> str:
    """Return a string as a plain ``str``. Raises InvalidEventError unless UTF-8 can encode it."""
    if type(value) is str and value.isascii():
        return value
    if not isinstance(value, str):
        raise InvalidEventError(f"invalid {what}: expected a string, got {type(value).__name__}")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise InvalidEventError(f"invalid {what}: it contains an unpaired surrogate") from None
    return str.__str__(value)  # a subclass may have a __str__ of its own, and the digest takes none


def check_session_id(value: object) -> str:
    """Return the id of a session that may be new as a plain ``str``. Raises InvalidEventError."""
    if not (session_id := check_text("session_id", value)):
        raise InvalidEventError("invalid session_id: expected a non-empty string, got ''")
    return session_id
