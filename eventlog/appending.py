"""Checks of an append: its names, the expected version, and the idempotency key."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import repeat
from typing import Any, Final, Literal, NamedTuple, TypeAlias

from agents_eventlog.eventlog import codec, integrity, payloads, sealing
from agents_eventlog.eventlog.cipher.envelope import Envelope
from agents_eventlog.eventlog.errors import (
    IdempotencyConflictError,
    InvalidEventError,
    WrongExpectedVersionError,
)
from agents_eventlog.eventlog.events import EVENT_TYPES, Event
from agents_eventlog.eventlog.recorded_event import RecordedEvent
from agents_eventlog.eventlog.storage.transaction import Transaction

FIRST_WITH_KEY: Final = """
    SELECT version, metadata, position FROM events WHERE session_id = ? AND idempotency_key = ?
"""
APPENDED: Final = "WHERE session_id = ? AND version >= ? ORDER BY version LIMIT ?"

ExpectedVersion: TypeAlias = int | Literal["any", "new", "exists"]


class AppendResult(NamedTuple):
    """The result of an append: the new version, the last event's position, the number of events."""

    version: int
    position: int
    events: int


def encode_checked(event: Any) -> bytes:
    """Return an event's data. Raises InvalidEventError unless it is an instance of an event class."""
    if type(event) not in EVENT_TYPES.values():
        raise InvalidEventError(
            f"invalid event: expected one of eventlog's event classes, got {type(event).__name__}"
        )
    return codec.encode(event)


def check_names(**names: str | None) -> None:
    """Raise InvalidEventError for a name that is not a string. Only ``session_id`` is required."""
    for what, name in names.items():
        if name is not None or what == "session_id":
            codec.check_text(what, name)


def check_expected(session_id: str, expected: ExpectedVersion, actual: int) -> None:
    """Raise WrongExpectedVersionError unless the session has the expected version."""
    if type(expected) is not int and expected not in ("any", "new", "exists"):
        raise InvalidEventError(
            f"invalid expected_version: expected an int, 'any', 'new' or 'exists', got {expected!r}"
        )
    if expected in ("any", actual) or expected == ("exists" if actual else "new"):
        return
    raise WrongExpectedVersionError(session_id=session_id, expected=expected, actual=actual)


def first_result(
    tx: Transaction,
    session_id: str,
    key: str,
    events: Sequence[tuple[Event, bytes]],
    branch_id: str | None,
) -> AppendResult | None:
    """Return the result of the first append with this key; None if the key is new."""
    first = tx.one(FIRST_WITH_KEY, (session_id, sealing.idempotency_key(tx, session_id, key)))
    if first is None:
        return None
    version, metadata, position = first
    count = codec.decode_recording(metadata or "", position=position).get("events_in_append")
    found = payloads.event_rows(tx, APPENDED, (session_id, version, len(events)))
    before = [RecordedEvent(row) for row in found]
    if count != len(events) or not all(map(_is_same, before, events, repeat(branch_id))):
        raise IdempotencyConflictError(session_id=session_id, idempotency_key=key)
    return AppendResult(version + count - 1, before[-1].position, count)


def _is_same(before: RecordedEvent, now: tuple[Event, bytes], branch_id: str | None) -> bool:
    """Whether a recorded event is the one that is to be appended. Raises ShreddedError."""
    event, data = now
    if (before.type, before.branch_id) != (event.type_name(), branch_id):
        return False
    if isinstance(before.data, Envelope):  # sealed twice, the same data has two digests
        opened = before.event
        return opened is not None and codec.encode(opened) == data
    return before.data_digest == integrity.data_digest(data)
