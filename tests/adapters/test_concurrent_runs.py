"""Runs that use one session at the same time: what each policy does with their items and usage."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

import pytest
from agents import Agent, RunConfig, Runner, function_tool

from agents_eventlog import AdvancedSQLiteSession
from agents_eventlog.adapters.conversations import concurrent_runs
from agents_eventlog.adapters.openai_agents.testing import ScriptedModel, call, reply, tokens
from agents_eventlog.eventlog.errors import ConcurrentRunError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Make = Callable[..., AdvancedSQLiteSession]

POSTS = 4


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Return a way to open the session, as an application does for each web request."""
    return lambda **options: AdvancedSQLiteSession("talk", tmp_path / "log.db", **options)


class Room:
    """Models that answer only when a number of runs have asked."""

    def __init__(self, seats: int) -> None:
        self._barrier = asyncio.Barrier(seats)

    def agent(self, n: int, *script: Any, tools: Any = ()) -> Any:
        async def answer(_: Any) -> Any:
            await self._barrier.wait()
            return reply(f"answer {n}", usage=tokens(10 * n, n))

        model = ScriptedModel([answer, *script], first=100 * n)
        return Agent(name=f"Agent {n}", model=model, tools=list(tools))


def reading_together(runs: int) -> RunConfig:
    """Let runs begin together: none of them writes before each of them has read the session."""
    barrier = asyncio.Barrier(runs)

    async def wait(history: Any, new: Any) -> Any:
        await barrier.wait()
        return [*history, *new]

    return RunConfig(session_input_callback=wait)


def told(items: Any) -> list[str]:
    """Return the texts of items."""
    return [
        item["content"] if isinstance(item["content"], str) else item["content"][0]["text"]
        for item in items
    ]


def usage_of(session: AdvancedSQLiteSession) -> dict[int, tuple[str, int]]:
    """Return the branch and the turn of each request, by its output tokens."""
    rows = session.log.store.read_sync(
        lambda tx: tx.all("SELECT output_tokens, branch_id, turn FROM usage")
    )
    return {tokens: (branch, turn) for tokens, branch, turn in rows}


async def turns_of(session: AdvancedSQLiteSession) -> dict[str, int]:
    turns = await session.get_conversation_turns()
    return {turn["content"]: turn["turn"] for turn in turns}


@pytest.mark.parametrize("shared", [False, True])
async def test_usage_of_interleaved_runs_goes_to_each_runs_own_turn(
    make: Make, caplog: pytest.LogCaptureFixture, *, shared: bool
) -> None:
    room, one = Room(POSTS), make()
    with caplog.at_level(logging.WARNING, "eventlog.session"):
        await asyncio.gather(
            *(
                Runner.run(room.agent(n), f"question {n}", session=one if shared else make())
                for n in range(1, POSTS + 1)
            )
        )
    turns = await turns_of(one)
    assert sorted(turns.values()) == [1, 2, 3, 4]
    assert usage_of(one) == {n: ("main", turns[f"question {n}"]) for n in range(1, POSTS + 1)}
    assert "interleaved" in caplog.text


async def test_streamed_runs_are_interleaved_on_their_own_turns(make: Make) -> None:
    room = Room(2)

    async def stream(n: int) -> None:
        result = Runner.run_streamed(room.agent(n), f"question {n}", session=make())
        async for _ in result.stream_events():
            pass

    await asyncio.gather(stream(1), stream(2))
    turns = await turns_of(make())
    assert usage_of(make()) == {n: ("main", turns[f"question {n}"]) for n in (1, 2)}


async def test_runs_one_after_the_other_are_not_concurrent(
    make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    one = make(on_concurrent_run="reject")
    with caplog.at_level(logging.WARNING, "eventlog.session"):
        for n, session in enumerate([one, one, make(on_concurrent_run="reject"), one], 1):
            await Runner.run(Room(1).agent(n), f"question {n}", session=session)
            await make().add_items([{"role": "user", "content": "by hand"}])
            await one.add_items([{"role": "user", "content": "by hand, too"}])
    assert not caplog.records
    assert [turn for _, turn in usage_of(one).values()] == [1, 4, 7, 10]


async def test_a_run_whose_branch_changed_before_its_first_add_is_rejected_and_writes_nothing(
    make: Make,
) -> None:
    room, together = Room(1), reading_together(POSTS)
    results = await asyncio.gather(
        *(
            Runner.run(
                room.agent(n),
                f"question {n}",
                session=make(on_concurrent_run="reject"),
                run_config=together,
            )
            for n in range(1, POSTS + 1)
        ),
        return_exceptions=True,
    )
    errors = [each for each in results if isinstance(each, BaseException)]
    assert [type(each) for each in errors] == [ConcurrentRunError] * (POSTS - 1)
    items = told(await make().get_items())
    assert len(items) == 2
    assert items[1] == items[0].replace("question", "answer")
    assert len(usage_of(make())) == 1


@pytest.mark.parametrize("shared", [False, True])
async def test_each_of_two_runs_that_began_together_gets_a_branch(
    make: Make, *, shared: bool
) -> None:
    setup = make(on_concurrent_run="branch")
    await setup.add_items([{"role": "user", "content": "before"}])
    room, together = Room(POSTS), reading_together(POSTS)

    async def post(n: int) -> tuple[str, list[str]]:
        session = setup if shared else make(on_concurrent_run="branch")
        await Runner.run(room.agent(n), f"question {n}", session=session, run_config=together)
        assert told(await session.get_items(branch_id=session.current_branch)) == [
            "before",
            f"question {n}",
            f"answer {n}",
        ]
        await Runner.run(Room(1).agent(10 * n), "again", session=session)
        return session.current_branch, told(
            await session.get_items(branch_id=session.current_branch)
        )

    posts = await asyncio.gather(*map(asyncio.create_task, map(post, range(1, POSTS + 1))))
    assert len({branch for branch, _ in posts}) == POSTS
    for n, (branch, items) in enumerate(posts, 1):
        assert items == ["before", f"question {n}", f"answer {n}", "again", f"answer {10 * n}"]
        assert usage_of(make())[n] == (branch, 2)
        assert usage_of(make())[10 * n] == (branch, 3)


async def test_a_run_that_another_run_overtakes_keeps_its_question_and_answer_together(
    make: Make,
) -> None:
    asked, answered = asyncio.Event(), asyncio.Event()

    async def slow(_: Any) -> Any:
        asked.set()
        await answered.wait()
        return reply("slow answer", usage=tokens(1, 7))

    session = make(on_concurrent_run="branch")
    run = asyncio.create_task(
        Runner.run(Agent(name="Slow", model=ScriptedModel([slow])), "slow", session=session)
    )
    await asked.wait()
    other = make(on_concurrent_run="branch")
    await Runner.run(
        Agent(name="Fast", model=ScriptedModel(["fast answer"])), "fast", session=other
    )
    answered.set()
    await run
    assert told(await session.get_items()) == ["slow", "slow answer"]
    assert session.current_branch != other.current_branch == "main"
    # The model answered before the run branched off; its turn is the first one on both branches.
    assert usage_of(session)[7] == ("main", 1)


async def test_what_a_runs_own_tools_add_is_no_other_run(make: Make) -> None:
    session = make(on_concurrent_run="reject")

    @function_tool
    async def note() -> str:
        await session.add_items([{"role": "user", "content": "noted"}])
        await session.pop_item()
        await session.add_items([{"role": "user", "content": "noted again"}])
        return "done"

    model = ScriptedModel([call("note"), "finished"])
    await Runner.run(Agent(name="Host", model=model, tools=[note]), "Note it", session=session)
    assert [item.get("type", item.get("role")) for item in await session.get_items()][
        -1
    ] == "message"


@pytest.mark.parametrize("policy", ["branch", "reject"])
async def test_a_run_whose_history_was_removed_meanwhile_is_rejected(
    make: Make, policy: str
) -> None:
    session = make(on_concurrent_run=policy)

    async def clear(_: Any) -> Any:
        await asyncio.get_running_loop().run_in_executor(
            None, lambda: asyncio.run(make().clear_session())
        )
        return "too late"

    with pytest.raises(ConcurrentRunError):
        await Runner.run(Agent(name="Host", model=ScriptedModel([clear])), "Hi", session=session)
    assert await make().get_items() == []


async def test_runs_are_told_apart_without_automatic_usage(make: Make) -> None:
    room = Room(2)

    async def post(n: int) -> None:
        session = make(auto_usage=False)
        result = await Runner.run(room.agent(n), f"question {n}", session=session)
        await asyncio.sleep(0.05)
        await session.store_run_usage(result)

    await asyncio.gather(post(1), post(2))
    turns = await turns_of(make())
    assert usage_of(make()) == {n: ("main", turns[f"question {n}"]) for n in (1, 2)}


def test_an_unknown_policy_is_refused(make: Make) -> None:
    with pytest.raises(ValueError, match="invalid on_concurrent_run: expected one of"):
        make(on_concurrent_run="queue")


async def test_a_task_that_serves_many_sessions_remembers_few(tmp_path: Path) -> None:
    for n in range(20):
        session = AdvancedSQLiteSession(f"talk {n}", tmp_path / "log.db")
        await Runner.run(Room(1).agent(n), "Hi", session=session)
    assert len(concurrent_runs._current.get()) <= concurrent_runs.MOST_SESSIONS
