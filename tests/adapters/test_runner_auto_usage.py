"""What real runs use is recorded by itself, to the token, whatever becomes of the run."""

from __future__ import annotations

import asyncio
import pickle
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import agents
import httpx2
import openai
import pytest
from agents import (
    Agent,
    GuardrailFunctionOutput,
    ModelSettings,
    OutputGuardrailTripwireTriggered,
    RunConfig,
    RunContextWrapper,
    Runner,
    RunState,
    UserError,
    function_tool,
    handoff,
    output_guardrail,
    trace,
)
from agents.extensions import handoff_filters
from agents.extensions.memory import EncryptedSession
from agents.retry import ModelRetrySettings, retry_policies
from agents.usage import Usage

from agents_eventlog import (
    AdvancedSQLiteSession,
    ConversationLog,
    EventLogSession,
    Price,
    UsageHooks,
)
from agents_eventlog.adapters.openai_agents.testing import (
    ScriptedModel,
    call,
    reply,
    together,
    tokens,
)
from agents_eventlog.adapters.openai_agents.usage import runs
from tests.adapters.running import Bank, Spy, run_program, weather

if TYPE_CHECKING:
    from tests.adapters.running import Resume, Sessions

PRICES = {"small": Price(input=1.0, output=4.0, cached_input=0.5), "large": Price(10.0, 40.0)}
COLUMNS = ("turn", "agent", "model", "response_id", "input_tokens", "output_tokens", "cost_usd")


def host(*script: Any, name: str = "Host", model: str | None = "small", **options: Any) -> Any:
    return Agent(name=name, model=ScriptedModel(script, model=model, **options), tools=[weather])


def rows(session: Any, *columns: str) -> list[tuple[Any, ...]]:
    """Return what is recorded of each of a session's requests."""
    wanted = ", ".join(columns or COLUMNS)
    sql = f"SELECT {wanted} FROM usage WHERE session_id = ? ORDER BY position, index_in_event"
    return session.log.store.read_sync(lambda tx: tx.all(sql, (session.session_id,)))


def microdollars(session: Any) -> list[int | None]:
    return [None if cost is None else round(cost * 1e6) for (cost,) in rows(session, "cost_usd")]


async def test_each_request_is_recorded_on_the_turn_that_it_answered(
    ours: Sessions, run: Any
) -> None:
    first = call("weather", {"city": "Oslo"}, usage=tokens(100, 20, cached=60))
    last = reply("Sunny", usage=tokens(150, 30, cached=100))
    session = ours(prices=PRICES)
    await run(host(first, last), "Weather?", session=session)
    await run(
        host(reply("Bye", usage=tokens(200, 10)), first=9), "Bye", session=ours(prices=PRICES)
    )
    assert rows(session, *COLUMNS[:-1]) == [
        (1, "Host", "small", "resp_1", 100, 20),
        (1, "Host", "small", "resp_2", 150, 30),
        (2, "Host", "small", "resp_9", 200, 10),
    ]
    # 40 + 60/2 + 20*4, 50 + 100/2 + 30*4, 200 + 10*4 millionths of a dollar
    assert microdollars(session) == [150, 220, 240]
    stats = await session.get_usage_stats()
    assert (stats["total_runs"], stats["total_requests"], stats["total_tokens"]) == (2, 3, 510)
    assert stats["total_cost"] == pytest.approx(0.00061)
    assert stats["unpriced_requests"] == 0


async def test_a_result_counts_nothing_twice(ours: Sessions, run: Any) -> None:
    session = ours(prices=PRICES)
    result = await run(
        host(call("weather", {"city": "Oslo"}), "Sunny", usage=tokens(10, 5)), "W?", session=session
    )
    before = await session.get_usage_stats()
    for _ in range(2):
        await session.store_run_usage(result)
        assert rows(session, "response_id", "total_tokens") == [("resp_1", 15), ("resp_2", 15)]
        assert await session.get_usage_stats() == before
    assert [e async for e in session.log.read("talk") if e.type == "usage_corrected"] == []


class OwnUsage(Usage):
    """A usage class of the application, whose requests are not observed."""


async def test_a_result_completes_the_requests_of_an_own_usage_class(
    ours: Sessions, run: Any
) -> None:
    session = ours(prices=PRICES)
    context = RunContextWrapper(None, usage=OwnUsage())
    agent = host(call("weather", {"city": "Oslo"}), "Sunny", usage=tokens(10, 5))
    result = await run(agent, "W?", session=session, context=context)
    assert rows(session, "turn", "agent", "total_tokens") == [(1, None, 15), (1, None, 15)]
    for _ in range(2):
        await session.store_run_usage(result, run_config=RunConfig())
    assert rows(session, "agent", "model", "response_id") == [
        ("Host", "small", "resp_1"),
        ("Host", "small", "resp_2"),
    ]
    assert microdollars(session) == [30, 30]
    corrected = [e async for e in session.log.read("talk") if e.type == "usage_corrected"]
    assert len(corrected) == 1


async def test_hooks_record_the_requests_of_an_own_usage_class(ours: Sessions, run: Any) -> None:
    session = ours(auto_usage=False)
    context = RunContextWrapper(None, usage=OwnUsage())
    agent = host(reply("Hi", usage=tokens(10, 5)))
    await run(agent, "Hi", session=session, context=context, hooks=UsageHooks(session))
    assert rows(session, "agent", "total_tokens") == [(None, 15)]


async def test_a_retried_request_belongs_to_its_agent_and_model(ours: Sessions) -> None:
    lost = openai.APIConnectionError(request=httpx2.Request("POST", "http://x"))
    agent = host(lost, reply("Hi", usage=tokens(10, 5)))
    agent.model_settings = ModelSettings(
        retry=ModelRetrySettings(
            max_retries=1,
            backoff={"initial_delay": 0.001},
            policy=retry_policies.network_error(),
        )
    )
    session = ours(prices=PRICES)
    await Runner.run(agent, "Hi", session=session)
    assert rows(session, "agent", "model", "response_id", "total_tokens") == [
        ("Host", "small", None, 0),
        ("Host", "small", "resp_1", 15),
    ]
    assert microdollars(session) == [0, 30]


async def test_a_handoff_with_an_input_filter_bills_each_agent_its_own(
    ours: Sessions, run: Any
) -> None:
    billing = host(reply("Done", usage=tokens(20, 2)), name="Billing", model="large", first=5)
    desk = host(call("transfer_to_billing", usage=tokens(10, 1)), name="Desk")
    desk.handoffs = [handoff(billing, input_filter=handoff_filters.remove_all_tools)]
    session = ours(prices=PRICES)
    result = await run(desk, "My bill?", session=session)
    for _ in range(2):
        assert rows(session, "agent", "model", "input_tokens") == [
            ("Desk", "small", 10),
            ("Billing", "large", 20),
        ]
        await session.store_run_usage(result)


async def test_agents_used_as_tools_in_parallel_are_billed_to_their_own_sessions(
    ours: Sessions, run: Any
) -> None:
    desk = host(
        together(*(call(f"ask_{name}", {"input": "?"}) for name in "abc"), usage=tokens(1, 0)),
        reply("Done", usage=tokens(2, 0)),
    )
    experts = {"a": ours("a"), "b": ours("b"), "c": None}
    desk.tools = []
    for number, (name, own) in enumerate(experts.items(), 1):

        async def slowly(_: Any, number: int = number) -> Any:
            await asyncio.sleep(0.01 * (4 - number))
            return reply("42", usage=tokens(10 * number, 0))

        expert = host(slowly, name=name, model=f"model-{name}", first=10 * number)
        desk.tools.append(
            expert.as_tool(tool_name=f"ask_{name}", tool_description="Ask", session=own)
        )
    session = ours()
    await run(desk, "Ask all", session=session)
    assert rows(ours("a"), "agent", "model", "input_tokens") == [("a", "model-a", 10)]
    assert rows(ours("b"), "agent", "model", "input_tokens") == [("b", "model-b", 20)]
    assert rows(session, "agent", "model", "input_tokens") == [
        ("Host", "small", 1),
        ("c", "model-c", 30),
        ("Host", "small", 2),
    ]


@pytest.mark.parametrize("auto", [True, False], ids=["auto", "result only"])
async def test_the_endpoint_and_the_tier_of_a_request_are_recorded(
    ours: Sessions, run: Any, *, auto: bool
) -> None:
    session = ours(auto_usage=auto)
    agent = host(reply("Hi", usage=tokens(10, 5)), model="gpt-5")
    agent.model._client = openai.AsyncOpenAI(base_url="http://me:pw@localhost:1/v1", api_key="x")
    for name in ("extra_args", "extra_body"):
        agent.model_settings = ModelSettings(**{name: {"service_tier": "flex"}})
        again = host(reply("Hi", usage=tokens(10, 5)), model="gpt-5")
        again.model._client, again.model_settings = agent.model._client, agent.model_settings
        result = await run(again, "Hi", session=session)
        await session.store_run_usage(result)
    assert (
        rows(session, "endpoint", "service_tier", "cost_usd")
        == [("http://localhost:1/v1", "flex", None)] * 2
    )


async def test_a_saved_approval_that_is_resumed_twice_counts_its_first_request_once(
    ours: Sessions, run: Any
) -> None:
    first = Bank(call("pay", {"to": "Ada"}), usage=tokens(100, 10))
    saved = (await run(first.agent, "Pay Ada", session=ours())).to_state().to_json()
    for number in (20, 30, 40):
        bank = Bank(reply("Done", usage=tokens(200, number)), first=number)
        state = await RunState.from_json(bank.agent, saved)
        state.approve(state.get_interruptions()[0])
        await run(bank.agent, state, session=ours())
    stats = await ours().get_usage_stats()
    assert (stats["total_runs"], stats["total_requests"], stats["total_tokens"]) == (1, 4, 800)


async def test_a_usage_is_still_the_sdks(ours: Sessions, run: Any) -> None:
    result = await run(host(reply("Hi", usage=tokens(10, 5))), "Hi", session=ours())
    usage = result.context_wrapper.usage
    same = Usage()
    same.add(tokens(10, 5))
    assert isinstance(usage, Usage)
    assert usage == same
    assert same == usage
    assert usage != Usage()
    assert usage != "usage"
    assert pickle.loads(pickle.dumps(usage)) == usage


async def test_both_results_stored_after_both_runs_belong_to_their_own_turns(
    ours: Sessions, run: Any
) -> None:
    session = ours()
    results = [
        await run(host(reply(text, usage=tokens(n, n)), first=n), text, session=session)
        for n, text in ((100, "One"), (10, "Two"))
    ]
    for result in results:
        await session.store_run_usage(result)
    turns = await session.get_turn_usage()
    assert [(t["user_turn_number"], t["total_tokens"]) for t in turns] == [(1, 200), (2, 20)]


async def test_two_runs_in_one_turn_are_the_sum_of_both(ours: Sessions, run: Any) -> None:
    session = ours()
    await run(host(reply("One", usage=tokens(100, 10))), "First", session=session)
    go_on: list[Any] = [{"role": "developer", "content": "Go on"}]
    await run(host(reply("Two", usage=tokens(200, 20)), first=2), go_on, session=session)
    assert (await session.get_turn_usage(1))["total_tokens"] == 330
    assert (await session.get_usage_stats())["total_runs"] == 2


async def test_a_resumed_run_adds_only_what_is_new(
    ours: Sessions, run: Any, resume: Resume
) -> None:
    bank = Bank(call("pay", {"to": "Ada"}), "Done", usage=tokens(10, 5), response_id="always")
    session = ours()
    interrupted = await run(bank.agent, "Pay Ada", session=session)
    assert (await session.get_usage_stats())["total_tokens"] == 15
    state = await resume(interrupted, bank.agent)
    state.approve(state.get_interruptions()[0])
    session = ours()
    result = await run(bank.agent, state, session=session)
    assert result.context_wrapper.usage.total_tokens == 30, "the SDK reports cumulatively"
    for _ in range(2):
        stats = await session.get_usage_stats()
        assert (stats["total_runs"], stats["total_requests"], stats["total_tokens"]) == (1, 2, 30)
        await session.store_run_usage(result)


async def test_two_states_of_one_run_add_what_each_of_them_adds(ours: Sessions, run: Any) -> None:
    bank = Bank(call("pay", {"to": "Ada"}), "Done", "Done again", usage=tokens(10, 5))
    interrupted = await run(bank.agent, "Pay Ada", session=ours())
    for _ in range(2):
        state = interrupted.to_state()
        state.approve(state.get_interruptions()[0])
        await run(bank.agent, state, session=ours())
    assert (await ours().get_usage_stats())["total_tokens"] == 45


async def test_a_session_in_memory_can_be_resumed(run: Any) -> None:
    bank = Bank(call("pay", {"to": "Ada"}), "Done", usage=tokens(10, 5))
    session = AdvancedSQLiteSession("s")
    state = (await run(bank.agent, "Pay Ada", session=session)).to_state()
    state.approve(state.get_interruptions()[0])
    await run(bank.agent, state, session=session)
    assert (await session.get_usage_stats())["total_tokens"] == 30
    session.close()


async def test_a_new_run_that_looks_like_one_before_counts_in_full(
    ours: Sessions, run: Any
) -> None:
    for _ in range(2):
        bank = Bank(call("pay", {"to": "Ada"}), usage=tokens(10, 5), response_id="always")
        await run(bank.agent, "Pay Ada", session=ours())
    assert (await ours().get_usage_stats())["total_tokens"] == 30


async def test_a_handoff_is_told_by_agent_and_model(ours: Sessions, run: Any) -> None:
    desk = host(
        call("transfer_to_billing", usage=tokens(10, 1)),
        reply("End", usage=tokens(30, 3)),
        name="Desk",
    )
    billing = host(
        call("transfer_to_desk", usage=tokens(20, 2)), name="Billing", model="large", first=5
    )
    desk.handoffs, billing.handoffs = [billing], [desk]
    session = ours(prices=PRICES)
    result = await run(desk, "My bill?", session=session)
    assert rows(session, "agent", "model", "input_tokens") == [
        ("Desk", "small", 10),
        ("Billing", "large", 20),
        ("Desk", "small", 30),
    ]
    assert microdollars(session) == [14, 280, 42]
    await session.store_run_usage(result)
    assert [row[0] for row in rows(session, "response_id")] == ["resp_1", "resp_5", "resp_2"]


async def test_an_agent_used_as_a_tool_counts_once_with_its_own_model(
    ours: Sessions, run: Any
) -> None:
    expert = host(reply("42", usage=tokens(7, 1)), name="Expert", model="large", first=9)
    desk = host(
        call("ask", {"input": "6 x 7"}, usage=tokens(10, 1)), reply("It is 42", usage=tokens(30, 3))
    )
    desk.tools = [expert.as_tool(tool_name="ask", tool_description="Ask an expert")]
    session = ours(prices=PRICES)
    result = await run(desk, "6 x 7?", session=session)
    await session.store_run_usage(result)
    assert rows(session, "agent", "response_id", "input_tokens") == [
        ("Host", "resp_1", 10),
        ("Expert", "resp_9", 7),
        ("Host", "resp_2", 30),
    ]
    stats = await session.get_usage_stats()
    assert (stats["total_requests"], stats["unpriced_requests"]) == (3, 0)


async def test_an_agent_used_as_a_tool_on_a_session_of_its_own_counts_there(
    ours: Sessions, run: Any
) -> None:
    expert = host(reply("42", usage=tokens(7, 1)), name="Expert", model="large", first=9)
    desk = host(
        call("ask", {"input": "6 x 7"}, usage=tokens(10, 1)), reply("It is 42", usage=tokens(30, 3))
    )
    nested, session = ours("nested"), ours()
    desk.tools = [expert.as_tool(tool_name="ask", tool_description="Ask", session=nested)]
    result = await run(desk, "6 x 7?", session=session)
    await session.store_run_usage(result)
    assert rows(nested, "agent", "model", "input_tokens") == [("Expert", "large", 7)]
    assert rows(session, "agent", "input_tokens") == [("Host", 10), ("Host", 30)]
    assert (await session.log.usage())["total_requests"] == 3  # type: ignore[attr-defined]


async def test_two_sessions_fed_by_one_run_share_what_it_used(ours: Sessions, run: Any) -> None:
    session, other = ours(), ours("other")

    @function_tool
    async def note(ctx: Any, text: str) -> str:
        """Write a note."""
        await other.add_items([{"role": "user", "content": text}], wrapper=ctx)
        return "noted"

    agent = host(
        call("note", {"text": "x"}, usage=tokens(10, 1)), reply("Done", usage=tokens(20, 2))
    )
    agent.tools = [note]
    await run(agent, "Note x", session=session)
    assert rows(session, "input_tokens") == [(10,), (20,)]
    assert rows(other, "input_tokens") == []


class BrokenError(Exception):
    """A tool that does not work."""


async def failing(run: Any, session: Any, question: str = "Weather?") -> None:
    """Run to a tool that raises, after the model has answered."""

    @function_tool(failure_error_function=None)
    def broken() -> str:
        """Fail."""
        raise BrokenError

    agent = host(call("broken", usage=tokens(10, 5)))
    agent.tools = [broken]
    with pytest.raises(UserError):
        await run(agent, question, session=session)


async def spent(session: Any) -> int:
    return (await session.get_usage_stats())["total_tokens"]  # type: ignore[no-any-return]


async def test_a_run_that_fails_on_a_later_request_keeps_what_it_used(
    ours: Sessions, run: Any
) -> None:
    async def fail(_: Any) -> Any:
        raise BrokenError

    session = ours()
    with pytest.raises(BrokenError):
        await run(
            host(call("weather", {"city": "Oslo"}, usage=tokens(10, 5)), fail),
            "W?",
            session=session,
        )
    assert await spent(session) == 15


async def test_a_request_whose_tool_raised_is_recorded_on_its_own_turn(
    ours: Sessions, run: Any
) -> None:
    session = ours()
    await failing(run, session)
    await run(host(reply("Hi", usage=tokens(1, 1)), first=5), "Next", session=session)
    turns = await session.get_turn_usage()
    assert [(t["user_turn_number"], t["total_tokens"]) for t in turns] == [(1, 15), (2, 2)]


async def test_the_cost_of_a_failed_run_is_known_to_every_later_read(
    ours: Sessions, run: Any
) -> None:
    session = ours(prices=PRICES)
    await failing(run, session)
    of_log = await session.log.usage()
    assert (of_log["total_tokens"], of_log["unpriced_requests"]) == (15, 0)
    assert await ours().get_usage_stats() == of_log
    assert (await ours().get_session_usage())["total_tokens"] == 15
    assert (await ours().get_turn_usage(1))["total_tokens"] == 15


async def test_the_usage_of_a_failed_run_has_the_trace_id_of_its_run(tmp_path: Path) -> None:
    agents.set_trace_processors([])
    session = AdvancedSQLiteSession("talk", tmp_path / "log.db")
    with trace("Failing") as its:
        await failing(Runner.run, session)
    with trace("Next"):
        await session.add_items([{"role": "user", "content": "Next"}])
    [used] = [e async for e in session.log.read("talk") if e.type == "usage_recorded"]
    assert used.metadata["trace_id"] == its.trace_id


async def test_of_runs_that_are_under_way_together_none_is_forgotten(ours: Sessions) -> None:
    session = ours()
    all_begun = asyncio.Event()
    begun: list[Any] = []

    async def begin_and_fail() -> None:
        begun.append(RunContextWrapper(context=None))
        wrapper = begun[-1]
        await session.get_items(wrapper=wrapper)
        if len(begun) == 40:
            all_begun.set()
        await all_begun.wait()
        wrapper.usage.add(tokens(10, 5))

    await asyncio.gather(*(begin_and_fail() for _ in range(40)))
    await session.add_items([{"role": "user", "content": "Next"}])
    assert await spent(session) == 40 * 15


PROGRAM = """
import asyncio, gc, sys
from agents import Agent, Runner, UserError, function_tool, set_tracing_disabled
from agents_eventlog import AdvancedSQLiteSession
from agents_eventlog.adapters.openai_agents.testing import ScriptedModel, call, tokens

set_tracing_disabled(True)

@function_tool(failure_error_function=None)
def broken() -> str:
    raise ValueError

async def fail(session):
    script = [call("broken", usage=tokens(10, 5))]
    try:
        host = Agent(name="Host", model=ScriptedModel(script), tools=[broken])
        await Runner.run(host, "Hi", session=session)
    except UserError:
        print("failed")

kept = AdvancedSQLiteSession("kept", sys.argv[1])
asyncio.run(fail(kept))
asyncio.run(fail(AdvancedSQLiteSession("thrown away", sys.argv[1])))
"""


def test_a_program_that_ends_after_a_failed_run_has_recorded_what_was_spent(
    ours: Sessions,
) -> None:
    done = run_program(PROGRAM, ours.path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "failed\nfailed\n", "")
    for session_id in ("kept", "thrown away"):
        assert asyncio.run(spent(ours(session_id))) == 15


CONTAINER = (
    PROGRAM.partition("kept =")[0]
    + """
async def serve():
    kept = AdvancedSQLiteSession("kept", sys.argv[1])
    await asyncio.gather(
        asyncio.create_task(fail(kept)),
        asyncio.create_task(fail(AdvancedSQLiteSession("thrown away", sys.argv[1]))),
    )
    await fail(AdvancedSQLiteSession("in the same task", sys.argv[1]))
    await asyncio.sleep(0.1)
    print("serving", flush=True)
    await asyncio.sleep(60)

asyncio.run(serve())
"""
)

FORKED = (
    PROGRAM.partition("kept =")[0]
    + """
import os
asyncio.run(AdvancedSQLiteSession("parent", sys.argv[1]).get_items())
pid = os.fork()
if pid == 0:  # ends as a worker of multiprocessing or gunicorn does, without the handlers of atexit
    asyncio.run(fail(AdvancedSQLiteSession("worker", sys.argv[1])))
    os._exit(0)
assert os.waitpid(pid, 0)[1] == 0
"""
)


def test_a_forked_worker_has_recorded_its_last_request(ours: Sessions) -> None:
    done = run_program(FORKED, ours.path)
    assert done.returncode == 0, done.stderr
    assert asyncio.run(spent(ours("worker"))) == 15


def test_a_program_that_is_terminated_after_a_failed_run_has_recorded_what_was_spent(
    ours: Sessions,
) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", CONTAINER, str(ours.path)], stdout=subprocess.PIPE, text=True
    ) as program:
        assert program.stdout is not None
        while program.stdout.readline() not in ("serving\n", ""):
            pass
        program.send_signal(signal.SIGTERM)
        assert program.wait() == -signal.SIGTERM
    for session_id in ("kept", "thrown away", "in the same task"):
        assert asyncio.run(spent(ours(session_id))) == 15


async def test_a_request_whose_output_a_guardrail_refused_is_recorded(
    ours: Sessions, run: Any
) -> None:
    @output_guardrail
    async def never(ctx: Any, agent: Any, output: Any) -> GuardrailFunctionOutput:
        return GuardrailFunctionOutput(output_info=None, tripwire_triggered=True)

    agent = host(reply("Rude", usage=tokens(10, 5)))
    agent.output_guardrails = [never]
    session = ours()
    with pytest.raises(OutputGuardrailTripwireTriggered):
        await run(agent, "Hi", session=session)
    session.close()
    assert await spent(ours()) == 15


async def test_usage_that_could_not_be_recorded_is_recorded_by_the_next_write_on_its_turn(
    ours: Sessions, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    session = ours()

    def full(*args: Any, **kwargs: Any) -> None:
        raise BrokenError

    with monkeypatch.context() as broken:
        broken.setattr(runs, "record", full)
        await failing(Runner.run, session)
        assert await spent(session) == 0
        assert "Failed to store session usage" in caplog.text
        with pytest.raises(BrokenError):
            await session.add_items([{"role": "user", "content": "two"}])
    await session.add_items([{"role": "user", "content": "three"}])
    turns = await session.get_turn_usage()
    assert [(t["user_turn_number"], t["total_tokens"]) for t in turns] == [(1, 15)]


async def test_without_automatic_recording_only_results_are_recorded(
    ours: Sessions, run: Any
) -> None:
    session = ours(auto_usage=False, prices=PRICES)
    result = await run(host(reply("Hi", usage=tokens(10, 5))), "Hi", session=session)
    session.close()
    assert rows(ours()) == []
    session = ours(auto_usage=False, prices=PRICES)
    await session.store_run_usage(result)
    assert rows(session, *COLUMNS[:-1]) == [(1, "Host", "small", "resp_1", 10, 5)]
    assert microdollars(session) == [30]


@pytest.mark.parametrize("auto", [True, False], ids=["auto", "result only"])
async def test_the_model_of_the_runs_configuration_wins(
    ours: Sessions, run: Any, *, auto: bool
) -> None:
    config = RunConfig(model=host(reply("Hi", usage=tokens(10, 5)), model="large").model)
    session = ours(auto_usage=auto, prices=PRICES)
    result = await run(host("Not asked"), "Hi", session=session, run_config=config)
    await session.store_run_usage(result, run_config=None if auto else config)
    assert rows(session, "model", "response_id") == [("large", "resp_1")]


async def test_a_model_without_a_name_is_not_guessed(ours: Sessions, run: Any) -> None:
    session = ours()
    result = await run(host(reply("Hi", usage=tokens(10, 5)), model=None), "Hi", session=session)
    await session.store_run_usage(result)
    assert rows(session, "agent", "model", "cost_usd", "price_source") == [
        ("Host", None, None, None)
    ]
    assert (await session.get_usage_stats())["unpriced_requests"] == 1


async def test_hooks_record_each_request_when_it_is_answered(ours: Sessions, run: Any) -> None:
    session = ours(prices=PRICES)

    async def look(_: Any) -> Any:
        seen.append(rows(session, "agent", "model", "response_id", "total_tokens"))
        return reply("Sunny", usage=tokens(20, 5))

    seen: list[Any] = []
    agent = host(call("weather", {"city": "Oslo"}, usage=tokens(10, 5)), look)
    await run(agent, "Weather?", session=session, hooks=UsageHooks(session))
    assert seen == [[("Host", "small", "resp_1", 15)]]
    assert rows(session, "response_id", "total_tokens") == [("resp_1", 15), ("resp_2", 25)]
    assert microdollars(session) == [30, 40]


@pytest.mark.parametrize("auto", [True, False], ids=["auto", "hooks only"])
async def test_hooks_record_what_no_item_tells_of(ours: Sessions, run: Any, *, auto: bool) -> None:
    expert = host(reply("42", usage=tokens(7, 1)), name="Expert", model="large", first=9)
    desk = host(
        call("ask", {"input": "6 x 7"}, usage=tokens(10, 1)), reply("It is 42", usage=tokens(30, 3))
    )
    session = ours(auto_usage=auto)
    hooks = UsageHooks(session)
    desk.tools = [expert.as_tool(tool_name="ask", tool_description="Ask", hooks=hooks)]
    await run(desk, "6 x 7?", session=session, hooks=hooks)
    assert rows(session, "agent", "model", "response_id") == [
        ("Host", "small", "resp_1"),
        ("Expert", "large", "resp_9"),
        ("Host", "small", "resp_2"),
    ]


async def test_an_encrypted_session_hands_the_run_on(ours: Sessions, run: Any) -> None:
    session = ours(prices=PRICES)
    encrypted = EncryptedSession("talk", session, encryption_key="a key of some length")
    await run(host(reply("Hi", usage=tokens(10, 5))), "Hi", session=encrypted)
    assert rows(session, "agent", "model", "total_tokens") == [("Host", "small", 15)]


async def test_hooks_name_the_agent_behind_an_encrypted_session(ours: Sessions, run: Any) -> None:
    session = ours(prices=PRICES)
    encrypted = EncryptedSession("talk", session, encryption_key="a key of some length")
    agent = host(reply("Hi", usage=tokens(10, 5)))
    await run(agent, "Hi", session=encrypted, hooks=UsageHooks(session))
    assert rows(session, "agent", "model", "total_tokens") == [("Host", "small", 15)]


async def test_many_runs_on_one_object_at_once_count_each_its_own(tmp_path: Path) -> None:
    session = AdvancedSQLiteSession("s", tmp_path / "log.db", prices=PRICES)
    agents = [
        host(
            call("weather", {"city": "x"}, usage=tokens(n, 0)),
            reply("x", usage=tokens(n, 0)),
            first=10 * n,
        )
        for n in range(1, 31)
    ]
    await asyncio.gather(*(Runner.run(agent, "Hi", session=session) for agent in agents))
    assert sorted(row[0] for row in rows(session, "input_tokens")) == sorted(2 * list(range(1, 31)))
    assert set(rows(session, "agent", "model")) == {("Host", "small")}
    assert (await session.get_usage_stats())["total_runs"] == 30


class ReadsItsWay(AdvancedSQLiteSession):
    """Overrides one method as subclasses of the SDK's class do, without ``wrapper``."""

    async def get_items(self, limit: int | None = None, branch_id: str | None = None) -> Any:  # type: ignore[override]
        return await super().get_items(limit, branch_id)


async def test_a_subclass_that_overrides_a_method_without_wrapper_warns_once_and_hooks_record(
    tmp_path: Path, no_tracing: None, caplog: pytest.LogCaptureFixture
) -> None:
    ReadsItsWay("s", tmp_path / "log.db", auto_usage=False)
    assert not caplog.messages
    sessions = [ReadsItsWay(f"s{n}", tmp_path / "log.db") for n in range(2)]
    assert ["ReadsItsWay.get_items has no" in each for each in caplog.messages] == [True]
    agent = host(reply("Hi", usage=tokens(10, 5)))
    await Runner.run(agent, "Hi", session=sessions[0], hooks=UsageHooks(sessions[0]))
    assert rows(sessions[0], "turn", "agent", "total_tokens") == [(1, "Host", 15)]


async def test_a_call_without_a_run_reads_and_records_no_usage(tmp_path: Path) -> None:
    session = AdvancedSQLiteSession("s", tmp_path / "log.db")
    spy = Spy(session)
    await session.add_items([{"role": "user", "content": "x"}])
    assert [name for name, *_ in spy.calls] == ["add_items"]
    assert session._usage._unrecorded == {}


@pytest.mark.parametrize(
    "usage", [None, object(), "text", Usage(requests=-1), Usage(requests=2**60)]
)
async def test_a_usage_that_is_none_keeps_no_item_from_being_added(
    tmp_path: Path, usage: Any
) -> None:
    session = AdvancedSQLiteSession("s", tmp_path / "log.db")

    class Wrapper:
        pass

    wrapper: Any = Wrapper()
    wrapper.usage = usage
    for _ in range(2):
        await session.add_items([{"role": "user", "content": "x"}], wrapper=wrapper)
    assert len(await session.get_items(wrapper=wrapper)) == 2
    assert rows(session) == []


async def test_prices_that_fail_leave_the_request_unpriced(tmp_path: Path) -> None:
    def broken(request: Any, at: Any) -> float:
        raise BrokenError

    session = AdvancedSQLiteSession("s", tmp_path / "log.db", prices=broken)
    await Runner.run(host(reply("Hi", usage=tokens(10, 5))), "Hi", session=session)
    assert rows(session, "total_tokens", "cost_usd") == [(15, None)]


async def test_a_log_of_ones_own_is_fed_as_well(tmp_path: Path) -> None:
    async with ConversationLog.open(tmp_path / "log.db") as log:
        session = EventLogSession("s", log, prices=PRICES)
        answers = together(
            call("weather", {"city": "a"}), call("weather", {"city": "b"}), usage=tokens(9, 1)
        )
        await Runner.run(host(answers, reply("x", usage=tokens(1, 1))), "Hi", session=session)
        assert (await log.usage(by="model"))["groups"][0]["total_tokens"] == 12
