"""A process that is killed between a sealed log and its keys loses nothing, and undoes no shredding."""

from __future__ import annotations

import asyncio
import random
import shutil
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from agents_eventlog import AdvancedSQLiteSession, ConversationLog, KeyFile, RootKey
from agents_eventlog.adapters.conversations.key_checks import KeyCheck, open_all
from agents_eventlog.eventlog import ContentErased, ItemsAdded
from agents_eventlog.eventlog.cipher import shredding
from agents_eventlog.eventlog.errors import EventLogError, KeysError
from agents_eventlog.eventlog.storage.sqlite import connections
from tests.faults.children import sealed
from tests.faults.failing import KINDS, failing_statements
from tests.faults.processes import children
from tests.faults.support import check_sound, user

if TYPE_CHECKING:
    from pathlib import Path

SECRET = "<a secret>"


async def talk(path: Path) -> None:
    """Say a secret in a session of a sealed log, and something else in another one."""
    for session_id, text in (("s", SECRET), ("other", "kept")):
        session = AdvancedSQLiteSession(session_id, path, keys=sealed.key_file(str(path)))
        await session.add_items([user(text)])
        session.close()


def wrapped(path: Path) -> set[bytes]:
    """Return the wrapped keys of a key file."""
    with closing(sqlite3.connect(f"{path}.keys")) as connection:
        sql = "SELECT wrapped FROM keys WHERE wrapped IS NOT NULL"
        return {found for (found,) in connection.execute(sql)}


def held(path: Path, *texts: bytes) -> list[bytes]:
    """Return the texts that any file in the folder of a log holds."""
    files = [file.read_bytes() for file in path.parent.iterdir() if file.is_file()]
    return [text for text in texts if any(text in content for content in files)]


def killed(path: Path, name: str, nth: int) -> bool:
    """Run an operation in a process that is killed before its nth statement; whether it came so far."""
    with children(1, sealed.die, str(path), name, nth) as [child]:
        assert child.hear() == "ready"
        child.tell("go")
        child.process.join()
        return bool(child.process.exitcode)


async def check(path: Path, keys: KeyFile) -> tuple[bool, int]:
    """Open a log with its keys; return whether something was erased, and how many keys are destroyed."""
    async with ConversationLog.open(path, keys=keys) as log:
        counts = KeyCheck()
        assert [each async for each in open_all(log, counts)] == []
        assert await log.query(shredding.due) == {}
        erasures = [each async for each in log.read(types=[ContentErased])]
        items = [each async for each in log.read("other", types=[ItemsAdded])]
        assert [each.event for each in items] == [ItemsAdded(items=[user("kept")])]
    return bool(erasures), sum(each.destroyed for each in keys.logs())


@pytest.mark.parametrize("name", ["erase", "shred"])
def test_an_erase_killed_at_any_statement_destroys_the_key_once_the_log_says_so(
    path: Path, tmp_path: Path, chance: random.Random, name: str
) -> None:
    template = tmp_path / "template" / "log.db"
    template.parent.mkdir()
    asyncio.run(talk(template))
    before = wrapped(template)
    outcomes = set()
    nth = 0
    while True:
        nth += chance.randint(1, 5)
        for suffix in ("", ".keys"):
            shutil.copy(f"{template}{suffix}", f"{path}{suffix}")
        was_killed = killed(path, name, nth)
        assert not held(path, SECRET.encode())
        is_erased, destroyed = asyncio.run(check(path, sealed.key_file(str(path))))
        assert destroyed == int(is_erased)
        outcomes.add(is_erased)
        asyncio.run(sealed.OPERATIONS[name](str(path)))
        gone = before - wrapped(path)
        assert len(gone) == 1
        assert not held(path, *gone)
        check_sound(path)
        for file in path.parent.glob(f"{path.name}*"):
            file.unlink()
        if not was_killed:
            break
    assert nth > 30
    assert outcomes == {False, True}


def test_a_first_write_killed_at_any_statement_leaves_no_event_without_its_key(
    path: Path, chance: random.Random
) -> None:
    asyncio.run(talk(path))
    nth = 0
    while True:
        nth += chance.randint(1, 5)
        was_killed = killed(path, "begin", nth)
        is_erased, destroyed = asyncio.run(check(path, sealed.key_file(str(path))))
        assert (is_erased, destroyed) == (False, 0)
        if not was_killed:
            break
    check_sound(path)
    assert nth > 10


def test_a_rotation_killed_at_any_statement_leaves_the_old_root_key_or_the_new_one(
    path: Path,
) -> None:
    asyncio.run(talk(path))
    for nth in range(1, 100):
        if not killed(path, "rotate", nth):
            break
        asyncio.run(check(path, sealed.key_file(str(path))))
        with pytest.raises(KeysError):
            asyncio.run(check(path, sealed.key_file(str(path), sealed.ROOTS[1])))
    assert nth > 8
    asyncio.run(check(path, sealed.key_file(str(path), sealed.ROOTS[1])))
    with pytest.raises(KeysError):
        asyncio.run(check(path, sealed.key_file(str(path))))


@pytest.mark.parametrize("kind", sorted(KINDS))
async def test_an_erase_whose_nth_statement_fails_destroys_the_key_when_it_is_run_again(
    path: Path, chance: random.Random, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    await talk(path)
    monkeypatch.setattr(connections, "BUSY_TIMEOUT_SECONDS", 0.1)
    statements = failing_statements(monkeypatch)
    keys = sealed.key_file(str(path))
    nth = 0
    async with ConversationLog.open(path, keys=keys) as log:
        while True:
            nth += chance.randint(1, 6)
            failed: Any = None
            with statements.failing(nth, KINDS[kind], "refused"):
                try:
                    found = await log.erase(session_id="s")
                except EventLogError as error:
                    failed = error
            if statements.hit is None:
                break
            assert failed is None or type(failed) is KINDS[kind].promised
        assert nth > 10
        assert (found.is_complete, found.keys_left) == (True, 0)
        assert sum(each.destroyed for each in keys.logs()) == 1
    check_sound(path)


async def test_what_another_process_adds_between_an_erase_and_its_shredding_is_kept(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other process remembers the key which is to be destroyed."""
    finish = shredding.finish
    monkeypatch.setattr(shredding, "finish", lambda *_, **__: 0)
    for shred_only in (False, True):
        with children(1, sealed.wait_and_add, str(path)) as [child]:
            assert child.hear() == "first"
            async with ConversationLog.open(path, keys=sealed.key_file(str(path))) as log:
                await log.erase(session_id="s", shred_only=shred_only)
                assert child.ask("go") == "second"
                finish(log.store)
                added = [each async for each in log.read("s", types=[ItemsAdded])]
                assert added[-1].event == ItemsAdded(items=[user("second")])
                assert added[-2].withheld == ("shredded" if shred_only else "erased")
                await log.erase(session_id="s")
                finish(log.store)
            child.tell("end")
            child.end()


# -- the operations of a key file ---------------------------------------------------------------

LOG = b"a log's own name"
NEW_ROOT = RootKey(sealed.ROOTS[1])

KEY_OPERATIONS: dict[str, Any] = {
    "create": lambda keys, _: keys.create(),
    "register": lambda keys, _: keys.register(b"another log name", 1),
    "log": lambda keys, _: keys.log(LOG),
    "take": lambda keys, _: keys.take(LOG, 2, batch=1),
    "find": lambda keys, used: keys.find(used),
    "destroy": lambda keys, used: keys.destroy(used[:1]),
    "rotate": lambda keys, _: keys.rotate(),
    "destroyed_at": lambda keys, used: keys.destroyed_at(used),
    "epochs": lambda keys, _: keys.epochs(),
    "logs": lambda keys, _: keys.logs(),
}
KEYS_ELSEWHERE = {
    "generation": "in tests/cipher",
    "close": "writes nothing",
    "path": "is a name",
    "exists": "looks for a file",
}


def test_the_table_of_operations_on_keys_is_complete() -> None:
    public = {name for name in dir(KeyFile) if not name.startswith("_")}
    assert public == KEY_OPERATIONS.keys() | KEYS_ELSEWHERE.keys()


@pytest.mark.parametrize("name", KEY_OPERATIONS)
@pytest.mark.parametrize("kind", sorted(KINDS))
def test_an_operation_on_keys_whose_nth_statement_fails_raises_and_loses_no_key(
    path: Path, monkeypatch: pytest.MonkeyPatch, name: str, kind: str
) -> None:
    monkeypatch.setattr(connections, "BUSY_TIMEOUT_SECONDS", 0.05)
    keys = sealed.key_file(str(path))
    keys.register(LOG, 1)
    _, [first, second] = keys.take(LOG, 2, batch=0)
    used = [first.key_id, second.key_id]
    statements = failing_statements(monkeypatch)
    for nth in range(1, 100):
        keys.close()
        with statements.failing(nth, KINDS[kind], "refused"):
            try:
                KEY_OPERATIONS[name](keys, used)
            except EventLogError as error:
                assert type(error) is KINDS[kind].promised  # noqa: PT017
        if statements.hit is None:
            break
        assert sealed.key_file(str(path)).find(used) == {first.key_id: first, second.key_id: second}
    assert nth > 2
    assert sealed.key_file(str(path)).find(used)[second.key_id] == second
    assert keys.log(LOG) is not None
