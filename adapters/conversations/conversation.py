"""A conversation as the model saw it, now or at a point of its past: what ``eventlog show`` prints."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from itertools import groupby
from typing import Any, NamedTuple

from agents_eventlog.adapters.conversations import outline, summary, timestamps
from agents_eventlog.adapters.conversations.outline import OutlineTurn
from agents_eventlog.eventlog.appender import session_version
from agents_eventlog.eventlog.cipher.envelope import Withheld
from agents_eventlog.eventlog.errors import BranchNotFoundError, StaleProjectionError
from agents_eventlog.eventlog.events import JSON, ItemRef
from agents_eventlog.eventlog.storage.transaction import Transaction
from agents_eventlog.projections import Projections
from agents_eventlog.projections.conversations import as_of as past
from agents_eventlog.projections.conversations import builder as conversations
from agents_eventlog.projections.conversations import queries as conversation_queries
from agents_eventlog.projections.conversations.as_of import AsOf
from agents_eventlog.projections.conversations.builder import MAIN


class Unreadable(NamedTuple):
    """Replaces an item whose content cannot be read."""

    why: Withheld


class Entry(NamedTuple):
    """An item of a branch: its number, turn, reference and content."""

    number: int
    turn: int
    ref: ItemRef
    type: str
    tool_name: str | None
    occurred_at: int
    item: JSON

    def document(self, kind: str) -> dict[str, JSON]:
        """Return the entry for programs."""
        return {
            "kind": kind,
            "number": self.number,
            "turn": self.turn,
            "position": self.ref.position,
            "index": self.ref.index,
            "type": self.type,
            "occurred_at": timestamps.iso(self.occurred_at),
            "item": None if isinstance(self.item, Unreadable) else self.item,
            "is_erased": self.item == Unreadable("erased"),
            "withheld": self.item.why if isinstance(self.item, Unreadable) else None,
        }


class Conversation(NamedTuple):
    """A branch at a version of its session."""

    session_id: str
    branch_id: str
    version: int
    is_deleted: bool
    is_erased: bool
    entries: list[Entry]

    def document(self) -> dict[str, JSON]:
        """Return the header for programs."""
        return {
            "kind": "conversation",
            "session_id": self.session_id,
            "branch_id": self.branch_id,
            "version": self.version,
            "is_deleted": self.is_deleted,
            "is_erased": self.is_erased,
            "items": len(self.entries),
            "turns": self.entries[-1].turn if self.entries else 0,
        }


def conversation(
    tx: Transaction,
    session_id: str,
    branch_id: str | None,
    as_of: AsOf | None,
    *,
    may_lack: bool = False,
) -> Conversation:
    """
    Return a branch at a point of the past, by default the session's current branch.

    Raises:
        VersionNotFoundError: The session never had this version.
        BranchNotFoundError: The branch does not exist, and ``may_lack`` is false.
    """
    now = session_version(tx, session_id)
    version = past.version_at(tx, session_id, now if as_of is None else as_of)
    is_live = version == now and _is_fresh(tx)
    with nullcontext(tx) if is_live else past.session_as_of(tx, session_id, version) as then:
        session = conversation_queries.place(then, session_id, MAIN)
        name = session.last_branch_id if branch_id is None else branch_id
        place = conversation_queries.place(then, session_id, name)
        is_missing = not place.branch_exists and name != MAIN and not place.is_deleted
        if is_missing and not may_lack:
            raise BranchNotFoundError(name)
        refs = conversation_queries.refs(then, place.pointer)
        times = conversation_queries.times(then, session_id)
        rows = zip(
            refs,
            conversation_queries.structure(then, place.pointer),
            conversation_queries.items(
                then, place.pointer, session_id=session_id, instead=Unreadable
            ),
            strict=True,
        )
        entries = [
            Entry(number, turn, ref, kind, tool, times[ref.position], item)
            for number, (ref, (turn, kind, tool), item) in enumerate(rows, 1)
        ]
        row = conversations.session(then, session_id)
        is_erased = row is not None and row.erased_at is not None
    return Conversation(session_id, name, version, session.is_deleted, is_erased, entries)


def _is_fresh(tx: Transaction) -> bool:
    """Return whether the tables are up to date with the log."""
    try:
        Projections(conversations.Conversations()).require_fresh(tx)
    except StaleProjectionError:
        return False
    return True


def documents(
    shown: Conversation,
    before: Conversation | None = None,
    turns: Sequence[OutlineTurn] | None = None,
) -> Iterator[dict[str, JSON]]:
    """
    Yield the documents of ``eventlog show``.

    before: the conversation to compare with. turns: the outline to print instead of the items.
    """
    yield {**shown.document(), "beside_version": None if before is None else before.version}
    if before is not None:
        for kind, entry in changes(shown, before):
            yield entry.document(kind)
    elif turns is not None:
        for turn in turns:
            yield outline.document(shown.branch_id, turn)
    else:
        for entry in shown.entries:
            yield entry.document("item")


def turns_of(tx: Transaction, shown: Conversation) -> list[OutlineTurn]:
    """Return the outline of a conversation; a deleted session has none."""
    if shown.is_deleted:
        return []
    return outline.rows_at(tx, shown.session_id, shown.branch_id, shown.version)


def changes(shown: Conversation, before: Conversation) -> list[tuple[str, Entry]]:
    """Return the items that are only in one of two conversations, each with "removed" or "added"."""
    now = {entry.ref for entry in shown.entries}
    then = {entry.ref for entry in before.entries}
    return [
        *(("removed", entry) for entry in before.entries if entry.ref not in now),
        *(("added", entry) for entry in shown.entries if entry.ref not in then),
    ]


class Turn(NamedTuple):
    """A turn of a conversation: its number and its items."""

    number: int
    entries: list[Entry]


def by_turn(entries: Iterable[Entry]) -> list[Turn]:
    """Return the turns of a conversation."""
    return [Turn(turn, list(group)) for turn, group in groupby(entries, key=lambda each: each.turn)]


def said(item: JSON) -> tuple[str, str]:
    """Return the speaker or action of an item, and its text."""
    if not isinstance(item, Mapping):
        return "?", summary.json_or_text(item)
    kind = item.get("type")
    if kind == "function_call":
        return "calls", summary.call(item)
    if kind == "function_call_output":
        return "gets", summary.output(item)
    role: Any = item.get("role")
    text = summary.content(item)
    if isinstance(role, str) and text:
        return role, text
    return str(role or kind or "?"), summary.json_or_text(dict(item))
