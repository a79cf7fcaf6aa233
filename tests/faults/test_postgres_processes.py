"""Several processes on one log in PostgreSQL: exact order in each session, and nothing lost or doubled."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
from collections import Counter, defaultdict
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import pytest

from agents_eventlog.adapters.conversations.log import ConversationLog
from agents_eventlog.adapters.openai_agents.session import EventLogSession
from agents_eventlog.eventlog import EventLog
from tests.faults.forks import exit_status, fork

if TYPE_CHECKING:
    from pathlib import Path

    from tests.postgres import Server

WRITER = """
import asyncio, json, sys
from agents_eventlog.adapters.conversations.log import ConversationLog
from agents_eventlog.adapters.openai_agents.session import EventLogSession
from agents_eventlog.eventlog import configure

configure(busy_timeout_seconds=60)  # a server that recovers on a busy machine takes its time

async def main(url, name, rounds, sessions):
    async with ConversationLog.open(url) as log:
        async def talk(session_id):
            session = EventLogSession(session_id, log)
            for number in range(rounds):
                item = {"role": "user", "content": json.dumps([name, session_id, number])}
                await session.add_items([item])
                print(item["content"], flush=True)
        await asyncio.gather(*map(talk, sessions))

url, name, rounds, *sessions = sys.argv[1:]
asyncio.run(main(url, name, int(rounds), sessions))
"""

POPPER = """
import asyncio, sys
from agents_eventlog.adapters.conversations.log import ConversationLog
from agents_eventlog.adapters.openai_agents.session import EventLogSession

async def main(url, count):
    async with ConversationLog.open(url) as log:
        session = EventLogSession("shared", log)
        for _ in range(count):
            item = await session.pop_item()
            print(item and item["content"], flush=True)

asyncio.run(main(sys.argv[1], int(sys.argv[2])))
"""


def started(script: str, *arguments: object, output: Any = subprocess.PIPE) -> Any:
    command = [sys.executable, "-c", script, *map(str, arguments)]
    return subprocess.Popen(command, stdout=output, text=True)


def said(lines: list[str]) -> list[Any]:
    """Return what a writer reported; a killed one may end in the middle of a line."""
    return [json.loads(line) for line in lines if line.endswith("]\n")]


def item_of(recorded: Any) -> Any:
    return json.loads(recorded.event.items[0]["content"])


async def followed(url: str, count: int) -> list[Any]:
    """Return the first events of a log as a subscriber sees them."""
    async with EventLog.open(url) as log, aclosing(log.subscribe(poll_seconds=0.02)) as events:
        async with asyncio.timeout(90):
            return [await anext(events) for _ in range(count)]


async def test_processes_share_sessions_and_a_follower_sees_each_event_once_in_order(
    server: Server,
) -> None:
    url = server.url()
    ConversationLog.open_sync(url).close()
    shared, rounds, writers = [f"s{number}" for number in range(4)], 8, 3
    following = asyncio.create_task(followed(url, writers * rounds * len(shared)))
    processes = [started(WRITER, url, f"w{number}", rounds, *shared) for number in range(writers)]
    seen = await following
    for process in processes:
        await asyncio.to_thread(process.communicate)
        assert process.returncode == 0
    versions = defaultdict(list)
    for recorded in seen:
        versions[recorded.session_id].append(recorded.version)
    assert versions == {name: [*range(1, writers * rounds + 1)] for name in shared}
    by_writer = defaultdict(list)
    for recorded in seen:
        name, session_id, number = item_of(recorded)
        by_writer[name, session_id].append(number)
    assert all(numbers == [*range(rounds)] for numbers in by_writer.values())
    async with ConversationLog.open(url) as log:
        assert (await log.verify()).findings == ()
        assert len(await EventLogSession("s0", log).get_items()) == writers * rounds


async def test_processes_that_open_a_new_log_at_once_create_one_log(server: Server) -> None:
    url = server.url()
    processes = [started(WRITER, url, f"w{number}", 3, "s") for number in range(4)]
    for process in processes:
        await asyncio.to_thread(process.communicate)
        assert process.returncode == 0
    async with ConversationLog.open(url) as log:
        assert (await log.verify()).events == 12


async def test_items_that_processes_pop_at_once_are_popped_once(server: Server) -> None:
    url = server.url()
    async with ConversationLog.open(url) as log:
        await EventLogSession("shared", log).add_items(
            [{"role": "user", "content": str(number)} for number in range(60)]
        )
        processes = [started(POPPER, url, 25) for _ in range(3)]
        outputs = [(await asyncio.to_thread(process.communicate))[0] for process in processes]
        popped = Counter(line for output in outputs for line in output.splitlines())
        assert popped == {**{str(number): 1 for number in range(60)}, "None": 15}
        assert (await log.verify()).findings == ()


@pytest.mark.parametrize(
    ("seed_of_kills", "kills"), [(0, 3), (1, 3), pytest.param(2, 100, marks=pytest.mark.proof)]
)
async def test_a_killed_writer_loses_nothing_that_it_acknowledged(
    server: Server, tmp_path: Path, seed_of_kills: int, kills: int
) -> None:
    url, chance = server.url(), random.Random(seed_of_kills)
    ConversationLog.open_sync(url).close()
    acknowledged = []
    for turn in range(kills):
        output = tmp_path / str(turn)
        with output.open("w") as file:
            process = started(WRITER, url, turn, 10_000, "a", "b", "c", output=file)
            while output.stat().st_size < 100:  # noqa: ASYNC110 - another process writes it
                await asyncio.sleep(0.01)
            await asyncio.sleep(chance.uniform(0.05, 0.4))
            process.send_signal(signal.SIGKILL)
            process.wait()
        acknowledged += said(output.read_text().splitlines(keepends=True))
    async with ConversationLog.open(url) as log:
        assert (await log.verify()).findings == ()
        stored = Counter([str(item_of(recorded)) async for recorded in log.read()])
    assert acknowledged
    assert max(stored.values()) == 1
    assert {str(each) for each in acknowledged} <= stored.keys()


async def test_a_server_that_crashes_under_writers_costs_no_event(
    request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    from tests import postgres

    programs = postgres.programs()
    request.getfixturevalue("server")  # skips where there is no server
    assert programs is not None
    with postgres.running(programs) as own:
        own.stop("fast")
        own.start(fsync="on")
        url = own.url()
        ConversationLog.open_sync(url).close()
        output = tmp_path / "said"
        with output.open("w") as file:
            process = started(WRITER, url, "w", 50, "a", "b", "c", output=file)
            for _ in range(3):
                size = output.stat().st_size
                while output.stat().st_size <= size + 200 and process.poll() is None:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
                await asyncio.to_thread(own.stop, "immediate")
                await asyncio.to_thread(own.start, fsync="on")
            assert await asyncio.to_thread(process.wait, 100) == 0
        acknowledged = said(output.read_text().splitlines(keepends=True))
        async with ConversationLog.open(url) as log:
            assert (await log.verify()).findings == ()
            assert await log.query(lambda tx: list(tx.engine.problems(tx))) == []
            stored = [str(item_of(recorded)) async for recorded in log.read()]
    assert sorted(stored) == sorted(str(each) for each in acknowledged)
    assert len(stored) == 150


# -- forks ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["write", "read", "scan"])
def test_a_child_that_a_unit_forks_ends_and_leaves_the_transaction_to_its_parent(
    server: Server, kind: str, capfd: pytest.CaptureFixture[str]
) -> None:
    log = ConversationLog.open_sync(server.url())
    children: list[int] = []

    def unit(tx: Any) -> Any:
        cursor = tx.execute("SELECT 1 UNION SELECT 2 ORDER BY 1")
        children.append(os.fork())
        return cursor.fetchall()

    run = {
        "write": lambda: log.store.write_sync(unit),
        "read": lambda: log.store.read_sync(unit),
        "scan": lambda: log.store.read_sync(unit, scan=True),
    }
    assert run[kind]() == [(1,), (2,)]
    assert exit_status(children[0]) == 70
    assert "a unit of work forked" in capfd.readouterr().err
    assert log.store.write_sync(lambda tx: tx.one("SELECT 1")) == (1,)
    log.close()


def test_parent_and_child_have_connections_of_their_own_after_a_fork(server: Server) -> None:
    log = ConversationLog.open_sync(server.url())

    def connection(tx: Any) -> Any:
        return tx.one("SELECT pg_backend_pid()")

    before = log.store.write_sync(connection)
    child = fork(
        lambda: log.store.write_sync(lambda tx: tx.execute("CREATE TABLE made (n INTEGER)"))
    )
    assert exit_status(child) == 0
    assert log.store.write_sync(connection) != before
    assert "made" in log.store.read_sync(lambda tx: tx.engine.table_names(tx))
    log.close()
