"""``log.backup`` and ``eventlog backup``: complete copies of a file in use, and their restore."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from agents_eventlog.adapters.cli.terminal import ExitCode
from agents_eventlog.eventlog import EventLog, ItemsAdded
from agents_eventlog.eventlog.errors import CorruptFileError, DiskFullError, OpenError
from agents_eventlog.eventlog.storage.sqlite import backup as sqlite_backup
from tests.adapters.looking import one, run, tampered, user

if TYPE_CHECKING:
    from pathlib import Path

WRITER = """
import asyncio, sys
from agents_eventlog.eventlog import EventLog, ItemsAdded
async def write():
    async with EventLog.open(sys.argv[1]) as log:
        while True:
            await log.append("live", ItemsAdded(items=[{"role": "user", "content": "x" * 500}]))
            print(flush=True)
asyncio.run(write())
"""


def names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


async def test_a_backup_of_a_log_in_use_has_every_event(tmp_path: Path) -> None:
    async with EventLog.open(tmp_path / "log.db") as log:
        await log.append("s", ItemsAdded(items=[user("hello")]))
        made = await log.backup(tmp_path / "copy.db")
        assert made.head == await log.head()
        assert made.events == 1
        assert made.bytes == (tmp_path / "copy.db").stat().st_size
    async with EventLog.open(tmp_path / "copy.db") as copy:
        assert await copy.version("s") == 1
        assert (await copy.append("s", ItemsAdded(items=[user("more")]))).version == 2
    assert names(tmp_path) == ["copy.db", "log.db"]


def test_backups_beside_a_writing_process_are_of_one_moment_each(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE
    ) as writer:
        try:
            assert writer.stdout is not None
            writer.stdout.readline()
            heads = []
            for number in range(5):
                made = one(run("backup", path, tmp_path / f"{number}.db", "--json"), "backup")
                heads.append(made["head"]["position"])
        finally:
            writer.kill()
    assert heads == sorted(heads)
    assert run("verify", tmp_path / "4.db").exit_code == ExitCode.CLEAN
    assert run("doctor", tmp_path / "4.db").exit_code == ExitCode.CLEAN


def test_a_backup_of_a_backup_restores_it(db: Path, tmp_path: Path) -> None:
    made = run("backup", db, tmp_path / "saved.db")
    head = made.stdout.splitlines()[1].split()[1]
    for name in names(tmp_path):
        if name.startswith(db.name):
            (tmp_path / name).unlink()
    restored = run("backup", tmp_path / "saved.db", db, "--expect-head", head)
    assert restored.exit_code == ExitCode.CLEAN
    assert run("verify", db, "--expect-head", head).exit_code == ExitCode.CLEAN


@pytest.mark.parametrize("ending", ["", "-wal", "-journal"])
def test_nothing_is_replaced_and_no_old_write_ahead_log_is_applied(
    db: Path, tmp_path: Path, ending: str
) -> None:
    there = tmp_path / f"saved.db{ending}"
    there.write_bytes(b"kept")
    result = run("backup", db, tmp_path / "saved.db")
    assert result.exit_code == ExitCode.CANNOT_OPEN
    assert result.stderr == f"error: {there} exists: expected a new file\n"
    assert there.read_bytes() == b"kept"


def test_a_copy_that_does_not_verify_is_not_kept(db: Path, tmp_path: Path) -> None:
    tampered(db, "UPDATE events SET recorded_at = 1 WHERE position = 2")
    result = run("backup", db, tmp_path / "saved.db")
    assert result.exit_code == ExitCode.CANNOT_OPEN
    assert "does not verify" in result.stderr
    assert names(tmp_path) == [db.name]


async def test_a_copy_without_an_expected_head_is_not_kept(db: Path, tmp_path: Path) -> None:
    async with EventLog.open(db, read_only=True) as log:
        with pytest.raises(CorruptFileError, match="does not verify"):
            await log.backup(tmp_path / "saved.db", expect_head=f"99:{'0' * 64}")
    assert names(tmp_path) == [db.name]


def test_an_invalid_head_is_a_wrong_command(db: Path, tmp_path: Path) -> None:
    result = run("backup", db, tmp_path / "saved.db", "--expect-head", "x")
    assert result.exit_code == ExitCode.USAGE
    assert names(tmp_path) == [db.name]


def test_a_copy_has_the_permissions_of_the_file(db: Path, tmp_path: Path) -> None:
    db.chmod(0o640)
    assert run("backup", db, tmp_path / "saved.db").exit_code == ExitCode.CLEAN
    assert (tmp_path / "saved.db").stat().st_mode & 0o777 == 0o640


async def test_a_backup_that_fails_leaves_nothing(
    db: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        error = sqlite3.OperationalError("database or disk is full")
        error.sqlite_errorcode = sqlite3.SQLITE_FULL
        raise error

    async with EventLog.open(db, read_only=True) as log:
        with pytest.raises(OpenError, match="does not exist"):
            await log.backup(tmp_path / "missing" / "saved.db")
        monkeypatch.setattr(sqlite_backup, "_copy", full)
        with pytest.raises(DiskFullError):
            await log.backup(tmp_path / "saved.db")
    assert names(tmp_path) == [db.name]


async def test_a_log_in_memory_has_no_file_to_back_up(tmp_path: Path) -> None:
    async with EventLog.open(":memory:") as log:
        with pytest.raises(ValueError, match="in memory"):
            await log.backup(tmp_path / "saved.db")


# -- a folder of backups --------------------------------------------------------------------------


def test_the_newest_backups_are_kept_and_none_is_made_before_it_is_due(
    db: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "backups"
    folder.mkdir()
    for name in ("talk-20200101T000000Z.db", "talk-20200102T000000Z.db", "other.db"):
        (folder / name).write_bytes(b"")
    made = one(run("backup", db, folder, "--every", "1d", "--keep", 2, "--json"), "backup")
    assert made["removed"] == [str(folder / "talk-20200101T000000Z.db")]
    kept = names(folder)
    assert kept[:2] == ["other.db", "talk-20200102T000000Z.db"]
    assert str(folder / kept[2]) == made["path"]
    again = run("backup", db, folder, "--every", "1d", "--keep", 1)
    assert (again.exit_code, again.stdout) == (ExitCode.CLEAN, "no backup is due\n")
    undue = one(run("backup", db, folder, "--every", "1d", "--json"), "backup")
    assert (undue["path"], undue["removed"]) == (None, [])
    assert names(folder) == kept


def test_old_backups_are_removed_only_after_a_new_one(db: Path, tmp_path: Path) -> None:
    folder = tmp_path / "backups"
    folder.mkdir()
    (folder / "talk-20200101T000000Z.db").write_bytes(b"")
    shown = run("backup", db, folder, "--every", "1d", "--keep", 1).stdout
    assert shown.endswith("removed 1 old backup\n")
    before = names(folder)
    tampered(db, "UPDATE events SET recorded_at = 1 WHERE position = 2")
    assert run("backup", db, folder, "--keep", 1).exit_code == ExitCode.CANNOT_OPEN
    assert names(folder) == before


@pytest.mark.parametrize("options", [("--every", "1d"), ("--keep", 1)])
def test_dated_backups_make_their_folder_and_refuse_a_file(
    db: Path, tmp_path: Path, options: tuple[object, ...]
) -> None:
    assert run("backup", db, tmp_path / "backups", *options).exit_code == ExitCode.CLEAN
    assert len(names(tmp_path / "backups")) == 1
    result = run("backup", db, db, *options)
    assert (result.exit_code, result.stdout) == (ExitCode.USAGE, "")
    assert "expect a folder" in result.stderr


def test_an_invalid_age_is_a_wrong_command(db: Path, tmp_path: Path) -> None:
    assert run("backup", db, tmp_path, "--every", "often").exit_code == ExitCode.USAGE
    made = run("backup", db, tmp_path / "backups", "--every", "1d")
    assert made.exit_code == ExitCode.CLEAN
    assert run("backup", db, tmp_path / "backups", "--every", "x").exit_code == ExitCode.USAGE


# -- a plain copy ---------------------------------------------------------------------------------


async def test_a_plain_copy_of_a_file_in_use_is_explained(tmp_path: Path, command: Any) -> None:
    path = tmp_path / "log.db"
    async with EventLog.open(path) as log:
        await log.append("s", ItemsAdded(items=[user("hello")]))
        shutil.copyfile(path, tmp_path / "copy.db")
        for name in ("show", "doctor"):
            words = [name, tmp_path / "copy.db", *(["s"] if name == "show" else [])]
            result = command(*words)
            assert result.exit_code == ExitCode.CANNOT_OPEN
            assert "copied without its -wal" in result.stderr
            assert "eventlog backup" in result.stderr
