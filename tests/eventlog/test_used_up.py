"""Numbers that no log comes to by counting: the file was tampered with, and says so."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from agents_eventlog import AdvancedSQLiteSession
from agents_eventlog.eventlog import EventLog, ItemsAdded
from agents_eventlog.eventlog.errors import CorruptFileError

TOO_LARGE = 2**63 - 1


@pytest.mark.parametrize("column", ["position", "version"])
async def test_a_number_that_cannot_be_counted_on_from_is_told_before_anything_is_written(
    tmp_path: Path, column: str
) -> None:
    path = tmp_path / "log.db"
    said = ItemsAdded(items=[{"role": "user", "content": "hello"}])
    async with EventLog.open(path) as log:
        await log.append("s", [said])
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("DROP TRIGGER events_are_never_changed")
        connection.execute(f"UPDATE events SET {column} = {TOO_LARGE}")

    async with EventLog.open(path) as log:
        with pytest.raises(CorruptFileError, match=f"{column} {TOO_LARGE}"):
            await log.append("s", [said])
        verified = await log.verify()
        assert not verified.ok
        assert len([event async for event in log.read()]) == 1


@pytest.mark.parametrize("seq", ["'many'", "9e99", "NULL"])
async def test_a_sequence_that_is_no_number_is_passed_over(tmp_path: Path, seq: str) -> None:
    path = tmp_path / "log.db"
    said = ItemsAdded(items=[{"role": "user", "content": "hello"}])
    async with EventLog.open(path) as log:
        await log.append("s", [said])
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(f"UPDATE sqlite_sequence SET seq = {seq} WHERE name = 'events'")

    session = AdvancedSQLiteSession("s", path)
    assert (await session.log.verify()).ok
    assert len(await session.get_items()) == 1
    await session.add_items([{"role": "user", "content": "and more"}])
    assert len(await session.get_items()) == 2
    assert (await session.log.verify()).ok
    session.close()
    session.log.close()
