"""
A writer that is killed at any moment loses nothing that it was told is done, and leaves no half.

Each round kills a process with SIGKILL after a random time, looks at what it left, and lets the next one go
on from there. EVENTLOG_ROUNDS makes it more rounds.
"""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import sqlite3
import time
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from adapters import AdvancedSQLiteSession
from tests.faults.children import actors
from tests.faults.processes import children
from tests.faults.support import batch, batches, check_sound, seen

if TYPE_CHECKING:
    from pathlib import Path

ROUNDS = int(os.environ.get("EVENTLOG_ROUNDS", "6"))


class Twin:
    """What a session's history makes of it: the same actions on a session in memory."""

    def __init__(self, session_id: str) -> None:
        self.session = AdvancedSQLiteSession(session_id)
        self.done = 0

    async def shows(self, actions: int) -> dict[str, Any]:
        """Return what the session shows after so many actions, at least as many as before."""
        assert actions >= self.done
        while self.done < actions:
            await actors.act(self.session, self.done)
            self.done += 1
        return await seen(self.session)


def run_and_kill(path: Path, begin: dict[str, int], seconds: float) -> dict[str, int]:
    """Let a process write for so long after its first action, kill it; return what it had done."""
    done = dict(begin)
    with children(1, actors.write_until_killed, str(path), begin) as [writer]:
        assert writer.hear() == "ready"
        writer.tell("go")
        session_id, n = writer.hear()
        done[session_id] = n + 1
        time.sleep(seconds)
        writer.process.kill()
        while writer.connection.poll(10):
            try:
                session_id, n = writer.hear()
            except EOFError:
                break
            assert n == done[session_id]  # reported in order, none left out
            done[session_id] = n + 1
    return done


async def actions_found(
    path: Path, acknowledged: dict[str, int], twins: dict[str, Twin]
) -> dict[str, int]:
    """Check that each session stands at its acknowledged actions, or one action that was under way."""
    found = {}
    for session_id, count in acknowledged.items():
        session = AdvancedSQLiteSession(session_id, path, resume=True)
        shows = await seen(session)
        session.close()
        twin = twins[session_id]
        found[session_id] = count if shows == await twin.shows(count) else count + 1
        if found[session_id] != count:
            assert shows == await twin.shows(count + 1)
    return found


@pytest.mark.parametrize("sessions", [1, 25], ids=["one session", "group commits"])
def test_every_acknowledged_action_outlives_a_kill(path: Path, sessions: int) -> None:
    chance = random.Random()
    done = {f"s{number}": 0 for number in range(sessions)}
    twins = {session_id: Twin(session_id) for session_id in done}
    for _ in range(ROUNDS):
        acknowledged = run_and_kill(path, done, chance.uniform(0, 0.2))
        done = asyncio.run(actions_found(path, acknowledged, twins))
        check_sound(path)
    assert sum(done.values()) >= ROUNDS


def test_a_file_whose_making_was_killed_can_be_opened(tmp_path: Path) -> None:
    chance = random.Random()
    for attempt in range(ROUNDS):
        path = tmp_path / f"{attempt}.db"
        with children(1, actors.open_and_add, str(path)) as [maker]:
            assert maker.hear() == "ready"
            maker.tell("go")
            time.sleep(chance.uniform(0, 0.03))
            maker.process.kill()
            maker.process.join()
        assert names_after_another(path) in (["after"], ["0", "after"])
        check_sound(path)


def test_a_file_that_died_before_its_first_commit_can_be_opened(path: Path) -> None:
    dying = path.with_name("dying.db")
    with closing(sqlite3.connect(dying, isolation_level=None)) as connection:
        connection.execute("PRAGMA cache_size=1")  # so that pages reach the file before COMMIT
        connection.execute("BEGIN")
        connection.execute("CREATE TABLE half (made TEXT)")
        connection.executemany("INSERT INTO half VALUES (?)", [("x" * 4_000,)] * 50)
        shutil.copy(dying, path)
        shutil.copy(f"{dying}-journal", f"{path}-journal")
    assert path.stat().st_size > 0
    assert names_after_another(path) == ["after"]
    check_sound(path)


def names_after_another(path: Path) -> list[str]:
    """Add a batch and return the names of all batches in the session."""

    async def add() -> list[Any]:
        session = AdvancedSQLiteSession("s", path)
        await session.add_items(batch("after"))
        return await session.get_items()

    return batches(asyncio.run(add()))
