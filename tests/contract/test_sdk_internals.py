"""The SDK's private names: what is known with them, and what is done without them."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from agents import Agent, Model, ModelResponse, RunConfig, Runner, Usage
from agents.memory.session_settings import SessionSettings
from openai.types.responses import ResponseOutputMessage, ResponseOutputText

from agents_eventlog import AdvancedSQLiteSession, Price, UsageHooks
from agents_eventlog.adapters.openai_agents import sdk_internals

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
    caches = (sdk_internals.lookup, sdk_internals.warn_once, sdk_internals._runner_functions)
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


async def test_without_the_functions_that_run_agents_the_model_is_unknown_with_one_warning(
    tmp_path: Path,
    forgotten: None,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(sdk_internals, "_code", lambda module, name: None)
    for name in ("a.db", "b.db"):
        assert await recorded(tmp_path / name) == [("Host", None, 15)]
    lost = [each.getMessage() for each in caplog.records if "AgentRunner" in each.getMessage()]
    assert len(lost) == 1
    assert lost[0].startswith(
        "The installed openai-agents has no agents.run.AgentRunner._run_impl: "
    )


async def test_without_the_agents_of_the_run_its_own_agent_is_known(
    tmp_path: Path, forgotten: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sdk_internals, "lookup", lambda module, name, lost: None)
    assert await recorded(tmp_path / "log.db") == [("Host", "small", 15)]


def test_what_the_sdk_lacks_is_none_with_one_warning(
    forgotten: None, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(2):
        assert sdk_internals.lookup("agents", "_gone.name", "nothing works") is None
        assert sdk_internals.lookup("agents._nowhere", "name", "nothing works") is None
        assert sdk_internals._code("agents._nowhere", "name") is None
        assert sdk_internals._code("agents", "__version__") is None
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


def test_outside_of_a_run_nothing_is_known() -> None:
    assert sdk_internals.runner_state() == (None, None)
    assert sdk_internals.agent_named("Host") is None
