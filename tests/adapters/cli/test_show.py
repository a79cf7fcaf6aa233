"""``eventlog show``: a conversation as it is, as it was, and what changed between."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from agents_eventlog import AdvancedSQLiteSession
from agents_eventlog.adapters.cli.terminal import ExitCode
from agents_eventlog.eventlog import (
    ItemPopped,
    ItemRef,
    ItemsAdded,
    SessionCleared,
    SessionDeleted,
)
from tests.adapters.looking import (
    answer,
    call,
    change,
    documents,
    one,
    output,
    run,
    user,
    write,
)

if TYPE_CHECKING:
    from pathlib import Path

TALK = [user("hello"), call("c1"), output("c1"), answer("hi"), user("refund me"), answer("no")]


def items(*arguments: object) -> list[Any]:
    result = run("show", *arguments, "--json")
    assert result.exit_code == ExitCode.CLEAN, result.stderr
    return [document["item"] for document in documents(result, "item")]


def changes(*arguments: object) -> list[tuple[str, Any]]:
    result = run("show", *arguments, "--json")
    assert result.exit_code == ExitCode.CLEAN, result.stderr
    return [(each["kind"], each["item"]) for each in documents(result)[1:]]


def test_a_conversation_is_shown_as_the_session_reads_it(db: Path) -> None:
    async def read(branch_id: str) -> list[Any]:
        session: Any = AdvancedSQLiteSession("support-42", db)
        read: list[Any] = await session.get_items(branch_id=branch_id)
        session.close()
        return read

    for branch_id in ("main", "calm"):
        assert items(db, "support-42", "--branch", branch_id) == asyncio.run(read(branch_id))


def test_the_branch_last_switched_to_is_shown_unless_another_is_asked_for(db: Path) -> None:
    heading = one(run("show", db, "support-42", "--json"), "conversation")
    assert (heading["branch_id"], heading["items"], heading["turns"]) == ("main", 5, 2)
    assert items(db, "support-42") == TALK[:5]
    assert items(db, "support-42", "--as-of", 5)[4:] == [
        user("please refund me"),
        answer("of course"),
    ]


def test_every_version_of_the_past_is_shown(db: Path) -> None:
    main = [len(items(db, "support-42", "--branch", "main", "--as-of", n)) for n in range(11)]
    assert main == [0, 4, 6, 5, 5, 5, 5, 5, 5, 5, 5]
    assert items(db, "support-42", "--as-of", 2) == TALK


def test_a_deleted_branch_is_shown_as_of_the_last_version_that_had_it(db: Path) -> None:
    assert items(db, "support-42", "--branch", "draft", "--as-of", 9)[-1] == answer("a draft")
    assert run("show", db, "support-42", "--branch", "draft").exit_code == ExitCode.USAGE


def test_a_time_shows_what_was_then_and_a_day_is_its_end(path: Path) -> None:
    for day in (3, 4, 5):
        noon = 1_793_534_400_000_000 + (day - 1) * 86_400_000_000
        write(path, [("s", "main", ItemsAdded(items=[user(f"on {day}")]))], occurred_at=noon)
    assert items(path, "s", "--as-of", "2026-11-04") == [user("on 3"), user("on 4")]
    assert items(path, "s", "--as-of", "2026-11-04T11:59:59") == [user("on 3")]
    assert items(path, "s", "--as-of", "2026-11-04T12:00:00Z") == [user("on 3"), user("on 4")]
    assert items(path, "s", "--as-of", "2026-11-02") == []


def test_a_difference_names_what_came_and_what_went(db: Path) -> None:
    assert changes(db, "support-42", "--diff", 2) == [("removed", answer("no"))]
    assert changes(db, "support-42", "--diff", 1) == [("added", user("refund me"))]
    assert changes(db, "support-42", "--diff", 10) == []
    assert changes(db, "support-42", "--as-of", 2, "--diff", 1) == [
        ("added", user("refund me")),
        ("added", answer("no")),
    ]
    text = run("show", db, "support-42", "--diff", 2).stdout
    assert "-  6  assistant  no" in text
    assert "5 items the same" in text


def test_a_branch_that_was_not_there_yet_has_all_its_items_added(db: Path) -> None:
    added = changes(db, "support-42", "--branch", "calm", "--diff", 2)
    assert [kind for kind, _ in added] == ["added"] * 6


def test_turns_have_a_line_each(db: Path) -> None:
    turns = documents(run("show", db, "support-42", "--turns", "--json"), "turn")
    assert [(turn["turn"], turn["items"], turn["tools"]) for turn in turns] == [
        (1, 4, ["look_up"]),
        (2, 1, []),
    ]
    assert turns[1]["first_words"] == "refund me"
    assert "refund me" in run("show", db, "support-42", "--turns").stdout


def test_turns_are_those_of_the_outline_with_the_removed_ones(path: Path) -> None:
    write(
        path,
        [
            ("s", "main", ItemsAdded(items=[user("stays")])),
            ("s", "main", ItemsAdded(items=[user("goes")])),
            ("s", "main", ItemPopped(item=ItemRef(2, 0), emptied_turn=2)),
        ],
    )
    turns = documents(run("show", path, "s", "--turns", "--json"), "turn")
    assert turns == documents(run("branches", path, "s", "--turns", "--json"), "turn")
    assert [(turn["first_words"], turn["removed"]) for turn in turns] == [
        ("stays", None),
        ("goes", "popped"),
    ]
    assert "goes  popped" in run("show", path, "s", "--turns").stdout
    before = documents(run("show", path, "s", "--turns", "--as-of", 2, "--json"), "turn")
    assert [turn["removed"] for turn in before] == [None, None]


def test_items_before_the_first_user_item_are_turn_0(path: Path) -> None:
    write(path, [("s", "main", ItemsAdded(items=[answer("welcome"), user("hi")]))])
    turns = documents(run("show", path, "s", "--turns", "--json"), "turn")
    assert [(turn["turn"], turn["first_words"]) for turn in turns] == [(0, None), (1, "hi")]


def test_items_of_any_shape_are_shown(path: Path) -> None:
    strange: list[Any] = [
        5,
        "text",
        None,
        [1],
        {},
        {"type": 3},
        {"role": ["x"]},
        {"a": float("nan")},
    ]
    write(path, [("s", "main", ItemsAdded(items=strange))])
    assert [str(item) for item in items(path, "s")] == [str(item) for item in strange]
    for option in ([], ["--turns"], ["--diff", "0"]):
        assert run("show", path, "s", *option).exit_code == ExitCode.CLEAN


def test_a_cleared_and_a_deleted_session_show_nothing_but_their_past(path: Path) -> None:
    write(path, [("s", "main", ItemsAdded(items=[user("hi")])), ("s", None, SessionCleared())])
    assert (items(path, "s"), items(path, "s", "--as-of", 1)) == ([], [user("hi")])
    write(path, [("s", "main", ItemsAdded(items=[user("ho")])), ("s", None, SessionDeleted())])
    assert (items(path, "s"), items(path, "s", "--as-of", 3)) == ([], [user("ho")])
    assert "the session was deleted" in run("show", path, "s").stdout


def test_a_log_whose_tables_are_stale_is_shown_from_its_events(db: Path) -> None:
    change(db, "DELETE FROM items", "UPDATE checkpoints SET position = 1")
    assert items(db, "support-42") == TALK[:5]


@pytest.mark.parametrize(
    "arguments",
    [
        ["nobody"],
        ["support-42", "--branch", "nowhere"],
        ["support-42", "--as-of", "11"],
        ["support-42", "--as-of", "soon"],
        ["support-42", "--diff", "11"],
        ["support-42", "--turns", "--diff", "1"],
    ],
)
def test_what_there_is_not_is_one_line_and_exits_with_2(db: Path, arguments: list[str]) -> None:
    result = run("show", db, *arguments)
    assert (result.exit_code, result.stdout) == (ExitCode.USAGE, "")
    assert result.stderr.count("\n") == 1


def test_documents_have_stable_fields(db: Path) -> None:
    heading, item, *_ = documents(run("show", db, "support-42", "--json"))
    assert list(heading) == [
        "kind",
        "session_id",
        "branch_id",
        "version",
        "is_deleted",
        "is_erased",
        "items",
        "turns",
        "beside_version",
    ]
    assert list(item) == [
        "kind",
        "number",
        "turn",
        "position",
        "index",
        "type",
        "occurred_at",
        "item",
        "is_erased",
        "withheld",
    ]
