"""Real runs on a session: what it holds afterwards, item by item, and what the next run sends."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from agents import (
    Agent,
    GuardrailFunctionOutput,
    InputGuardrail,
    InputGuardrailTripwireTriggered,
    OutputGuardrail,
    OutputGuardrailTripwireTriggered,
    RunConfig,
    SessionSettings,
    UserError,
)

from agents_eventlog.adapters.openai_agents.testing import ScriptedModel, call, together
from tests.adapters.running import Spy, answered, called, kinds, said, user, weather

if TYPE_CHECKING:
    from tests.adapters.running import Sessions


def agent(*script: Any, **options: Any) -> Any:
    return Agent(name="Host", model=ScriptedModel(script), tools=[weather], **options)


def refusing(_context: Any, _agent: Any, _value: Any) -> GuardrailFunctionOutput:
    return GuardrailFunctionOutput(output_info=None, tripwire_triggered=True)


async def test_a_run_leaves_the_question_and_the_answer(sessions: Sessions, run: Any) -> None:
    await run(agent("Hello"), "Hi", session=sessions())
    assert await sessions().get_items() == [user("Hi"), said("Hello", 1)]


async def test_the_next_run_sends_all_that_was_said(sessions: Sessions, run: Any) -> None:
    host = agent("Hello", "Still here")
    await run(host, "Hi", session=sessions())
    await run(host, "And now?", session=sessions())
    assert host.model.inputs == [
        [user("Hi")],
        [user("Hi"), said("Hello", 1), user("And now?")],
    ]
    assert await sessions().get_items() == [*host.model.inputs[1], said("Still here", 2)]


async def test_a_tool_call_and_its_output_are_kept_together(sessions: Sessions, run: Any) -> None:
    host = agent(call("weather", {"city": "Oslo"}), "Take no umbrella", "You are welcome")
    session = sessions()
    spy = Spy(session)
    await run(host, "Weather?", session=session)
    held = [
        user("Weather?"),
        called("weather", {"city": "Oslo"}, 1),
        answered("sunny in Oslo", 1),
        said("Take no umbrella", 2),
    ]
    assert await sessions().get_items() == held
    assert spy.added() == [["user"], ["function_call", "function_call_output"], ["assistant"]]

    await run(host, "Thanks", session=sessions())
    assert host.model.inputs[2] == [*held, user("Thanks")]


async def test_parallel_tool_calls_are_kept_in_the_order_of_the_response(
    sessions: Sessions, run: Any
) -> None:
    both = together(call("weather", {"city": "Oslo"}), call("weather", {"city": "Rome"}))
    host = agent(both, "Sun everywhere", "Yes")
    await run(host, "Weather?", session=sessions())
    held = [
        user("Weather?"),
        called("weather", {"city": "Oslo"}, "1"),
        called("weather", {"city": "Rome"}, "1_2"),
        answered("sunny in Oslo", "1"),
        answered("sunny in Rome", "1_2"),
        said("Sun everywhere", 2),
    ]
    assert await sessions().get_items() == held
    assert await sessions().get_tool_usage() == [("weather", 2, 1)]

    await run(host, "Sure?", session=sessions())
    assert host.model.inputs[2] == [*held, user("Sure?")]


async def test_a_handoff_is_kept_as_a_call_and_its_answer(sessions: Sessions, run: Any) -> None:
    billing = Agent(name="Billing", model=ScriptedModel(["Paid", "Nothing"], first=2))
    host = agent(call("transfer_to_billing"), handoffs=[billing])
    result = await run(host, "My bill?", session=sessions())
    held = [
        user("My bill?"),
        called("transfer_to_billing", {}, 1),
        answered('{"assistant": "Billing"}', 1),
        said("Paid", 2),
    ]
    assert result.last_agent is billing
    assert await sessions().get_items() == held

    await run(billing, "What is left?", session=sessions())
    assert billing.model.inputs[1] == [*held, user("What is left?")]


async def test_a_tripped_input_guardrail_leaves_the_input_only(
    sessions: Sessions, run: Any
) -> None:
    guarded = agent("Never kept", input_guardrails=[InputGuardrail(guardrail_function=refusing)])
    with pytest.raises(InputGuardrailTripwireTriggered):
        await run(guarded, "Steal", session=sessions())
    assert await sessions().get_items() == [user("Steal")]

    polite = agent("Hello")
    await run(polite, "Hi", session=sessions())
    assert polite.model.inputs == [[user("Steal"), user("Hi")]]


async def test_a_guardrail_that_must_pass_first_leaves_no_answer(
    sessions: Sessions, run: Any
) -> None:
    first = InputGuardrail(guardrail_function=refusing, run_in_parallel=False)
    guarded = agent("Never asked", input_guardrails=[first])
    with pytest.raises(InputGuardrailTripwireTriggered):
        await run(guarded, "Steal", session=sessions())
    assert guarded.model.inputs == []
    assert await sessions().get_items() == [user("Steal")]


async def test_a_tripped_output_guardrail_withholds_the_answer_but_keeps_the_tool_s_work(
    sessions: Sessions, run: Any
) -> None:
    guarded = agent(
        call("weather", {"city": "Oslo"}),
        "Withheld",
        output_guardrails=[OutputGuardrail(guardrail_function=refusing)],
    )
    with pytest.raises(OutputGuardrailTripwireTriggered):
        await run(guarded, "Weather?", session=sessions())
    held = [
        user("Weather?"),
        called("weather", {"city": "Oslo"}, 1),
        answered("sunny in Oslo", 1),
    ]
    assert await sessions().get_items() == held

    polite = agent("Hello")
    await run(polite, "Again", session=sessions())
    assert polite.model.inputs == [[*held, user("Again")]]


async def test_a_model_that_fails_on_a_later_request_loses_nothing_before_it(
    sessions: Sessions, run: Any
) -> None:
    host = agent(call("weather", {"city": "Oslo"}), ConnectionError("gone"), "Back again")
    with pytest.raises(ConnectionError, match="gone"):
        await run(host, "Weather?", session=sessions())
    held = [
        user("Weather?"),
        called("weather", {"city": "Oslo"}, 1),
        answered("sunny in Oslo", 1),
    ]
    assert await sessions().get_items() == held

    await run(host, "Hello?", session=sessions())
    assert host.model.inputs[2] == [*held, user("Hello?")]
    assert await sessions().get_items() == [*host.model.inputs[2], said("Back again", 2)]


async def test_the_limit_of_the_session_bounds_what_is_sent_not_what_is_kept(
    sessions: Sessions, run: Any
) -> None:
    host = agent("One", "Two", "Three")
    for question in ("First", "Second", "Third"):
        session = sessions(session_settings=SessionSettings(limit=2))
        await run(host, question, session=session)
    assert host.model.inputs[2] == [user("Second"), said("Two", 2), user("Third")]
    assert kinds(await sessions().get_items()) == ["user", "assistant"] * 3


async def test_the_limit_of_a_run_stands_above_that_of_the_session(
    sessions: Sessions, run: Any
) -> None:
    host = agent("One", "Two")
    session = sessions(session_settings=SessionSettings(limit=100))
    spy = Spy(session)
    await run(host, "First", session=session)
    config = RunConfig(session_settings=SessionSettings(limit=1))
    await run(host, "Second", session=session, run_config=config)
    assert host.model.inputs[1] == [said("One", 1), user("Second")]
    reads = [kwargs for name, _, kwargs in spy.calls if name == "get_items"]
    assert reads == [{"limit": 100}, {"limit": 1}]


async def test_a_limit_that_cuts_a_call_from_its_output_sends_neither(
    sessions: Sessions, run: Any
) -> None:
    host = agent(call("weather", {"city": "Oslo"}), "Sunny", "Bye")
    await run(host, "Weather?", session=sessions())
    session = sessions(session_settings=SessionSettings(limit=2))
    await run(host, "Bye", session=session)
    assert host.model.inputs[2] == [said("Sunny", 2), user("Bye")]
    assert len(await sessions().get_items()) == 6


async def test_what_the_input_callback_leaves_out_is_not_sent_but_stays(
    sessions: Sessions, run: Any
) -> None:
    def newest(history: list[Any], new: list[Any]) -> list[Any]:
        history[0]["content"] = "scribbled on a copy"
        return [*history[-1:], {"role": "developer", "content": "Be brief"}, *new]

    host = agent("One", "Two")
    await run(host, "First", session=sessions())
    config = RunConfig(session_input_callback=newest)
    await run(host, "Second", session=sessions(), run_config=config)
    brief = {"role": "developer", "content": "Be brief"}
    assert host.model.inputs[1] == [said("One", 1), brief, user("Second")]
    assert await sessions().get_items() == [
        user("First"),
        said("One", 1),
        brief,
        user("Second"),
        said("Two", 2),
    ]


async def test_a_list_of_input_items_is_added_as_one_batch(sessions: Sessions, run: Any) -> None:
    host = agent("Both noted")
    session = sessions()
    spy = Spy(session)
    await run(host, [user("One"), user("Two")], session=session)
    assert spy.added() == [["user", "user"], ["assistant"]]
    assert [turn["turn"] for turn in await sessions().get_conversation_turns()] == [1, 2]


async def test_a_run_reads_the_history_once_and_never_pops_or_clears(
    sessions: Sessions, run: Any
) -> None:
    session = sessions()
    spy = Spy(session)
    await run(agent(call("weather", {"city": "Oslo"}), "Sunny"), "Weather?", session=session)
    assert spy.calls[0] == ("get_items", [], {})
    assert [name for name, _, _ in spy.calls[1:]] == ["add_items"] * 3


async def test_a_failure_to_add_reaches_the_caller(sessions: Sessions, run: Any) -> None:
    session = sessions()
    spy = Spy(session)
    spy.failures["add_items"] = [OSError("disk full")]
    with pytest.raises(OSError, match="disk full"):
        await run(agent("Hello"), "Hi", session=session)
    assert await sessions().get_items() == []


async def test_a_session_beside_a_conversation_on_the_server_is_refused(
    sessions: Sessions, run: Any
) -> None:
    with pytest.raises(UserError):
        await run(agent("Hello"), "Hi", session=sessions(), conversation_id="conv_1")
    assert await sessions().get_items() == []


async def test_a_run_continues_on_the_branch_that_is_current(sessions: Sessions, run: Any) -> None:
    host = agent("One", "Two", "Other")
    session = sessions()
    await run(host, "First", session=session)
    await run(host, "Second", session=session)
    await session.create_branch_from_turn(2, "other")
    await run(host, "Instead", session=session)
    begun = [user("First"), said("One", 1)]
    assert host.model.inputs[2] == [*begun, user("Instead")]
    assert await session.get_items() == [*begun, user("Instead"), said("Other", 3)]
    assert await session.get_items(branch_id="main") == [*begun, user("Second"), said("Two", 2)]


async def test_runs_at_once_on_one_file_keep_their_sessions_apart(
    sessions: Sessions, run: Any
) -> None:
    async def talk(number: int) -> None:
        host = agent(call("weather", {"city": f"City {number}"}), "Sunny")
        await run(host, f"Question {number}", session=sessions(f"talk-{number}"))

    await asyncio.gather(*(talk(number) for number in range(10)))
    for number in range(10):
        assert await sessions(f"talk-{number}").get_items() == [
            user(f"Question {number}"),
            called("weather", {"city": f"City {number}"}, 1),
            answered(f"sunny in City {number}", 1),
            said("Sunny", 2),
        ]
