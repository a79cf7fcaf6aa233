"""What may be wrong with a log's file, its tables and its sessions, and what to do about it."""

from __future__ import annotations

import json
import shlex
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from agents_eventlog import projections
from agents_eventlog.adapters.cli.verify import to_compare
from agents_eventlog.adapters.conversations import sdk_tables, summary
from agents_eventlog.adapters.conversations.sdk_tables import SDK_TABLES, TablePair
from agents_eventlog.adapters.conversations.tool_calls import ToolCalls
from agents_eventlog.eventlog import codec, erasure, payloads
from agents_eventlog.eventlog.appender import read_head
from agents_eventlog.eventlog.errors import EventLogError
from agents_eventlog.eventlog.storage.sqlite import schema
from agents_eventlog.eventlog.storage.sqlite.connections import WAL_SIZE_LIMIT_BYTES
from agents_eventlog.projections import build
from agents_eventlog.projections.base import tables as tables_of
from agents_eventlog.projections.replay import leftovers
from agents_eventlog.projections.search import index as search_index

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from agents_eventlog.eventlog.storage.transaction import Transaction

WAL_RESET_BUG = (3, 7, 0), (3, 51, 2)
"""The first and the last SQLite that may damage a file when several connections write at once."""

ITEM_EVENTS = """
    (SELECT DISTINCT segment_id, position FROM items) AS i
    JOIN segments AS s ON s.segment_id = i.segment_id
    JOIN sessions AS c ON c.session_id = s.session_id AND c.deleted_at IS NULL
    LEFT JOIN events AS e ON e.position = i.position
    ORDER BY i.position
"""
TRIGGERS = "SELECT name, sql FROM sqlite_schema WHERE type = 'trigger' AND tbl_name = 'events'"


class Complaint(NamedTuple):
    """What is wrong, with what, and what to do; a note needs nothing done now."""

    subject: str
    problem: str
    advice: str
    is_note: bool = False


def of_database(tx: Transaction) -> Iterator[Complaint]:
    """Look at the file as SQLite sees it, and at the log's own tables."""
    for (problem,) in tx.all("PRAGMA quick_check(10)"):
        if problem != "ok":
            yield Complaint("file", str(problem), "restore a copy; `eventlog verify` tells more")
    mode = journal_mode(tx)
    if mode != "wal":
        yield Complaint(
            "file",
            f"it has the journal mode {mode!r}: readers and writers wait for each other",
            "switch it once, while nobody uses it: PRAGMA journal_mode=WAL",
        )
    present = {name: _spaced(sql) for name, sql in tx.all(TRIGGERS)}
    for name, sql in (
        ("events_are_never_changed", schema.NO_UPDATE),
        ("events_are_never_deleted", schema.NO_DELETE),
    ):
        if present.get(name) != _spaced(sql):
            yield Complaint(
                "events",
                f"the trigger {name!r} is not there as it was made: events can be altered",
                "run `eventlog verify` with a head kept elsewhere, then make the trigger again",
            )


def journal_mode(tx: Transaction) -> str:
    """Return a file's journal mode; SQLite itself cannot tell it of a file opened as immutable."""
    mode = str(tx.connection.execute("PRAGMA journal_mode").fetchone()[0])
    if mode == "wal":
        return mode
    try:
        with closing(sqlite3.connect(f"{_file(tx).as_uri()}?mode=ro", uri=True)) as plain:
            plain.execute("SELECT 1 FROM sqlite_schema").fetchone()
    except sqlite3.OperationalError as error:
        # Only a write-ahead log needs files beside it, which cannot be made in this folder.
        if error.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY):
            return "wal"
    return mode


def _file(tx: Transaction) -> Path:
    return Path(tx.connection.execute("PRAGMA database_list").fetchone()[2])


def _spaced(sql: str) -> str:
    return " ".join(sql.split())


def of_surroundings(path: Path) -> Iterator[Complaint]:
    """Look at the files beside the log."""
    size = wal_bytes(path)
    if size > WAL_SIZE_LIMIT_BYTES:
        yield Complaint(
            "write-ahead log",
            f"it has {size:,} bytes",
            "end programs that keep a reading transaction open; the next commits then cut it back",
        )
    for file in leftovers(str(path)):
        yield Complaint(
            "replay", f"{file.name} was left by one that was killed", "the next replay removes it"
        )


def wal_bytes(path: Path) -> int:
    """Return the size of the write-ahead log beside a file."""
    try:
        return path.with_name(f"{path.name}-wal").stat().st_size
    except OSError:
        return 0


def of_sqlite(version: tuple[int, int, int] = sqlite3.sqlite_version_info) -> Iterator[Complaint]:
    """Look at the version of SQLite that this program uses."""
    first, last = WAL_RESET_BUG
    if first <= version <= last:
        yield Complaint(
            "SQLite",
            f"{'.'.join(map(str, version))} has the WAL-reset bug: connections that write or "
            "checkpoint at the same moment can, very rarely, damage the file",
            "one writing process is safe; with several, use SQLite 3.51.3 or newer",
            is_note=True,
        )


def of_projections(tx: Transaction) -> Iterator[Complaint]:
    """Look at whether the tables are there and up to date."""
    _, problems = to_compare(tx)
    for problem in problems:
        yield Complaint("projections", problem, "run `eventlog replay`")
    built = build.checkpoints(tx)
    present = schema.table_names(tx.connection)
    if search_index.Search.name in built and search_index.built_to(tx) != (
        head := read_head(tx).position
    ):
        yield Complaint(
            "projections",
            f"the full-text index shows the log up to event {built[search_index.Search.name].position:,}, "
            f"not {head:,}: what it does not show is scanned",
            "`eventlog search --index` brings it up to date",
            is_note=True,
        )
    for name, projection in projections.kept(tx).by_name.items():
        if name not in built:
            yield Complaint(
                "projections",
                f"projection {name!r} was never built",
                "the first session that opens the file builds it",
                is_note=True,
            )
            continue
        for table in tables_of(projection):
            if table.name not in present:
                yield Complaint(
                    "projections",
                    f"the table {table.name!r} of projection {name!r} is missing",
                    "run `eventlog replay`",
                )


def of_erasing(tx: Transaction) -> Iterator[Complaint]:
    """Look at whether the file was rewritten since something was erased."""
    if erasure.is_rewrite_due(tx):
        yield Complaint(
            "erasing",
            "it was stopped before the file was rewritten, which may still hold copies of what was "
            "erased",
            "run the same `eventlog erase` again while nothing else uses the file: it goes on",
        )


def of_sdk_tables(tx: Transaction) -> Iterator[Complaint]:
    """Look at whether an old program still writes into the SDK's tables."""
    claimed = schema.get_property(tx, SDK_TABLES)
    if claimed is None:
        return
    pair = TablePair(*json.loads(claimed))
    if late := sdk_tables.not_migrated(tx, pair.messages):
        source = shlex.quote(str(_file(tx)))
        yield Complaint(
            "the SDK's tables",
            f"{summary.counted(late, 'message')} came to {pair.messages!r} after it was adopted",
            "move the program that writes there to this library, then bring all that it wrote "
            f"into a log of its own: eventlog import NEW.db {source} {pair.options()}",
        )


def of_sessions(tx: Transaction) -> Iterator[Complaint]:
    """Look at whether every session can be read, and every tool call has its output."""
    wanted, _ = to_compare(tx)
    if "conversations" not in {projection.name for projection in wanted}:
        return  # there are no tables to look at, which is told already
    calls = ToolCalls()
    for session_id, position, *stored in payloads.stored(
        tx, ITEM_EVENTS, columns="s.session_id, i.position"
    ):
        problem = None
        if stored[0] is None:
            problem = f"event {position} is missing"
        elif stored[-1] is None:
            problem = f"the content of event {position} was erased, but its items are listed"
        else:
            try:
                calls.note(position, codec.decode_items([tuple(stored)])[0])
            except EventLogError:
                problem = f"the items of event {position} cannot be decoded"
        if problem is not None:
            yield Complaint(
                f"session {session_id!r}",
                f"it cannot be read: {problem}",
                "run `eventlog verify`, and `eventlog replay` if the log is as recorded",
            )
    for missing in calls.unanswered(tx):
        names = ", ".join(missing.calls)
        yield Complaint(
            f"session {missing.session_id!r}",
            f"on branch {missing.branch_id!r}, "
            f"{summary.counted(len(missing.calls), 'tool call')} without output: {names}",
            "resume the run if it waits for an approval; else pop these items, "
            "for the model refuses such a history",
        )


def guarded(check: Callable[[], list[Complaint]], subject: str) -> list[Complaint]:
    """Return what a check finds; that it could not be made is a complaint, too."""
    try:
        return check()
    except (EventLogError, sqlite3.Error, ValueError, TypeError) as error:
        why = str(error) if isinstance(error, EventLogError) else type(error).__name__
        return [Complaint(subject, f"it cannot be looked at: {why}", "run `eventlog verify`")]
