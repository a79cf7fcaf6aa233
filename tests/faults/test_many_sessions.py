"""Sessions come and go unclosed, one per request: threads and open files stay as many as they were."""

from __future__ import annotations

import asyncio
import gc
import os
import sqlite3
import threading
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from agents_eventlog import AdvancedSQLiteSession
from agents_eventlog.eventlog import EventLog
from agents_eventlog.eventlog.storage import registry
from tests.faults.support import PATIENCE_SECONDS, batch, batches, check_sound, open_files, user

if TYPE_CHECKING:
    from collections.abc import Callable

    Opened = Callable[..., AdvancedSQLiteSession]


def wait_for_idle() -> None:
    """Wait for the files that are closed in the background."""
    for store in list(registry._closing):
        store.close()


def threads(path: Path) -> int:
    """Return how many threads work for a file."""
    return sum(path.name in thread.name for thread in threading.enumerate())


async def test_thousands_of_unclosed_sessions_share_two_connections(path: Path) -> None:
    async def request(number: int) -> None:
        session = AdvancedSQLiteSession(f"s{number % 50}", path)
        await session.add_items(batch(number))
        await session.get_items(limit=2)

    await asyncio.gather(*(request(n) for n in range(50)))
    before = open_files(path.parent), threads(path)
    running = set(threading.enumerate())
    assert before[1] == 2
    assert before[0].count(path.name) == 2  # one writes and checkpoints, one reads
    for start in range(50, 2_050, 50):
        await asyncio.gather(*(request(start + n) for n in range(50)))
    assert (open_files(path.parent), threads(path)) == before
    assert set(threading.enumerate()) <= running  # threads of earlier tests may have ended
    found = batches(await AdvancedSQLiteSession("s7", path).get_items())
    assert found == [str(n) for n in range(7, 2_050, 50)]


def test_sessions_that_are_gone_leave_nothing_behind_in_memory(path: Path) -> None:
    def use(count: int) -> int:
        for _ in range(count):
            asyncio.run(AdvancedSQLiteSession("s", path).get_items())
        gc.collect()
        return sum(
            isinstance(thing, AdvancedSQLiteSession | EventLog) for thing in gc.get_objects()
        )

    assert use(2) == use(20)


async def test_unclosed_sessions_in_memory_leave_no_thread_behind() -> None:
    async def request() -> None:
        session = AdvancedSQLiteSession("s")
        await session.add_items([user("one")])
        assert await session.get_items() == [user("one")]

    before = threading.active_count()
    for _ in range(30):
        await request()
    gc.collect()
    deadline = time.monotonic() + PATIENCE_SECONDS
    while threading.active_count() > before and time.monotonic() < deadline:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    assert threading.active_count() <= before


def test_files_that_nobody_uses_any_more_are_closed(tmp_path: Path) -> None:
    def use(number: int) -> None:
        session = AdvancedSQLiteSession("s", tmp_path / f"{number}.db")
        asyncio.run(session.add_items(batch(number)))

    most = 0
    files = 2 * registry.limits.idle_files
    for number in range(files):
        use(number)
        gc.collect(1)
        wait_for_idle()
        most = max(most, sum(name.endswith(".db") for name in open_files(tmp_path)))
    assert most <= 2 * (registry.limits.idle_files + 1)
    ours = [path for path in registry._entries if path.startswith(str(tmp_path))]
    assert len(ours) <= registry.limits.idle_files + 1
    assert sum(str(number) + ".db" in thread.name for thread in threading.enumerate()) <= most
    for number in (0, 9, files - 1):  # closed or not, all is there
        found = asyncio.run(AdvancedSQLiteSession("s", tmp_path / f"{number}.db").get_items())
        assert batches(found) == [str(number)]


def test_a_file_in_use_stays_open_however_many_others_come_and_go(tmp_path: Path) -> None:
    kept = AdvancedSQLiteSession("s", tmp_path / "kept.db")
    store = kept.log.store
    for number in range(registry.limits.idle_files + 3):
        asyncio.run(AdvancedSQLiteSession("s", tmp_path / f"{number}.db").add_items(batch(number)))
        gc.collect(1)
    asyncio.run(kept.add_items(batch("kept")))
    assert AdvancedSQLiteSession("s", tmp_path / "kept.db").log.store is store


def test_the_last_to_close_closes_the_file(path: Path) -> None:
    first, second = (AdvancedSQLiteSession(name, path) for name in ("first", "second"))
    asyncio.run(first.add_items(batch("one")))
    wal = path.with_name(f"{path.name}-wal")
    assert wal.exists()
    first.close()
    assert wal.exists()
    asyncio.run(second.add_items(batch("two")))
    second.close()
    assert not wal.exists()
    assert open_files(path.parent) == []
    assert threads(path) == 0
    second.close()  # idempotent
    with pytest.raises(RuntimeError, match="closed"):
        asyncio.run(second.add_items(batch("late")))
    check_sound(path)


def test_a_file_that_was_closed_opens_again(path: Path) -> None:
    for n in range(5):
        session = AdvancedSQLiteSession("s", path)
        asyncio.run(session.add_items(batch(n)))
        session.close()
    reopened = AdvancedSQLiteSession("s", path)
    assert batches(asyncio.run(reopened.get_items())) == [str(n) for n in range(5)]


def test_two_names_of_one_file_are_one_file(path: Path) -> None:
    session = AdvancedSQLiteSession("s", path)
    link = path.with_name("link.db")
    link.symlink_to(path)
    other = AdvancedSQLiteSession("s", str(link))
    relative = AdvancedSQLiteSession("s", os.path.relpath(path))
    assert session.log.store is other.log.store is relative.log.store


@pytest.mark.parametrize("is_replaced", [False, True], ids=["deleted", "replaced"])
def test_a_file_that_was_deleted_is_not_written_to_any_more(path: Path, is_replaced: bool) -> None:
    old = AdvancedSQLiteSession("s", path)
    asyncio.run(old.add_items(batch("old")))
    if is_replaced:
        template = path.with_name("template.db")
        made = AdvancedSQLiteSession("s", template)
        asyncio.run(made.add_items(batch("template")))
        made.close()
        for suffix in ("-wal", "-shm"):
            path.with_name(path.name + suffix).unlink()
        template.replace(path)
    else:
        for file in path.parent.glob(f"{path.name}*"):
            file.unlink()
    new = AdvancedSQLiteSession("s", path)
    asyncio.run(new.add_items(batch("new")))
    expected = ["template", "new"] if is_replaced else ["new"]
    assert batches(asyncio.run(new.get_items())) == expected
    with pytest.raises(RuntimeError, match="closed"):
        asyncio.run(old.add_items(batch("lost")))  # rather than into a file that is gone
    with closing(sqlite3.connect(path)) as connection:
        [events] = connection.execute("SELECT COUNT(*) FROM events").fetchone()
    assert events == len(expected)
    new.close()
    check_sound(path)


def idle(folder: Path, name: str) -> str:
    """Leave a file open that nobody uses any more; return its path."""
    log = EventLog.open_sync(folder / name)
    path = log.path
    del log
    gc.collect()
    return path


def test_opening_a_file_does_not_wait_for_idle_files_to_close(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = idle(tmp_path, "slow.db")
    monkeypatch.setattr(registry.limits, "idle_files", 1)
    store = registry._entries[slow].store
    assert store is not None
    go_on = threading.Event()
    working = store.read_ahead(lambda _: go_on.wait(PATIENCE_SECONDS))
    idle(tmp_path, "newer.db")
    with closing(EventLog.open_sync(tmp_path / "other.db")):  # would wait for ever
        assert store.is_closed
        assert store in registry._closing
        with closing(EventLog.open_sync(slow)) as again:  # not even for the file itself
            assert again.store is not store
            assert again.store.read_sync(lambda tx: tx.one("SELECT 1")) == (1,)
        go_on.set()
        assert working.result()
        store.close()
    assert not store.is_working


def test_the_idle_file_that_was_opened_least_recently_is_closed_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = idle(tmp_path, "first.db"), idle(tmp_path, "second.db")
    idle(tmp_path, "first.db")
    monkeypatch.setattr(registry.limits, "idle_files", 1)
    with closing(EventLog.open_sync(tmp_path / "other.db")):
        assert first in registry._entries
        assert second not in registry._entries


def test_files_that_close_more_slowly_than_others_are_opened_are_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry.limits, "idle_files", 0)
    idle(tmp_path, "first.db")
    with closing(EventLog.open_sync(tmp_path / "other.db")):
        assert not any(store.is_working for store in registry._closing)


def test_a_file_that_is_being_opened_is_not_closed_as_idle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = idle(tmp_path, "opening.db")
    monkeypatch.setattr(registry.limits, "idle_files", 0)
    entry = registry._entries[path]
    with entry.lock, closing(EventLog.open_sync(tmp_path / "other.db")):
        assert entry.store is not None
        assert not entry.store.is_closed


def test_a_file_that_its_last_user_closes_at_the_same_time_is_closed_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = idle(tmp_path, "closing.db")
    entry = registry._entries[path]
    store, lock = entry.store, threading.Lock()
    assert store is not None

    class Meanwhile:
        """A lock that another thread held before, to close the store."""

        release, locked = lock.release, lock.locked

        def acquire(self, *, blocking: bool) -> bool:
            entry.store = None
            return lock.acquire(blocking=blocking)

    monkeypatch.setattr(registry.limits, "idle_files", 0)
    monkeypatch.setattr(entry, "lock", Meanwhile())
    with closing(EventLog.open_sync(tmp_path / "other.db")):
        assert store not in registry._closing
        assert path not in registry._entries


def test_a_file_that_is_being_closed_is_opened_again_after_that(tmp_path: Path) -> None:
    log = EventLog.open_sync(tmp_path / "slow.db")
    go_on = threading.Event()
    working = log.store.read_ahead(lambda _: go_on.wait(PATIENCE_SECONDS))
    closing_it = threading.Thread(target=log.close)
    closing_it.start()
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not log.store.is_closed and time.monotonic() < deadline:
        time.sleep(0.001)
    EventLog.open_sync(tmp_path / "other.db").close()  # tidies up, but not what is under way
    assert log.path in registry._entries
    go_on.set()
    closing_it.join(PATIENCE_SECONDS)
    assert working.result()
    with closing(EventLog.open_sync(log.path)) as again:
        assert again.store is not log.store
    registry.release(again.store, again._user)  # once more is no harm
    EventLog.open_sync(tmp_path / "other.db").close()
    assert log.path not in registry._entries
    registry.release(again.store, again._user)
