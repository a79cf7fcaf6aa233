"""The differences in branches and search, each shown on both sides."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from tests.contract.differences import shows
from tests.contract.items import call, ran, turns, user

if TYPE_CHECKING:
    from tests.contract.harness import Pair, World


async def listed(session: Any) -> list[str]:
    """Return the ids of the branches that a session lists."""
    return [branch["branch_id"] for branch in await session.list_branches()]


@shows("a branch without items")
async def test_ours_keeps_a_branch_without_items(pair: Pair) -> None:
    await pair.add_items(turns("one", "two"))
    await pair.create_branch_from_turn(1, "fresh")
    assert await pair.current() == "fresh"
    assert await pair.get_items() == []
    assert await listed(pair.sdk) == ["main"]
    assert await listed(pair.ours) == ["main", "fresh"]
    fresh = (await pair.ours.list_branches())[1]
    assert (fresh["message_count"], fresh["user_turns"], fresh["is_current"]) == (0, 0, True)
    await pair.switch_to_branch("main")
    with pytest.raises(ValueError, match=r"^Branch 'fresh' does not exist$"):
        await pair.sdk.switch_to_branch("fresh")
    with pytest.raises(ValueError, match=r"^Branch 'fresh' does not exist$"):
        await pair.sdk.delete_branch("fresh", force=True)
    await pair.ours.switch_to_branch("fresh")
    assert pair.ours._current_branch_id == "fresh"
    await pair.ours.delete_branch("fresh", force=True)
    assert await listed(pair.ours) == ["main"]
    with pytest.raises(ValueError, match=r"^Branch ID 'fresh' has already been used"):
        await pair.create_branch_from_turn(2, "fresh")


async def test_a_branch_without_items_takes_items_on_both_sides(pair: Pair) -> None:
    await pair.add_items(turns("one"))
    await pair.create_branch_from_turn(1, "fresh")
    await pair.add_items(turns("other one"))
    assert await pair.get_items() == turns("other one")
    assert [turn["turn"] for turn in await pair.get_conversation_turns()] == [1]
    assert len(await pair.list_branches()) == 2


async def test_ours_keeps_a_branch_that_was_popped_empty(pair: Pair) -> None:
    await pair.add_items([user("one"), user("two")])
    await pair.create_branch_from_turn(2, "draft")
    assert await pair.pop_item() == user("one")
    await pair.switch_to_branch("main")
    with pytest.raises(ValueError, match=r"^Branch 'draft' does not exist$"):
        await pair.sdk.switch_to_branch("draft")
    await pair.ours.switch_to_branch("draft")
    assert await listed(pair.ours) == ["main", "draft"]


@shows("`main` without items")
async def test_ours_can_always_go_to_main(world: World) -> None:
    pair = world.open()
    with pytest.raises(ValueError, match=r"^Branch 'main' does not exist$"):
        await pair.sdk.switch_to_branch("main")
    await pair.ours.switch_to_branch("main")
    assert await pair.list_branches() == []

    await pair.add_items([user("one"), user("two")])
    await pair.create_branch_from_turn(2, "draft")
    other = pair.again()
    await other.pop_item()
    await other.pop_item()
    with pytest.raises(ValueError, match=r"^Branch 'main' does not exist$"):
        await pair.sdk.delete_branch("draft", force=True)
    assert await listed(pair.sdk) == ["draft"]
    await pair.ours.delete_branch("draft", force=True)
    assert pair.ours._current_branch_id == "main"
    assert await pair.ours.get_items() == []


@shows("a branch from turn 0")
async def test_ours_branches_from_the_very_beginning(pair: Pair) -> None:
    await pair.add_items([call(), *turns("one")])
    text = r"^Turn 0 does not contain a user message in branch 'main'$"
    with pytest.raises(ValueError, match=text):
        await pair.sdk.create_branch_from_turn(0, "over")
    assert await pair.ours.create_branch_from_turn(0, "over") == "over"
    assert await pair.ours.get_items() == []
    await pair.ours.add_items(turns("other one"))
    assert await pair.ours.get_items() == turns("other one")
    assert await pair.ours.get_items(branch_id="main") == [call(), *turns("one")]


@shows("order of `list_branches`")
async def test_ours_lists_branches_in_the_order_they_were_made(pair: Pair) -> None:
    await pair.add_items(turns("one", "two"))
    for name in ("zebra", "ant", "mole"):
        await pair.create_branch_from_turn(2, name)
        await pair.switch_to_branch("main")
    theirs = await pair.sdk.list_branches()
    assert theirs == sorted(theirs, key=lambda row: (row["created_at"], row["branch_id"]))
    assert await listed(pair.ours) == ["main", "zebra", "ant", "mole"]


@shows("times on a branch")
async def test_ours_shows_on_a_branch_when_a_turn_was_said(pair: Pair) -> None:
    await pair.add_items(turns("one", "two"))
    await asyncio.sleep(1.1)
    await pair.create_branch_from_turn(2, "draft")
    for side, is_copied in ((pair.sdk, True), (pair.ours, False)):
        (said,) = (await side.get_conversation_turns("main"))[:1]
        (shown,) = await side.get_conversation_turns("draft")
        (found,) = await side.find_turns_by_content("one", "draft")
        assert (shown["timestamp"] > said["timestamp"]) is is_copied
        assert (found["timestamp"] > said["timestamp"]) is is_copied


@shows("writing to a branch that another instance deleted")
async def test_ours_never_brings_a_deleted_branch_back(pair: Pair) -> None:
    await pair.add_items(turns("one", "two"))
    await pair.create_branch_from_turn(2, "draft")
    await pair.again().delete_branch("draft")
    assert await pair.get_items() == []
    await pair.sdk.add_items(turns("ghost"))
    assert await pair.sdk.get_items() == turns("ghost")
    assert "draft" in await listed(pair.sdk)
    writes: list[tuple[str, list[Any]]] = [("add_items", [turns("ghost")]), ("pop_item", [])]
    for method, args in writes:
        with pytest.raises(ValueError, match="draft") as refused:
            await getattr(pair.ours, method)(*args)
        assert type(refused.value).__name__ == "BranchNotFoundError"
    await pair.ours.store_run_usage(ran())
    assert await listed(pair.ours) == ["main"]
    assert await pair.ours.get_items(branch_id="main") == turns("one", "two")
    assert await pair.ours.get_session_usage() is None
    await pair.ours.switch_to_branch("main")
    await pair.ours.add_items(turns("three"))
    assert await pair.ours.get_items() == turns("one", "two", "three")


@pytest.mark.parametrize("content", [None, [{"type": "input_text", "text": None}]])
@shows("searching turns whose content is null, a number, or parts other than objects")
async def test_ours_searches_past_a_null(pair: Pair, content: Any) -> None:
    await pair.add_items([user("a null"), user(content), user("nothing")])
    with pytest.raises(TypeError):
        await pair.sdk.find_turns_by_content("null")
    assert [turn["turn"] for turn in await pair.ours.find_turns_by_content("null")] == [1]
    assert await pair.ours.create_branch_from_content("nothing", "draft") == "draft"


@shows("searching for a very long text")
async def test_ours_searches_for_a_very_long_text(pair: Pair) -> None:
    text = "long " * 15_000
    await pair.add_items([user("short"), user(f"so {text}!")])
    with pytest.raises(Exception, match="pattern too complex"):
        await pair.sdk.find_turns_by_content(text)
    assert [turn["turn"] for turn in await pair.ours.find_turns_by_content(text)] == [2]
    assert await pair.ours.find_turns_by_content("x" * 200_000) == []
