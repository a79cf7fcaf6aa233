"""What the tests of the commands that look into a log share."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

from typer.testing import CliRunner

from agents_eventlog import AdvancedSQLiteSession, projections
from agents_eventlog.adapters.cli import main as cli_main
from agents_eventlog.eventlog import EventLog, recording
from tests.engines import change
from tests.history import found_in_metadata

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from agents_eventlog.eventlog import Event

NEVER_CHANGED = "DROP TRIGGER events_are_never_changed"
NEVER_DELETED = "DROP TRIGGER events_are_never_deleted"


def run(*arguments: object) -> Any:
    """Run a command in this process; answers with exit_code, stdout and stderr."""
    return CliRunner().invoke(cli_main.app, [str(each) for each in arguments])


def documents(result: Any, kind: str | None = None) -> list[dict[str, Any]]:
    """Return what a command printed with --json, all of it or one kind."""
    found = [json.loads(line) for line in result.stdout.splitlines()]
    return [each for each in found if kind in (None, each["kind"])]


def one(result: Any, kind: str) -> dict[str, Any]:
    """Return the only document of a kind."""
    (found,) = documents(result, kind)
    return found


def tampered(path: Path, *statements: str | tuple[str, tuple[Any, ...]]) -> None:
    """Change events behind the log's back, with the triggers dropped."""
    change(path, NEVER_CHANGED, NEVER_DELETED, *statements)


def user(text: str) -> Any:
    return {"role": "user", "content": text}


def answer(text: str) -> Any:
    return {"role": "assistant", "content": text}


def call(call_id: str, name: str = "look_up") -> Any:
    return {"type": "function_call", "name": name, "call_id": call_id, "arguments": "{}"}


def output(call_id: str, text: str = "found") -> Any:
    return {"type": "function_call_output", "call_id": call_id, "output": text}


def write(path: Path, entries: Iterable[tuple[str, str | None, Event]], **values: Any) -> None:
    """Append events, each given with its session and branch, to a log with the usual projections."""

    async def append() -> None:
        async with EventLog.open(path, projections=projections.default()) as log:
            with found_in_metadata(**values):
                for session_id, branch_id, event in entries:
                    await log.append(session_id, event, branch_id=branch_id)

    asyncio.run(append())


def support(path: Path) -> None:
    """Hold a conversation with a branch that goes on, one that is deleted, and a pop; 9 events."""

    async def talk() -> None:
        session: Any = AdvancedSQLiteSession("support-42", path)
        with recording(actor="alice", trace_id="trace-1"):
            await session.add_items([user("hello"), call("c1"), output("c1"), answer("hi")])
            await session.add_items([user("refund me"), answer("no")])
        with recording(actor="bob"):
            await session.pop_item()
            await session.create_branch_from_turn(2, "calm")
            await session.add_items([user("please refund me"), answer("of course")])
            await session.switch_to_branch("main")
            await session.create_branch("draft")
            await session.add_items([answer("a draft")])
            await session.switch_to_branch("main")
            await session.delete_branch("draft")
        session.close()

    asyncio.run(talk())
