"""Who waits for whom: sessions, questions to the whole log, files that nobody uses, forks in a unit."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from agents_eventlog import AdvancedSQLiteSession, ConversationLog
from agents_eventlog.eventlog import Transaction, configure
from agents_eventlog.eventlog.storage import registry
from agents_eventlog.eventlog.storage.sqlite import connections


@pytest.fixture(autouse=True)
def default_limits() -> Any:
    yield
    configure(idle_files=8, busy_timeout_seconds=5)


async def test_a_session_is_read_while_a_question_to_the_whole_log_is_under_way(path: Path) -> None:
    session: Any = AdvancedSQLiteSession("s", path)
    await session.add_items([{"role": "user", "content": "hello"}])
    asked, answer = threading.Event(), threading.Event()

    def slow(tx: Transaction) -> int:
        asked.set()
        assert answer.wait(30)
        return len(tx.all("SELECT 1 FROM events"))

    async with ConversationLog.open(path) as log:
        question = asyncio.ensure_future(log.query(slow))
        await asyncio.to_thread(asked.wait)
        assert len(await session.get_items()) == 1
        answer.set()
        assert await question == 1


def test_limits_of_the_process_can_be_set() -> None:
    configure(idle_files=3, busy_timeout_seconds=0.5)
    assert registry.limits.idle_files == 3
    assert connections.BUSY_TIMEOUT_SECONDS == 0.5
    configure()
    assert registry.limits.idle_files == 3


@pytest.mark.parametrize("limit", ["idle_files", "busy_timeout_seconds"])
def test_a_negative_limit_is_refused(limit: str) -> None:
    with pytest.raises(ValueError, match=f"invalid {limit}: expected 0 or more, got -1"):
        configure(**{limit: -1})


FORKING = """
import asyncio, os, sys
from agents_eventlog.eventlog import EventLog, ItemsAdded, append

def forks(tx):
    append(tx, "s", ItemsAdded(items=["before"]))
    child = os.fork()
    if child == 0:
        if sys.argv[2] == "appends":
            append(tx, "s", ItemsAdded(items=["by the child"]))
        return "child"
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

async def main():
    async with EventLog.open(sys.argv[1]) as log:
        print(await getattr(log, sys.argv[3])(forks if sys.argv[3] == "write" else lambda tx: reads(tx)))
        await log.append("s", ItemsAdded(items=["after"]))
        print((await log.verify()).ok, await log.version("s"))

def reads(tx):
    tx.all("SELECT * FROM events")
    child = os.fork()
    return "child" if child == 0 else os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

asyncio.run(main())
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize(
    ("child", "call", "version"),
    [("returns", "write", 2), ("appends", "write", 2), ("returns", "query", 1)],
)
def test_a_fork_inside_a_unit_harms_neither_the_parent_nor_the_log(
    path: Path, child: str, call: str, version: int
) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FORKING, str(path), child, call],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout.splitlines() == ["70", f"True {version}"], done.stderr
    assert "a unit of work forked; its child process ends here" in done.stderr
