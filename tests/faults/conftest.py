"""Fixtures: a path, and sessions on it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from agents_eventlog import AdvancedSQLiteSession
from agents_eventlog.eventlog.storage import registry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return where a file may be made."""
    return tmp_path / "conversations.db"


@pytest.fixture
def opened(path: Path) -> Iterator[Callable[..., AdvancedSQLiteSession]]:
    """Return a way to open sessions on the path; what the test leaves open is closed after it."""
    made: list[AdvancedSQLiteSession] = []

    def open_session(session_id: str = "s", **options: Any) -> AdvancedSQLiteSession:
        made.append(AdvancedSQLiteSession(session_id, path, **options))
        return made[-1]

    yield open_session
    for session in made:
        session.log.close()


@pytest.fixture(autouse=True)
def _nothing_left_open(tmp_path: Path) -> Iterator[None]:
    """Close what a test's files still have open, so that no test is slowed by another's leavings."""
    yield
    for store in list(registry._all):
        if store.path.startswith(str(tmp_path)):
            store.close()
