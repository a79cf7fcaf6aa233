"""Conversation text is data: whatever it holds, a command shows it and never obeys it."""

from __future__ import annotations

import json
import re
import unicodedata
from typing import TYPE_CHECKING, Any

import pytest

from agents_eventlog.eventlog import (
    BranchCreated,
    BranchSwitched,
    ItemPopped,
    ItemRef,
    ItemsAdded,
    MetadataSet,
    RequestUsage,
    SessionDeleted,
    UsageRecorded,
)
from tests.adapters.looking import answer, run, user, write
from tests.engines import change, dump, stored

if TYPE_CHECKING:
    from pathlib import Path

    from agents_eventlog.eventlog import Event

HOSTILE = (
    "\x1b[2J\x1b]0;owned\x07\x9b31m [red]markup[/red] :bomb: \u202egnp.exe\u2066\u2069"
    "\u200e\u061c\r\b\x7f\u2028\u2029"
)
EVIL = f"evil{HOSTILE}"
FORGED = "fine\nchain verified up to 9:00\n     9  00:00:00  main  deleted nothing"
TURNING = set("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
HUGE = 10 * 1024 * 1024

COMMANDS: dict[str, list[str]] = {
    "audit": ["audit"],
    "audit of one": ["audit", "--session", EVIL],
    "show": ["show", EVIL],
    "show turns": ["show", EVIL, "--turns"],
    "show diff": ["show", EVIL, "--diff", "0"],
    "branches": ["branches", EVIL, "--removed"],
    "verify": ["verify"],
    "doctor": ["doctor"],
}


@pytest.fixture
def db(tmp_path: Path) -> Path:
    """A log in which every text is hostile."""
    path = tmp_path / "talk.db"
    call = {"type": "function_call", "name": EVIL, "call_id": EVIL, "arguments": f'{{"{"x"}": 1}}'}
    items: list[Any] = [
        user(f"{EVIL}\0{FORGED}"),
        answer(FORGED),
        call,
        {"type": EVIL, "payload": EVIL},
        {"role": EVIL, "content": EVIL, EVIL: EVIL},
        {"type": "function_call_output", "call_id": "c", "output": f"{EVIL}\ud800"},
    ]
    entries: list[tuple[str, str | None, Event]] = [
        (EVIL, EVIL, ItemsAdded(items=items)),
        (EVIL, EVIL, ItemPopped(item=ItemRef(1, 5))),
        (EVIL, EVIL, MetadataSet(user_id=EVIL, metadata={EVIL: EVIL})),
        (EVIL, EVIL, UsageRecorded(run_id=EVIL, turn=1, requests=[RequestUsage(model=EVIL)])),
        (
            EVIL,
            EVIL,
            BranchCreated(branch_id=FORGED, from_branch_id=EVIL, last_item=ItemRef(1, 2)),
        ),
        (EVIL, FORGED, BranchSwitched(from_branch_id=FORGED, branch_id=EVIL)),
        (f"other {EVIL}", "main", ItemsAdded(items=[user("x")])),
        (f"other {EVIL}", None, SessionDeleted(reason=EVIL)),
    ]
    write(path, entries, actor=EVIL, trace_id=FORGED)
    change(path, f"UPDATE sessions SET user_id = '{EVIL}', turn_count = 9")
    return path


def arguments(command: str, db: Path) -> list[str]:
    name, *rest = COMMANDS[command]
    return [name, str(db), *rest]


def assert_harmless(text: str) -> None:
    for character in text:
        assert character == "\n" or unicodedata.category(character) not in {"Cc", "Zl", "Zp", "Cs"}
        assert character not in TURNING


@pytest.mark.parametrize("command", COMMANDS)
def test_control_characters_are_shown_and_never_obeyed(db: Path, command: str) -> None:
    result = run(*arguments(command, db))
    assert result.exit_code in (0, 1), result.stderr
    assert result.exception is None or isinstance(result.exception, SystemExit)
    assert_harmless(result.stdout)
    assert result.stderr == ""
    assert "evil\\x1b" in result.stdout.replace("\n", "") or command in ("audit of one", "branches")


@pytest.mark.parametrize("command", COMMANDS)
def test_documents_are_one_a_line_in_ascii(db: Path, command: str) -> None:
    result = run(*arguments(command, db), "--json")
    assert result.exit_code in (0, 1), result.stderr
    assert_harmless(result.stdout)
    assert result.stdout.isascii()
    assert all(json.loads(line)["kind"] for line in result.stdout.splitlines())


@pytest.mark.parametrize("command", ["audit", "audit of one", "branches"])
def test_a_line_break_in_a_text_makes_no_line_of_its_own(db: Path, command: str) -> None:
    lines = run(*arguments(command, db)).stdout.splitlines()
    forged = [line for line in lines if re.match(r"(chain|session) verified| {4,8}9 ", line)]
    assert len(forged) == (0 if command == "branches" else 1)


def test_shown_text_stays_in_its_column(db: Path) -> None:
    lines = run("show", db, EVIL).stdout.splitlines()
    assert not [line for line in lines if line.startswith("chain verified")]
    assert [line for line in lines if line.strip().startswith("chain verified")]


@pytest.mark.parametrize("command", ["show", "branches", "audit"])
def test_a_name_that_there_is_not_is_told_on_one_harmless_line(db: Path, command: str) -> None:
    option = {"show": [f"no {EVIL}"], "branches": [f"no {EVIL}"], "audit": ["--type", EVIL]}
    result = run(command, db, *option[command])
    assert result.exit_code == 2
    assert_harmless(result.stderr)
    assert result.stderr.count("\n") == 1


@pytest.mark.timeout(60)
def test_an_item_of_10_megabytes_is_cut_for_people_and_whole_for_programs(tmp_path: Path) -> None:
    path = tmp_path / "huge.db"
    huge = "\x1b" * 100 + "x" * HUGE
    call = {"type": "function_call", "name": "f", "call_id": "c", "arguments": json.dumps([huge])}
    write(
        path,
        [
            ("s", "main", ItemsAdded(items=[user(huge), call])),
            (
                "s",
                "main",
                ItemsAdded(
                    items=[{"type": "function_call_output", "call_id": "c", "output": huge}]
                ),
            ),
        ],
    )
    for command in (["audit"], ["show", "s"], ["show", "s", "--turns"], ["branches", "s"]):
        name, *rest = command
        result = run(name, path, *rest)
        assert result.exit_code == 0, result.stderr
        assert len(result.stdout) < 50_000
        assert_harmless(result.stdout)
    for name in ("verify", "doctor"):
        assert run(name, path).exit_code == 0
    documents = [json.loads(line) for line in run("show", path, "s", "--json").stdout.splitlines()]
    assert documents[1]["item"]["content"] == huge


@pytest.mark.parametrize("command", COMMANDS)
def test_looking_changes_nothing(db: Path, command: str) -> None:
    before = stored(db), dump(db)
    run(*arguments(command, db))
    assert (stored(db), dump(db)) == before
    assert {each.name for each in db.parent.iterdir()} <= {
        db.name,
        f"{db.name}-wal",
        f"{db.name}-shm",
    }
