"""Export of the current state of sessions into a file of the SDK's ``AdvancedSQLiteSession``."""

from __future__ import annotations

import asyncio
import json
import os
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

from agents.extensions.memory import AdvancedSQLiteSession

from agents_eventlog.adapters.conversations.sdk_tables import CLEARINGS, RESERVATIONS
from agents_eventlog.adapters.conversations.timestamps import as_text
from agents_eventlog.eventlog.cipher import envelope
from agents_eventlog.eventlog.events import JSON, ItemRef
from agents_eventlog.eventlog.jsonl.export import ExportProgress, choose
from agents_eventlog.eventlog.log import EventLog
from agents_eventlog.eventlog.storage.sqlite import backup, files
from agents_eventlog.eventlog.storage.sqlite.engine import SQLITE
from agents_eventlog.eventlog.storage.transaction import Transaction
from agents_eventlog.projections.conversations import builder as conversations
from agents_eventlog.projections.conversations import queries as conversation_queries
from agents_eventlog.projections.conversations.builder import MAIN
from agents_eventlog.projections.conversations.queries import BranchRow, Entry
from agents_eventlog.projections.usage import queries as usage_queries
from agents_eventlog.projections.usage.queries import Tokens

ADD_SESSION = "INSERT INTO agent_sessions (session_id, created_at, updated_at) VALUES (?, ?, ?)"
ADD_MESSAGE = """
    INSERT INTO agent_messages (id, session_id, message_data, created_at) VALUES (?, ?, ?, ?)
"""
ADD_STRUCTURE = """
    INSERT INTO message_structure (session_id, message_id, branch_id, message_type,
        sequence_number, user_turn_number, branch_turn_number, tool_name, created_at)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
ADD_USAGE = """
    INSERT INTO turn_usage (session_id, branch_id, user_turn_number, requests, input_tokens,
        output_tokens, total_tokens, input_tokens_details, output_tokens_details)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
ADD_RESERVATION = f"INSERT INTO {RESERVATIONS} (session_id, branch_id) VALUES (?, ?)"
LAST_MESSAGE = "SELECT COALESCE(MAX(id), 0) FROM agent_messages"


class SDKExport(NamedTuple):
    """The numbers of objects that an export for the SDK holds, and of those that were left out."""

    sessions: int = 0
    items: int = 0
    """Items; one that several branches share is counted once."""
    branches: int = 0
    turns_with_usage: int = 0
    erased_items: int = 0
    """Items that are left out because their content was erased or its key destroyed."""
    empty_branches: int = 0
    deleted_branches: int = 0
    """Their ids stay reserved; their content and usage are left out."""
    deleted_sessions: int = 0

    @property
    def left_out(self) -> str | None:
        """A description of the objects that were left out; None if all were written."""
        found = (
            (self.erased_items, "erased item", "erased items"),
            (self.empty_branches, "empty branch", "empty branches"),
            (self.deleted_branches, "deleted branch", "deleted branches"),
            (self.deleted_sessions, "deleted session", "deleted sessions"),
        )
        named = [
            f"{number:,} {one if number == 1 else several}"
            for number, one, several in found
            if number
        ]
        return ", ".join(named) or None


class _Branch(NamedTuple):
    row: BranchRow
    items: list[tuple[Entry, str, str | None]]
    """Each item with its type and the name of its tool."""
    usage: dict[int, Tokens]


class _Session(NamedTuple):
    created_at: int
    updated_at: int
    branches: list[_Branch]
    deleted: list[str]


async def export_sdk_file(
    log: EventLog,
    path: str | os.PathLike[str],
    session_ids: Sequence[str] | None = None,
    *,
    on_progress: Callable[[ExportProgress], None] | None = None,
) -> SDKExport:
    """
    Write the current state of sessions to a new file, which the SDK's ``AdvancedSQLiteSession`` opens.

    Items, branches, turns, usage and times are written; redacted items as their placeholders. Costs,
    models, metadata, owners, removed items and the history of changes have no place in the SDK's tables.

    path: where the file appears once it is complete.
    session_ids: only these sessions; None for all.
    on_progress: called after each session.

    Each session is read as of one moment. The contents of a sealed log are written in plaintext. Raises
    SessionNotFoundError for an unknown session, OpenError if the file exists or cannot be written, and
    KeysMissingError without the keys of a sealed log.
    """
    target = SQLITE.resolve(path)
    chosen = await log.query(lambda tx: choose(tx, session_ids))
    total, done = sum(heading.events for heading in chosen.headings), 0
    counts: Counter[str] = Counter()
    with backup.new_file(target) as part:
        await asyncio.to_thread(_create_tables, part)
        with files.writing(part) as tx:
            if CLEARINGS in tx.engine.table_names(tx):
                tx.execute(
                    f"DELETE FROM {CLEARINGS}"
                )  # the row of the session that created the tables
            for count, (session_id, version) in enumerate(chosen.headings, start=1):
                found = await log.query(partial(_read, session_id=session_id))
                if found is None:
                    counts["deleted_sessions"] += 1
                else:
                    counts += await asyncio.to_thread(_write, tx, session_id, found)
                done += version
                if on_progress is not None:
                    on_progress(ExportProgress(done, total, count))
    return SDKExport(**counts)


def _create_tables(path: str) -> None:
    """Let the installed SDK create its tables, with the columns of its version."""
    AdvancedSQLiteSession(session_id="", db_path=path, create_tables=True).close()


def _read(tx: Transaction, session_id: str) -> _Session | None:
    """Return the current state of a session; None if it is deleted."""
    session = conversations.session(tx, session_id)
    if session is None or session.deleted_at is not None:
        return None
    rows = conversation_queries.all_branches(tx, session_id)
    return _Session(
        session.created_at,
        session.updated_at,
        [_branch(tx, session_id, row) for row in rows if row.is_live],
        [row.branch_id for row in rows if not row.is_live],
    )


def _branch(tx: Transaction, session_id: str, row: BranchRow) -> _Branch:
    pointer = conversation_queries.place(tx, session_id, row.branch_id).pointer
    entries = conversation_queries.entries(tx, pointer, session_id=session_id)
    if any(entry.withheld == "sealed" for entry in entries):
        raise envelope.missing_keys()
    kinds = conversation_queries.structure(tx, pointer)
    items = [(entry, kind, tool) for entry, (_, kind, tool) in zip(entries, kinds, strict=True)]
    return _Branch(row, items, usage_queries.by_turn(tx, session_id, row.branch_id))


def _write(tx: Transaction, session_id: str, session: _Session) -> Counter[str]:
    """Write a session; return the counts of an ``SDKExport``."""
    times = (as_text(session.created_at), as_text(session.updated_at))
    tx.execute(ADD_SESSION, (session_id, *times))
    written: dict[ItemRef, int] = {}
    left_out: set[ItemRef] = set()
    counts = Counter(sessions=1, deleted_branches=len(session.deleted))
    last_id = tx.all(LAST_MESSAGE)[0][0]
    sequence = 0
    for row, items, usage in session.branches:
        left_out.update(entry.ref for entry, *_ in items if entry.withheld is not None)
        readable = [each for each in items if each[0].withheld is None]
        counts["branches"] += bool(readable)
        counts["empty_branches"] += not readable and row.branch_id != MAIN
        for entry, kind, tool in readable:
            if entry.ref not in written:
                last_id += 1
                written[entry.ref] = last_id
                data = (json.dumps(entry.content), as_text(entry.occurred_at))
                tx.execute(ADD_MESSAGE, (last_id, session_id, *data))
            sequence += 1
            # An item that the branch began with belongs to it since then, as in the SDK's copies.
            since = as_text(max(entry.occurred_at, row.created_at))
            place = (row.branch_id, kind, sequence, entry.turn, entry.turn, tool, since)
            tx.execute(ADD_STRUCTURE, (session_id, written[entry.ref], *place))
        for turn, tokens in usage.items():
            counts["turns_with_usage"] += 1
            *numbers, read, wrote = tokens
            details = (_text(read), _text(wrote))
            tx.execute(ADD_USAGE, (session_id, row.branch_id, turn, *numbers, *details))
    if RESERVATIONS in tx.engine.table_names(tx):
        ids = [*(branch.row.branch_id for branch in session.branches), *session.deleted]
        tx.executemany(ADD_RESERVATION, [(session_id, each) for each in ids])
    counts.update(items=len(written), erased_items=len(left_out))
    return counts


def _text(details: dict[str, JSON] | None) -> str | None:
    return None if details is None else json.dumps(details)
