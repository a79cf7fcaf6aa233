"""``eventlog compare``: two branches side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agents_eventlog.adapters.cli.terminal import ExitCode
from agents_eventlog.eventlog import ItemsAdded
from tests.adapters.looking import documents, one, run, tampered, user, write

if TYPE_CHECKING:
    from pathlib import Path


def test_the_turns_after_the_shared_ones_stand_side_by_side(db: Path) -> None:
    result = run("compare", db, "support-42", "main", "calm")
    assert result.exit_code == ExitCode.CLEAN, result.stderr
    assert "support-42  1 turn, 4 items shared" in result.stdout
    assert "please refund me" in result.stdout
    assert "0 tokens, $0.00, 0." in result.stdout


def test_the_comparison_is_there_for_programs(db: Path) -> None:
    result = run("compare", db, "support-42", "main", "calm", "--json")
    heading = one(result, "comparison")
    assert (heading["a"], heading["b"], heading["shared_turns"]) == ("main", "calm", 1)
    (turn,) = documents(result, "turn")
    assert [len(turn[side]["items"]) for side in "ab"] == [1, 2]
    assert turn["b"]["items"][0]["item"]["content"] == "please refund me"


def test_a_turn_that_a_branch_lacks_and_erased_content_are_shown_as_such(db: Path) -> None:
    write(db, [("support-42", "calm", ItemsAdded(items=[user("thank you")]))])
    tampered(db, "UPDATE events SET data = NULL WHERE position = 5")
    lines = run("compare", db, "support-42", "main", "calm").stdout.splitlines()
    assert any("(erased)" in line for line in lines)
    assert any(line.split()[:2] == ["3", "-"] and "thank you" in line for line in lines)


def test_a_branch_is_compared_with_itself_at_an_earlier_version(db: Path) -> None:
    result = run("compare", db, "support-42", "main@2", "main", "--json")
    heading = one(result, "comparison")
    assert (heading["a"], heading["b"]) == ("main@2", "main")
    turns = documents(result, "turn")
    then = [item["item"] for turn in turns if turn["a"] for item in turn["a"]["items"]]
    now = [item["item"] for turn in turns if turn["b"] for item in turn["b"]["items"]]
    assert len(then) == len(now) + 1  # what was popped since
    assert then[: len(now)] == now
    assert run("compare", db, "support-42", "main@99", "main").exit_code == ExitCode.USAGE
    assert run("compare", db, "support-42", "calm@1", "main").exit_code == ExitCode.USAGE


def test_versions_that_are_the_newest_are_compared_as_the_branches_are(db: Path) -> None:
    version = one(run("show", db, "support-42", "--json"), "conversation")["version"]
    names = ("main", "calm")
    plain = documents(run("compare", db, "support-42", *names, "--json"))
    at = documents(run("compare", db, "support-42", *(f"{n}@{version}" for n in names), "--json"))
    for heading, other in ((plain[0], at[0]),):
        assert heading | {"a": "", "b": ""} == other | {"a": "", "b": ""}
    assert plain[1:] == at[1:]


def test_a_session_or_branch_that_does_not_exist_is_a_usage_error(db: Path) -> None:
    assert run("compare", db, "nobody", "main", "calm").exit_code == ExitCode.USAGE
    result = run("compare", db, "support-42", "main", "nowhere")
    assert result.exit_code == ExitCode.USAGE
    assert "nowhere" in result.stderr
