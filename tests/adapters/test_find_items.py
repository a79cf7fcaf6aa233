"""``find_items`` of session objects and logs: what is asked, and rows as callers get them."""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import pytest

from agents_eventlog import AdvancedSQLiteSession, ConversationLog
from agents_eventlog.eventlog.errors import InvalidQueryError
from tests.adapters.looking import answer, call, output, user

if TYPE_CHECKING:
    from pathlib import Path

    from agents_eventlog.adapters.conversations.item_search import SearchResults


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "log.db"


async def talk(session_id: str, path: Path, *items: Any, **values: Any) -> AdvancedSQLiteSession:
    session = AdvancedSQLiteSession(session_id, path, durability="normal", **values)
    await session.add_items(list(items))
    return session


async def test_a_row_tells_what_was_found_and_where(path: Path) -> None:
    session = await talk("s", path, user("Where is my refund?"), answer("On its way."))
    branch_id = await session.create_branch()
    [found] = await session.find_items("REFUND")
    row: dict[str, Any] = {**found}
    assert row["snippet"][slice(*row["hit"])] == "refund"
    assert (row.pop("cursor"), row.pop("snippet")) != ("", "")
    said_at = datetime.fromisoformat(row.pop("occurred_at")).replace(tzinfo=UTC)
    assert abs(datetime.now(UTC) - said_at) < timedelta(hours=1)
    assert row == {
        "session_id": "s",
        "branch_ids": ["main", branch_id],
        "added_on": "main",
        "is_active": True,
        "turn": 1,
        "position": 1,
        "index": 0,
        "type": "user",
        "role": "user",
        "tool_name": None,
        "item": user("Where is my refund?"),
        "hit": (12, 18),
    }


async def test_a_session_finds_its_own_items_a_log_those_of_all(path: Path) -> None:
    session = await talk("s", path, user("hello"), user_id="alice")
    await talk("t", path, user("hello"), user_id="alice")
    await talk("u", path, user("hello"))

    def of(rows: SearchResults) -> list[str]:
        return sorted(row["session_id"] for row in rows)

    assert of(await session.find_items("hello")) == ["s"]
    assert of(await session.find_items("hello", session_id="t")) == ["t"]
    assert of(await session.find_items("hello", user_id="alice")) == ["s", "t"]
    assert of(await session.log.find_items("hello")) == ["s", "t", "u"]
    async with ConversationLog.open(path, read_only=True) as log:
        assert of(await log.find_items("hello", user_id="alice")) == ["s", "t"]


async def test_turns_are_numbered_as_the_session_numbers_them(path: Path) -> None:
    session = await talk("s", path, user("hello"), first_turn_number=0)
    assert [row["turn"] for row in await session.find_items("hello")] == [0]


async def test_tools_are_found_by_name_and_by_what_they_were_given(path: Path) -> None:
    session = await talk("s", path, user("x"), call("c1", "track"), output("c1", "in Hamburg"))
    [row] = await session.find_items(tool_name="track")
    assert (row["type"], row["tool_name"], row["role"]) == ("function_call", "track", None)
    assert [row["type"] for row in await session.find_items("hamburg")] == ["function_call_output"]


async def test_times_are_of_any_zone_and_utc_without(path: Path) -> None:
    session = await talk("s", path, user("hello"))
    now = datetime.now(UTC)
    east = now.astimezone(timezone(timedelta(hours=9)))
    hour = timedelta(hours=1)
    for time in (now, east, now.replace(tzinfo=None)):
        assert len(await session.find_items(since=time - hour, until=time + hour)) == 1
        assert not await session.find_items(since=time + hour)
        assert not await session.find_items(until=time - hour)


async def test_the_result_says_whether_the_index_was_asked(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="eventlog.search")
    session = await talk("s", path, user("hello"), answer("hi"))
    found = await session.find_items("hello")
    assert (found.indexed, found.scanned, len(found)) == (False, 1, 1)
    assert "search.scanned" in caplog.text
    assert "hello" not in caplog.text
    indexed = await talk("s", path, user("more"), search=True)
    found = await indexed.find_items("hello")
    assert (found.indexed, found.scanned, len(found)) == (True, 0, 1)
    found = await indexed.find_items("hi")
    assert (found.indexed, found.scanned, len(found)) == (False, 2, 1)


async def test_a_log_opened_with_search_keeps_the_index(path: Path) -> None:
    async with ConversationLog.open(path, search=True) as log:
        await talk("s", path, user("hello"))
        assert (await log.find_items("hello")).indexed


async def test_private_databases_are_searched_too() -> None:
    for search in (False, True):
        session = AdvancedSQLiteSession("s", search=search)
        await session.add_items([user("hello")])
        assert len(await session.find_items("hello")) == 1


async def test_pages_follow_each_other(path: Path) -> None:
    session = await talk("s", path, *[user(f"hello {number}") for number in range(5)])
    first = await session.find_items("hello", limit=3)
    rest = await session.find_items("hello", limit=3, after=first.cursor)
    assert [row["index"] for row in [*first, *rest]] == [4, 3, 2, 1, 0]
    assert (first.cursor, rest.cursor) == (first[-1]["cursor"], None)
    assert not await session.find_items("hello", after=rest[-1]["cursor"])
    assert (await session.find_items(limit=0)).cursor is None


@pytest.mark.parametrize(
    "wrong",
    [
        {"text": 5},
        {"text": b"hello"},
        {"limit": -1},
        {"limit": 1.5},
        {"limit": True},
        {"after": "not a cursor"},
        {"type": 1},
        {"role": ["user"]},
        {"session_id": "half \ud800"},
        {"user_id": "half \ud800"},
        {"since": "2026-11-04"},
        {"until": 1_700_000_000},
    ],
    ids=str,
)
async def test_what_is_not_acceptable_is_refused_by_name(path: Path, wrong: dict[str, Any]) -> None:
    session = await talk("s", path, user("hello"))
    with pytest.raises(InvalidQueryError, match=next(iter(wrong))):
        await session.find_items(**wrong)


async def test_an_unknown_filter_is_refused(path: Path) -> None:
    session = await talk("s", path, user("hello"))
    unknown: Any = {"tool": "x"}
    with pytest.raises(TypeError, match="tool"):
        await session.find_items(**unknown)


@pytest.mark.parametrize(
    "name", ["type", "tool_name", "role", "session_id", "user_id", "branch_id"]
)
@pytest.mark.parametrize("value", ["", "'", "%", "\0", "x" * 60_000])
async def test_hostile_filters_find_nothing(path: Path, name: str, value: str) -> None:
    session = await talk("s", path, user("hello"))
    which: Any = {name: value}
    assert not await session.log.find_items("hello", **which)
