"""What is in the log stays there: triggers refuse changes, positions are never given twice."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from agents_eventlog.eventlog import EventLog, append
from agents_eventlog.eventlog.errors import StoreError
from agents_eventlog.eventlog.events import ItemsAdded
from tests.faults.support import batch, batches, check_sound

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from agents_eventlog import AdvancedSQLiteSession

    Opened = Callable[..., AdvancedSQLiteSession]

COLUMNS = {
    "position": 77,
    "session_id": "mallory",
    "version": 77,
    "type": "session_cleared",
    "schema_version": 77,
    "branch_id": "other",
    "data": "{}",
    "data_digest": b"",
    "metadata": "{}",
    "idempotency_key": "other",
    "recorded_at": 77,
    "digest": b"",
}
REPLACE = """
    INSERT OR REPLACE INTO events SELECT position, session_id, version, type, schema_version, branch_id,
        '{"items":[]}', data_digest, metadata, idempotency_key, recorded_at, digest
    FROM events WHERE position = 2
"""


@pytest.fixture
async def written(path: Path) -> Path:
    """Return a file with three events."""
    async with EventLog.open(path) as log:
        for n in range(3):
            await log.append("s", ItemsAdded(items=batch(n)), branch_id="main")
    return path


@pytest.fixture
def stranger(written: Path) -> Iterator[sqlite3.Connection]:
    """Return a connection of another program, with SQLite's own settings."""
    with closing(sqlite3.connect(written, isolation_level=None)) as connection:
        yield connection


async def found(path: Path) -> Any:
    async with EventLog.open(path) as log:
        return await log.verify()


@pytest.mark.parametrize("column", sorted(COLUMNS))
async def test_no_column_of_an_event_can_be_changed(
    written: Path, stranger: sqlite3.Connection, column: str
) -> None:
    with pytest.raises(sqlite3.IntegrityError, match="events are never changed"):
        stranger.execute(f"UPDATE events SET {column} = ? WHERE position = 2", (COLUMNS[column],))
    assert (await found(written)).ok


@pytest.mark.parametrize("column", sorted(set(COLUMNS) - {"data"}))
async def test_nothing_else_can_be_changed_while_a_payload_is_erased(
    written: Path, stranger: sqlite3.Connection, column: str
) -> None:
    with pytest.raises(sqlite3.IntegrityError, match="events are never changed"):
        stranger.execute(
            f"UPDATE events SET data = NULL, {column} = ? WHERE position = 2", (COLUMNS[column],)
        )
    assert (await found(written)).ok


async def test_a_payload_can_be_erased_once_and_never_comes_back(
    written: Path, stranger: sqlite3.Connection
) -> None:
    [data] = stranger.execute("SELECT data FROM events WHERE position = 2").fetchone()
    stranger.execute("UPDATE events SET data = NULL WHERE position = 2")
    verified = await found(written)
    assert (verified.ok, verified.events) == (True, 3)
    with pytest.raises(sqlite3.IntegrityError, match="events are never changed"):
        stranger.execute("UPDATE events SET data = ? WHERE position = 2", (data,))


@pytest.mark.parametrize("position", [1, 2, 3])
async def test_no_event_can_be_deleted(
    written: Path, stranger: sqlite3.Connection, position: int
) -> None:
    with pytest.raises(sqlite3.IntegrityError, match="events are never deleted"):
        stranger.execute("DELETE FROM events WHERE position = ?", (position,))
    with pytest.raises(sqlite3.IntegrityError, match="events are never deleted"):
        stranger.execute("DELETE FROM events")
    assert (await found(written)).events == 3


@pytest.mark.parametrize(
    "statement",
    [
        REPLACE,
        "UPDATE OR REPLACE events SET version = 1 WHERE position = 2",
        "DELETE FROM events WHERE position = 2",
        "UPDATE events SET data = '{}' WHERE position = 2",
    ],
    ids=["insert or replace", "update or replace", "delete", "update"],
)
async def test_a_unit_of_work_cannot_slip_past_the_triggers(written: Path, statement: str) -> None:
    async with EventLog.open(written) as log:
        before = [recorded.digest async for recorded in log.read()]
        with pytest.raises(StoreError, match="events are never"):
            await log.write(lambda tx: tx.all(statement))
        assert [recorded.digest async for recorded in log.read()] == before
        assert (await log.verify()).ok


async def test_a_replacement_by_another_program_is_found_by_the_chain(
    written: Path, stranger: sqlite3.Connection
) -> None:
    stranger.execute(REPLACE)  # SQLite's default lets it pass
    verified = await found(written)
    assert {finding.position for finding in verified.findings} == {2}


@pytest.mark.parametrize("left", [0, 1, 2])
async def test_a_position_is_not_given_again_after_the_last_rows_went(
    path: Path, opened: Opened, left: int
) -> None:
    session = opened()
    for n in range(3):
        await session.add_items(batch(n))
    session.close()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("DROP TRIGGER events_are_never_deleted")
        connection.execute("DELETE FROM events WHERE position > ?", (left,))
        connection.commit()
    async with EventLog.open(path) as log:
        appended = await log.append("s", ItemsAdded(items=batch("new")), branch_id="main")
        assert appended.position == 4
        verified = await log.verify()
    assert any(f"events {left + 1} to 3 are missing" in f.problem for f in verified.findings)


async def test_a_position_that_sqlite_gives_is_not_given_again(
    written: Path, stranger: sqlite3.Connection
) -> None:
    [sql] = stranger.execute("SELECT sql FROM sqlite_schema WHERE name = 'events'").fetchone()
    assert "AUTOINCREMENT" in sql
    stranger.execute("DROP TRIGGER events_are_never_deleted")
    stranger.execute("DELETE FROM events")
    stranger.execute(
        "INSERT INTO events (session_id, version, type, schema_version, data_digest, recorded_at,"
        " digest) VALUES ('s', 1, 'session_cleared', 1, x'', 0, x'')"
    )
    assert stranger.execute("SELECT position FROM events").fetchall() == [(4,)]


async def test_positions_that_were_rolled_back_leave_no_gap(path: Path, opened: Opened) -> None:
    session = opened()
    await session.add_items(batch(0))

    def fail(tx: Any) -> None:
        append(tx, "s", ItemsAdded(items=batch("lost")), branch_id="main")
        raise LookupError("after all")

    with pytest.raises(LookupError):
        await session.log.write(fail)
    await session.add_items(batch(1))
    assert batches(await session.get_items()) == ["0", "1"]
    assert [recorded.position async for recorded in session.log.read()] == [1, 2]
    session.close()
    check_sound(path)
