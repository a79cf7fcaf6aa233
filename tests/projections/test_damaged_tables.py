"""Tables that are not as the builder made them: reading says so, and a replay mends them."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from agents_eventlog import AdvancedSQLiteSession, ConversationLog, projections
from agents_eventlog.adapters.conversations import tools
from agents_eventlog.eventlog import EventLog
from agents_eventlog.eventlog.errors import CorruptFileError, ProjectionError
from agents_eventlog.projections.conversations import queries as conversation_queries
from agents_eventlog.projections.erasure import scopes
from tests.fuzz.damage import put_impossible

if TYPE_CHECKING:
    from agents.items import TResponseInputItem

    from agents_eventlog.eventlog import Transaction

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


@pytest.mark.parametrize("parent", ["segment_id", "segment_id + 1"])
async def test_segments_that_go_round_are_told_and_mended_by_a_replay(
    path: Path, parent: str
) -> None:
    session = opened(path)
    await session.create_branch_from_turn(3, "other")
    await session.add_items(ITEMS)
    session.log.close()
    with closing(sqlite3.connect(path)) as connection, connection:
        changed = connection.execute(
            f"UPDATE segments SET parent_segment_id = {parent} WHERE parent_segment_id IS NOT NULL"
        )
        assert changed.rowcount == 1

    session = AdvancedSQLiteSession("s", path, branch_id="other")
    problem = r"^segment \d+ has a parent that is not older: `eventlog replay` rebuilds the tables$"
    with pytest.raises(ProjectionError, match=problem) as told:
        await session.get_items()
    assert told.value.projection == "conversations"
    with pytest.raises(ProjectionError, match=problem):
        await session.find_items()
    async with EventLog.open(path, projections=projections.default()) as log:
        projections.replay(log, projections.default().named([]))
    assert await session.get_items() == ITEMS[:2] + ITEMS
    session.log.close()


async def test_sessions_that_come_out_of_order_are_not_gone_through_for_ever(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    again = "SELECT session_id, user_id FROM sessions WHERE ? IS NOT NULL LIMIT ?"
    monkeypatch.setattr(scopes, "PAGE_SESSIONS", 1)
    monkeypatch.setattr(scopes, "NEXT_SESSIONS", again.replace(", user_id", ""))
    monkeypatch.setattr(tools, "SESSIONS_AT_ONCE", 1)
    monkeypatch.setattr(conversation_queries, "OWNERS", again)
    async with ConversationLog.open(path) as log:
        for ask in (lambda: log.erase(popped=True), log.tools):
            with pytest.raises(CorruptFileError, match="the rows after 's' are out of order"):
                await ask()


@pytest.mark.parametrize(
    ("table", "assignment", "problem"),
    [
        ("sessions", "turn_count = NULL", "NULL value in sessions.turn_count"),
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
