"""Fixtures: a log on a file, whose clock the test sets."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from agents_eventlog.eventlog import EventLog
from tests.eventlog.noting import TABLE
from tests.history import START

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


class Clock:
    """A clock that moves on by a second each time it is asked."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> int:
        self.now += 1_000_000
        return self.now


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the log is."""
    return tmp_path / "log.db"


@pytest.fixture
async def log(path: Path) -> AsyncIterator[EventLog]:
    """A log without projections, each of whose transactions takes place a second or more later."""
    async with EventLog.open(path, durability="normal") as opened:
        opened.store.clock = Clock()
        yield opened


@pytest.fixture
def notes(log: EventLog) -> EventLog:
    """A log in whose file stands one more table, for units of work to write to."""
    log.store.write_sync(lambda tx: tx.all(TABLE))
    return log
