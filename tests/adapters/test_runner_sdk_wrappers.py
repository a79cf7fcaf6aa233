"""The SDK's own wrappers around a session: encryption and compaction."""

from __future__ import annotations

import copy
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from agents import Agent, Runner, SessionSettings
from agents.extensions.memory import EncryptedSession
from agents.memory import OpenAIResponsesCompactionSession
from cryptography.fernet import Fernet
from openai.types.responses import ResponseUsage

from agents_eventlog import Price, UsageHooks
from agents_eventlog.adapters.openai_agents.testing import ScriptedModel, call, tokens
from tests.adapters.running import (
    answered,
    called,
    kinds,
    recorded,
    said,
    user,
    weather,
)

if TYPE_CHECKING:
    from tests.adapters.running import Item, Sessions

KEY = Fernet.generate_key().decode()
SUMMARY: Item = {"type": "compaction", "id": "cmp_1", "encrypted_content": "all of the above"}
FIFTEEN = tokens(10, 5)


def host(*script: Any) -> Any:
    return Agent(name="Host", model=ScriptedModel(script, usage=FIFTEEN), tools=[weather])


def encrypted(session: Any, key: str = KEY) -> Any:
    return EncryptedSession(session.session_id, session, key)


class Compactor:
    """Stands where the OpenAI client would, and answers `responses.compact` from a script."""

    def __init__(self, *outputs: Any, usage: ResponseUsage | None = None) -> None:
        self.requests: list[dict[str, Any]] = []
        self.responses = SimpleNamespace(compact=self._compact)
        self._outputs = list(outputs)
        self._usage = usage

    async def _compact(self, **request: Any) -> Any:
        self.requests.append(copy.deepcopy(request))
        output = self._outputs.pop(0)
        if isinstance(output, Exception):
            raise output
        return SimpleNamespace(output=output, usage=self._usage)


def compacting(
    session: Any, compactor: Any, *, automatically: bool = False
) -> OpenAIResponsesCompactionSession:
    return OpenAIResponsesCompactionSession(
        session.session_id,
        session,
        client=compactor,
        compaction_mode="input",
        should_trigger_compaction=lambda _: automatically,
    )


async def state_of(sessions: Sessions, branch_id: str) -> dict[str, Any]:
    """Return all that a session tells about one of its branches."""
    session = sessions()
    return {
        "items": await session.get_items(branch_id=branch_id),
        "turns": await session.get_conversation_turns(branch_id),
        "structure": await session.get_conversation_by_turns(branch_id),
        "usage": await session.get_turn_usage(branch_id=branch_id),
        "tools": await session.get_tool_usage(branch_id),
    }


async def test_an_encrypted_conversation_goes_round(sessions: Sessions, run: Any) -> None:
    agent = host(call("weather", {"city": "Oslo"}), "Sunny", "Yes")
    await run(agent, "Weather?", session=encrypted(sessions()))
    held = [
        user("Weather?"),
        called("weather", {"city": "Oslo"}, 1),
        answered("sunny in Oslo", 1),
        said("Sunny", 2),
    ]
    assert await encrypted(sessions()).get_items() == held

    await run(agent, "Sure?", session=encrypted(sessions()))
    assert agent.model.inputs[2] == [*held, user("Sure?")]


async def test_no_word_of_an_encrypted_conversation_is_in_the_file(
    sessions: Sessions, run: Any
) -> None:
    await run(host("Xanthippe answers"), "Xanthippe asks", session=encrypted(sessions()))
    files = list(sessions.path.parent.glob("talk.db*"))
    assert sum(b"hkdf-v1" in file.read_bytes() for file in files) >= 1, "the envelopes are there"
    assert not any(b"Xanthippe" in file.read_bytes() for file in files)


async def test_a_pop_through_the_encryption_takes_the_newest_item(sessions: Sessions) -> None:
    session = encrypted(sessions())
    await Runner.run(host("Hello"), "Hi", session=session)
    assert await session.pop_item() == said("Hello", 1)
    assert await encrypted(sessions()).get_items() == [user("Hi")]
    assert await session.pop_item() == user("Hi")
    assert await session.pop_item() is None


async def test_a_limit_through_the_encryption_gives_the_newest_items(
    sessions: Sessions, run: Any
) -> None:
    agent = host("One", "Two", "Three")
    for question in ("First", "Second"):
        await run(agent, question, session=encrypted(sessions()))
    assert await encrypted(sessions()).get_items(1) == [said("Two", 2)]
    assert await encrypted(sessions()).get_items(3) == [
        said("One", 1),
        user("Second"),
        said("Two", 2),
    ]
    limited = encrypted(sessions(session_settings=SessionSettings(limit=2)))
    await run(agent, "Third", session=limited)
    assert agent.model.inputs[2] == [
        user("Second"),
        said("Two", 2),
        user("Third"),
    ]


async def test_a_wrong_key_shows_nothing(sessions: Sessions) -> None:
    await Runner.run(host("Hello"), "Hi", session=encrypted(sessions()))
    other = encrypted(sessions(), Fernet.generate_key().decode())
    assert await other.get_items() == []
    assert await encrypted(sessions()).get_items() == [user("Hi"), said("Hello", 1)]


async def test_clearing_through_the_encryption_leaves_other_sessions(sessions: Sessions) -> None:
    for name in ("one", "two"):
        await encrypted(sessions(name)).add_items([user(name)])
    await encrypted(sessions("one")).clear_session()
    assert await encrypted(sessions("one")).get_items() == []
    assert await encrypted(sessions("two")).get_items() == [user("two")]


async def test_an_encrypted_conversation_branches_at_its_tip(ours: Sessions, run: Any) -> None:
    agent = host("One", "Two", "Three")
    session = encrypted(ours())
    await run(agent, "First", session=session)
    assert await session.create_branch("aside") == "aside"
    await run(agent, "Second", session=session)
    begun = [user("First"), said("One", 1)]
    assert await encrypted(ours()).get_items() == begun
    aside = encrypted(ours(branch_id="aside"))
    assert await aside.get_items() == [*begun, user("Second"), said("Two", 2)]


async def test_the_usage_of_an_encrypted_conversation_is_counted(ours: Sessions, run: Any) -> None:
    session = encrypted(ours())
    await session.store_run_usage(await run(host("Hello"), "Hi", session=session))
    assert (await ours().get_usage_stats())["total_tokens"] == 15


async def test_a_compaction_replaces_the_items_it_was_given(sessions: Sessions) -> None:
    await Runner.run(host("Hello"), "Hi", session=sessions())
    compactor = Compactor([SUMMARY])
    await compacting(sessions(), compactor).run_compaction({"force": True})
    assert [kinds(request["input"]) for request in compactor.requests] == [["user", "assistant"]]
    assert await sessions().get_items() == [SUMMARY]


async def test_the_next_run_sends_what_the_compaction_left(sessions: Sessions, run: Any) -> None:
    agent = host("One", "Two")
    await run(agent, "First", session=sessions())
    compactor = Compactor([user("First"), SUMMARY])
    await compacting(sessions(), compactor).run_compaction({"force": True})
    await run(agent, "Second", session=sessions())
    assert agent.model.inputs[1] == [
        user("First"),
        SUMMARY,
        user("Second"),
    ]
    assert await sessions().get_items() == [
        user("First"),
        SUMMARY,
        user("Second"),
        said("Two", 2),
    ]


async def test_a_run_compacts_by_itself_when_history_grows(sessions: Sessions, run: Any) -> None:
    compactor = Compactor([SUMMARY])
    session = compacting(sessions(), compactor, automatically=True)
    await run(host("Hello"), "Hi", session=session)
    assert len(compactor.requests) == 1
    assert await sessions().get_items() == [SUMMARY]


async def test_a_run_with_local_tools_compacts_once_they_are_answered(
    sessions: Sessions, run: Any
) -> None:
    compactor = Compactor([SUMMARY])
    session = compacting(sessions(), compactor, automatically=True)
    await run(host(call("weather", {"city": "Oslo"}), "Sunny"), "Weather?", session=session)
    assert [kinds(request["input"]) for request in compactor.requests] == [
        ["user", "function_call", "function_call_output", "assistant"]
    ]
    assert await sessions().get_items() == [SUMMARY]


async def test_a_compaction_that_fails_changes_nothing(sessions: Sessions) -> None:
    await Runner.run(host("Hello"), "Hi", session=sessions())
    before = await state_of(sessions, "main")
    session = compacting(sessions(), Compactor(ConnectionError("gone")))
    with pytest.raises(ConnectionError):
        await session.run_compaction({"force": True})
    assert await state_of(sessions, "main") == before


async def two_branches(ours: Sessions) -> Any:
    """Make two branches with a turn each beyond the one they share; return a session on `aside`."""
    agent = host("One", "Two", call("weather", {"city": "Oslo"}), "Sunny")
    session = ours()
    for question in ("First", "Second"):
        await session.store_run_usage(await Runner.run(agent, question, session=session))
    await session.create_branch_from_turn(2, "aside")
    await session.store_run_usage(await Runner.run(agent, "Weather?", session=session))
    return session


async def test_a_compaction_on_a_branch_leaves_the_other_branches(ours: Sessions) -> None:
    session = await two_branches(ours)
    before = await state_of(ours, "main")
    await compacting(session, Compactor([SUMMARY])).run_compaction({"force": True})
    assert session.current_branch == "aside"
    assert await session.get_items() == [SUMMARY]
    assert await state_of(ours, "main") == before
    assert [branch["branch_id"] for branch in await ours().list_branches()] == ["main", "aside"]


async def test_a_compaction_on_main_leaves_the_branches_that_left_it(ours: Sessions) -> None:
    await two_branches(ours)
    before = await state_of(ours, "aside")
    await compacting(ours(), Compactor([SUMMARY])).run_compaction({"force": True})
    assert await ours().get_items() == [SUMMARY]
    assert await state_of(ours, "aside") == before


async def test_a_compaction_leaves_all_that_was_spent(ours: Sessions) -> None:
    session = await two_branches(ours)
    before = await ours().get_usage_stats()
    assert before["total_tokens"] == 60
    await compacting(session, Compactor([SUMMARY])).run_compaction({"force": True})
    assert await ours().get_usage_stats() == before


async def test_a_compaction_that_keeps_the_turns_keeps_their_usage(ours: Sessions) -> None:
    session = await two_branches(ours)
    turns = await session.get_turn_usage()
    session_usage = await session.get_session_usage()
    held = await session.get_items()
    kept = [item for item in held if item.get("role") == "user"]
    compactor = Compactor([*kept, SUMMARY])
    await compacting(session, compactor).run_compaction({"force": True})
    assert await session.get_turn_usage() == turns
    assert await session.get_session_usage() == session_usage


async def test_a_compaction_is_one_event(ours: Sessions) -> None:
    session = await two_branches(ours)
    added = len(await recorded(ours.path, "items_added"))
    await compacting(session, Compactor([user("Then"), SUMMARY])).run_compaction({"force": True})
    replaced = await recorded(ours.path, "items_replaced")
    assert [(event.branch_id, len(event.event.items)) for event in replaced] == [("aside", 2)]
    assert len(await recorded(ours.path, "items_added")) == added
    assert await recorded(ours.path, "session_cleared") == []


async def test_a_compaction_with_what_cannot_be_stored_changes_nothing(ours: Sessions) -> None:
    session = await two_branches(ours)
    before = await state_of(ours, "aside")
    bad = {"type": "compaction", "encrypted_content": object()}
    with pytest.raises(TypeError):
        await compacting(session, Compactor([SUMMARY, bad])).run_compaction({"force": True})
    assert await state_of(ours, "aside") == before
    assert session.current_branch == "aside"


async def test_a_compaction_to_nothing_leaves_an_empty_branch(ours: Sessions) -> None:
    session = await two_branches(ours)
    await compacting(session, Compactor([])).run_compaction({"force": True})
    assert await session.get_items() == []
    assert session.current_branch == "aside"
    await session.add_items([user("Anew")])
    assert await ours(branch_id="aside").get_items() == [user("Anew")]


async def test_a_run_on_a_branch_compacts_that_branch_only(ours: Sessions, run: Any) -> None:
    session = await two_branches(ours)
    before = await state_of(ours, "main")
    wrapped = compacting(session, Compactor([SUMMARY]), automatically=True)
    agent = Agent(name="Host", model=ScriptedModel(["Bye"], first=10))
    await run(agent, "Bye", session=wrapped)
    assert await session.get_items() == [SUMMARY]
    assert await state_of(ours, "main") == before


BILL = ResponseUsage.model_validate(
    {
        "input_tokens": 100,
        "input_tokens_details": {"cached_tokens": 40, "cache_write_tokens": 0},
        "output_tokens": 10,
        "output_tokens_details": {"reasoning_tokens": 3},
        "total_tokens": 110,
    }
)


def requests_of(session: Any) -> list[tuple[Any, ...]]:
    """Return what is recorded of each request."""
    columns = "turn, agent, input_tokens, cached_input_tokens, output_tokens, reasoning_tokens"
    sql = f"SELECT {columns}, cost_usd FROM usage ORDER BY position, index_in_event"
    return session.log.store.read_sync(lambda tx: tx.all(sql))  # type: ignore[no-any-return]


async def test_what_a_compaction_used_is_recorded_by_hooks_and_once(
    ours: Sessions, run: Any
) -> None:
    session = ours(prices={"small": Price(input=1.0, output=4.0)})
    wrapped = compacting(session, Compactor([user("Hi"), SUMMARY], usage=BILL), automatically=True)
    model = ScriptedModel(["Hello"], usage=FIFTEEN, model="small")
    agent = Agent(name="Host", model=model)
    result = await run(agent, "Hi", session=wrapped, hooks=UsageHooks(session))
    session.close()
    looking = ours()
    assert await looking.get_items() == [user("Hi"), SUMMARY]
    assert requests_of(looking) == [
        (1, "Host", 10, 0, 5, 0, pytest.approx(0.00003)),
        (1, None, 100, 40, 10, 3, None),  # nobody tells which model has compacted
    ]
    stats = await looking.get_usage_stats()
    counts = [stats[name] for name in ("total_runs", "total_requests", "unpriced_requests")]
    assert (counts, stats["total_tokens"]) == ([1, 2, 1], 125)
    await looking.store_run_usage(result)
    assert (await looking.get_usage_stats())["total_tokens"] == 125


async def test_of_many_compactions_each_is_recorded_with_its_own_run(
    ours: Sessions, run: Any
) -> None:
    compactor = Compactor([user("One"), SUMMARY], [user("One"), user("Two"), SUMMARY], usage=BILL)
    session = ours()
    wrapped = compacting(session, compactor, automatically=True)
    agent = host("First", call("weather", {"city": "Oslo"}), "Second")
    for question in ("One", "Two"):
        await run(agent, question, session=wrapped, hooks=UsageHooks(session))
    session.close()
    looking = ours()
    spent = [(turn, read) for turn, _, read, *_ in requests_of(looking)]
    assert spent == [(1, 10), (1, 100), (2, 10), (2, 10), (2, 100)]
    stats = await looking.get_usage_stats(by="run")
    assert sorted(group["total_tokens"] for group in stats["groups"]) == [125, 140]


async def test_a_compaction_that_tells_no_usage_counts_nothing(ours: Sessions, run: Any) -> None:
    session = ours()
    wrapped = compacting(session, Compactor([SUMMARY]), automatically=True)
    await run(host("Hello"), "Hi", session=wrapped, hooks=UsageHooks(session))
    session.close()
    stats = await ours().get_usage_stats()
    assert (stats["total_requests"], stats["total_tokens"]) == (1, 15)


async def test_a_run_whose_context_the_compaction_keeps_back_counts_once_it_is_stored(
    ours: Sessions, run: Any
) -> None:
    session = ours()
    result = await run(host("Hello"), "Hi", session=compacting(session, Compactor()))
    session.close()
    looking = ours()
    assert (await looking.get_usage_stats())["total_tokens"] == 0
    await looking.store_run_usage(result)
    assert (await looking.get_usage_stats())["total_tokens"] == 15


async def test_the_tokens_of_a_compaction_are_counted_with_its_run(
    ours: Sessions, run: Any
) -> None:
    session = ours()
    wrapped = compacting(session, Compactor([user("Hi"), SUMMARY], usage=BILL), automatically=True)
    result = await run(host("Hello"), "Hi", session=wrapped)
    await session.store_run_usage(result)
    await session.store_run_usage(result)
    stats = await ours().get_usage_stats()
    assert (stats["total_requests"], stats["total_tokens"]) == (2, 125)


async def test_a_compaction_under_encryption_stays_encrypted_and_on_its_branch(
    ours: Sessions, run: Any
) -> None:
    agent = host("One", "Two")
    session = ours()
    wrapped = EncryptedSession(
        "talk", compacting(session, Compactor([SUMMARY]), automatically=True), KEY
    )
    await encrypted(session).add_items([user("Before")])
    await session.create_branch("aside")
    await run(agent, "First", session=wrapped)
    assert await encrypted(ours(branch_id="aside")).get_items() == [SUMMARY]
    assert await encrypted(ours()).get_items() == [user("Before")]
    assert [set(item) for item in await ours(branch_id="aside").get_items()] == [
        {"__enc__", "v", "kid", "payload"}
    ]
