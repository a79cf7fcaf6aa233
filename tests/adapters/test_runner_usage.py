"""What runs cost: every request counts once, whatever becomes of the run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from agents import Agent, Runner

from agents_eventlog import EventLogSession
from agents_eventlog.adapters.openai_agents.testing import (
    ScriptedModel,
    call,
    reply,
    tokens,
)
from tests.adapters.running import Bank, streamed, weather

if TYPE_CHECKING:
    from tests.adapters.running import Resume, Sessions

FIFTEEN = tokens(10, 5)

RESPONSE_IDS = pytest.mark.parametrize(
    "response_id", ["resp_{n}", "resp", None], ids=["unique", "constant", "absent"]
)
"""Providers differ: some number their responses, some give every one the same id, or none."""


def host(*script: Any, response_id: str | None = "resp_{n}", first: int = 1) -> Any:
    model = ScriptedModel(script, usage=FIFTEEN, response_id=response_id, first=first)
    return Agent(name="Host", model=model, tools=[weather])


async def spent(session: Any) -> tuple[int, int]:
    """Return the requests and the tokens that the session ever cost."""
    stats = await session.get_usage_stats()
    return stats["total_requests"], stats["total_tokens"]


async def test_the_usage_of_a_run_is_that_of_all_its_requests(sessions: Sessions, run: Any) -> None:
    first = call("weather", {"city": "Oslo"}, usage=tokens(100, 20, cached=60, reasoning=8))
    last = reply("Sunny", usage=tokens(150, 30, cached=100, reasoning=2))
    session = sessions()
    result = await run(host(first, last), "Weather?", session=session)
    await session.store_run_usage(result)
    assert await sessions().get_session_usage() == {
        "requests": 2,
        "input_tokens": 250,
        "output_tokens": 50,
        "total_tokens": 300,
        "total_turns": 1,
    }
    turn = await sessions().get_turn_usage(1)
    assert (turn["requests"], turn["total_tokens"]) == (2, 300)
    assert turn["input_tokens_details"]["cached_tokens"] == 160
    assert turn["output_tokens_details"]["reasoning_tokens"] == 10


async def test_each_turn_has_the_usage_of_its_run(sessions: Sessions, run: Any) -> None:
    agent = host("One", reply("Two", usage=tokens(30, 10)))
    for question in ("First", "Second"):
        session = sessions()
        await session.store_run_usage(await run(agent, question, session=session))
    turns = await sessions().get_turn_usage()
    assert [(turn["user_turn_number"], turn["total_tokens"]) for turn in turns] == [
        (1, 15),
        (2, 40),
    ]


async def test_the_stats_tell_every_kind_of_token(ours: Sessions, run: Any) -> None:
    answer = reply("Hello", usage=tokens(100, 20, cached=60, reasoning=8))
    session = ours()
    await session.store_run_usage(await run(host(answer), "Hi", session=session))
    stats = await ours().get_usage_stats()
    known = {
        "total_runs": 1,
        "total_requests": 1,
        "total_tokens": 120,
        "input_tokens": 100,
        "output_tokens": 20,
        "cached_tokens": 60,
        "reasoning_tokens": 8,
        "total_cost": 0.0,
        "unpriced_requests": 1,
    }
    assert {key: stats[key] for key in known} == known


async def test_a_handoff_costs_what_both_agents_cost(ours: Sessions, run: Any) -> None:
    billing = host("Paid", first=2)
    billing.name = "Billing"
    desk = host(call("transfer_to_billing"))
    desk.handoffs = [billing]
    session = ours()
    await session.store_run_usage(await run(desk, "My bill?", session=session))
    assert await spent(ours()) == (2, 30)


async def test_an_agent_used_as_a_tool_is_counted(ours: Sessions, run: Any) -> None:
    expert = host("42", response_id="expert_{n}")
    desk = host(call("ask", {"input": "6 x 7"}), "It is 42")
    desk.tools = [expert.as_tool(tool_name="ask", tool_description="Ask an expert")]
    session = ours()
    result = await run(desk, "6 x 7?", session=session)
    await session.store_run_usage(result)
    await session.store_run_usage(result)
    assert await spent(ours()) == (3, 45)


@RESPONSE_IDS
async def test_two_runs_of_one_cost_count_twice(
    ours: Sessions, run: Any, response_id: str | None
) -> None:
    agent = host("One", "Two", response_id=response_id)
    for question in ("First", "Second"):
        session = ours()
        await session.store_run_usage(await run(agent, question, session=session))
    assert await spent(ours()) == (2, 30)
    assert (await ours().get_usage_stats())["total_runs"] == 2


@RESPONSE_IDS
async def test_two_runs_in_one_turn_add_up(
    ours: Sessions, run: Any, response_id: str | None
) -> None:
    agent = host("One", "Two", response_id=response_id)
    session = ours()
    await session.store_run_usage(await run(agent, "First", session=session))
    go_on: list[Any] = [{"role": "developer", "content": "Go on"}]
    await session.store_run_usage(await run(agent, go_on, session=session))
    assert (await ours().get_turn_usage(1))["total_tokens"] == 30
    assert await spent(ours()) == (2, 30)


@RESPONSE_IDS
async def test_the_same_result_stored_twice_counts_once(
    ours: Sessions, run: Any, response_id: str | None
) -> None:
    session = ours()
    agent = host(call("weather", {"city": "Oslo"}), "Sunny", response_id=response_id)
    result = await run(agent, "Weather?", session=session)
    for _ in range(2):
        await session.store_run_usage(result)
    assert await spent(ours()) == (2, 30)
    assert (await ours().get_usage_stats())["total_runs"] == 1
    assert (await ours().get_turn_usage(1))["total_tokens"] == 30


async def test_the_same_result_stored_by_another_object_counts_once(
    ours: Sessions, run: Any
) -> None:
    result = await run(host("Hello"), "Hi", session=ours())
    await ours().store_run_usage(result)
    await ours().store_run_usage(result)
    assert await spent(ours()) == (1, 15)


async def test_models_that_number_their_responses_alike_both_count(
    ours: Sessions, run: Any
) -> None:
    for _ in range(2):
        session = ours()
        await session.store_run_usage(await run(host("Hello"), "Hi", session=session))
    assert await spent(ours()) == (2, 30)


@RESPONSE_IDS
async def test_a_resumed_run_counts_only_what_is_new(
    ours: Sessions, run: Any, resume: Resume, response_id: str | None
) -> None:
    bank = Bank(call("pay", {"to": "Ada"}), "Done", usage=FIFTEEN, response_id=response_id)
    session = ours()
    interrupted = await run(bank.agent, "Pay Ada", session=session)
    await session.store_run_usage(interrupted)
    assert await spent(ours()) == (1, 15)

    state = await resume(interrupted, bank.agent)
    state.approve(state.get_interruptions()[0])
    session = ours()
    result = await run(bank.agent, state, session=session)
    assert result.context_wrapper.usage.total_tokens == 30, "the SDK reports cumulatively"
    await session.store_run_usage(result)
    assert await spent(ours()) == (2, 30)
    await session.store_run_usage(result)
    assert await spent(ours()) == (2, 30)
    assert (await ours().get_turn_usage(1))["total_tokens"] == 30


@RESPONSE_IDS
async def test_a_resumed_run_counts_only_what_is_new_on_another_branch_too(
    ours: Sessions, run: Any, resume: Resume, response_id: str | None
) -> None:
    bank = Bank(call("pay", {"to": "Ada"}), "Done", usage=FIFTEEN, response_id=response_id)
    session = ours()
    interrupted = await run(bank.agent, "Pay Ada", session=session)
    await session.store_run_usage(interrupted)
    state = await resume(interrupted, bank.agent)
    state.approve(state.get_interruptions()[0])
    await session.create_branch("aside")
    await session.store_run_usage(await run(bank.agent, state, session=session))
    assert await spent(ours()) == (2, 30)


async def test_a_new_run_that_looks_like_a_waiting_one_counts_in_full(
    ours: Sessions, run: Any
) -> None:
    bank = Bank(call("pay", {"to": "Ada"}), usage=FIFTEEN, response_id="always")
    again = Bank(call("pay", {"to": "Ada"}), usage=FIFTEEN, response_id="always")
    session = ours()
    await session.store_run_usage(await run(bank.agent, "Pay Ada", session=session))
    await session.store_run_usage(await run(again.agent, "Pay Ada", session=session))
    assert await spent(ours()) == (2, 30)


async def test_a_result_that_is_stored_in_two_sessions_counts_once_in_each(
    ours: Sessions, run: Any
) -> None:
    session = ours()
    result = await run(host("Hello"), "Hi", session=session)
    other = EventLogSession("other", session.log)
    for _ in range(2):
        await session.store_run_usage(result)
        await other.store_run_usage(result)
    assert await spent(session) == await spent(other) == (1, 15)


async def test_a_resumed_run_counts_in_full_when_its_first_part_was_never_stored(
    ours: Sessions, run: Any, resume: Resume
) -> None:
    bank = Bank(call("pay", {"to": "Ada"}), "Done", usage=FIFTEEN)
    state = await resume(await run(bank.agent, "Pay Ada", session=ours()), bank.agent)
    state.approve(state.get_interruptions()[0])
    session = ours()
    await session.store_run_usage(await run(bank.agent, state, session=session))
    assert await spent(ours()) == (2, 30)


async def test_what_was_popped_switched_from_or_cleared_stays_spent(
    ours: Sessions, run: Any
) -> None:
    agent = host("One", "Two", "Three")
    session = ours()
    await session.store_run_usage(await run(agent, "First", session=session))
    await session.create_branch("aside")
    await session.store_run_usage(await run(agent, "Second", session=session))
    await session.delete_branch("aside", force=True)
    await session.store_run_usage(await run(agent, "Third", session=session))
    await session.pop_item()
    await session.pop_item()
    await session.clear_session()
    assert await session.get_session_usage() is None
    assert await spent(ours()) == (3, 45)


async def test_a_run_that_failed_costs_what_was_answered_before(ours: Sessions) -> None:
    agent = host("One", call("weather", {"city": "Oslo"}), ConnectionError("gone"))
    session = ours()
    await session.store_run_usage(await Runner.run(agent, "Hi", session=session))
    result = Runner.run_streamed(agent, "Weather?", session=session)
    with pytest.raises(ConnectionError):
        async for _ in result.stream_events():
            pass
    await session.store_run_usage(result)
    assert await spent(ours()) == (2, 30)


async def test_usage_stored_while_a_run_streams_is_completed_afterwards(ours: Sessions) -> None:
    agent = host(call("weather", {"city": "Oslo"}), "Sunny")
    session = ours()
    result = Runner.run_streamed(agent, "Weather?", session=session)
    async for event in result.stream_events():
        if getattr(event, "name", None) == "tool_output":
            await session.store_run_usage(result)
    await session.store_run_usage(result)
    assert await spent(ours()) == (2, 30)


async def test_a_run_without_a_session_can_be_stored_on_one(ours: Sessions) -> None:
    session = ours()
    await session.add_items([{"role": "user", "content": "Hi"}])
    await session.store_run_usage(await streamed(host("Hello"), "Hi"))
    assert await spent(ours()) == (1, 15)
