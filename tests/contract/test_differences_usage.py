"""The differences in usage, each shown on both sides."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agents import Agent, Runner
from openai.types.responses.response_usage import InputTokensDetails

from agents_eventlog.adapters.openai_agents.testing import ScriptedModel
from tests.contract.differences import shows
from tests.contract.items import ran, result_of, turns, usage

if TYPE_CHECKING:
    from tests.contract.harness import Pair

COUNTERS = ("requests", "input_tokens", "output_tokens", "total_tokens")


@shows("the usage of two runs in one turn")
async def test_ours_adds_up_the_runs_of_a_turn(pair: Pair) -> None:
    await pair.add_items(turns("one"))
    first, second = ran(1, 10, 5, cached=4, reasoning=1), ran(2, 30, 7, cached=6, reasoning=2)
    for result in (first, second):
        await pair.store_run_usage(result)
    theirs, ours = await pair.sdk.get_turn_usage(1), await pair.ours.get_turn_usage(1)
    assert [theirs[key] for key in COUNTERS] == [2, 30, 7, 37]
    assert [ours[key] for key in COUNTERS] == [3, 40, 12, 52]
    assert theirs["input_tokens_details"]["cached_tokens"] == 6
    assert ours["input_tokens_details"]["cached_tokens"] == 10
    assert theirs["output_tokens_details"] == {"reasoning_tokens": 2}
    assert ours["output_tokens_details"] == {"reasoning_tokens": 3}
    assert (await pair.ours.get_session_usage())["total_turns"] == 1

    await pair.store_run_usage(first)
    assert (await pair.sdk.get_session_usage())["requests"] == 1
    assert (await pair.ours.get_session_usage())["requests"] == 3


@shows("the first call of an object, after another one cleared the session")
async def test_ours_sees_a_session_first_in_its_first_call(pair: Pair) -> None:
    before = pair.again()
    await pair.add_items(turns("one"))
    await pair.clear_session()
    await pair.add_items(turns("new"))
    await before.store_run_usage(ran(1, 10, 5))
    assert await pair.sdk.get_turn_usage(1) == {}
    assert (await pair.ours.get_turn_usage(1))["requests"] == 1


@shows("usage details that only some providers send")
async def test_ours_keeps_the_details_that_a_provider_adds(pair: Pair) -> None:
    await pair.add_items(turns("one"))
    spent = usage(1, 10, 5)
    spent.input_tokens_details = InputTokensDetails.model_validate(
        {"cached_tokens": 4, "cache_write_tokens": 0, "audio_tokens": 3}
    )
    await pair.store_run_usage(result_of(spent))
    theirs, ours = await pair.sdk.get_turn_usage(1), await pair.ours.get_turn_usage(1)
    assert "audio_tokens" not in theirs["input_tokens_details"]
    assert ours["input_tokens_details"]["audio_tokens"] == 3
    assert ours["input_tokens_details"]["cached_tokens"] == 4


@shows("the usage of removed items")
async def test_ours_remembers_what_was_spent_on_what_is_gone(pair: Pair) -> None:
    await pair.add_items(turns("one", "two"))
    await pair.store_run_usage(ran(1, 10, 5))
    await pair.create_branch_from_turn(2, "draft")
    await pair.store_run_usage(ran(1, 20, 5))
    await pair.delete_branch("draft", force=True)
    await pair.pop_item()
    await pair.pop_item()
    assert await pair.get_session_usage() is None
    await pair.clear_session()
    assert await pair.get_session_usage() is None
    assert not hasattr(pair.sdk, "get_usage_stats")
    stats = await pair.ours.get_usage_stats()
    assert (stats["total_runs"], stats["total_tokens"]) == (2, 40)


@shows("the usage of a run that was not stored")
async def test_ours_records_what_a_run_used_by_itself(pair: Pair) -> None:
    agent = Agent(name="Host", model=ScriptedModel(["Hi"], usage=usage(1, 10, 5)))
    for session in (pair.sdk, pair.ours):
        await Runner.run(
            agent.clone(model=ScriptedModel(["Hi"], usage=usage(1, 10, 5))),
            "Hello",
            session=session,
        )
    assert await pair.sdk.get_turn_usage() == []
    assert [turn["total_tokens"] for turn in await pair.ours.get_turn_usage()] == [15]
    silent = type(pair.ours)("silent", pair.ours.db_path, auto_usage=False)
    await Runner.run(agent, "Hello", session=silent)
    assert await silent.get_turn_usage() == []
