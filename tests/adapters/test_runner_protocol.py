"""How the Runner and a session meet: what is probed, passed on, traced, and left unclosed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from agents import (
    Agent,
    RunContextWrapper,
    Session,
    SessionSettings,
    TracingProcessor,
    set_trace_processors,
    trace,
)

from agents_eventlog.adapters.openai_agents.testing import ScriptedModel, call
from tests.adapters.running import (
    OURS,
    Sessions,
    kinds,
    our_class,
    recorded,
    said,
    user,
    weather,
)

if TYPE_CHECKING:
    from collections.abc import Iterator


def agent(*script: Any) -> Any:
    return Agent(name="Host", model=ScriptedModel(script), tools=[weather])


class Traces(TracingProcessor):
    """Remembers which traces began, and sends nothing anywhere."""

    def __init__(self) -> None:
        self.ids: list[str] = []

    def on_trace_start(self, trace: Any) -> None:
        self.ids.append(trace.trace_id)

    def on_trace_end(self, trace: Any) -> None: ...

    def on_span_start(self, span: Any) -> None: ...

    def on_span_end(self, span: Any) -> None: ...

    def shutdown(self) -> None: ...

    def force_flush(self) -> None: ...


@pytest.fixture
def traces() -> Iterator[Traces]:
    processor = Traces()
    set_trace_processors([processor])
    yield processor
    set_trace_processors([])


def test_a_session_is_one_by_the_sdk_s_own_check(sessions: Sessions) -> None:
    session = sessions("support-42")
    assert isinstance(session, Session)
    assert session.session_id == "support-42"
    assert session.session_settings == SessionSettings()


def test_a_session_is_not_taken_for_one_that_compacts_or_rewrites_ids(sessions: Sessions) -> None:
    session = sessions()
    assert not callable(getattr(session, "run_compaction", None))
    assert not getattr(session, "_ignore_ids_for_matching", False)


async def test_a_method_assigned_to_the_instance_takes_its_place(
    sessions: Sessions, run: Any
) -> None:
    session = sessions()
    add_items = session.add_items
    diverted: list[str] = []

    async def labelled(items: list[Any]) -> None:
        diverted.extend(kinds(items))
        await add_items([{**item, "label": "seen"} for item in items])

    session.add_items = labelled
    await run(agent("Hello"), "Hi", session=session)
    assert diverted == ["user", "assistant"]
    assert await sessions().get_items() == [
        {**user("Hi"), "label": "seen"},
        {**said("Hello", 1), "label": "seen"},
    ]


async def test_the_run_s_context_is_handed_to_the_session(ours: Sessions, run: Any) -> None:
    session = ours()
    seen: list[Any] = []

    def watched(method: Any) -> Any:
        async def call_with_context(*args: Any, wrapper: Any = None, **kwargs: Any) -> Any:
            seen.append(wrapper)
            return await method(*args, wrapper=wrapper, **kwargs)

        return call_with_context

    for name in ("get_items", "add_items", "pop_item", "clear_session"):
        setattr(session, name, watched(getattr(session, name)))
    await run(agent("Hello"), "Hi", session=session, context={"tenant": 7})
    assert len(seen) == 3
    assert all(isinstance(wrapper, RunContextWrapper) for wrapper in seen)
    assert all(wrapper.context == {"tenant": 7} for wrapper in seen)


async def test_all_four_methods_take_the_run_s_context(ours: Sessions) -> None:
    wrapper = RunContextWrapper(context=None)
    session = ours()
    await session.add_items([user("Hi")], wrapper=wrapper)
    assert await session.get_items(wrapper=wrapper) == [user("Hi")]
    assert await session.get_items(1, wrapper=wrapper) == [user("Hi")]
    assert await session.pop_item(wrapper=wrapper) == user("Hi")
    await session.clear_session(wrapper=wrapper)
    assert await session.get_items() == []


async def test_the_runner_finds_that_our_methods_take_its_context(ours: Sessions, run: Any) -> None:
    seen: list[Any] = []

    class Watching(our_class()):  # type: ignore[misc]
        async def add_items(self, items: list[Any], *, wrapper: Any = None) -> None:
            seen.append(wrapper)
            await super().add_items(items, wrapper=wrapper)

    await run(agent("Hello"), "Hi", session=Watching("talk", ours.path), context="tenant")
    assert [wrapper.context for wrapper in seen] == ["tenant", "tenant"]
    assert await ours().get_items() == [user("Hi"), said("Hello", 1)]


async def test_the_trace_of_a_run_stands_in_its_events(
    tmp_path: Path, traces: Traces, run: Any
) -> None:
    path = tmp_path / "talk.db"
    session = Sessions(OURS, path)()
    await run(agent(call("weather", {"city": "Oslo"}), "Sunny", "Bye"), "Hi", session=session)
    events = await recorded(path, "items_added")
    assert len(traces.ids) == 1
    assert [event.metadata["trace_id"] for event in events] == traces.ids * 3


async def test_runs_inside_one_trace_share_its_id(tmp_path: Path, traces: Traces, run: Any) -> None:
    path = tmp_path / "talk.db"
    session = Sessions(OURS, path)()
    host = agent("One", "Two")
    with trace("Conversation") as outer:
        await run(host, "First", session=session)
        await run(host, "Second", session=session)
    events = await recorded(path, "items_added")
    assert [event.metadata["trace_id"] for event in events] == [outer.trace_id] * 4


async def test_without_tracing_no_trace_is_claimed(ours: Sessions, run: Any) -> None:
    await run(agent("Hello"), "Hi", session=ours())
    events = await recorded(ours.path, "items_added")
    assert [event.metadata.get("trace_id") for event in events] == [None, None]
