"""
Envelopes: payloads as a sealed log stores them.

    offset  bytes
    0       1      format: 1 is AES-256-GCM with a nonce of 12 bytes and a tag of 16
    1       1      flags: none is defined
    2       32     key id, which commits to the session's key
    34      12     nonce
    46      8      version: the place in the session that the payload was sealed for
    54      16     context: the session, type, schema version and branch, hashed
    70      4      length of the outline, n
    74      n      outline: the event's data without its content, as JSON
    74 + n  m      ciphertext
    ...     16     tag

Numbers are big-endian. All bytes before the ciphertext are authenticated with it. The outline is readable
without a key, and decodes as an event of its type: projections are built from it.

The ciphertext of an event with items is ``{"items":[...]}``; its other fields are in the outline.
An outline refers to an item by the version of its event, not by its position, so that a session can move to
another log unopened: ``[version, index]``, or ``[version, index, session]`` for an item of another session,
which a fork began with. The outline of ``metadata_set`` has tokens in place of the values.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Mapping
from typing import Any, Final, Literal, NamedTuple, Protocol, Self, TypeAlias

import msgspec

from agents_eventlog.eventlog import codec, item_kind, metadata_leaves
from agents_eventlog.eventlog.errors import (
    KeysMissingError,
    TamperedPayloadError,
    UndecodableEventError,
)
from agents_eventlog.eventlog.events import (
    EVENT_TYPES,
    JSON,
    Event,
    ItemsAdded,
    ItemsWithheld,
    MetadataSet,
)

FORMAT: Final = 1
MAX_FORMAT: Final = 8
"""Formats that later releases may have; JSON never begins with such a byte."""

HEADER: Final = struct.Struct(">BB32s12sQ16sI")
START: Final = HEADER.size

ITEM_TYPES: Final = frozenset(
    name
    for name, kind in EVENT_TYPES.items()
    if "items" in kind.__struct_fields__ and kind is not ItemsWithheld  # only placeholders
)
"""The events whose payloads hold the content of items."""

ITEMS_ADDED: Final = ItemsAdded.type_name()
METADATA_SET: Final = MetadataSet.type_name()
SEALED_TYPES: Final = ITEM_TYPES | {METADATA_SET}
"""The types of events whose payloads are content."""

REFERENCES: Final = ("first_item", "item")
"""The fields of an outline that refer to an item of the session."""

USER: Final = "user"
LABEL: Final = "label"
"""The kinds of tokens in the outline of ``metadata_set``."""

DEEP: Final = "sealed:"
"""In such an outline, the only token of metadata without a leaf that is indexed."""

Tokens = Callable[..., str]
VersionOf = Callable[[int], "int | tuple[int, str]"]
"""Returns the version of the event at a position, 0 for none; with its session, if that is another one."""

PositionOf = Callable[..., int]
"""Returns the position of a version, of the session or of the one that follows; 0 for none."""


Withheld: TypeAlias = Literal["erased", "sealed", "shredded"]
"""Why a content cannot be read: it was erased, no keys were given, or its key was destroyed."""


class Place(NamedTuple):
    """
    Where an envelope is: the session that is read, and the columns of its event.

    context: what the envelope must say of the other columns; None if they were not read.
    """

    session_id: str
    version: int
    type: str
    position: int
    context: bytes | None = None


class Opener(Protocol):
    """What opens envelopes: the log's cipher."""

    def unseal(self, envelope: bytes, session_id: str, version: int, position: int) -> bytes:
        """Return the plaintext of an envelope that is in this place."""


class Envelope(bytes):
    """
    A sealed payload as stored, on its way out of the table, in its place.

    outline: the event's data without its content, with positions.
    opener: the log's cipher; None if the log was opened without keys.
    """

    place: Place
    outline: bytes
    opener: Opener | None

    def __new__(cls, stored: bytes, place: Place, outline: bytes, opener: Opener | None) -> Self:
        """Make one; bytes are immutable."""
        made = super().__new__(cls, stored)
        made.place, made.outline, made.opener = place, outline, opener
        return made

    def opened(self) -> bytes:
        """
        Return the event's data.

        Raises KeysMissingError, KeyNotFoundError, ShreddedError, and TamperedPayloadError for an envelope
        that is not the one which was sealed for this place.
        """
        if self.opener is None:
            raise missing_keys()
        session_id, version, kind, position, _ = self.place
        check(self, self.place)
        plaintext = self.opener.unseal(self, session_id, version, position)
        return whole(plaintext, self.outline, kind)


class Planted(Envelope):
    """Content in plaintext where the log is sealed: put there past this library."""

    def opened(self) -> bytes:
        """Raise TamperedPayloadError."""
        raise planted(self.place.position)


def planted(position: int) -> TamperedPayloadError:
    """Return the error for content in plaintext where the log is sealed."""
    return TamperedPayloadError(
        f"the content of the event at position {position} is not sealed, though the log is",
        position=position,
    )


def missing_keys() -> KeysMissingError:
    """Return the error for content of a sealed log that was opened without keys."""
    return KeysMissingError("the content is sealed: open the log with keys= or set EVENTLOG_KEYS")


def is_sealed(data: bytes | None) -> bool:
    """Whether a stored payload is an envelope, of whichever format."""
    return data is not None and 1 <= (data[:1] or b"{")[0] <= MAX_FORMAT


def key_id(envelope: bytes) -> bytes:
    """Return the id of an envelope's key."""
    return envelope[2:34]


def raw_outline(envelope: bytes) -> bytes:
    """Return the sealed outline, which refers to versions."""
    return envelope[START : START + int.from_bytes(envelope[70:74], "big")]


def check(envelope: bytes, place: Place) -> None:
    """
    Check without a key what an envelope says of itself.

    Raises UndecodableEventError for one of a newer release, TamperedPayloadError for one that was sealed
    for another place.
    """
    check_header(envelope, place.version, place.position)
    if place.context is not None and envelope[54:70] != place.context:
        raise tampered(place.position, "it was sealed for another session, type or branch")


def check_header(envelope: bytes, version: int, position: int) -> None:
    """Check an envelope's format, and the version that it was sealed for, as ``check`` does."""
    if len(envelope) < START:
        raise tampered(position, "it is too short")
    form, flags, _, _, sealed_for, _, length = HEADER.unpack_from(envelope)
    if form != FORMAT or flags:
        raise UndecodableEventError(
            f"the payload of the event at position {position} was sealed by a newer release: "
            f"format {form}, flags {flags}",
            position=position,
        )
    if sealed_for != version:
        raise tampered(position, f"it was sealed for version {sealed_for}, not {version}")
    if START + length > len(envelope):
        raise tampered(position, "it is too short")


def tampered(position: int, why: str) -> TamperedPayloadError:
    """Return the error for an envelope that is not what was sealed for its place."""
    return TamperedPayloadError(
        f"the payload of the event at position {position} was tampered with: {why}",
        position=position,
    )


# -- outlines ---------------------------------------------------------------------------------


class _Parts(msgspec.Struct):
    items: msgspec.Raw


_parts_decoder = msgspec.json.Decoder(_Parts)


def content(type_name: str, data: bytes) -> bytes:
    """Return what is sealed of an event's data: ``{"items":[...]}``, or all of ``metadata_set``."""
    if type_name == ITEMS_ADDED or type_name not in ITEM_TYPES:
        return data
    try:
        return b'{"items":' + bytes(_parts_decoder.decode(data).items) + b"}"
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return codec.encode_json({"items": json.loads(data)["items"]})


def outline(
    type_name: str, schema_version: int, data: bytes, *, token: Tokens, version_of: VersionOf
) -> bytes:
    """Return an event's data without its content, as an envelope holds it."""
    if type_name == METADATA_SET:
        return _labels(codec.decode(type_name, schema_version, data, position=0), token)
    items = item_kind.outline_json(0, type_name, schema_version, data)
    if type_name == ITEMS_ADDED:
        return items
    return merged(elsewhere(_others(data), version_of), items)


def refers(outline: bytes) -> bool:
    """Whether an outline may refer to an item of the session."""
    return any(name in outline for name in _REFERENCES)


def placed(sealed_outline: bytes, position_of: PositionOf) -> bytes:
    """Return an outline with the positions of the items that it refers to."""
    if not refers(sealed_outline):
        return sealed_outline
    try:
        fields = elsewhere(json.loads(sealed_outline), position_of)
        return codec.encode_json(fields)
    except (ValueError, TypeError, AttributeError, RecursionError):
        return sealed_outline  # it was tampered with: opening or verifying it shows that


def whole(plaintext: bytes, outline: bytes, type_name: str) -> bytes:
    """Return an event's data: what was sealed, with the other fields of its outline."""
    if type_name == ITEMS_ADDED or type_name not in ITEM_TYPES:
        return plaintext
    return merged(_others(outline), plaintext)


def elsewhere(fields: Mapping[str, Any], new: VersionOf | PositionOf) -> dict[str, JSON]:
    """Return the fields of an outline with other places in its references."""
    return {
        name: _moved(*value, new=new) if name in REFERENCES and value is not None else value
        for name, value in fields.items()
    }


def _moved(place: int, index: int, *session: str, new: VersionOf | PositionOf) -> JSON:
    found = new(place, *session)
    return [found[0], index, found[1]] if isinstance(found, tuple) else [found, index]


def merged(others: Mapping[str, JSON], items: bytes) -> bytes:
    """Return ``{"items":[...]}`` with other fields before it."""
    return codec.encode_json(dict(others))[:-1] + b"," + items[1:] if others else items


def _others(data: bytes) -> dict[str, JSON]:
    return {name: value for name, value in json.loads(data).items() if name != "items"}


_REFERENCES: Final = tuple(f'"{name}":['.encode() for name in REFERENCES)


# -- user ids and metadata ----------------------------------------------------------------------


def _labels(event: Event, token: Tokens) -> bytes:
    """Return the outline of a ``metadata_set``: tokens of its user id and of its metadata."""
    fields: dict[str, JSON] = {}
    user_id, metadata = getattr(event, "user_id", None), getattr(event, "metadata", None)
    if user_id is not None:
        fields["user_id"] = token(USER, user_id) if user_id else ""
    if metadata is not None:
        leaves = [token(LABEL, *leaf) for leaf in metadata_leaves.leaves(metadata)]
        is_deep = bool(metadata) and not leaves  # too deep for the index, but not empty
        fields["metadata"] = dict.fromkeys([*leaves, *([DEEP] if is_deep else [])])
    return codec.encode_json(fields)
