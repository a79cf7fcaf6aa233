"""``eventlog log``: the turns of a session, and the branches that share them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from agents_eventlog import AdvancedSQLiteSession
from agents_eventlog.adapters.cli.terminal import ExitCode
from tests.adapters.looking import documents, run
from tests.support_conversation import assistant, user, write


@pytest.fixture
async def path(tmp_path: Path) -> Path:
    path = tmp_path / "support.db"
    await write(path)
    return path


def lines(path: Path, *options: str) -> list[str]:
    text = run("log", path, *options).stdout
    return [re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d", "TIME", line) for line in text.splitlines()]


def test_a_graph_shows_each_turn_once_and_where_branches_leave(path: Path) -> None:
    assert lines(path, "support-42", "--graph") == [
        "*   2  TIME  anna@support  [kinder]  Can I get a refund?",
        "| *   2  TIME  web  [main]  I want my money back.",
        "|/",
        "*   1  TIME  web  1,204 tokens  $0.00+  Where is my parcel?",
    ]


def test_deleted_branches_are_drawn_on_request(path: Path) -> None:
    assert "[draft]" not in "".join(lines(path, "support-42", "--graph"))
    assert "[draft]" in "".join(lines(path, "support-42", "--graph", "--removed"))


def test_one_branch_is_listed_without_a_graph(path: Path) -> None:
    assert [line.split()[0] for line in lines(path, "support-42")] == ["2", "1"]
    assert "1,204 tokens" in lines(path, "support-42")[1]
    assert "I want my money back." in lines(path, "support-42", "--branch", "main")[0]
    assert "Can I get a refund?" in lines(path, "support-42", "--branch", "draft", "--removed")[0]
    assert len(lines(path, "support-42", "-n", "1")) == 1


def test_programs_get_the_tree_by_its_items(path: Path) -> None:
    found = documents(run("log", path, "support-42", "--graph", "--json"), "turn")
    assert [(turn["branch_ids"], turn["turn"]) for turn in found] == [
        (["kinder"], 2),
        (["main"], 2),
        (["main", "kinder"], 1),
    ]
    first = found[-1]
    assert first["parent"] is None
    assert [turn["parent"] for turn in found[:2]] == [[first["position"], first["index"]]] * 2
    assert (first["actor"], first["total_tokens"], first["unpriced_requests"]) == ("web", 1_204, 2)


@pytest.mark.parametrize(
    "options",
    [["--branch", "draft"], ["--branch", "nothing"], ["--branch", "main", "--graph"]],
)
def test_a_branch_that_cannot_be_shown_is_wrong_usage(path: Path, options: list[str]) -> None:
    assert run("log", path, "support-42", *options).exit_code == ExitCode.USAGE


async def test_branches_from_the_beginning_have_lanes_of_their_own(tmp_path: Path) -> None:
    session = AdvancedSQLiteSession("many", tmp_path / "many.db")
    await session.add_items([user("one"), assistant("1"), user("two"), assistant("2")])
    for name in ("b", "c"):
        await session.switch_to_branch("main")
        await session.create_branch_from_turn(2, name)
        await session.add_items([user(name), assistant("-")])
        await session.create_branch_from_turn(1, f"root-{name}")
        await session.add_items([user(f"root of {name}"), assistant("-")])
    drawn = [
        re.sub(r" +TIME .*", "", line) for line in lines(tmp_path / "many.db", "many", "--graph")
    ]
    assert drawn == [
        "*   1",
        "  *   2",
        "  | *   1",
        "  |   *   2",
        "  |   | *   2",
        "  |___|/",
        "  |__/",
        "  *     1",
    ]


async def test_a_session_without_turns_is_reported_on_stderr(tmp_path: Path) -> None:
    session = AdvancedSQLiteSession("empty", tmp_path / "empty.db")
    await session.set_title("Nothing yet")
    result = run("log", tmp_path / "empty.db", "empty")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "no turns found\n")
