"""``eventlog expire``: which sessions it clears and erases, and when."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from agents_eventlog import ConversationLog, EventLogSession
from agents_eventlog.adapters.cli.terminal import ExitCode
from tests.adapters.looking import documents, one, run, user
from tests.engines import stored

if TYPE_CHECKING:
    from pathlib import Path

DAY = 86_400_000_000


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Sessions that were used 0, 31 and 60 days ago, and expire after 30; one that never does."""
    path = tmp_path / "log.db"

    async def fill() -> None:
        async with ConversationLog.open(path) as log:
            clock = log.store.clock
            for session_id, age in {"used": 0, "expired": 31, "long ago": 60, "never": 60}.items():
                log.store.clock = lambda: clock() - age * DAY  # noqa: B023
                expires_after = None if session_id == "never" else timedelta(days=30)
                session = EventLogSession(session_id, log, expires_after=expires_after)
                await session.add_items([user(f"text of {session_id}")])
            log.store.clock = clock

    asyncio.run(fill())
    return path


def items(path: Path) -> dict[str, int]:
    rows = documents(run("sessions", path, "--json"))
    return {row["session_id"]: row["item_count"] for row in rows}


def test_without_yes_it_only_shows_what_would_happen(path: Path) -> None:
    erased = one(run("expire", path, "--json"), "erased")
    assert (erased["sessions"], erased["events"], erased["dry_run"]) == (2, 2, True)
    assert b"text of long ago" in stored(path)


def test_what_expired_is_erased_and_every_session_stays(path: Path) -> None:
    before = items(path)
    assert before == {"used": 1, "expired": 0, "long ago": 0, "never": 1}
    result = run("expire", path, "--yes", "--reason", "policy", "--actor", "cron")
    assert result.exit_code == ExitCode.CLEAN
    assert result.stdout.startswith("erased the content of 2 events")
    content = stored(path)
    assert [text in content for text in (b"text of expired", b"text of long ago")] == [False] * 2
    assert [text in content for text in (b"text of used", b"text of never")] == [True] * 2
    assert items(path) == before
    told = " ".join(run("audit", path, "--session", "expired").stdout.split())
    assert "the session had expired" in told
    assert "policy" in told
    assert run("expire", path, "--yes").stdout == "nothing to erase\n"


def test_what_expired_lately_can_be_left_out(path: Path) -> None:
    result = run("expire", path, "--older-than", "7d", "--yes")
    assert result.exit_code == ExitCode.CLEAN
    assert b"text of expired" in stored(path)
    assert b"text of long ago" not in stored(path)


def test_an_expired_session_is_shown_as_cleared(path: Path) -> None:
    assert "text of used" in run("show", path, "used").stdout
    assert "text of" not in run("show", path, "expired").stdout


def test_an_age_that_says_nothing_is_wrong_usage(path: Path) -> None:
    assert run("expire", path, "--older-than", "soon").exit_code == ExitCode.USAGE
