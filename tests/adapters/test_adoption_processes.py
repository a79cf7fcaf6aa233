"""Adoption is one transaction, whoever is killed in it and whoever else comes at the same time."""

from __future__ import annotations

import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.adapters.old_files import assert_sound, events, ours, rows, sdk, tables
from tests.contract.items import turns

if TYPE_CHECKING:
    from pathlib import Path

SESSIONS = 5

DIES = """
import os, signal, sys
from adapters import AdvancedSQLiteSession, importers

path, fatal = sys.argv[1], int(sys.argv[2])
append, appended = importers.append_all, 0

def append_or_die(*arguments, **keywords):
    global appended
    recorded = append(*arguments, **keywords)
    appended += 1
    if appended == fatal:
        os.kill(os.getpid(), signal.SIGKILL)
    return recorded

importers.append_all = append_or_die
AdvancedSQLiteSession("session 0", path)
"""

DIES_BEFORE_PROJECTING = """
import os, signal, sys
from adapters import AdvancedSQLiteSession
from eventlog import EventLog

EventLog.join = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
AdvancedSQLiteSession("session 0", sys.argv[1])
"""

OPENS = """
import asyncio, sys
from adapters import AdvancedSQLiteSession

print("ready", flush=True)
sys.stdin.readline()
session = AdvancedSQLiteSession("session 0", sys.argv[1])
print(len(asyncio.run(session.get_items())), flush=True)
"""


@pytest.fixture
async def path(tmp_path: Path) -> Path:
    """A file of the SDK's with several sessions, too big for SQLite to keep in its cache."""
    path = tmp_path / "old.db"
    for number in range(SESSIONS):
        session = sdk(path, f"session {number}")
        for first in range(4):
            await session.add_items(
                turns(*(f"{first} {turn} {'x' * 2_000}" for turn in range(100)))
            )
        await session.create_branch_from_turn(50, "draft")
        await session.add_items(turns("other"))
        session.close()
    return path


def status_of(script: str, *arguments: object) -> int:
    """Run a script and return its exit status."""
    command = [sys.executable, "-c", script, *map(str, arguments)]
    return subprocess.run(command, check=False).returncode


def together(count: int, script: str, path: Path) -> list[str]:
    """Start a script so many times, let them all go on at once, and return what each printed."""
    children = [
        subprocess.Popen(
            [sys.executable, "-c", script, path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(count)
    ]
    for child in children:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
    for child in children:
        assert child.stdin is not None
        child.stdin.write("go\n")
        child.stdin.flush()
    answers = [child.communicate(timeout=60)[0] for child in children]
    assert [child.returncode for child in children] == [0] * count
    return answers


# Each session takes an event to open, one to add what it holds of a second, one to branch, ...
@pytest.mark.parametrize("fatal", [1, 2, 3, 7, 12, 18, 24])
async def test_killed_in_the_middle_leaves_nothing_and_the_next_opening_adopts_all(
    path: Path, fatal: int
) -> None:
    kept = tables(path)
    assert status_of(DIES, path, fatal) == -signal.SIGKILL
    names = {name for (name,) in rows(path, "SELECT name FROM sqlite_schema")}
    assert not names & {"events", "checkpoints", "log_properties", "sessions", "items"}
    assert rows(path, "PRAGMA application_id") == [(0,)]
    assert tables(path) == kept

    for number in range(SESSIONS):
        adopted = ours(path, f"session {number}")
        assert len(await adopted.get_items()) == 800
        assert len(await adopted.get_items(branch_id="draft")) == 100
        adopted.close()
    assert len(await events(path, "history_imported")) == SESSIONS
    assert tables(path) == kept
    await assert_sound(path)


async def test_killed_before_the_projections_are_built_loses_nothing(path: Path) -> None:
    assert status_of(DIES_BEFORE_PROJECTING, path) == -signal.SIGKILL
    assert len(await events(path, "history_imported")) == SESSIONS
    assert len(await ours(path, "session 4").get_items()) == 800
    assert len(await events(path, "history_imported")) == SESSIONS
    await assert_sound(path)


async def test_processes_that_open_together_adopt_once(path: Path) -> None:
    assert together(3, OPENS, path) == ["800\n"] * 3
    assert len(await events(path, "history_imported")) == SESSIONS
    await assert_sound(path)
