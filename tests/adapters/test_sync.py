"""The blocking methods of a session: the same calls, for programs without an event loop."""

from __future__ import annotations

import asyncio
import inspect
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from agents import Agent, Runner

from agents_eventlog import AdvancedSQLiteSession, recording
from agents_eventlog.adapters import EventLogSession, SyncSession
from agents_eventlog.eventlog.errors import ClosedError, TurnNotFoundError
from agents_eventlog.testing import ScriptedModel, reply
from tests.adapters.any_log import where
from tests.contract.items import turns

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["where"]


def test_every_public_coroutine_of_a_session_has_a_blocking_method() -> None:
    coroutines = {
        name
        for name, each in inspect.getmembers(EventLogSession, inspect.iscoroutinefunction)
        if not name.startswith("_")
    }
    blocking = {name for name in vars(SyncSession) if not name.startswith("_")}
    assert blocking == coroutines
    for name in blocking:
        ours, theirs = getattr(SyncSession, name), getattr(EventLogSession, name)
        assert not inspect.iscoroutinefunction(ours)
        assert ours.__doc__ == theirs.__doc__
        assert inspect.signature(ours) == inspect.signature(theirs)


def test_a_script_reads_writes_and_branches(where: Path | str) -> None:
    with closing(AdvancedSQLiteSession("talk", where)) as session:
        session.sync.add_items(turns("a", "b"))
        assert session.sync.pop_item() == turns("b")[1]
        assert session.sync.create_branch_from_turn(2, "other") == "other"
        session.sync.add_items(turns("c"))
        assert session.sync.get_items() == turns("a", "c")
        assert session.sync.get_items(1, branch_id="main") == turns("b")[:1]
        session.sync.clear_session()
        assert session.sync.get_items() == []
        assert session.current_branch == "main"
        with pytest.raises(TurnNotFoundError):
            session.sync.retry(7)
    with pytest.raises(ClosedError):
        session.sync.get_items()


def test_calls_from_several_threads_are_all_kept(where: Path | str) -> None:
    with closing(AdvancedSQLiteSession("talk", where)) as session:
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(session.sync.add_items, [turns(str(number)) for number in range(20)]))
        assert len(session.sync.get_items()) == 40


async def test_within_a_running_loop_a_call_is_refused_and_does_nothing(tmp_path: Path) -> None:
    with closing(AdvancedSQLiteSession("talk", tmp_path / "talk.db")) as session:
        with pytest.raises(RuntimeError, match=r"use `await session\.add_items\(\)`"):
            session.sync.add_items(turns("a"))
        assert await session.get_items() == []


def test_a_subclass_is_called_with_its_own_methods(tmp_path: Path) -> None:
    class Loud(AdvancedSQLiteSession):
        async def get_items(self, *arguments: object, **options: object) -> list[object]:
            return ["loud"]

    with closing(Loud("talk", tmp_path / "talk.db")) as session:
        assert session.sync.get_items() == ["loud"]


def test_the_callers_values_are_recorded_and_a_run_in_between_is_seen(
    tmp_path: Path, no_tracing: None
) -> None:
    with closing(AdvancedSQLiteSession("talk", tmp_path / "talk.db")) as session:
        with recording(actor="alice"):
            session.sync.add_items(turns("a"))
        agent = Agent(name="Assistant", model=ScriptedModel([reply("Gladly.")]))
        asyncio.run(Runner.run(agent, "b", session=session))
        transcript = session.sync.get_transcript()
        assert [row["actor"] for row in transcript] == ["alice", "alice", None, None]
        usage = session.sync.get_session_usage()
        assert usage is not None
        assert usage["requests"] == 1
