"""
A service under load: clients on several threads and event loops, at times in a second process.

Two threads have an event loop for as long as the service lives; a third makes one for each request, as
a program that calls ``asyncio.run`` does. After each interval everybody rests, and what the process
holds is sampled.
"""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
import threading
import time
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING

from agents_eventlog import AdvancedSQLiteSession, projections
from agents_eventlog.eventlog import EventLog
from benchmarks import leaks
from benchmarks.clients import Client
from benchmarks.latencies import Latencies

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from benchmarks.leaks import Sample

LOOPS = 2
GUEST_INTERVALS = 10
"""In every so many intervals, another process writes to the file, too."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """
    How many clients there are, and how long they go on: so many intervals.

    An interval ends after so many seconds, or once so many requests were made. ``guest_requests`` are
    those of the other process, 0 for none.
    """

    sessions: int
    intervals: int
    seconds: float | None = None
    requests: int | None = None
    guest_requests: int = 50
    seed: int = 1


@dataclass(frozen=True)
class Interval:
    """What was done in an interval, how long each operation took, what was held at its end."""

    seconds: float
    requests: int
    latencies: dict[str, Latencies]
    sample: Sample


class Service:
    """Runs a plan on a file."""

    def __init__(
        self,
        path: Path,
        plan: Plan,
        open_session: Callable[..., AdvancedSQLiteSession] = AdvancedSQLiteSession,
    ) -> None:
        self._path = path
        self._plan = plan
        self._latencies: dict[str, Latencies] = defaultdict(Latencies)
        self._clients = [
            Client(
                path,
                f"session {number}",
                random.Random(f"{plan.seed} {number}"),
                self._latencies,
                open_session,
            )
            for number in range(max(plan.sessions, LOOPS + 1))
        ]
        self._begin = threading.Barrier(LOOPS + 2)
        self._rest = threading.Barrier(LOOPS + 2)
        self._is_over = False
        self._deadline = 0.0
        self._quota = 0
        self._error: BaseException | None = None

    @property
    def requests(self) -> int:
        """How many requests this process has made so far."""
        return sum(client.requests for client in self._clients)

    def run(self) -> Iterator[Interval]:
        """Yield each interval once it is over. Raises what a client raised."""
        threads = [
            threading.Thread(target=self._guarded, args=(work, self._clients[place :: LOOPS + 1]))
            for place, work in enumerate((*[self._keep_a_loop] * LOOPS, self._make_loops))
        ]
        for thread in threads:
            thread.start()
        try:
            for number in range(1, self._plan.intervals + 1):
                yield self._interval(number)
        except threading.BrokenBarrierError:
            raise self._error or RuntimeError("a thread of clients ended") from None
        finally:
            self._is_over = True
            self._begin.abort()
            self._rest.abort()
            for thread in threads:
                thread.join()

    def _interval(self, number: int) -> Interval:
        plan, before = self._plan, self.requests
        self._latencies.clear()
        start = time.monotonic()
        self._deadline = start + (plan.seconds or float("inf"))
        self._quota += ceil((plan.requests or 10**12) / len(self._clients))
        is_visited = number % GUEST_INTERVALS == 2 and plan.guest_requests
        guest = self._invite(number) if is_visited else None
        try:
            self._begin.wait()
            self._rest.wait()
        except threading.BrokenBarrierError:
            if guest is not None:
                guest.kill()
                guest.wait()
            raise
        seconds = time.monotonic() - start
        if guest is not None and guest.wait() != 0:
            raise RuntimeError(f"the other process ended with {guest.returncode}")
        done = self.requests
        held = leaks.sample(done, self._path)
        return Interval(seconds, done - before, dict(self._latencies), held)

    def _invite(self, number: int) -> subprocess.Popen[bytes]:
        values = (str(self._path), f"{self._plan.seed} guest {number}", self._plan.guest_requests)
        command = [sys.executable, "-m", "benchmarks.guest", *map(str, values)]
        return subprocess.Popen(command, stdout=subprocess.DEVNULL)

    # -- on the clients' threads --------------------------------------------------------------

    def _guarded(self, work: Callable[[list[Client]], None], clients: list[Client]) -> None:
        try:
            work(clients)
        except threading.BrokenBarrierError:
            return
        except BaseException as error:
            self._error = self._error or error
            self._begin.abort()
            self._rest.abort()

    def _keep_a_loop(self, clients: list[Client]) -> None:
        asyncio.run(self._serve(clients))

    async def _serve(self, clients: list[Client]) -> None:
        loop = asyncio.get_running_loop()
        # One thread that waits: the loop's own executor starts a second when the first is not quick enough.
        with ThreadPoolExecutor(max_workers=1) as waiting:
            while not self._is_over:
                await loop.run_in_executor(waiting, self._begin.wait)
                await asyncio.gather(*(self._play(client) for client in clients))
                await loop.run_in_executor(waiting, self._rest.wait)

    async def _play(self, client: Client) -> None:
        while self._goes_on(client):
            await client.request()

    def _make_loops(self, clients: list[Client]) -> None:
        while not self._is_over:
            self._begin.wait()
            while playing := [client for client in clients if self._goes_on(client)]:
                for client in playing:
                    asyncio.run(client.request())
            self._rest.wait()

    def _goes_on(self, client: Client) -> bool:
        return client.requests < self._quota and time.monotonic() < self._deadline

    # -- afterwards ---------------------------------------------------------------------------

    def problems(self) -> list[str]:
        """Return what is wrong with the file, now that nobody uses it: at best nothing."""
        found = []
        for client in self._clients:
            try:
                asyncio.run(client.check())
            except RuntimeError as error:
                found.append(str(error))
        log = EventLog.open_sync(self._path, projections=projections.default())
        found += [str(finding) for finding in asyncio.run(log.verify()).findings]
        for table in projections.replay(log, projections.default().named([]), check=True):
            if table.differences:
                found.append(
                    f"{table.differences} rows of {table.table} are not what a replay gives"
                )
        log.close()
        return found
