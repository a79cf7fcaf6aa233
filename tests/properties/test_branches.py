"""Two live sessions on one conversation, against a model that copies a list for every branch."""

from __future__ import annotations

import asyncio
import json
import tempfile
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents_eventlog import AdvancedSQLiteSession
from agents_eventlog.eventlog import errors
from agents_eventlog.projections.reference import fold
from tests.faults.support import ran
from tests.history import meant, seen, stored
from tests.properties.profiles import examples

SEATS = st.integers(0, 1)
NUMBERS = st.integers(0, 40)
KINDS = st.sampled_from(["add", "add", "add", "pop", "pop", "branch", "turn", "include", "switch"])
COMMANDS = st.tuples(
    SEATS,
    KINDS
    | st.sampled_from(["undo", "undo", "redo", "redo", "retry", "edit", "use", "use"])
    | st.sampled_from(["delete", "force", "clear", "reopen"]),
    NUMBERS,
    NUMBERS,
)
WRITES = {"add", "pop", "branch", "turn", "include", "undo", "redo", "retry", "edit"}
"""What raises on a branch that is gone."""


def is_user(item: Any) -> bool:
    """Tell whether an item opens a turn."""
    return bool(item["role"] == "user")


@dataclass
class Model:
    """A conversation: each live branch with its own list, and where each of two seats stands."""

    branches: dict[str, list[Any]] = field(default_factory=dict)
    taken: set[str] = field(default_factory=lambda: {"main"})
    on: list[str] = field(default_factory=lambda: ["main", "main"])
    undone: dict[str, list[list[Any]]] = field(default_factory=dict)
    used: int = 0
    count: int = 0

    def items(self, seat: int) -> list[Any]:
        """Return a copy of what a seat sees."""
        return list(self.branches.get(self.on[seat], []))

    def is_gone(self, seat: int) -> bool:
        """Tell whether a seat's branch was deleted under it."""
        return self.on[seat] != "main" and self.on[seat] not in self.branches

    def new_items(self, number: int) -> list[Any]:
        """Return one to three items that never were before."""
        roles = ["user", "assistant", "user"][number % 2 :][: 1 + number % 3] or ["assistant"]
        self.count += 1
        return [
            {"role": role, "content": f"{self.count}.{place}"} for place, role in enumerate(roles)
        ]

    def change(self, seat: int, items: list[Any]) -> None:
        """Give a seat's branch other items; what was undone there cannot be redone any more."""
        self.branches[self.on[seat]] = items
        self.undone[self.on[seat]] = []

    def create(self, seat: int, name: str, kept: list[Any]) -> None:
        """Add a branch with a list of its own, and stand on it."""
        self.branches.setdefault("main", [])
        self.branches[name] = kept
        self.taken.add(name)
        self.on[seat] = name


class Table:
    """The model, and two sessions that must behave like it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.model = Model()
        self.seats = [self.sit(), self.sit()]

    def sit(self, branch_id: str = "main") -> AdvancedSQLiteSession:
        """Open another session object on the conversation."""
        return AdvancedSQLiteSession("s", self.path, durability="normal", branch_id=branch_id)

    async def do(self, seat: int, kind: str, number: int, other: int) -> None:
        """Do a command on both sides."""
        session, model = self.seats[seat], self.model
        if kind in WRITES and model.is_gone(seat):
            with pytest.raises(errors.BranchNotFoundError):
                await session.add_items([{"role": "user", "content": "lost"}])
            return
        await getattr(self, f"_{kind}")(seat, session, model, number, other)

    async def _add(self, seat: int, session: Any, model: Model, number: int, other: int) -> None:
        items = model.new_items(number)
        await session.add_items(items)
        model.change(seat, [*model.items(seat), *items])

    async def _pop(self, seat: int, session: Any, model: Model, number: int, other: int) -> None:
        items = model.items(seat)
        assert await session.pop_item() == (items[-1] if items else None)
        if items:
            model.change(seat, items[:-1])

    async def _undo(self, seat: int, session: Any, model: Model, number: int, other: int) -> None:
        items = model.items(seat)
        starts = [place for place, item in enumerate(items) if is_user(item)]
        start = starts[-1] if starts else 0
        assert await session.undo_turn() == items[start:]
        if items:
            stack = model.undone.get(model.on[seat], [])
            model.change(seat, items[:start])
            model.undone[model.on[seat]] = [*stack, items[start:]]

    async def _redo(self, seat: int, session: Any, model: Model, number: int, other: int) -> None:
        stack = model.undone.get(model.on[seat], [])
        assert await session.redo() == (stack[-1] if stack else [])
        if stack:
            again = [dict(item) for item in stack[-1]]  # other items with the same content
            model.change(seat, [*model.items(seat), *again])
            model.undone[model.on[seat]] = stack[:-1]

    async def _retry(
        self,
        seat: int,
        session: Any,
        model: Model,
        number: int,
        other: int,
        text: str | None = None,
    ) -> None:
        items = model.items(seat)
        starts = [place for place, item in enumerate(items) if is_user(item)]
        turn = number % (len(starts) + 2)
        again = session.retry(turn) if text is None else session.edit(turn, text)
        if not 0 < turn <= len(starts):
            with pytest.raises(errors.TurnNotFoundError):
                await again
            return
        start = starts[turn - 1]
        assert await again == (text or items[start]["content"])
        model.create(seat, session.current_branch, items[:start])

    async def _edit(self, seat: int, session: Any, model: Model, number: int, other: int) -> None:
        await self._retry(seat, session, model, number, other, f"edited {other}")

    async def _use(self, seat: int, session: Any, model: Model, number: int, other: int) -> None:
        await session.store_run_usage(ran(number + 5))
        model.used += number + 5

    async def _branch(self, seat: int, session: Any, model: Model, number: int, other: int) -> None:
        name = f"b{number}" if number % 3 else None
        if name in model.taken:
            with pytest.raises(errors.BranchExistsError):
                await session.create_branch(name)
            return
        kept = model.items(seat)
        model.create(seat, await session.create_branch(name), kept)

    async def _turn(
        self,
        seat: int,
        session: Any,
        model: Model,
        number: int,
        other: int,
        *,
        include_turn: bool = False,
    ) -> None:
        items = model.items(seat)
        starts = [place for place, item in enumerate(items) if is_user(item)]
        turn, name = number % (len(starts) + 2), f"t{other}"
        if turn > len(starts):
            with pytest.raises(errors.TurnNotFoundError):
                await session.create_branch_from_turn(turn, name, include_turn=include_turn)
        elif name in model.taken:
            with pytest.raises(errors.BranchExistsError):
                await session.create_branch_from_turn(turn, name, include_turn=include_turn)
        else:
            await session.create_branch_from_turn(turn, name, include_turn=include_turn)
            # The edges of turns 0, 1, 2 ...: where each begins, and where the last one ends.
            edges = [0, *starts, len(items)]
            model.create(seat, name, items[: edges[turn + 1] if include_turn else edges[turn]])

    async def _include(
        self, seat: int, session: Any, model: Model, number: int, other: int
    ) -> None:
        await self._turn(seat, session, model, number, other, include_turn=True)

    async def _switch(self, seat: int, session: Any, model: Model, number: int, other: int) -> None:
        names = sorted({*model.branches, "main"} | {"nowhere"})
        name = names[number % len(names)]
        if name == "nowhere":
            with pytest.raises(errors.BranchNotFoundError):
                await session.switch_to_branch(name)
        else:
            await session.switch_to_branch(name)
            model.on[seat] = name

    async def _delete(
        self,
        seat: int,
        session: Any,
        model: Model,
        number: int,
        other: int,
        *,
        force: bool = False,
    ) -> None:
        names = sorted({*model.branches, "main"})
        name = names[number % len(names)]
        if name == "main" or (name == model.on[seat] and not force):
            with pytest.raises(errors.InvalidBranchError):
                await session.delete_branch(name, force)
        else:
            await session.delete_branch(name, force)
            del model.branches[name]
            if name == model.on[seat]:
                model.on[seat] = "main"

    async def _force(self, seat: int, session: Any, model: Model, number: int, other: int) -> None:
        await self._delete(seat, session, model, number, other, force=True)

    async def _clear(self, seat: int, session: Any, model: Model, number: int, other: int) -> None:
        if number % 4:
            return  # seldom, so that there is something to clear
        await session.clear_session()
        model.branches, model.undone = {}, {}
        model.on = ["main", "main"]

    async def _reopen(self, seat: int, session: Any, model: Model, number: int, other: int) -> None:
        if not model.is_gone(seat):
            session.close()
            branch_id = model.on[seat]
            self.seats[seat] = self.sit(branch_id if branch_id in model.branches else "main")

    async def compare(self) -> None:
        """Ask both seats for everything that the model knows."""
        model = self.model
        for seat, session in enumerate(self.seats):
            assert await session.get_items() == model.items(seat)
            assert await session.get_items(2) == model.items(seat)[-2:]
            assert session.current_branch == model.on[seat]
        for name, items in model.branches.items():
            assert await self.seats[0].get_items(branch_id=name) == items
        listed = await self.seats[0].list_branches()
        expected = {
            name: (len(items), sum(map(is_user, items))) for name, items in model.branches.items()
        }
        if set(expected) == {"main"} and not expected["main"][0]:
            expected = {}
        found = {row["branch_id"]: (row["message_count"], row["user_turns"]) for row in listed}
        assert found == expected
        await self.compare_totals()

        await self.compare_views()

    async def compare_views(self) -> None:
        """Read every branch by plain SQL."""
        sql = "SELECT branch_id, item FROM v_messages ORDER BY branch_id, number"
        found: dict[str, list[Any]] = {}
        for branch_id, item in await self.seats[0].log.query(lambda tx: tx.all(sql)):
            found.setdefault(branch_id, []).append(json.loads(item))
        assert found == {name: items for name, items in self.model.branches.items() if items}

    async def compare_totals(self) -> None:
        """Compare the session's counts: items that are shared count once."""
        branches = self.model.branches
        distinct = {id(item): item for items in branches.values() for item in items}
        for row in await self.seats[0].list_sessions():
            assert row["item_count"] == len(distinct)
            assert row["turn_count"] == sum(map(is_user, distinct.values()))
            assert row["branch_count"] == len(branches)

    async def compare_with_events(self) -> None:
        """Compare the tables with the fold of the events, and all sums of usage with what was used."""
        log = self.seats[0].log
        assert log.store.read_sync(seen) == meant(fold(stored(log)))
        for by in ((), "run", "turn", "branch", ("branch", "turn"), "model", "day"):
            found = await log.usage(by)
            groups = found.get("groups", [found])
            assert sum(group["total_tokens"] for group in groups) == self.model.used

    def close(self) -> None:
        """Close both sessions."""
        for session in self.seats:
            session.close()


@given(st.lists(COMMANDS, min_size=1, max_size=25))
@examples(60)
def test_branches_behave_like_lists_of_their_own(commands: list[tuple[int, str, int, int]]) -> None:
    async def play(path: Path) -> None:
        with closing(Table(path)) as table:
            for command in commands:
                await table.do(*command)
                await table.compare()
            await table.compare_with_events()

    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(play(Path(folder) / "s.db"))
