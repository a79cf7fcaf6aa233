"""``eventlog keys``, and what the other commands show of a sealed log with and without its keys."""

from __future__ import annotations

import asyncio
import json
import shutil
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
from typer.testing import CliRunner

from agents_eventlog import AdvancedSQLiteSession, ConversationLog, KeyFile, RootKey
from agents_eventlog.adapters.cli import main as cli_main
from agents_eventlog.adapters.conversations.diagnosis import diagnose
from agents_eventlog.eventlog import ItemsAdded, payloads
from agents_eventlog.eventlog.cipher.key_store import keys_of

if TYPE_CHECKING:
    from pathlib import Path

SECRET = "Where is my hat?"
SAID: Any = [
    {"role": "user", "content": SECRET},
    {"type": "function_call", "call_id": "c", "name": "look", "arguments": "{}"},
    {"type": "function_call_output", "call_id": "c", "output": "a red hat"},
    {"role": "assistant", "content": "On your head."},
]


def run(*arguments: object, code: int = 0, **environment: str | None) -> str:
    """Run a command; return what it prints."""
    wide = {**environment, "COLUMNS": "200"}
    result = CliRunner().invoke(cli_main.app, [*map(str, arguments)], env=wide)
    assert result.exit_code == code, result.output + str(result.exception)
    return result.output


@pytest.fixture
def sealed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, dict[str, str]]:
    """A sealed log, and the environment that opens it."""
    monkeypatch.delenv("EVENTLOG_KEY", raising=False)
    document = json.loads(run("keys", "init", tmp_path / "keys.db", "--json"))
    key = document["root_key"]
    keys = KeyFile(tmp_path / "keys.db", RootKey(key))
    assert document["root_id"] == RootKey(key).id

    async def talk() -> None:
        session = AdvancedSQLiteSession(
            "s", tmp_path / "log.db", keys=keys, user_id="alice", metadata={"plan": "gold"}
        )
        await session.add_items(SAID)
        await session.pop_item()
        session.close()

    asyncio.run(talk())
    return tmp_path / "log.db", {"EVENTLOG_KEYS": keys.path, "EVENTLOG_KEY": key}


def test_a_key_file_is_created_with_a_root_key_that_is_printed_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("EVENTLOG_KEY", raising=False)
    printed = run("keys", "init", tmp_path / "keys.db")
    line = next(line for line in printed.splitlines() if line.startswith("EVENTLOG_KEY="))
    key = line.partition("=")[2]
    monkeypatch.setenv("EVENTLOG_KEY", key)
    found = keys_of(tmp_path / "keys.db")
    assert found is not None
    assert found.log(b"any") is None
    assert "exists" in run("keys", "init", tmp_path / "keys.db", code=2)
    again = run("keys", "init", tmp_path / "second.db")
    assert "EVENTLOG_KEY=" not in again


def test_a_key_file_may_have_no_root_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EVENTLOG_KEY", raising=False)
    printed = run("keys", "init", tmp_path / "keys.db", "--no-root")
    assert "the file itself is the secret" in printed
    assert "EVENTLOG_KEY" not in printed
    assert keys_of(tmp_path / "keys.db") is not None


def test_commands_show_contents_with_keys_and_say_sealed_without(
    sealed: tuple[Path, dict[str, str]],
) -> None:
    path, environment = sealed
    without = {"EVENTLOG_KEYS": None, "EVENTLOG_KEY": None}
    for command, shows in (
        (("show", path, "s"), SECRET),
        (("audit", path), SECRET),
        (("sessions", path), SECRET),
        (("show", path, "s", "--turns"), SECRET),
        (("branches", path, "s", "--turns"), SECRET),
    ):
        assert shows in run(*command, **environment)
        hidden = run(*command, **without)
        assert shows not in hidden
        assert "sealed" in hidden
    documents = [
        json.loads(line) for line in run("show", path, "s", "--json", **without).splitlines()
    ]
    assert [each["withheld"] for each in documents[1:]] == ["sealed"] * 3
    assert "function_call look:" in run("audit", path, "--full", **without)
    assert "look" in run("tools", path, **environment)
    assert "On your head." in run("audit", path, "--full", **environment)


def test_what_needs_contents_names_the_missing_keys(sealed: tuple[Path, dict[str, str]]) -> None:
    path, environment = sealed
    without = {"EVENTLOG_KEYS": None, "EVENTLOG_KEY": None}
    for command in (("search", path, "hat"), ("export", path)):
        assert "EVENTLOG_KEYS" in run(*command, code=3, **without)
        assert "hat" in run(*command, **environment)


def test_maintenance_needs_no_keys(sealed: tuple[Path, dict[str, str]]) -> None:
    path, environment = sealed
    without = {"EVENTLOG_KEYS": None, "EVENTLOG_KEY": None}
    run("verify", path, **without)
    run("replay", path, "--check", **without)
    run("replay", path, **without)
    run("usage", path, **without)
    run("branches", path, "s", **without)
    problems = [json.loads(line) for line in run("doctor", path, "--json", **without).splitlines()]
    assert {each["kind"] for each in problems} == {"file", "events", "table", "note", "diagnosed"}
    erased = run("erase", path, "--session", "s", "--yes", code=1, **without)
    assert "1 key still to be destroyed: run this command again with EVENTLOG_KEYS" in erased
    assert "an erasure has yet to destroy 1 key" in run("doctor", path, code=1, **without)
    run("erase", path, "--session", "s", "--yes", **environment)
    assert SECRET not in run("show", path, "s", "--as-of", "2", **environment)


def test_commands_never_seal_a_plain_log(
    tmp_path: Path, sealed: tuple[Path, dict[str, str]]
) -> None:
    _, environment = sealed
    plain = tmp_path / "plain.db"
    AdvancedSQLiteSession("s", plain).close()
    before = plain.read_bytes()[60:64]
    run("replay", plain, **environment)
    assert plain.read_bytes()[60:64] == before  # the schema's version


# -- erase ------------------------------------------------------------------------------------


def documents(*arguments: object, code: int = 0, **environment: str | None) -> list[Any]:
    """Run a command with --json; return its documents."""
    return [
        json.loads(line)
        for line in run(*arguments, "--json", code=code, **environment).splitlines()
    ]


def test_erasing_says_how_many_keys_it_destroys(sealed: tuple[Path, dict[str, str]]) -> None:
    path, environment = sealed
    would = run("erase", path, "--session", "s", **environment)
    assert "would destroy 1 key: no copy of the log can be read with them" in would
    [done] = documents("erase", path, "--session", "s", "--yes", **environment)
    assert (done["keys"], done["keys_left"], done["is_complete"]) == (1, 0, True)
    assert "destroyed 1 key" in run("audit", path, "--full", **environment)


def test_shredding_only_is_shown_with_who_and_why(sealed: tuple[Path, dict[str, str]]) -> None:
    path, environment = sealed
    erase = ("erase", path, "--session", "s", "--shred-only")
    assert "would shred the content of 2 events" in run(*erase, **environment)
    acted = ("--yes", "--actor", "carol", "--reason", "ticket 7")
    assert "shredded the content of 2 events" in run(*erase, *acted, **environment)
    told = run("audit", path, "--full", **environment)
    assert "destroyed the key of the session: ticket 7" in told
    assert "shredded" in told
    assert SECRET not in told
    for command in ("verify", "doctor", "replay"):
        run(command, path, **environment)
    checked = documents("keys", "check", path, **environment)
    assert checked == [
        {
            "kind": "keys_checked",
            "opened": 0,
            "shredded": 2,
            "plaintext": 0,
            "findings": 0,
            "ok": True,
        }
    ]
    assert "user              (shredded)" in run("show", path, "s", "--as-of", "2", **environment)


def test_shredding_only_needs_keys_and_whole_sessions(
    sealed: tuple[Path, dict[str, str]],
) -> None:
    path, environment = sealed
    without = {"EVENTLOG_KEYS": None, "EVENTLOG_KEY": None}
    erase = ("erase", path, "--shred-only", "--yes")
    assert "EVENTLOG_KEYS" in run(*erase, "--session", "s", code=3, **without)
    assert "--popped" in run(*erase, "--popped", code=2, **environment)


# -- list, rotate, check ----------------------------------------------------------------------


def test_keys_are_listed_by_log_and_by_session(sealed: tuple[Path, dict[str, str]]) -> None:
    path, environment = sealed
    file = environment["EVENTLOG_KEYS"]
    found = documents("keys", "list", file, EVENTLOG_KEY=None)
    [epoch, log] = found
    assert (epoch["kind"], epoch["epoch"], epoch["keys"]) == ("epoch", 1, log["unused"] + 64)
    assert (log["kind"], log["used"], log["destroyed"]) == ("log", 64, 0)
    for state in ("present", "destroyed", "missing"):
        without = {"EVENTLOG_KEYS": None, "EVENTLOG_KEY": None}
        [_, _, session] = documents("keys", "list", file, path, **without)
        assert (session["session_id"], session["state"], session["contents"]) == ("s", state, 2)
        assert (session["destroyed_at"] is None) == (state != "destroyed")
        assert state in run("keys", "list", file, path, **without)
        if state == "present":
            run("erase", path, "--session", "s", "--shred-only", "--yes", **environment)
        else:
            with closing(sqlite3.connect(file, isolation_level=None)) as connection:
                connection.execute("DELETE FROM keys WHERE taken_at IS NOT NULL")


def test_rotation_with_a_new_root_key_ends_the_copies_of_the_key_file(
    sealed: tuple[Path, dict[str, str]], tmp_path: Path
) -> None:
    path, environment = sealed
    file = environment["EVENTLOG_KEYS"]
    shutil.copy(file, tmp_path / "old.db")
    [would] = documents("keys", "rotate", file, "--new-root", **environment)
    assert (would["root_key"], would["dry_run"]) == (None, True)
    assert SECRET in run("show", path, "s", **environment)
    [done] = documents("keys", "rotate", file, "--new-root", "--yes", **environment)
    assert done["keys"] == would["keys"] > 1_000
    assert "root key" in run("show", path, "s", code=3, **environment)
    renewed = {**environment, "EVENTLOG_KEY": done["root_key"]}
    assert SECRET in run("show", path, "s", **renewed)
    old = {**renewed, "EVENTLOG_KEYS": str(tmp_path / "old.db")}
    assert "another root key" in run("show", path, "s", code=3, **old)
    printed = run("keys", "rotate", file, "--yes", **renewed)
    assert "wrapped" in printed
    assert "EVENTLOG_KEY=" not in printed
    assert SECRET in run("show", path, "s", **renewed)
    assert "EVENTLOG_KEY=evk1" in run("keys", "rotate", file, "--new-root", "--yes", **renewed)
    assert "nothing was changed" in run("keys", "rotate", file)
    assert "mistyped" in run("keys", "rotate", file, code=3, EVENTLOG_KEY="evk1oops")


def test_check_finds_what_does_not_open(sealed: tuple[Path, dict[str, str]]) -> None:
    path, environment = sealed
    [checked] = documents("keys", "check", path, **environment)
    assert (checked["opened"], checked["ok"]) == (2, True)
    assert "2 contents opened" in run("keys", "check", path, **environment)
    assert "EVENTLOG_KEYS" in run("keys", "check", path, code=3, EVENTLOG_KEYS=None)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("DROP TRIGGER events_are_never_changed")
        connection.execute(
            "UPDATE events SET sealed = CAST(substr(sealed, 1, 110) || zeroblob(20) AS BLOB) "
            "WHERE type = 'items_added'"
        )
    [finding, checked] = documents("keys", "check", path, code=1, **environment)
    assert finding["session_id"] == "s"
    assert "tampered" in finding["problem"]
    assert (checked["opened"], checked["findings"], checked["ok"]) == (1, 1, False)
    assert "1 problem found" in run("keys", "check", path, code=1, **environment)


def test_check_counts_plaintext_and_finds_sessions_whose_key_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, keys = tmp_path / "log.db", KeyFile(tmp_path / "keys.db", ahead=3)
    environment = {"EVENTLOG_KEYS": keys.path, "EVENTLOG_KEY": None}

    async def talk(session_id: str, **given: Any) -> None:
        session = AdvancedSQLiteSession(session_id, path, **given)
        await session.add_items(SAID)
        session.close()

    asyncio.run(talk("before"))
    for name in ("erased", "lost", "kept"):
        asyncio.run(talk(name, keys=keys))
    run("erase", path, "--session", "erased", "--yes", **environment)
    found = documents("keys", "list", keys.path, path)
    [lost] = [each["key_id"] for each in found if each.get("session_id") == "lost"]
    keys.close()
    with closing(sqlite3.connect(keys.path, isolation_level=None)) as connection:
        connection.execute("DELETE FROM keys WHERE key_id = ?", (bytes.fromhex(lost),))
    [finding, checked] = documents("keys", "check", path, code=1, **environment)
    assert (finding["session_id"], "is not in" in finding["problem"]) == ("lost", True)
    assert (checked["opened"], checked["plaintext"], checked["findings"]) == (1, 1, 1)
    told = run("keys", "check", path, code=1, **environment)
    assert "1 content opened, 1 in plaintext, 1 problem found" in told
    assert "session 'lost': the key of 1 content is not in" in problems(path, 1, **environment)


# -- doctor -----------------------------------------------------------------------------------


def problems(path: Path, code: int, **environment: str | None) -> str:
    """Return what doctor finds of keys, and of sessions."""
    found = documents("doctor", path, code=code, **environment)
    return "\n".join(
        f"{each['kind']} {each['subject']}: {each['problem']} -> {each['advice']}"
        for each in found
        if each["kind"] in ("note", "finding")
    )


def test_doctor_finds_keys_that_the_log_does_not_know_to_be_destroyed(
    sealed: tuple[Path, dict[str, str]],
) -> None:
    path, environment = sealed
    file = environment["EVENTLOG_KEYS"]
    noted = problems(path, 0, **environment)
    assert "note keys" in noted
    assert "is in the folder of the log" in noted
    destroy = "UPDATE keys SET wrapped = NULL, destroyed_at = 5 WHERE taken_at IS NOT NULL"
    for statement, told in (
        (
            destroy,
            "its key was destroyed at 1970-01-01T00:00:00.000005Z, though the log records no",
        ),
        ("UPDATE keys SET key_id = randomblob(32) WHERE taken_at IS NOT NULL", "is not in"),
    ):
        with closing(sqlite3.connect(file, isolation_level=None)) as connection:
            connection.execute(statement)
        if "not in" in told:
            assert "do not open this log" in run("doctor", path, code=3, **environment)
        else:
            assert told in problems(path, 1, **environment)
            assert "log does not record" in run("keys", "check", path, code=1, **environment)


def test_doctor_finds_destroyed_keys_that_are_back_and_an_erasure_destroys_them_again(
    sealed: tuple[Path, dict[str, str]], tmp_path: Path
) -> None:
    path, environment = sealed
    file = environment["EVENTLOG_KEYS"]
    shutil.copy(file, tmp_path / "old.db")
    run("erase", path, "--session", "s", "--shred-only", "--yes", **environment)
    assert "finding" not in problems(path, 0, **environment)
    shutil.copy(tmp_path / "old.db", file)
    assert "1 destroyed key in" in problems(path, 1, **environment)
    run("erase", path, "--deleted", "--yes", **environment)
    assert "finding" not in problems(path, 0, **environment)


def test_doctor_notes_what_weakens_a_sealed_log(tmp_path: Path) -> None:
    async def talk(**given: Any) -> None:
        session = AdvancedSQLiteSession("s", tmp_path / "log.db", **given)
        await session.add_items(SAID)
        session.close()

    (tmp_path / "keys").mkdir()
    keys = KeyFile(tmp_path / "keys" / "keys.db", ahead=3)
    asyncio.run(talk())
    asyncio.run(talk(keys=keys))
    noted = problems(tmp_path / "log.db", 0, EVENTLOG_KEYS=keys.path, EVENTLOG_KEY=None)
    assert "1 event from before the log was sealed has its content in plaintext" in noted
    assert "has no root key" in noted
    assert "only 3 keys made ahead" in noted
    assert "folder" not in noted.replace("folder of its own", "")


def test_doctor_notes_the_sdks_tables_in_a_sealed_file(tmp_path: Path) -> None:
    from agents.extensions.memory import AdvancedSQLiteSession as Theirs

    path, keys = tmp_path / "log.db", KeyFile(tmp_path / "keys.db")

    async def talk() -> None:
        theirs = Theirs(session_id="s", db_path=path, create_tables=True)
        await theirs.add_items(SAID)
        theirs.close()
        ours = AdvancedSQLiteSession("s", path, keys=keys)
        assert len(await ours.get_items()) == 4
        ours.close()

    asyncio.run(talk())
    environment = {"EVENTLOG_KEYS": keys.path, "EVENTLOG_KEY": None}
    assert "the SDK's tables hold 4 messages in plaintext" in problems(path, 0, **environment)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for table in ("message_structure", "turn_usage", "agent_messages", "agent_sessions"):
            connection.execute(f"DROP TABLE {table}")
    assert "in plaintext" not in problems(path, 0, **environment)


def test_keys_that_are_not_in_a_file_are_compared_with_the_log_too(tmp_path: Path) -> None:
    file = KeyFile(tmp_path / "keys.db")

    class Elsewhere:
        register, log, take = file.register, file.log, file.take
        find, destroy, generation = file.find, file.destroy, file.generation

    async def talk() -> None:
        async with ConversationLog.open(tmp_path / "log.db", keys=Elsewhere()) as log:
            for session_id in ("s", "t"):
                await log.append(session_id, ItemsAdded(items=SAID), branch_id="main")
            await log.erase(session_id="s", shred_only=True)
            assert diagnose(log).ok
            [_, lost] = await log.query(payloads.used_keys)
            file.destroy([lost.key_id])
            [problem] = [each for each in diagnose(log).problems if not each.is_note]
            assert problem.subject == "session 't'"
            assert "the log records no erasure" in problem.problem

    asyncio.run(talk())
