"""What the other processes do. Each gets its end of a pipe, its number, and a path."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agents import Agent, Runner, set_tracing_disabled

from agents_eventlog import AdvancedSQLiteSession, Budget, ConversationLog
from agents_eventlog.adapters.openai_agents.migration import importer
from agents_eventlog.adapters.openai_agents.testing import ScriptedModel, tokens
from agents_eventlog.eventlog import EventLog
from agents_eventlog.eventlog.errors import BudgetExceededError, ConversationError
from agents_eventlog.eventlog.events import ItemsAdded
from tests.faults.support import batch, ran, texts, user

if TYPE_CHECKING:
    from multiprocessing.connection import Connection


def say(connection: Connection, value: Any) -> None:
    """Tell the parent something."""
    connection.send(("said", value))


def wait_for_go(connection: Connection) -> None:
    """Say that all is loaded, and wait for the others."""
    say(connection, "ready")
    assert connection.recv() == "go"


def add_batches(connection: Connection, number: int, path: str, count: int) -> None:
    """Add batches to one session, by two objects of it in turn."""
    wait_for_go(connection)

    async def add() -> None:
        sessions = [AdvancedSQLiteSession("s", path) for _ in range(2)]
        for n in range(count):
            await sessions[n % 2].add_items(batch(f"{number}:{n}"))

    asyncio.run(add())


def run_until_the_budget_is_used_up(connection: Connection, number: int, path: str) -> int:
    """Answer questions of one user in several sessions at once; return how many requests were made."""
    set_tracing_disabled(disabled=True)
    made = 0

    async def answer(_: Any) -> str:
        nonlocal made
        made += 1
        await asyncio.sleep(0.01)
        return "answer"

    async def chat(name: str) -> None:
        limit = Budget(tokens=100, per=("user", "month"))
        model = ScriptedModel([], usage=tokens(6, 4), fallback=answer)
        while True:
            session = AdvancedSQLiteSession(name, path, user_id="alice", budgets=limit)
            try:
                await Runner.run(Agent(name="Host", model=model), "question", session=session)
            except BudgetExceededError:
                return

    async def chats() -> None:
        await asyncio.gather(*(chat(f"{number}:{n}") for n in range(2)))

    wait_for_go(connection)
    asyncio.run(chats())
    return made


def run_together(connection: Connection, number: int, path: str, policy: Any) -> Any:
    """Start a run when all have started theirs; return its branch, the name of its error, and the items."""
    session = AdvancedSQLiteSession("s", path, on_concurrent_run=policy)

    asked = asyncio.Event()

    async def ask() -> None:
        if not asked.is_set():
            asked.set()
            say(connection, "asked")
            await asyncio.to_thread(connection.recv)

    async def answer(_: Any) -> str:
        await ask()
        return f"answer {number}"

    async def post() -> tuple[str, str | None, list[str]]:
        agent = Agent(name="Host", model=ScriptedModel([answer], first=100 * number))
        error = None
        try:
            await Runner.run(agent, f"question {number}", session=session)
        except ConversationError as caught:
            await ask()
            error = type(caught).__name__
        branch = session.current_branch
        contents = texts(await session.get_items(branch_id=branch))
        return (
            branch,
            error,
            [each if isinstance(each, str) else each[0]["text"] for each in contents],
        )

    set_tracing_disabled(disabled=True)
    wait_for_go(connection)
    return asyncio.run(post())


def hold_in_turn(connection: Connection, number: int, path: str, count: int) -> int:
    """Hold a session's lease again and again; return how often another holder was there, too."""
    session = AdvancedSQLiteSession("s", path)
    mark = Path(path).with_suffix(".held")
    wait_for_go(connection)

    async def hold() -> int:
        met = 0
        for n in range(count):
            async with session.exclusive(wait_seconds=60):
                try:
                    mark.touch(exist_ok=False)
                except FileExistsError:
                    met += 1
                await asyncio.sleep(0.001 * (n % 2))
                mark.unlink(missing_ok=True)
        return met

    return asyncio.run(hold())


def hold_until_killed(connection: Connection, number: int, path: str, lease_seconds: float) -> None:
    """Hold a session's lease, and say so."""

    async def hold() -> None:
        session = AdvancedSQLiteSession("s", path)
        async with session.exclusive(lease_seconds=lease_seconds):
            say(connection, "held")
            await asyncio.sleep(60)

    asyncio.run(hold())


def hold_and_add(connection: Connection, number: int, path: str, lease_seconds: float) -> Any:
    """Hold a session's lease, and add an item when told; return the name of the error."""

    async def hold() -> str | None:
        session = AdvancedSQLiteSession("s", path)
        async with session.exclusive(lease_seconds=lease_seconds):
            say(connection, "held")
            await asyncio.to_thread(connection.recv)
            try:
                await session.add_items(batch("late"))
            except ConversationError as error:
                return type(error).__name__
        return None

    return asyncio.run(hold())


def pop_until_empty(connection: Connection, number: int, path: str) -> list[Any]:
    """Pop until there is nothing left; return what came."""
    session = AdvancedSQLiteSession("s", path)
    wait_for_go(connection)

    async def pop() -> list[Any]:
        popped = []
        while (item := await session.pop_item()) is not None:
            popped.append(item)
        return popped

    return asyncio.run(pop())


def branch_off(
    connection: Connection, number: int, path: str, count: int, own: bool
) -> list[tuple[str, str]]:
    """Create branches with made-up ids, in one session or in one of its own."""
    session_id = f"s{number}" if own else "s"
    wait_for_go(connection)

    async def branch() -> list[tuple[str, str]]:
        session = AdvancedSQLiteSession(session_id, path)
        if own:
            await session.add_items([user("one"), user("two")])
        made = []
        for _ in range(count):
            await session.switch_to_branch("main")
            made.append((session_id, await session.create_branch_from_turn(2)))
        return made

    return asyncio.run(branch())


def claim_name(connection: Connection, number: int, path: str) -> str:
    """Create the branch that all want to create; return what came of it."""
    session = AdvancedSQLiteSession("s", path)
    wait_for_go(connection)
    try:
        return asyncio.run(session.create_branch_from_turn(2, "wanted"))
    except ValueError as error:
        return type(error).__name__


def open_and_add(connection: Connection, number: int, path: str) -> None:
    """Open a file that may not be there yet, and add a batch."""
    wait_for_go(connection)
    asyncio.run(AdvancedSQLiteSession("s", path).add_items(batch(number)))


def record_runs(connection: Connection, number: int, path: str, count: int) -> None:
    """Record runs of 15 tokens each."""
    wait_for_go(connection)

    async def record() -> None:
        session = AdvancedSQLiteSession("s", path)
        for _ in range(count):
            await session.store_run_usage(ran(15))

    asyncio.run(record())


def append_only(connection: Connection, number: int, path: str, count: int) -> None:
    """Append events with a log that knows no projections."""
    wait_for_go(connection)

    async def append() -> None:
        async with EventLog.open(path) as log:
            for n in range(count):
                await log.append("s", ItemsAdded(items=batch(f"{number}:{n}")), branch_id="main")

    asyncio.run(append())


def obey(connection: Connection, number: int, path: str, **options: Any) -> None:
    """Call methods of one session object as told, until told to stop."""

    async def serve() -> None:
        session = AdvancedSQLiteSession("s", path, **options)
        say(connection, "ready")
        while (asked := connection.recv()) != "stop":
            method, *args = asked
            try:
                found = await getattr(session, method)(*args)
            except ValueError as error:
                found = type(error).__name__
            say(connection, found)

    asyncio.run(serve())


async def act(session: Any, n: int) -> None:
    """Do the n-th action of a history that depends on nothing but n."""
    if n % 7 == 3:
        await session.pop_item()
    elif n % 7 == 5:
        await session.store_run_usage(ran(n + 10))
    elif n % 23 == 6:
        await session.create_branch(f"branch {n}")
    elif n % 23 == 13:
        await session.switch_to_branch("main")
    elif n % 101 == 100:
        await session.clear_session()
    else:
        await session.add_items(batch(n, items=1 + n % 4))


def write_until_killed(
    connection: Connection, number: int, path: str, begins: list[dict[str, int]]
) -> None:
    """Go on with the histories of its sessions, all at once; report each action once acknowledged."""

    async def go_on(session_id: str, first: int) -> None:
        session = AdvancedSQLiteSession(session_id, path, resume=True)
        n = first
        while True:
            await act(session, n)
            say(connection, (session_id, n))
            n += 1

    async def go_on_with_all() -> None:
        await asyncio.gather(
            *(go_on(session_id, first) for session_id, first in begins[number].items())
        )

    wait_for_go(connection)
    asyncio.run(go_on_with_all())


def erase(connection: Connection, number: int, path: str) -> None:
    """Erase a session; report each transaction that was committed."""
    wait_for_go(connection)

    async def erase_all() -> None:
        async with ConversationLog.open(path) as log:
            await log.erase(session_id="s", on_progress=lambda done: say(connection, done.events))

    asyncio.run(erase_all())


def adopt_and_die(connection: Connection, number: int, path: str, fatal: int) -> None:
    """Adopt a file of the SDK's and be killed behind so many appends."""
    append, appended = importer.append_all, 0

    def append_or_die(*args: Any, **keywords: Any) -> Any:
        nonlocal appended
        recorded = append(*args, **keywords)
        appended += 1
        if appended == fatal:
            os.kill(os.getpid(), signal.SIGKILL)
        return recorded

    importer.append_all = append_or_die
    AdvancedSQLiteSession("session 0", path)


def adopt_and_die_before_projecting(connection: Connection, number: int, path: str) -> None:
    """Adopt a file of the SDK's and be killed before the projections are built."""
    EventLog.join = lambda *_: os.kill(os.getpid(), signal.SIGKILL)  # type: ignore[method-assign]
    AdvancedSQLiteSession("session 0", path)


def open_and_count(connection: Connection, number: int, path: str) -> int:
    """Open a file, together with others, and return how many items a session of it has."""
    wait_for_go(connection)
    return len(asyncio.run(AdvancedSQLiteSession("session 0", path).get_items()))
