"""Taking items off and clearing, on both sides (bullets 49 to 56)."""

from __future__ import annotations

import pytest

from tests.contract.harness import SIDES, Pair, World, picture
from tests.contract.items import call, ran, turns, user


async def test_the_newest_item_is_popped(pair: Pair) -> None:
    await pair.add_items(turns("one", "two"))
    for item in reversed(turns("one", "two")):
        assert await pair.pop_item() == item
    assert await pair.pop_item() is None
    assert await pair.pop_item() is None
    await pair.add_items(turns("again"))
    assert await pair.get_items() == turns("again")


async def test_a_pop_takes_from_the_current_branch_only(pair: Pair) -> None:
    await pair.add_items(turns("one", "two"))
    await pair.create_branch_from_turn(2, "draft")
    assert await pair.pop_item() == turns("one")[-1]
    assert await pair.get_items() == turns("one")[:1]
    assert await pair.get_items(branch_id="main") == turns("one", "two")
    await pair.switch_to_branch("main")
    assert await pair.pop_item() == turns("two")[-1]
    assert await pair.get_items(branch_id="draft") == turns("one")[:1]


async def test_what_is_popped_and_added_forever_stays_in_order(pair: Pair) -> None:
    for number in range(12):
        await pair.add_items(turns(str(number)))
        await pair.pop_item()
    assert await pair.get_items() == [user(str(number)) for number in range(12)]
    assert len(await pair.get_conversation_turns()) == 12


async def test_a_turns_usage_goes_with_its_last_item(pair: Pair) -> None:
    await pair.add_items(turns("one", "two"))
    await pair.store_run_usage(ran())
    await pair.pop_item()
    assert await pair.get_turn_usage(2) != {}
    await pair.pop_item()
    assert await pair.get_turn_usage(2) == {}
    assert await pair.get_session_usage() is None
    await pair.add_items(turns("two again"))
    assert await pair.get_turn_usage(2) == {}
    assert await pair.get_turn_usage() == []


async def test_a_pop_on_a_branch_leaves_the_usage_of_others(pair: Pair) -> None:
    await pair.add_items(turns("one", "two"))
    await pair.store_run_usage(ran())
    await pair.create_branch_from_turn(2, "draft")
    await pair.store_run_usage(ran(2, 3, 4))
    await pair.add_items([call()])
    for _ in range(2):
        await pair.pop_item()
    assert len(await pair.get_turn_usage()) == 1
    assert len(await pair.get_turn_usage(branch_id="main")) == 1


async def test_clearing_takes_everything_of_this_session(world: World) -> None:
    pair, other = world.open("one"), world.open("two")
    for session in (pair, other):
        await session.add_items(turns("one", "two"))
        await session.store_run_usage(ran())
        await session.create_branch_from_turn(2, "draft")
        await session.store_run_usage(ran())
    await pair.clear_session()
    assert await pair.get_items() == []
    assert await pair.current() == "main"
    assert await pair.list_branches() == []
    assert await pair.get_session_usage() is None
    assert await pair.get_turn_usage(branch_id="main") == []
    assert await pair.get_tool_usage() == []
    for name in ("main", "draft"):
        assert await pair.get_items(branch_id=name) == []
    assert await other.current() == "draft"
    assert await other.get_items(branch_id="main") == turns("one", "two")
    assert (await other.get_session_usage())["total_turns"] == 2
    await picture(other)


async def test_an_empty_session_can_be_cleared(pair: Pair) -> None:
    await pair.clear_session()
    await pair.clear_session()
    assert await pair.get_items() == []
    await pair.add_items(turns("one"))
    assert await pair.get_items() == turns("one")


@pytest.mark.parametrize("next_call", ["add", "pop", "read", "branch"])
async def test_an_instance_on_a_cleared_branch_finds_itself_on_main(
    pair: Pair, next_call: str
) -> None:
    await pair.add_items(turns("one", "two"))
    await pair.create_branch_from_turn(2, "draft")
    other = pair.again()
    await other.clear_session()
    await other.add_items(turns("new one", "new two"))
    if next_call == "add":
        await pair.add_items(turns("new three"))
    if next_call == "pop":
        assert await pair.pop_item() == turns("new two")[-1]
    if next_call == "branch":
        assert await pair.create_branch_from_turn(2, "after") == "after"
        assert await pair.get_items() == turns("new one")
        return
    assert await pair.current() == "main"
    assert await pair.get_items() == await other.get_items()


async def test_a_cleared_branch_cannot_be_switched_to(pair: Pair) -> None:
    await pair.add_items(turns("one", "two"))
    await pair.create_branch_from_turn(2, "draft")
    await pair.clear_session()
    await pair.add_items(turns("new"))
    with pytest.raises(ValueError, match=r"^Branch 'draft' does not exist$"):
        await pair.switch_to_branch("draft")
    with pytest.raises(ValueError, match=r"^Branch 'draft' does not exist$"):
        await pair.delete_branch("draft")


async def test_the_first_usage_of_an_instance_that_missed_a_clear_is_dropped(pair: Pair) -> None:
    await pair.add_items(turns("one"))
    other = pair.again()
    await other.clear_session()
    await other.add_items(turns("new"))
    await pair.store_run_usage(ran())
    assert await other.get_session_usage() is None
    await pair.store_run_usage(ran())
    assert (await other.get_session_usage())["requests"] == 1


@pytest.mark.parametrize("first", ["get_items", "pop_item", "add"])
async def test_an_instance_that_noticed_the_clear_keeps_its_usage(pair: Pair, first: str) -> None:
    await pair.add_items(turns("one"))
    other = pair.again()
    await other.clear_session()
    await other.add_items(turns("new"))
    if first == "add":
        await pair.add_items([call()])
    else:
        await getattr(pair, first)()
    await pair.store_run_usage(ran())
    assert (await other.get_session_usage())["requests"] == 1


async def test_an_instance_opened_after_a_clear_is_up_to_date(pair: Pair) -> None:
    await pair.add_items(turns("one"))
    await pair.clear_session()
    await pair.add_items(turns("new one", "new two"))
    late = pair.again()
    await late.store_run_usage(ran())
    assert await late.get_turn_usage(2) != {}
    await late.create_branch_from_turn(2, "draft")
    assert await late.current() == "draft"
    await pair.switch_to_branch("draft")
    assert await pair.get_items() == turns("new one")


@pytest.mark.parametrize("hours", [-1, 1])
async def test_a_clear_by_a_wrong_clock_is_told_from_one_that_was_missed(
    world: World, hours: int
) -> None:
    pair = world.open()
    clear_now = pair.ours.log.store.clock
    pair.ours.log.store.clock = lambda: clear_now() + hours * 3_600_000_000
    before = pair.again()
    await before.get_items()
    await pair.add_items(turns("one"))
    await pair.clear_session()
    await pair.add_items(turns("new"))
    late = pair.again()
    await before.store_run_usage(ran())
    assert await before.get_session_usage() is None
    await late.store_run_usage(ran())
    assert await late.get_turn_usage(1) != {}


@pytest.mark.parametrize("side", SIDES)
async def test_a_popped_item_goes_to_one_caller_only(world: World, side: str) -> None:
    make = world.session_class(side)
    sessions = [
        make(session_id="s", db_path=world.path(side), create_tables=True) for _ in range(4)
    ]
    world.opened.extend(sessions)
    await sessions[0].add_items([{"number": number} for number in range(40)])
    popped = []
    for _ in range(12):
        for session in sessions:
            item = await session.pop_item()
            popped.append(None if item is None else item["number"])
    assert popped == [*range(39, -1, -1), *[None] * 8]
