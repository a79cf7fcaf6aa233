"""
Clients of a service that is under load: each request makes a session object, and nobody closes it.

A client talks in one session at a time. It knows what must be there: every turn has four items, and so has
one whose answer was taken back and given again.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

from agents_eventlog import AdvancedSQLiteSession
from benchmarks.latencies import Latencies
from benchmarks.turns import adds, run_result

if TYPE_CHECKING:
    import random
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

ITEMS_PER_TURN = 4
MOST_TURNS = 40
"""A session that has grown so long is cleared."""
TEXTS = 200


class Client:
    """One client: its session, the branch it is on, and how many turns each branch has."""

    def __init__(
        self,
        path: Path,
        session_id: str,
        chance: random.Random,
        latencies: dict[str, Latencies],
        open_session: Callable[..., AdvancedSQLiteSession] = AdvancedSQLiteSession,
    ) -> None:
        self.session_id = session_id
        self.requests = 0
        self._path = path
        self._chance = chance
        self._latencies = latencies
        self._open = open_session
        self._branch = "main"
        self._turns = {"main": 0}
        self._branches = 0

    async def request(self) -> None:
        """Make a session object and do one of the things that clients do."""
        session = self._open(self.session_id, self._path, branch_id=self._branch)
        self.requests += 1
        if self._turns[self._branch] >= MOST_TURNS:
            await self._clear(session)
            return
        choice = self._chance.random()
        if choice < 0.6 or not self._turns[self._branch]:
            await self._talk(session)
        elif choice < 0.7:
            await self._answer_again(session)
        elif choice < 0.8:
            await self._look(session)
        elif choice < 0.82:
            await self._give_up(session)
        elif choice < 0.9:
            await self._record_usage(session)
        elif self._branch == "main":
            await self._branch_off(session)
        else:
            await self._return(session)

    async def check(self) -> None:
        """Raise RuntimeError unless the branch holds what was said on it."""
        session = self._open(self.session_id, self._path, branch_id=self._branch)
        there, expected = len(await session.get_items()), self._turns[self._branch] * ITEMS_PER_TURN
        if there != expected:
            raise RuntimeError(f"{self.session_id} holds {there} items, not {expected}")

    async def _talk(self, session: AdvancedSQLiteSession) -> None:
        async with self._timed("get_items(limit=20)"):
            newest = await session.get_items(limit=20)
        expected = min(20, self._turns[self._branch] * ITEMS_PER_TURN)
        if len(newest) != expected:
            raise RuntimeError(f"{self.session_id} gave {len(newest)} items, not {expected}")
        for items in adds(self._chance.randrange(TEXTS)):
            async with self._timed("add_items"):
                await session.add_items(items)
        self._turns[self._branch] += 1

    async def _answer_again(self, session: AdvancedSQLiteSession) -> None:
        async with self._timed("pop_item"):
            await session.pop_item()
        async with self._timed("add_items"):
            await session.add_items(adds(self._chance.randrange(TEXTS))[1][-1:])

    async def _look(self, session: AdvancedSQLiteSession) -> None:
        async with self._timed("get_items()"):
            await session.get_items()
        async with self._timed("list_branches"):
            await session.list_branches()

    async def _give_up(self, session: AdvancedSQLiteSession) -> None:
        """Ask, and go away before the answer comes."""
        asked = asyncio.create_task(session.get_items())
        await asyncio.sleep(0)
        asked.cancel()
        with suppress(asyncio.CancelledError):
            await asked

    async def _record_usage(self, session: AdvancedSQLiteSession) -> None:
        result: Any = run_result(self._chance.randrange(TEXTS))
        async with self._timed("store_run_usage"):
            await session.store_run_usage(result)

    async def _branch_off(self, session: AdvancedSQLiteSession) -> None:
        turn = self._turns[self._branch]
        self._branches += 1
        name = f"{self._chance.randrange(10**9)}-{self._branches}"
        async with self._timed("create_branch"):
            await session.create_branch_from_turn(turn, name)
        self._branch = name
        self._turns[name] = turn - 1

    async def _return(self, session: AdvancedSQLiteSession) -> None:
        left = self._branch
        async with self._timed("switch_to_branch"):
            await session.switch_to_branch("main")
        async with self._timed("delete_branch"):
            await session.delete_branch(left)
        self._branch = "main"
        del self._turns[left]

    async def _clear(self, session: AdvancedSQLiteSession) -> None:
        async with self._timed("clear_session"):
            await session.clear_session()
        self._branch, self._turns = "main", {"main": 0}

    @asynccontextmanager
    async def _timed(self, name: str) -> AsyncIterator[None]:
        start = time.perf_counter()
        yield
        self._latencies[name].note(time.perf_counter() - start)
