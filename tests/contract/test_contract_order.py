"""Calls at once: in which order they take effect, on both sides (bullets 70 to 77)."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from tests.contract.harness import SIDES, Pair, World
from tests.contract.items import assistant, ran, turns, user

if TYPE_CHECKING:
    from collections.abc import Awaitable


@pytest.fixture(params=SIDES)
def session(request: pytest.FixtureRequest, world: World) -> Any:
    """One side's session alone: a schedule of tasks cannot be shared by two."""
    side = request.param
    made = world.session_class(side)(session_id="s", db_path=world.path(side), create_tables=True)
    world.opened.append(made)
    return made


async def test_adds_at_once_are_in_the_order_of_their_calls(session: Any) -> None:
    await asyncio.gather(*(session.add_items([user(str(n)), assistant(str(n))]) for n in range(30)))
    assert [item["content"] for item in await session.get_items() if item["role"] == "user"] == [
        str(n) for n in range(30)
    ]
    by_turns = await session.get_conversation_by_turns()
    assert [len(by_turns[turn]) for turn in range(1, 31)] == [2] * 30


async def test_a_pop_takes_what_was_added_before_its_call(session: Any) -> None:
    calls: list[Awaitable[Any]] = [
        session.add_items([user("one")]),
        session.pop_item(),
        session.pop_item(),
        session.add_items([user("two")]),
        session.add_items([user("three")]),
        session.pop_item(),
    ]
    answers = await asyncio.gather(*calls)
    assert answers == [None, user("one"), None, None, None, user("three")]
    assert await session.get_items() == [user("two")]


async def test_an_add_that_fails_lets_the_next_one_pass(session: Any) -> None:
    answers = await asyncio.gather(
        session.add_items([user("one")]),
        session.add_items([object()]),
        session.add_items([user("two")]),
        return_exceptions=True,
    )
    assert [isinstance(answer, TypeError) for answer in answers] == [False, True, False]
    assert await session.get_items() == [user("one"), user("two")]


async def test_usage_is_of_the_turn_that_was_latest_when_it_was_stored(session: Any) -> None:
    await session.add_items(turns("one"))
    await asyncio.gather(
        session.store_run_usage(ran(1)), session.add_items(turns("two")), session.add_items([])
    )
    assert [row["user_turn_number"] for row in await session.get_turn_usage()] == [1]


async def test_usage_of_a_turn_that_is_popped_at_once_is_dropped(session: Any) -> None:
    await session.add_items([*turns("one"), user("two")])
    await asyncio.gather(
        session.store_run_usage(ran(1)), session.pop_item(), session.add_items([user("two again")])
    )
    assert await session.get_turn_usage() == []
    assert await session.get_session_usage() is None


async def test_a_queued_add_keeps_the_branch_of_its_call(session: Any) -> None:
    await session.add_items(turns("one", "two"))
    await session.create_branch_from_turn(2, "draft")
    adding = asyncio.gather(*(session.add_items([user(str(n))]) for n in range(5)))
    await asyncio.sleep(0)  # the calls are made
    await session.switch_to_branch("main")
    await adding
    assert await session.get_items() == turns("one", "two")
    assert await session.get_items(branch_id="draft") == [
        *turns("one"),
        *(user(str(n)) for n in range(5)),
    ]


async def test_a_delete_waits_for_the_adds_before_it(session: Any) -> None:
    await session.add_items(turns("one", "two"))
    await session.create_branch_from_turn(2, "draft")
    adding = [asyncio.create_task(session.add_items([user(str(n))])) for n in range(5)]
    await asyncio.sleep(0)
    await session.switch_to_branch("main")
    await session.delete_branch("draft")
    await asyncio.gather(*adding)
    assert [branch["branch_id"] for branch in await session.list_branches()] == ["main"]
    assert await session.get_items(branch_id="draft") == []


def test_a_session_lives_longer_than_a_loop(world: World) -> None:
    pair = world.open()
    for text in ("one", "two", "three"):
        asyncio.run(pair.add_items(turns(text)))
    assert asyncio.run(pair.get_items()) == turns("one", "two", "three")


def test_loops_on_several_threads_share_a_session(session: Any) -> None:
    def add(name: int) -> None:
        async def every() -> None:
            for number in range(8):
                await session.add_items([{"by": name, "batch": number, "part": p} for p in "abc"])

        asyncio.run(every())

    with ThreadPoolExecutor(5) as pool:
        list(pool.map(add, range(5)))
    items = asyncio.run(session.get_items())
    assert whole_batches(items, "abc") == {name: list(range(8)) for name in range(5)}


def whole_batches(items: list[Any], parts: Any) -> dict[Any, list[int]]:
    """Check that no batch was torn; return the batches of each writer in their order."""
    size = len(parts)
    written: dict[Any, list[int]] = {}
    for start in range(0, len(items), size):
        batch = items[start : start + size]
        assert [item["part"] for item in batch] == list(parts)
        assert len({(item["by"], item["batch"]) for item in batch}) == 1
        written.setdefault(batch[0]["by"], []).append(batch[0]["batch"])
    return written


@pytest.mark.sqlite_only("it locks the file")
async def test_a_busy_file_does_not_block_the_loop(world: World, session: Any) -> None:
    await session.add_items(turns("one"))
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(0.01)
            ticks += 1

    lock = Lock(str(session.db_path))
    ticking = asyncio.create_task(tick())
    adding = asyncio.create_task(session.add_items(turns("two")))
    await asyncio.sleep(0.4)
    assert not adding.done()
    assert ticks > 10
    lock.release()
    await adding
    ticking.cancel()
    assert await session.get_items() == turns("one", "two")


class Lock:
    """A write lock on a file, held by a thread of its own."""

    def __init__(self, path: str) -> None:
        self._held = threading.Event()
        self._free = threading.Event()
        self._thread = threading.Thread(target=self._hold, args=(path,))
        self._thread.start()
        assert self._held.wait(10)

    def _hold(self, path: str) -> None:
        import sqlite3

        connection = sqlite3.connect(path)
        connection.execute("BEGIN IMMEDIATE")
        self._held.set()
        self._free.wait(10)
        connection.rollback()
        connection.close()

    def release(self) -> None:
        """Let the file go."""
        self._free.set()
        self._thread.join()


async def test_two_live_instances_add_in_turn(pair: Pair) -> None:
    other = pair.again()
    for number in range(6):
        await (pair, other)[number % 2].add_items(turns(str(number)))
    assert await pair.get_items() == turns(*map(str, range(6)))
    assert len(await other.get_conversation_turns()) == 6
