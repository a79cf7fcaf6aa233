"""Commits find room in the write-ahead log, and no disk that gives none keeps them from writing."""

from __future__ import annotations

import resource
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from agents_eventlog.eventlog import EventLog, ItemsAdded
from agents_eventlog.eventlog.headroom import ENOUGH_BYTES, ROOM_BYTES, Headroom
from agents_eventlog.eventlog.storage.sqlite import connections
from agents_eventlog.eventlog.storage.sqlite.connections import file_id
from tests.faults.support import open_files

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from sqlite3 import Connection

ONE = ItemsAdded(items=["one"])
EIGHT = b"8 bytes."
LONG = ItemsAdded(items=["x" * 100_000])


def wal_bytes(path: Path) -> int:
    return path.with_name(f"{path.name}-wal").stat().st_size


@pytest.fixture
def path_of_wal(path: Path) -> Path:
    """A write-ahead log of eight bytes, beside something for a database."""
    path.write_bytes(b"database")
    wal = path.with_name(f"{path.name}-wal")
    wal.write_bytes(EIGHT)
    return wal


def headroom_of(path: Path) -> Headroom:
    database = file_id(str(path))
    assert database is not None
    return Headroom(str(path), database)


@pytest.fixture
def headroom(path: Path, path_of_wal: Path) -> Iterator[Headroom]:
    """What keeps room in that log."""
    assert path_of_wal.exists()
    with closing(headroom_of(path)) as headroom:
        yield headroom


async def test_many_commits_write_in_place(path: Path) -> None:
    async with EventLog.open(path) as log:
        await log.append("s", [ONE])
        before = wal_bytes(path)
        for _ in range(5):
            await log.append("s", [ONE])
        assert wal_bytes(path) == before >= ROOM_BYTES


async def test_room_is_made_until_sqlite_begins_again_at_the_start(path: Path) -> None:
    sizes = set()
    async with EventLog.open(path) as log:
        for _ in range(100):
            await log.append("s", [LONG])
            sizes.add(wal_bytes(path))
    assert len(sizes) < 50
    assert ENOUGH_BYTES <= max(sizes) < ENOUGH_BYTES + 2 * ROOM_BYTES


async def test_a_log_that_does_not_wait_for_the_disk_makes_no_room(path: Path) -> None:
    async with EventLog.open(path, durability="normal") as log:
        await log.append("s", [ONE])
        before = wal_bytes(path)
        await log.append("s", [ONE])
        assert wal_bytes(path) > before


def test_what_stands_there_stays_and_zeros_follow(headroom: Headroom, path_of_wal: Path) -> None:
    headroom.keep()
    assert path_of_wal.read_bytes() == EIGHT + bytes(ROOM_BYTES)


def test_room_that_anybody_made_is_enough(
    headroom: Headroom, path: Path, path_of_wal: Path
) -> None:
    with closing(headroom_of(path)) as other:
        for each in (headroom, other, headroom):
            each.keep()
    assert path_of_wal.stat().st_size == 8 + ROOM_BYTES


def test_room_that_is_used_up_is_made_again(headroom: Headroom, path_of_wal: Path) -> None:
    headroom.keep()
    with path_of_wal.open("r+b") as sqlite:
        sqlite.seek(ROOM_BYTES // 8 * 8)
        sqlite.write(EIGHT * 3)
    used = path_of_wal.stat().st_size
    headroom.keep()
    assert path_of_wal.stat().st_size == used + ROOM_BYTES


def test_no_room_is_made_for_the_first_commit_which_may_be_the_only_one(
    headroom: Headroom, path_of_wal: Path
) -> None:
    path_of_wal.write_bytes(b"")
    headroom.keep()
    assert path_of_wal.stat().st_size == 0


@pytest.mark.parametrize(
    ("size", "after"),
    [
        (ENOUGH_BYTES - 1 - ROOM_BYTES // 8 * 8, ENOUGH_BYTES),
        (ENOUGH_BYTES - 1, ENOUGH_BYTES),
        (ENOUGH_BYTES + 7, ENOUGH_BYTES + 7),
    ],
)
def test_a_log_is_never_made_longer_than_sqlite_needs_it(
    headroom: Headroom, path_of_wal: Path, size: int, after: int
) -> None:
    path_of_wal.write_bytes(bytes(size))
    headroom.keep()
    assert path_of_wal.stat().st_size == after


def test_the_log_of_another_database_is_not_touched(
    headroom: Headroom, path: Path, path_of_wal: Path
) -> None:
    path.rename(path.with_name("old.db"))
    path.write_bytes(b"another")
    headroom.keep()
    assert path_of_wal.read_bytes() == EIGHT
    assert not open_files(path.parent)


def test_a_missing_file_is_left_missing(headroom: Headroom, path_of_wal: Path) -> None:
    path_of_wal.unlink()
    headroom.keep()
    assert not path_of_wal.exists()


def test_room_for_which_there_is_none_is_given_back(headroom: Headroom, path_of_wal: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        headroom.keep()
        assert path_of_wal.read_bytes() == EIGHT
        path_of_wal.write_bytes(bytes(1000))
        headroom.keep()  # not a byte fits
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path_of_wal.read_bytes() == bytes(1000)


@pytest.mark.parametrize("when", ["as it is connected", "before the next commit"])
async def test_a_log_that_is_rotated_leaves_that_of_the_next_one_alone(
    path: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    wal = path.with_name(f"{path.name}-wal")
    connect = connections.connect_for_writing

    def rotate(connection: Connection) -> None:
        connection.execute("SELECT 1 FROM sqlite_schema").fetchall()  # has its own log open now
        for file in path.parent.glob(f"{path.name}*"):
            file.rename(file.with_name(f"old-{file.name}"))
        path.write_bytes(b"another")
        wal.write_bytes(EIGHT)

    def connect_and_rotate(path: str, durability: str) -> Connection:
        connection = connect(path, durability)
        rotate(connection)
        return connection

    async with EventLog.open(path) as log:
        await log.append("s", [ONE])
        log.store._on_writer(lambda _: log.store._close_writer())
        if when == "as it is connected":
            monkeypatch.setattr(connections, "connect_for_writing", connect_and_rotate)
        else:
            log.store._on_writer(rotate)
        await log.append("s", [ONE])
        assert wal.read_bytes() == EIGHT
    assert wal.read_bytes() == EIGHT


async def test_a_closed_log_leaves_no_file_open(path: Path) -> None:
    async with EventLog.open(path) as log:
        await log.append("s", [ONE])
        assert open_files(path.parent).count(f"{path.name}-wal") == 2  # SQLite's, and ours
    assert not open_files(path.parent)
