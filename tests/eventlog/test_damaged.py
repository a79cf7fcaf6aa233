"""Metadata that is damaged is told by its event, wherever it is needed."""

from __future__ import annotations

import sqlite3
from contextlib import aclosing, closing
from typing import TYPE_CHECKING

import pytest

from agents_eventlog import projections
from agents_eventlog.eventlog import EventLog, ItemsAdded
from agents_eventlog.eventlog.errors import (
    CorruptFileError,
    IdempotencyConflictError,
    UndecodableEventError,
)
from agents_eventlog.eventlog.jsonl import export as jsonl_export
from tests.fuzz.damage import put_out_of_order

if TYPE_CHECKING:
    from pathlib import Path

SAID = ItemsAdded(items=["said"])


@pytest.fixture
async def path(tmp_path: Path) -> Path:
    """Return a log of two events, the second appended under a key."""
    path = tmp_path / "log.db"
    async with EventLog.open(path) as log:
        await log.append("s", SAID)
        await log.append("s", SAID, idempotency_key="key")
    return path


def damage(path: Path, metadata: str) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("DROP TRIGGER events_are_never_changed")
        connection.execute("UPDATE events SET metadata = ? WHERE position = 2", (metadata,))
        connection.commit()


@pytest.mark.parametrize("metadata", ["", "{", "[]", "null", "7", "[" * 100_000])
async def test_damaged_metadata_is_told_by_position(path: Path, metadata: str) -> None:
    damage(path, metadata)
    async with EventLog.open(path) as log:
        events = [event async for event in log.read()]
        assert events[0].metadata == {}
        with pytest.raises(UndecodableEventError, match="metadata of the event at position 2") as e:
            _ = events[1].metadata
        assert e.value.position == 2
        with pytest.raises(UndecodableEventError, match="position 2"):
            await log.append("s", SAID, idempotency_key="key")
        assert [f.position for f in (await log.verify()).findings] == [2, 2]
        assert await log.version("s") == 2


@pytest.mark.parametrize("count", ['"x"', "0", "2", "null"])
async def test_a_key_whose_events_are_not_told_is_a_conflict(path: Path, count: str) -> None:
    damage(path, f'{{"events_in_append":{count}}}')
    async with EventLog.open(path) as log:
        with pytest.raises(IdempotencyConflictError):
            await log.append("s", SAID, idempotency_key="key")
        assert await log.version("s") == 2


async def test_a_time_that_cannot_be_read_stops_a_replay_there(path: Path) -> None:
    damage(path, '{"occurred_at"')
    with pytest.raises(UndecodableEventError, match="position 2"):
        EventLog.open_sync(path, projections=projections.default())


async def test_events_that_are_out_of_order_are_told_and_nobody_reads_them_for_ever(
    path: Path,
) -> None:
    put_out_of_order(path)
    async with EventLog.open(path, read_only=True) as log:
        (finding,) = (await log.verify()).findings[:1]
        assert "the rows after 0 are out of order" in finding.problem
        assert await log.version("s") == 2  # found by an index, which is whole
        with pytest.raises(CorruptFileError, match="out of order"):
            projections.replay(log, projections.default().named([]), check=True)
        with pytest.raises(CorruptFileError, match="out of order"):
            _ = [line async for line in jsonl_export.export_lines(log)]
        with pytest.raises(CorruptFileError, match="out of order"):
            async with aclosing(log.subscribe()) as events:
                await anext(events)
