"""What a run used, stored and asked for, on both sides (bullets 57 to 66)."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from agents.usage import Usage

from tests.contract.items import assistant, ran, result_of, turns, usage, user

if TYPE_CHECKING:
    from tests.contract.harness import Pair

FIRST: dict[str, Any] = {
    "requests": 2,
    "input_tokens": 30,
    "output_tokens": 12,
    "total_tokens": 42,
    "input_tokens_details": vars(usage(cached=7).input_tokens_details),
    "output_tokens_details": vars(usage(reasoning=3).output_tokens_details),
}


async def test_a_runs_usage_is_that_of_the_latest_turn(pair: Pair) -> None:
    await pair.add_items(turns("one", "two"))
    await pair.store_run_usage(ran(2, 30, 12, cached=7, reasoning=3))
    assert await pair.get_turn_usage(2) == FIRST
    assert FIRST["input_tokens_details"]["cached_tokens"] == 7
    assert FIRST["output_tokens_details"] == {"reasoning_tokens": 3}
    assert await pair.get_turn_usage(1) == {}
    assert await pair.get_turn_usage(99) == {}
    assert await pair.get_turn_usage() == [{"user_turn_number": 2, **FIRST}]
    assert await pair.get_turn_usage(user_turn_number=2, branch_id="main") == FIRST


async def test_turns_are_listed_in_order(pair: Pair) -> None:
    for number in range(1, 4):
        await pair.add_items(turns(str(number)))
        await pair.store_run_usage(ran(number, number, number))
    shown = await pair.get_turn_usage()
    assert [row["user_turn_number"] for row in shown] == [1, 2, 3]
    assert [row["requests"] for row in shown] == [1, 2, 3]


async def test_a_sessions_usage_is_over_all_branches(pair: Pair) -> None:
    await pair.add_items(turns("one", "two"))
    await pair.store_run_usage(ran(1, 10, 1))
    await pair.create_branch_from_turn(2, "draft")
    await pair.store_run_usage(ran(2, 20, 2))
    await pair.add_items(turns("other two"))
    await pair.store_run_usage(ran(3, 30, 3))
    every = {
        "requests": 6,
        "input_tokens": 60,
        "output_tokens": 6,
        "total_tokens": 66,
        "total_turns": 3,
    }
    assert await pair.get_session_usage() == every
    assert await pair.get_session_usage("") == every
    assert (await pair.get_session_usage("main"))["requests"] == 1
    assert (await pair.get_session_usage(branch_id="draft"))["requests"] == 5
    assert await pair.get_session_usage("nowhere") is None
    assert [row["requests"] for row in await pair.get_turn_usage()] == [2, 3]


async def test_without_runs_there_is_no_usage(pair: Pair) -> None:
    await pair.add_items(turns("one"))
    assert await pair.get_session_usage() is None
    assert await pair.get_session_usage("main") is None
    assert await pair.get_turn_usage() == []
    assert await pair.get_turn_usage(1) == {}


async def test_without_a_turn_nothing_is_stored(pair: Pair) -> None:
    await pair.store_run_usage(ran())
    assert await pair.get_session_usage() is None
    await pair.add_items(turns("one"))
    assert await pair.get_session_usage() is None


async def test_turn_0_takes_usage(pair: Pair) -> None:
    await pair.add_items([assistant("hello")])
    await pair.store_run_usage(ran())
    assert (await pair.get_turn_usage(0))["requests"] == 1
    assert [row["user_turn_number"] for row in await pair.get_turn_usage()] == [0]
    await pair.add_items(turns("one"))
    await pair.store_run_usage(ran())
    assert (await pair.get_session_usage())["total_turns"] == 2


async def test_a_branch_is_made_without_usage(pair: Pair) -> None:
    await pair.add_items(turns("one", "two"))
    await pair.store_run_usage(ran())
    await pair.create_branch_from_turn(2, "draft")
    assert await pair.get_turn_usage() == []
    assert await pair.get_session_usage("draft") is None


async def test_usage_after_a_switch_is_that_of_the_branchs_last_turn(pair: Pair) -> None:
    await pair.add_items(turns("one", "two"))
    await pair.create_branch_from_turn(2, "draft")
    await pair.store_run_usage(ran(1, 1, 1))
    await pair.switch_to_branch("main")
    await pair.store_run_usage(ran(2, 2, 2))
    assert (await pair.get_turn_usage(1, "draft"))["requests"] == 1
    assert (await pair.get_turn_usage(2, "main"))["requests"] == 2


async def test_the_same_result_twice_counts_once(pair: Pair) -> None:
    await pair.add_items(turns("one"))
    result = ran(2, 30, 12, cached=7, reasoning=3)
    await pair.store_run_usage(result)
    await pair.store_run_usage(result)
    assert await pair.get_turn_usage(1) == FIRST


async def test_no_usage_is_nothing_to_store(pair: Pair) -> None:
    await pair.add_items(turns("one"))
    assert await pair.store_run_usage(result_of(None)) is None
    assert await pair.get_session_usage() is None


@pytest.mark.parametrize("field", ["requests", "input_tokens", "output_tokens", "total_tokens"])
async def test_a_counter_of_none_is_0(pair: Pair, field: str) -> None:
    await pair.add_items(turns("one"))
    spent = usage(1, 2, 3)
    setattr(spent, field, None)
    await pair.store_run_usage(result_of(spent))
    assert (await pair.get_turn_usage(1))[field] == 0
    assert (await pair.get_session_usage())[field] == 0


@pytest.mark.parametrize("field", ["input_tokens_details", "output_tokens_details"])
async def test_details_that_are_missing_are_none(pair: Pair, field: str) -> None:
    await pair.add_items(turns("one"))
    spent = usage(1, 2, 3)
    setattr(spent, field, None)
    await pair.store_run_usage(result_of(spent))
    assert (await pair.get_turn_usage(1))[field] is None


async def test_usage_need_not_be_the_sdks_object(pair: Pair) -> None:
    await pair.add_items(turns("one"))
    spent = SimpleNamespace(requests=1, input_tokens=2, output_tokens=3, total_tokens=5)
    await pair.store_run_usage(result_of(spent))
    assert await pair.get_turn_usage(1) == {
        "requests": 1,
        "input_tokens": 2,
        "output_tokens": 3,
        "total_tokens": 5,
        "input_tokens_details": None,
        "output_tokens_details": None,
    }


async def test_usage_of_nothing_is_usage(pair: Pair) -> None:
    await pair.add_items(turns("one"))
    await pair.store_run_usage(result_of(Usage()))
    assert (await pair.get_session_usage()) == {
        "requests": 0,
        "input_tokens": 0,
        "output_tokens": 0,
        "total_tokens": 0,
        "total_turns": 1,
    }


@pytest.mark.parametrize(
    "result",
    [None, object(), SimpleNamespace(context_wrapper=None), result_of("no usage"), result_of(5)],
    ids=["none", "object", "no wrapper", "text", "number"],
)
async def test_a_bad_result_is_no_error(pair: Pair, result: Any) -> None:
    await pair.add_items(turns("one"))
    assert await pair.store_run_usage(result) is None
    assert await pair.get_session_usage() is None
    await pair.store_run_usage(ran())
    assert (await pair.get_session_usage())["requests"] == 1


async def test_a_closed_session_stores_no_usage_and_does_not_raise(pair: Pair) -> None:
    await pair.add_items(turns("one"))
    reader = pair.again()
    pair.close()
    assert await pair.store_run_usage(ran()) is None
    assert await reader.get_session_usage() is None


async def test_deleting_another_branch_drops_no_usage(pair: Pair) -> None:
    await pair.add_items(turns("one", "two"))
    await pair.store_run_usage(ran())
    await pair.create_branch_from_turn(2, "draft")
    await pair.delete_branch("draft", force=True)
    assert (await pair.get_session_usage())["total_turns"] == 1


async def test_usage_is_kept_in_the_file(pair: Pair) -> None:
    await pair.add_items([user("one")])
    await pair.store_run_usage(ran(2, 30, 12, cached=7, reasoning=3))
    pair.close()
    assert await pair.again().get_turn_usage(1) == FIRST
