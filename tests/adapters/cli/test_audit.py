"""``eventlog audit``: what happened, in words, and what became of it."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given

from agents_eventlog.adapters.cli.terminal import ExitCode
from agents_eventlog.adapters.conversations.audit_trail import Histories
from agents_eventlog.eventlog import (
    BranchCreated,
    BranchDeleted,
    ContentErased,
    ItemPopped,
    ItemRef,
    ItemsAdded,
    ItemsReplaced,
    MetadataSet,
    RequestUsage,
    SessionCleared,
    SessionDeleted,
    UsageRecorded,
)
from agents_eventlog.eventlog.events import HistoryImported
from agents_eventlog.projections.reference import fold
from tests.adapters.cli.processes import COMMAND
from tests.adapters.looking import (
    answer,
    call,
    change,
    documents,
    one,
    output,
    run,
    tampered,
    user,
    write,
)
from tests.properties.profiles import examples
from tests.properties.strategies import histories

if TYPE_CHECKING:
    from pathlib import Path

    from agents_eventlog.eventlog import RecordedEvent


def events(*arguments: object) -> list[dict[str, Any]]:
    result = run("audit", *arguments, "--json")
    assert result.exit_code == ExitCode.CLEAN, result.stderr
    return documents(result, "event")


def positions(*arguments: object) -> list[int]:
    return [event["position"] for event in events(*arguments)]


def accounts(*arguments: object) -> list[str]:
    return [event["account"] for event in events(*arguments)]


def gone(*arguments: object) -> dict[tuple[int, int], tuple[str, int]]:
    return {
        (event["position"], index): (item["gone"], item["gone_at"])
        for event in events(*arguments)
        for index, item in enumerate(event["items"])
        if item["gone"] is not None
    }


# -- what is told ---------------------------------------------------------------------------------


def test_each_event_is_told_in_domain_words(db: Path) -> None:
    assert accounts(db) == [
        "added 4 items",
        "added 2 items",
        "popped #6 assistant: 'no'",
        "branched 'calm' from main before turn 2",
        "added 2 items",
        "switched from calm to main",
        "branched 'draft' from main at its end",
        "added",
        "switched from draft to main",
        "deleted branch 'draft' with 6 items",
    ]


def test_clearing_deleting_replacing_labels_usage_and_imports_are_told_with_numbers(
    path: Path,
) -> None:
    used = [RequestUsage(total_tokens=1_000, cost_usd=0.003), RequestUsage(total_tokens=204)]
    created = BranchCreated(branch_id="b", from_branch_id="main", last_item=ItemRef(2, 1))
    write(
        path,
        [
            ("s", None, HistoryImported(source="elsewhere", counts={"items": 2})),
            ("s", "main", ItemsAdded(items=[user("1"), answer("2"), user("3")])),
            ("s", "main", UsageRecorded(run_id="r", turn=1, requests=used)),
            ("s", "main", created),
            ("s", "main", ItemsReplaced(first_item=ItemRef(2, 1), items=[answer("short")])),
            ("s", None, MetadataSet(user_id="u", metadata={"plan": "free"})),
            ("s", None, SessionCleared()),
            ("s", "main", ItemsAdded(items=[user("again")])),
            ("s", None, ContentErased(positions=[8], reason="asked")),
            ("s", None, SessionDeleted(reason="done")),
        ],
    )
    assert accounts(path) == [
        "imported from elsewhere: 2 items",
        "added 3 items",
        "recorded 2 requests, 1,204 tokens, $0.003000",
        "branched 'b' from main at its end",
        "replaced 2 items by 1",
        "set user id 'u'; metadata plan",
        "cleared 3 items on 2 branches",
        "added",
        "erased the content of 1 event: asked",
        "deleted the session with 1 item: done",
    ]


def test_items_in_no_branch_any_more_are_marked_and_shared_ones_are_not(db: Path) -> None:
    assert gone(db) == {(2, 1): ("popped", 3), (8, 0): ("deleted", 10)}
    text = " ".join(run("audit", db).stdout.split())
    assert text.count("(popped at 3)") == 1
    assert text.count("(deleted at 10)") == 1


def test_cleared_and_replaced_items_are_marked(path: Path) -> None:
    write(
        path,
        [
            ("s", "main", ItemsAdded(items=[user("1"), answer("2")])),
            ("s", "main", ItemsReplaced(first_item=ItemRef(1, 1), items=[answer("short")])),
            ("s", None, SessionCleared()),
            ("s", "main", ItemsAdded(items=[user("again")])),
        ],
    )
    assert gone(path) == {
        (1, 0): ("cleared", 3),
        (1, 1): ("replaced", 2),
        (2, 0): ("cleared", 3),
    }


def test_an_erased_event_is_marked(db: Path) -> None:
    change(db, "UPDATE events SET data = NULL WHERE position = 2")
    result = run("audit", db, "--json")
    assert result.exit_code == ExitCode.CLEAN  # erasing leaves the chain whole
    erased = documents(result, "event")[1]
    assert (erased["state"], erased["items"]) == ("erased", [])
    assert erased["account"] == "items_added: its content was erased"
    assert "popped an item" in accounts(db)


@given(histories())
@examples(80)
def test_every_item_either_stands_on_a_branch_or_is_marked(history: list[RecordedEvent]) -> None:
    known = Histories()
    for recorded in history:
        known.follow(recorded)
    state = fold(history)
    for session_id, paths in known.paths.items():
        session = state.sessions.get(session_id)
        if session is None or session.deleted_at is not None or session.erased_at is not None:
            continue
        had = {node.ref for node in paths.nodes[1:]}
        marked = {ref for ref in had if paths.removal(ref) is not None}
        live = {item.ref for branch in session.branches.values() for item in branch.items}
        assert had - marked == live


def test_who_did_it_and_under_which_trace_is_told(db: Path) -> None:
    first, *_, last = events(db)
    assert (first["actor"], first["trace_id"]) == ("alice", "trace-1")
    assert (last["actor"], last["trace_id"]) == ("bob", None)
    assert "by alice" in run("audit", db).stdout


def test_documents_have_stable_fields(db: Path) -> None:
    result = run("audit", db, "--json")
    assert {tuple(event) for event in documents(result, "event")} == {
        (
            "kind",
            "position",
            "session_id",
            "version",
            "branch_id",
            "type",
            "occurred_at",
            "recorded_at",
            "actor",
            "trace_id",
            "account",
            "state",
            "data",
            "popped",
            "items",
        )
    }
    assert documents(result)[-1]["kind"] == "integrity"


# -- which of it ----------------------------------------------------------------------------------


def test_only_what_was_asked_for_is_told(db: Path) -> None:
    write(db, [("other", "main", ItemsAdded(items=[user("hey")]))], actor="carol")
    assert positions(db, "--session", "other") == [11]
    assert positions(db, "--branch", "draft") == [7, 8, 9, 10]
    assert positions(db, "--actor", "alice") == [1, 2]
    assert positions(db, "--type", "branch_created", "--type", "item_popped") == [3, 4, 7]
    assert positions(db, "--limit", 3) == [9, 10, 11]
    assert positions(db, "--limit", 2, "--actor", "bob", "--session", "support-42") == [9, 10]
    assert positions(db, "--limit", 0) == []


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (["--session", "nobody"], "session 'nobody' does not exist"),
        (["--branch", "never"], "Branch 'never' does not exist"),
        (["--session", "other", "--branch", "calm"], "Branch 'calm' does not exist"),
        (["--session", "nobody", "--branch", "calm"], "session 'nobody' does not exist"),
    ],
)
def test_a_session_or_branch_that_never_was_is_said_not_to_be_there(
    db: Path, options: list[str], problem: str
) -> None:
    write(db, [("other", "main", ItemsAdded(items=[user("hey")]))])
    result = run("audit", db, *options)
    assert (result.exit_code, result.stdout) == (ExitCode.USAGE, "")
    assert result.stderr == f"error: {problem}\n"


def test_a_branch_that_was_only_made_or_is_deleted_was_there(path: Path) -> None:
    write(
        path,
        [
            ("s", "main", ItemsAdded(items=[user("hey")])),
            ("s", "main", BranchCreated(branch_id="b", from_branch_id="main", last_item=None)),
        ],
    )
    assert positions(path, "--branch", "b") == [2]
    write(path, [("s", "main", BranchDeleted(branch_id="b"))])
    assert positions(path, "--session", "s", "--branch", "b") == [2, 3]


def test_marks_are_the_same_however_few_events_are_asked_for(db: Path) -> None:
    assert gone(db, "--limit", 1, "--type", "items_added", "--branch", "draft") == {
        (8, 0): ("deleted", 10)
    }
    assert accounts(db, "--type", "item_popped") == ["popped #6 assistant: 'no'"]


def imported(path: Path, *days: int) -> None:
    """Hold events that happened on days of November 2026, at noon UTC."""
    for day in days:
        noon = 1_793_534_400_000_000 + (day - 1) * 86_400_000_000
        write(path, [("s", "main", ItemsAdded(items=[user(f"on {day}")]))], occurred_at=noon)


def test_times_are_when_it_happened_and_a_day_counts_whole(path: Path) -> None:
    imported(path, 3, 4, 5)
    assert [event["occurred_at"][:16] for event in events(path)] == [
        "2026-11-03T12:00",
        "2026-11-04T12:00",
        "2026-11-05T12:00",
    ]
    assert positions(path, "--since", "2026-11-04", "--until", "2026-11-04") == [2]
    assert positions(path, "--since", "2026-11-04T12:00:00") == [2, 3]
    assert positions(path, "--until", "2026-11-04T12:00:00") == [1]
    assert positions(path, "--since", "2026-11-04T13:30:00+01:00") == [3]
    assert "2026-11-04 UTC" in run("audit", path).stdout


@pytest.mark.parametrize(
    "options",
    [
        ["--type", "item_poped"],
        ["--since", "last week"],
        ["--until", "2026-13-01"],
        ["--limit", "-1"],
        ["--limit", "x"],
    ],
)
def test_what_is_not_understood_exits_with_2(db: Path, options: list[str]) -> None:
    result = run("audit", db, *options)
    assert (result.exit_code, result.stdout) == (ExitCode.USAGE, "")


def test_each_day_has_one_heading_however_many_events_it_has(path: Path) -> None:
    write(path, [("s", "main", ItemsAdded(items=[user("hi")]))] * 250, occurred_at=0)
    write(path, [("s", "main", ItemsAdded(items=[user("hi")]))] * 2, occurred_at=86_400_000_000)
    lines = run("audit", path).stdout.splitlines()
    assert [line for line in lines if line.endswith("UTC")] == ["1970-01-01 UTC", "1970-01-02 UTC"]
    assert len(lines) == 2 + 252 + 1


# -- whether it is true -----------------------------------------------------------------------------


def test_it_ends_with_the_head_that_verify_prints(db: Path) -> None:
    head = run("verify", db, "--head").stdout.strip()
    assert run("audit", db).stdout.splitlines()[-1] == f"chain verified up to {head}"


def test_a_changed_event_is_named_and_exits_with_1(db: Path) -> None:
    tampered(db, "UPDATE events SET recorded_at = 5 WHERE position = 4")
    result = run("audit", db, "--limit", 1)
    assert result.exit_code == ExitCode.FINDINGS
    assert result.stdout.splitlines()[-1].startswith("the chain is broken: event 4: ")
    integrity = one(run("audit", db, "--json"), "integrity")
    assert (integrity["ok"], integrity["first_bad_position"]) == (False, 4)


def test_of_one_session_only_its_events_are_verified(db: Path) -> None:
    write(db, [("other", "main", ItemsAdded(items=[user("hey")]))])
    tampered(db, "UPDATE events SET recorded_at = 5 WHERE position = 4")
    spoilt = run("audit", db, "--session", "support-42")
    assert spoilt.exit_code == ExitCode.FINDINGS
    assert spoilt.stdout.splitlines()[-1].startswith("the chain is broken: event 4: ")
    result = run("audit", db, "--session", "other", "--json")
    assert result.exit_code == ExitCode.CLEAN
    integrity = one(result, "integrity")
    assert (integrity["session_id"], integrity["events"]) == ("other", 1)
    head = integrity["head"]
    assert head["position"] == 11
    last = run("audit", db, "--session", "other").stdout.splitlines()[-1]
    assert last == f"session verified up to 11:{head['digest']}"


@pytest.mark.parametrize("data", ['{"items": 5}', "", "nonsense"])
def test_an_event_that_cannot_be_read_is_told_as_such(db: Path, data: str) -> None:
    tampered(db, ("UPDATE events SET data = ? WHERE position = 5", (data,)))
    result = run("audit", db, "--json")
    assert result.exit_code == ExitCode.FINDINGS
    assert [event["state"] for event in documents(result, "event")].count("unreadable") == 1
    assert "its content cannot be read" in " ".join(run("audit", db).stdout.split())


@pytest.mark.parametrize("metadata", ["{", "5", '{"actor": {"name": "x"}, "occurred_at": "?"}'])
def test_metadata_of_any_kind_is_no_obstacle(db: Path, metadata: str) -> None:
    tampered(db, ("UPDATE events SET metadata = ? WHERE position = 5", (metadata,)))
    result = run("audit", db, "--json")
    assert result.exit_code == ExitCode.FINDINGS
    assert len(documents(result, "event")) == 10
    assert run("audit", db, "--actor", "alice", "--branch", "calm").exit_code == ExitCode.FINDINGS


def test_text_that_is_not_utf_8_ends_the_timeline_and_is_named(db: Path) -> None:
    tampered(db, "UPDATE events SET branch_id = CAST(x'ff' AS TEXT) WHERE position = 5")
    result = run("audit", db)
    assert result.exit_code == ExitCode.FINDINGS
    assert "the timeline stops here" in result.stdout
    assert "event 5" in result.stdout
    assert result.stderr == ""


# -- following --------------------------------------------------------------------------------------


def test_following_waits_for_a_session_that_is_not_there_yet(db: Path) -> None:
    child = subprocess.Popen(
        [*COMMAND, "audit", str(db), "--follow", "--json", "--session", "new", "--branch", "b"],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert child.stdout is not None
        assert json.loads(child.stdout.readline())["kind"] == "integrity"
        write(db, [("new", "b", ItemsAdded(items=[user("hey")]))])
        assert json.loads(child.stdout.readline())["session_id"] == "new"
    finally:
        child.send_signal(2)
        child.communicate(timeout=30)


def test_following_goes_on_with_what_others_write(db: Path) -> None:
    child = subprocess.Popen(
        [*COMMAND, "audit", str(db), "--follow", "--json", "--limit", "1"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert child.stdout is not None
        assert json.loads(child.stdout.readline())["position"] == 10
        assert json.loads(child.stdout.readline())["kind"] == "integrity"
        for number in range(3):
            write(db, [("new", "main", ItemsAdded(items=[user(f"line {number}")]))])
            event = json.loads(child.stdout.readline())
            assert event["position"] == 11 + number
            assert event["items"][0]["account"] == f"user: 'line {number}'"
    finally:
        child.send_signal(2)
        _, stderr = child.communicate(timeout=30)
    assert (child.returncode, stderr) == (ExitCode.INTERRUPTED, "")


def test_full_prints_every_item_and_complete_texts(path: Path) -> None:
    long = "word " * 100 + "end"
    items = [user(long), *(answer(f"answer {number}") for number in range(9))]
    odd = {"type": "reasoning", "summary": [{"text": "because"}]}
    write(path, [("s", "main", ItemsAdded(items=[*items, odd, "plain"]))])
    write(path, [("s", "main", ItemPopped(item=ItemRef(1, 11)))])
    short = " ".join(run("audit", path).stdout.split())
    assert "and 9 more" in short
    assert "end'" not in short
    full = " ".join(run("audit", path, "--full").stdout.split())
    assert "word end'" in full
    assert "answer 8" in full
    assert "because" in full
    assert " more" not in full


def test_documents_hold_complete_contents(db: Path) -> None:
    contents = {event["position"]: event["data"] for event in events(db)}
    assert contents[1]["items"] == [user("hello"), call("c1"), output("c1"), answer("hi")]
    popped = {event["position"]: event["popped"] for event in events(db) if event["popped"]}
    assert popped == {3: answer("no")}
    assert run("erase", db, "--session", "support-42", "--yes").exit_code == ExitCode.CLEAN
    assert events(db)[0]["data"] is None
    assert all(event["popped"] is None for event in events(db))
