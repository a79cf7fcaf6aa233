"""Import of histories from other files: the SDK's sessions, or another log. Sessions import all or none."""

from __future__ import annotations

import asyncio
import os
import shlex
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import IO, TypeAlias, TypeVar

from agents_eventlog.adapters.conversations import sdk_tables
from agents_eventlog.adapters.conversations.sdk_tables import Refusal, TablePair
from agents_eventlog.adapters.openai_agents.migration.encrypted import EncryptedItems
from agents_eventlog.adapters.openai_agents.migration.importer import (
    MigratedSession,
    SessionImport,
    Source,
)
from agents_eventlog.eventlog import codec
from agents_eventlog.eventlog.appender import session_version
from agents_eventlog.eventlog.errors import (
    AppendError,
    EventLogError,
    ForeignFileError,
    InvalidEventError,
    NoLogError,
    OpenError,
    SourceError,
    UnserialisableError,
)
from agents_eventlog.eventlog.jsonl.export import ExportProgress, export_lines
from agents_eventlog.eventlog.jsonl.format import LogLine
from agents_eventlog.eventlog.jsonl.import_ import (
    ImportResult,
    OnConflict,
    check_first_line,
    import_lines,
    place,
)
from agents_eventlog.eventlog.log import EventLog
from agents_eventlog.eventlog.storage.sqlite import files
from agents_eventlog.eventlog.storage.sqlite.engine import SQLITE
from agents_eventlog.eventlog.storage.transaction import Transaction

T = TypeVar("T")
OnProgress: TypeAlias = Callable[[int, int], None]
"""A callable that receives the amount of the source that was read, and the total amount."""

DEFAULT_TABLES = TablePair("agent_sessions", "agent_messages")


async def import_file(
    log: EventLog,
    path: str | os.PathLike[str],
    *,
    tables: TablePair | None = None,
    encryption_key: str | None = None,
    encrypted_ttl: timedelta | None = None,
    on_conflict: OnConflict = "refuse",
    dry_run: bool = False,
    on_progress: OnProgress | None = None,
) -> AsyncGenerator[ImportResult, None]:
    """
    Import the histories of a file, and yield the outcome of each session.

    path: an export as JSON Lines, another log, or a file of the SDK's ``SQLiteSession`` or
        ``AdvancedSQLiteSession``: items, branches, turns, usage and times. The file is only read.
    tables: the names of the SDK's sessions table and messages table in the file. If given, these tables are
        read even if the file also contains a log.
    encryption_key: that of the SDK's ``EncryptedSession`` over these sessions: their items are opened with
        the times at which they were encrypted, also after its ``ttl``. Items that are not encrypted are
        left out. Needs the extra ``encrypt``.
    encrypted_ttl: its ``ttl``: turns that are older as a whole are left out, and counted in the event
        ``history_imported``.
    on_conflict, dry_run: as in ``eventlog.import_lines``.
    on_progress: called with the amount of the source that was read, and the total amount.

    Unreadable rows of the SDK's tables are skipped; the result is "imported" or "renamed", and ``problem``
    gives their number. Raises an OpenError for an unreadable file, and SourceError for a file in another
    format.
    """
    target = SQLITE.resolve(path)
    if encryption_key is None and encrypted_ttl is not None:
        raise TypeError("encrypted_ttl needs an encryption_key")
    encrypted = None if encryption_key is None else EncryptedItems(encryption_key, encrypted_ttl)
    if not _is_database(target):
        _check_lines(target, encrypted)
        with Path(target).open("rb") as file:  # noqa: ASYNC230 - line by line
            lines = _counted(file, on_progress)
            async for outcome in import_lines(log, lines, on_conflict=on_conflict, dry_run=dry_run):
                yield outcome
    elif tables is None and encrypted is None and await asyncio.to_thread(files.is_log, target):
        async with EventLog.open(target, read_only=True) as source:
            async for outcome in import_lines(
                log, _lines_of(source, on_progress), on_conflict=on_conflict, dry_run=dry_run
            ):
                yield outcome
    else:
        async for outcome in import_sdk_file(
            log,
            target,
            tables=tables or DEFAULT_TABLES,
            encrypted=encrypted,
            on_conflict=on_conflict,
            dry_run=dry_run,
            on_progress=on_progress,
        ):
            yield outcome


def check_source(
    path: str | os.PathLike[str],
    tables: TablePair | None = None,
    encryption_key: str | None = None,
) -> bool:
    """
    Raise an OpenError, SourceError or KeysError for what ``import_file`` cannot import.

    Returns whether it is a sealed export, which is imported without keys.
    """
    target = SQLITE.resolve(path)
    encrypted = None if encryption_key is None else EncryptedItems(encryption_key)
    if not _is_database(target):
        return _check_lines(target, encrypted).sealed_as is not None
    if tables is not None or encrypted is not None or not files.is_log(target):
        with _source(target, (tables or DEFAULT_TABLES).resolved()):
            return False
    return False


def _check_lines(path: str, encrypted: EncryptedItems | None) -> LogLine:
    if encrypted is not None:
        raise SourceError(
            f"{path} is not a database: expected one of the SDK's sessions with an encryption key",
            path=path,
        )
    with Path(path).open("rb") as file:
        line = file.readline()
    try:
        return check_first_line(line)
    except SourceError as error:
        raise SourceError(f"{path}: {error}", path=path) from error


def what_it_is(path: str | os.PathLike[str], error: OpenError) -> OpenError:
    """Return a more precise error for a file without a log, which names its contents and a remedy."""
    target = SQLITE.resolve(path)
    try:
        with files.reading(target) as tx:
            if SQLITE.identify(tx, target):
                return error
            pair = sdk_tables.find_any(tx)
            names = tx.engine.table_names(tx)
            facts = tx.engine.facts(tx)
    except EventLogError:
        return error
    if pair is not None:
        command = f"eventlog import NEW.db {shlex.quote(target)}"
        if pair != DEFAULT_TABLES:
            command += f" {pair.options()}"
        return NoLogError(
            f"{target} holds sessions of the Agents SDK: AdvancedSQLiteSession migrates them "
            f"when it opens the file, or import them: {command}",
            path=target,
        )
    if names:
        return ForeignFileError(
            f"{target} holds tables of another program, but no event log", path=target
        )
    if facts["journal_mode"] == "wal" and not facts["wal_bytes"]:
        return NoLogError(
            f"{target} contains no event log; if it was copied without its -wal from a file in use, "
            "copy that with `eventlog backup`",
            path=target,
        )
    return error


async def import_sdk_file(
    log: EventLog,
    path: str,
    *,
    tables: TablePair = DEFAULT_TABLES,
    encrypted: EncryptedItems | None = None,
    on_conflict: OnConflict = "refuse",
    dry_run: bool = False,
    on_progress: OnProgress | None = None,
) -> AsyncGenerator[ImportResult, None]:
    """Import the sessions of a file of the SDK's classes, as ``import_file`` does."""
    pair = tables.resolved()
    taken: set[str] = set()
    with _source(path, pair, encrypted) as source:
        sessions = await _in_thread(path, partial(_sessions, source))
        for number, (session_id, created_at) in enumerate(sessions, start=1):
            if on_progress is not None:
                on_progress(number, len(sessions))
            try:
                codec.check_text("session_id", session_id)
                found = await _in_thread(path, partial(SessionImport, session_id, source))
            except InvalidEventError:
                yield ImportResult(str(session_id), "broken", None, 0, "its id is not valid UTF-8")
                continue
            except UnicodeDecodeError:
                yield ImportResult(
                    session_id, "broken", None, 0, "one of its texts is not valid UTF-8"
                )
                continue
            if found.needs_another_key:
                problem = "none of its encrypted messages opens: is it the right encryption key?"
                yield ImportResult(session_id, "broken", None, 0, problem)
                continue
            if dry_run:
                outcome = await _foretell(log, found, created_at, on_conflict, taken)
                taken.add(outcome.imported_as or session_id)
            else:
                outcome, brought = await _write(log, found, created_at, on_conflict)
                if brought is not None:
                    brought.log()
            yield outcome


def _sessions(source: Source) -> list[tuple[str, int]]:
    """Return all sessions; an id that is not valid UTF-8 stays bytes."""
    connection = source.tx.connection
    strict = connection.text_factory
    connection.text_factory = _decoded
    try:
        return source.sessions()
    finally:
        connection.text_factory = strict


def _decoded(data: bytes) -> str | bytes:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data


async def _write(
    log: EventLog,
    found: SessionImport,
    created_at: int,
    on_conflict: OnConflict,
    placed: ImportResult | None = None,
) -> tuple[ImportResult, MigratedSession | None]:
    """Write a session; return its outcome and, if it was written, its import counts."""

    def unit(tx: Transaction) -> tuple[ImportResult, MigratedSession | None]:
        outcome = placed or place(tx, found.session_id, 0, on_conflict)
        if outcome.imported_as is None:
            return outcome, None
        brought = found.run(tx, outcome.imported_as, created_at)
        events = session_version(tx, outcome.imported_as)
        return outcome._replace(events=events, problem=brought.left_out), brought

    try:
        return await log.write(unit)
    except (AppendError, UnserialisableError) as error:
        return ImportResult(found.session_id, "broken", None, 0, str(error)), None


async def _foretell(
    log: EventLog,
    found: SessionImport,
    created_at: int,
    on_conflict: OnConflict,
    taken: set[str],
) -> ImportResult:
    """Return the outcome of a dry run: write the session into a temporary log in memory."""
    placed = await log.query(
        lambda tx: place(tx, found.session_id, 0, on_conflict, taken),
    )
    async with EventLog.open_sync(":memory:", seal=False) as scratch:
        outcome, _ = await _write(scratch, found, created_at, on_conflict, placed)
        return outcome


@contextmanager
def _source(
    path: str, pair: TablePair, encrypted: EncryptedItems | None = None
) -> Iterator[Source]:
    """Open a snapshot of the SDK's tables in a file. Raises SourceError if they are missing."""
    with files.reading(path) as tx:
        found = _find_tables(tx, pair, path)
        source = Source(tx, found.sessions, found.messages, encrypted)
        tx.connection.text_factory = (
            bytes.decode
        )  # raises UnicodeDecodeError, which sqlite3's default hides
        yield source


def _find_tables(tx: Transaction, pair: TablePair, path: str) -> TablePair:
    found = sdk_tables.find(tx, pair)
    if isinstance(found, Refusal):
        raise SourceError(f"{path} {found.reason}", path=path)
    if found is None:
        what = "" if tx.engine.identify(tx, path) else "a log or "
        raise SourceError(f"{path} does not hold {what}the SDK's tables {pair}", path=path)
    return found


async def _in_thread(path: str, read: Callable[[], T]) -> T:
    with files.translating(path):
        return await asyncio.to_thread(read)


def _counted(file: IO[bytes], on_progress: OnProgress | None) -> Iterator[bytes]:
    total, done = os.fstat(file.fileno()).st_size, 0
    for line in file:
        done += len(line)
        if on_progress is not None:
            on_progress(done, total)
        yield line


async def _lines_of(source: EventLog, on_progress: OnProgress | None) -> AsyncIterator[bytes]:
    def progressed(exported: ExportProgress) -> None:
        if on_progress is not None:
            on_progress(exported.events, exported.total)

    async for line in export_lines(source, on_progress=progressed):
        yield line.encode()


def _is_database(path: str) -> bool:
    if Path(path).is_dir():
        raise OpenError(f"invalid source {path}: expected a file, got a folder", path=path)
    if not Path(path).is_file():
        raise OpenError(f"file not found: {path}", path=path)
    if Path(path).stat().st_size == 0:
        raise SourceError(f"{path} is empty", path=path)
    if files.is_beside_database(path):
        raise SourceError(f"{path} belongs to an SQLite database: import that instead", path=path)
    return files.is_database(path)
