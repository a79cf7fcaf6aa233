"""
A process that looks into a file which it has open keeps SQLite's locks on it.

POSIX drops all locks of a process on a file as soon as the process closes any descriptor of the file.
Another process then takes itself for the last one and deletes the write-ahead log that the first writes to.
"""

from __future__ import annotations

import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import typer

from agents_eventlog.adapters.cli import export_import
from agents_eventlog.adapters.openai_agents.migration.import_file import (
    check_source,
    import_file,
    what_it_is,
)
from agents_eventlog.eventlog.errors import EventLogError, NoLogError
from agents_eventlog.eventlog.log import EventLog
from tests.faults.support import user

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from agents_eventlog import AdvancedSQLiteSession

COUNT = """
import sqlite3, sys
print(*sqlite3.connect(sys.argv[1]).execute("SELECT COUNT(*) FROM events").fetchone())
"""
BESIDE = ("", "-wal", "-shm")


def count_elsewhere(path: Path) -> int:
    """Return the number of events that another process sees, which opens the file and closes it."""
    command = [sys.executable, "-c", COUNT, str(path)]
    return int(subprocess.run(command, check=True, capture_output=True, timeout=60).stdout)


async def _import(path: Path) -> None:
    async with EventLog.open(":memory:") as log:
        async for _ in import_file(log, path, dry_run=True):
            pass


async def _check(path: Path) -> None:
    check_source(path)


async def _what_it_is(path: Path) -> None:
    what_it_is(path, NoLogError("no log", path=str(path)))


async def _export_over(path: Path) -> None:
    source = path.with_name("another.db")
    async with EventLog.open(source):
        export_import.check_output(source, path)


@pytest.mark.parametrize("beside", BESIDE)
@pytest.mark.parametrize("look", [_import, _check, _what_it_is, _export_over])
async def test_looking_into_an_open_file_loses_no_write(
    path: Path,
    opened: Callable[..., AdvancedSQLiteSession],
    look: Callable[[Path], Awaitable[None]],
    beside: str,
) -> None:
    session = opened()
    await session.add_items([user("0")])
    with suppress(EventLogError, typer.Exit):
        await look(Path(f"{path}{beside}"))
    seen = count_elsewhere(path)
    for number in range(1, 6):
        await session.add_items([user(str(number))])
    assert count_elsewhere(path) == seen + 5
    session.close()
    assert count_elsewhere(path) == seen + 5
