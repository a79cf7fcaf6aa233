"""
The user id and metadata of a session: how its row holds them, and how they are read.

A row holds the user id and the JSON of the metadata. Where these are sealed, ``user_id`` is a token, equal
for equal ids, and ``metadata`` is an array: the position of the event that set the user id, and that of the
event that set the metadata, or the metadata itself if it is not sealed; null for what is not set.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from typing import NamedTuple

from agents_eventlog.eventlog import codec, metadata_leaves, payloads, sealing
from agents_eventlog.eventlog.cipher.envelope import DEEP, Withheld
from agents_eventlog.eventlog.events import JSON, MetadataSet
from agents_eventlog.eventlog.item_kind import json_text
from agents_eventlog.eventlog.metadata_leaves import Leaf
from agents_eventlog.eventlog.recorded_event import RecordedEvent
from agents_eventlog.eventlog.storage.transaction import Transaction


def new_salt() -> str:
    """Return a random salt for an event that sets a user id or metadata."""
    return secrets.token_hex(16)


class Labels(NamedTuple):
    """
    The user id and the metadata of a session; None for each that is not set.

    withheld: why they cannot be read; the user id is then its token, or what replaced it.
    """

    user_id: str | None
    metadata: dict[str, JSON] | None
    withheld: Withheld | None = None


class _Stored(NamedTuple):
    """The positions of the events that set the user id and the metadata, or the metadata itself."""

    user_id: int | None
    metadata: int | dict[str, JSON] | None


def stored_after(
    user_id: str | None, metadata: str | None, recorded: RecordedEvent, event: MetadataSet
) -> tuple[str | None, str | None]:
    """Return what a session's row holds after an event, from what it held before."""
    before = _parsed(metadata)
    by, value = before
    if event.user_id is not None:
        user_id = event.user_id or None
        by = recorded.position if recorded.is_sealed and user_id else None
    if event.metadata is not None:
        value = event.metadata or None
        if recorded.is_sealed and value:
            value = recorded.position
    if before == (by, value) and event.metadata is None:
        return user_id, metadata
    if by is None and not isinstance(value, int):
        return user_id, json_text(value) if value else None
    return user_id, json_text([by, value])


def leaves(recorded: RecordedEvent, metadata: dict[str, JSON]) -> Iterator[Leaf]:
    """Return the leaves of an event's metadata, or the tokens of the leaves if it is sealed."""
    if recorded.is_sealed:
        return (Leaf(token, "") for token in metadata if token != DEEP)
    return metadata_leaves.leaves(metadata)


def read(tx: Transaction, session_id: str, user_id: str | None, metadata: str | None) -> Labels:
    """
    Return what a session's row says, opened.

    Raises KeyNotFoundError, TamperedPayloadError; without keys, or if the key was destroyed, the reason is
    in ``withheld``.
    """
    if metadata is None or not metadata.startswith("["):
        return Labels(user_id, None if metadata is None else codec.decode_metadata(metadata))
    by, value = _parsed(metadata)
    withheld: Withheld | None = None
    if by is not None:
        event = _event(tx, session_id, by)
        if isinstance(event, MetadataSet):
            user_id = event.user_id
        else:
            withheld = event
    if isinstance(value, int):
        event = _event(tx, session_id, value)
        if isinstance(event, MetadataSet):
            value = event.metadata
        else:
            value, withheld = None, event
    return Labels(user_id, value, withheld)


def require(tx: Transaction, session_id: str, user_id: str | None, metadata: str | None) -> Labels:
    """Do as ``read`` does, but raise KeysMissingError or ShreddedError for what cannot be read."""
    found = read(tx, session_id, user_id, metadata)
    if found.withheld is not None:
        for position in _positions(_parsed(metadata)):
            payloads.at(tx, position, session_id=session_id)
    return found


def is_of(tx: Transaction, stored_user_id: str | None, user_id: str) -> bool:
    """Whether a session's row is that of a user; "" is the one without a user."""
    if not user_id or stored_user_id is None:
        return not user_id and stored_user_id is None
    return stored_user_id in sealing.user_names(tx, user_id)


def _event(tx: Transaction, session_id: str, position: int) -> MetadataSet | Withheld:
    row = payloads.at(tx, position, session_id=session_id, is_opened=False)
    content = payloads.content(tx, None if row is None else row[-1])
    if row is None or isinstance(content, str):
        return "erased" if not isinstance(content, str) else content
    event = codec.decode(row[1], row[2], content, position=position)
    return event if isinstance(event, MetadataSet) else "erased"


def _parsed(metadata: str | None) -> _Stored:
    if metadata is None:
        return _Stored(None, None)
    decoded: JSON = codec.decode_metadata(metadata)
    return _Stored(*decoded) if isinstance(decoded, list) else _Stored(None, decoded)


def _positions(stored: _Stored) -> list[int]:
    return [position for position in stored if isinstance(position, int)]
