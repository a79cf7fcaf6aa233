"""Changing the metadata and the title of a session, and finding one session and its state."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from agents_eventlog import AdvancedSQLiteSession, ConversationLog
from agents_eventlog.adapters.conversations.sessions import merge_patch
from agents_eventlog.eventlog.errors import (
    InvalidEventError,
    SessionDeletedError,
    SessionNotFoundError,
    UnserialisableError,
)
from tests.faults.support import user

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def log(tmp_path: Path) -> Iterator[ConversationLog]:
    log = ConversationLog.open_sync(tmp_path / "talk.db", durability="normal")
    yield log
    log.close()


@pytest.fixture
def session(log: ConversationLog) -> AdvancedSQLiteSession:
    return AdvancedSQLiteSession("talk", log.path)


async def metadata(session: AdvancedSQLiteSession) -> Any:
    return (await session.get_metadata())["metadata"]


# Appendix A of RFC 7396: the original, the patch, the result.
EXAMPLES: list[tuple[Any, Any, Any]] = [
    ({"a": "b"}, {"a": "c"}, {"a": "c"}),
    ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
    ({"a": "b"}, {"a": None}, {}),
    ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
    ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
    ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
    ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
    ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
    (["a", "b"], ["c", "d"], ["c", "d"]),
    ({"a": "b"}, ["c"], ["c"]),
    ({"a": "foo"}, None, None),
    ({"a": "foo"}, "bar", "bar"),
    ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
    ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
    ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
]


@pytest.mark.parametrize(("original", "patch", "result"), EXAMPLES)
async def test_a_merge_patch_does_what_the_examples_of_its_rfc_do(
    original: Any, patch: Any, result: Any, session: AdvancedSQLiteSession
) -> None:
    assert merge_patch(original, patch) == result
    if isinstance(original, dict) and isinstance(patch, dict):
        await session.set_metadata(original)
        await session.update_metadata(patch)
        assert await metadata(session) == (result or None)


async def test_a_patch_creates_a_session_with_what_its_object_was_made_with(
    log: ConversationLog,
) -> None:
    session = AdvancedSQLiteSession("talk", log.path, user_id="alice", metadata={"a": 1, "b": 2})
    await session.update_metadata({"b": None, "c": 3})
    assert await session.get_metadata() == {"user_id": "alice", "metadata": {"a": 1, "c": 3}}
    assert await log.version("talk") == 1


async def test_a_patch_that_changes_nothing_records_nothing(
    session: AdvancedSQLiteSession, log: ConversationLog
) -> None:
    await session.set_metadata({"a": {"b": 1}})
    await session.update_metadata({"a": {"b": 1}, "c": None})
    await session.update_metadata({})
    assert await log.version("talk") == 1


async def test_patches_at_the_same_time_lose_nothing(log: ConversationLog) -> None:
    sessions = [AdvancedSQLiteSession("talk", log.path) for _ in range(20)]
    await asyncio.gather(*(each.update_metadata({str(n): n}) for n, each in enumerate(sessions)))
    assert await metadata(sessions[0]) == {str(n): n for n in range(20)}


async def test_a_patch_is_a_mapping_of_json_and_not_for_a_deleted_session(
    session: AdvancedSQLiteSession, log: ConversationLog
) -> None:
    wrong: Any
    for wrong in (None, ["a"], "a", 7):
        with pytest.raises(TypeError, match="invalid patch: expected a mapping"):
            await session.update_metadata(wrong)
    with pytest.raises(UnserialisableError):
        await session.update_metadata({"at": datetime.now(UTC)})
    assert await session.state() == "unknown"
    await session.set_metadata({"a": 1})
    await session.delete_session()
    with pytest.raises(SessionDeletedError):
        await session.update_metadata({"a": 2})


async def test_a_title_is_shown_in_lists_until_it_is_removed(
    session: AdvancedSQLiteSession, log: ConversationLog
) -> None:
    await session.add_items([user("I love pizza")])
    await AdvancedSQLiteSession("other", log.path).add_items([user("me too")])
    await session.update_metadata({"plan": "pro"})
    await session.set_title("Italian food")
    assert [row["title"] for row in await session.list_sessions()] == ["Italian food", "me too"]
    assert await metadata(session) == {"plan": "pro", "title": "Italian food"}
    for none in (None, ""):
        await session.set_title("again")
        await session.set_title(none)
        assert (await log.session("talk"))["title"] == "I love pizza"
    await session.set_metadata({"title": 7})
    assert (await log.session("talk"))["title"] == "I love pizza"
    wrong: Any
    for wrong in (7, "\ud800"):
        with pytest.raises(InvalidEventError, match="invalid title"):
            await session.set_title(wrong)


async def test_a_session_is_unknown_then_active_deleted_and_erased(
    session: AdvancedSQLiteSession, log: ConversationLog
) -> None:
    assert await session.state() == "unknown"
    await session.add_items([user("hello")])
    assert await session.state() == "active"
    await session.clear_session()
    assert await session.state() == "active"
    await session.delete_session()
    assert await session.state() == "deleted"
    await session.restore_session()
    assert await session.state() == "active"
    await log.erase(session_id="talk")
    assert await session.state() == "erased"


async def test_one_session_is_found_by_its_id(
    session: AdvancedSQLiteSession, log: ConversationLog
) -> None:
    with pytest.raises(SessionNotFoundError, match="session 'talk' does not exist"):
        await log.session("talk")
    await session.add_items([user("hello")])
    await AdvancedSQLiteSession("other", log.path).add_items([user("hello")])
    assert await log.session("talk") == (await log.sessions(session_id="talk"))[0]
    with pytest.raises(SessionNotFoundError):
        await log.session("talk", deleted=True)
    await session.delete_session()
    with pytest.raises(SessionNotFoundError):
        await log.session("talk")
    assert (await log.session("talk", deleted=True))["deleted_at"] is not None
    nothing: Any = None
    with pytest.raises(InvalidEventError, match="session_id"):
        await log.session(nothing)
