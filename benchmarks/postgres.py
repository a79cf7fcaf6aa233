"""
The log on PostgreSQL beside the SDK's SQLAlchemySession and plain inserts: python -m benchmarks.postgres.

It starts its own server, with fsync, and a proxy that delays the network. It needs a PostgreSQL server's
programs, and asyncpg and SQLAlchemy: the extra ``bench``. Compare the ratios of one run, not its times.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import socket
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlsplit

import psycopg
from rich.console import Console
from rich.table import Table

from agents_eventlog.adapters.conversations.log import ConversationLog
from agents_eventlog.adapters.openai_agents.session import EventLogSession
from agents_eventlog.eventlog.storage.postgres import dsn
from benchmarks.compare import in_turns
from benchmarks.machine import load
from benchmarks.turns import adds
from tests import postgres

if TYPE_CHECKING:
    from collections.abc import Iterator

    from agents.items import TResponseInputItem

LENGTHS = (10, 100, 1_000, 10_000)
"""How many turns of four items a session has."""
DELAYS_MS = (0, 1, 5)
"""Milliseconds of a round trip that the proxy adds, at least."""
FAR_MS = 20
"""A round trip beside which the machine's own time hardly counts."""
CLIENTS = (1, 8, 32)
CROWD = 100
FILL_TURNS = 200

PLAIN = """
    CREATE TABLE plain_events (id BIGSERIAL PRIMARY KEY, session_id TEXT, version BIGINT,
        created_at BIGINT, data BYTEA, digest BYTEA, UNIQUE (session_id, version));
    CREATE TABLE plain_items (session_id TEXT, number BIGINT, event BIGINT,
        PRIMARY KEY (session_id, number))
"""


class Session(Protocol):
    """What is measured of a session."""

    async def add_items(self, items: list[TResponseInputItem]) -> None: ...
    async def get_items(self, limit: int | None = None) -> list[TResponseInputItem]: ...


class Contestant:
    """Opens sessions of one class on one server."""

    def __init__(self, name: str, open_session: Callable[[str], Session]) -> None:
        self.name = name
        self.open = open_session


# -- the network ----------------------------------------------------------------------------------


async def _forward(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, delay: float
) -> None:
    loop = asyncio.get_running_loop()
    while data := await reader.read(65_536):
        if delay:
            loop.call_later(delay, writer.write, data)
        else:
            writer.write(data)
    loop.call_later(delay, writer.close)


def _proxy(target: str, listener: socket.socket, delay: float) -> None:
    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from_server, to_server = await asyncio.open_unix_connection(target)
        await asyncio.gather(
            _forward(reader, to_server, delay), _forward(from_server, writer, delay)
        )

    async def serve() -> None:
        server = await asyncio.start_server(accept, sock=listener)
        await server.serve_forever()

    asyncio.run(serve())


@contextmanager
def delayed(server: postgres.Server, milliseconds: float) -> Iterator[int]:
    """Provide a port of the server behind a process that delays each direction by half."""
    target = str(next(server.folder.glob(".s.PGSQL.*[0-9]")))
    listener = socket.create_server(("127.0.0.1", 0), backlog=200)
    process = multiprocessing.get_context("fork").Process(
        target=_proxy, args=(target, listener, milliseconds / 2_000), daemon=True
    )
    process.start()
    try:
        yield listener.getsockname()[1]
    finally:
        process.kill()
        listener.close()


def url(port: int, schema: str) -> str:
    """Return the URL of a log behind the proxy."""
    return f"postgresql://eventlog@127.0.0.1:{port}/postgres?schema={schema}&sslmode=disable"


def round_trip_ms(address: str) -> float:
    """Return the median time of ``SELECT 1``."""
    times = []
    with psycopg.connect(dsn.target(dsn.resolve(address)).conninfo, autocommit=True) as connection:
        for _ in range(50):
            start = time.perf_counter()
            connection.execute("SELECT 1")
            times.append(time.perf_counter() - start)
    return statistics.median(times) * 1_000


# -- sessions -------------------------------------------------------------------------------------


async def fill(session: Session, turns: int) -> None:
    """Let a new session have this many turns."""
    for first in range(1, turns + 1, FILL_TURNS):
        last = min(first + FILL_TURNS, turns + 1)
        await session.add_items(
            [item for n in range(first, last) for items in adds(n) for item in items]
        )


async def add_turn(session: Session) -> None:
    """Add what a run of a turn adds."""
    for items in adds(0):
        await session.add_items(items)


async def read_newest(session: Session) -> None:
    """Read the newest 20 items."""
    assert len(await session.get_items(limit=20)) == 20


async def median_ms(action: Callable[[], Awaitable[object]], times: int) -> float:
    """Return the median time of an action, in milliseconds."""
    taken = []
    for _ in range(times):
        start = time.perf_counter()
        await action()
        taken.append(time.perf_counter() - start)
    return statistics.median(taken) * 1_000


async def measure_growth(
    contestants: list[Contestant], lengths: tuple[int, ...], rounds: int
) -> list[list[str]]:
    """Measure a turn and the newest 20 items of sessions of each length."""
    rows = []
    for length in lengths:
        sessions = {c.name: c.open(f"{length} turns") for c in contestants}
        for session in sessions.values():
            await fill(session, length)
        taken: dict[str, dict[str, list[float]]] = {"a turn": {}, "newest 20 items": {}}
        for contestant in in_turns(contestants, rounds):
            session = sessions[contestant.name]

            for what, action in (("a turn", add_turn), ("newest 20 items", read_newest)):
                milliseconds = await median_ms(partial(action, session), 10)
                taken[what].setdefault(contestant.name, []).append(milliseconds)
        for what, by_name in taken.items():
            sdk, ours = (statistics.median(by_name[c.name]) for c in contestants)
            name = f"{what}, session of {length:,} turns"
            rows.append([name, f"{sdk:.2f} ms", f"{ours:.2f} ms", f"{sdk / ours:.2f}"])
    return rows


async def measure_crowd(contestants: list[Contestant], turns: int, rounds: int) -> list[list[str]]:
    """Let 100 sessions add turns at once; measure adds a second, and the client's processor time."""
    rates: dict[str, list[float]] = {c.name: [] for c in contestants}
    costs: dict[str, list[float]] = {c.name: [] for c in contestants}

    async def talk(session: Session) -> None:
        for number in range(1, turns + 1):
            for items in adds(number):
                await session.add_items(items)

    for number, contestant in enumerate(in_turns(contestants, rounds)):
        sessions = [contestant.open(f"crowd {number} {n}") for n in range(CROWD)]
        await sessions[0].get_items()
        wall, processor = time.perf_counter(), time.process_time()
        await asyncio.gather(*map(talk, sessions))
        count = CROWD * turns * 2
        rates[contestant.name].append(count / (time.perf_counter() - wall))
        costs[contestant.name].append((time.process_time() - processor) / count * 1_000)
    sdk, ours = (statistics.median(rates[c.name]) for c in contestants)
    sdk_cost, our_cost = (statistics.median(costs[c.name]) for c in contestants)
    return [
        ["100 sessions adding at once", f"{sdk:,.0f}/s", f"{ours:,.0f}/s", f"{ours / sdk:.2f}"],
        [
            "the client's processor time for each of their adds",
            f"{sdk_cost:.2f} ms",
            f"{our_cost:.2f} ms",
            f"{sdk_cost / our_cost:.2f}",
        ],
    ]


async def measure_round_trips(contestants: list[Contestant], trip_ms: float) -> list[list[str]]:
    """Express times on a slow network in round trips, which do not depend on the machine."""

    async def add_by(sessions: list[Session]) -> None:
        await asyncio.gather(*(session.add_items(adds(1)[0]) for session in sessions))

    taken: dict[str, list[float]] = {}
    for contestant in contestants:
        session = contestant.open("far")
        crowd = [contestant.open(f"far {number}") for number in range(8)]
        await asyncio.gather(*(fill(each, 10) for each in (session, *crowd)))
        for what, action in (
            ("add_items", partial(session.add_items, adds(1)[0])),
            ("newest 20 items", partial(read_newest, session)),
            ("add_items of 8 sessions at once", partial(add_by, crowd)),
        ):
            taken.setdefault(what, []).append(await median_ms(action, 3) / trip_ms)
    return [
        [what, f"{sdk:.1f}", f"{ours:.1f}", f"{sdk / ours:.2f}"]
        for what, (sdk, ours) in taken.items()
    ]


# -- plain inserts --------------------------------------------------------------------------------


async def plain_adds(address: str, clients: int, turns: int) -> float:
    """Return how many adds a second plain inserts reach: an event and its items, in one round trip."""
    conninfo = dsn.target(dsn.resolve(address)).conninfo

    async def insert(client: int, connection: psycopg.AsyncConnection[Any]) -> None:
        run, version = f"{time.monotonic_ns()} {client}", 0
        for number in range(1, turns + 1):
            for items in adds(number):
                version += 1
                data = repr(items).encode()
                async with connection.pipeline():
                    await connection.execute("BEGIN")
                    await connection.execute(
                        "INSERT INTO plain_events (session_id, version, created_at, data, digest)"
                        " VALUES (%s, %s, %s, %s, %s)",
                        (run, version, time.time_ns(), data, bytes(32)),
                    )
                    for index in range(len(items)):
                        await connection.execute(
                            "INSERT INTO plain_items VALUES (%s, %s, %s)",
                            (run, version * 10 + index, version),
                        )
                    await connection.execute("COMMIT")

    async with AsyncExitStack() as stack:
        connections = [
            await stack.enter_async_context(
                await psycopg.AsyncConnection.connect(conninfo, autocommit=True)
            )
            for _ in range(clients)
        ]
        start = time.perf_counter()
        await asyncio.gather(*(insert(n, each) for n, each in enumerate(connections)))
        return clients * turns * 2 / (time.perf_counter() - start)


async def log_adds(address: str, clients: int, turns: int) -> float:
    """Return how many adds a second the sessions of one process reach in one log."""
    async with ConversationLog.open(address) as log:
        name = str(time.monotonic_ns())

        async def talk(client: int) -> None:
            session = EventLogSession(f"{name} {client}", log)
            for number in range(1, turns + 1):
                for items in adds(number):
                    await session.add_items(items)

        await EventLogSession(f"{name} first", log).add_items(adds(1)[0])
        start = time.perf_counter()
        await asyncio.gather(*map(talk, range(clients)))
        return clients * turns * 2 / (time.perf_counter() - start)


async def measure_inserts(server: postgres.Server, turns: int, rounds: int) -> list[list[str]]:
    """Compare the log with plain inserts, by the number of clients and the network's delay."""
    with psycopg.connect(f"host={server.folder} user=eventlog dbname=postgres") as connection:
        connection.execute(PLAIN)
    rows = []
    for delay in DELAYS_MS:
        with delayed(server, delay) as port:
            address = url(port, "inserts")
            trip = round_trip_ms(address)
            for clients in CLIENTS:
                plain, ours = [], []
                for _ in range(rounds):
                    plain.append(await plain_adds(address, clients, turns))
                    ours.append(await log_adds(address, clients, turns))
                inserts, log = statistics.median(plain), statistics.median(ours)
                name = f"{clients} clients, {delay} ms (round trip {trip:.1f} ms)"
                rows.append([name, f"{inserts:,.0f}/s", f"{log:,.0f}/s", f"{log / inserts:.2f}"])
    return rows


# -- the command ----------------------------------------------------------------------------------


def print_table(title: str, columns: list[str], rows: list[list[str]]) -> None:
    """Print one table."""
    table = Table(*columns, title=title, title_justify="left")
    for row in rows:
        table.add_row(*row)
    Console(width=None if sys.stdout.isatty() else 120).print(table)


async def compare(server: postgres.Server, *, quick: bool) -> None:
    """Measure and print everything."""
    from agents.extensions.memory import SQLAlchemySession
    from sqlalchemy.ext.asyncio import create_async_engine

    rounds, turns = (1, 2) if quick else (3, 5)
    columns = ["", "SQLAlchemySession", "this log", "times better"]
    for delay in (0, FAR_MS):
        with delayed(server, delay) as port:
            address = urlsplit(url(port, "beside"))
            engine = create_async_engine(f"postgresql+asyncpg://{address.netloc}{address.path}")
            await SQLAlchemySession("first", engine=engine, create_tables=True).get_items()
            async with ConversationLog.open(url(port, "beside")) as log:
                contestants = [
                    Contestant("SDK", partial(SQLAlchemySession, engine=engine)),
                    Contestant("log", partial(EventLogSession, log=log)),
                ]
                if delay:
                    title = "Beside SQLAlchemySession: round trips"
                    rows = await measure_round_trips(
                        contestants, round_trip_ms(url(port, "beside"))
                    )
                else:
                    title = "Beside SQLAlchemySession with asyncpg, on one server"
                    lengths = LENGTHS[:3] if quick else LENGTHS
                    rows = await measure_growth(contestants, lengths, rounds)
                    rows += await measure_crowd(contestants, turns, rounds)
            await engine.dispose()
        print_table(title, columns, rows)
    inserts = await measure_inserts(server, turns * 2, rounds)
    columns = ["", "plain inserts", "this log", "log / inserts"]
    print_table("Beside plain pipelined inserts: adds a second", columns, inserts)


def main() -> int:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer rounds, up to 1,000 turns")
    chosen = parser.parse_args()
    programs = postgres.programs()
    if programs is None:
        print("the programs of a PostgreSQL server are not installed", file=sys.stderr)
        return 2
    print(f"load {load()}")
    with postgres.running(programs) as server:
        server.stop("fast")
        server.start(fsync="on", autovacuum="on")
        asyncio.run(compare(server, quick=chosen.quick))
    return 0


if __name__ == "__main__":
    sys.exit(main())
