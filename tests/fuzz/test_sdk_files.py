"""Damaged files of the SDK's classes: what comes in is sound, or the file is refused by a clear error."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from agents_eventlog import AdvancedSQLiteSession, projections
from agents_eventlog.adapters.openai_agents.migration.import_file import import_file
from agents_eventlog.eventlog import EventLog
from tests.adapters.looking import run
from tests.adapters.moving import sdk_file
from tests.fuzz.damage import INTEGERS, TEXTS, damaged, damaged_json
from tests.fuzz.targets import check_sound, documented, let_go

if TYPE_CHECKING:
    from pathlib import Path
    from random import Random

    from agents_eventlog.eventlog.jsonl.import_ import ImportResult

TABLES = {
    "agent_sessions": ("session_id", "created_at", "updated_at"),
    "agent_messages": ("id", "session_id", "message_data", "message_data", "created_at"),
    "message_structure": (
        *("session_id", "message_id", "branch_id", "message_type", "sequence_number"),
        *("user_turn_number", "branch_turn_number", "tool_name", "created_at"),
    ),
    "turn_usage": (
        *("session_id", "branch_id", "user_turn_number", "requests", "input_tokens"),
        *("output_tokens", "total_tokens", "input_tokens_details", "output_tokens_details"),
        "created_at",
    ),
    "branch_reservations": ("session_id", "branch_id"),
}
CELLS = (*INTEGERS, None, 2.5, 1e999, *TEXTS, b"blob", "2024-99-99", "9999-12-31T23:59:59+14:00")
ROUNDS = 8
PROOF_ROUNDS = 1_000

pytestmark = pytest.mark.usefixtures("nothing_left_open")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a file of the SDK's class: two sessions with branches, tools and usage."""
    path = tmp_path_factory.mktemp("sdk") / "whole.db"
    asyncio.run(sdk_file(path))
    return path


def damage(chance: Random, path: Path) -> str:
    """Change cells, or the schema, as no program of the SDK's would; return what was done."""
    done = []
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA foreign_keys = OFF")
        for _ in range(chance.choice([1, 1, 3, 10])):
            table = chance.choice(list(TABLES))
            column = chance.choice(TABLES[table])
            try:
                sql, values = _change(chance, connection, table, column)
                connection.execute(sql, values)
                done.append(f"{sql} {values}"[:200])
            except sqlite3.Error:
                continue  # it would not even fit the table, or the table is gone
    return "; ".join(done)


def _change(
    chance: Random, connection: sqlite3.Connection, table: str, column: str
) -> tuple[str, tuple[Any, ...]]:
    row = f"rowid = (SELECT rowid FROM {table} ORDER BY rowid LIMIT 1 OFFSET {chance.randrange(9)})"
    match chance.randrange(12):
        case 0:
            return f"ALTER TABLE {table} RENAME COLUMN {column} TO other", ()
        case 1:
            return chance.choice([f"DROP TABLE {table}", f"DELETE FROM {table}"]), ()
        case 2:
            return f"DELETE FROM {table} WHERE {row}", ()
        case 3:
            return f"CREATE TABLE copy AS SELECT * FROM {table}", ()
        case 4:
            return f"INSERT INTO {table} SELECT * FROM {table} LIMIT 3", ()
        case 5 | 6 if column == "message_data":
            found = connection.execute(f"SELECT message_data FROM {table} WHERE {row}").fetchone()
            new: Any = damaged_json(
                chance, found[0].encode() if found and type(found[0]) is str else b"{}"
            )
            return f"UPDATE {table} SET {column} = CAST(? AS TEXT) WHERE {row}", (new,)
    new = chance.choice(CELLS)
    value = "CAST(? AS TEXT)" if isinstance(new, bytes) and chance.randrange(2) else "?"
    return f"UPDATE {table} SET {column} = {value} WHERE {row}", (new,)


async def bring_in(path: Path) -> list[ImportResult]:
    """Import a file into a log in memory: what was foretold is done, and the log is sound."""
    async with EventLog.open(":memory:", projections=projections.default()) as log:
        foretold = [outcome async for outcome in import_file(log, path, dry_run=True)]
        done = [outcome async for outcome in import_file(log, path)]
        assert done == foretold
        await check_sound(log)
        for outcome in done:
            if outcome.imported_as is not None:
                assert await log.version(outcome.imported_as) == outcome.events
        return done


async def adopt(path: Path) -> None:
    """Open a file as a session, which takes its history over; the log is sound then."""
    session = AdvancedSQLiteSession("talk", path, durability="normal")
    try:
        await session.get_items()
        await check_sound(session.log)
    finally:
        session.close()


def attack(path: Path) -> None:
    documented(lambda: asyncio.run(bring_in(path)))
    result = run("import", path.with_name("new.db"), path)
    path.with_name("new.db").unlink(missing_ok=True)
    assert isinstance(result.exception, SystemExit | None), result.exc_info
    assert result.exit_code in {0, 1, 3}
    documented(lambda: asyncio.run(adopt(path)))
    let_go(path.parent)


def attack_cells(chance: Random, whole: Path, path: Path, rounds: int) -> None:
    for _ in range(rounds):
        path.write_bytes(whole.read_bytes())
        done = damage(chance, path)
        try:
            attack(path)
        except BaseException as error:
            error.add_note(done)
            raise


def attack_bytes(chance: Random, whole: Path, path: Path, rounds: int) -> None:
    for _ in range(rounds):
        for old in path.parent.glob("*.db*"):
            old.unlink()
        path.write_bytes(damaged(chance, whole.read_bytes()))
        attack(path)


def test_the_file_comes_in_when_it_is_well(whole: Path, tmp_path: Path) -> None:
    path = tmp_path / "sdk.db"
    path.write_bytes(whole.read_bytes())
    outcomes = {each.session_id: each.outcome for each in asyncio.run(bring_in(path))}
    assert outcomes == {"talk": "imported", "short": "imported"}
    asyncio.run(adopt(path))


def test_of_damaged_cells_what_comes_in_is_sound(
    whole: Path, tmp_path: Path, chance: Random
) -> None:
    attack_cells(chance, whole, tmp_path / "sdk.db", ROUNDS)


def test_of_damaged_bytes_what_comes_in_is_sound(
    whole: Path, tmp_path: Path, chance: Random
) -> None:
    attack_bytes(chance, whole, tmp_path / "sdk.db", ROUNDS)


@pytest.mark.proof
def test_of_many_damaged_files_what_comes_in_is_sound(
    whole: Path, tmp_path: Path, chance: Random
) -> None:
    attack_cells(chance, whole, tmp_path / "sdk.db", PROOF_ROUNDS)
    attack_bytes(chance, whole, tmp_path / "sdk.db", PROOF_ROUNDS)
