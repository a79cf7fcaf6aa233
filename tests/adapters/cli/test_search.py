"""``eventlog search``: where something was said, for people and programs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from agents_eventlog.adapters.cli.terminal import ExitCode
from agents_eventlog.eventlog import ItemsAdded, MetadataSet, SessionCleared, SessionDeleted
from tests.adapters.looking import answer, documents, one, run, user, write

if TYPE_CHECKING:
    from pathlib import Path


def test_it_shows_where_something_was_said_and_how_it_was_found(db: Path) -> None:
    shown = run("search", db, "REFUND")
    assert shown.exit_code == ExitCode.CLEAN
    lines = [line.rstrip() for line in shown.stdout.splitlines()]
    assert lines[0].startswith("support-42  calm  turn 2  20")
    assert lines[1:2] == ["  please refund me"]
    assert lines[2].startswith("support-42  main  turn 2  20")
    assert lines[3:] == ["  refund me"]
    assert shown.stderr == (
        "scanned 10 events (eventlog search --index builds or updates the full-text index)\n"
    )


def test_no_index_is_advised_where_none_helps(db: Path) -> None:
    assert run("search", db, "re").stderr == run("search", db).stderr == "scanned 10 events\n"


def test_an_index_is_built_when_it_is_asked_for_and_then_used(db: Path) -> None:
    built = run("search", db, "--index")
    assert (built.exit_code, built.stdout, built.stderr) == (ExitCode.CLEAN, "", "")
    found = run("search", db, "refund")
    assert len(found.stdout.splitlines()) == 4
    assert found.stderr == ""
    assert run("verify", db).exit_code == ExitCode.CLEAN


def test_an_index_that_is_behind_is_used_as_far_as_it_goes(db: Path) -> None:
    run("search", db, "--index")
    write(db, [("later", "main", ItemsAdded(items=[user("a refund")]))])
    found = run("search", db, "refund")
    assert len(found.stdout.splitlines()) == 6
    assert found.stderr == (
        "scanned 1 event (eventlog search --index builds or updates the full-text index)\n"
    )
    assert run("verify", db).exit_code == ExitCode.CLEAN
    assert run("replay", db, "--check").exit_code == ExitCode.CLEAN
    doctor = documents(run("doctor", db, "--json"), "note")
    assert any("full-text index shows the log up to" in each["problem"] for each in doctor)
    assert run("search", db, "refund", "--index").stderr == ""


def test_programs_get_a_document_a_hit_and_one_about_the_find(db: Path) -> None:
    result = run("search", db, "refund", "--json", "--limit", 1)
    item = one(result, "item")
    assert (item["session_id"], item["branch_ids"], item["turn"]) == ("support-42", ["calm"], 2)
    assert (item["item"], item["occurred_at"][-1]) == (user("please refund me"), "Z")
    searched = one(result, "searched")
    assert searched == {
        "kind": "searched",
        "items": 1,
        "indexed": False,
        "scanned": 10,
        "after": item["cursor"],
    }
    rest = run("search", db, "refund", "--json", "--after", item["cursor"])
    assert one(rest, "item")["item"] == user("refund me")
    assert one(rest, "searched")["after"] is None


def test_that_there_are_more_is_said(db: Path) -> None:
    assert "next page: --after " in run("search", db, "refund", "--limit", 1).stderr
    assert "next page" not in run("search", db, "refund", "--limit", 2).stderr


def test_options_leave_what_matches_all_of_them(db: Path) -> None:
    def count(*options: object) -> int:
        return len(documents(run("search", db, *options, "--json"), "item"))

    assert count() == 7
    assert count("--type", "function_call") == count("--tool", "look_up") == 1
    assert count("--role", "user") == 3
    assert count("--branch", "calm") == 6
    assert count("--session", "support-42") == 7
    assert count("--session", "nobody's") == count("--user", "nobody") == 0
    assert count("--since", "2020-01-01", "--until", "2200-01-01") == 7
    assert count("--since", "2200-01-01") == count("--until", "2020-01-01") == 0


@pytest.mark.parametrize("wrong", [["--since", "soon"], ["--after", "x"], ["--limit", "-1"]])
def test_wrong_usage_is_told(db: Path, wrong: list[str]) -> None:
    result = run("search", db, "x", *wrong)
    assert result.exit_code == ExitCode.USAGE
    assert result.stderr


def test_a_missing_file_is_told_and_not_made(tmp_path: Path) -> None:
    for options in ([], ["--index"]):
        result = run("search", tmp_path / "none.db", "x", *options)
        assert result.exit_code == ExitCode.CANNOT_OPEN
    assert list(tmp_path.iterdir()) == []


def test_terminal_escapes_are_shown_and_not_obeyed(tmp_path: Path) -> None:
    path = tmp_path / "talk.db"
    write(path, [("s\x1b[2J", "main", ItemsAdded(items=[user("a\x1b]0;refund\x07\nb")]))])
    shown = run("search", path, "refund").stdout
    assert "\x1b" not in shown
    assert "a\\x1b]0;refund\\x07 b" in shown


def test_nothing_found_prints_nothing(db: Path) -> None:
    result = run("search", db, "never said")
    assert (result.exit_code, result.stdout) == (ExitCode.CLEAN, "")


@pytest.mark.parametrize("indexed", [False, True])
def test_all_finds_what_was_popped_cleared_or_deleted(db: Path, indexed: bool) -> None:
    write(
        db,
        [
            ("cleared", "main", ItemsAdded(items=[user("no refund")])),
            ("cleared", None, SessionCleared()),
            ("deleted", "main", ItemsAdded(items=[user("my refund")])),
            ("deleted", None, MetadataSet(user_id="alice")),
            ("deleted", None, SessionDeleted()),
        ],
    )
    if indexed:
        run("search", db, "--index")
    active = documents(run("search", db, "refund", "--json"), "item")
    found = documents(run("search", db, "refund", "--removed", "--json"), "item")
    assert [each for each in found if each["is_active"]] == active
    assert [
        (each["session_id"], each["added_on"], each["branch_ids"], each["turn"])
        for each in found
        if not each["is_active"]
    ] == [("deleted", "main", ["main"], 1), ("cleared", "main", [], None)]
    (popped,) = documents(
        run("search", db, "no", "--removed", "--role", "assistant", "--json"), "item"
    )
    assert (popped["item"], popped["turn"], popped["is_active"]) == (answer("no"), None, False)
    (draft,) = documents(
        run("search", db, "draft", "--removed", "--branch", "draft", "--json"), "item"
    )
    assert draft["added_on"] == "draft"
    (of_user,) = documents(run("search", db, "--removed", "--user", "alice", "--json"), "item")
    assert of_user["session_id"] == "deleted"
    assert documents(run("search", db, "--user", "alice", "--json"), "item") == []
    shown = run("search", db, "refund", "--removed").stdout
    assert "deleted  main  session deleted  turn 1" in shown
    assert "cleared  main  removed  20" in shown
