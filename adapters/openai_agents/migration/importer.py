"""
Conversion of the SDK's histories to events.

``migrate`` imports the items, branches, turns, usage and times that the SDK's ``SQLiteSession`` or
``AdvancedSQLiteSession`` stored in a file. It does not change the SDK's tables.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import groupby
from typing import Any, NamedTuple

from agents_eventlog.adapters.conversations import summary
from agents_eventlog.adapters.conversations.commands import in_parts
from agents_eventlog.adapters.conversations.sdk_tables import (
    MIGRATED,
    MIGRATED_TO,
    RESERVATIONS,
    STRUCTURE,
    USAGE,
    decoded_item,
    quoted,
)
from agents_eventlog.adapters.openai_agents.migration.encrypted import (
    EncryptedItems,
    is_encrypted,
)
from agents_eventlog.eventlog import _logging, codec, item_kind
from agents_eventlog.eventlog.appender import append_all
from agents_eventlog.eventlog.events import (
    JSON,
    BranchCreated,
    BranchDeleted,
    BranchSwitched,
    Event,
    HistoryImported,
    ItemRef,
    ItemsAdded,
    RequestUsage,
    UsageRecorded,
)
from agents_eventlog.eventlog.properties import set_property
from agents_eventlog.eventlog.reader import microseconds
from agents_eventlog.eventlog.storage.transaction import Transaction
from agents_eventlog.projections.conversations.builder import MAIN

SOURCE = "openai-agents"
log = _logging.get_logger("eventlog.importers")


class _Message(NamedTuple):
    message_id: int
    item: JSON
    occurred_at: int


@dataclass
class _Branch:
    """A branch of the SDK's: the messages that it shows, and the turn of each."""

    message_ids: list[int] = field(default_factory=list)
    sdk_turns: list[int] = field(default_factory=list)
    created_at: int | None = None
    refs: list[ItemRef] = field(default_factory=list)
    turns: dict[int, int] = field(default_factory=dict)
    """The log's number of each of the SDK's turns; they differ if hidden messages started turns."""


def migrate(tx: Transaction, sessions_table: str, messages_table: str) -> list[MigratedSession]:
    """
    Append the histories of all the SDK's sessions in this file, in the current transaction.

    Returns the import counts of each session; the caller logs them after the commit.
    """
    source = Source(tx, sessions_table, messages_table)
    brought = [
        SessionImport(session_id, source).run(tx, session_id, created_at)
        for session_id, created_at in source.sessions()
    ]
    set_property(tx, MIGRATED, str(source.last_message_id()))
    set_property(tx, MIGRATED_TO, str(tx.lane.position))
    return brought


class _Messages(NamedTuple):
    """The readable messages of a session by id, and the numbers of the others."""

    found: dict[int, _Message]
    unreadable: int
    unopened: int
    in_plaintext: int
    expired: int = 0


class Source:
    """
    The SDK's tables in one file.

    encrypted: opens the messages, if ``EncryptedSession`` stored them.
    """

    def __init__(
        self,
        tx: Transaction,
        sessions_table: str,
        messages_table: str,
        encrypted: EncryptedItems | None = None,
    ) -> None:
        self.tx = tx
        self.encrypted = encrypted
        self.sessions_table = quoted(sessions_table)
        self.messages_table = quoted(messages_table)
        self.tables = tx.engine.table_names(tx)

    def sessions(self) -> list[tuple[str, int]]:
        """Return the id and the start of each session, oldest first, including cleared sessions."""
        reserved = (
            f"UNION ALL SELECT session_id, NULL FROM {RESERVATIONS} WHERE branch_id != '{MAIN}'"
            if RESERVATIONS in self.tables
            else ""
        )
        rows = self.tx.all(
            f"SELECT session_id, MIN(created_at) FROM ("
            f" SELECT session_id, created_at FROM {self.sessions_table}"
            f" UNION ALL SELECT session_id, created_at FROM {self.messages_table} {reserved}"
            ") GROUP BY session_id ORDER BY 2, 1"
        )
        return [(session_id, self.time(created_at)) for session_id, created_at in rows]

    def last_message_id(self) -> int:
        """Return the newest message's id; 0 without messages."""
        row = self.tx.one(f"SELECT MAX(id) FROM {self.messages_table}")
        return 0 if row is None or row[0] is None else int(row[0])

    def messages(self, session_id: str) -> _Messages:
        """Return a session's messages."""
        found: dict[int, _Message] = {}
        unreadable = unopened = in_plaintext = 0
        rows = self.tx.execute(
            f"SELECT id, CAST(message_data AS BLOB), created_at FROM {self.messages_table} "
            "WHERE session_id = ? ORDER BY id",
            (session_id,),
        )
        for message_id, data, created_at in rows:
            item, occurred_at = decoded_item(data), self.time(created_at)
            if item is not None and self.encrypted is not None:
                if not is_encrypted(item[0]):
                    in_plaintext += 1
                    continue
                opened = self.encrypted.opened(session_id, item[0])
                if opened is None:
                    unopened += 1
                    continue
                item, occurred_at = decoded_item(opened.data), opened.occurred_at
            if item is None:
                unreadable += 1
                continue
            found[message_id] = _Message(message_id, item[0], occurred_at)
        kept = self._unexpired(found)
        expired = len(found) - len(kept)
        return _Messages(kept, unreadable, unopened, in_plaintext, expired)

    def _unexpired(self, messages: dict[int, _Message]) -> dict[int, _Message]:
        """Return the messages of turns that have one which is not older than the time to live."""
        if self.encrypted is None or self.encrypted.ttl is None:
            return messages
        since = self.tx.now - self.encrypted.ttl // timedelta(microseconds=1)
        turns: list[list[_Message]] = [[]]
        for message in messages.values():
            if item_kind.classify(message.item).type == item_kind.USER:
                turns.append([])
            turns[-1].append(message)
        recent = (turn for turn in turns if any(each.occurred_at >= since for each in turn))
        return {each.message_id: each for turn in recent for each in turn}

    def branches(self, session_id: str) -> dict[str, _Branch]:
        """Return a session's branches according to the SDK's structure, main first."""
        branches = {MAIN: _Branch()}
        if STRUCTURE in self.tables:
            rows = self.tx.execute(
                "SELECT branch_id, message_id, COALESCE(branch_turn_number, user_turn_number, 0), "
                "created_at FROM message_structure WHERE session_id = ? ORDER BY sequence_number",
                (session_id,),
            )
            for branch_id, message_id, turn, created_at in rows:
                if type(branch_id) is not str or type(message_id) is not int:
                    continue  # damaged; the message itself is shown on main
                branch = branches.setdefault(branch_id, _Branch())
                branch.message_ids.append(message_id)
                branch.sdk_turns.append(turn)
                branch.created_at = branch.created_at or self.time(created_at)
        return branches

    def usage(self, session_id: str) -> list[tuple[Any, ...]]:
        """Return the rows of a session's usage, oldest first."""
        if USAGE not in self.tables:
            return []
        return self.tx.all(
            "SELECT id, branch_id, user_turn_number, requests, input_tokens, output_tokens, "
            "total_tokens, input_tokens_details, output_tokens_details, created_at "
            "FROM turn_usage WHERE session_id = ? ORDER BY id",
            (session_id,),
        )

    def reserved_ids(self, session_id: str) -> list[str]:
        """Return all branch ids that the session has ever used."""
        if RESERVATIONS not in self.tables:
            return []
        rows = self.tx.all(
            "SELECT branch_id FROM branch_reservations WHERE session_id = ? ORDER BY rowid",
            (session_id,),
        )
        return [branch_id for (branch_id,) in rows if type(branch_id) is str]

    def time(self, text: Any) -> int:
        """Convert one of the SDK's times, which are UTC; an invalid time becomes the current time."""
        try:
            return microseconds(datetime.fromisoformat(text).replace(tzinfo=UTC))
        except (TypeError, ValueError):
            return self.tx.now


class MigratedSession(NamedTuple):
    """The numbers of imported objects of a session, and of those that were left out."""

    session_id: str
    items: int
    branches: int
    usage: int
    unreadable: int
    """Messages that cannot be read."""
    unreadable_usage: int
    """Usage rows with impossible counts."""
    unopened: int | None = None
    """Messages of ``EncryptedSession`` that the key does not open; None without a key."""
    in_plaintext: int | None = None
    """Messages beside them that are not encrypted: another program may have added them."""
    expired: int | None = None
    """Messages of turns that are older than the time to live; None without one."""

    @property
    def counts(self) -> dict[str, int]:
        """All numbers, by name."""
        counts = {**self._asdict()}
        del counts["session_id"]
        return {name: number for name, number in counts.items() if number is not None}

    @property
    def left_out(self) -> str | None:
        """A description of the objects that were left out; None if all were imported."""
        found = ((self.unreadable, "message"), (self.unreadable_usage, "usage row"))
        told = [summary.counted(number, what) for number, what in found if number]
        damaged = f"left out, because damaged: {', '.join(told)}" if told else None
        unopened = _left_out(self.unopened, "because the key does not open them")
        in_plaintext = _left_out(self.in_plaintext, "because not encrypted")
        return "; ".join(filter(None, (damaged, unopened, in_plaintext))) or None

    def log(self) -> None:
        """Log the import; call it after the commit."""
        log_line = log.info if self.left_out is None else log.warning
        log_line("history.imported", session_id=self.session_id, **self.counts)


def _left_out(messages: int | None, why: str) -> str | None:
    return f"left out, {why}: {summary.counted(messages, 'message')}" if messages else None


class SessionImport:
    """The import of one session, which is first read from the source as a whole, then written."""

    tx: Transaction
    into: str

    def __init__(self, session_id: str, source: Source) -> None:
        self.session_id = session_id
        self.source = source
        self._read = source.messages(session_id)
        self.messages = self._read.found
        self.branches = source.branches(session_id)
        usage = source.usage(session_id)
        self.usage = [row for row in usage if _is_countable(row)]
        self._unreadable_usage = len(usage) - len(self.usage)
        self.reserved_ids = source.reserved_ids(session_id)
        self._show_hidden()

    def _show_hidden(self) -> None:
        """Add messages without structure, which the SDK's class hides, to main in their order."""
        shown = {mid for branch in self.branches.values() for mid in branch.message_ids}
        hidden = self.messages.keys() - shown
        main = self.branches[MAIN]
        turns = dict(zip(main.message_ids, main.sdk_turns, strict=True))
        if hidden:
            main.message_ids = sorted({*main.message_ids, *hidden})
        for branch in self.branches.values():
            kept = [mid for mid in branch.message_ids if mid in self.messages]
            known = dict(zip(branch.message_ids, branch.sdk_turns, strict=False))
            branch.sdk_turns = [(turns if branch is main else known).get(mid, -1) for mid in kept]
            branch.message_ids = kept
            self._number_turns(branch)

    def _number_turns(self, branch: _Branch) -> None:
        turn = 0
        for message_id, sdk_turn in zip(branch.message_ids, branch.sdk_turns, strict=True):
            turn += item_kind.classify(self.messages[message_id].item).type == item_kind.USER
            branch.turns.setdefault(sdk_turn, turn)

    @property
    def needs_another_key(self) -> bool:
        """Whether the key opens none of the encrypted messages."""
        return self._read.unopened > 0 and not (self.messages or self._read.expired)

    def run(self, tx: Transaction, into: str, created_at: int) -> MigratedSession:
        """Append the session's history under this id; return its import counts."""
        self.tx, self.into = tx, into
        for branch in self.branches.values():
            branch.refs = []  # a unit of work may run twice
        encrypted = self.source.encrypted
        brought = MigratedSession(
            into,
            items=len(self.messages),
            branches=len(self.branches),
            usage=len(self.usage),
            unreadable=self._read.unreadable,
            unreadable_usage=self._unreadable_usage,
            unopened=None if encrypted is None else self._read.unopened,
            in_plaintext=None if encrypted is None else self._read.in_plaintext,
            expired=None if encrypted is None or encrypted.ttl is None else self._read.expired,
        )
        self._append(HistoryImported(source=SOURCE, counts=brought.counts), None, created_at)
        with _unattributed(tx):
            self._append_all(created_at)
        return brought

    def _append_all(self, created_at: int) -> None:
        done: dict[str, _Branch] = {}
        for branch_id, branch in self.branches.items():
            kept = 0 if branch_id == MAIN else self._branch_off(branch_id, branch, done)
            self._add(branch_id, branch, kept)
            done[branch_id] = branch
        gone = [bid for bid in self.reserved_ids if bid not in done]
        for branch_id in gone:
            self._reserve(branch_id, created_at)
        if len(done) > 1 or gone:
            back = BranchSwitched(from_branch_id=list(done)[-1], branch_id=MAIN)
            self._append(back, MAIN, created_at)
        for row in self.usage:
            self._record_usage(row)

    def _branch_off(self, branch_id: str, branch: _Branch, done: dict[str, _Branch]) -> int:
        """Create a branch from the one with the most shared items; return their number."""
        parent_id, kept = MAIN, 0
        for other_id, other in done.items():
            shared = shared_length(other.message_ids, branch.message_ids)
            if shared > kept:
                parent_id, kept = other_id, shared
        branch.refs = done[parent_id].refs[:kept]
        created = BranchCreated(
            branch_id=branch_id,
            from_branch_id=parent_id,
            last_item=branch.refs[-1] if kept else None,
        )
        self._append(created, parent_id, branch.created_at)
        return kept

    def _add(self, branch_id: str, branch: _Branch, kept: int) -> None:
        messages = [self.messages[message_id] for message_id in branch.message_ids[kept:]]
        for occurred_at, group in groupby(messages, key=lambda message: message.occurred_at):
            added = ItemsAdded(items=[message.item for message in group])
            for event, data in in_parts(added):
                position = self._append_encoded(event, data, branch_id, occurred_at)
                branch.refs += [ItemRef(position, index) for index in range(len(event.items))]

    def _reserve(self, branch_id: str, occurred_at: int) -> None:
        """Reserve the id of a branch that is deleted or empty in the SDK's tables."""
        created = BranchCreated(branch_id=branch_id, from_branch_id=MAIN, last_item=None)
        self._append(created, MAIN, occurred_at)
        self._append(BranchDeleted(branch_id=branch_id), branch_id, occurred_at)

    def _record_usage(self, row: tuple[Any, ...]) -> None:
        usage_id, branch_id, sdk_turn, requests, read, written, total, *details, created_at = row
        input_details, output_details = map(_loaded, details)
        used = RequestUsage(
            requests=requests or 0,
            input_tokens=read or 0,
            output_tokens=written or 0,
            total_tokens=total or 0,
            cached_input_tokens=_number(input_details, "cached_tokens"),
            cache_write_tokens=_number(input_details, "cache_write_tokens"),
            reasoning_tokens=_number(output_details, "reasoning_tokens"),
            input_tokens_details=input_details,
            output_tokens_details=output_details,
        )
        branch = self.branches.get(branch_id)
        turn = None if branch is None else branch.turns.get(sdk_turn)
        run_id = f"{SOURCE}:{self.session_id}:{usage_id}"
        event = UsageRecorded(run_id=run_id, turn=turn, requests=[used])
        self._append(event, branch_id, self.source.time(created_at))

    def _append(self, event: Event, branch_id: str | None, occurred_at: int | None) -> int:
        return self._append_encoded(event, codec.encode(event), branch_id, occurred_at)

    def _append_encoded(
        self, event: Event, data: bytes, branch_id: str | None, occurred_at: int | None
    ) -> int:
        recorded = append_all(
            self.tx, self.into, ((event, data),), branch_id=branch_id, occurred_at=occurred_at
        )
        return recorded[0].position


@contextmanager
def _unattributed(tx: Transaction) -> Iterator[None]:
    """Append events without the caller's values: the importing caller did not cause the events."""
    bound, tx.recording = tx.recording, {}
    try:
        yield
    finally:
        tx.recording = bound


def shared_length(left: Sequence[object], right: Sequence[object]) -> int:
    """Return the length of the common prefix of two sequences."""
    count = 0
    for a, b in zip(left, right, strict=False):
        if a != b:
            break
        count += 1
    return count


def _loaded(text: Any) -> dict[str, JSON] | None:
    try:
        loaded = json.loads(text)
    except (TypeError, ValueError, RecursionError):
        return None
    return loaded if isinstance(loaded, dict) else None


def _is_countable(row: tuple[Any, ...]) -> bool:
    """Whether a usage row has a branch, and counts that are None or non-negative integers."""
    counts = row[3:7]
    return type(row[1]) is str and all(
        count is None or (type(count) is int and 0 <= count <= 2**53) for count in counts
    )


def _number(details: dict[str, JSON] | None, name: str) -> int:
    value = (details or {}).get(name)
    return value if type(value) is int and 0 <= value <= 2**53 else 0
