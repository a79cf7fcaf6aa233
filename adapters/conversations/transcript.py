"""The transcript of a branch: each item with the event that added it. Does not depend on an SDK."""

from __future__ import annotations

from typing import TypedDict

from agents_eventlog.adapters.conversations import commands, timestamps
from agents_eventlog.adapters.conversations.commands import SessionContext
from agents_eventlog.eventlog import codec
from agents_eventlog.eventlog.cipher.envelope import Withheld
from agents_eventlog.eventlog.events import JSON
from agents_eventlog.eventlog.storage.transaction import Transaction
from agents_eventlog.projections.conversations import queries as conversation_queries
from agents_eventlog.projections.conversations.queries import Entry


class TranscriptRow(TypedDict):
    """
    An item of a branch.

    position, index: the identity of the item, which never changes. version: of the session, after the event
    that added it. time: when that happened, ISO 8601 in UTC. branch_id: the branch that it was added to.
    actor: who added it, if that was recorded. item: None if its content cannot be read, and a placeholder
    if it was redacted. withheld: why it cannot be read: "erased", "sealed" (no keys were given), or
    "shredded" (its key was destroyed).
    """

    turn: int
    position: int
    index: int
    version: int
    time: str
    branch_id: str
    actor: str | None
    item: JSON
    is_erased: bool
    withheld: Withheld | None
    is_redacted: bool


def transcript(
    tx: Transaction,
    context: SessionContext,
    branch_id: str | None,
    first_turn: int | None,
    last_turn: int | None,
) -> list[TranscriptRow]:
    """Return the items of a branch in order: all, or those of a range of turns."""
    pointer = commands.look_at(tx, context, branch_id).pointer
    entries = conversation_queries.entries(
        tx, pointer, first_turn, last_turn, session_id=context.session_id
    )
    return [row_of(entry) for entry in entries]


def row_of(entry: Entry) -> TranscriptRow:
    """Return an item of a branch for programs."""
    return TranscriptRow(
        turn=entry.turn,
        position=entry.ref.position,
        index=entry.ref.index,
        version=entry.version,
        time=timestamps.iso(entry.occurred_at),
        branch_id=entry.branch_id,
        actor=_actor(entry.metadata_json, entry.ref.position),
        item=entry.content,
        is_erased=entry.is_erased,
        withheld=entry.withheld,
        is_redacted=entry.is_redacted,
    )


def _actor(metadata_json: str | None, position: int) -> str | None:
    if metadata_json is None:
        return None
    actor = codec.decode_recording(metadata_json, position=position).get("actor")
    return actor if isinstance(actor, str) else None
