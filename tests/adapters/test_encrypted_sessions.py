"""Histories of the SDK's ``EncryptedSession``: imported with its key, as if it had not encrypted them."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import time
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from agents import SQLiteSession
from agents.extensions.memory import AdvancedSQLiteSession as SdkSession
from agents.extensions.memory import EncryptedSession
from cryptography.fernet import Fernet

from agents_eventlog import AdvancedSQLiteSession, EventLog, KeyFile, import_file
from agents_eventlog.adapters.cli.terminal import ExitCode
from agents_eventlog.eventlog import HistoryImported
from agents_eventlog.eventlog.errors import SourceError, WrongKeyError
from tests.adapters.looking import documents, one, run

if TYPE_CHECKING:
    from pathlib import Path

FERNET = Fernet.generate_key().decode()
TEXT = "a key that is only a text"
SAID: list[Any] = [
    {"role": "user", "content": "Where is my parcel?"},
    {"type": "function_call", "call_id": "c1", "name": "track", "arguments": "{}"},
    {"type": "function_call_output", "call_id": "c1", "output": "Hamburg"},
    {"role": "assistant", "content": "In Hamburg."},
    {"role": "user", "content": "Thanks"},
]


def inner(path: Path, kind: str, session_id: str) -> Any:
    if kind == "SQLiteSession":
        return SQLiteSession(session_id, path)
    return SdkSession(session_id=session_id, db_path=path, create_tables=True)


async def write(path: Path, key: str, kind: str = "SQLiteSession", session_id: str = "s") -> None:
    session = inner(path, kind, session_id)
    await EncryptedSession(session_id, session, key, ttl=1).add_items(SAID)
    session.close()


def change(path: Path, sql: str, *parameters: Any) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(sql, parameters)
        connection.commit()


async def outcomes(path: Path, source: Path, key: str, **options: Any) -> list[Any]:
    async with EventLog.open(path) as log:
        return [each async for each in import_file(log, source, encryption_key=key, **options)]


@pytest.mark.parametrize("kind", ["SQLiteSession", "AdvancedSQLiteSession"])
@pytest.mark.parametrize("key", [FERNET, TEXT], ids=["Fernet key", "text"])
async def test_items_turns_tools_and_times_come_back(tmp_path: Path, kind: str, key: str) -> None:
    source, path = tmp_path / "theirs.db", tmp_path / "ours.db"
    before = datetime.now(UTC).replace(microsecond=0)
    for session_id in ("s", "t"):
        await write(source, key, kind, session_id)
    stored = source.read_bytes()
    change(source, "UPDATE agent_messages SET created_at = '2001-01-01'")
    assert b"Hamburg" not in stored
    for dry_run in (True, False):
        found = await outcomes(path, source, key, dry_run=dry_run)
        assert [(each.outcome, each.problem) for each in found] == [("imported", None)] * 2
    with closing(AdvancedSQLiteSession("s", path)) as session:
        assert await session.get_items() == SAID
        turns = await session.get_conversation_turns()
        assert [turn["content"] for turn in turns] == ["Where is my parcel?", "Thanks"]
        times = [datetime.fromisoformat(turn["timestamp"]).replace(tzinfo=UTC) for turn in turns]
        assert min(times) >= before
        assert [each[0] for each in await session.get_tool_usage()] == ["track"]


async def test_branches_of_an_encrypted_history_come_back(tmp_path: Path) -> None:
    source, path = tmp_path / "theirs.db", tmp_path / "ours.db"
    session = inner(source, "AdvancedSQLiteSession", "s")
    wrapped = EncryptedSession("s", session, TEXT)
    await wrapped.add_items(SAID)
    change(source, "UPDATE message_structure SET branch_id = 'draft' WHERE sequence_number > 3")
    session.close()
    await outcomes(path, source, TEXT)
    with closing(AdvancedSQLiteSession("s", path)) as ours:
        assert await ours.get_items(branch_id="draft") == SAID[3:]


async def test_turns_that_their_time_to_live_hides_are_left_out_as_a_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, path = tmp_path / "theirs.db", tmp_path / "ours.db"
    now = time.time()
    session = inner(source, "AdvancedSQLiteSession", "s")
    for age, items in ((900, SAID[4:]), (700, SAID[:2]), (500, SAID[2:4])):
        with monkeypatch.context() as patched:
            patched.setattr(time, "time", lambda age=age: now - age)
            await EncryptedSession("s", session, TEXT).add_items(items)
    session.close()
    ttl = timedelta(minutes=10)  # the call is older, its output is not
    for dry_run in (True, False):
        [outcome] = await outcomes(path, source, TEXT, encrypted_ttl=ttl, dry_run=dry_run)
        assert (outcome.outcome, outcome.problem) == ("imported", None)
    with closing(AdvancedSQLiteSession("s", path)) as ours:
        assert await ours.get_items() == SAID[:4]
        [imported] = [each.event async for each in ours.log.read(types=[HistoryImported])]
    assert isinstance(imported, HistoryImported)
    assert imported.counts["expired"] == 1
    other = tmp_path / "other.db"
    [outcome] = await outcomes(other, source, TEXT, encrypted_ttl=timedelta(seconds=1))
    assert (outcome.outcome, outcome.events) == ("imported", 1)
    with pytest.raises(ValueError, match="encrypted_ttl"):
        await outcomes(other, source, TEXT, encrypted_ttl=timedelta(0))
    async with EventLog.open(other) as log:
        with pytest.raises(TypeError, match="needs an encryption_key"):
            _ = [each async for each in import_file(log, source, encrypted_ttl=ttl)]


async def test_expired_items_and_such_that_do_not_open_are_told_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, path = tmp_path / "theirs.db", tmp_path / "ours.db"
    with monkeypatch.context() as patched:
        now = time.time()
        patched.setattr(time, "time", lambda: now - 900)
        await write(source, FERNET)
    unopened = json.dumps({"__enc__": 1, "payload": 5})
    change(source, "UPDATE agent_messages SET message_data = ? WHERE id = 1", unopened)
    [outcome] = await outcomes(path, source, FERNET, encrypted_ttl=timedelta(minutes=10))
    assert (outcome.outcome, outcome.events) == ("imported", 1)
    assert "the key does not open them: 1 message" in outcome.problem


async def test_what_was_planted_or_damaged_is_left_out_and_counted(tmp_path: Path) -> None:
    source, path = tmp_path / "theirs.db", tmp_path / "ours.db"
    await write(source, FERNET)
    with closing(SQLiteSession("s", source)) as session:
        await session.add_items([{"role": "user", "content": "planted"}])
    with closing(sqlite3.connect(source)) as connection:
        [text, *_] = connection.execute("SELECT message_data FROM agent_messages").fetchone()
    cut = {**json.loads(text), "payload": json.loads(text)["payload"][:-8]}
    for wrong in (cut, {**cut, "payload": 5}, {**cut, "kid": "newer"}, {**cut, "v": 2}):
        change(
            source,
            "INSERT INTO agent_messages (session_id, message_data) VALUES ('s', ?)",
            json.dumps(wrong),
        )
    change(source, "INSERT INTO agent_messages (session_id, message_data) VALUES ('s', 'not JSON')")
    for dry_run in (True, False):
        [outcome] = await outcomes(path, source, FERNET, dry_run=dry_run)
        assert outcome.outcome == "imported"
        assert outcome.problem == (
            "left out, because damaged: 1 message; "
            "left out, because the key does not open them: 4 messages; "
            "left out, because not encrypted: 1 message"
        )
    with closing(AdvancedSQLiteSession("s", path)) as ours:
        assert await ours.get_items() == SAID


async def test_a_token_of_another_session_does_not_open(tmp_path: Path) -> None:
    source, path = tmp_path / "theirs.db", tmp_path / "ours.db"
    await write(source, FERNET, session_id="victim")
    change(source, "UPDATE agent_messages SET session_id = 's'")
    found = {each.session_id: each for each in await outcomes(path, source, FERNET)}
    assert found["s"].outcome == "broken"
    assert found["victim"].events == 1  # that it was imported


@pytest.mark.parametrize("dry_run", [True, False])
async def test_another_key_breaks_every_session_and_writes_nothing(
    tmp_path: Path, dry_run: bool
) -> None:
    source, path = tmp_path / "theirs.db", tmp_path / "ours.db"
    await write(source, FERNET)
    [outcome] = await outcomes(path, source, TEXT, dry_run=dry_run)
    assert outcome.outcome == "broken"
    assert "is it the right encryption key?" in outcome.problem
    with pytest.raises(WrongKeyError, match="is empty"):
        await outcomes(path, source, "")
    async with EventLog.open(path) as log:
        assert [each async for each in log.read()] == []


async def test_a_key_is_for_the_sdks_tables_also_beside_a_log(tmp_path: Path) -> None:
    source, path = tmp_path / "both.db", tmp_path / "ours.db"
    await write(source, FERNET)
    AdvancedSQLiteSession("s", source).close()  # migrates them as they are
    [outcome] = await outcomes(path, source, FERNET)
    assert outcome.outcome == "imported"
    with closing(AdvancedSQLiteSession("s", path)) as ours:
        assert await ours.get_items() == SAID
    lines = tmp_path / "lines.jsonl"
    lines.write_text('{"kind":"log","format":1}\n')
    with pytest.raises(SourceError, match="is not a database"):
        await outcomes(path, lines, FERNET)


def test_the_command_takes_the_key_from_an_environment_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, path, keys = tmp_path / "theirs.db", tmp_path / "ours.db", KeyFile(tmp_path / "keys.db")
    asyncio.run(write(source, FERNET))
    words = ("import", path, source, "--encryption-key-env", "THEIR_KEY")
    monkeypatch.delenv("THEIR_KEY", raising=False)
    assert run(*words).exit_code == ExitCode.USAGE
    assert "THEIR_KEY is not set" in run(*words).stderr
    monkeypatch.setenv("THEIR_KEY", TEXT)
    assert run(*words).exit_code == ExitCode.FINDINGS
    assert not path.exists()
    keys.create()
    monkeypatch.setenv("EVENTLOG_KEYS", keys.path)
    monkeypatch.setenv("THEIR_KEY", FERNET)
    result = run(*words, "--json")
    assert result.exit_code == ExitCode.CLEAN
    assert one(result, "receipt")["imported"] == 1
    aged = ("import", tmp_path / "recent.db", source, "--encrypted-ttl", "12h")
    assert run(*aged).exit_code == ExitCode.USAGE
    assert run(*aged, *words[3:]).exit_code == ExitCode.CLEAN
    assert documents(run("show", tmp_path / "recent.db", "s", "--json"), "item")
    for wrong in ("soon", "0m"):
        assert run(*aged[:4], wrong, *words[3:]).exit_code == ExitCode.USAGE
    assert b"Hamburg" not in path.read_bytes()  # it is sealed again, with keys of its own
    shown = documents(run("show", path, "s", "--json"), "item")
    assert [each["item"] for each in shown] == SAID
