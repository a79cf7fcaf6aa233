"""Fixtures: a log on each engine, plain and sealed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from agents_eventlog import ConversationLog, generate_root_key

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


@pytest.fixture(params=["sqlite", "postgres", "sealed", "sealed postgres"])
def where(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path | str:
    """The path or URL of a new log, plain or sealed."""
    if "sealed" in request.param:
        monkeypatch.setenv("EVENTLOG_KEYS", str(tmp_path / "keys.db"))
        monkeypatch.setenv("EVENTLOG_KEY", generate_root_key())
    if "postgres" in request.param:
        url: str = request.getfixturevalue("server").url()
        return url
    return tmp_path / "talk.db"


@pytest.fixture
async def log(where: Path | str) -> AsyncIterator[ConversationLog]:
    """A new log."""
    async with ConversationLog.open(where) as opened:
        yield opened
