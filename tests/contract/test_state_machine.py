"""
Random operations on both classes, compared after every step.

The machine keeps away from what differs on purpose, but for the rules that begin with `only_ours`:
those go there on both sides, see the difference, and come back to a state in which both agree.
HYPOTHESIS_PROFILE=long runs for many minutes.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from agents.usage import Usage
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from tests.contract.harness import SIDES, Generated, Pair, World, answer_of, picture, same
from tests.contract.items import result_of
from tests.contract.strategies import (
    ANY_NAMES,
    BATCHES,
    BEGINNINGS,
    BRANCH_NAMES,
    ITEMS,
    NO_TURNS,
    RESULTS,
    SESSIONS,
    TERMS,
    TURN,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable

MOST_INSTANCES = 4
PEACE = 12  # steps between two clears, so that there is something to clear
LIMITS = {
    "long": settings(max_examples=1500, stateful_step_count=60),
    "default": settings(max_examples=5, stateful_step_count=50),
}
WHICH = st.integers(0, MOST_INSTANCES - 1)


class TwoSessions(RuleBasedStateMachine):
    """A file of sessions on each side, with a few live instances on them."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.world = World(self.folder)
        self.loop = asyncio.new_event_loop()
        self.loop.set_default_executor(ThreadPoolExecutor(1))
        self.live: list[Pair] = []
        self.steps = 0
        self.cleared_at = 0

    def teardown(self) -> None:
        self.world.close()
        self.loop.run_until_complete(self.loop.shutdown_default_executor())
        self.loop.close()
        shutil.rmtree(self.folder)

    def run(self, pair: Pair, step: Awaitable[Any]) -> None:
        """Take a step with a session, then compare everything that can be asked of it."""
        self.loop.run_until_complete(self._step(pair, step))

    async def _step(self, pair: Pair, step: Awaitable[Any]) -> None:
        await step
        self.steps += 1
        await picture(pair, terms=TERMS[:4])
        for other in self.live:
            await other.get_items()
            await other.current()

    def pick(self, which: int) -> Pair:
        """Return one of the live instances."""
        return self.live[which % len(self.live)]

    @initialize(said=BEGINNINGS, turn=TURN)
    def begin(self, said: list[Any], turn: list[Any]) -> None:
        self.live += [self.world.open("first") for _ in range(2)]
        pair = self.live[0]

        async def said_and_branched() -> None:
            await pair.add_items(said)
            await pair.create_branch_from_turn(2, "a branch")
            await pair.add_items(turn)

        self.run(pair, said_and_branched())

    @rule(which=WHICH, items=TURN, result=RESULTS)
    def add_a_turn(self, which: int, items: list[Any], result: Any) -> None:
        pair = self.pick(which)

        async def as_a_run_does() -> None:
            await pair.get_items()
            await pair.add_items(items[:1])
            await pair.add_items(items[1:])
            await self._stored(pair, result)

        self.run(pair, as_a_run_does())

    @rule(which=WHICH, items=BATCHES)
    def add(self, which: int, items: list[Any]) -> None:
        pair = self.pick(which)
        self.run(pair, pair.add_items(items))

    @rule(which=WHICH, items=st.lists(ITEMS, max_size=3))
    def add_one_by_one(self, which: int, items: list[Any]) -> None:
        pair = self.pick(which)

        async def each() -> None:
            for item in items:
                await pair.add_items([item])
            await pair.add_items([])

        self.run(pair, each())

    @rule(which=WHICH, times=st.integers(1, 4))
    def pop(self, which: int, times: int) -> None:
        pair = self.pick(which)

        async def pops() -> None:
            for _ in range(times):
                if not await would_empty_a_branch(pair):
                    await pair.pop_item()

        self.run(pair, pops())

    @rule(which=WHICH, place=st.integers(0, 6), name=BRANCH_NAMES, turn=TURN)
    def branch(self, which: int, place: int, name: str, turn: list[Any]) -> None:
        pair = self.pick(which)
        self.run(pair, self._branched(pair, place, name, turn))

    @rule(which=WHICH, place=st.integers(0, 6), turn=TURN)
    def branch_without_a_name(self, which: int, place: int, turn: list[Any]) -> None:
        pair = self.pick(which)
        self.run(pair, self._branched(pair, place, None, turn))

    async def _branched(self, pair: Pair, place: int, name: str | None, items: list[Any]) -> None:
        """Branch from a turn, counted from the newest, and say something else there."""
        numbers = [turn["turn"] for turn in await pair.get_conversation_turns()]
        turn = numbers[-1 - place % len(numbers)] if numbers else 1
        if await would_be_empty(pair, turn):
            return
        if numbers and name is None:
            await pair.new_branch(turn)
            await pair.add_items(items)
        elif await either_way(pair.create_branch_from_turn(turn, name)) and place % 2:
            await pair.add_items(items)

    @rule(which=WHICH, items=BATCHES, place=st.integers(0, 5), turn=NO_TURNS, name=ANY_NAMES)
    def refuse(self, which: int, items: list[Any], place: int, turn: int, name: str) -> None:
        pair = self.pick(which)
        batch = [*items[:place], {1, 2}, *items[place:]]

        async def refused() -> None:
            for side in SIDES:
                answer = await answer_of(getattr(pair, side), "add_items", [batch], {})
                assert isinstance(getattr(answer, "error", None), TypeError)
            for taken in (name, None):
                assert not await either_way(pair.create_branch_from_turn(turn, taken))
            assert not await either_way(pair.create_branch_from_content("no such words", "b1"))
            assert not await either_way(pair.create_branch_from_turn(1, "main"))

        self.run(pair, refused())

    @rule(which=WHICH, term=st.sampled_from(TERMS), name=BRANCH_NAMES)
    def branch_from_content(self, which: int, term: str, name: str) -> None:
        pair = self.pick(which)

        async def create() -> None:
            found = await pair.find_turns_by_content(term)
            if not found or not await would_be_empty(pair, found[0]["turn"]):
                await either_way(pair.create_branch_from_content(term, name))

        self.run(pair, create())

    @rule(which=WHICH, name=ANY_NAMES)
    def switch(self, which: int, name: str) -> None:
        pair = self.pick(which)

        async def switched() -> None:
            if name != "main" or await pair.get_items(branch_id="main"):
                await either_way(pair.switch_to_branch(name))

        self.run(pair, switched())

    @rule(which=WHICH, number=st.integers(0, 5))
    def switch_to_one_that_exists(self, which: int, number: int) -> None:
        pair = self.pick(which)

        async def switched() -> None:
            branches = await pair.list_branches()
            if branches:
                await pair.switch_to_branch(branches[number % len(branches)]["branch_id"])

        self.run(pair, switched())

    @rule(which=WHICH, name=ANY_NAMES, force=st.booleans())
    def delete(self, which: int, name: str, *, force: bool) -> None:
        pair = self.pick(which)
        self.run(pair, self._deleted(pair, name, force=force))

    @rule(which=WHICH, number=st.integers(0, 5), force=st.booleans())
    def delete_one_that_exists(self, which: int, number: int, *, force: bool) -> None:
        pair = self.pick(which)

        async def deleted() -> None:
            ids = [branch["branch_id"] for branch in await pair.list_branches()]
            ids = [branch_id for branch_id in ids if branch_id != "main"]
            if ids:
                await self._deleted(pair, ids[number % len(ids)], force=force)

        self.run(pair, deleted())

    async def _deleted(self, pair: Pair, name: str | Generated, *, force: bool) -> None:
        """Delete a branch, and lead away the other instances that stood on it."""
        deserted = [
            other
            for other in self.live
            if other is not pair
            and other.session_id == pair.session_id
            and await other.current() == name
        ]
        is_gone = await either_way(pair.delete_branch(name, force))
        for other in deserted if is_gone else []:
            assert await other.get_items() == []
            ours = await answer_of(other.ours, "add_items", [[{"role": "user"}]], {})
            assert type(getattr(ours, "error", None)).__name__ == "BranchNotFoundError"
            await other.switch_to_branch("main")

    @precondition(lambda self: self.steps - self.cleared_at > PEACE)
    @rule(which=WHICH, next_one=WHICH, items=BEGINNINGS, times=st.integers(0, 2))
    def clear(self, which: int, next_one: int, items: list[Any], times: int) -> None:
        pair, other = self.pick(which), self.pick(next_one)
        self.cleared_at = self.steps

        async def cleared_and_begun_anew() -> None:
            await pair.clear_session()
            assert await pair.get_items(branch_id="main") == []
            for _ in range(times):
                await other.add_items(items)

        self.run(pair, cleared_and_begun_anew())

    @rule(which=WHICH, result=RESULTS)
    def store_usage(self, which: int, result: Any) -> None:
        pair = self.pick(which)
        self.run(pair, self._stored(pair, result))

    async def _stored(self, pair: Pair, result: Any) -> None:
        """Store a run's usage; where ours adds it to the turn's, give the SDK the sum."""
        numbers = await turn_numbers(pair)
        before = await pair.get_turn_usage(max(numbers)) if numbers else {}
        if before:
            total = Usage(
                requests=before["requests"],
                input_tokens=before["input_tokens"],
                output_tokens=before["output_tokens"],
                total_tokens=before["total_tokens"],
            )
            total.input_tokens_details = total.input_tokens_details.model_copy(
                update=before["input_tokens_details"]
            )
            total.output_tokens_details = total.output_tokens_details.model_copy(
                update=before["output_tokens_details"]
            )
            total.add(result.context_wrapper.usage)
            await pair.sdk.store_run_usage(result_of(total))
            await pair.ours.store_run_usage(result)
        else:
            await pair.store_run_usage(result)

    @precondition(lambda self: len(self.live) < MOST_INSTANCES)
    @rule(session_id=SESSIONS)
    def open(self, session_id: str) -> None:
        pair = self.world.open(session_id, create_tables=len(self.live) % 2 == 0)
        self.live.append(pair)
        self.run(pair, pair.get_items())

    @rule(which=WHICH)
    def reopen(self, which: int) -> None:
        old = self.pick(which)
        old.close()
        new = old.again()
        self.live[self.live.index(old)] = new
        self.run(new, new.get_items())

    @rule(which=WHICH, name=st.sampled_from(["e1", "e2", "e3"]))
    def only_ours_lists_an_empty_branch(self, which: int, name: str) -> None:
        pair = self.pick(which)

        async def there_and_back() -> None:
            if not await would_be_empty(pair, 1) or not await pair.get_items(branch_id="main"):
                return
            if not await either_way(pair.create_branch_from_turn(1, name)):
                return
            assert await pair.get_items() == []
            assert await pair.get_conversation_by_turns() == {}
            theirs, ours = await pair.sdk.list_branches(), await pair.ours.list_branches()
            assert [branch["branch_id"] for branch in ours][-1] == name
            assert len(ours) == len(theirs) + 1
            await pair.switch_to_branch("main")
            await pair.ours.delete_branch(name)

        self.run(pair, there_and_back())

    @rule(which=WHICH)
    def only_ours_goes_to_an_empty_main(self, which: int) -> None:
        pair = self.pick(which)

        async def go() -> None:
            if not await pair.get_items(branch_id="main"):
                theirs = await answer_of(pair.sdk, "switch_to_branch", ["main"], {})
                assert str(getattr(theirs, "error", "")) == "Branch 'main' does not exist"
                await pair.ours.switch_to_branch("main")

        self.run(pair, go())

    @rule(which=WHICH, name=st.sampled_from(["zero 1", "zero 2"]))
    def only_ours_branches_from_turn_0(self, which: int, name: str) -> None:
        pair = self.pick(which)

        async def there_and_back() -> None:
            stood = await pair.current()
            known = [branch["branch_id"] for branch in await pair.list_branches()]
            theirs = await answer_of(pair.sdk, "create_branch_from_turn", [0, name], {})
            assert "Turn 0 does not contain a user message" in str(getattr(theirs, "error", ""))
            if not known:
                return
            ours = await answer_of(pair.ours, "create_branch_from_turn", [0, name], {})
            if getattr(ours, "value", None) != name:
                assert "has already been used" in str(getattr(ours, "error", ""))
                return
            assert same(await pair.ours.get_items(), [])
            await pair.ours.switch_to_branch(stood.ours if isinstance(stood, Generated) else stood)
            await pair.ours.delete_branch(name)

        self.run(pair, there_and_back())


async def either_way(call: Any) -> bool:
    """Wait for a call that may be refused, alike on both sides; tell whether it was done."""
    try:
        await call
    except ValueError:
        return False
    return True


async def turn_numbers(pair: Pair) -> list[int]:
    """Return the numbers of the turns that the current branch has items in."""
    return list(await pair.get_conversation_by_turns())


async def would_be_empty(pair: Pair, turn: int) -> bool:
    """Tell whether a branch from a turn of the current branch would be without items."""
    numbers = await turn_numbers(pair)
    return turn in numbers and turn == min(numbers)


async def would_empty_a_branch(pair: Pair) -> bool:
    """Tell whether a pop would leave a branch without items while the session has others."""
    branches = await pair.list_branches()
    return len(await pair.get_items()) == 1 and (
        await pair.current() != "main" or len(branches) > 1
    )


# A failure takes its time to be made small; a success does not.
TestTwoSessions = pytest.mark.timeout(0 if os.environ.get("HYPOTHESIS_PROFILE") else 900)(
    TwoSessions.TestCase
)
TestTwoSessions.settings = settings(
    LIMITS.get(os.environ.get("HYPOTHESIS_PROFILE", ""), LIMITS["default"]),
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
