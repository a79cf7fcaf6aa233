"""
``eventlog demo``: one conversation, from ``Runner.run`` to a replay of its events.

The conversation has a run with a tool, a popped exchange, two branches, and usage. Then the demo
prints the recorded events, drops the projection tables, rebuilds them, and compares every read.
"""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agents import Agent, RunConfig, Runner
from agents.exceptions import AgentsException
from openai import OpenAIError
from rich.console import Console

from agents_eventlog import projections
from agents_eventlog.adapters.cli import terminal
from agents_eventlog.adapters.cli.demo import script as demo_script
from agents_eventlog.adapters.cli.demo.screen import View
from agents_eventlog.adapters.openai_agents.advanced_sqlite import AdvancedSQLiteSession
from agents_eventlog.eventlog import EventLog, recording
from agents_eventlog.projections import ReplayResult, build
from agents_eventlog.projections.base import tables

if TYPE_CHECKING:
    from agents_eventlog.eventlog.storage.transaction import Transaction


def run(path: Path | None) -> bool:
    """Run the demo; return whether every read is the same after the replay. Raises an OpenError."""
    view = View(terminal.console())
    live = demo_script.has_key()
    agent, model = demo_script.make_agent(live=live)
    file = path or Path(tempfile.mkdtemp(prefix="eventlog-demo-")) / "conversations.db"
    try:
        return asyncio.run(_show(view, file, agent, model, demo_script.run_config(live=live)))
    except (AgentsException, OpenAIError) as error:
        view.failed(error, file)
        return False


def write(path: Path) -> None:
    """Hold the demo's conversation in a file, with the scripted model and without printing."""
    agent, _ = demo_script.make_agent(live=False)

    async def talk() -> None:
        session = await open_unused(path)
        with recording(actor="demo"):
            config = demo_script.run_config(live=False)
            await Demo(View(Console(quiet=True)), session, agent, config).talk()
        session.close()

    asyncio.run(talk())


async def _show(view: View, file: Path, agent: Agent[Any], model: str, config: RunConfig) -> bool:
    session = await open_unused(file)
    session_id = session.session_id
    view.opening(file, session_id, model)
    with recording(actor="demo"):
        await Demo(view, session, agent, config).talk()
    before = await reads(session)
    session.close()

    async with EventLog.open(file) as log:
        events = [recorded async for recorded in log.read(session_id)]
        view.branches(events, before["list_branches"], before["get_conversation_turns"])
        view.usage(before["get_session_usage"], before["get_usage_stats"])
        view.events(events)
        checked = await drop_and_replay(view, log)

    again = AdvancedSQLiteSession(session_id, file, resume=True)
    same = view.compared(checked, before, await reads(again))
    again.close()
    view.closing(file, same=same)
    return same


class Demo:
    """The conversation, printed while it runs."""

    def __init__(
        self, view: View, session: AdvancedSQLiteSession, agent: Agent[Any], config: RunConfig
    ) -> None:
        self._view = view
        self._session = session
        self._agent = agent
        self._config = config

    async def talk(self) -> None:
        """Talk on main, pop one exchange, and continue on two branches."""
        session, view = self._session, self._view
        view.step("await Runner.run(agent, question, session=session)")
        await self._ask(demo_script.CHOICE)
        await self._ask(demo_script.SIGHTS)
        await self._ask(demo_script.OFF_TOPIC)
        view.step("await session.pop_item()  # twice: the answer, and the question")
        await self._take_back()
        view.step(f'await session.create_branch_from_turn(2, "{demo_script.RAINY}")')
        await session.create_branch_from_turn(2, demo_script.RAINY)
        await self._ask(demo_script.RAIN)
        view.step(f'await session.create_branch("{demo_script.FAMILY}")')
        await session.create_branch(demo_script.FAMILY)
        await self._ask(demo_script.CHILDREN)
        view.step(f'await session.switch_to_branch("{demo_script.RAINY}")')
        await session.switch_to_branch(demo_script.RAINY)

    async def _ask(self, question: str) -> None:
        self._view.user(question)
        result = await Runner.run(
            self._agent, question, session=self._session, run_config=self._config
        )
        for item in result.new_items:
            self._view.item(item.to_input_item())
        await self._session.store_run_usage(result)

    async def _take_back(self) -> None:
        """Pop items up to and including the last question."""
        while (item := await self._session.pop_item()) is not None:
            self._view.taken_back(item)
            if item.get("role") == "user":
                return


async def open_unused(file: Path) -> AdvancedSQLiteSession:
    """Open a session that is new in the file, so that a demo never continues an earlier one."""
    number = 1
    while True:
        session = AdvancedSQLiteSession("demo" if number == 1 else f"demo-{number}", file)
        if not await session.log.version(session.session_id):
            return session
        session.close()
        number += 1


async def reads(session: AdvancedSQLiteSession) -> dict[str, Any]:
    """Return the result of every reading method of the session, for every branch."""
    branches = await session.list_branches()
    ids = [branch["branch_id"] for branch in branches]
    return {
        "current_branch": session.current_branch,
        "list_branches": branches,
        "get_items": {each: await session.get_items(branch_id=each) for each in ids},
        "get_conversation_turns": {
            each: await session.get_conversation_turns(each) for each in ids
        },
        "get_conversation_by_turns": {
            each: await session.get_conversation_by_turns(each) for each in ids
        },
        "get_tool_usage": {each: await session.get_tool_usage(each) for each in ids},
        "get_turn_usage": {each: await session.get_turn_usage(branch_id=each) for each in ids},
        "get_session_usage": {each: await session.get_session_usage(each) for each in ids},
        "get_usage_stats": await session.get_usage_stats(),
        "list_sessions": await session.list_sessions(),
    }


async def drop_and_replay(view: View, log: EventLog) -> list[ReplayResult]:
    """Drop the projection tables, rebuild them from the events, and check them."""
    everything = projections.default().named([])
    names = [
        table.name for projection in everything for table in tables(log.store.engine, projection)
    ]
    await log.write(lambda tx: _drop(tx, names))
    view.dropped(names)
    loop = asyncio.get_running_loop()
    started = loop.time()
    await asyncio.to_thread(projections.replay, log, everything)
    view.replayed((await log.head()).position, loop.time() - started)
    return await asyncio.to_thread(projections.replay, log, everything, check=True)


def _drop(tx: Transaction, names: list[str]) -> None:
    for name in names:
        tx.execute(f'DROP TABLE "{name}"')
    for projection in projections.default().by_name:
        build.delete_checkpoint(tx, projection)
