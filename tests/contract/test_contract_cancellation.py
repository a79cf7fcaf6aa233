"""Cancelling a call: the outcome is known and the session usable, on both sides (bullet 74)."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from tests.contract.harness import SIDES, World
from tests.contract.items import ran, turns, user

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

MUTATIONS: dict[str, Callable[[Any], Awaitable[Any]]] = {
    "add": lambda session: session.add_items([user("new")]),
    "pop": lambda session: session.pop_item(),
    "clear": lambda session: session.clear_session(),
    "usage": lambda session: session.store_run_usage(ran()),
    "branch": lambda session: session.create_branch_from_turn(2, "new"),
    "switch": lambda session: session.switch_to_branch("draft"),
    "delete": lambda session: session.delete_branch("draft"),
}


@pytest.fixture(params=SIDES)
async def session(request: pytest.FixtureRequest, world: World) -> Any:
    """A session on `main` with two turns and a branch `draft`."""
    side = request.param
    made = world.session_class(side)(session_id="s", db_path=world.path(side), create_tables=True)
    world.opened.append(made)
    await made.add_items(turns("one", "two"))
    await made.create_branch_from_turn(2, "draft")
    await made.switch_to_branch("main")
    return made


async def happened(session: Any, mutation: str) -> bool:
    """Tell whether a mutation took effect."""
    items = await session.get_items(branch_id="main")
    branches = {branch["branch_id"] for branch in await session.list_branches()}
    effects: dict[str, bool] = {
        "add": items == [*turns("one", "two"), user("new")],
        "pop": items == turns("one", "two")[:-1],
        "clear": items == [],
        "usage": await session.get_session_usage() is not None,
        "branch": "new" in branches and session._current_branch_id == "new",
        "switch": session._current_branch_id == "draft",
        "delete": "draft" not in branches,
    }
    others = [name for name in effects if name != mutation and effects[name]]
    assert mutation == "clear" or others == []
    return effects[mutation]


@pytest.mark.parametrize("mutation", sorted(MUTATIONS))
@pytest.mark.parametrize("pauses", [0, 1, 2, 5])
async def test_the_first_cancellation_is_raised_once_the_outcome_is_there(
    session: Any, mutation: str, pauses: int
) -> None:
    task = asyncio.ensure_future(MUTATIONS[mutation](session))
    await asyncio.sleep(0)
    for _ in range(pauses):
        await asyncio.sleep(0)
    if task.done():  # faster than the cancellation
        assert await happened(session, mutation)
        return
    task.cancel("first")
    await asyncio.sleep(0)
    task.cancel("second")
    with pytest.raises(asyncio.CancelledError) as cancelled:
        await task
    assert cancelled.value.args == ("first",)
    settled = await happened(session, mutation)
    await asyncio.sleep(0.05)
    assert await happened(session, mutation) is settled
    await session.add_items([user("after")])
    assert (await session.get_items())[-1] == user("after")


@pytest.mark.parametrize("mutation", ["add", "branch", "clear", "delete", "pop"])
async def test_a_mutation_that_began_is_done_when_its_cancellation_comes_back(
    session: Any, mutation: str
) -> None:
    task = asyncio.ensure_future(MUTATIONS[mutation](session))
    await asyncio.sleep(0)
    task.cancel("stop")
    with pytest.raises(asyncio.CancelledError, match="stop"):
        await task
    assert await happened(session, mutation)


async def test_a_cancelled_add_lets_the_next_one_pass(session: Any) -> None:
    tasks = [asyncio.create_task(session.add_items([user(str(n))])) for n in range(6)]
    await asyncio.sleep(0)
    for task in tasks[::2]:
        task.cancel()
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    assert [isinstance(answer, asyncio.CancelledError) for answer in answers] == [True, False] * 3
    added = (await session.get_items())[4:]
    assert [item for item in added if int(item["content"]) % 2] == [user("1"), user("3"), user("5")]
    assert added == sorted(added, key=lambda item: item["content"])


async def test_a_read_can_be_cancelled(session: Any) -> None:
    task = asyncio.create_task(session.get_items())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await session.get_items() == turns("one", "two")


async def test_a_timeout_leaves_a_session_usable(session: Any) -> None:
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(session.add_items([user("late")] * 3000), 0.000_01)
    await session.add_items([user("after")])
    items = await session.get_items()
    assert items[-1] == user("after")
    assert len(items) in {5, 3005}
