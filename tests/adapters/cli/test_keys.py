"""``eventlog keys``, and what the other commands show of a sealed log with and without its keys."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from typer.testing import CliRunner

from agents_eventlog import AdvancedSQLiteSession, KeyFile, RootKey
from agents_eventlog.adapters.cli import main as cli_main
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
    import asyncio

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
    assert not [each for each in problems if each["kind"] == "problem" and not each["is_note"]]
    run("erase", path, "--session", "s", "--yes", **without)
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
