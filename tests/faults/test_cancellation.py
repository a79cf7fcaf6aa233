"""
Cancelling: the outcome of a call is always known, and the session goes on.

A call that was cancelled before it began did nothing. One that began runs to its end, and raises its
first cancellation only then.
"""

from __future__ import annotations

import asyncio
import random
import threading
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from tests.faults.support import (
    PATIENCE_SECONDS,
    answer,
    batch,
    batches,
    check_sound,
    closed_gate,
    ran,
    shown,
    texts,
    user,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from agents_eventlog import AdvancedSQLiteSession
    from tests.faults.support import Gate

    Opened = Callable[..., AdvancedSQLiteSession]
    Call = Callable[[Any], Awaitable[Any]]

WRITES: dict[str, Call] = {
    "add_items": lambda session: session.add_items(batch("new")),
    "pop_item": lambda session: session.pop_item(),
    "clear_session": lambda session: session.clear_session(),
    "create_branch": lambda session: session.create_branch("new"),
    "create_branch_from_turn": lambda session: session.create_branch_from_turn(2, "new"),
    "create_branch_from_content": lambda session: session.create_branch_from_content("two", "new"),
    "switch_to_branch": lambda session: session.switch_to_branch("draft"),
    "delete_branch": lambda session: session.delete_branch("draft"),
    "store_run_usage": lambda session: session.store_run_usage(ran()),
    "delete_session": lambda session: session.delete_session("other"),
    "set_metadata": lambda session: session.set_metadata({"plan": "pro"}),
    "replace_items": lambda session: session._atomic_replace_items([user("summary")]),
}
READS: dict[str, Call] = {
    "get_items": lambda session: session.get_items(),
    "list_branches": lambda session: session.list_branches(),
    "get_current_turn": lambda session: session.get_current_turn(),
    "get_conversation_turns": lambda session: session.get_conversation_turns(),
    "find_turns_by_content": lambda session: session.find_turns_by_content("one"),
    "get_conversation_by_turns": lambda session: session.get_conversation_by_turns(),
    "get_tool_usage": lambda session: session.get_tool_usage(),
    "get_session_usage": lambda session: session.get_session_usage(),
    "get_turn_usage": lambda session: session.get_turn_usage(),
    "get_usage_stats": lambda session: session.get_usage_stats(),
    "list_sessions": lambda session: session.list_sessions(),
    "list_some_sessions": lambda session: session.list_sessions(text="one", limit=1),
    "get_metadata": lambda session: session.get_metadata(),
    "get_compaction_snapshot": lambda session: session._get_compaction_snapshot(5),
}
CALLS = {**WRITES, **READS}
EVERY_CALL = pytest.mark.parametrize("name", sorted(CALLS))


async def furnish(session: Any, other: Any) -> None:
    """Give a session two turns with usage and a branch, and the file another session."""
    await other.add_items([user("hello")])
    await session.add_items([user("one"), answer("1"), user("two"), answer("2")])
    await session.store_run_usage(ran())
    await session.create_branch_from_turn(2, "draft")
    await session.switch_to_branch("main")


@pytest.fixture
async def session(opened: Opened) -> AdvancedSQLiteSession:
    """Return a furnished session."""
    made = opened()
    await furnish(made, opened("other"))
    return made


async def outcomes(session: Any, name: str, tmp_path: Path) -> tuple[Any, Any]:
    """Return what the session shows now, and what it will show once the call has been made."""
    twin, other = (
        type(session)("s", tmp_path / "twin.db"),
        type(session)("other", tmp_path / "twin.db"),
    )
    await furnish(twin, other)
    before = await shown(twin)
    assert before == await shown(session)
    await CALLS[name](twin)
    after = await shown(twin)
    assert (after != before) is (name in WRITES)
    return before, after


async def check_usable(session: Any) -> None:
    """Use the session and its file."""
    await session.add_items([user("still here")])
    assert (await session.get_items())[-1] == user("still here")
    await session.create_branch("after all")
    assert await session.pop_item() == user("still here")


async def begun(task: asyncio.Task[Any]) -> None:
    """Wait until a task waits for its outcome."""
    while task._fut_waiter is None:  # type: ignore[attr-defined]  # noqa: ASYNC110
        await asyncio.sleep(0)


@EVERY_CALL
@pytest.mark.parametrize("messages", [(), ("first",), ("first", "second", None, "third")], ids=len)
async def test_a_call_cancelled_under_way_has_happened_when_it_raises(
    session: Any, tmp_path: Path, name: str, messages: tuple[str | None, ...]
) -> None:
    _, after = await outcomes(session, name, tmp_path)
    with closed_gate(session.log.store) as gate:
        task = asyncio.ensure_future(CALLS[name](session))
        await begun(task)
        for message in messages or (None,):
            task.cancel(message) if message else task.cancel()
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            assert not task.done()  # it waits for the outcome
        gate.open()
        with pytest.raises(asyncio.CancelledError) as cancelled:
            await task
    assert cancelled.value.args == messages[:1]
    assert task.cancelled()
    assert await shown(session) == after
    await check_usable(session)


@EVERY_CALL
async def test_a_call_cancelled_before_it_began_does_nothing(
    session: Any, tmp_path: Path, name: str
) -> None:
    before, _ = await outcomes(session, name, tmp_path)
    task = asyncio.ensure_future(CALLS[name](session))
    task.cancel("never mind")
    with pytest.raises(asyncio.CancelledError, match="never mind"):
        await task
    assert await shown(session) == before
    await check_usable(session)


@EVERY_CALL
async def test_a_call_cancelled_when_its_outcome_is_there_has_happened(
    session: Any, tmp_path: Path, name: str
) -> None:
    _, after = await outcomes(session, name, tmp_path)
    task = asyncio.ensure_future(CALLS[name](session))
    await begun(task)
    outcome = task._fut_waiter  # type: ignore[attr-defined]
    while not outcome.done():  # noqa: ASYNC110 - just then, not later
        await asyncio.sleep(0)
    assert not task.done()  # the outcome is there, the task has not been woken yet
    task.cancel("too late")
    with pytest.raises(asyncio.CancelledError, match="too late"):
        await task
    assert await shown(session) == after
    await check_usable(session)


@EVERY_CALL
@pytest.mark.parametrize("pauses", [1, 2, 3, 5])
async def test_a_call_cancelled_at_any_step_happens_wholly_or_not_at_all(
    session: Any, tmp_path: Path, name: str, pauses: int
) -> None:
    before, after = await outcomes(session, name, tmp_path)
    task = asyncio.ensure_future(CALLS[name](session))
    for _ in range(pauses):
        await asyncio.sleep(0)
    was_begun = task.done() or task._fut_waiter is not None  # type: ignore[attr-defined]
    was_cancelled = task.cancel("stop")
    if was_cancelled:
        with pytest.raises(asyncio.CancelledError, match="stop"):
            await task
    assert await shown(session) == (after if was_begun else before)
    await check_usable(session)


async def test_a_failure_of_a_cancelled_call_is_nobodys_news(
    session: Any, caplog: pytest.LogCaptureFixture
) -> None:
    before = await shown(session)
    with closed_gate(session.log.store) as gate:
        task = asyncio.ensure_future(session.switch_to_branch("nowhere"))
        await begun(task)
        task.cancel("first")
        gate.open()
        with pytest.raises(asyncio.CancelledError, match="first"):
            await task
    del task
    await asyncio.sleep(0)
    assert [record for record in caplog.records if record.name == "asyncio"] == []
    assert await shown(session) == before


async def answered(call: Awaitable[Any]) -> Any:
    """Return what a call gives, an error by its type; of answers that hold times, only their type."""
    try:
        found = await call
    except ValueError as error:
        return type(error)
    is_comparable = found is None or isinstance(found, bool | int | str)
    return found if is_comparable or _is_items(found) else type(found)


def _is_items(found: Any) -> bool:
    items = found if isinstance(found, list) else [found]
    return all(isinstance(item, dict) and "role" in item for item in items)


@pytest.mark.parametrize("seed", range(8))
async def test_calls_keep_their_order_whichever_of_them_are_cancelled(
    session: Any, tmp_path: Path, seed: int
) -> None:
    chance = random.Random(seed)
    calls = [CALLS[chance.choice(sorted(CALLS))] for _ in range(30)]
    twin = type(session)("s", tmp_path / "twin.db")
    await furnish(twin, type(session)("other", tmp_path / "twin.db"))
    expected = [await answered(call(twin)) for call in calls]

    with closed_gate(session.log.store) as gate:
        tasks = [asyncio.ensure_future(answered(call(session))) for call in calls]
        await asyncio.sleep(0)  # every call has begun, in this order
        if chance.random() < 0.5:
            gate.open()
        stopped = chance.sample(tasks, k=len(tasks) // 2)
        for task in stopped:
            for _ in range(chance.randint(1, 3)):
                task.cancel()
            for _ in range(chance.randint(0, 3)):
                await asyncio.sleep(0)
    found = await asyncio.gather(*tasks, return_exceptions=True)
    for task, came, awaited in zip(tasks, found, expected, strict=True):
        if isinstance(came, asyncio.CancelledError):
            assert task in stopped
        else:
            assert came == awaited
    assert await shown(session) == await shown(twin)


# -- what cancels ------------------------------------------------------------------------------


async def open_once_cancelled(gate: Gate, task: asyncio.Task[Any] | None) -> None:
    """Open a gate when a task was cancelled: no sooner, however long the timeout is in coming."""
    assert task is not None
    while not task.cancelling():  # noqa: ASYNC110
        await asyncio.sleep(0.001)
    gate.open()


async def test_a_timeout_ends_with_the_outcome(session: Any) -> None:
    current = asyncio.current_task()
    with closed_gate(session.log.store) as gate:
        opening = asyncio.create_task(open_once_cancelled(gate, current))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.02):
                await session.add_items(batch("late"))
    await opening
    assert batches((await session.get_items())[4:]) == ["late"]
    assert current is not None
    assert current.cancelling() == 0
    await check_usable(session)


async def test_the_inner_of_two_timeouts_is_the_one_that_is_raised(session: Any) -> None:
    reached = []
    with closed_gate(session.log.store) as gate:
        opening = asyncio.create_task(open_once_cancelled(gate, asyncio.current_task()))
        async with asyncio.timeout(PATIENCE_SECONDS):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.02):
                    await session.add_items(batch("late"))
            reached.append("inside")
    await opening
    assert reached == ["inside"]
    assert batches((await session.get_items())[4:]) == ["late"]


async def test_wait_for_ends_with_the_outcome(session: Any) -> None:
    with closed_gate(session.log.store) as gate:
        adding = asyncio.create_task(session.add_items(batch("late")))
        opening = asyncio.create_task(open_once_cancelled(gate, adding))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(adding, 0.02)
    await opening
    assert batches((await session.get_items())[4:]) == ["late"]
    await check_usable(session)


async def test_a_timeout_that_is_not_reached_changes_nothing(session: Any) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        await session.add_items(batch("timely"))
        popped = await asyncio.wait_for(session.pop_item(), PATIENCE_SECONDS)
    assert popped == batch("timely")[-1]


async def test_a_task_group_that_fails_leaves_whole_batches_in_order(session: Any) -> None:
    async def fail() -> None:
        await asyncio.sleep(0)
        raise LookupError("elsewhere")

    with closed_gate(session.log.store) as gate:
        gate.open_after(0.1)
        with pytest.raises(ExceptionGroup) as failed:  # noqa: PT012
            async with asyncio.TaskGroup() as group:
                for n in range(10):
                    group.create_task(session.add_items(batch(n)))
                group.create_task(fail())
    assert failed.group_contains(LookupError, match="elsewhere")
    assert len(failed.value.exceptions) == 1
    assert batches((await session.get_items())[4:]) == [str(n) for n in range(10)]
    await check_usable(session)


async def test_a_gather_that_is_cancelled_leaves_whole_batches_in_order(session: Any) -> None:
    with closed_gate(session.log.store) as gate:
        calls = asyncio.gather(*(session.add_items(batch(n)) for n in range(10)))
        await asyncio.sleep(0)
        calls.cancel()
        gate.open()
        with pytest.raises(asyncio.CancelledError):
            await calls
    await asyncio.sleep(0.01)
    assert batches((await session.get_items())[4:]) == [str(n) for n in range(10)]


async def test_an_async_context_that_is_cancelled_can_still_write_as_it_unwinds(
    session: Any,
) -> None:
    @asynccontextmanager
    async def noted() -> AsyncIterator[None]:
        try:
            yield
        finally:
            await session.add_items([user("unwound")])

    async def work() -> None:
        async with noted():
            await session.add_items([user("working")])
            await asyncio.sleep(PATIENCE_SECONDS)

    task = asyncio.create_task(work())
    while texts(await session.get_items())[-1] != "working":  # noqa: ASYNC110
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert texts(await session.get_items())[-2:] == ["working", "unwound"]


def test_a_loop_that_ends_with_calls_queued_leaves_later_loops_working(
    path: Path, opened: Opened
) -> None:
    session = opened()

    async def leave(gate: Gate) -> None:
        for n in range(20):
            asyncio.ensure_future(session.add_items(batch(n))).add_done_callback(ended.append)
        opening = asyncio.ensure_future(asyncio.sleep(PATIENCE_SECONDS))
        opening.add_done_callback(lambda _: gate.open())  # when all have been cancelled
        await asyncio.sleep(0)

    ended: list[asyncio.Future[Any]] = []
    with closed_gate(session.log.store) as gate:
        asyncio.run(leave(gate))  # cancels what is left, and waits for it
    assert [task.cancelled() for task in ended] == [True] * 20
    assert batches(asyncio.run(session.get_items())) == [str(n) for n in range(20)]
    asyncio.run(check_usable(session))
    answers: list[Any] = []
    thread = threading.Thread(target=lambda: answers.append(asyncio.run(session.get_items())))
    thread.start()
    thread.join(PATIENCE_SECONDS)
    assert answers == [asyncio.run(session.get_items())]
    session.close()
    check_sound(path)
