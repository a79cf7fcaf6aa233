"""Closing a session, on both sides (bullet 79)."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.contract.harness import SIDES, Pair, World
from tests.contract.items import ran, turns, user

CALLS: list[tuple[str, tuple[Any, ...]]] = [
    ("add_items", ([user("x")],)),
    ("add_items", ([],)),
    ("get_items", ()),
    ("get_items", (1, "main")),
    ("pop_item", ()),
    ("clear_session", ()),
    ("create_branch_from_turn", (1,)),
    ("create_branch_from_content", ("one",)),
    ("switch_to_branch", ("main",)),
    ("delete_branch", ("draft",)),
    ("list_branches", ()),
    ("get_conversation_turns", ()),
    ("find_turns_by_content", ("one",)),
    ("get_conversation_by_turns", ()),
    ("get_tool_usage", ()),
    ("get_session_usage", ()),
    ("get_turn_usage", ()),
]


@pytest.mark.parametrize("memory", [False, True])
@pytest.mark.parametrize(("method", "args"), CALLS)
async def test_a_closed_session_says_so(
    world: World, method: str, args: tuple[Any, ...], *, memory: bool
) -> None:
    pair = world.open(memory=memory)
    await pair.add_items(turns("one"))
    pair.close()
    pair.close()
    with pytest.raises(RuntimeError, match=r"^SQLiteSession is closed$"):
        await pair.call(method, *args)


async def test_a_blank_branch_name_is_found_before_the_close(pair: Pair) -> None:
    pair.close()
    with pytest.raises(ValueError, match=r"^Branch name cannot be empty$"):
        await pair.create_branch_from_turn(1, " ")
    assert await pair.store_run_usage(ran()) is None


async def test_closing_one_instance_leaves_the_others(pair: Pair) -> None:
    await pair.add_items(turns("one"))
    other = pair.again()
    pair.close()
    assert await other.get_items() == turns("one")
    await other.add_items(turns("two"))
    assert await pair.again().get_items() == turns("one", "two")


@pytest.mark.parametrize("side", SIDES)
async def test_closing_waits_for_what_is_under_way(world: World, side: str) -> None:
    make = world.session_class(side)
    session = make(session_id="s", db_path=world.path(side), create_tables=True)
    adding = asyncio.create_task(session.add_items(turns("one")))
    await asyncio.sleep(0.2)
    session.close()
    await adding
    again = make(session_id="s", db_path=world.path(side), create_tables=True)
    assert await again.get_items() == turns("one")
    again.close()


def test_a_session_may_be_closed_without_a_loop(world: World) -> None:
    pair = world.open()
    pair.close()
    asyncio.run(_refused(pair))


async def _refused(pair: Pair) -> None:
    with pytest.raises(RuntimeError, match=r"^SQLiteSession is closed$"):
        await pair.get_items()
