"""LangGraph on a log: its own tests of checkpointers, and real graphs, on each engine, plain and sealed."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from langchain_core.messages import AIMessage, HumanMessage
from langgraph.checkpoint.base import empty_checkpoint
from langgraph.checkpoint.conformance import checkpointer_test, validate
from langgraph.checkpoint.conformance.capabilities import BASE_CAPABILITIES
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command

from agents_eventlog import ConversationLog, EventLogSession
from agents_eventlog.adapters.langgraph import EventLogSaver
from agents_eventlog.eventlog import errors
from agents_eventlog.projections import default, replay
from tests.adapters.langgraph.graphs import ask, graph
from tests.adapters.view.asking import reader, text

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

TALK: dict[str, Any] = {"configurable": {"thread_id": "talk"}}


def shown(state: Any) -> tuple[Any, ...]:
    """Return what must be equal in two states of two graphs."""
    tasks = [(task.name, task.interrupts) for task in state.tasks]
    metadata = {key: state.metadata[key] for key in ("source", "step", "parents")}
    return state.values, state.next, tasks, metadata


async def history(saver: Any) -> list[tuple[Any, ...]]:
    return [shown(state) async for state in graph(saver).aget_state_history(TALK)]


async def test_langgraphs_own_tests_of_checkpointers_pass(log: ConversationLog) -> None:
    @checkpointer_test(name="EventLogSaver")
    async def saver() -> AsyncIterator[EventLogSaver]:
        yield EventLogSaver(log)

    report = await validate(saver, capabilities={each.value for each in BASE_CAPABILITIES})
    tested = {name: each for name, each in report.results.items() if each.detected}
    assert tested.keys() == {each.value for each in BASE_CAPABILITIES}
    assert {name: each.failures for name, each in tested.items() if each.failures} == {}
    assert sum(each.tests_passed for each in tested.values()) == 58


async def test_a_graph_has_the_states_that_langgraphs_own_saver_gives_it(
    log: ConversationLog,
) -> None:
    own = InMemorySaver()
    for name in ("Ada", "Eve"):
        expected = await graph(own).ainvoke(ask(name), TALK)
        assert (await graph(EventLogSaver(log)).ainvoke(ask(name), TALK)).keys() == expected.keys()
    assert shown(await graph(EventLogSaver(log)).aget_state(TALK))[1] == ("look_up",)
    expected = await graph(own).ainvoke(Command(resume=True), TALK)
    assert await graph(EventLogSaver(log)).ainvoke(Command(resume=True), TALK) == expected
    found, wanted = await history(EventLogSaver(log)), await history(own)
    assert [each[0] for each in found] == [each[0] for each in wanted]
    assert [each[1::2] for each in found] == [each[1::2] for each in wanted]


async def test_a_graph_runs_without_an_event_loop_too(log: ConversationLog) -> None:
    def run() -> None:
        compiled = graph(EventLogSaver(log))
        done = compiled.invoke(ask("Ada"), TALK)
        assert compiled.get_state(TALK).values == done
        assert len(list(compiled.get_state_history(TALK, limit=3))) == 3

    await asyncio.to_thread(run)
    assert len((await graph(EventLogSaver(log)).aget_state(TALK)).values["messages"]) == 4


async def test_messages_are_stored_once_and_known_to_every_question(log: ConversationLog) -> None:
    for name in ("Ada", "Bob"):
        await graph(EventLogSaver(log)).ainvoke(ask(name), TALK)
    assert [hit["type"] for hit in reversed(await log.find_items("Ada"))] == [
        *("user", "function_call"),
    ]
    (row,) = await log.tools()
    assert (row["tool_name"], row["calls"], row["unanswered"]) == ("look_up", 2, 0)
    usage = await log.usage(by=("model", "turn"))
    assert [(row["model"], row["turn"]) for row in usage["groups"]] == [
        *(("gpt-4.1", 1), ("gpt-4.1", 2)),
    ]
    assert (usage["total_tokens"], usage["unpriced_requests"]) == (480, 0)
    turns = await log.outline("talk", branch_id="main")
    assert [turn["first_words"] for turn in turns] == ["Ada", "Bob"]
    html = await text(reader(log), "/session", id="talk")
    assert "look_up(name=" in html
    assert "It is room 4." in html
    assert [turn["items"] for turn in turns] == [4, 4]


async def test_a_graph_continues_from_an_earlier_checkpoint(log: ConversationLog) -> None:
    compiled = graph(EventLogSaver(log))
    await compiled.ainvoke(ask("Ada"), TALK)
    states = [state async for state in compiled.aget_state_history(TALK)]
    earlier = next(state for state in states if state.next == ("model",))
    changed = await compiled.aupdate_state(
        earlier.config, {"messages": [HumanMessage("Bob", id="question-Ada")]}, as_node="__start__"
    )
    done = await compiled.ainvoke(None, changed)
    assert [message.content for message in done["messages"]] == [
        "Bob",
        "",
        "room 4",
        "It is room 4.",
    ]
    first = await compiled.aget_state(states[0].config)
    assert first.values["messages"][0].content == "Ada"
    assert len(await log.find_items(type="user")) == 2


async def test_a_redacted_message_stays_redacted_when_the_graph_continues(
    log: ConversationLog,
) -> None:
    await graph(EventLogSaver(log)).ainvoke(ask("Ada"), TALK)
    for hit in await log.find_items("Ada"):
        await log.redact(hit["position"], hit["index"])
    done = await graph(EventLogSaver(log)).ainvoke(ask("Bob"), TALK)
    contents = [message.content for message in done["messages"]]
    assert contents[:4] == ["[redacted]", "", "room 4", "It is room 4."]
    assert done["messages"][0].id == "question-Ada"
    assert done["messages"][1].tool_calls[0]["args"] == {}
    assert len(await log.find_items(type="user")) == 2


async def test_a_deleted_thread_begins_anew_and_its_usage_still_counts(
    log: ConversationLog,
) -> None:
    saver = EventLogSaver(log)
    await graph(saver).ainvoke(ask("Ada"), TALK)
    await saver.adelete_thread("talk")
    assert await saver.aget_tuple(TALK) is None
    assert [each async for each in saver.alist(None)] == []
    await asyncio.to_thread(saver.delete_thread, "talk")
    done = await graph(saver).ainvoke(ask("Bob"), TALK)
    assert len(done["messages"]) == 4
    assert len(await log.find_items("Ada")) == 0
    assert (await log.usage())["total_requests"] == 4


async def test_an_erased_thread_takes_no_checkpoint(log: ConversationLog) -> None:
    saver = EventLogSaver(log)
    await graph(saver).ainvoke(ask("Ada"), TALK)
    await log.erase(session_id="talk")
    with pytest.raises(errors.SessionErasedError):
        await graph(saver).ainvoke(ask("Bob"), TALK)


async def test_checkpoints_of_all_threads_are_listed_and_other_sessions_left_out(
    log: ConversationLog,
) -> None:
    await EventLogSession("other", log).add_items([{"role": "user", "content": "Hi"}])
    saver = EventLogSaver(log)
    for thread_id in ("a", "b"):
        config = {"configurable": {"thread_id": thread_id, "checkpoint_ns": ""}}
        for step in range(3):
            await saver.aput(config, empty_checkpoint(), {"step": step}, {})
    found = [each async for each in saver.alist(None, limit=4)]
    assert [each.config["configurable"]["thread_id"] for each in found] == ["a", "a", "a", "b"]
    in_thread = await asyncio.to_thread(lambda: list(saver.list(None, filter={"step": 1})))
    assert [each.metadata["step"] for each in in_thread] == [1, 1]
    assert [each async for each in saver.alist(None, limit=0)] == []


async def test_what_has_no_form_as_an_item_comes_back_too(log: ConversationLog) -> None:
    class Own(HumanMessage):
        pass

    saver = EventLogSaver(log)
    values = {
        "number": 3,
        "texts": ["a"],
        "mixed": [HumanMessage("Hi"), "text"],
        "empty": [],
        "messages": [HumanMessage("Hi"), AIMessage("Hello", additional_kwargs={"x": (1, 2)})],
    }
    checkpoint = {
        **empty_checkpoint(),
        "channel_values": values,
        "channel_versions": dict.fromkeys(values, 1),
    }
    config = {"configurable": {"thread_id": "talk", "checkpoint_ns": ""}}
    stored = await saver.aput(config, checkpoint, {}, dict.fromkeys(values, 1))
    found = await EventLogSaver(log).aget_tuple(stored)
    assert found is not None
    expected = saver.serde.loads_typed(saver.serde.dumps_typed(values))
    assert found.checkpoint["channel_values"] == expected


async def test_messages_that_were_removed_are_refused_not_left_out(log: ConversationLog) -> None:
    saver = EventLogSaver(log)
    await graph(saver).ainvoke(ask("Ada"), TALK)
    await EventLogSession("talk", log).pop_item()
    with pytest.raises(errors.ConversationError, match="lacks messages"):
        await saver.aget_tuple(TALK)


async def test_a_redacted_checkpoint_is_refused_not_left_out(log: ConversationLog) -> None:
    saver = EventLogSaver(log)
    await graph(saver).ainvoke(ask("Ada"), TALK)
    (hit, *_) = await log.find_items(type="langgraph_checkpoint")
    await log.redact(hit["position"], hit["index"])
    with pytest.raises(errors.ConversationError, match="redacted checkpoint"):
        await saver.aget_tuple(TALK)


async def test_a_checkpoint_that_fails_leaves_nothing_behind(log: ConversationLog) -> None:
    config = {"configurable": {"thread_id": "talk", "checkpoint_ns": ""}}

    def put(saver: EventLogSaver, content: str) -> Any:
        facts = {
            "channel_values": {"messages": [HumanMessage(content)]},
            "channel_versions": {"messages": content},
        }
        return saver._put(config, {**empty_checkpoint(), **facts}, {}, {"messages": content})

    saver = EventLogSaver(log)
    await log.write(put(saver, "first"))
    version = await log.version("talk")
    unit = put(saver, "lost")

    def failing(tx: Any) -> None:
        unit(tx)
        raise RuntimeError("the power is gone")

    with pytest.raises(RuntimeError):
        await log.write(failing)
    assert await log.version("talk") == version
    await log.write(put(EventLogSaver(log), "another"))  # as many events as were lost
    await log.write(put(saver, "lost"))
    found = await saver.aget_tuple(config)
    assert found is not None
    assert found.checkpoint["channel_values"] == {"messages": [HumanMessage("lost")]}


async def test_more_threads_than_are_kept_in_mind_are_all_kept_in_the_log(
    log: ConversationLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agents_eventlog.adapters.langgraph.saver.KNOWN_THREADS", 1)
    saver = EventLogSaver(log)
    for name in ("Ada", "Bob", "Cid"):
        for thread_id in ("a", "b"):
            await graph(saver).ainvoke(ask(name), {"configurable": {"thread_id": thread_id}})
    assert len(await log.find_items(type="user")) == 6


async def test_prices_that_fail_lose_no_checkpoint(log: ConversationLog) -> None:
    def broken(*_: object) -> float:
        raise RuntimeError("no price today")

    await graph(EventLogSaver(log, prices=broken)).ainvoke(ask("Ada"), TALK)
    usage = await log.usage()
    assert (usage["total_requests"], usage["unpriced_requests"]) == (2, 2)


async def test_a_replay_gives_the_same_tables(log: ConversationLog) -> None:
    await graph(EventLogSaver(log)).ainvoke(ask("Ada"), TALK)
    done = await asyncio.to_thread(replay, log, default().named([]), check=True)
    assert {each.differences for each in done} == {0}


async def test_a_closed_log_is_named(log: ConversationLog) -> None:
    saver = EventLogSaver(log)
    log.close()
    with pytest.raises(errors.ClosedError, match="the log is closed"):
        await saver.aget_tuple(TALK)


def test_the_adapter_imports_no_other_sdk() -> None:
    code = """
import sys
import agents_eventlog
from agents_eventlog import ConversationLog
assert not {"agents", "langgraph", "langchain_core"} & sys.modules.keys()
import agents_eventlog.adapters.langgraph
assert not {"agents", "pydantic_ai"} & sys.modules.keys()
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_without_langgraph_the_error_names_the_extra() -> None:
    code = """
import sys
sys.modules["langgraph"] = None
import agents_eventlog.adapters.langgraph
"""
    command = [sys.executable, "-c", code]
    ended = subprocess.run(command, check=False, capture_output=True, text=True)
    assert "pip install 'agents-eventlog[langgraph]'" in ended.stderr
