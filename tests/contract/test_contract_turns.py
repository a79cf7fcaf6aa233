"""Turns: what starts one, how they are numbered and shown, on both sides (bullets 24 to 29)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest

from agents_eventlog.eventlog.errors import TurnNotFoundError
from tests.contract.items import assistant, call, output, ran, turns, user

if TYPE_CHECKING:
    from tests.contract.harness import Pair, World


def numbers(shown: list[dict[str, Any]]) -> list[int]:
    """Return the numbers of turns that are shown."""
    return [turn["turn"] for turn in shown]


async def test_every_user_item_starts_a_turn(pair: Pair) -> None:
    await pair.add_items([user("one"), user("two"), assistant("x"), user("three")])
    await pair.add_items([assistant("y")])
    await pair.add_items([user("four")])
    assert numbers(await pair.get_conversation_turns()) == [1, 2, 3, 4]
    by_turns = await pair.get_conversation_by_turns()
    assert {turn: len(items) for turn, items in by_turns.items()} == {1: 1, 2: 2, 3: 2, 4: 1}


async def test_what_comes_before_the_first_user_item_is_turn_0(pair: Pair) -> None:
    await pair.add_items([{"role": "system", "content": "be nice"}, call()])
    await pair.add_items([output(), user("one"), assistant("x")])
    by_turns = await pair.get_conversation_by_turns()
    assert [entry["type"] for entry in by_turns[0]] == [
        "other",
        "function_call",
        "function_call_output",
    ]
    assert list(by_turns) == [0, 1]
    assert numbers(await pair.get_conversation_turns()) == [1]
    with pytest.raises(ValueError, match=r"^Turn -1 does not contain a user message"):
        await pair.create_branch_from_turn(-1)


async def test_a_branch_from_turn_1_keeps_turn_0(pair: Pair) -> None:
    await pair.add_items([{"role": "system", "content": "be nice"}, *turns("one")])
    await pair.create_branch_from_turn(1, "draft")
    assert await pair.get_items() == [{"role": "system", "content": "be nice"}]
    await pair.add_items([user("other one")])
    assert numbers(await pair.get_conversation_turns()) == [1]


async def test_a_number_is_given_again_after_a_pop(pair: Pair) -> None:
    await pair.add_items(turns("one", "two", "three"))
    await pair.pop_item()
    await pair.add_items([user("four")])
    assert numbers(await pair.get_conversation_turns()) == [1, 2, 3, 4]
    for _ in range(2):
        await pair.pop_item()
    await pair.add_items([user("three again")])
    shown = await pair.get_conversation_turns()
    assert [(turn["turn"], turn["content"]) for turn in shown][2:] == [(3, "three again")]


async def test_numbers_start_again_after_a_clear(pair: Pair) -> None:
    await pair.add_items(turns("one", "two"))
    await pair.clear_session()
    await pair.add_items(turns("new"))
    assert numbers(await pair.get_conversation_turns()) == [1]


async def test_each_branch_counts_its_own_turns(pair: Pair) -> None:
    await pair.add_items(turns("one", "two", "three"))
    await pair.create_branch_from_turn(2, "draft")
    await pair.add_items(turns("two of draft"))
    await pair.switch_to_branch("main")
    await pair.add_items(turns("four"))
    assert numbers(await pair.get_conversation_turns()) == [1, 2, 3, 4]
    assert numbers(await pair.get_conversation_turns("draft")) == [1, 2]
    assert numbers(await pair.get_conversation_turns(branch_id="draft")) == [1, 2]


async def test_a_turn_shows_its_text_its_time_and_that_it_can_be_branched_from(pair: Pair) -> None:
    await pair.add_items(turns("hello"))
    assert await pair.get_conversation_turns() == [
        {
            "turn": 1,
            "content": "hello",
            "full_content": "hello",
            "timestamp": "<now>",
            "can_branch": True,
        }
    ]


@pytest.mark.parametrize(
    ("content", "shown"),
    [
        ("", ""),
        ("x" * 100, "x" * 100),
        ("x" * 101, "x" * 100 + "..."),
        ("é🍕" * 60, "é🍕" * 50 + "..."),
        ([], "[]"),
        ([{"type": "input_text", "text": "é"}], '[{"type": "input_text", "text": "é"}]'),
        ([{"text": "x" * 200}], '[{"text": "' + "x" * 89 + "..."),
        (None, "null"),
        (5, "5"),
        ({"a": True}, '{"a": true}'),
    ],
)
async def test_a_preview_is_a_hundred_characters(pair: Pair, content: Any, shown: str) -> None:
    await pair.add_items([user(content)])
    (turn,) = await pair.get_conversation_turns()
    assert turn["content"] == shown
    assert turn["full_content"] == content


async def test_a_user_item_without_content_shows_empty_text(pair: Pair) -> None:
    await pair.add_items([{"role": "user"}])
    (turn,) = await pair.get_conversation_turns()
    assert turn["content"] == turn["full_content"] == ""


async def test_by_turns_tells_type_and_tool_and_no_content(pair: Pair) -> None:
    await pair.add_items([user("one"), call(), output(), assistant("x")])
    assert await pair.get_conversation_by_turns() == {
        1: [
            {"type": "user", "tool_name": None},
            {"type": "function_call", "tool_name": "get_weather"},
            {"type": "function_call_output", "tool_name": None},
            {"type": "assistant", "tool_name": None},
        ]
    }


async def test_an_empty_session_has_no_turns(pair: Pair) -> None:
    assert await pair.get_conversation_turns() == []
    assert await pair.get_conversation_by_turns() == {}
    assert await pair.find_turns_by_content("") == []
    assert await pair.get_tool_usage() == []
    assert await pair.list_branches() == []


@pytest.mark.parametrize("number", [2, 2.0, "2", " 2 "])
async def test_a_turn_may_be_told_by_any_number_that_is_whole(pair: Pair, number: Any) -> None:
    await pair.add_items(turns("one", "two"))
    await pair.store_run_usage(ran(7))
    assert (await pair.get_turn_usage(number))["requests"] == 7
    assert await pair.create_branch_from_turn(number, "draft") == "draft"
    assert await pair.get_items() == turns("one")


@pytest.mark.parametrize("number", [None, "x", 1.5, float("inf"), [1]])
async def test_what_is_no_whole_number_is_no_turn(world: World, number: Any) -> None:
    ours = world.open().ours
    await ours.add_items(turns("one", "two"))
    with pytest.raises(TurnNotFoundError, match=f"^{re.escape(f'Turn {number} does not')}"):
        await ours.create_branch_from_turn(number)
    if number is not None:  # that is all turns
        assert await ours.get_turn_usage(number) == {}


@pytest.mark.parametrize("term", [None, 7, b"one"])
async def test_a_term_that_is_no_text_is_a_type_error(pair: Pair, term: Any) -> None:
    await pair.add_items(turns("one 7 None"))
    for session in (pair.sdk, pair.ours):
        for search in (session.find_turns_by_content, session.create_branch_from_content):
            with pytest.raises(TypeError):
                await search(term)
