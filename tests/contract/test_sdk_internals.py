"""The SDK's private names: what is known with them, and what is done without them."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from agents import Agent, Model, ModelResponse, RunConfig, Runner, Usage, trace
from agents.memory.session_settings import SessionSettings
from agents.tracing.provider import DefaultTraceProvider
from openai.types.responses import ResponseOutputMessage, ResponseOutputText

from agents_eventlog import AdvancedSQLiteSession, Budget, Price, UsageHooks
from agents_eventlog.adapters.openai_agents import sdk_internals
from agents_eventlog.eventlog.errors import BudgetExceededError

if TYPE_CHECKING:
    from collections.abc import Iterator


USAGE = "SELECT agent, model, total_tokens FROM usage"


class Answering(Model):
    """A model that says hello. It needs no ``agents.testing``, which old SDKs lack."""

    model = "small"

    async def get_response(self, *args: Any, **kwargs: Any) -> ModelResponse:
        text = ResponseOutputText(type="output_text", text="Hello", annotations=[])
        message = ResponseOutputMessage(
            id="msg_1", type="message", role="assistant", status="completed", content=[text]
        )
        usage = Usage(requests=1, input_tokens=10, output_tokens=5, total_tokens=15)
        return ModelResponse(output=[message], usage=usage, response_id="resp_1")

    def stream_response(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError


@pytest.fixture
def forgotten() -> Iterator[None]:
    """Let each test look up and warn anew."""
    caches = (sdk_internals.lookup, sdk_internals.warn_once, sdk_internals.requesting)
    for each in caches:
        each.cache_clear()
    yield
    for each in caches:
        each.cache_clear()


async def recorded(path: Path) -> list[tuple[Any, ...]]:
    session = AdvancedSQLiteSession("s", path, prices={"small": Price(1.0, 1.0)})
    config = RunConfig(tracing_disabled=True)
    await Runner.run(
        Agent(name="Host", model=Answering()), "Hi", session=session, run_config=config
    )
    return await session.log.query(lambda tx: tx.all(USAGE))


async def test_a_run_is_recorded_by_itself_with_its_agent_and_model(
    tmp_path: Path, forgotten: None
) -> None:
    assert await recorded(tmp_path / "log.db") == [("Host", "small", 15)]


async def test_a_result_is_recorded_with_its_agent_and_model(tmp_path: Path) -> None:
    session = AdvancedSQLiteSession("s", tmp_path / "log.db", auto_usage=False)
    config = RunConfig(tracing_disabled=True)
    agent = Agent(name="Host", model=Answering())
    await session.store_run_usage(await Runner.run(agent, "Hi", session=session, run_config=config))
    assert await session.log.query(lambda tx: tx.all(USAGE)) == [("Host", "small", 15)]


async def test_hooks_record_a_run_with_its_agent_and_model(tmp_path: Path) -> None:
    session = AdvancedSQLiteSession("s", tmp_path / "log.db", auto_usage=False)
    config = RunConfig(tracing_disabled=True)
    agent = Agent(name="Host", model=Answering())
    await Runner.run(agent, "Hi", session=session, run_config=config, hooks=UsageHooks(session))
    assert await session.log.query(lambda tx: tx.all(USAGE)) == [("Host", "small", 15)]


async def test_hooks_check_budgets_before_each_request(tmp_path: Path) -> None:
    limit = Budget(tokens=15, per="session")
    session = AdvancedSQLiteSession("s", tmp_path / "log.db", budgets=limit)
    config, hooks = RunConfig(tracing_disabled=True), UsageHooks(session)
    agent = Agent(name="Host", model=Answering())
    await Runner.run(agent, "Hi", session=session, run_config=config, hooks=hooks)
    with pytest.raises(BudgetExceededError, match="expected less than 15 tokens per session"):
        await Runner.run(agent, "Hi", session=session, run_config=config, hooks=hooks)
    assert await session.log.query(lambda tx: tx.all(USAGE)) == [("Host", "small", 15)]


@pytest.mark.parametrize(
    ("replacement", "missing"),
    [
        (None, "agents.run_internal.run_loop.get_new_response"),
        (lambda: None, "local variables public_agent and model of get_new_response"),
    ],
    ids=["without the function", "with a function of another shape"],
)
async def test_without_the_functions_that_call_a_model_it_is_unknown_with_one_warning(
    tmp_path: Path,
    forgotten: None,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    replacement: Any,
    missing: str,
) -> None:
    found = sdk_internals.lookup

    def lookup(module: str, name: str, lost: str) -> Any:
        if name != "get_new_response":
            return found(module, name, lost)
        if replacement is None:
            sdk_internals.warn_once(f"{module}.{name}", lost)
        return replacement

    monkeypatch.setattr(sdk_internals, "lookup", lookup)
    for name in ("a.db", "b.db"):
        assert await recorded(tmp_path / name) == [(None, None, 15)]
    lost = [each.getMessage() for each in caplog.records if "get_new" in each.getMessage()]
    assert len(lost) == 1
    assert lost[0].startswith(f"The installed openai-agents has no {missing}: ")


def test_what_the_sdk_lacks_is_none_with_one_warning(
    forgotten: None, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(2):
        assert sdk_internals.lookup("agents", "_gone.name", "nothing works") is None
        assert sdk_internals.lookup("agents._nowhere", "name", "nothing works") is None
    assert [each.getMessage() for each in caplog.records] == [
        "The installed openai-agents has no agents._gone.name: nothing works",
        "The installed openai-agents has no agents._nowhere.name: nothing works",
    ]


def test_without_the_sdks_settings_nothing_that_was_said_is_logged(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sdk_internals, "lookup", lambda module, name, lost: None)
    assert not sdk_internals.may_log_model_data()
    sdk_internals.log_error(logging.getLogger(), "Failed", ValueError("secret"))
    assert caplog.messages == ["Failed"]


async def test_without_the_sdks_snapshot_one_of_the_same_fields_takes_its_place(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def replace(start: int, items: Any) -> bool:
        return True

    monkeypatch.setattr(sdk_internals, "lookup", lambda module, name, lost: None)
    found = sdk_internals.compaction_snapshot([], replace, complete=True)
    assert (found.items, found.complete, await found.replace_suffix(0, [])) == ([], True, True)


def test_settings_may_be_a_dict_where_the_sdk_knows_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(sdk_internals.session_settings, "coerce_session_settings", raising=False)
    settings = SessionSettings(limit=3)
    assert sdk_internals.settings_of({"limit": 3}) == settings
    assert sdk_internals.settings_of(settings) is settings
    assert sdk_internals.settings_of(None) == SessionSettings()


def test_a_function_that_calls_no_model_made_no_request() -> None:
    assert sdk_internals.request_in(sys._getframe()) is None


TRACELESS = """
import asyncio, sys
from agents_eventlog import AdvancedSQLiteSession
from agents.tracing import setup

async def main():
    session = AdvancedSQLiteSession("s", sys.argv[1])
    await session.add_items([{"role": "user", "content": "Hi"}])
    await session.get_items()
    print(setup.GLOBAL_TRACE_PROVIDER)

asyncio.run(main())
"""


def test_a_program_without_traces_creates_no_tracing_client(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", TRACELESS, tmp_path / "log.db"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout == "None\n"


@pytest.mark.parametrize("is_known", [True, False])
def test_the_id_of_the_current_trace_is_known(
    monkeypatch: pytest.MonkeyPatch, *, is_known: bool
) -> None:
    if not is_known:
        monkeypatch.setattr(sdk_internals, "lookup", lambda module, name, lost: None)
    # without a processor, which would export the trace
    monkeypatch.setattr("agents.tracing.setup.GLOBAL_TRACE_PROVIDER", DefaultTraceProvider())
    assert sdk_internals.trace_id() is None
    with trace("talk", disabled=True):
        assert sdk_internals.trace_id() is None
    with trace("talk", trace_id="trace_1"):
        assert sdk_internals.trace_id() == "trace_1"


@pytest.mark.parametrize(
    ("url", "endpoint"),
    [
        ("https://api.openai.com/v1/", None),
        ("http://user:secret@localhost:8000/v1/?key=secret#x", "http://localhost:8000/v1"),
        ("https://openrouter.ai/api/v1", "https://openrouter.ai/api/v1"),
        ("", None),
        ("nonsense", None),
    ],
)
def test_an_endpoint_is_the_url_without_secrets(url: str, endpoint: str | None) -> None:
    assert sdk_internals.endpoint_of(SimpleNamespace(base_url=url)) == endpoint
    client = SimpleNamespace(base_url=url)
    assert sdk_internals.endpoint_of(SimpleNamespace(_client=client)) == endpoint
    assert sdk_internals.endpoint_of(object()) is None
