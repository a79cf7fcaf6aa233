"""``eventlog retain``: what a retention period deletes and erases, and when."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from agents_eventlog import ConversationLog
from agents_eventlog.adapters.cli.terminal import ExitCode
from agents_eventlog.eventlog import ItemsAdded
from tests.adapters.looking import documents, one, run, user
from tests.engines import stored

if TYPE_CHECKING:
    from pathlib import Path

DAY = 86_400_000_000
PERIOD = ("--delete-after", "90d", "--erase-after", "30d")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A session used now, one unused for 100 days, one deleted for 10 days, one for 40 days."""
    path = tmp_path / "log.db"

    async def fill() -> None:
        async with ConversationLog.open(path) as log:
            clock = log.store.clock
            ages = {"used": (0, None), "unused": (100, None), "kept": (95, 10), "due": (95, 40)}
            for session_id, (used, deleted) in ages.items():
                log.store.clock = lambda: clock() - used * DAY  # noqa: B023
                await log.append(session_id, ItemsAdded(items=[user(f"text of {session_id}")]))
                if deleted is not None:
                    log.store.clock = lambda: clock() - deleted * DAY  # noqa: B023
                    await log.delete_session(session_id)
            log.store.clock = clock

    asyncio.run(fill())
    return path


def sessions(path: Path, *options: str) -> set[Any]:
    return {row["session_id"] for row in documents(run("sessions", path, *options, "--json"))}


def test_without_yes_it_only_shows_what_would_happen(path: Path) -> None:
    before = sessions(path), sessions(path, "--deleted")
    result = run("retain", path, *PERIOD, "--json")
    assert result.exit_code == ExitCode.CLEAN
    assert [row["session_id"] for row in documents(result, "session")] == ["unused"]
    assert one(result, "receipt")["dry_run"]
    erased = one(result, "erased")
    assert (erased["sessions"], erased["dry_run"]) == (1, True)
    assert (sessions(path), sessions(path, "--deleted")) == before
    assert b"text of due" in stored(path)


def test_unused_sessions_are_deleted_and_those_deleted_long_ago_are_erased(path: Path) -> None:
    result = run("retain", path, *PERIOD, "--yes", "--reason", "policy")
    assert result.exit_code == ExitCode.CLEAN
    assert result.stdout.startswith("unused\ndeleted 1 session, 1 item")
    assert "erased the content of 1 event" in result.stdout
    assert sessions(path) == {"used"}
    content = stored(path)
    assert b"text of due" not in content
    assert b"text of kept" in content
    assert b"text of unused" in content
    assert "policy" in run("audit", path, "--session", "unused").stdout


def test_each_half_can_be_left_out(path: Path) -> None:
    assert documents(run("retain", path, "--erase-after", "30d", "--json"), "receipt") == []
    assert documents(run("retain", path, "--delete-after", "90d", "--json"), "erased") == []


@pytest.mark.parametrize("options", [(), ("--delete-after", "soon"), ("--erase-after", "-1d")])
def test_a_period_that_says_nothing_is_wrong_usage(path: Path, options: tuple[str, ...]) -> None:
    assert run("retain", path, *options, "--yes").exit_code == ExitCode.USAGE
