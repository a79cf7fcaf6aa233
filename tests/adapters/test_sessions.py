"""Labelling, listing, deleting and restoring sessions, as a session object and a log offer it."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import pytest

from agents_eventlog import AdvancedSQLiteSession, ConversationLog, EventLogSession, projections
from agents_eventlog.eventlog import RequestUsage, UsageRecorded
from agents_eventlog.eventlog.errors import (
    ClosedError,
    InvalidEventError,
    InvalidQueryError,
    SessionDeletedError,
    SessionNotFoundError,
    UnserialisableError,
)
from agents_eventlog.eventlog.storage.sqlite import full_text
from agents_eventlog.projections.sessions import filters
from agents_eventlog.projections.sessions import queries as sessions_module
from tests.history import START

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

HOSTILE = [
    "it's",
    '"; DROP TABLE sessions; --',
    "$.a[0]",
    "100%_",
    "back\\slash\\u0000",
    "nul\x00inside",
    "\ud800",
    "日本語",
    "k" * 60_000,
    "",
]


def user(text: str) -> Any:
    return {"role": "user", "content": text}


def answer(text: str) -> Any:
    return {"role": "assistant", "content": [{"type": "output_text", "text": text}]}


class File:
    """A log of conversations whose clock passes a minute with each write of a test."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.log = ConversationLog.open_sync(path, durability="normal")
        self.now = START
        self.log.store.clock = lambda: self.now

    def at(self, minutes: int) -> datetime:
        return datetime.fromtimestamp(0, UTC) + timedelta(microseconds=START, minutes=minutes)

    def session(self, session_id: str, **options: Any) -> AdvancedSQLiteSession:
        return AdvancedSQLiteSession(session_id, self.path, **options)

    async def add(self, session_id: str, *items: Any, **options: Any) -> AdvancedSQLiteSession:
        self.now += 60_000_000
        session = self.session(session_id, **options)
        await session.add_items(list(items) or [user(f"I am {session_id}")])
        return session

    async def ids(self, **which: Any) -> list[str]:
        """Return the ids of what is listed; a log and a session object list the same."""
        listed = await self.log.sessions(**which)
        if not which.pop("deleted", False):
            assert listed == await self.session("any").list_sessions(**which)
        return [row["session_id"] for row in listed]


@pytest.fixture
def file(tmp_path: Path) -> Iterator[File]:
    made = File(tmp_path / "talk.db")
    yield made
    made.log.close()


# -- listing ------------------------------------------------------------------------------------


async def test_a_row_tells_title_spend_and_labels(file: File) -> None:
    talk = await file.add("talk", answer("Welcome."), user("  Where\nis my parcel? " + "x" * 99))
    await talk.set_metadata({"plan": "pro"}, user_id="alice")
    requests = [RequestUsage(total_tokens=7, cost_usd=0.5), RequestUsage(total_tokens=3)]
    await file.log.append("talk", UsageRecorded(run_id="r", turn=1, requests=requests))
    [row] = await talk.list_sessions()
    assert row.pop("cursor")
    assert row == {
        "session_id": "talk",
        "title": "Where is my parcel? " + "x" * 59 + "…",
        "created_at": "2023-11-14 22:14:20",
        "updated_at": "2023-11-14 22:14:20",
        "deleted_at": None,
        "expires_at": None,
        "item_count": 2,
        "turn_count": 1,
        "branch_count": 1,
        "current_branch": "main",
        "user_id": "alice",
        "metadata": {"plan": "pro"},
        "total_tokens": 10,
        "total_cost": 0.5,
        "unpriced_requests": 1,
    }


async def test_the_title_is_the_first_message_also_where_it_stands_behind_the_fork(
    file: File,
) -> None:
    talk = file.session("talk")
    await talk.add_items([{"role": "system", "content": "be kind"}])
    await talk.create_branch("other")
    await talk.switch_to_branch("main")
    await talk.add_items([answer("a")])
    await talk.switch_to_branch("other")
    await talk.add_items([user("hello")])
    assert [row["title"] for row in await talk.list_sessions()] == ["hello"]


async def test_the_title_is_the_first_message_of_the_branch_last_switched_to(file: File) -> None:
    talk = await file.add("talk", user("first"), answer("a"), user("second"))
    await talk.create_branch_from_turn(2, "kept")
    await talk.add_items([user("instead")])
    assert [row["title"] for row in await talk.list_sessions()] == ["first"]
    await talk.create_branch_from_turn(1, "new")
    assert [row["title"] for row in await talk.list_sessions()] == [None]
    await talk.add_items([answer("no user yet"), user([])])  # type: ignore[arg-type]
    assert [row["title"] for row in await talk.list_sessions()] == [""]


async def test_the_last_used_comes_first_and_pages_follow_each_other(file: File) -> None:
    for name in "abcde":
        await file.add(name)
    await file.add("b")
    assert await file.ids() == ["b", "e", "d", "c", "a"]
    assert await file.ids(reverse=True) == ["a", "c", "d", "e", "b"]
    assert await file.ids(order_by="created_at") == ["e", "d", "c", "b", "a"]
    for order in ({}, {"reverse": True}, {"order_by": "created_at"}):
        seen: list[str] = []
        page = await file.log.sessions(limit=2, **order)  # type: ignore[arg-type]
        while page:
            seen += [row["session_id"] for row in page]
            page = await file.log.sessions(limit=2, after=page[-1]["cursor"], **order)  # type: ignore[arg-type]
        assert seen == await file.ids(**order)
    assert await file.ids(limit=0) == []
    assert await file.ids(limit=10**30) == ["b", "e", "d", "c", "a"]


async def test_sessions_of_one_moment_are_paged_without_loss(file: File) -> None:
    for name in "edcba":
        await file.session(name).add_items([user(name)])
    first = await file.log.sessions(limit=2)
    rest = await file.log.sessions(after=first[-1]["cursor"])
    assert [row["session_id"] for row in first + rest] == ["a", "b", "c", "d", "e"]
    back = await file.log.sessions(after=rest[0]["cursor"], reverse=True)
    assert [row["session_id"] for row in back] == ["b", "a"]


async def test_pages_by_creation_give_each_session_once_whatever_happens_meanwhile(
    file: File,
) -> None:
    names = [f"s{number}" for number in range(9)]
    for name in names:
        await file.add(name)
    seen: list[str] = []
    page = await file.log.sessions(limit=2, order_by="created_at")
    while page:
        seen += [row["session_id"] for row in page]
        await file.add(f"new {len(seen)}")
        await file.add(names[len(seen) // 2])
        page = await file.log.sessions(limit=2, order_by="created_at", after=page[-1]["cursor"])
    assert seen == names[::-1]


async def test_pages_by_last_use_give_no_session_twice_and_lose_only_what_is_used(
    file: File,
) -> None:
    for name in "abcdef":
        await file.add(name)
    page = await file.log.sessions(limit=2)
    seen = [row["session_id"] for row in page]
    await file.add("f")
    await file.add("a")
    seen += await file.ids(after=page[-1]["cursor"])
    assert seen == ["f", "e", "d", "c", "b"]


async def test_each_filter_leaves_what_it_says(file: File) -> None:
    await file.add("a", user_id="alice", metadata={"plan": "pro", "customer": {"tier": 2}})
    await file.add("b", user("one"), answer("two"), user_id="bob", metadata={"plan": "pro"})
    await file.add("c", user_id="alice")
    await file.add("a")
    assert await file.ids(user_id="alice") == ["a", "c"]
    assert await file.ids(user_id="alice", order_by="created_at") == ["c", "a"]
    assert await file.ids(user_id="carol") == []
    assert await file.ids(metadata={"plan": "pro"}) == ["a", "b"]
    assert await file.ids(metadata={"customer": {"tier": 2.0}}) == ["a"]
    assert await file.ids(metadata={"customer": {"tier": 2}, "plan": "free"}) == []
    assert await file.ids(metadata={"customer": {}}) == []
    assert await file.ids(metadata={}) == ["a", "c", "b"]
    assert await file.ids(min_items=2) == ["a", "b"]
    assert await file.ids(created_after=file.at(2)) == ["c", "b"]
    assert await file.ids(created_before=file.at(2)) == ["a"]
    assert await file.ids(updated_before=file.at(4)) == ["c", "b"]
    assert await file.ids(updated_after=file.at(3), updated_before=file.at(4)) == ["c"]
    assert await file.ids(created_before=file.at(2), user_id="alice", min_items=1) == ["a"]


async def test_a_time_without_a_zone_is_utc(file: File) -> None:
    await file.add("a")
    east = timezone(timedelta(hours=5))
    for moment in (file.at(1), file.at(1).astimezone(east), file.at(1).replace(tzinfo=None)):
        assert await file.ids(updated_after=moment) == ["a"]
        assert await file.ids(updated_before=moment) == []


async def test_text_is_found_in_what_user_and_assistant_say_on_any_branch(file: File) -> None:
    a = await file.add("a", user("Where is my PARCEL?"), answer("In Hamburg, 100%."))
    await a.create_branch("other")
    await a.add_items([user("another way")])
    await a.switch_to_branch("main")
    await file.add("b", user("no"), {"type": "function_call", "name": "x", "arguments": "parcel"})
    popped = await file.add("c", user("parcel"))
    await popped.pop_item()
    assert await file.ids(text="parcel") == ["a"]
    assert await file.ids(text="hamburg, 100%") == ["a"]
    assert await file.ids(text="another way") == ["a"]
    assert await file.ids(text="100_") == []
    assert await file.ids(text="parcel", user_id="nobody") == []
    assert await file.ids(text="") == ["b", "a"]


async def test_text_that_few_say_is_found_through_the_full_text_index(
    file: File, monkeypatch: pytest.MonkeyPatch
) -> None:
    file.log.join(projections.default(search=True))
    await file.add("a", user("Where is my PARCEL?"))
    await file.add("b", {"type": "function_call", "name": "x", "arguments": "parcel"})
    await file.add("c", user("no"))

    def way(text: str) -> str | None:
        query = filters.parse(text=text)
        found = file.log.store.read_sync(lambda tx: sessions_module._narrowest(tx, query))
        return None if found is None else found[0]

    assert (way("parcel"), way("pa")) == (full_text.SESSIONS, None)
    assert await file.ids(text="parcel") == ["a"]
    monkeypatch.setattr(sessions_module, "FEW", 1)
    assert way("parcel") is None
    assert await file.ids(text="parcel") == ["a"]


async def test_text_is_searched_page_by_page(file: File, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions_module, "SCANNED_AT_ONCE", 3)
    for number in range(10):
        await file.add(f"s{number}", user("even" if number % 2 == 0 else "odd"))
    assert await file.ids(text="even") == ["s8", "s6", "s4", "s2", "s0"]
    first = await file.log.sessions(text="even", limit=2)
    assert [row["session_id"] for row in first] == ["s8", "s6"]
    assert await file.ids(text="even", limit=9, after=first[-1]["cursor"]) == ["s4", "s2", "s0"]
    deletion = await file.log.delete_sessions(text="odd", dry_run=False)
    assert deletion.session_ids == ["s1", "s3", "s5", "s7", "s9"]


@pytest.mark.parametrize("few", [0, 2_000])
async def test_both_ways_to_find_sessions_give_the_same(
    file: File, monkeypatch: pytest.MonkeyPatch, few: int
) -> None:
    monkeypatch.setattr(sessions_module, "FEW", few)
    await test_each_filter_leaves_what_it_says(file)


@pytest.mark.parametrize("text", HOSTILE)
async def test_hostile_text_in_labels_is_data(file: File, text: str) -> None:
    await file.add("a", metadata={text: "value", "nested": {text: 1}})
    await file.add("b", metadata={"key": text, "list": [text]})
    await file.add("c")
    assert await file.ids(metadata={text: "value"}) == ["a"]
    assert await file.ids(metadata={"nested": {text: 1}}) == ["a"]
    assert await file.ids(metadata={"key": text}) == ["b"]
    assert await file.ids(metadata={"list": [text]}) == ["b"]
    assert await file.ids(metadata={text: text}) == []
    assert await file.ids(text=text) == (["c", "b", "a"] if text == "" else [])


@pytest.mark.parametrize("text", [text for text in HOSTILE if text != "\ud800"])
async def test_a_hostile_user_id_is_data(file: File, text: str) -> None:
    await file.add("a", user_id=text)
    await file.add("b", user_id="bob")
    assert await file.ids(user_id=text) == ([] if text == "" else ["a"])


@pytest.mark.parametrize(
    "which",
    [
        {"user_id": 7},
        {"user_id": "\ud800"},
        {"metadata": "plan"},
        {"metadata": {"deep": json.loads("[" * 100 + "]" * 100)}},
        {"metadata": {str(number): 1 for number in range(99)}},
        {"created_after": "2026-01-01"},
        {"updated_before": 5},
        {"text": b"parcel"},
        {"min_items": -1},
        {"min_items": True},
        {"limit": -1},
        {"limit": "5"},
        {"order_by": "updated_at; DROP TABLE sessions"},
        {"order_by": ["updated_at"]},
        {"after": "nonsense"},
        {"after": "WzEsMiwzXQ=="},
        {"after": 5},
        {"after": base64.urlsafe_b64encode(b'["updated_at", "now", "a"]').decode()},
    ],
)
async def test_what_cannot_be_asked_is_refused(file: File, which: dict[str, Any]) -> None:
    await file.add("a")
    with pytest.raises(InvalidQueryError):
        await file.log.sessions(**which)


async def test_a_cursor_of_another_order_is_refused(file: File) -> None:
    await file.add("a")
    [row] = await file.log.sessions()
    with pytest.raises(InvalidQueryError, match="got one of 'updated_at'"):
        await file.log.sessions(order_by="created_at", after=row["cursor"])


async def test_a_filter_that_there_is_not_and_one_that_is_no_json_are_type_errors(
    file: File,
) -> None:
    misspelt: dict[str, Any] = {"user": "alice"}
    with pytest.raises(TypeError, match="unknown filter 'user'"):
        await file.log.sessions(**misspelt)
    with pytest.raises(UnserialisableError):
        await file.log.sessions(metadata={"plan": b"pro"})


# -- labels -------------------------------------------------------------------------------------


async def test_labels_are_replaced_by_what_is_given_and_taken_away_by_what_is_empty(
    file: File,
) -> None:
    talk = file.session("talk")
    assert await talk.get_metadata() == {"user_id": None, "metadata": None}
    await talk.set_metadata({"plan": "pro", "n": (1, 2)}, user_id="alice")
    assert await talk.get_metadata() == {
        "user_id": "alice",
        "metadata": {"plan": "pro", "n": [1, 2]},
    }
    await talk.set_metadata({"plan": "free"})
    assert await talk.get_metadata() == {"user_id": "alice", "metadata": {"plan": "free"}}
    await talk.set_metadata(user_id="bob")
    assert await talk.get_metadata() == {"user_id": "bob", "metadata": {"plan": "free"}}
    await talk.set_metadata({}, user_id="")
    assert await talk.get_metadata() == {"user_id": None, "metadata": None}
    assert await file.ids() == ["talk"]


async def test_labelling_with_what_is_there_records_nothing(file: File) -> None:
    talk = await file.add("talk", user_id="alice", metadata={"plan": "pro"})
    before = await file.log.version("talk")
    await talk.set_metadata({"plan": "pro"}, user_id="alice")
    await talk.set_metadata()
    await file.session("talk", user_id="alice").set_metadata({"plan": "pro"})
    assert await file.log.version("talk") == before


async def test_metadata_of_the_first_set_metadata_replaces_that_of_construction(
    file: File,
) -> None:
    talk = file.session("talk", user_id="alice", metadata={"plan": "pro"})
    assert await file.ids() == []
    await talk.set_metadata({"plan": "free"})
    assert await file.log.version("talk") == 1
    other = file.session("talk")
    assert await other.get_metadata() == {"user_id": "alice", "metadata": {"plan": "free"}}


async def test_labels_that_are_none_are_refused_and_nothing_is_written(file: File) -> None:
    talk = file.session("talk")
    wrong: Any
    for wrong in (["plan"], "plan", 0):
        with pytest.raises(TypeError, match="expected a mapping"):
            await talk.set_metadata(wrong)
        with pytest.raises(TypeError, match="expected a mapping"):
            file.session("talk", metadata=wrong)
    for wrong in (0, "\ud800"):
        with pytest.raises(InvalidEventError, match="user_id"):
            await talk.set_metadata(user_id=wrong)
    with pytest.raises(UnserialisableError):
        await talk.set_metadata({"at": datetime.now(UTC)})
    assert await file.ids() == []


# -- deleting and restoring -----------------------------------------------------------------------


async def test_a_restored_session_is_as_it_was(file: File) -> None:
    talk = await file.add("talk", user("one"), answer("two"), user_id="u", metadata={"k": 1})
    await file.log.append(
        "talk",
        UsageRecorded(run_id="r", turn=1, requests=[RequestUsage(total_tokens=7)]),
        branch_id="main",
    )
    await talk.create_branch("other")

    async def all_of_it() -> list[Any]:
        [row] = await talk.list_sessions(metadata={"k": 1}, user_id="u")
        times = {"updated_at", "cursor"}
        return [
            {key: value for key, value in row.items() if key not in times},
            await talk.get_items(branch_id="main"),
            [{**branch, "is_current": None} for branch in await talk.list_branches()],
            await talk.get_session_usage(),
            await talk.get_turn_usage(branch_id="main"),
            await talk.get_metadata(),
        ]

    before = await all_of_it()
    assert before[3]["total_tokens"] == 7
    await talk.delete_session()
    assert await talk.get_items(branch_id="main") == []
    assert await talk.get_session_usage() is None
    assert (await talk.get_usage_stats())["total_tokens"] == 7
    assert await talk.get_metadata() == {"user_id": None, "metadata": None}
    with pytest.raises(SessionDeletedError):
        await talk.set_metadata({"k": 2})
    assert await file.ids() == []
    assert await file.ids(deleted=True) == ["talk"]
    await talk.restore_session()
    assert await all_of_it() == before
    assert await file.ids(deleted=True) == []


async def test_restoring_what_is_not_deleted_changes_nothing(file: File) -> None:
    talk = await file.add("talk")
    before = await file.log.version("talk")
    await talk.restore_session()
    await file.log.restore_session("talk")
    assert await file.log.version("talk") == before


async def test_what_there_is_not_is_neither_deleted_nor_restored(file: File) -> None:
    talk = await file.add("talk")
    for refused in (talk.delete_session, talk.restore_session):
        with pytest.raises(SessionNotFoundError, match="session 'none such' does not exist"):
            await refused("none such")
    with pytest.raises(SessionNotFoundError):
        await file.log.delete_session("none such")
    await file.log.delete_session("talk", reason="asked for")
    with pytest.raises(SessionNotFoundError):
        await file.log.delete_session("talk")
    [event] = [r.event async for r in file.log.read("talk", backward=True, limit=1)]
    assert event.reason == "asked for"  # type: ignore[union-attr]


async def test_sessions_are_deleted_one_by_one_from_a_list(file: File) -> None:
    for name in "abc":
        await file.add(name)
    talk = file.session("a")
    for row in await talk.list_sessions():
        if row["session_id"] != "b":
            await talk.delete_session(row["session_id"])
    assert await file.ids() == ["b"]


async def test_a_bulk_deletion_tells_first_and_then_deletes_just_these(
    file: File, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agents_eventlog.adapters.conversations.sessions.DELETED_AT_ONCE", 2)
    for number in range(7):
        await file.add(f"s{number}", user_id="alice" if number % 2 == 0 else "bob")
    used = UsageRecorded(run_id="r", turn=1, requests=[RequestUsage(total_tokens=7)])
    await file.log.append("s2", used)
    told = await file.log.delete_sessions(user_id="alice")
    assert told == (["s0", "s2", "s4", "s6"], 4, 7, 0.0, 1, True)
    assert len(await file.ids()) == 7
    done = await file.log.delete_sessions(user_id="alice", dry_run=False, reason="bye")
    assert done == told._replace(dry_run=False)
    assert await file.ids() == ["s5", "s3", "s1"]
    assert (await file.log.delete_sessions(user_id="alice", dry_run=False)).session_ids == []
    reasons = [r.event async for r in file.log.read(types=["session_deleted"])]
    assert [event.reason for event in reasons] == ["bye"] * 4  # type: ignore[union-attr]


async def test_nothing_is_deleted_by_an_empty_call(file: File) -> None:
    await file.add("a")
    for empty in ({}, {"metadata": {}}, {"user_id": None}, {"text": ""}, {"min_items": 0}):
        with pytest.raises(InvalidQueryError, match="all_sessions=True"):
            await file.log.delete_sessions(dry_run=False, **empty)  # type: ignore[arg-type]
    assert await file.ids() == ["a"]
    deletion = await file.log.delete_sessions(all_sessions=True, dry_run=False)
    assert deletion.session_ids == ["a"]
    assert await file.ids() == []


async def test_a_session_that_is_used_again_is_not_stale_any_more(file: File) -> None:
    await file.add("old")
    await file.add("used")
    stale = file.at(3)
    assert (await file.log.delete_sessions(updated_before=stale)).session_ids == ["old", "used"]
    file.now = START + 600_000_000
    await file.add("used")
    done = await file.log.delete_sessions(updated_before=stale, dry_run=False)
    assert done.session_ids == ["old"]


async def test_a_message_whose_content_was_erased_is_not_searched(file: File) -> None:
    await file.add("a", user("parcel"))
    await file.add("b", user("parcel"))
    file.log.store.write_sync(
        lambda tx: tx.execute("UPDATE events SET data = NULL WHERE session_id = 'a'")
    )
    assert await file.ids(text="parcel") == ["b"]
    assert await file.ids(text="") == ["b"]


# -- session and log objects ------------------------------------------------------------------------


async def test_a_session_is_closed_at_the_end_of_its_block(file: File) -> None:
    async with file.session("talk") as talk:
        await talk.add_items([user("hello")])
    with pytest.raises(ClosedError):
        await talk.get_items()
    with pytest.raises(LookupError):
        async with file.session("talk") as talk:
            raise LookupError
    with pytest.raises(ClosedError):
        await talk.get_items()
    async with EventLogSession("talk", file.log) as on_a_log:
        assert await on_a_log.get_items() == [user("hello")]
    assert not file.log.is_closed


async def test_session_and_log_show_what_they_are(file: File) -> None:
    talk = await file.add("talk", user_id="alice")
    await talk.create_branch("idea")
    assert (
        repr(talk)
        == f"<AdvancedSQLiteSession session_id='talk' branch_id='idea' path='{file.path}'>"
    )
    assert repr(file.log) == f"<ConversationLog path='{file.path}'>"
    talk.close()
    assert "talk" in repr(talk)
    assert "path=':memory:'" in repr(AdvancedSQLiteSession("talk"))
