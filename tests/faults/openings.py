"""Every way to open a file, one line each, and the files that are opened."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any, NamedTuple

from agents_eventlog import AdvancedSQLiteSession
from agents_eventlog.eventlog import EventLog, ItemsAdded
from agents_eventlog.projections import Projection, Projections, default
from tests.adapters import old_files
from tests.faults.operations import furnish
from tests.faults.support import batch

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


class Batches(Projection):
    """Counts what was said: a projection that the others do not know."""

    name = "batches"
    version = 1
    schema = ("CREATE TABLE batches (session_id TEXT PRIMARY KEY, count INTEGER NOT NULL) STRICT",)
    handles = (ItemsAdded,)

    def apply(self, tx: Any, events: Any) -> None:
        for recorded in events:
            tx.execute(
                "INSERT INTO batches VALUES (?, 1) "
                "ON CONFLICT (session_id) DO UPDATE SET count = count + 1",
                (recorded.session_id,),
            )


async def nothing(path: Path) -> None:
    """Make no file."""


async def sdk_file(path: Path) -> None:
    """Make a file as the SDK's class leaves it."""
    session = old_files.sdk(path, "s")
    await old_files.grow(session)
    session.close()


async def log_file(path: Path) -> None:
    """Make a log."""
    session = AdvancedSQLiteSession("s", path)
    await furnish(session)
    session.close()


async def stale_file(path: Path) -> None:
    """Make a log to which a program has appended that knows no projections."""
    await log_file(path)
    async with EventLog.open(path) as log:
        for n in range(3):
            await log.append("s", ItemsAdded(items=batch(n)), branch_id="main")


def a_session(path: Path) -> None:
    AdvancedSQLiteSession("s", path).close()


def a_resumed_session(path: Path) -> None:
    AdvancedSQLiteSession("s", path, resume=True).close()


def a_log(path: Path) -> None:
    EventLog.open_sync(path, projections=default()).close()


def a_log_to_read(path: Path) -> None:
    EventLog.open_sync(path, read_only=True).close()


def a_log_with_another_projection(path: Path) -> None:
    log = EventLog.open_sync(path, projections=default())
    try:
        log.join(Projections(Batches()))
        [row] = log.store.read_sync(lambda tx: tx.all("SELECT * FROM batches"))
        assert row == ("s", 4)
    finally:
        log.close()


class Opening(NamedTuple):
    """What stands there before, and how it is opened."""

    make: Callable[[Path], Any]
    open: Callable[[Path], None]
    replays: bool = False


OPENINGS = {
    "a new file, by a session": Opening(nothing, a_session),
    "a new file, by a log": Opening(nothing, a_log),
    "the SDK's file": Opening(sdk_file, a_session),
    "a log, by a session": Opening(log_file, a_session),
    "a log, by a session that resumes": Opening(log_file, a_resumed_session),
    "a log, to read": Opening(log_file, a_log_to_read),
    "a log that is behind": Opening(stale_file, a_log),
    "a log that is far behind": Opening(stale_file, a_log, replays=True),
    "a log, for one more projection": Opening(log_file, a_log_with_another_projection),
}


SHOWN = dict.fromkeys((*old_files.DEFAULT_PAIR, *old_files.STRUCTURE_TABLES), "*") | {
    "events": "position, session_id, version, type, branch_id, metadata, "
    "CASE type WHEN 'usage_recorded' THEN '' ELSE data END"  # which holds an id made up for the run
}


def tables(path: Path) -> dict[str, list[Any]]:
    """Return what a file holds of the SDK's tables and of events, but for the times of recording."""
    with closing(sqlite3.Connection(path)) as connection:
        made = connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'").fetchall()
        return {
            name: connection.execute(f'SELECT {columns} FROM "{name}"').fetchall()
            for name, columns in SHOWN.items()
            if (name,) in made
        }


def put_copy(template: Path, path: Path) -> None:
    """Put a copy of the file where it is opened, with nothing beside it."""
    for file in path.parent.glob(f"{path.name}*"):
        file.unlink()
    if template.exists():
        shutil.copy(template, path)
