"""What is made of a file that SQLite, or Python, cannot make sense of."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from agents_eventlog.eventlog import EventLog, ItemsAdded
from agents_eventlog.eventlog.errors import (
    CorruptFileError,
    EventLogError,
    OpenError,
    ReadOnlyFileError,
)
from agents_eventlog.eventlog.storage.sqlite import connections

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
async def path(tmp_path: Path) -> Path:
    """Return a log of three events that nobody has open."""
    path = tmp_path / "log.db"
    async with EventLog.open(path) as log:
        await log.append("s", [ItemsAdded(items=[n]) for n in range(3)])
    return path


@pytest.mark.parametrize("read_only", [False, True])
@pytest.mark.parametrize("before", ["CREATE TABLE ", "CREATE "])
def test_a_schema_that_is_no_text_is_damage(path: Path, read_only: bool, before: str) -> None:
    whole = path.read_bytes()
    place = whole.index(b"CREATE TABLE checkpoints") + len(before)
    path.write_bytes(whole[:place] + b"\xb5\xb5(" + whole[place + 3 :])
    with pytest.raises(CorruptFileError, match="is damaged") as caught:
        EventLog.open_sync(path, read_only=read_only).close()
    assert caught.value.path == str(path)


async def test_an_index_that_lacks_an_event_is_found(path: Path) -> None:
    assert connections.damages(str(path), "events") == []
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA writable_schema = ON")
        connection.execute(
            "UPDATE sqlite_schema SET sql = replace(sql, 'IS NOT NULL', 'IS NULL')"
            " WHERE name = 'events_idempotency_key'"
        )
        connection.commit()
    assert any("missing from index events_idempotency_key" in d for d in found_in(path))
    async with EventLog.open(path, read_only=True) as log:
        verified = await log.verify()
    assert not verified.ok
    assert {finding.position for finding in verified.findings} == {None}
    assert "the table is damaged" in verified.findings[0].problem


def found_in(path: Path) -> list[str]:
    return connections.damages(str(path), "events")


def test_a_file_without_sense_has_no_table_to_look_at(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    path.write_bytes(b"SQLite format 3\x00" + bytes(4_080))
    with pytest.raises(EventLogError, match="log"):
        connections.damages(str(path), "events")


def test_a_file_that_went_meanwhile_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(OpenError, match="cannot be opened"):
        connections.damages(str(tmp_path / "gone.db"), "events")


@pytest.mark.parametrize("is_there", [False, True])
def test_what_nobody_may_write_is_told_as_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_there: bool
) -> None:
    monkeypatch.setattr(connections.os, "access", lambda *_: False)
    path = tmp_path / "log.db"
    if is_there:
        path.touch()
    error = sqlite3.OperationalError("unable to open database file")
    error.sqlite_errorcode = sqlite3.SQLITE_CANTOPEN
    told = connections.translated(error, str(path))
    assert isinstance(told, ReadOnlyFileError)
    assert str(told).startswith(str(path) if is_there else f"the folder {tmp_path}")
    assert told.__cause__ is error


@pytest.mark.parametrize("ending", ["-wal", "-shm"])
def test_a_file_beside_the_log_that_nobody_may_write_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str
) -> None:
    path = str(tmp_path / "log.db")
    beside = tmp_path / f"log.db{ending}"
    assert str(connections.read_only_error(path)) == f"{path} or its folder cannot be written"
    beside.touch()
    assert str(connections.read_only_error(path)) == f"{path} or its folder cannot be written"
    monkeypatch.setattr(connections.os, "access", lambda name, _: name != str(beside))
    assert str(connections.read_only_error(path)) == f"{beside} cannot be written"
