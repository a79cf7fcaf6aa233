"""An erase that is killed, refused by the disk, or held up by a reader ends well when it is run again."""

from __future__ import annotations

import asyncio
import random
import sqlite3
import time
from contextlib import closing
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from agents_eventlog import AdvancedSQLiteSession, ConversationLog
from agents_eventlog.adapters.cli.terminal import ExitCode
from agents_eventlog.eventlog import ItemsAdded
from agents_eventlog.eventlog.storage.sqlite import connections
from tests.adapters.looking import run
from tests.faults.children import actors
from tests.faults.failing import KINDS, failing_statements
from tests.faults.processes import children
from tests.faults.support import check_sound, user

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from agents_eventlog.projections import ErasureResult

SECRET = "<a secret>"
SAID = 2_500
"""So many events that an erase needs several transactions."""


async def talk(path: Path) -> None:
    """Say a secret many times."""
    async with ConversationLog.open(path, durability="normal") as log:
        said = [ItemsAdded(items=[user(f"{SECRET} {n}")]) for n in range(SAID)]
        await log.append("s", said, branch_id="main")


def is_left(path: Path) -> bool:
    """Whether a byte of it is anywhere."""
    return any(SECRET.encode() in file.read_bytes() for file in path.parent.iterdir())


async def erased(path: Path) -> Any:
    async with ConversationLog.open(path, durability="normal") as log:
        return await log.erase(session_id="s")


def test_an_erase_that_is_killed_is_finished_by_the_next(path: Path, chance: random.Random) -> None:
    asyncio.run(talk(path))
    for _ in range(3):
        with children(1, actors.erase, str(path)) as [eraser]:
            assert eraser.hear() == "ready"
            eraser.tell("go")
            if chance.random() < 0.7:
                eraser.hear()  # a part is committed
            time.sleep(chance.uniform(0, 0.05))
            eraser.process.kill()
            eraser.process.join()
        check_sound(path)
    assert asyncio.run(erased(path)).is_complete
    assert not is_left(path)
    check_sound(path)
    assert asyncio.run(erased(path)).events == 0


ERASURES: dict[str, Callable[[ConversationLog], Awaitable[ErasureResult]]] = {
    "erase": lambda log: log.erase(session_id="s"),
    "expire": lambda log: log.expire(),
}


@pytest.mark.parametrize("name", ERASURES)
@pytest.mark.parametrize("kind", sorted(KINDS))
async def test_an_erase_whose_nth_statement_fails_is_finished_by_the_next(
    path: Path, chance: random.Random, monkeypatch: pytest.MonkeyPatch, kind: str, name: str
) -> None:
    session = AdvancedSQLiteSession("s", path, expires_after=timedelta(seconds=1))
    await session.add_items([user(SECRET)])
    session.close()
    monkeypatch.setattr(connections, "BUSY_TIMEOUT_SECONDS", 0.1)
    statements = failing_statements(monkeypatch)
    nth = 0
    async with ConversationLog.open(path) as log:
        clock = log.store.clock
        log.store.clock = lambda: clock() + 1_000_000
        while True:
            nth += chance.randint(1, 4)
            failed = None
            with statements.failing(nth, KINDS[kind], "refused"):
                try:
                    found = await ERASURES[name](log)
                except Exception as error:
                    failed = error
            if statements.hit is None:
                break
            assert failed is None or type(failed) is KINDS[kind].promised
        assert nth > 10
        assert found.is_complete
    assert not is_left(path)
    check_sound(path)


async def test_a_reader_of_another_process_that_holds_the_file_is_told(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await talk(path)
    monkeypatch.setattr(connections, "BUSY_TIMEOUT_SECONDS", 0.05)
    with closing(sqlite3.connect(path, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT COUNT(*) FROM events").fetchone()
        assert not (await erased(path)).is_complete
        again = await erased(path)
        assert (again.events, again.is_complete) == (0, False)
    assert (await erased(path)).is_complete
    assert not is_left(path)


def test_the_command_exits_with_1_when_the_file_is_held(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asyncio.run(talk(path))
    monkeypatch.setattr(connections, "BUSY_TIMEOUT_SECONDS", 0.05)
    with closing(sqlite3.connect(path, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT COUNT(*) FROM events").fetchone()
        result = run("erase", path, "--session", "s", "--yes")
        assert result.exit_code == ExitCode.FINDINGS
        assert "run this command again" in result.stdout
    assert run("erase", path, "--session", "s", "--yes").exit_code == ExitCode.CLEAN
    assert not is_left(path)
