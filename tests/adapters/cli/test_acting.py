"""Who is recorded as having done what a command wrote."""

from __future__ import annotations

import asyncio
import getpass
from typing import TYPE_CHECKING, Any

import pytest

from agents_eventlog.adapters.cli.terminal import ExitCode
from agents_eventlog.eventlog import ItemsAdded, RequestUsage, UsageRecorded
from tests.adapters.looking import documents, run, user, write
from tests.adapters.moving import sdk_file

if TYPE_CHECKING:
    from pathlib import Path

WRITING = {
    "usage_corrected": ("reprice",),
    "session_deleted": ("delete", "--all", "--yes"),
    "session_restored": ("restore", "s"),
    "content_erased": ("erase", "--session", "s", "--yes"),
}
"""A command that writes each type of event, in an order in which all have something to do."""


@pytest.fixture
def db(path: Path) -> Path:
    """A session with a request whose price is known, and not recorded."""
    used = RequestUsage(model="gpt-4o", input_tokens=10, output_tokens=10, total_tokens=20)
    entries: list[Any] = [
        ("s", "main", ItemsAdded(items=[user("hello")])),
        ("s", "main", UsageRecorded(run_id="r", turn=1, requests=[used])),
    ]
    write(path, entries)
    return path


def actors(db: Path, *options: str) -> dict[str, Any]:
    """Run all commands that write events; return who did each, by the type of the event."""
    for name, *rest in WRITING.values():
        result = run(name, db, *rest, *options)
        assert result.exit_code == ExitCode.CLEAN, result.stderr
    types = [word for name in WRITING for word in ("--type", name)]
    return {
        each["type"]: each["actor"]
        for each in documents(run("audit", db, "--json", *types), "event")
    }


def test_whoever_is_logged_in_has_done_what_a_command_writes(
    db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(getpass, "getuser", lambda: "anna")
    assert actors(db) == dict.fromkeys(WRITING, "anna")


def test_another_actor_may_be_named(db: Path) -> None:
    assert actors(db, "--actor", "officer") == dict.fromkeys(WRITING, "officer")


def test_who_takes_over_sessions_of_the_sdk_is_recorded(
    tmp_path: Path, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "sdk.db"
    asyncio.run(sdk_file(source))
    monkeypatch.setattr(getpass, "getuser", lambda: "anna")
    assert run("import", path, source).exit_code == ExitCode.CLEAN
    found = documents(run("audit", path, "--actor", "anna", "--json"), "event")
    assert [each["type"] for each in found] == ["history_imported"] * 2


def test_a_login_without_a_name_is_nobody(db: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def nameless() -> str:
        raise KeyError("getpwuid(): uid not found: 1000")

    monkeypatch.setattr(getpass, "getuser", nameless)
    assert actors(db) == dict.fromkeys(WRITING)
