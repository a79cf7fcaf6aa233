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


@pytest.fixture
async def raw(log: EventLog, path: Path) -> AsyncIterator[sqlite3.Connection]:
    """A connection of the test's own to a log of two events."""
    await log.append("a", [ItemsAdded(items=["one"]), ItemsAdded(items=["two"])])
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA recursive_triggers=ON")
    yield connection
    connection.close()


def test_an_upsert_cannot_change_an_event(raw: sqlite3.Connection) -> None:
    with pytest.raises(sqlite3.IntegrityError, match="events are never changed"):
        raw.execute(
            "INSERT INTO events (session_id, version, type, schema_version, data_digest,"
            " recorded_at, digest) VALUES ('a', 1, 'x', 1, x'00', 1, x'00')"
            " ON CONFLICT (session_id, version) DO UPDATE SET type = 'x'"
        )


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
