"""What all commands say alike about the session that they are asked about."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from agents_eventlog.adapters.cli.terminal import ExitCode
from agents_eventlog.eventlog import (
    ItemsAdded,
    RequestUsage,
    SessionDeleted,
    UsageRecorded,
)
from tests.adapters.looking import one, run, user, write

if TYPE_CHECKING:
    from pathlib import Path

ASKING = {
    "show": ("{}",),
    "branches": ("{}",),
    "restore": ("{}",),
    **dict.fromkeys(
        ("audit", "erase", "export", "usage", "reprice", "search", "tools"), ("--session", "{}")
    ),
}


@pytest.mark.parametrize("name", ASKING)
def test_a_session_that_never_was_is_wrong_usage(db: Path, name: str) -> None:
    result = run(name, db, *(word.format("nobody") for word in ASKING[name]))
    assert (result.exit_code, result.stdout) == (ExitCode.USAGE, "")
    assert result.stderr == "error: session 'nobody' does not exist\n"


@pytest.mark.parametrize("name", ASKING)
def test_an_id_that_is_no_text_is_one_of_no_session(db: Path, name: str) -> None:
    result = run(name, db, *(word.format("\udcff") for word in ASKING[name]))
    assert (result.exit_code, result.stdout) == (ExitCode.USAGE, "")
    assert result.stderr == "error: session '\\udcff' does not exist\n"


def test_a_deleted_session_can_be_asked_about(path: Path) -> None:
    used = UsageRecorded(run_id="r", turn=1, requests=[RequestUsage(total_tokens=7)])
    said = ItemsAdded(items=[user("hello")])
    write(path, [("s", "main", said), ("s", "main", used), ("s", None, SessionDeleted())])
    for name in ASKING.keys() - {"restore", "erase"}:
        result = run(name, path, *(word.format("s") for word in ASKING[name]))
        assert result.exit_code == ExitCode.CLEAN, result.stderr
    assert one(run("usage", path, "--session", "s", "--json"), "total")["total_tokens"] == 7
