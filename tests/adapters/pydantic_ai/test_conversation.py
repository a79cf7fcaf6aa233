"""Real runs of Pydantic AI's agents on a log: on each engine, plain and sealed."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
from pydantic_ai import (
    Agent,
    DeferredToolRequests,
    DeferredToolResults,
    ModelRetry,
    capture_run_messages,
)
from pydantic_ai.messages import ModelRequest, ModelResponse, TextPart, UserPromptPart
from pydantic_ai.models.test import TestModel
from pydantic_ai.usage import RequestUsage

from agents_eventlog import OnlyPrices, Price
from agents_eventlog.adapters.pydantic_ai import Conversation
from agents_eventlog.eventlog import errors
from agents_eventlog.projections import default, replay
from tests.adapters.pydantic_ai.agents_for_tests import as_kept, desk
from tests.adapters.view.asking import reader, text

if TYPE_CHECKING:
    from agents_eventlog import ConversationLog

PRICES = {"gpt-4.1": Price(2.0, 8.0)}


async def say(conversation: Conversation, prompt: str) -> Any:
    history = await conversation.messages()
    result = await desk().run(prompt, message_history=history)
    await conversation.store(result)
    return result


async def test_the_messages_of_several_runs_come_back_as_they_were(log: ConversationLog) -> None:
    await say(Conversation("talk", log), "Ada")
    result = await say(Conversation("talk", log), "Bob")
    history = await Conversation("talk", log).messages()
    assert history == as_kept(result.all_messages())
    assert len(history) == 8


async def test_a_run_that_is_stored_twice_counts_once(log: ConversationLog) -> None:
    conversation = Conversation("talk", log, prices=PRICES)
    result = await say(conversation, "Ada")
    await conversation.store(result)
    await Conversation("talk", log).store(result)
    assert len(await conversation.messages()) == 4
    usage = await log.usage()
    assert (usage["total_runs"], usage["total_requests"], usage["total_tokens"]) == (1, 2, 240)


async def test_a_run_id_that_comes_back_with_other_messages_is_refused(
    log: ConversationLog,
) -> None:
    conversation = Conversation("talk", log)
    result = await say(conversation, "Ada")
    with pytest.raises(errors.IdempotencyConflictError):
        await conversation.add_messages(result.new_messages()[:2], idempotency_key=result.run_id)
    assert len(await conversation.messages()) == 4


async def test_a_prompt_opens_a_turn_and_a_branch_leaves_before_it(log: ConversationLog) -> None:
    conversation = Conversation("talk", log)
    await say(conversation, "Ada")
    await say(conversation, "Bob")
    branch_id = await conversation.create_branch_from_turn(2, "other")
    result = await say(conversation, "Eve")
    assert await conversation.messages() == as_kept(result.all_messages())
    rows = await conversation.list_branches()
    assert [(row["branch_id"], row["user_turns"]) for row in rows] == [("main", 2), ("other", 2)]
    await conversation.switch_to_branch("main")
    assert "Bob" in str(await conversation.messages())
    assert "Eve" not in str(await conversation.messages())
    assert "Eve" in str(await conversation.messages(branch_id=branch_id))
    await conversation.delete_branch("other")
    assert await conversation.messages(branch_id="other") == []
    assert await conversation.create_branch() == conversation.current_branch != "main"


async def test_usage_counts_by_model_agent_and_turn_with_its_cost(log: ConversationLog) -> None:
    conversation = Conversation("talk", log, prices=PRICES)
    await say(conversation, "Ada")
    result = await desk().run("Bob", message_history=await conversation.messages())
    await conversation.store(result, agent="Desk")
    usage = await log.usage(by=("model", "agent", "turn"))
    assert usage["cached_tokens"] == 160
    assert usage["total_cost"] == pytest.approx(4 * (100 * 2 + 20 * 8) / 1e6)
    keys = [(row["model"], row["agent"], row["turn"]) for row in usage["groups"]]
    assert keys == [("gpt-4.1", None, 1), ("gpt-4.1", "Desk", 2)]


async def test_usage_of_an_agent_that_a_tool_runs_is_recorded_once(log: ConversationLog) -> None:
    conversation = Conversation("talk", log)
    await say(conversation, "Ada")
    delegated = await desk().run("Bob")
    await conversation.record_usage(delegated, agent="Expert")
    await conversation.record_usage(delegated, agent="Expert")
    rows = (await log.usage(by="agent"))["groups"]
    assert [(row["agent"], row["total_requests"]) for row in rows] == [(None, 2), ("Expert", 2)]
    assert len(await conversation.messages()) == 4


async def test_an_attempt_that_failed_before_the_answer_counts_too(log: ConversationLog) -> None:
    messages = pytest.importorskip("pydantic_ai.messages")
    if not hasattr(messages, "ModelRequestAttempt"):
        pytest.skip("this release does not report attempts that failed")
    facts = {"timestamp": datetime.now(UTC), "duration": timedelta(seconds=1), "outcome": "error"}
    attempts = [
        messages.ModelRequestAttempt(
            model_name="small", usage=RequestUsage(input_tokens=7), **facts
        ),
        messages.ModelRequestAttempt(model_name="away", **facts),
    ]
    response = ModelResponse([TextPart("Hello")], model_name="large", failed_attempts=attempts)
    await Conversation("talk", log).add_messages([response])
    rows = (await log.usage(by="model"))["groups"]
    found = {row["model"]: (row["total_requests"], row["total_tokens"]) for row in rows}
    assert found == {"small": (1, 7), "large": (1, 0)}
    assert await Conversation("talk", log).messages() == as_kept([response])


async def test_a_streamed_run_is_stored_when_it_was_read(log: ConversationLog) -> None:
    conversation = Conversation("talk", log)
    agent = Agent(TestModel(custom_output_text="Gladly."))
    async with agent.run_stream("Hello") as result:
        assert await result.get_output() == "Gladly."
    await conversation.store(result)
    assert await conversation.messages() == as_kept(result.all_messages())


async def test_the_messages_of_a_run_that_failed_are_kept_with_their_usage(
    log: ConversationLog,
) -> None:
    conversation = Conversation("talk", log)
    await say(conversation, "Ada")
    history = await conversation.messages()
    with capture_run_messages() as messages, pytest.raises(RuntimeError, match="directory"):
        await desk().run("nobody", message_history=history)
    await conversation.add_messages(messages[len(history) :])
    assert "nobody" in str(await conversation.messages())
    assert (await log.usage())["total_requests"] == 3


async def test_a_run_that_waits_for_an_approval_goes_on_from_the_log(log: ConversationLog) -> None:
    agent = Agent(TestModel(), output_type=[str, DeferredToolRequests])

    @agent.tool_plain(requires_approval=True)
    def refund(amount: int) -> str:
        return f"paid {amount}"

    waiting = await agent.run("Refund me")
    await Conversation("talk", log).store(waiting)
    assert isinstance(waiting.output, DeferredToolRequests)
    later = Conversation("talk", log)
    approved = DeferredToolResults(
        approvals={call.tool_call_id: True for call in waiting.output.approvals}
    )
    result = await agent.run(message_history=await later.messages(), deferred_tool_results=approved)
    await later.store(result)
    assert await later.messages() == as_kept(result.all_messages())
    assert (await log.tools())[0]["unanswered"] == 0


async def test_what_the_model_had_to_try_again_comes_back(log: ConversationLog) -> None:
    agent = Agent(TestModel(call_tools=["guess"]), retries=2)
    tries: list[int] = []

    @agent.tool_plain
    def guess(number: int) -> str:
        tries.append(number)
        if len(tries) == 1:
            raise ModelRetry("a larger one, please")
        return "right"

    @agent.output_validator
    def check(output: str) -> str:
        if len(tries) < 3:
            tries.append(0)
            raise ModelRetry("say more")
        return output

    result = await agent.run("Guess")
    conversation = Conversation("talk", log)
    await conversation.store(result)
    assert await conversation.messages() == as_kept(result.all_messages())
    assert len(await log.find_items("a larger one")) == len(await log.find_items("say more")) == 1
    assert (await log.tools())[0]["failures"] == 1


async def test_messages_of_many_runs_are_added_each_with_its_own_turn(log: ConversationLog) -> None:
    one = await desk().run("Ada")
    two = await desk().run("Bob", message_history=one.all_messages())
    conversation = Conversation("talk", log)
    await conversation.add_messages(two.all_messages(), idempotency_key="import")
    await conversation.add_messages(two.all_messages(), idempotency_key="import")
    assert await conversation.messages() == as_kept(two.all_messages())
    rows = (await log.usage(by=("run", "turn")))["groups"]
    found = {(row["run_id"], row["turn"]) for row in rows}
    assert found == {(one.run_id, 1), (two.run_id, 2)}


async def test_nothing_to_store_writes_nothing(log: ConversationLog) -> None:
    await Conversation("talk", log).add_messages([])
    assert await log.version("talk") == 0


async def test_messages_without_a_run_are_stored_each_time(log: ConversationLog) -> None:
    conversation = Conversation("talk", log)
    messages = [ModelRequest([UserPromptPart("Hi")]), ModelResponse([TextPart("Hello")])]
    await conversation.add_messages(messages)
    await conversation.add_messages(messages)
    assert len(await conversation.messages()) == 4
    assert (await log.usage())["total_runs"] == 2


async def test_a_turn_is_undone_and_done_again(log: ConversationLog) -> None:
    conversation = Conversation("talk", log)
    await say(conversation, "Ada")
    result = await say(conversation, "Bob")
    undone = await conversation.undo_turn()
    assert undone == as_kept(result.new_messages())
    assert "Bob" not in str(await conversation.messages())
    assert await conversation.redo() == undone
    assert await conversation.messages() == as_kept(result.all_messages())


async def test_an_earlier_version_is_read_and_a_clearing_leaves_nothing(
    log: ConversationLog,
) -> None:
    conversation = Conversation("talk", log)
    result = await say(conversation, "Ada")
    version = await log.version("talk")
    await conversation.clear()
    assert await conversation.messages() == []
    assert await conversation.messages(as_of=version) == as_kept(result.all_messages())


async def test_a_redacted_conversation_can_go_on(log: ConversationLog) -> None:
    conversation = Conversation("talk", log)
    await say(conversation, "Ada Lovelace")
    for hit in await log.find_items("Lovelace"):
        await log.redact(hit["position"], hit["index"])
    history = await conversation.messages()
    assert "Lovelace" not in str(history)
    assert [message.kind for message in history] == ["request", "response"] * 2
    result = await desk().run("Bob", message_history=history)
    assert result.output.startswith("It is")


async def test_erased_messages_are_refused_not_left_out(log: ConversationLog) -> None:
    conversation = Conversation("talk", log)
    await say(conversation, "Ada")
    version = await log.version("talk")
    await log.erase(session_id="talk")
    with pytest.raises(errors.UndecodableEventError):
        await conversation.messages(as_of=version)


async def test_another_user_neither_reads_nor_writes(log: ConversationLog) -> None:
    await say(Conversation("talk", log, user_id="ada", metadata={"topic": "rooms"}), "Ada")
    assert (await log.session("talk"))["metadata"] == {"topic": "rooms"}
    other = Conversation("talk", log, user_id="bob")
    with pytest.raises(errors.SessionOwnerError):
        await other.messages()
    with pytest.raises(errors.SessionOwnerError):
        await other.add_messages([ModelRequest([UserPromptPart("Hi")])])


async def test_one_caller_at_a_time_holds_a_conversation(log: ConversationLog) -> None:
    async with Conversation("talk", log).exclusive():
        with pytest.raises(errors.SessionBusyError):
            async with Conversation("talk", log).exclusive(wait_seconds=0):
                pass


async def test_a_replay_gives_the_same_tables(log: ConversationLog) -> None:
    conversation = Conversation("talk", log)
    result = await say(conversation, "Ada")
    done = await asyncio.to_thread(replay, log, default().named([]), check=True)
    assert {each.differences for each in done} == {0}
    assert await conversation.messages() == as_kept(result.all_messages())
    assert (await log.tools())[0]["calls"] == 1


async def test_search_and_tools_and_the_page_know_prompts_answers_and_calls(
    log: ConversationLog,
) -> None:
    await say(Conversation("talk", log), "Ada")
    hits = await log.find_items("Ada")
    assert [hit["type"] for hit in reversed(hits)] == [
        *("user", "function_call", "function_call_output", "assistant"),
    ]
    assert len(await log.find_items("room", tool_name="look_up")) == 1
    (row,) = await log.tools()
    assert (row["tool_name"], row["calls"], row["failures"]) == ("look_up", 1, 0)
    (turn,) = await log.outline("talk", first_turn=1)
    assert (turn["first_words"], turn["tools"]) == ("Ada", ["look_up"])
    html = await text(reader(log), "/session", id="talk")
    for part in (
        "Let me see.",
        "look_up(name=",
        "&#34;room&#34;: &#34;4&#34;",
        "You look things up.",
    ):
        assert part in html


@pytest.mark.parametrize("turn", [7, "x", -1])
async def test_a_turn_that_is_not_there_is_named(log: ConversationLog, turn: Any) -> None:
    conversation = Conversation("talk", log)
    await say(conversation, "Ada")
    with pytest.raises(errors.TurnNotFoundError, match=str(turn)):
        await conversation.create_branch_from_turn(turn)


async def test_a_conversation_says_what_it_is(log: ConversationLog) -> None:
    shown = repr(Conversation("talk", log, branch_id="b"))
    assert shown == f"<Conversation session_id='talk' branch_id='b' path={log.path!r}>"


def test_the_adapter_imports_no_other_sdk_and_the_package_imports_neither() -> None:
    code = """
import sys
import agents_eventlog, agents_eventlog.eventlog, agents_eventlog.projections
from agents_eventlog import ConversationLog
assert not {"agents", "pydantic_ai"} & sys.modules.keys()
import agents_eventlog.adapters.pydantic_ai
assert "agents" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_without_pydantic_ai_the_error_names_the_extra() -> None:
    code = """
import sys
sys.modules["pydantic_ai"] = None
import agents_eventlog.adapters.pydantic_ai
"""
    ended = subprocess.run(
        [sys.executable, "-c", code], check=False, capture_output=True, text=True
    )
    assert "pip install 'agents-eventlog[pydantic-ai]'" in ended.stderr


async def test_own_prices_go_before_those_that_pydantic_ai_computed(log: ConversationLog) -> None:
    def messages(model: str, cost: str | None = None) -> list[Any]:
        usage = RequestUsage(input_tokens=1_000_000)
        if cost is not None:
            usage.cost = Decimal(cost)
        return [ModelResponse([TextPart("Hello")], usage=usage, model_name=model)]

    def broken(*_: object) -> float:
        raise RuntimeError("no price today")

    for session_id, prices, given, expected in (
        ("own", PRICES, messages("gpt-4.1", "9"), (2.0, 0)),
        ("reported", PRICES, messages("unknown", "9"), (9.0, 0)),
        ("listed", None, messages("gpt-4.1"), (2.0, 0)),
        ("only", OnlyPrices(PRICES), messages("unknown", "9"), (0.0, 1)),
        ("broken", broken, messages("gpt-4.1", "9"), (0.0, 1)),
    ):
        await Conversation(session_id, log, prices=prices).add_messages(given)
        usage = await log.usage(session_id=session_id)
        assert (usage["total_cost"], usage["unpriced_requests"]) == expected, session_id
