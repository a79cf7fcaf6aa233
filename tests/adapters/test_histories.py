"""What a log answers about a history: timeline, outline, usage as shown, places, census, proof."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from agents_eventlog import AdvancedSQLiteSession, ConversationLog, recording
from agents_eventlog.eventlog import Head, ItemsAdded, RequestUsage, UsageRecorded
from agents_eventlog.eventlog.errors import (
    BranchNotFoundError,
    InvalidQueryError,
    ItemNotFoundError,
    SessionNotFoundError,
    VersionNotFoundError,
)
from tests.adapters.looking import tampered

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


def user(text: str) -> Any:
    return {"role": "user", "content": text}


def answer(text: str) -> Any:
    return {"role": "assistant", "content": text}


def call(name: str) -> Any:
    return {"type": "function_call", "name": name, "call_id": name, "arguments": "{}"}


@pytest.fixture(params=["sqlite", "postgres"])
async def log(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[ConversationLog]:
    """A log with a conversation: two turns, one item popped, a branch with a turn of its own."""
    path = tmp_path / "talk.db"
    place = path if request.param == "sqlite" else request.getfixturevalue("server").url()
    with closing(AdvancedSQLiteSession("s", place)) as session:
        with recording(actor="web"):
            await session.add_items([user("first words"), call("look"), answer("one")])
            await use(session.log, "main", 1, 100)
            await session.add_items([user("second words"), answer("two")])
            await use(session.log, "main", 2, 200)
        with recording(actor="anna"):
            await session.pop_item()
        await session.create_branch_from_turn(2, "draft")
        await session.add_items([user("another way")])
        await use(session.log, "draft", 2, 50)
        async with ConversationLog.open(place) as opened:
            yield opened


async def use(log: Any, branch_id: str, turn: int, tokens: int) -> None:
    request = RequestUsage(total_tokens=tokens, model="m", cost_usd=tokens / 1_000)
    used = UsageRecorded(run_id=f"{branch_id}{turn}", turn=turn, requests=[request])
    await log.append("s", used, branch_id=branch_id)


# -- the timeline -----------------------------------------------------------------------------


async def test_a_timeline_says_what_happened_and_what_became_of_it(log: ConversationLog) -> None:
    rows = await log.timeline("s")
    assert [row["version"] for row in rows] == list(range(len(rows), 0, -1))
    added = next(row for row in rows if row["version"] == 3)
    assert (added["account"], added["actor"], added["state"]) == ("added 2 items", "web", "whole")
    popped = next(row for row in rows if row["type"] == "item_popped")
    removed = [(item["removed"], item["removed_at"]) for item in added["items"]]
    assert removed == [(None, None), ("popped", popped["position"])]
    assert added["items"][1]["removed_version"] == popped["version"]
    assert popped["actor"] == "anna"
    assert "two" in popped["account"]


async def test_pages_of_a_timeline_follow_each_other(log: ConversationLog) -> None:
    whole = await log.timeline("s")
    paged: list[Any] = []
    while page := await log.timeline("s", limit=3, before=paged[-1]["version"] if paged else None):
        assert len(page) <= 3
        paged += page
    assert paged == whole
    assert await log.timeline("s", limit=0) == []


async def test_a_timeline_is_filtered_by_type_actor_and_branch(log: ConversationLog) -> None:
    assert {row["type"] for row in await log.timeline("s", types=["item_popped"])} == {
        "item_popped"
    }
    assert [row["version"] for row in await log.timeline("s", actor="anna")] == [5]
    types = [row["type"] for row in await log.timeline("s", branch_id="draft")]
    assert types == ["usage_recorded", "items_added", "branch_created"]


@pytest.mark.parametrize(
    ("which", "error"),
    [
        ({"limit": -1}, InvalidQueryError),
        ({"before": "x"}, InvalidQueryError),
        ({"types": ["nothing"]}, InvalidQueryError),
    ],
)
async def test_an_invalid_timeline_is_refused(
    log: ConversationLog, which: Any, error: type[Exception]
) -> None:
    with pytest.raises(error):
        await log.timeline("s", **which)
    with pytest.raises(SessionNotFoundError):
        await log.timeline("nobody")


# -- the outline ------------------------------------------------------------------------------


async def test_an_outline_has_the_first_words_of_every_turn(log: ConversationLog) -> None:
    rows = await log.outline("s", branch_id="main")
    assert [(row["turn"], row["first_words"], row["items"]) for row in rows] == [
        (1, "first words", 3),
        (2, "second words", 1),
    ]
    assert rows[0]["tools"] == ["look"]
    assert (await log.outline("s"))[1]["first_words"] == "another way"  # the current branch
    assert [row["turn"] for row in await log.outline("s", first_turn=2, limit=5)] == [2]
    assert await log.outline("s", branch_id="main", as_of=0) == []
    assert len(await log.outline("s", branch_id="main", as_of=1)) == 1


async def test_a_removed_turn_is_in_the_outline_with_how_it_was_removed(tmp_path: Path) -> None:
    async with AdvancedSQLiteSession("s", tmp_path / "log.db") as session:
        await session.add_items([user("stays")])
        await session.add_items([user("goes")])
        await session.undo_turn()
        async with ConversationLog.open(tmp_path / "log.db") as log:
            rows = await log.outline("s")
            assert [(row["first_words"], row["removed"]) for row in rows] == [
                ("stays", None),
                ("goes", "undone"),
            ]
            await session.clear_session()
            assert [row["removed"] for row in await log.outline("s")] == ["cleared", "undone"]


@pytest.mark.parametrize(
    ("which", "error"),
    [
        ({"branch_id": "nowhere"}, BranchNotFoundError),
        ({"as_of": 99}, VersionNotFoundError),
        ({"first_turn": -1}, InvalidQueryError),
        ({"limit": 1.5}, InvalidQueryError),
    ],
)
async def test_an_invalid_outline_is_refused(
    log: ConversationLog, which: Any, error: type[Exception]
) -> None:
    with pytest.raises(error):
        await log.outline("s", **which)
    with pytest.raises(SessionNotFoundError):
        await log.outline("nobody")


# -- usage as shown ---------------------------------------------------------------------------


async def test_the_usage_of_a_branch_includes_the_turns_that_it_shares(
    log: ConversationLog,
) -> None:
    async def tokens(branch_id: str, as_of: int | None = None) -> list[tuple[int, str, int]]:
        rows = await log.branch_usage("s", branch_id=branch_id, as_of=as_of)
        return [(row["turn"], row["branch_id"], row["total_tokens"]) for row in rows]

    assert await tokens("main") == [(1, "main", 100), (2, "main", 200)]
    assert await tokens("draft") == [(1, "main", 100), (2, "draft", 50)]
    assert await tokens("main", 2) == [(1, "main", 100)]
    assert await tokens("main", 0) == []
    [row, *_] = await log.branch_usage("s", branch_id="main")
    assert (row["model"], row["cost_usd"], row["is_live"], row["version"]) == ("m", 0.1, True, 2)
    with pytest.raises(SessionNotFoundError):
        await log.branch_usage("nobody")


# -- places -----------------------------------------------------------------------------------


async def test_an_item_is_found_on_its_branches_or_by_how_it_was_removed(
    log: ConversationLog,
) -> None:
    rows = {row["version"]: row["position"] for row in await log.timeline("s")}
    shared = await log.places_of(rows[1], 2)
    assert (shared["turn"], shared["number"], shared["branch_ids"]) == (1, 3, ["main", "draft"])
    assert (shared["removed"], shared["last_branch_id"]) == (None, "main")
    popped = await log.places_of(rows[3], 1)
    assert (popped["branch_ids"], popped["removed"]) == ([], "popped")
    assert (popped["removed_version"], popped["last_branch_id"]) == (5, "main")
    for position, index in ((rows[1], 9), (rows[2], 0), (10_000, 0), (-1, 0), ("x", 0)):
        with pytest.raises(ItemNotFoundError):
            await log.places_of(position, index)  # type: ignore[arg-type]


async def test_an_item_of_a_deleted_session_is_deleted_until_it_is_restored(
    tmp_path: Path,
) -> None:
    async with ConversationLog.open(tmp_path / "log.db") as log:
        await log.append("s", ItemsAdded(items=[user("x")]), branch_id="main")
        await log.delete_session("s")
        assert (await log.places_of(1, 0))["removed"] == "deleted"
        assert (await log.timeline("s"))[0]["account"] == "deleted the session with 1 item"
        await log.restore_session("s")
        assert (await log.places_of(1, 0))["removed"] is None


# -- the census -------------------------------------------------------------------------------


async def test_a_census_counts_events_by_type_actor_and_day(log: ConversationLog) -> None:
    census = await log.census()
    rows = await log.timeline("s")
    assert sum(each["events"] for each in census["types"].values()) == len(rows)
    assert census["types"]["item_popped"]["events"] == 1
    assert census["types"]["items_added"]["bytes"] > 100
    assert census["actors"]["anna"] == 1
    assert sum(census["actors"].values()) == len(rows)
    assert list(census["days"].values()) == [len(rows)]
    with recording(actor={"id": 7}):
        await log.append("s", ItemsAdded(items=[]), branch_id="main")
    assert (await log.census())["actors"]['{"id":7}'] == 1


# -- the proof --------------------------------------------------------------------------------


async def test_a_log_is_proved_from_a_known_head_on(log: ConversationLog) -> None:
    head = await log.head()
    seen: list[int] = []
    whole = await log.verify(on_progress=seen.append)
    assert whole.ok
    assert seen == [whole.events]
    await log.append("s", ItemsAdded(items=[user("new")]), branch_id="main")
    for known in (head, str(head)):
        more = await log.verify(after=known)
        assert (more.ok, more.events) == (True, 1)
        assert more.head == await log.head()
    assert (await log.verify(head, after=head)).ok
    assert (await log.verify(after=await log.head())).events == 0
    assert (await log.verify(after=Head(0, bytes(32)))).events == whole.events + 1
    unknown = Head(head.position, bytes(32))
    unknown.lanes = head.lanes
    [finding] = (await log.verify(after=unknown)).findings
    assert "is not in the log" in finding.problem
    assert not (await log.verify(Head(1, b"x" * 32), after=head)).ok


async def test_a_change_after_the_known_head_is_found_and_one_before_is_not_read(
    tmp_path: Path,
) -> None:
    path = tmp_path / "log.db"
    async with ConversationLog.open(path) as log:
        await log.append(
            "s", [ItemsAdded(items=[user(str(n))]) for n in range(3)], branch_id="main"
        )
        head = await log.head()
        await log.append("s", ItemsAdded(items=[user("new")]), branch_id="main")
    tampered(path, "UPDATE events SET branch_id = 'x' WHERE position = 4")
    async with ConversationLog.open(path, read_only=True) as log:
        [finding] = (await log.verify(after=head)).findings
        assert finding.position == 4
    tampered_before = "UPDATE events SET branch_id = 'x' WHERE position = 2"
    from tests.adapters.looking import change

    change(path, tampered_before)
    async with ConversationLog.open(path, read_only=True) as log:
        assert [each.position for each in (await log.verify(after=head)).findings] == [4]
        assert [each.position for each in (await log.verify()).findings] == [2, 4]
