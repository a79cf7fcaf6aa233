"""
A writer that is killed at any moment loses nothing that it was told is done, and leaves no half.

Each round kills processes with SIGKILL after a random time, looks at what they left, and lets the next ones
go on from there. Those that are killed at a chosen write are in test_disk_faults.
"""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
import time
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from agents_eventlog import AdvancedSQLiteSession
from tests.faults.children import actors
from tests.faults.processes import children
from tests.faults.support import PATIENCE_SECONDS, batch, batches, check_sound, seen

if TYPE_CHECKING:
    import random
    from pathlib import Path

ROUNDS = pytest.mark.parametrize("rounds", [4, pytest.param(60, marks=pytest.mark.proof)])


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


def run_and_kill(path: Path, begins: list[dict[str, int]], seconds: float) -> dict[str, int]:
    """Let processes write for so long after their first action, kill them; return what they had done."""
    done = {session_id: n for begin in begins for session_id, n in begin.items()}

    def note(session_id: str, n: int) -> None:
        assert n == done[session_id]  # reported in order, none left out
        done[session_id] = n + 1

    with children(len(begins), actors.write_until_killed, str(path), begins) as writers:
        for writer in writers:
            assert writer.hear() == "ready"
        for writer in writers:
            writer.tell("go")
        for writer in writers:
            note(*writer.hear())
        time.sleep(seconds)
        for writer in writers:
            writer.process.kill()
        for writer in writers:
            while writer.connection.poll(PATIENCE_SECONDS):
                try:
                    note(*writer.hear())
                except EOFError:
                    break
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


@ROUNDS
@pytest.mark.parametrize(
    ("processes", "sessions"),
    [(1, 1), (1, 25), (3, 4)],
    ids=["one session", "group commits", "several processes"],
)
def test_every_acknowledged_action_outlives_a_kill(
    path: Path, chance: random.Random, processes: int, sessions: int, rounds: int
) -> None:
    owned = [[f"{p}:{number}" for number in range(sessions)] for p in range(processes)]
    done = {session_id: 0 for names in owned for session_id in names}
    twins = {session_id: Twin(session_id) for session_id in done}
    for _ in range(rounds):
        begins = [{session_id: done[session_id] for session_id in names} for names in owned]
        acknowledged = run_and_kill(path, begins, chance.uniform(0, 0.2))
        done = asyncio.run(actions_found(path, acknowledged, twins))
        check_sound(path)
    assert sum(done.values()) >= rounds


@ROUNDS
def test_a_file_whose_making_was_killed_can_be_opened(
    tmp_path: Path, chance: random.Random, rounds: int
) -> None:
    for attempt in range(rounds):
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
