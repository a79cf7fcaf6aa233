"""The events table guards itself, and a file says whose it is."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING

import pytest

from agents_eventlog.eventlog import EventLog, ItemsAdded, errors, properties
from agents_eventlog.eventlog.storage.sqlite import schema
from agents_eventlog.eventlog.storage.sqlite.engine import SQLITE
from agents_eventlog.eventlog.storage.transaction import Transaction

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

COLUMNS = {
    "position": 9,
    "session_id": "'other'",
    "version": 9,
    "type": "'other'",
    "schema_version": 9,
    "branch_id": "'other'",
    "data": "'{}'",
    "data_digest": "x'00'",
    "metadata": "'{}'",
    "idempotency_key": "'other'",
    "recorded_at": 9,
    "digest": "x'00'",
}


@pytest.fixture
async def raw(log: EventLog, path: Path) -> AsyncIterator[sqlite3.Connection]:
    """A connection of the test's own to a log of two events."""
    await log.append("a", [ItemsAdded(items=["one"]), ItemsAdded(items=["two"])])
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA recursive_triggers=ON")
    yield connection
    connection.close()


def digests(raw: sqlite3.Connection) -> list[tuple[int, str | None, bytes]]:
    """Return what must not change."""
    return raw.execute("SELECT position, data, digest FROM events ORDER BY position").fetchall()


@pytest.mark.parametrize("column", COLUMNS)
def test_no_column_of_an_event_can_be_changed(raw: sqlite3.Connection, column: str) -> None:
    before = digests(raw)
    with pytest.raises(sqlite3.IntegrityError, match="events are never changed"):
        raw.execute(f"UPDATE events SET {column} = {COLUMNS[column]} WHERE position = 1")
    assert digests(raw) == before


def test_no_event_can_be_deleted(raw: sqlite3.Connection) -> None:
    before = digests(raw)
    with pytest.raises(sqlite3.IntegrityError, match="events are never deleted"):
        raw.execute("DELETE FROM events")
    assert digests(raw) == before


@pytest.mark.parametrize("verb", ["INSERT OR REPLACE", "REPLACE"])
def test_no_event_can_be_replaced(raw: sqlite3.Connection, verb: str) -> None:
    before = digests(raw)
    with pytest.raises(sqlite3.IntegrityError, match="events are never deleted"):
        raw.execute(
            f"{verb} INTO events (position, session_id, version, type, schema_version, data_digest,"
            " recorded_at, digest) VALUES (1, 'a', 1, 'x', 1, x'00', 1, x'00')"
        )
    assert digests(raw) == before


def test_an_upsert_cannot_change_an_event(raw: sqlite3.Connection) -> None:
    with pytest.raises(sqlite3.IntegrityError, match="events are never changed"):
        raw.execute(
            "INSERT INTO events (session_id, version, type, schema_version, data_digest,"
            " recorded_at, digest) VALUES ('a', 1, 'x', 1, x'00', 1, x'00')"
            " ON CONFLICT (session_id, version) DO UPDATE SET type = 'x'"
        )


def test_erasing_the_payload_is_the_one_change_that_is_let_through(
    raw: sqlite3.Connection,
) -> None:
    raw.execute("UPDATE events SET data = NULL WHERE position = 1")
    assert [data is None for _, data, _ in digests(raw)] == [True, False]


@pytest.mark.parametrize("column", [name for name in COLUMNS if name != "data"])
def test_erasing_changes_nothing_else_along_with_the_payload(
    raw: sqlite3.Connection, column: str
) -> None:
    with pytest.raises(sqlite3.IntegrityError, match="events are never changed"):
        raw.execute(f"UPDATE events SET data = NULL, {column} = {COLUMNS[column]} WHERE position=1")


def test_what_was_erased_cannot_be_written_again(raw: sqlite3.Connection) -> None:
    raw.execute("UPDATE events SET data = NULL WHERE position = 1")
    with pytest.raises(sqlite3.IntegrityError, match="events are never changed"):
        raw.execute("UPDATE events SET data = '{}' WHERE position = 1")


async def test_a_log_with_an_erased_event_still_verifies(
    log: EventLog, raw: sqlite3.Connection
) -> None:
    raw.execute("UPDATE events SET data = NULL WHERE position = 1")
    assert (await log.verify()).ok
    assert [recorded.event is None async for recorded in log.read()] == [True, False]


@pytest.mark.parametrize("version", [0, -1])
def test_a_version_counts_from_1(raw: sqlite3.Connection, version: int) -> None:
    with pytest.raises(sqlite3.IntegrityError, match="CHECK"):
        raw.execute(
            "INSERT INTO events (session_id, version, type, schema_version, data_digest,"
            f" recorded_at, digest) VALUES ('b', {version}, 'x', 1, x'00', 1, x'00')"
        )


def test_a_version_is_given_once(raw: sqlite3.Connection) -> None:
    with pytest.raises(sqlite3.IntegrityError, match="UNIQUE"):
        raw.execute(
            "INSERT INTO events (session_id, version, type, schema_version, data_digest,"
            " recorded_at, digest) VALUES ('a', 2, 'x', 1, x'00', 1, x'00')"
        )


# -- whose file it is -------------------------------------------------------------------------


@pytest.fixture
def made(path: Path) -> Iterator[sqlite3.Connection]:
    """A database that the test makes before anybody opens it as a log."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        yield connection


def opened(path: Path) -> None:
    """Open a file as a log, and close it."""
    EventLog.open_sync(path).close()


def test_a_log_is_known_by_its_file(path: Path) -> None:
    opened(path)
    with closing(sqlite3.connect(path)) as connection:
        assert schema.identify(Transaction(connection, 0, engine=SQLITE), str(path))
        assert connection.execute("PRAGMA application_id").fetchone() == (0x65766C67,)
        assert connection.execute("PRAGMA user_version").fetchone() == (schema.USER_VERSION,)


def test_an_empty_database_is_nobody_s_and_becomes_a_log(
    path: Path, made: sqlite3.Connection
) -> None:
    made.execute("VACUUM")
    assert not schema.identify(Transaction(made, 0, engine=SQLITE), str(path))
    opened(path)
    assert schema.identify(Transaction(made, 0, engine=SQLITE), str(path))


@pytest.mark.parametrize(
    ("statement", "told"),
    [
        ("PRAGMA application_id=7", "is another program's database (application id 0x7)"),
        ("CREATE TABLE theirs (x)", "holds tables of another program"),
        ("CREATE TABLE events (x)", "holds tables of another program"),
        ("CREATE VIEW theirs AS SELECT 1", "holds tables of another program"),
    ],
)
def test_another_program_s_file_is_refused_and_left_as_it_is(
    path: Path, made: sqlite3.Connection, statement: str, told: str
) -> None:
    made.execute(statement)
    before = path.read_bytes()
    with pytest.raises(errors.ForeignFileError) as caught:
        opened(path)
    assert str(caught.value).startswith(f"{path} {told}")
    assert caught.value.path == str(path)
    assert path.read_bytes() == before


def test_a_newer_release_s_file_is_refused_and_left_as_it_is(path: Path) -> None:
    opened(path)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA user_version={schema.USER_VERSION + 1}")
        connection.execute("PRAGMA journal_mode=DELETE")
    before = path.read_bytes()
    for read_only in (False, True):
        with pytest.raises(errors.NewerFileError) as caught:
            EventLog.open_sync(path, read_only=read_only)
        assert (caught.value.found, caught.value.known) == (2, 1)
        assert caught.value.path == str(path)
        assert str(caught.value) == (
            f"{path} has schema version 2, this program knows 1: upgrade agents-eventlog"
        )
    assert path.read_bytes() == before


def test_a_property_is_remembered_until_it_is_set_again_or_forgotten(path: Path) -> None:
    with closing(EventLog.open_sync(path)) as log:
        assert log.store.read_sync(lambda tx: properties.get_property(tx, "colour")) is None
        for value in ("red", "blue"):
            log.store.write_sync(partial(properties.set_property, name="colour", value=value))
    with closing(EventLog.open_sync(path)) as log:
        log.store.write_sync(partial(properties.set_property, name="shape", value="round"))
        assert log.store.read_sync(lambda tx: properties.get_property(tx, "colour")) == "blue"
        log.store.write_sync(partial(properties.delete_property, name="colour"))
        assert log.store.read_sync(lambda tx: properties.get_property(tx, "colour")) is None
        assert log.store.read_sync(lambda tx: properties.get_property(tx, "shape")) == "round"


@pytest.mark.parametrize("read_only", [False, True])
def test_an_empty_database_is_no_log_to_who_asked_for_no_new_one(
    path: Path, made: sqlite3.Connection, read_only: bool
) -> None:
    made.execute("VACUUM")
    with pytest.raises(errors.NoLogError) as caught:
        EventLog.open_sync(path, create=False, read_only=read_only)
    assert (str(caught.value), caught.value.path) == (f"{path} contains no event log", str(path))
    assert not schema.identify(Transaction(made, 0, engine=SQLITE), str(path))
