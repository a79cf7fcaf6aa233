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


def test_a_session_or_branch_that_does_not_exist_is_a_usage_error(db: Path) -> None:
    assert run("compare", db, "nobody", "main", "calm").exit_code == ExitCode.USAGE
    result = run("compare", db, "support-42", "main", "nowhere")
    assert result.exit_code == ExitCode.USAGE
    assert "nowhere" in result.stderr
