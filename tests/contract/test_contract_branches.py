"""Branches: made, listed, switched to and deleted, on both sides (bullets 36 to 48)."""

from __future__ import annotations

from typing import Any

import pytest

from tests.contract.harness import Generated, Pair, World, picture
from tests.contract.items import ran, turns, user


async def ids(pair: Pair) -> list[Any]:
    """Return the ids of the branches that are listed."""
    return [branch["branch_id"] for branch in await pair.list_branches()]


async def test_a_branch_keeps_what_stands_before_the_turn(pair: Pair) -> None:
    await pair.add_items(turns("one", "two", "three"))
    assert await pair.create_branch_from_turn(3, "draft") == "draft"
    assert await pair.current() == "draft"
    assert await pair.get_items() == turns("one", "two")
    await pair.add_items(turns("other three"))
    assert await pair.get_items() == turns("one", "two", "other three")
    assert await pair.get_items(branch_id="main") == turns("one", "two", "three")


async def test_a_branch_of_a_branch_leaves_both_alone(pair: Pair) -> None:
    await pair.add_items(turns("one", "two", "three"))
    await pair.create_branch_from_turn(3, "a")
    await pair.add_items(turns("a3", "a4"))
    await pair.create_branch_from_turn(4, "b")
    await pair.add_items(turns("b4"))
    await pair.create_branch_from_turn(2, "c")
    await pair.add_items(turns("c2"))
    assert await pair.get_items() == turns("one", "c2")
    assert await pair.get_items(branch_id="b") == turns("one", "two", "a3", "b4")
    assert await pair.get_items(branch_id="a") == turns("one", "two", "a3", "a4")
    assert await pair.get_items(branch_id="main") == turns("one", "two", "three")
    await picture(pair)


async def test_branches_are_listed_with_their_counts(pair: Pair) -> None:
    await pair.add_items([*turns("one", "two"), user("three")])
    await pair.create_branch_from_turn(2, "draft")
    assert await pair.list_branches() == [
        {
            "branch_id": "draft",
            "message_count": 2,
            "user_turns": 1,
            "is_current": True,
            "created_at": "<now>",
        },
        {
            "branch_id": "main",
            "message_count": 5,
            "user_turns": 3,
            "is_current": False,
            "created_at": "<now>",
        },
    ]


@pytest.mark.parametrize("name", ["", " ", "\t\n", "\u2003"])
async def test_a_branch_name_may_not_be_blank(pair: Pair, name: str) -> None:
    await pair.add_items(turns("one"))
    for turn in (1, 99):
        with pytest.raises(ValueError, match=r"^Branch name cannot be empty$"):
            await pair.create_branch_from_turn(turn, name)
    with pytest.raises(ValueError, match=r"^Branch name cannot be empty$"):
        await pair.create_branch_from_content("one", name)
    assert await pair.current() == "main"
    assert await ids(pair) == ["main"]


@pytest.mark.parametrize("turn", [-1, 3, 99, 2**40])
async def test_a_branch_needs_a_turn(pair: Pair, turn: int) -> None:
    await pair.add_items(turns("one", "two"))
    text = rf"^Turn {turn} does not contain a user message in branch 'main'$"
    with pytest.raises(ValueError, match=text):
        await pair.create_branch_from_turn(turn, "draft")
    with pytest.raises(ValueError, match=text):
        await pair.create_branch_from_turn(turn)
    assert await pair.create_branch_from_turn(2, "draft") == "draft"


async def test_a_turn_of_another_branch_is_no_turn_of_this(pair: Pair) -> None:
    await pair.add_items(turns("one", "two", "three"))
    await pair.create_branch_from_turn(2, "draft")
    with pytest.raises(ValueError, match=r"^Turn 3 does not contain .* in branch 'draft'$"):
        await pair.create_branch_from_turn(3)


async def test_a_session_without_items_has_no_turn_to_branch_from(pair: Pair) -> None:
    with pytest.raises(ValueError, match=r"^Turn 1 does not contain a user message"):
        await pair.create_branch_from_turn(1)


@pytest.mark.parametrize("after", ["at once", "delete", "clear", "pop"])
async def test_an_id_is_used_once_in_the_life_of_a_session(pair: Pair, after: str) -> None:
    await pair.add_items(turns("one", "two"))
    await pair.create_branch_from_turn(2, "draft")
    if after == "delete":
        await pair.delete_branch("draft", force=True)
    if after == "pop":
        await pair.pop_item()
        await pair.add_items([user("filled")])
        await pair.switch_to_branch("main")
    if after == "clear":
        await pair.clear_session()
        await pair.add_items(turns("new one", "new two"))
    if after == "at once":
        await pair.switch_to_branch("main")
    for name in ("draft", "main"):
        text = rf"^Branch ID '{name}' has already been used. Choose a new branch ID.$"
        with pytest.raises(ValueError, match=text):
            await pair.create_branch_from_turn(2, name)
        with pytest.raises(ValueError, match=text):
            await pair.again().create_branch_from_turn(2, name)
    assert await pair.create_branch_from_turn(2, "another") == "another"


async def test_the_same_id_may_be_used_in_another_session(world: World) -> None:
    for session_id in ("a", "b"):
        pair = world.open(session_id)
        await pair.add_items(turns("one", "two"))
        assert await pair.create_branch_from_turn(2, "draft") == "draft"


async def test_ids_are_exact(pair: Pair) -> None:
    await pair.add_items(turns("one", "two"))
    names = ["draft", " draft ", "Draft", "dráft", "DRAFT", "Main", "a'b", 'q"q', "日本 🍕"]
    for name in names:
        assert await pair.create_branch_from_turn(2, name) == name
        await pair.add_items([user(f"only on {name}")])
        await pair.switch_to_branch("main")
    assert set(await ids(pair)) == {*names, "main"}
    for name in names:
        await pair.switch_to_branch(name)
        assert (await pair.get_items())[-1] == user(f"only on {name}")


async def test_generated_ids_are_all_different(pair: Pair) -> None:
    await pair.add_items(turns("one", "two"))
    made: list[Generated] = []
    for _ in range(4):
        made.append(await pair.new_branch(2))
        await pair.switch_to_branch("main")
    assert len({branch.sdk for branch in made}) == len({branch.ours for branch in made}) == 4
    assert len(await ids(pair)) == 5


async def test_a_failure_burns_no_id(pair: Pair) -> None:
    await pair.add_items(turns("one", "two"))
    with pytest.raises(ValueError, match="Turn 7"):
        await pair.create_branch_from_turn(7, "draft")
    assert await pair.create_branch_from_turn(2, "draft") == "draft"


async def test_a_branch_from_content_leaves_before_the_earliest_match(pair: Pair) -> None:
    await pair.add_items(turns("dog", "Cat one", "cat two"))
    assert await pair.create_branch_from_content("cat", "draft") == "draft"
    assert await pair.get_items() == turns("dog")
    await pair.switch_to_branch("main")
    assert await pair.create_branch_from_content("two", branch_name="other") == "other"
    assert await pair.get_items() == turns("dog", "Cat one")


async def test_a_branch_from_content_needs_a_match(pair: Pair) -> None:
    await pair.add_items(turns("dog"))
    with pytest.raises(ValueError, match=r"^No user turns found containing 'it's 100%'$"):
        await pair.create_branch_from_content("it's 100%", "draft")
    with pytest.raises(ValueError, match=r"^No user turns found containing 'cat'$"):
        await pair.create_branch_from_content("cat", " ")


@pytest.mark.parametrize("name", ["nowhere", "", " ", "Main", "DRAFT", "gone"])
async def test_switching_needs_a_branch(pair: Pair, name: str) -> None:
    await pair.add_items(turns("one", "two"))
    await pair.create_branch_from_turn(2, "gone")
    await pair.switch_to_branch("main")
    await pair.delete_branch("gone")
    await pair.create_branch_from_turn(2, "draft")
    with pytest.raises(ValueError, match=rf"^Branch '{name}' does not exist$"):
        await pair.switch_to_branch(name)
    assert await pair.current() == "draft"


async def test_switching_to_where_one_stands_is_fine(pair: Pair) -> None:
    await pair.add_items(turns("one"))
    await pair.switch_to_branch("main")
    assert await pair.current() == "main"


async def test_each_instance_stands_where_it_went(pair: Pair) -> None:
    await pair.add_items(turns("one", "two"))
    await pair.create_branch_from_turn(2, "draft")
    other = pair.again()
    await other.add_items(turns("three"))
    assert await other.get_items() == turns("one", "two", "three")
    assert await pair.get_items() == turns("one")
    await other.switch_to_branch("draft")
    await other.add_items(turns("other two"))
    assert await pair.get_items() == turns("one", "other two")


@pytest.mark.parametrize("force", [False, True])
async def test_deleting_says_why_not(pair: Pair, *, force: bool) -> None:
    await pair.add_items(turns("one", "two"))
    for blank in ("", " ", "\n"):
        with pytest.raises(ValueError, match=r"^Branch ID cannot be empty$"):
            await pair.delete_branch(blank, force)
    with pytest.raises(ValueError, match=r"^Cannot delete the 'main' branch$"):
        await pair.delete_branch("main", force=force)
    with pytest.raises(ValueError, match=r"^Branch 'nowhere' does not exist$"):
        await pair.delete_branch("nowhere", force)
    with pytest.raises(ValueError, match=r"^Branch ' main' does not exist$"):
        await pair.delete_branch(" main", force)
    assert await pair.get_items() == turns("one", "two")


async def test_the_current_branch_is_deleted_by_force_only(pair: Pair) -> None:
    await pair.add_items(turns("one", "two"))
    await pair.create_branch_from_turn(2, "draft")
    text = (
        r"^Cannot delete current branch 'draft'\. "
        r"Use force=True or switch branches first$"
    )
    with pytest.raises(ValueError, match=text):
        await pair.delete_branch("draft")
    assert await pair.current() == "draft"
    await pair.delete_branch("draft", True)
    assert await pair.current() == "main"
    assert await ids(pair) == ["main"]


async def test_a_branch_deleted_elsewhere_cannot_be_deleted_here(pair: Pair) -> None:
    await pair.add_items(turns("one", "two"))
    await pair.create_branch_from_turn(2, "draft")
    await pair.again().delete_branch("draft")
    with pytest.raises(ValueError, match=r"^Branch 'draft' does not exist$"):
        await pair.delete_branch("draft", force=True)
    assert await pair.get_items() == []


async def test_deleting_takes_the_branch_and_leaves_what_others_share(pair: Pair) -> None:
    await pair.add_items(turns("one", "two"))
    await pair.create_branch_from_turn(2, "a")
    await pair.add_items(turns("a2", "a3"))
    await pair.store_run_usage(ran())
    await pair.create_branch_from_turn(3, "b")
    await pair.add_items(turns("b3"))
    await pair.delete_branch("a")
    assert await pair.get_items() == turns("one", "a2", "b3")
    assert await pair.get_items(branch_id="a") == []
    assert await pair.get_conversation_turns("a") == []
    assert await pair.get_turn_usage(branch_id="a") == []
    assert await pair.get_session_usage() is None
    assert await pair.get_items(branch_id="main") == turns("one", "two")
    await pair.delete_branch("b", force=True)
    assert await pair.get_items() == turns("one", "two")
    await picture(pair)


async def test_pops_go_on_below_where_branches_left(pair: Pair) -> None:
    await pair.add_items(turns("one", "two", "three"))
    await pair.create_branch_from_turn(3, "draft")
    for _ in range(3):
        await pair.pop_item()
    await pair.add_items([user("two again")])
    await pair.switch_to_branch("main")
    for _ in range(4):
        await pair.pop_item()
    await pair.add_items(turns("other two"))
    assert await pair.get_items() == turns("one", "other two")
    assert await pair.get_items(branch_id="draft") == [turns("one")[0], user("two again")]
    await picture(pair)
