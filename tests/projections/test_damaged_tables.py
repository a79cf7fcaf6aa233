"""Tables that are not as the builder made them: reading says so, and a replay mends them."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import projections
from adapters import AdvancedSQLiteSession
from eventlog import EventLog
from eventlog.errors import CorruptFileError, ProjectionError
from tests.fuzz.damage import put_impossible

if TYPE_CHECKING:
    from agents.items import TResponseInputItem

    from eventlog import Transaction

ITEMS: list[TResponseInputItem] = [{"role": "user", "content": text} for text in "abc"]


def opened(path: Path) -> Any:
    return AdvancedSQLiteSession("s", path)


@pytest.fixture
async def path(tmp_path: Path) -> Path:
    """A log with a session of three items, which nobody has open."""
    path = tmp_path / "log.db"
    session = opened(path)
    await session.add_items(ITEMS)
    session.close()
    session.log.close()
    return path


@pytest.mark.parametrize("lost", ["number > 0", "number = 1"])
async def test_items_that_the_tables_lack_are_told_and_come_back_with_a_replay(
    path: Path, lost: str
) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(f"DELETE FROM items WHERE {lost}")

    session = opened(path)
    with pytest.raises(ProjectionError, match="eventlog replay"):
        await session.get_items()
    async with EventLog.open(path, projections=projections.default()) as log:
        projections.replay(log, projections.default().named([]))
    assert await session.get_items() == ITEMS
    session.close()
    session.log.close()


@pytest.mark.parametrize(
    ("table", "assignment", "problem"),
    [
        ("sessions", "cleared_at = NULL", "NULL value in sessions.cleared_at"),
        ("sessions", "item_count = 'x'", "non-INTEGER value in sessions.item_count"),
        ("branches", "turn = NULL", "NULL value in branches.turn"),
    ],
)
async def test_a_value_that_can_never_be_is_told_as_damage(
    path: Path, table: str, assignment: str, problem: str
) -> None:
    put_impossible(path, table, assignment, "session_id = 's'")

    session = opened(path)

    async def go_on() -> None:
        await session.get_items()
        await session.add_items(ITEMS)

    def meet_it(_: Transaction) -> None:
        raise TypeError

    with pytest.raises(CorruptFileError, match=f"is damaged: {problem}"):
        await go_on()
    with pytest.raises(CorruptFileError, match=f"is damaged: {problem}"):
        session.log.store.read_sync(meet_it)
    session.log.close()
