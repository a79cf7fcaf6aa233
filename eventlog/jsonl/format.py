"""
The JSON Lines format of exports and imports.

Each line is a JSON object with a ``kind``. The first line is

    {"kind": "log", "format": 1}

The sessions follow in the order of their first events. Each begins with

    {"kind": "session", "session_id": "s", "events": 2}

where ``events`` is the number of its events. They follow in order:

    {"kind": "event", "version": 1, "type": "items_added", "schema_version": 1, "branch_id": "main",
     "recorded_at": 1700000000000000, "metadata": {"actor": "a"}, "idempotency_key": null, "data": {...}}

``recorded_at`` is when the event was first recorded, in microseconds since 1970 UTC, and ``metadata`` is
its metadata then, even if it was imported since. ``data`` holds the fields of the classes in
``eventlog.events``, with one change: it refers to events of the session by version, not by position, in
``item_popped.item``, ``items_replaced.first_item``, ``turn_undone.removed``,
``item_redacted.item``, ``branch_created.last_item``, ``usage_corrected.requests``,
``content_erased.positions``, and ``first_item``, ``item`` and ``replaced_by`` in
``content_erased.structures``, and ``items_withheld.position``. Version 0 refers to no event of the session.
The event ``session_forked`` of a fork is written as ``items_added``, with the items that it refers to.
The items of a redacted event are written as its newest redaction left them.
An event whose content was erased has ``"data": null`` and, after it, ``data_digest`` in hex.

A sealed export holds the envelopes of a sealed log instead of its contents. Its first line is

    {"kind": "log", "format": 2, "log_id": "0123456789abcdef0123456789abcdef", "key_batch": 1}

with the name of the log where its keys are kept, and the last batch of keys that it uses. An event with
content has ``"data": null`` and, after it, ``sealed``: the envelope in base64, as the log stores it. The
items of redacted events are in their envelopes.

So no line depends on positions in the log: an export that is imported and exported again has the same
bytes. Control and bidirectional formatting characters are escaped, so lines are safe to print. Exports can
be concatenated.

An imported event says in its metadata when it happened (``occurred_at``) and, under ``imported``, when it
was recorded first. Values that already had these two names are kept under ``imported``.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Callable, Mapping
from itertools import chain
from typing import Any, Final, NamedTuple

import msgspec

from agents_eventlog.eventlog import codec, integrity
from agents_eventlog.eventlog.appender import StoredEvent, metadata_json
from agents_eventlog.eventlog.cipher import envelope
from agents_eventlog.eventlog.cipher.envelope import SEALED_TYPES, Envelope
from agents_eventlog.eventlog.errors import InvalidEventError, SourceError, UndecodableEventError
from agents_eventlog.eventlog.events import (
    EVENT_TYPES,
    JSON,
    BranchCreated,
    ContentErased,
    Event,
    ForkedItems,
    ItemPopped,
    ItemRedacted,
    ItemRef,
    ItemsReplaced,
    ItemsWithheld,
    SessionForked,
    TurnUndone,
    UsageCorrected,
    UsageCorrection,
)
from agents_eventlog.eventlog.recorded_event import EARLIEST, LATEST, RecordedEvent
from agents_eventlog.eventlog.sealing import SealedAs

FORMAT: Final = 1
SEALED_FORMAT: Final = 2
OCCURRED_AT: Final = "occurred_at"
IMPORTED: Final = "imported"
RECORDED_AT: Final = "recorded_at"

LOG_LINE: Final = f'{{"kind":"log","format":{FORMAT}}}'

_UNSAFE: Final = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")


_LOG_ID: Final = re.compile("[0-9a-f]{32}")


class LogLine(NamedTuple):
    """The first line of an export: what its log is called where it keeps keys; None if it is not sealed."""

    sealed_as: SealedAs | None


class Heading(NamedTuple):
    """The line that begins a session: its id and its number of events."""

    session_id: str
    events: int


class EventLine(NamedTuple):
    """
    A decoded event line. ``event`` is None if the content was erased.

    sealed: the envelope of the content; ``event`` is then its outline.
    """

    version: int
    type: str
    schema_version: int
    branch_id: str | None
    recorded_at: int
    metadata: dict[str, JSON]
    idempotency_key: str | None
    event: Event | None
    data_digest: bytes
    sealed: bytes | None = None

    @property
    def is_content(self) -> bool:
        """Whether the event has content, sealed or not."""
        return self.type in SEALED_TYPES and self.event is not None

    def stored(self, position_of: Callable[[int], int]) -> StoredEvent:
        """Return the event's columns; ``position_of`` maps a version to its position in the log."""
        data: bytes | None = None
        digest: bytes | None = self.data_digest
        if self.sealed is not None:
            data, digest = self.sealed, None
        elif self.event is not None:
            data = codec.encode(with_positions(self.event, position_of))
            digest = None
        kind = (self.type, self.schema_version, self.branch_id)
        return (*kind, data, digest, metadata_json(self._provenance()), self.idempotency_key)

    def fits(self, structure: JSON) -> bool:
        """Whether the event can be read with this for its data, once that was erased."""
        data = codec.encode_json(structure)
        try:
            codec.decode(self.type, self.schema_version, data, position=self.version)
        except UndecodableEventError:
            return False
        return True

    def _provenance(self) -> dict[str, JSON]:
        names = (OCCURRED_AT, IMPORTED)
        displaced: dict[str, JSON] = {
            name: self.metadata[name] for name in names if name in self.metadata
        }
        occurred_at = displaced.get(OCCURRED_AT)
        if type(occurred_at) is not int or not EARLIEST <= occurred_at <= LATEST:
            occurred_at = self.recorded_at
        imported = {RECORDED_AT: self.recorded_at, **displaced}
        return {**self.metadata, OCCURRED_AT: occurred_at, IMPORTED: imported}


# -- references -------------------------------------------------------------------------------


REFERRING: Final = frozenset(
    kind.type_name()
    for kind in (
        *(ItemPopped, ItemRedacted, ItemsReplaced, ItemsWithheld),
        *(SessionForked, TurnUndone),
        *(BranchCreated, ContentErased, UsageCorrected),
    )
)
"""The types of events that refer to others by position."""


def positions_in(event: Event | None) -> list[int]:
    """Return the positions that an event's data refers to."""
    match event:
        case ItemPopped(item=ref) | ItemRedacted(item=ref):
            return [ref.position]
        case ItemsWithheld(position=position):
            return [position]
        case SessionForked(origins=origins):
            return [position for origin in origins for position, *_ in origin.items]
        case ItemsReplaced(first_item=ItemRef() as ref) | BranchCreated(last_item=ItemRef() as ref):
            return [ref.position]
        case TurnUndone(removed=refs):
            return [ref.position for ref in refs]
        case ContentErased(positions=positions, structures=structures):
            return [*positions, *chain.from_iterable(map(_positions_in_structure, structures))]
        case UsageCorrected(requests=requests):
            return [correction.request.position for correction in requests]
    return []


def with_positions(event: Event, new: Callable[[int], int]) -> Event:
    """Return the event with other positions in its data."""
    match event:
        case ItemPopped(item=ref) | ItemRedacted(item=ref):
            return msgspec.structs.replace(event, item=ItemRef(new(ref.position), ref.index))
        case ItemsWithheld(position=position):
            return msgspec.structs.replace(event, position=new(position))
        case SessionForked(origins=origins):
            return msgspec.structs.replace(
                event, origins=[_forked_elsewhere(origin, new) for origin in origins]
            )
        case ItemsReplaced(first_item=ItemRef() as ref):
            return msgspec.structs.replace(event, first_item=ItemRef(new(ref.position), ref.index))
        case TurnUndone(removed=refs):
            return msgspec.structs.replace(
                event, removed=[ItemRef(new(ref.position), ref.index) for ref in refs]
            )
        case BranchCreated(last_item=ItemRef() as ref):
            return msgspec.structs.replace(event, last_item=ItemRef(new(ref.position), ref.index))
        case ContentErased(positions=positions, structures=structures):
            return msgspec.structs.replace(
                event,
                positions=[new(position) for position in positions],
                structures=[_structure_elsewhere(structure, new) for structure in structures],
            )
        case UsageCorrected(requests=requests):
            return msgspec.structs.replace(
                event, requests=[_corrected_elsewhere(correction, new) for correction in requests]
            )
    return event


def _corrected_elsewhere(correction: UsageCorrection, new: Callable[[int], int]) -> UsageCorrection:
    ref = correction.request
    return msgspec.structs.replace(correction, request=ItemRef(new(ref.position), ref.index))


def _forked_elsewhere(origin: ForkedItems, new: Callable[[int], int]) -> ForkedItems:
    items = [(new(position), index, kind) for position, index, kind in origin.items]
    return msgspec.structs.replace(origin, items=items)


def _positions_in_structure(structure: JSON) -> list[int]:
    """Return the positions that what was kept of an erased event refers to."""
    found: list[int] = []

    def note(position: int) -> int:
        found.append(position)
        return position

    _structure_elsewhere(structure, note)
    return found


def _structure_elsewhere(structure: JSON, new: Callable[[int], int]) -> JSON:
    """Return what was kept of an erased event with other positions."""
    if not isinstance(structure, dict):
        return structure
    moved: dict[str, JSON] = {}
    for name in ("first_item", "item"):
        match structure.get(name):
            case [int() as position, int() as index]:
                moved[name] = [new(position), index]
    if type(replaced_by := structure.get("replaced_by")) is int:
        moved["replaced_by"] = new(replaced_by)
    return {**structure, **moved}


# -- writing ----------------------------------------------------------------------------------


def log_line(sealed_as: SealedAs | None) -> str:
    """Return the first line of an export. sealed_as: for a sealed one, what its log is called."""
    if sealed_as is None:
        return LOG_LINE
    fields = {"log_id": sealed_as.log_id, "key_batch": int(sealed_as.key_batch)}
    return _line({"kind": "log", "format": SEALED_FORMAT, **fields})


def session_line(heading: Heading) -> str:
    """Return the line that begins a session."""
    return _line({"kind": "session", **heading._asdict()})


def event_line(
    recorded: RecordedEvent, version_of: Callable[[int], int], *, sealed: bool = False
) -> str:
    """
    Return an event's line. ``version_of`` gives a position's version in this session, else 0.

    sealed: write an envelope unopened.

    Raises UndecodableEventError for an event that cannot be read.
    """
    metadata, recorded_at = _first_recording(recorded)
    fields: dict[str, JSON] = {
        "kind": "event",
        "version": recorded.version,
        "type": recorded.type,
        "schema_version": recorded.schema_version,
        "branch_id": recorded.branch_id,
        RECORDED_AT: recorded_at,
        "metadata": metadata or None,
        "idempotency_key": recorded.idempotency_key,
    }
    if sealed and isinstance(recorded.data, Envelope):
        return _line({**fields, "data": None, "sealed": base64.b64encode(recorded.data).decode()})
    event = recorded.event
    if event is None:
        return _line({**fields, "data": None, "data_digest": recorded.data_digest.hex()})
    fields["schema_version"] = event.schema_version
    data = codec.encode(with_positions(event, version_of))  # as an import would store it
    return f'{_line(fields)[:-1]},"data":{_safe(data.decode())}}}'


def _line(fields: Mapping[str, JSON]) -> str:
    return _safe(codec.encode_json(dict(fields)).decode())


def _safe(text: str) -> str:
    """Escape, in JSON text, characters that control a terminal. JSON has them in strings only."""
    return _UNSAFE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def _first_recording(recorded: RecordedEvent) -> tuple[dict[str, JSON], int]:
    """Return an event's metadata and time before its first import."""
    imported = recorded.metadata.get(IMPORTED)
    if not isinstance(imported, dict) or type(imported.get(RECORDED_AT)) is not int:
        return recorded.metadata, recorded.recorded_at
    metadata = dict(recorded.metadata)
    for name in (OCCURRED_AT, IMPORTED):
        if name in imported:
            metadata[name] = imported[name]
        else:
            metadata.pop(name, None)
    return metadata, imported[RECORDED_AT]


# -- reading ----------------------------------------------------------------------------------


def parse(line: bytes) -> LogLine | Heading | EventLine:
    """
    Return a parsed line.

    Raises SourceError for a newer format, and InvalidEventError or UndecodableEventError for any other
    line. The errors contain no conversation text.
    """
    try:
        fields = json.loads(line)
    except (ValueError, RecursionError):
        raise InvalidEventError("it is not JSON") from None
    kind = fields.get("kind") if isinstance(fields, dict) else None
    if kind == "event":
        return _event(fields)
    if kind == "session":
        return Heading(_text(fields, "session_id"), _number(fields, "events"))
    if kind != "log":
        raise InvalidEventError('unknown kind: expected "log", "session" or "event"')
    if fields.get("format") == FORMAT:
        return LogLine(None)
    if fields.get("format") == SEALED_FORMAT:
        return LogLine(_sealed_as(fields))
    raise SourceError(
        f"format {fields.get('format')!r} is unknown: expected {FORMAT} or {SEALED_FORMAT}; "
        "upgrade agents-eventlog"
    )


def _sealed_as(fields: dict[str, Any]) -> SealedAs:
    log_id, batch = fields.get("log_id"), fields.get("key_batch")
    if not (isinstance(log_id, str) and _LOG_ID.fullmatch(log_id)):
        raise InvalidEventError("invalid log_id: expected 32 hexadecimal digits")
    if type(batch) is not int or not 0 <= batch <= LATEST:
        raise InvalidEventError("invalid key_batch: expected 0 or more")
    return SealedAs(log_id, str(batch))


def _event(fields: dict[str, Any]) -> EventLine:
    version, schema_version = _number(fields, "version"), _number(fields, "schema_version")
    name = _text(fields, "type")
    metadata = fields.get("metadata")
    if metadata is not None and not isinstance(metadata, dict):
        raise InvalidEventError("invalid metadata: expected an object")
    event: Event | None = None
    digest, sealed = b"", None
    if fields.get("sealed") is not None:
        sealed = _envelope(fields, name, version)
        outline = envelope.raw_outline(sealed)
        event = codec.decode(name, schema_version, outline, position=version)
    elif fields.get("data") is not None:
        data = codec.encode_json(fields["data"])
        event = codec.decode(name, schema_version, data, position=version)
        schema_version = event.schema_version
    elif name not in EVENT_TYPES:
        raise InvalidEventError("its type is unknown")
    else:
        codec.check_known(name, schema_version, position=version)
        digest = _digest(fields)
    return EventLine(
        version,
        name,
        schema_version,
        _text_or_none(fields, "branch_id"),
        _number(fields, RECORDED_AT),
        metadata or {},
        _text_or_none(fields, "idempotency_key"),
        event,
        digest,
        sealed,
    )


def _envelope(fields: dict[str, Any], name: str, version: int) -> bytes:
    try:
        sealed = base64.b64decode(_text(fields, "sealed"), validate=True)
    except binascii.Error:
        sealed = b""
    if name not in SEALED_TYPES or fields.get("data") is not None or not envelope.is_sealed(sealed):
        raise InvalidEventError("invalid sealed: expected an envelope in base64, and no data")
    envelope.check_header(sealed, version, version)
    return sealed


def _digest(fields: dict[str, Any]) -> bytes:
    try:
        digest = bytes.fromhex(_text(fields, "data_digest"))
    except ValueError:
        digest = b""
    if len(digest) != len(integrity.FIRST):
        raise InvalidEventError("invalid data_digest: expected a SHA-256 hash in hex")
    return digest


def _number(fields: dict[str, Any], name: str) -> int:
    value = fields.get(name)
    if type(value) is not int or not EARLIEST <= value <= LATEST:
        raise InvalidEventError(f"invalid {name}: expected an integer in range")
    return value


def _text(fields: dict[str, Any], name: str) -> str:
    value = fields.get(name)
    codec.check_text(name, value)
    return str(value)


def _text_or_none(fields: dict[str, Any], name: str) -> str | None:
    return None if fields.get(name) is None else _text(fields, name)
