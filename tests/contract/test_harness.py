"""The harness agrees where both sides do the same, and finds a side that does not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from agents.extensions.memory import AdvancedSQLiteSession as SDKSession

from tests.contract.harness import DisagreementError, World, picture, same
from tests.contract.items import ran, turns, user

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


class Forgetful(SDKSession):
    """A session that loses the oldest item of every read."""

    async def get_items(self, limit: int | None = None, branch_id: str | None = None) -> list[Any]:
        return (await super().get_items(limit, branch_id))[1:]


class Vague(SDKSession):
    """A session whose errors are of the right kind and say nothing."""

    async def switch_to_branch(self, branch_id: str) -> None:
        try:
            await super().switch_to_branch(branch_id)
        except ValueError:
            raise ValueError("no") from None


class Untyped(SDKSession):
    """A session whose errors say the right thing and are of another kind."""

    async def switch_to_branch(self, branch_id: str) -> None:
        try:
            await super().switch_to_branch(branch_id)
        except ValueError as error:
            raise KeyError(str(error)) from None


class Timeless(SDKSession):
    """A session whose branches were all made long ago."""

    async def list_branches(self) -> list[dict[str, Any]]:
        return [{**b, "created_at": "2001-01-01 00:00:00"} for b in await super().list_branches()]


class Lenient(SDKSession):
    """A session that lets everybody switch anywhere."""

    async def switch_to_branch(self, branch_id: str) -> None:
        self._branch_state = (branch_id, 0)


@pytest.fixture
def beside(tmp_path: Path) -> Any:
    made: list[World] = []

    def build(second: Callable[[], Any]) -> World:
        made.append(World(tmp_path, second))
        return made[-1]

    yield build
    for world in made:
        world.close()


async def test_the_sdk_agrees_with_itself(beside: Any) -> None:
    pair = beside(lambda: SDKSession).open()
    await pair.add_items(turns("one", "two", "three"))
    generated = await pair.new_branch(2)
    await pair.store_run_usage(ran())
    named = await pair.create_branch_from_turn(1, "empty")
    seen = await picture(pair, terms=["one", ""])
    assert named == "empty"
    assert [branch["branch_id"] for branch in seen["branches"]] == [generated, "main"]
    with pytest.raises(ValueError, match="Branch 'nowhere' does not exist"):
        await pair.switch_to_branch("nowhere")
    with pytest.raises(ValueError, match="Cannot delete the 'main' branch"):
        await pair.delete_branch("main")


@pytest.mark.parametrize("liar", [Forgetful, Timeless, Vague, Untyped, Lenient])
async def test_a_side_that_answers_otherwise_is_found(beside: Any, liar: Any) -> None:
    pair = beside(lambda: liar).open()
    await pair.add_items([user("hello")])

    async def look_around() -> None:
        await picture(pair)
        await pair.switch_to_branch("nowhere")

    with pytest.raises(DisagreementError):
        await look_around()


async def test_each_side_is_told_its_own_name_of_a_generated_branch(beside: Any) -> None:
    pair = beside(lambda: SDKSession).open()
    await pair.add_items(turns("one", "two"))
    branch = await pair.new_branch(2)
    await pair.switch_to_branch("main")
    await pair.switch_to_branch(branch)
    assert await pair.current() == branch
    assert await pair.get_items(branch_id=branch) == turns("one")


@pytest.mark.parametrize(
    ("left", "right"), [(1, 1.0), (1, True), ([1], (1,)), ({"a": 1}, {"a": 2}), (0.0, -0.0)]
)
def test_equal_looking_values_are_told_apart(left: Any, right: Any) -> None:
    assert not same(left, right)
    assert same(left, left)


def test_not_a_number_is_the_same_as_not_a_number() -> None:
    assert same({"x": [float("nan")]}, {"x": [float("nan")]})
