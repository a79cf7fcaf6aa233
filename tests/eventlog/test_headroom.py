"""Commits find room in the write-ahead log, and no disk that gives none keeps them from writing."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from eventlog import EventLog, ItemsAdded
from eventlog.headroom import ENOUGH_BYTES, ROOM_BYTES, Headroom
from tests.faults.support import open_files

if TYPE_CHECKING:
    from pathlib import Path

ONE = ItemsAdded(items=["one"])
LONG = ItemsAdded(items=["x" * 100_000])


def wal_bytes(path: Path) -> int:
    return path.with_name(f"{path.name}-wal").stat().st_size


@pytest.fixture
def wal(tmp_path: Path) -> Path:
    """A write-ahead log of ten bytes."""
    wal = tmp_path / "log.db-wal"
    wal.write_bytes(b"ten bytes.")
    return wal


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


def test_what_stands_there_stays_and_zeros_follow(wal: Path) -> None:
    headroom = Headroom(str(wal).removesuffix("-wal"))
    headroom.keep()
    assert wal.read_bytes() == b"ten bytes." + bytes(ROOM_BYTES)
    headroom.keep()
    assert wal.stat().st_size == 10 + ROOM_BYTES
    headroom.close()


def test_no_room_is_made_for_the_first_commit_which_may_be_the_only_one(wal: Path) -> None:
    wal.write_bytes(b"")
    with closing(Headroom(str(wal).removesuffix("-wal"))) as headroom:
        headroom.keep()
    assert wal.stat().st_size == 0


@pytest.mark.parametrize(
    ("size", "after"),
    [(ENOUGH_BYTES - 1, ENOUGH_BYTES - 1 + ROOM_BYTES), (ENOUGH_BYTES, ENOUGH_BYTES)],
)
def test_a_log_that_is_long_enough_gets_no_more(wal: Path, size: int, after: int) -> None:
    wal.write_bytes(bytes(size))
    with closing(Headroom(str(wal).removesuffix("-wal"))) as headroom:
        headroom.keep()
    assert wal.stat().st_size == after


def test_a_log_that_was_cut_gets_room_again(wal: Path) -> None:
    with closing(Headroom(str(wal).removesuffix("-wal"))) as headroom:
        headroom.keep()
        wal.write_bytes(b"")
        headroom.keep()
    assert wal.stat().st_size == ROOM_BYTES


def test_a_closed_one_opens_the_file_that_is_there_now(wal: Path) -> None:
    headroom = Headroom(str(wal).removesuffix("-wal"))
    headroom.keep()
    headroom.close()
    wal.unlink()
    wal.write_bytes(b"another")
    headroom.keep()
    headroom.close()
    assert wal.read_bytes() == b"another" + bytes(ROOM_BYTES)


def test_a_missing_file_is_left_missing(wal: Path) -> None:
    wal.unlink()
    Headroom(str(wal).removesuffix("-wal")).keep()
    assert not wal.exists()


def test_a_disk_without_room_is_left_to_the_commit(wal: Path) -> None:
    wal.unlink()
    wal.symlink_to("/dev/full")
    with closing(Headroom(str(wal).removesuffix("-wal"))) as headroom:
        headroom.keep()


async def test_a_closed_log_leaves_no_file_open(path: Path) -> None:
    async with EventLog.open(path) as log:
        await log.append("s", [ONE])
        assert open_files(path.parent).count(f"{path.name}-wal") == 2  # SQLite's, and ours
    assert not open_files(path.parent)
