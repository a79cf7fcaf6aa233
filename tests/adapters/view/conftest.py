"""Fixtures of the pages' tests: a log with one conversation, and a browser that has the key."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from agents_eventlog import ConversationLog
from tests.adapters.view.asking import reader
from tests.adapters.view.conversation import talk

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    import httpx


@pytest.fixture
async def path(tmp_path: Path) -> Path:
    """A log with one conversation."""
    path = tmp_path / "log.db"
    await talk(path)
    return path


@pytest.fixture
async def browser(path: Path) -> AsyncIterator[httpx.AsyncClient]:
    """A browser that has the key."""
    async with ConversationLog.open(path, read_only=True) as log:
        yield reader(log)
