"""
The shapes of erased payloads: their items without content, looked up when erased events are read.

A ``content_erased`` event carries, for each payload that it blanked, that payload without its content. It
comes later in the same session than the events it refers to.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from agents_eventlog.eventlog import codec, payloads
from agents_eventlog.eventlog.events import ContentErased
from agents_eventlog.eventlog.recorded_event import RecordedEvent
from agents_eventlog.eventlog.storage.transaction import Transaction

MAX_REMEMBERED: Final = 100_000
"""Bounds how many sessions and structures are remembered beside those of the present session."""

ERASURES: Final = """
    WHERE session_id = ? AND version > ? AND type = 'content_erased'
    ORDER BY version
"""
LAST_VERSION: Final = "SELECT MAX(version) FROM events WHERE session_id = ?"


@dataclass
class _Known:
    """What is known of a session: the structures from its erasures up to a version."""

    version: int = 0
    by_position: dict[int, bytes] = field(default_factory=dict)

    def learn(self, erasure: RecordedEvent) -> None:
        """Take an erasure; one of an older schema version kept no structures."""
        event = erasure.event
        if isinstance(event, ContentErased):
            for position, structure in zip(event.positions, event.structures, strict=False):
                self.by_position.setdefault(position, codec.encode_json(structure))


class ErasedShapes:
    """
    Finds the structures of erased events, and remembers them from page to page.

    A session is looked through once, and later only for erasures that were added.
    """

    def __init__(self) -> None:
        self._sessions: dict[str, _Known] = {}
        self._remembered = 0

    def fill(self, tx: Transaction, events: Iterable[RecordedEvent]) -> None:
        """Give each erased event its structure; one whose erasure kept none stays without."""
        for recorded in events:
            if recorded.data is None:
                recorded.structure = self._find(tx, recorded.session_id, recorded.position)

    def _find(self, tx: Transaction, session_id: str, position: int) -> bytes | None:
        known = self._sessions.get(session_id)
        if known is None:
            if self._remembered > MAX_REMEMBERED:
                self._sessions.clear()
                self._remembered = 0
            known = self._sessions[session_id] = _Known()
        if position not in known.by_position:
            self._look_further(tx, session_id, known)
        return known.by_position.get(position)

    def _look_further(self, tx: Transaction, session_id: str, known: _Known) -> None:
        before = len(known.by_position)
        for row in payloads.event_rows(tx, ERASURES, (session_id, known.version)):
            known.learn(RecordedEvent(row))
        last = tx.one(LAST_VERSION, (session_id,))
        known.version = 0 if last is None or last[0] is None else last[0]
        self._remembered += 1 + len(known.by_position) - before
