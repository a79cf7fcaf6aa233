"""What tests of real runs share: sessions to run on, tools, and items as the SDK writes them."""

from __future__ import annotations

import copy
import importlib
import json
import subprocess
import sys
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agents import Agent, Runner, RunState, function_tool
from agents.extensions.memory import AdvancedSQLiteSession as SDKSession

from agents_eventlog.adapters.openai_agents.testing import ScriptedModel

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    Resume = Callable[[Any, Any], Awaitable[RunState[Any]]]

Item = dict[str, Any]

OURS = "ours"
SIDES = ("sdk", OURS)


def our_class() -> Any:
    """Return our session's class, imported when a test first needs it."""
    return importlib.import_module("agents_eventlog").AdvancedSQLiteSession


@dataclass
class Sessions:
    """Opens sessions on one file, of the SDK's class or of ours."""

    side: str
    path: Path
    opened: list[Any] = field(default_factory=list)

    def __call__(self, session_id: str = "talk", **options: Any) -> Any:
        """Open a new session object, as an application does for each web request."""
        make = SDKSession if self.side == "sdk" else our_class()
        session = make(session_id=session_id, db_path=str(self.path), create_tables=True, **options)
        self.opened.append(session)
        return session

    def close(self) -> None:
        """Close the SDK's sessions; ours need no closing, and get none."""
        if self.side == "sdk":
            for session in self.opened:
                session.close()


class Spy:
    """
    Takes the place of a session's four protocol methods, by assignment on the instance.

    `calls` holds every call in order, as (name, positional arguments, keywords). An exception in
    `failures` is raised instead of a call, one in `failures_after` when the call has been made.
    """

    def __init__(self, session: Any) -> None:
        self.calls: list[tuple[str, list[Any], dict[str, Any]]] = []
        self.failures: dict[str, list[Exception]] = defaultdict(list)
        self.failures_after: dict[str, list[Exception]] = defaultdict(list)
        for name in ("get_items", "add_items", "pop_item", "clear_session"):
            setattr(session, name, self._watched(name, getattr(session, name)))

    def _watched(self, name: str, method: Any) -> Any:
        async def watched(*args: Any, **kwargs: Any) -> Any:
            self.calls.append((name, copy.deepcopy(list(args)), kwargs))
            if self.failures[name]:
                raise self.failures[name].pop(0)
            result = await method(*args, **kwargs)
            if self.failures_after[name]:
                raise self.failures_after[name].pop(0)
            return result

        return watched

    def added(self) -> list[list[str]]:
        """Return the kinds of the items of each batch that was added."""
        return [kinds(args[0]) for name, args, _ in self.calls if name == "add_items"]


async def streamed(*args: Any, **kwargs: Any) -> Any:
    """Run streamed, to the end."""
    result = Runner.run_streamed(*args, **kwargs)
    async for _ in result.stream_events():
        pass
    return result


def run_program(script: str, path: Path) -> subprocess.CompletedProcess[str]:
    """Run a program of its own on a file, to its end."""
    return subprocess.run(
        [sys.executable, "-c", script, str(path)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@function_tool
def weather(city: str) -> str:
    """Tell the weather of a city."""
    return f"sunny in {city}"


class Bank:
    """An agent whose tool moves money, once somebody has approved."""

    def __init__(self, *script: Any, **options: Any) -> None:
        self.paid: list[str] = []
        self.model = ScriptedModel(script, **options)

        @function_tool(needs_approval=True)
        def pay(to: str) -> str:
            """Pay somebody."""
            self.paid.append(to)
            return f"paid {to}"

        self.agent: Agent[Any] = Agent(name="Bank", model=self.model, tools=[pay])


async def at_once(result: Any, _agent: Any) -> RunState[Any]:
    """Go on with the state as it is."""
    return result.to_state()  # type: ignore[no-any-return]


async def from_storage(result: Any, agent: Any) -> RunState[Any]:
    """Go on with a state that was written down and read again."""
    stored = json.dumps(result.to_state().to_json())
    return await RunState.from_json(agent, json.loads(stored))


async def recorded(path: Path, event_type: str) -> list[Any]:
    """Return the events of one type in a file."""
    from agents_eventlog.eventlog import EventLog

    async with EventLog.open(path) as log:
        return [event async for event in log.read() if event.type == event_type]


def user(text: str) -> Item:
    """Return the user's item of a run's input."""
    return {"role": "user", "content": text}


def said(text: str, number: int | str) -> Item:
    """Return the item that a scripted reply leaves."""
    return {
        "id": f"msg_{number}",
        "type": "message",
        "role": "assistant",
        "status": "completed",
        "content": [{"type": "output_text", "text": text, "annotations": [], "logprobs": []}],
    }


def called(name: str, arguments: dict[str, Any], number: int | str) -> Item:
    """Return the item that a scripted call leaves."""
    return {
        "id": f"fc_{number}",
        "type": "function_call",
        "call_id": f"call_{number}",
        "name": name,
        "arguments": json.dumps(arguments),
        "status": "completed",
    }


def answered(output: str, number: int | str) -> Item:
    """Return the item that a tool's answer to a scripted call leaves."""
    return {"type": "function_call_output", "call_id": f"call_{number}", "output": output}


def kinds(items: Iterable[Item]) -> list[str]:
    """Return the role of each message and the type of every other item."""
    return [str(item.get("role") or item.get("type")) for item in items]
