"""Erasing from a sealed log destroys keys: no copy of the log can be read with them, crash or not."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from agents_eventlog import AdvancedSQLiteSession, ConversationLog, EventLog
from agents_eventlog.eventlog import (
    ContentErased,
    ItemsAdded,
    KeyFile,
    RootKey,
    generate_root_key,
    recording,
)
from agents_eventlog.eventlog.cipher import shredding
from agents_eventlog.eventlog.copying import copy_log
from agents_eventlog.eventlog.errors import (
    BusyError,
    KeysError,
    KeysMissingError,
    ShreddedError,
    UndecodableEventError,
    WrongKeyError,
)
from agents_eventlog.projections.erasure import eraser
from agents_eventlog.projections.erasure.scopes import DeletedSessions, PoppedItems, SessionScope
from tests.cipher.conftest import ROOT

Session = AdvancedSQLiteSession
SAID: Any = [
    {"role": "user", "content": "Where is my hat?"},
    {"role": "assistant", "content": "On your head."},
]
MORE: Any = [{"role": "user", "content": "And my coat?"}]


async def talk(path: Any, keys: Any, session_id: str = "s", **labels: Any) -> None:
    session = Session(session_id, path, keys=keys, **labels)
    await session.add_items(SAID)
    session.close()


async def read(path: Any, keys: Any, session_id: str = "s") -> Any:
    session = Session(session_id, path, keys=keys)
    try:
        return await session.get_items()
    finally:
        session.close()


def again(keys: KeyFile) -> KeyFile:
    """Return the same key file, as another process opens it."""
    return KeyFile(keys.path, RootKey(ROOT), ahead=3)


def destroyed(keys: KeyFile) -> int:
    """Return how many keys of a key file are destroyed."""
    with closing(sqlite3.connect(keys.path)) as connection:
        sql = "SELECT COUNT(*) FROM keys WHERE destroyed_at IS NOT NULL AND wrapped IS NULL"
        return int(connection.execute(sql).fetchone()[0])


async def last_erasure(log: EventLog) -> ContentErased:
    events = [each.event async for each in log.read(types=[ContentErased])]
    assert isinstance(events[-1], ContentErased)
    return events[-1]


# -- erase ------------------------------------------------------------------------------------


async def test_an_erase_destroys_the_key_of_its_session_and_no_other(
    path: str, keys: KeyFile
) -> None:
    await talk(path, keys, user_id="alice", metadata={"plan": "gold"})
    await talk(path, keys, "other")
    async with ConversationLog.open(path, keys=keys) as log:
        would = await log.erase(session_id="s", dry_run=True)
        assert (would.keys, would.keys_left, destroyed(keys)) == (1, 0, 0)
        done = await log.erase(session_id="s", reason="asked to")
        assert (done.keys, done.keys_left, done.is_complete) == (1, 0, True)
        assert destroyed(keys) == 1
        assert len((await last_erasure(log)).key_ids) == 1
        assert (await log.verify()).ok
        assert (await log.erase(session_id="s")).keys == 0
    assert await read(path, keys, "other") == SAID


async def test_a_copy_of_the_log_from_before_is_unreadable_after_an_erase(
    file: Path, keys: KeyFile
) -> None:
    await talk(file, keys)
    await talk(file, keys, "other")
    copy = file.with_name("copy.db")
    async with ConversationLog.open(file, keys=keys) as log:
        await log.backup(copy)
        await log.erase(session_id="s")
    with pytest.raises(ShreddedError, match="its key was destroyed at"):
        await read(copy, again(keys))
    assert await read(copy, again(keys), "other") == SAID
    async with ConversationLog.open(copy) as log:
        assert (await log.verify()).ok


async def test_a_copy_of_the_keys_from_before_revives_a_copy_of_the_log_until_the_root_is_rotated(
    file: Path, keys: KeyFile
) -> None:
    await talk(file, keys)
    copy, old = file.with_name("copy.db"), file.with_name("old-keys.db")
    async with ConversationLog.open(file, keys=keys) as log:
        await log.backup(copy)
        keys.close()
        shutil.copy(keys.path, old)
        await log.erase(session_id="s")
    assert await read(copy, KeyFile(old, RootKey(ROOT))) == SAID
    new = RootKey(generate_root_key())
    keys.rotate(new)
    with pytest.raises(WrongKeyError):
        await read(copy, KeyFile(old, new))


async def test_erasing_by_user_and_deleted_sessions_destroys_their_keys(
    path: str, keys: KeyFile
) -> None:
    for name in ("a", "b", "c", "d"):
        await talk(path, keys, name, user_id="alice" if name in "ab" else "bob")
    async with ConversationLog.open(path, keys=keys) as log:
        assert (await log.erase(user_id="alice")).keys == 2
        await log.delete_session("c")
        assert (await log.erase(deleted=True)).keys == 1
    assert destroyed(keys) == 3
    assert await read(path, keys, "d") == SAID


async def test_erasing_removed_items_destroys_a_key_once_it_seals_nothing_else(
    path: str, keys: KeyFile
) -> None:
    session = Session("s", path, keys=keys)
    await session.add_items(SAID)
    await session.add_items(MORE)
    await session.pop_item()
    async with ConversationLog.open(path, keys=keys) as log:
        done = await log.erase(popped=True)
        assert (done.events, done.keys, destroyed(keys)) == (1, 0, 0)
        assert await session.get_items() == SAID
        await session.clear_session()
        assert (await log.erase(popped=True, dry_run=True)).keys == 1
        assert (await log.erase(popped=True)).keys == 1
        assert destroyed(keys) == 1
        await session.add_items(MORE)  # under a new key
        assert await session.get_items() == MORE
    session.close()


async def test_who_holds_copies_is_told_of_sealed_items_as_they_were_said(
    path: str, keys: KeyFile
) -> None:
    told: list[Any] = []
    session = Session("s", path, keys=keys)
    await session.add_items(SAID)
    await session.clear_session()
    await eraser.erase(
        session.log,
        PoppedItems(),
        forget=lambda _, session_id, items: told.append((session_id, list(items or ()))),
    )
    assert told == [("s", SAID)]
    session.close()


async def test_what_is_added_after_an_erase_gets_a_key_that_lives(path: str, keys: KeyFile) -> None:
    """The log object still remembers the key that was destroyed."""
    async with (
        ConversationLog.open(path, keys=keys) as log,
        ConversationLog.open(path, keys=keys) as other,
    ):
        for shred_only in (False, True):
            await log.append("s", ItemsAdded(items=SAID), branch_id="main")
            await other.erase(session_id="s", shred_only=shred_only)
            await log.append("s", ItemsAdded(items=MORE), branch_id="main")
            newest = [each async for each in log.read("s", types=[ItemsAdded])][-1]
            assert newest.event == ItemsAdded(items=MORE)
    assert destroyed(keys) == 3 - 1


async def test_a_fork_keeps_placeholders_when_its_origin_is_shredded(
    path: str, keys: KeyFile
) -> None:
    for shred_only, name in ((False, "s"), (True, "t")):
        session = Session(name, path, keys=keys)
        await session.add_items(SAID)
        await session.fork(f"fork of {name}")
        session.close()
        async with ConversationLog.open(path, keys=keys) as log:
            assert (await log.erase(session_id=name, shred_only=shred_only)).forks
        items = await read(path, keys, f"fork of {name}")
        assert [item["role"] for item in items] == ["user", "assistant"]
        assert "hat" not in str(items)


# -- only the key -----------------------------------------------------------------------------


async def test_shredding_only_leaves_the_bytes_and_says_who_when_and_why(
    path: str, keys: KeyFile
) -> None:
    await talk(path, keys, user_id="alice")
    await talk(path, keys, "other")
    async with ConversationLog.open(path, keys=keys) as log:
        would = await log.erase(session_id="s", shred_only=True, dry_run=True)
        assert (would.events, would.keys, destroyed(keys)) == (2, 1, 0)
        with recording(actor="carol"):
            done = await log.erase(session_id="s", shred_only=True, reason="ticket 7")
        assert done == would
        assert destroyed(keys) == 1
        sizes = {each.position: each async for each in log.read("s", types=[ItemsAdded])}
        assert [each.is_erased for each in sizes.values()] == [False]
        assert (await last_erasure(log)).positions == []
        assert (await log.verify()).ok
        with pytest.raises(ShreddedError, match="by carol: ticket 7") as caught:
            _ = [each.event async for each in log.read("s", types=[ItemsAdded])]
        assert (caught.value.actor, caught.value.reason) == ("carol", "ticket 7")
        nothing = await log.erase(session_id="s", shred_only=True)
        assert (nothing.sessions, nothing.keys) == (0, 0)
        both = await log.erase(session_id="s")
        assert (both.events, both.is_complete) == (2, True)
    session = Session("s", path, keys=keys)
    with pytest.raises(UndecodableEventError):
        await session.get_items(as_of=2)
    session.close()
    assert await read(path, keys, "other") == SAID


async def test_a_shredded_session_stays_unreadable_though_its_key_is_back(
    path: str, keys: KeyFile, tmp_path: Path
) -> None:
    await talk(path, keys)
    await talk(path, keys, "other")
    keys.close()
    shutil.copy(keys.path, tmp_path / "old.db")
    async with ConversationLog.open(path, keys=keys) as log:
        with recording(actor="carol"):
            await log.erase(session_id="s", shred_only=True)
    keys.close()
    shutil.copy(tmp_path / "old.db", keys.path)
    assert destroyed(keys) == 0
    session = Session("s", path, keys=again(keys))
    with pytest.raises(ShreddedError, match="by carol"):
        await session.get_items(as_of=1)
    session.close()


async def test_another_process_refuses_what_was_shredded_from_its_next_transaction_on(
    file: Path, keys: KeyFile
) -> None:
    await talk(file, keys)
    session = Session("s", file, keys=keys)
    assert await session.get_items() == SAID
    cipher: Any = session.log.store.cipher
    open_before = cipher.current("s") or cipher._open
    async with ConversationLog.open(file, keys=keys) as log:
        await log.erase(session_id="s", shred_only=True)
    assert open_before
    with pytest.raises(ShreddedError):
        await session.get_items(as_of=1)
    session.close()


async def test_a_log_without_copies_elsewhere_is_shredded_too(path: str, keys: KeyFile) -> None:
    await talk(path, keys)
    async with EventLog.open(path, keys=keys) as log:
        done = await eraser.erase(log, SessionScope("s"), shred_only=True)
        assert (done.keys, destroyed(keys)) == (1, 1)
        with pytest.raises(ShreddedError):
            _ = [each.event async for each in log.read("s", types=[ItemsAdded])]


async def test_shredding_only_needs_keys_and_sealed_contents(path: str, keys: KeyFile) -> None:
    async with ConversationLog.open(path) as log:
        await log.append("s", ItemsAdded(items=SAID), branch_id="main")
        with pytest.raises(KeysMissingError):
            await log.erase(session_id="s", shred_only=True)
    async with ConversationLog.open(path, keys=keys) as log:
        await log.append("s", ItemsAdded(items=MORE), branch_id="main")
        for dry_run in (True, False):
            with pytest.raises(KeysError, match="in plaintext, in 1 of its events"):
                await log.erase(session_id="s", shred_only=True, dry_run=dry_run)
        with pytest.raises(ValueError, match="shred_only"):
            await log.erase(popped=True, shred_only=True)
        assert [each async for each in log.read(types=[ContentErased])] == []
    assert destroyed(keys) == 0


async def test_a_copy_of_a_log_knows_what_was_shredded(
    path: str, keys: KeyFile, tmp_path: Path
) -> None:
    await talk(path, keys)
    async with (
        ConversationLog.open(path, keys=keys) as log,
        ConversationLog.open(tmp_path / "copy.db", keys=None) as copy,
    ):
        with recording(actor="carol"):
            await log.erase(session_id="s", shred_only=True, reason="ticket 7")
        await copy_log(log, copy)
    session = Session("s", tmp_path / "copy.db", keys=keys)
    with pytest.raises(ShreddedError, match="by carol: ticket 7"):
        await session.get_items(as_of=1)
    session.close()


async def test_a_session_that_was_restored_meanwhile_keeps_its_key(
    path: str, keys: KeyFile
) -> None:
    await talk(path, keys)
    async with ConversationLog.open(path, keys=keys) as log:
        await log.delete_session("s")
        scope = DeletedSessions(log.store.clock())
        plans = await log.query(lambda tx: [scope.plan(tx, "s")])
        assert len(plans[0].key_ids) == 1
        await log.restore_session("s")
        shred = partial(eraser._shred, scope, {}, None, None, plans)
        assert await log.write(shred) == []
        assert await log.query(shredding.due) == {}
    assert await read(path, keys) == SAID


# -- unfinished -------------------------------------------------------------------------------


async def test_an_erase_without_keys_is_finished_by_the_next_opening_with_keys(
    path: str, keys: KeyFile
) -> None:
    await talk(path, keys)
    async with ConversationLog.open(path) as log:
        done = await log.erase(session_id="s")
        assert (done.events, done.keys, done.keys_left, done.is_complete) == (1, 0, 1, False)
        assert (await log.erase(session_id="s")).keys_left == 1
    assert destroyed(keys) == 0
    async with ConversationLog.open(path, keys=keys, read_only=True):
        assert destroyed(keys) == 0
    async with ConversationLog.open(path, keys=keys) as log:
        assert destroyed(keys) == 1
        assert (await log.erase(session_id="s")).is_complete
        assert log.store.read_sync(shredding.due) == {}


async def test_keys_that_cannot_be_written_keep_the_shredding_due(
    file: Path, keys: KeyFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    from agents_eventlog.eventlog.storage.sqlite import connections

    await talk(file, keys)
    monkeypatch.setattr(connections, "BUSY_TIMEOUT_SECONDS", 0.05)
    keys.close()
    with closing(sqlite3.connect(keys.path, isolation_level=None)) as holder:
        async with ConversationLog.open(file, keys=keys) as log:
            holder.execute("BEGIN IMMEDIATE")
            with pytest.raises(BusyError):
                await log.erase(session_id="s")
            holder.execute("ROLLBACK")
            holder.execute("BEGIN IMMEDIATE")
        async with ConversationLog.open(file, keys=keys):  # opens all the same
            assert destroyed(keys) == 0
        holder.execute("ROLLBACK")
    async with ConversationLog.open(file, keys=keys) as log:
        assert destroyed(keys) == 1
        assert (await log.erase(session_id="s")).is_complete
