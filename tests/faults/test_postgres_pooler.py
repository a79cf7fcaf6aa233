"""
A log behind PgBouncer in transaction mode: each transaction may have another connection of the server.

With fewer connections than the log has, so that each serves transactions of all of them in turn.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import pytest

from agents_eventlog.adapters.conversations.log import ConversationLog
from agents_eventlog.adapters.openai_agents.session import EventLogSession
from agents_eventlog.eventlog import EventLog, ItemsAdded
from agents_eventlog.eventlog.errors import OpenError
from agents_eventlog.eventlog.storage.postgres import dsn
from tests import postgres
from tests.adapters.looking import run
from tests.faults.support import ran, waiting_at_most

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.postgres import Pooler, Server


@pytest.fixture(autouse=True)
def _needs_pooler() -> None:
    if shutil.which(postgres.POOLER) is None:
        reason = "PgBouncer is not installed"
        if os.environ.get(postgres.REQUIRED):
            pytest.fail(reason)
        pytest.skip(reason)


@pytest.fixture
def pooler(server: Server) -> Iterator[Pooler]:
    """Run PgBouncer, with two connections to the server."""
    with postgres.pooling(server, connections=2) as started:
        yield started


def said(text: str) -> Any:
    return {"role": "user", "content": text}


def other(url: str, number: int = 1) -> str:
    """Return the same URL for a store of its own, as in another process."""
    return f"{url}&application_name=p{number}"


async def test_sessions_of_many_stores_share_two_connections(pooler: Pooler) -> None:
    url = pooler.url()

    async def talk(log: ConversationLog, name: str) -> None:
        session = EventLogSession(name, log)
        for number in range(8):  # psycopg prepares a statement at its sixth use
            await session.add_items([said(f"{name} {number}"), said("later removed")])
            await session.pop_item()
            await session.store_run_usage(ran(10))
            assert len(await session.get_items()) == number + 1
        await session.create_branch_from_turn(3, "shorter")

    async def work(number: int) -> None:
        async with ConversationLog.open(other(url, number)) as log:
            await asyncio.gather(*(talk(log, f"s{number} {n}") for n in range(4)))

    await asyncio.gather(*map(work, range(4)))
    async with ConversationLog.open(url) as log:
        verification = await log.verify()
        assert (verification.findings, verification.events) == ((), 4 * 4 * 25)
        for number in range(4):
            session = EventLogSession(f"s{number} 0", log)
            assert len(await session.get_items(branch_id="shorter")) == 2
            usage: Any = await session.get_session_usage()
            assert usage["total_tokens"] == 80
        found = await log.find_items("s2 3 7")
        assert [item["session_id"] for item in found] == ["s2 3"]


async def test_nothing_is_written_to_the_log_that_another_transaction_had_chosen(
    pooler: Pooler,
) -> None:
    urls = [pooler.url() for _ in range(3)]

    async def write(number: int) -> None:
        async with EventLog.open(urls[number]) as log:
            for _ in range(20):
                await log.append(f"s{number}", ItemsAdded(items=[said("x")]))

    await asyncio.gather(*map(write, range(3)))
    for number, url in enumerate(urls):
        async with EventLog.open(url) as log:
            assert (await log.verify()).events == 20
            assert await log.version(f"s{number}") == 20


async def test_a_subscriber_polls_for_what_other_processes_append(pooler: Pooler) -> None:
    url = pooler.url()
    async with (
        EventLog.open(url) as log,
        EventLog.open(other(url)) as elsewhere,
        aclosing(log.subscribe(poll_seconds=0.05)) as events,
    ):
        for number in range(1, 4):
            await elsewhere.append("s", ItemsAdded(items=[said("x")]))
            async with asyncio.timeout(30):
                assert (await anext(events)).version == number


async def test_a_pooler_that_is_killed_costs_and_doubles_no_acknowledged_event(
    pooler: Pooler,
) -> None:
    async with ConversationLog.open(pooler.url()) as log:
        session, stopped = EventLogSession("s", log), asyncio.Event()
        acknowledged = 0

        async def write() -> None:
            nonlocal acknowledged
            while not stopped.is_set():
                await session.add_items([said(str(acknowledged))])
                acknowledged += 1

        writing = asyncio.create_task(write())
        for _ in range(3):
            await asyncio.sleep(0.2)
            await asyncio.to_thread(pooler.kill)
            await asyncio.to_thread(pooler.start)
        stopped.set()
        await writing
        items: list[Any] = await session.get_items()
        assert [item["content"] for item in items] == [str(n) for n in range(acknowledged)]
        assert (await log.verify()).findings == ()


def test_commands_work_through_a_pooler(server: Server, pooler: Pooler) -> None:
    url = pooler.url()

    async def talk() -> None:
        async with ConversationLog.open(url) as log:
            await EventLogSession("s", log).add_items([said("secret")])

    asyncio.run(talk())
    for command in ("sessions", "verify", "replay"):
        assert run(command, url).exit_code == 0
    assert run("erase", url, "--session", "s", "--yes").exit_code == 0
    with postgres.raw(server.url(dsn.target(dsn.resolve(url)).schema)) as connection:
        assert (
            connection.execute(
                "SELECT 1 FROM events WHERE position('secret'::bytea IN data) > 0"
            ).fetchall()
            == []
        )
    assert run("verify", url).exit_code == 0


@pytest.mark.parametrize("ignores", ["extra_float_digits", "options"])
async def test_a_url_without_the_parameter_is_refused_with_advice(
    server: Server, ignores: str
) -> None:
    with postgres.pooling(server, connections=2, ignores=ignores) as pooler:
        url = pooler.url().replace("&pooling=transaction", "")
        with waiting_at_most(0.2), pytest.raises(OpenError, match="add pooling=transaction"):
            await EventLog.open(url)


async def test_another_way_of_pooling_is_refused() -> None:
    with pytest.raises(OpenError, match="invalid pooling: expected 'transaction' or none"):
        await EventLog.open("postgresql://localhost/chats?pooling=statement")
