"""
What fails under a log on PostgreSQL: connections, locks, disks, servers.

No acknowledged event is lost, none is there twice, the order of each session is exact, and ``verify`` finds
nothing. The loops of 100 are long, and marked ``proof``.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import aclosing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import psycopg
import pytest

from agents_eventlog import Budget
from agents_eventlog.adapters.conversations.log import ConversationLog
from agents_eventlog.adapters.openai_agents.session import EventLogSession
from agents_eventlog.eventlog import EventLog, ItemsAdded, append
from agents_eventlog.eventlog.errors import (
    BusyError,
    DiskFullError,
    OpenError,
)
from agents_eventlog.eventlog.storage.postgres import dsn
from agents_eventlog.projections import Projections, Usage
from tests import postgres
from tests.faults.support import ran, waiting_at_most
from tests.postgres import Proxy, Server, raw

if TYPE_CHECKING:
    from collections.abc import Iterator

    from agents_eventlog.eventlog import Transaction


def added(text: str = "x") -> ItemsAdded:
    return ItemsAdded(items=[{"role": "user", "content": text}])


@pytest.fixture
def url(server: Server) -> str:
    return server.url()


@pytest.fixture
def own(server: Server) -> Iterator[Server]:
    """Run a server for one test, which may stop it."""
    programs = postgres.programs()
    assert programs is not None
    with postgres.running(programs) as started:
        yield started


# -- connections --------------------------------------------------------------------------------


async def test_an_append_whose_connection_is_cut_at_any_message_happens_once(
    server: Server,
) -> None:
    proxy = Proxy(server)
    schema = dsn.target(dsn.resolve(server.url())).schema
    async with EventLog.open(proxy.url(server, schema)) as log:
        await log.append("s", added())
        cuts = 0
        while True:
            proxy.cut_after = cuts
            assert (await log.append("s", added(str(cuts)))).version == cuts + 2
            if proxy.cut_after is not None:
                break  # there were fewer messages
            cuts += 1
        proxy.cut_after = None
        assert cuts > 20
        assert (await log.verify()).findings == ()
        assert (await log.verify()).events == cuts + 2
    proxy.close()


async def test_a_server_with_no_connection_left_is_named_and_used_again_later(
    own: Server,
) -> None:
    own.stop("fast")
    own.start(max_connections="8", superuser_reserved_connections="0")
    url = own.url()
    async with EventLog.open(url) as log:
        await log.append("s", added())
        held = list(as_many_as_there_are(own))
        with pytest.raises(OpenError, match="too many clients"):
            await EventLog.open(own.url())
        assert (await log.append("s", added())).version == 2  # it has its connection
        for connection in held:
            connection.close()
        async with EventLog.open(own.url()) as other:
            assert (await other.append("s", added())).version == 1


def as_many_as_there_are(server: Server) -> Iterator[psycopg.Connection[Any]]:
    """Connect until the server refuses."""
    with suppress(psycopg.OperationalError):
        while True:
            yield psycopg.connect(f"host={server.folder} user=eventlog dbname=postgres")


# -- locks and time -----------------------------------------------------------------------------


async def test_a_unit_that_the_server_ends_for_a_deadlock_runs_again(url: str) -> None:
    def unit(tx: Transaction) -> None:
        tx.one("SELECT n FROM pairs WHERE n = 2 FOR UPDATE")
        locked.set()
        tx.one("SELECT n FROM pairs WHERE n = 1 FOR UPDATE")
        append(tx, "s", added())

    locked = threading.Event()
    async with EventLog.open(url) as log:
        with raw(url) as connection:
            connection.execute("CREATE TABLE pairs AS SELECT generate_series(1, 2) AS n")
            connection.execute("SET deadlock_timeout = '60s'")  # so that the unit is the victim
            connection.execute("BEGIN")
            connection.execute("SELECT n FROM pairs WHERE n = 1 FOR UPDATE")
            writing = asyncio.create_task(log.write(unit))
            await asyncio.to_thread(locked.wait, 30)
            await asyncio.to_thread(
                connection.execute, "SELECT n FROM pairs WHERE n = 2 FOR UPDATE"
            )
            connection.execute("COMMIT")
        await writing
        assert await log.version("s") == 1


async def test_a_statement_that_the_server_stops_says_why_and_writes_nothing(
    server: Server, url: str
) -> None:
    with raw(url) as connection:
        connection.execute("CREATE ROLE hasty LOGIN SUPERUSER")
        connection.execute("ALTER ROLE hasty SET statement_timeout = '300ms'")

    def slow(tx: Transaction) -> None:
        append(tx, "s", added())
        tx.one("SELECT pg_sleep(5)")

    async with EventLog.open(url.replace("eventlog@", "hasty@")) as log:
        with pytest.raises(BusyError, match="statement timeout"):
            await log.write(slow)
        with pytest.raises(BusyError, match="statement timeout"):
            await log.query(lambda tx: tx.one("SELECT pg_sleep(5)"))
        assert (await log.append("s", added())).version == 1


async def test_a_program_whose_projection_is_older_continues_beside_a_newer_one(
    url: str,
) -> None:
    class Newer(Usage):
        version = Usage.version + 1

    async with EventLog.open(url, projections=Projections(Usage())) as older:
        await older.append("s", added())
        newer_url = f"{url}&application_name=newer"  # a store of its own, as in another process
        async with EventLog.open(newer_url, projections=Projections(Newer())) as newer:
            await newer.append("s", added())
            assert (await older.append("s", added())).version == 3
            assert (await newer.append("s", added())).version == 4
            assert (await newer.verify()).ok


# -- disks --------------------------------------------------------------------------------------


class Disk:
    """A small disk of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def mount(self, size: str) -> bool:
        options = f"{size},mode=777"
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(self.folder)]
        return subprocess.run(command, check=False).returncode == 0

    def grow(self, size: str) -> None:
        subprocess.run(["mount", "-o", f"remount,{size}", str(self.folder)], check=True)

    def unmount(self) -> None:
        subprocess.run(["umount", str(self.folder)], check=True)


@pytest.fixture
def disk(own: Server) -> Iterator[Disk]:
    """Mount a disk of 6 MB for a tablespace of the server."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a disk")
    made = Disk(Path(tempfile.mkdtemp(prefix="eventlog-disk-")))
    try:
        if not made.mount("size=6m"):
            pytest.skip("a disk cannot be mounted here")
        own.take(made.folder)
        yield made
        own.stop()
        made.unmount()
    finally:
        made.folder.rmdir()


async def until_it_fails(log: EventLog) -> int:
    """Append until an error is raised; return how many events were acknowledged."""
    written = 0
    with suppress(DiskFullError):
        while written < 1_000:
            await log.append("s", [added(os.urandom(50_000).hex())] * 3)
            written += 3
    return written


async def test_a_full_disk_is_named_and_nothing_is_half_written(own: Server, disk: Disk) -> None:
    url = own.url()
    async with EventLog.open(url) as log:
        with raw(url) as connection:
            connection.execute(f"CREATE TABLESPACE small LOCATION '{disk.folder}'")
            connection.execute("ALTER TABLE events SET TABLESPACE small")
        written = await until_it_fails(log)
        assert 0 < written < 1_000
        assert await log.version("s") == written
        await asyncio.to_thread(disk.grow, "size=64m")
        assert (await log.append("s", added())).version == written + 1
        assert (await log.verify()).findings == ()


# -- servers ------------------------------------------------------------------------------------


class Writers:
    """Tasks that add numbers to sessions, and remember which of them were acknowledged."""

    def __init__(self, log: ConversationLog, sessions: int = 4) -> None:
        self._log = log
        self._is_stopped = False
        self.acknowledged: dict[str, list[int]] = {f"s{n}": [] for n in range(sessions)}
        self._tasks = [asyncio.create_task(self._write(name)) for name in self.acknowledged]

    async def _write(self, name: str) -> None:
        session, number = EventLogSession(name, self._log), 0
        while not self._is_stopped:
            await session.add_items([{"role": "user", "content": f"{number}"}])
            self.acknowledged[name].append(number)
            number += 1

    async def more(self) -> None:
        """Wait until each has written again."""
        before = {name: len(numbers) for name, numbers in self.acknowledged.items()}
        async with asyncio.timeout(60):
            while any(len(self.acknowledged[name]) < count + 2 for name, count in before.items()):
                for task in self._tasks:
                    if task.done():
                        task.result()
                await asyncio.sleep(0.01)

    async def stop(self) -> None:
        self._is_stopped = True
        await asyncio.gather(*self._tasks)

    async def check(self, log: ConversationLog) -> None:
        """Check that each session has exactly what was acknowledged, in order."""
        assert (await log.verify()).findings == ()
        for name, numbers in self.acknowledged.items():
            items: list[Any] = await EventLogSession(name, log).get_items()
            assert [int(item["content"]) for item in items] == numbers == [*range(len(numbers))]


ROUNDS = pytest.mark.parametrize("rounds", [2, pytest.param(100, marks=pytest.mark.proof)])


@ROUNDS
@pytest.mark.parametrize("how", ["immediate", "kill"])
async def test_a_server_that_ends_at_any_moment_costs_no_acknowledged_event(
    own: Server, how: str, rounds: int
) -> None:
    own.stop("fast")
    own.start(fsync="on")
    with waiting_at_most(60):
        async with ConversationLog.open(own.url()) as log:
            writers = Writers(log)
            for _ in range(rounds):
                await writers.more()
                await asyncio.to_thread(own.kill if how == "kill" else own.stop)
                await asyncio.to_thread(own.start, fsync="on")
            await writers.more()
            await writers.stop()
            await writers.check(log)


@pytest.mark.parametrize("rounds", [1, pytest.param(10, marks=pytest.mark.proof)])
async def test_a_failover_to_a_replica_costs_no_acknowledged_event(
    own: Server, rounds: int
) -> None:
    folders = [Path(tempfile.mkdtemp(prefix="eventlog-standby-")) for _ in range(rounds)]
    hosts = ",".join(str(folder) for folder in (own.folder, *folders))
    query = urlencode({"host": hosts, "target_session_attrs": "read-write", "schema": "moved"})
    own.stop("fast")
    own.start(fsync="on")
    primary, replicas = own, []
    try:
        with waiting_at_most(60):
            async with ConversationLog.open(f"postgresql://eventlog@/postgres?{query}") as log:
                writers = Writers(log)
                for folder in folders:
                    replica = await asyncio.to_thread(primary.standby, folder)
                    await asyncio.to_thread(replica.start, fsync="on")
                    replicas.append(replica)
                    await asyncio.to_thread(confirm_commits, primary)
                    await writers.more()
                    await asyncio.to_thread(primary.stop)
                    await asyncio.to_thread(replica.promote)
                    primary = replica
                    await writers.more()
                await writers.stop()
                await writers.check(log)
    finally:
        for replica in replicas:
            replica.stop()
        for folder in folders:
            shutil.rmtree(folder, ignore_errors=True)


def confirm_commits(primary: Server) -> None:
    """Let commits wait for the replica, once it streams."""
    with raw(primary.url()) as connection:
        connection.execute("ALTER SYSTEM SET synchronous_standby_names = '*'")
        connection.execute("SELECT pg_reload_conf()")
        states = "SELECT sync_state FROM pg_stat_replication"
        deadline = time.monotonic() + 60
        while connection.execute(states).fetchall() != [("sync",)]:
            assert time.monotonic() < deadline
            time.sleep(0.05)


async def test_doctor_notes_replicas_that_are_behind_or_confirm_nothing(own: Server) -> None:
    folder = Path(tempfile.mkdtemp(prefix="eventlog-standby-"))
    replica = own.standby(folder)
    replica.start()
    url = own.url()
    try:
        async with EventLog.open(url) as log:

            async def noted() -> set[str]:
                found = await log.query(lambda tx: list(tx.engine.problems(tx)))
                return {each.problem for each in found if each.subject == "replication"}

            await log.append("s", added())
            unconfirmed = "no replica confirms commits: a failover can lose acknowledged events"
            assert await noted() == {unconfirmed}
            with raw(replica.url()) as connection:
                connection.execute("SELECT pg_wal_replay_pause()")
            with raw(url) as connection:
                for _ in range(2):  # each begins another segment of the write-ahead log
                    await log.append("s", added())
                    connection.execute("SELECT pg_switch_wal()")
            assert any("the replica 'standby' is 3" in each for each in await noted())
            with raw(replica.url()) as connection:
                connection.execute("SELECT pg_wal_replay_resume()")
            await asyncio.to_thread(confirm_commits, own)
            assert unconfirmed not in await noted()
        replica_url = replica.url(dsn.target(dsn.resolve(url)).schema)
        async with EventLog.open(replica_url, read_only=True) as log:
            async with asyncio.timeout(30):
                while await log.version("s") < 3:  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
            assert await noted() == set()
    finally:
        replica.stop()
        shutil.rmtree(folder, ignore_errors=True)


# -- many of everything -------------------------------------------------------------------------

TALK = """
import asyncio, sys
from agents_eventlog.adapters.conversations.log import ConversationLog
from agents_eventlog.adapters.openai_agents.session import EventLogSession

async def main(url, sessions, rounds):
    async with ConversationLog.open(url) as log:
        async def talk(name):
            for number in range(rounds):
                item = {"role": "user", "content": str(number)}
                await EventLogSession(name, log).add_items([item])
        await asyncio.gather(*(talk(f"s{number}") for number in range(sessions)))

asyncio.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
"""


@pytest.mark.parametrize(
    ("processes", "sessions", "rounds"),
    [(2, 10, 3), pytest.param(8, 100, 10, marks=pytest.mark.proof)],
)
async def test_subscribers_miss_double_and_reorder_nothing_beside_many_writers(
    url: str, processes: int, sessions: int, rounds: int
) -> None:
    ConversationLog.open_sync(url).close()
    total = processes * sessions * rounds

    async def followed(number: int) -> list[tuple[str, int]]:
        # Each with a store of its own, as in a process of its own.
        async with (
            EventLog.open(f"{url}&application_name=f{number}") as log,
            aclosing(log.subscribe(poll_seconds=0.1)) as events,
        ):
            seen = []
            async for recorded in events:
                seen.append((recorded.session_id, recorded.version))
                if len(seen) == total:
                    return seen
        raise AssertionError("the subscription ended")

    following = [asyncio.create_task(followed(number)) for number in range(3)]
    command = [sys.executable, "-c", TALK, url, str(sessions), str(rounds)]
    for process in [await asyncio.to_thread(subprocess.Popen, command) for _ in range(processes)]:
        assert await asyncio.to_thread(process.wait) == 0
    expected = {f"s{number}": [*range(1, processes * rounds + 1)] for number in range(sessions)}
    for seen in await asyncio.gather(*following):
        versions: dict[str, list[int]] = {}
        for session_id, version in seen:
            versions.setdefault(session_id, []).append(version)
        assert versions == expected
    async with ConversationLog.open(url) as log:
        assert (await log.verify()).findings == ()


async def test_a_lease_is_held_by_one_of_many_processes_and_passes_on(url: str) -> None:
    ConversationLog.open_sync(url).close()
    held = 0

    async def work(number: int) -> None:
        nonlocal held
        # Each with a store of its own, as in a process of its own.
        async with ConversationLog.open(f"{url}&application_name=p{number}") as log:
            session = EventLogSession("s", log)
            for _ in range(3):
                async with session.exclusive(wait_seconds=60):
                    held += 1
                    assert held == 1
                    items = await session.get_items()
                    await asyncio.sleep(0.01)
                    await session.add_items([{"role": "user", "content": f"{len(items)}"}])
                    held -= 1

    await asyncio.gather(*map(work, range(4)))
    async with ConversationLog.open(url) as log:
        items: list[Any] = await EventLogSession("s", log).get_items()
        assert [item["content"] for item in items] == [str(number) for number in range(12)]


async def test_a_budget_counts_what_all_servers_have_used(url: str) -> None:
    budget = Budget(tokens=40, per="user")
    used = []
    for number in range(3):
        async with ConversationLog.open(f"{url}&application_name=p{number}") as log:
            await EventLogSession(f"s{number}", log, user_id="ann").store_run_usage(ran(15))
            (usage,) = await log.budget_usage(budget)
            used.append((usage.tokens, usage.is_exceeded))
    assert used == [(15, False), (30, False), (45, True)]
