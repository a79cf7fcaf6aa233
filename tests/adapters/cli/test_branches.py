"""``eventlog branches``: which branch left which, and where."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from agents_eventlog.adapters.cli.terminal import ExitCode
from agents_eventlog.eventlog import (
    BranchCreated,
    BranchDeleted,
    ItemPopped,
    ItemRef,
    ItemsAdded,
    SessionCleared,
    SessionDeleted,
    SessionRestored,
)
from tests.adapters.looking import answer, documents, run, user, write

if TYPE_CHECKING:
    from pathlib import Path


def branches(*arguments: object) -> dict[str, dict[str, Any]]:
    result = run("branches", *arguments, "--json")
    assert result.exit_code == ExitCode.CLEAN, result.stderr
    return {each["branch_id"]: each for each in documents(result, "branch")}


def created(branch_id: str, from_branch_id: str, last_item: ItemRef | None) -> BranchCreated:
    return BranchCreated(branch_id=branch_id, from_branch_id=from_branch_id, last_item=last_item)


def test_live_branches_have_their_fork_sizes_and_use(db: Path) -> None:
    found = branches(db, "support-42")
    assert list(found) == ["main", "calm"]
    calm = found["calm"]
    assert (calm["from_branch_id"], calm["before_turn"], calm["last_item"]) == ("main", 2, [1, 3])
    assert (calm["items"], calm["own_items"], calm["turns"]) == (6, 2, 2)
    assert (found["main"]["is_current"], calm["is_current"]) == (True, False)
    assert calm["created_at"] < calm["last_used_at"]


def test_turns_after_each_fork_are_shown_by_their_first_words(db: Path) -> None:
    printed = run("branches", db, "support-42", "--turns", "--removed", "--json")
    turns = [
        (each["branch_id"], each["turn"], each["first_words"], each["removed"])
        for each in documents(printed, "turn")
    ]
    assert ("main", 1) in [turn[:2] for turn in turns]
    assert [turn[:2] for turn in turns if turn[0] == "calm"] == [("calm", 2)]
    text = run("branches", db, "support-42", "--turns").stdout
    for _, number, words, _ in turns:
        assert f"{number}  {words}" in text


def test_a_removed_or_erased_turn_says_so(path: Path) -> None:
    write(
        path,
        [
            ("s", "main", ItemsAdded(items=[user("stays")])),
            ("s", "main", ItemsAdded(items=[user("goes")])),
            ("s", "main", ItemPopped(item=ItemRef(2, 0), emptied_turn=2)),
        ],
    )
    assert "2  goes  popped" in run("branches", path, "s", "--turns").stdout
    assert run("erase", path, "--popped", "--yes").exit_code == ExitCode.CLEAN
    assert "2  (erased)  popped" in run("branches", path, "s", "--turns").stdout


def test_deleted_branches_are_there_when_asked_for_and_counted_when_not(db: Path) -> None:
    draft = branches(db, "support-42", "--removed")["draft"]
    assert (draft["is_live"], draft["ended"], draft["last_version"]) == (False, "deleted", 9)
    shown = run("branches", db, "support-42", "--removed").stdout
    assert "draft" in shown
    assert "--as-of 9" in shown
    text = run("branches", db, "support-42").stdout
    assert "draft" not in text
    assert "1 deleted: --removed shows them" in text


def test_the_tree_hangs_each_branch_under_the_one_it_left(path: Path) -> None:
    write(
        path,
        [
            ("s", "main", ItemsAdded(items=[user("1"), answer("2")])),
            ("s", "main", created("b", "main", ItemRef(1, 1))),
            ("s", "b", created("c", "b", ItemRef(1, 0))),
            ("s", "c", ItemsAdded(items=[answer("3")])),
            ("s", "b", BranchDeleted(branch_id="b")),
        ],
    )

    def columns(*options: str) -> dict[str, int]:
        lines = run("branches", path, "s", *options).stdout.splitlines()
        names = {name: line for name in "bc" for line in lines if f"─ {name} " in line}
        return {name: line.index(f"{name} ") for name, line in names.items()}

    whole = columns("--removed")
    assert whole["b"] < whole["c"]
    assert columns().keys() == {"c"}  # under the nearest that is left


def test_own_items_are_those_behind_the_fork_also_when_it_was_popped_past(path: Path) -> None:
    write(
        path,
        [
            ("s", "main", ItemsAdded(items=[user("1"), answer("2")])),
            ("s", "main", created("b", "main", ItemRef(1, 1))),
            ("s", "b", ItemPopped(item=ItemRef(1, 1))),
        ],
    )
    assert (branches(path, "s")["b"]["items"], branches(path, "s")["b"]["own_items"]) == (1, 0)
    write(path, [("s", "b", ItemsAdded(items=[answer("3")]))])
    assert (branches(path, "s")["b"]["items"], branches(path, "s")["b"]["own_items"]) == (2, 1)


def test_cleared_branches_and_those_of_a_deleted_session_have_ended(path: Path) -> None:
    write(
        path,
        [
            ("s", "main", ItemsAdded(items=[user("1")])),
            ("s", "main", created("b", "main", None)),
            ("s", None, SessionCleared()),
            ("s", "main", ItemsAdded(items=[user("2")])),
        ],
    )
    found = branches(path, "s", "--removed")
    assert (found["b"]["ended"], found["b"]["last_version"]) == ("cleared", 2)
    assert (found["main"]["is_live"], found["main"]["ended"]) == (True, None)
    write(path, [("s", None, SessionDeleted())])
    found = branches(path, "s", "--removed")
    assert {name: (each["ended"], each["last_version"]) for name, each in found.items()} == {
        "b": ("cleared", 2),
        "main": ("deleted", 4),
    }
    assert branches(path, "s") == {}


def test_a_deletion_of_the_session_that_was_undone_ends_no_branch(path: Path) -> None:
    write(
        path,
        [
            ("s", "main", ItemsAdded(items=[user("1")])),
            ("s", "main", created("b", "main", None)),
            ("s", None, SessionDeleted()),
            ("s", None, SessionRestored()),
            ("s", "b", ItemsAdded(items=[user("2")])),
            ("s", "b", BranchDeleted(branch_id="b")),
        ],
    )
    ended = branches(path, "s", "--removed")["b"]
    assert (ended["ended"], ended["last_version"]) == ("deleted", 5)
    shown = documents(run("show", path, "s", "--branch", "b", "--as-of", 5, "--json"), "item")
    assert [each["item"] for each in shown] == [user("2")]
    write(path, [("s", None, SessionDeleted())])
    found = branches(path, "s", "--removed")
    assert (found["b"]["last_version"], found["main"]["last_version"]) == (5, 6)


def test_a_branch_that_says_it_left_itself_is_still_shown(path: Path) -> None:
    write(
        path,
        [
            ("s", "main", ItemsAdded(items=[user("1")])),
            ("s", "main", created("b", "b", None)),
            ("s", "main", created("c", "d", None)),
            ("s", "main", created("d", "c", None)),
        ],
    )
    text = run("branches", path, "s").stdout
    assert all(f"─ {name} " in text for name in ("main", "b", "c", "d"))


def test_a_session_that_there_is_not_exits_with_2(db: Path) -> None:
    result = run("branches", db, "nobody")
    assert (result.exit_code, result.stdout) == (ExitCode.USAGE, "")
    assert "'nobody'" in result.stderr
