"""Numbers that no log comes to by counting: the file was tampered with, and says so."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from eventlog import EventLog, ItemsAdded
from eventlog.errors import CorruptFileError

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


async def test_a_sequence_that_is_no_number_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    said = ItemsAdded(items=[{"role": "user", "content": "hello"}])
    async with EventLog.open(path) as log:
        await log.append("s", [said])
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE sqlite_sequence SET seq = 'many' WHERE name = 'events'")

    async with EventLog.open(path) as log:
        assert (await log.append("s", [said])).position == 2
        assert (await log.verify()).ok
