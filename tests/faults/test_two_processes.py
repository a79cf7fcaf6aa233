"""Several processes on one file: nothing lost, doubled, torn apart or seen too late."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from agents_eventlog.eventlog.errors import BranchNotFoundError, SessionDeletedError
from tests.faults.children import actors
from tests.faults.processes import all_at_once, children
from tests.faults.support import batch, batches, check_sound, texts, user

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from agents_eventlog import AdvancedSQLiteSession
    from tests.faults.processes import Child

    Opened = Callable[..., AdvancedSQLiteSession]


@pytest.fixture
def other(path: Path) -> Iterator[Child]:
    """Return another process that has the session open, and calls its methods as told."""
    with children(1, actors.obey, str(path)) as [child]:
        assert child.hear() == "ready"
        yield child
        child.tell("stop")
        child.hear()
        child.end()


async def test_batches_that_three_processes_add_are_whole_and_all_there(
    path: Path, opened: Opened
) -> None:
    all_at_once(3, actors.add_batches, str(path), 40)
    session = opened()
    names = batches(await session.get_items())
    assert Counter(names) == {f"{child}:{n}": 1 for child in range(3) for n in range(40)}
    for child in range(3):
        own = [name for name in names if name.startswith(f"{child}:")]
        assert own == [f"{child}:{n}" for n in range(40)]  # each in the order of its calls
    assert await session.get_current_turn() == 3 * 40 * 3
    session.close()
    check_sound(path)


def test_three_processes_exceed_a_users_budget_by_at_most_one_request_per_run_under_way(
    path: Path,
) -> None:
    made = all_at_once(3, actors.run_until_the_budget_is_used_up, str(path))
    # A budget of ten requests, and two runs at a time in each process: all six may see one left.
    assert 10 <= sum(made) < 10 + 6, made
    check_sound(path)


async def test_an_item_is_popped_by_one_process_only(path: Path, opened: Opened) -> None:
    session = opened()
    await session.add_items([user(str(n)) for n in range(90)])
    popped = all_at_once(3, actors.pop_until_empty, str(path))
    assert sorted(int(text) for taken in popped for text in texts(taken)) == list(range(90))
    for taken in popped:  # each takes the newest that is left
        numbers = [int(text) for text in texts(taken)]
        assert numbers == sorted(numbers, reverse=True)
    assert await session.get_items() == []
    session.close()
    check_sound(path)


@pytest.mark.parametrize("own", [False, True], ids=["one session", "a session each"])
async def test_made_up_branch_ids_are_never_given_twice(
    path: Path, opened: Opened, own: bool
) -> None:
    session = opened()
    await session.add_items([user("one"), user("two")])
    made = [
        pair for pairs in all_at_once(3, actors.branch_off, str(path), 8, own) for pair in pairs
    ]
    ids = [branch_id for _, branch_id in made]
    assert len(ids) == len(set(ids)) == 24
    for session_id in {session_id for session_id, _ in made}:
        listed = await opened(session_id).list_branches()
        mine = {branch_id for owner, branch_id in made if owner == session_id}
        assert {branch["branch_id"] for branch in listed} == {"main", *mine}
        assert all(row["message_count"] == 1 for row in listed if row["branch_id"] != "main")
    check_sound(path)


async def test_one_process_gets_the_branch_name_that_all_want(path: Path, opened: Opened) -> None:
    await opened().add_items([user("one"), user("two")])
    answers = all_at_once(3, actors.claim_name, str(path))
    assert sorted(answers) == ["BranchExistsError", "BranchExistsError", "wanted"]


async def test_a_clear_elsewhere_puts_an_object_on_main(opened: Opened, other: Child) -> None:
    session = opened()
    await session.add_items([user("one"), user("two")])
    await session.create_branch_from_turn(2, "draft")
    assert other.ask(("clear_session",)) is None
    assert await session.get_items() == []
    assert session.current_branch == "main"
    await session.add_items([user("new")])
    assert other.ask(("get_items",)) == [user("new")]
    assert other.ask(("get_items", None, "draft")) == []


async def test_a_clear_elsewhere_puts_an_object_that_only_writes_on_main(
    opened: Opened, other: Child
) -> None:
    session = opened()
    await session.add_items([user("one"), user("two")])
    await session.create_branch_from_turn(2, "draft")
    other.ask(("clear_session",))
    await session.add_items([user("new")])
    assert session.current_branch == "main"
    assert other.ask(("get_items",)) == [user("new")]


@pytest.mark.parametrize("options", [{"branch_id": "draft"}, {"resume": True}], ids=str)
async def test_a_clear_right_after_construction_puts_the_object_on_main(
    opened: Opened, other: Child, options: dict[str, Any]
) -> None:
    first = opened()
    await first.add_items([user("one"), user("two")])
    await first.create_branch_from_turn(2, "draft")
    session = opened(**options)
    assert session.current_branch == "draft"
    other.ask(("clear_session",))
    await session.add_items([user("new")])
    assert session.current_branch == "main"
    assert other.ask(("get_items",)) == [user("new")]


async def test_a_branch_deleted_elsewhere_takes_no_more_writes(
    opened: Opened, other: Child
) -> None:
    session = opened()
    await session.add_items([user("one"), user("two")])
    await session.create_branch_from_turn(2, "draft")
    assert other.ask(("delete_branch", "draft")) is None
    before = other.ask(("get_items",))
    with pytest.raises(BranchNotFoundError):
        await session.add_items([user("lost")])
    with pytest.raises(BranchNotFoundError):
        await session.pop_item()
    assert other.ask(("get_items",)) == before
    await session.switch_to_branch("main")
    await session.add_items([user("three")])
    assert other.ask(("get_items",)) == [*before, user("three")]


async def test_a_session_deleted_elsewhere_takes_no_more_writes(
    opened: Opened, other: Child
) -> None:
    session = opened()
    await session.add_items([user("one")])
    assert other.ask(("delete_session",)) is None
    with pytest.raises(SessionDeletedError):
        await session.add_items([user("lost")])
    assert await session.get_items() == []
    assert await session.list_sessions() == []


async def test_what_one_process_writes_the_other_sees_at_once(opened: Opened, other: Child) -> None:
    session = opened()
    for n in range(10):
        await session.add_items(batch(n))
        assert len(other.ask(("get_items",))) == 6 * n + 3
        other.ask(("add_items", batch(f"{n}'")))
        assert len(await session.get_items()) == 6 * n + 6
    assert other.ask(("get_current_turn",)) == await session.get_current_turn() == 60


def test_processes_may_open_a_new_file_together(tmp_path: Path) -> None:
    for attempt in range(4):
        path = tmp_path / f"{attempt}.db"
        all_at_once(8, actors.open_and_add, str(path))
        check_sound(path)
        with children(1, actors.obey, str(path)) as [reader]:
            assert reader.hear() == "ready"
            names = batches(reader.ask(("get_items",)))
        assert sorted(names) == [str(child) for child in range(8)]


async def test_the_runs_of_all_processes_are_counted(path: Path, opened: Opened) -> None:
    session = opened()
    await session.add_items([user("one")])
    all_at_once(3, actors.record_runs, str(path), 12)
    stats = await session.get_usage_stats()
    assert (stats["total_runs"], stats["total_requests"], stats["total_tokens"]) == (36, 36, 540)
    turn = await session.get_turn_usage(1)
    assert isinstance(turn, dict)
    assert turn["total_tokens"] == 540
    session.close()
    check_sound(path)


async def test_events_from_a_process_without_projections_are_seen(
    path: Path, opened: Opened
) -> None:
    session = opened()
    await session.add_items(batch("first"))
    all_at_once(2, actors.append_only, str(path), 5)
    names = batches(await session.get_items())
    assert names[0] == "first"
    assert Counter(names[1:]) == {f"{child}:{n}": 1 for child in range(2) for n in range(5)}
    all_at_once(2, actors.append_only, str(path), 5)
    await session.add_items(batch("last"))  # a writer catches up before it appends
    assert len(await session.get_items()) == 3 * 22
    assert batches(await session.get_items())[-1] == "last"
    session.close()
    check_sound(path)


async def test_a_read_that_has_to_catch_up_keeps_its_place_in_the_order_of_calls(
    path: Path, opened: Opened
) -> None:
    session = opened()
    await session.add_items(batch("first"))
    all_at_once(1, actors.append_only, str(path), 1)
    seen, _ = await asyncio.gather(session.get_items(), session.add_items(batch("last")))
    assert batches(seen) == ["first", "0:0"]
    assert batches(await session.get_items()) == ["first", "0:0", "last"]


def runs_together(path: Path, policy: str) -> list[tuple[str, str | None, list[str]]]:
    """Run three processes' runs so that each asks its model before any of them answers."""
    with children(3, actors.run_together, str(path), policy) as started:
        for step in ("ready", "asked"):
            for child in started:
                assert child.hear() == step
            for child in started:
                child.tell("go")
        results = [child.hear() for child in started]
        for child in started:
            child.end()
    return results


def test_runs_of_three_processes_that_branch_keep_question_and_answer_together(path: Path) -> None:
    results = runs_together(path, "branch")
    assert len({branch for branch, _, _ in results}) == 3
    for number, (_, error, items) in enumerate(results):
        assert error is None
        assert items[-2:] == [f"question {number}", f"answer {number}"]


def test_of_runs_that_three_processes_begin_together_one_answers_and_the_others_are_rejected(
    path: Path,
) -> None:
    results = runs_together(path, "reject")
    errors = {number: error for number, (_, error, _) in enumerate(results)}
    assert sorted(errors.values(), key=str) == ["ConcurrentRunError", "ConcurrentRunError", None]
    [answered] = [number for number, error in errors.items() if error is None]
    assert results[answered][2][-2:] == [f"question {answered}", f"answer {answered}"]
