"""
Erasure: blank payloads for good, so that nothing of them is left in the file.

A ``content_erased`` event in the same transaction records which payloads were blanked. The events
keep their positions and digests, so the chain still verifies. SQLite leaves copies of old rows in unused
parts of its pages and in the write-ahead log, so the file is rewritten at the end. The log remembers that
a rewrite is due until one has finished, even if a process is killed in between.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from agents_eventlog.eventlog import leases, properties
from agents_eventlog.eventlog import payloads as stored_payloads
from agents_eventlog.eventlog.appender import append
from agents_eventlog.eventlog.cipher import shredding
from agents_eventlog.eventlog.cipher.keys import Shredding
from agents_eventlog.eventlog.errors import BusyError
from agents_eventlog.eventlog.events import JSON, ContentErased
from agents_eventlog.eventlog.recorded_event import RecordedEvent
from agents_eventlog.eventlog.storage.engine import Store
from agents_eventlog.eventlog.storage.transaction import Transaction, Unit

REWRITE_DUE: Final = "rewrite_due"
"""The property of a log in which something was blanked since its file was rewritten."""


class Payload(NamedTuple):
    """A payload that is to go: its event, what is kept of it, and its size in bytes."""

    position: int
    structure: JSON
    bytes: int


def blank(
    tx: Transaction,
    session_id: str,
    payloads: Sequence[Payload],
    *,
    reason: str | None,
    is_whole: bool,
    pseudonym: str | None = None,
    key_ids: Sequence[str] = (),
    expired_version: int | None = None,
) -> None:
    """
    Blank payloads of a session, in a unit of work, and record that.

    is_whole: nothing else of the session shall stay either, and it cannot be restored.
    pseudonym: replaces the user id of a whole session.
    key_ids: in hex, the keys that are to be destroyed afterwards, by ``shredding.finish``.
    expired_version: the version with which the session expired, if nothing from before it is left.
    """
    erased = ContentErased(
        positions=[payload.position for payload in payloads],
        reason=reason,
        structures=[payload.structure for payload in payloads],
        payload_bytes=sum(payload.bytes for payload in payloads),
        is_whole=is_whole,
        pseudonym=pseudonym,
        key_ids=list(key_ids),
        expired_version=expired_version,
    )
    recorded = append(tx, session_id, erased)
    stored_payloads.blank(tx, (payload.position for payload in payloads))
    if is_whole:
        leases.delete(tx, session_id)
    if key_ids:
        shredding.note_due(tx, session_id, recorded.position, key_ids)
        record_shredding(tx, recorded)
    if payloads:
        properties.set_property(tx, REWRITE_DUE, "1")


def record_shredding(tx: Transaction, erasure: RecordedEvent) -> None:
    """Record the keys that an erasure destroys though their contents stay in the log, in a unit of work."""
    event, actor = erasure.event, erasure.metadata.get("actor")
    if isinstance(event, ContentErased) and not event.positions:
        who = actor if isinstance(actor, str) else None
        for key_id in event.key_ids:
            shredding.record(tx, key_id, Shredding(erasure.recorded_at, who, event.reason))


def blank_copies(tx: Transaction, positions: Iterable[int]) -> None:
    """Blank, in a unit of work, copies of payloads that were blanked in the log that they came from."""
    left = [position for position in positions if not stored_payloads.is_blanked(tx, position)]
    if left:
        stored_payloads.blank(tx, left)
        properties.set_property(tx, REWRITE_DUE, "1")


def is_rewrite_due(tx: Transaction) -> bool:
    """Whether something was blanked since the file was rewritten."""
    return properties.get_property(tx, REWRITE_DUE) is not None


def rewrite(store: Store, *, before: Unit[None]) -> bool:
    """
    Rewrite a log's file without what was blanked, if that is due, and empty its write-ahead log. Blocks.

    before: what tidies up before the file is rewritten.

    Returns False when another process was in the way; it is then still due.
    """
    if not store.read_sync(is_rewrite_due):
        return True
    try:
        store.write_sync(before)
        is_done = store.rewrite()
    except BusyError:
        return False
    if is_done:
        store.write_sync(lambda tx: properties.delete_property(tx, REWRITE_DUE))
    return is_done
