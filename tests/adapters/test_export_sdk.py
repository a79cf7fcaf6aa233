"""Export for the SDK: what its own class reads from the file equals what ours reads from the log."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from agents_eventlog import AdvancedSQLiteSession, ConversationLog, KeyFile, export_sdk_file
from agents_eventlog.adapters import SDKExport
from agents_eventlog.eventlog import ItemsAdded, payloads
from agents_eventlog.eventlog.errors import KeysMissingError, OpenError, SessionNotFoundError
from tests.adapters.any_log import log, where
from tests.adapters.moving import by_outcome, from_file
from tests.adapters.old_files import _forget, grow, ours, picture, rows, sdk
from tests.contract.items import ran, turns

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["log", "where"]


async def fill(where: Path | str, session_id: str = "talk") -> None:
    """Fill a session as the SDK's class can."""
    with closing(AdvancedSQLiteSession(session_id, where)) as session:
        await grow(session)


async def exported(where: Path | str, path: Path, *session_ids: str) -> SDKExport:
    async with ConversationLog.open(where) as log:
        return await export_sdk_file(log, path, session_ids or None)


async def answers(session: Any) -> dict[str, Any]:
    """Return everything that a session answers about its branches that have items."""
    seen = await picture(session, ["cats", "third"])
    _forget(seen, "created_at")  # of branches, which the two classes count from different moments
    empty = [name for name, each in seen["branches"].items() if not each["message_count"]]
    for name in empty:
        del seen["branches"][name], seen[f"branch {name!r}"]
    return seen


async def test_the_sdks_class_reads_items_branches_turns_and_usage(
    where: Path | str, tmp_path: Path
) -> None:
    await fill(where)
    path = tmp_path / "sdk.db"
    done = await exported(where, path)
    assert done.left_out == "1 empty branch, 1 deleted branch"
    with closing(sdk(path)) as theirs, closing(AdvancedSQLiteSession("talk", where)) as mine:
        assert await answers(theirs) == await answers(mine)
        assert done.items == len(rows(path, "SELECT id FROM agent_messages"))


async def test_the_sdks_class_goes_on_in_the_file(where: Path | str, tmp_path: Path) -> None:
    await fill(where)
    path = tmp_path / "sdk.db"
    await exported(where, path)
    with closing(sdk(path)) as theirs:
        before = await theirs.get_items()
        await theirs.add_items(turns("later"))
        await theirs.store_run_usage(ran(1, 7, 3))
        assert await theirs.get_items() == before + turns("later")
        last = (await theirs.get_conversation_turns())[-1]
        assert last["full_content"] == "later"
        assert (await theirs.get_turn_usage(last["turn"]))["input_tokens"] == 7
        await theirs.create_branch_from_turn(2, "new")
        await theirs.add_items(turns("on a branch"))
        for taken in ("draft", "deleted", "emptied"):
            with pytest.raises(ValueError, match="already been used"):
                await theirs.create_branch_from_turn(1, taken)
        await theirs.switch_to_branch("draft")
        await theirs.delete_branch("draft of draft")
        await theirs.pop_item()
        await theirs.clear_session()
        assert await theirs.get_items() == []


async def test_an_export_is_imported_as_the_same_conversation(tmp_path: Path) -> None:
    await fill(tmp_path / "log.db")
    await fill(tmp_path / "log.db", "other")
    await exported(tmp_path / "log.db", tmp_path / "sdk.db")
    outcomes = await from_file(tmp_path / "new.db", tmp_path / "sdk.db")
    assert by_outcome(outcomes) == {"talk": "imported", "other": "imported"}
    for session_id in ("talk", "other"):
        with (
            closing(ours(tmp_path / "log.db", session_id)) as first,
            closing(ours(tmp_path / "new.db", session_id)) as second,
        ):
            assert await answers(second) == await answers(first)


async def test_a_deleted_session_is_left_out_and_its_erased_items_are_placeholders_in_a_fork(
    where: Path | str, tmp_path: Path
) -> None:
    with closing(AdvancedSQLiteSession("source", where)) as session:
        await session.add_items(turns("my PIN is 1234"))
    async with ConversationLog.open(where) as log:
        await log.fork("source", "fork")
        await log.erase(session_id="source")
        with closing(AdvancedSQLiteSession("fork", where)) as session:
            placeholders = await session.get_items()
            await session.add_items(turns("thanks"))
            await session.store_run_usage(ran(1, 9, 4))
        done = await export_sdk_file(log, tmp_path / "sdk.db")
    assert done == SDKExport(1, 4, 1, 1, deleted_sessions=1)
    assert done.left_out == "1 deleted session"
    with closing(sdk(tmp_path / "sdk.db", "fork")) as theirs:
        assert await theirs.get_items() == [*placeholders, *turns("thanks")]
        assert (await theirs.get_turn_usage(2))["input_tokens"] == 9
    assert rows(tmp_path / "sdk.db", "SELECT session_id FROM agent_sessions") == [("fork",)]
    assert b"my PIN" not in (tmp_path / "sdk.db").read_bytes()


async def test_items_whose_key_was_destroyed_are_left_out_and_counted(tmp_path: Path) -> None:
    keys = KeyFile(tmp_path / "keys.db")
    async with ConversationLog.open(tmp_path / "log.db", keys=keys) as log:
        await log.append("talk", ItemsAdded(items=turns("lost")), branch_id="main")
        [lost] = await log.query(payloads.used_keys)
        keys.destroy([lost.key_id])
        done = await export_sdk_file(log, tmp_path / "sdk.db")
    assert done == SDKExport(1, erased_items=2)
    assert done.left_out == "2 erased items"
    with closing(sdk(tmp_path / "sdk.db")) as theirs:
        assert await theirs.get_items() == []


async def test_only_the_named_sessions_are_written(tmp_path: Path) -> None:
    await fill(tmp_path / "log.db", "a")
    await fill(tmp_path / "log.db", "b")
    assert (await exported(tmp_path / "log.db", tmp_path / "sdk.db", "b")).sessions == 1
    assert rows(tmp_path / "sdk.db", "SELECT session_id FROM agent_sessions") == [("b",)]
    with pytest.raises(SessionNotFoundError):
        await exported(tmp_path / "log.db", tmp_path / "c.db", "c")
    assert not (tmp_path / "c.db").exists()


async def test_an_existing_file_is_not_replaced(tmp_path: Path) -> None:
    await fill(tmp_path / "log.db")
    await exported(tmp_path / "log.db", tmp_path / "sdk.db")
    with pytest.raises(OpenError, match="exists: expected a new file"):
        await exported(tmp_path / "log.db", tmp_path / "sdk.db")
    with pytest.raises(OpenError, match="does not exist"):
        await exported(tmp_path / "log.db", tmp_path / "no folder" / "sdk.db")


@pytest.mark.parametrize("where", ["sealed", "sealed postgres"], indirect=True)
async def test_a_sealed_log_without_its_keys_is_refused(
    where: Path | str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fill(where)
    monkeypatch.delenv("EVENTLOG_KEYS")
    with pytest.raises(KeysMissingError):
        await exported(where, tmp_path / "sdk.db")
    assert [each.name for each in tmp_path.glob("sdk.db*")] == []
