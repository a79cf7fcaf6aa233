"""The command that imports: what it tells, how it ends, and that it may be killed."""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
from agents import SQLiteSession

from agents_eventlog.eventlog import EventLog, ItemsAdded
from tests.adapters.cli.processes import on_a_terminal
from tests.adapters.moving import (
    NAMES,
    exported,
    imported,
    sdk_file,
    user,
    versions,
    write,
)
from tests.adapters.old_files import (
    assert_sound,
    damage,
    execute,
    ours,
    stored,
)
from tests.contract.items import turns

if TYPE_CHECKING:
    from pathlib import Path


def is_there(path: Path) -> bool:
    return path.exists()


async def test_the_command_imports_what_the_other_exported(
    command: Any, full: Path, new: Path, tmp_path: Path
) -> None:
    lines = tmp_path / "h.jsonl"
    assert command("export", full, "--output", lines).exit_code == 0
    dry = command("import", new, lines, "--dry-run")
    assert (dry.exit_code, dry.stdout.split()) == (
        0,
        f"would import 3 sessions, 53 events into {new}".split(),
    )
    assert not is_there(new)
    done = command("import", new, lines)
    assert (done.exit_code, done.stdout.split()) == (
        0,
        f"imported 3 sessions, 53 events into {new}".split(),
    )
    assert command("export", new).stdout == lines.read_text()


async def test_the_command_tells_conflicts_and_exits_with_1(
    command: Any, full: Path, new: Path
) -> None:
    await imported(new, await exported(full, "t"))
    done = command("import", new, full)
    assert done.exit_code == 1
    assert "t: refused: session 't' already exists" in done.stdout
    assert "2 sessions, 28 events" in done.stdout
    assert "; 1 refused" in done.stdout
    assert command("import", new, full, "--on-conflict", "skip").exit_code == 0
    renamed = command("import", new, full, "--on-conflict", "rename")
    assert renamed.exit_code == 0
    assert "u: renamed to u-imported" in renamed.stdout


async def test_the_commands_json_is_a_line_a_session_and_a_receipt(
    command: Any, full: Path, new: Path
) -> None:
    await imported(new, await exported(full, "t"))
    *sessions, receipt = map(json.loads, command("import", new, full, "--json").stdout.splitlines())
    assert [s["outcome"] for s in sessions] == ["imported", "refused", "imported"]
    assert set(sessions[0]) == {
        *("kind", "session_id", "outcome", "imported_as", "events", "problem")
    }
    assert receipt == {
        "kind": "receipt",
        "imported": 2,
        "renamed": 0,
        "skipped": 0,
        "refused": 1,
        "broken": 0,
        "incomplete": 0,
        "events": 28,
        "dry_run": False,
    }


async def test_a_dry_run_of_the_command_leaves_the_log_as_it_is(
    command: Any, full: Path, new: Path
) -> None:
    await imported(new, await exported(full, "t"))
    before = stored(new)
    assert command("import", new, full, "--dry-run").exit_code == 1
    assert stored(new) == before
    assert await versions(new, "s") == [0]


def test_no_log_is_made_for_a_source_that_is_none(command: Any, new: Path, tmp_path: Path) -> None:
    text = tmp_path / "text"
    text.write_text("hello\n")
    execute(tmp_path / "other", "CREATE TABLE recipes (name)")
    for source in ("text", "other", "nothing"):
        done = command("import", new, tmp_path / source)
        assert done.exit_code == 3
        assert done.stderr.startswith("error: ")
        assert not new.exists()


async def test_no_log_is_made_where_every_session_is_broken(
    command: Any, full: Path, new: Path, tmp_path: Path
) -> None:
    lines = await exported(full)
    source = tmp_path / "h.jsonl"
    write(source, [line for line in lines if '"version":2,' not in line])
    done = command("import", new, source)
    assert done.exit_code == 1
    assert "s: broken: version 3 comes after version 1" in done.stdout
    assert f"imported 0 sessions, 0 events into {new}; 3 broken" in done.stdout
    told = command("import", new, source, "--json").stdout.splitlines()
    assert [json.loads(line).get("outcome") for line in told] == ["broken"] * 3 + [None]
    assert json.loads(told[-1])["dry_run"] is False
    assert not list(new.parent.glob(f"{new.name}*"))


async def test_a_log_is_made_for_the_first_session_that_is_not_broken(
    command: Any, full: Path, new: Path, tmp_path: Path
) -> None:
    lines = await exported(full)
    source = tmp_path / "h.jsonl"
    write(source, [line for line in lines if line != lines[2]])
    done = command("import", new, source)
    assert "imported 2 sessions, 28 events" in done.stdout
    assert done.stdout.count("broken") == 2
    assert await versions(new, "s", "t", "u") == [0, 25, 3]


def test_a_name_that_no_table_can_have_is_a_usage_error(
    command: Any, full: Path, new: Path
) -> None:
    assert command("import", new, full, "--sessions-table", "a b").exit_code == 2
    assert not new.exists()


@pytest.mark.parametrize("options", [[], ["--dry-run"]])
async def test_a_session_of_which_something_was_left_out_is_told_and_exits_with_1(
    command: Any, new: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, options: list[str]
) -> None:
    source = tmp_path / "sdk.db"
    await sdk_file(source)
    execute(source, "UPDATE agent_messages SET message_data = 'torn' WHERE id = 2")
    done = command("import", new, source, *options)
    assert done.exit_code == 1
    assert "talk: left out, because damaged: 1 message\n" in done.stdout
    assert "2 sessions" in done.stdout
    assert done.stdout.endswith("; 1 incomplete\n")
    assert len(caplog.records) == (
        not options
    )  # of a new log too, for which the source is tried first
    told = command("import", tmp_path / "other.db", source, *options, "--json")
    receipt = json.loads(told.stdout.splitlines()[-1])
    assert (receipt["imported"], receipt["incomplete"]) == (2, 1)


async def test_the_command_takes_the_sdks_tables_by_name(
    command: Any, tmp_path: Path, new: Path
) -> None:
    source = tmp_path / "custom.db"
    await sdk_file(source, **NAMES)
    names = ["--sessions-table", "MY_SESSIONS", "--messages-table", '"my_messages"']
    done = command("import", new, source, *names)
    assert (done.exit_code, "imported 2 sessions" in done.stdout) == (0, True)


async def test_the_sdks_tables_are_read_beside_a_log_when_they_are_named(
    command: Any, tmp_path: Path, new: Path
) -> None:
    source = tmp_path / "adopted.db"
    with closing(SQLiteSession("s", source)) as old:
        await old.add_items([user("before")])
        ours(source, "s").close()
        await old.add_items([user("late")])
    for number, option in enumerate(("sessions", "messages")):
        target = tmp_path / f"{number}.db"
        done = command("import", target, source, f"--{option}-table", f"agent_{option}")
        assert (done.exit_code, done.stderr) == (0, "")
        assert await ours(target, "s").get_items() == [user("before"), user("late")]
    assert command("import", new, source).exit_code == 0
    assert await ours(new, "s").get_items() == [user("before")]


def test_tables_that_are_named_and_not_there_are_an_error(
    command: Any, full: Path, new: Path
) -> None:
    done = command("import", new, full, "--sessions-table", "agent_sessions")
    assert (done.exit_code, done.stdout) == (3, "")
    assert f"{full} does not hold the SDK's tables" in done.stderr
    assert not new.exists()


def test_an_error_names_the_source_and_what_it_is(command: Any, new: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    (tmp_path / "text").write_text("hello\n")
    (tmp_path / "folder").mkdir()
    for name, problem in (
        ("empty", " is empty\n"),
        ("text", ": the source is not an exported log: "),
        ("folder", ": expected a file, got a folder\n"),
        ("nothing", "\n"),
    ):
        done = command("import", new, tmp_path / name)
        assert (done.exit_code, done.stderr.count("\n")) == (3, 1)
        assert f"{tmp_path / name}{problem}" in done.stderr
        assert not new.exists()


async def test_a_hostile_session_id_is_shown_not_obeyed(command: Any, new: Path) -> None:
    async with EventLog.open(new) as log:
        await log.append("\x1b[31m\u202e", ItemsAdded(items=["x"]))
    for arguments in ([], ["--on-conflict", "rename"]):
        done = command("import", new, new, *arguments)
        assert "\\x1b[31m" in done.stdout
        assert "\x1b" not in done.stdout
        assert "\u202e" not in done.stdout


async def test_what_came_in_before_a_source_failed_is_told(
    command: Any, tmp_path: Path, new: Path
) -> None:
    source = tmp_path / "sdk.db"
    for number in range(60):
        with closing(SQLiteSession(f"talk {number}", source)) as session:
            await session.add_items(turns("text " * 200))
    with closing(sqlite3.connect(source)) as connection:
        connection.execute("PRAGMA journal_mode=DELETE")
    damage(source)
    done = command("import", new, source, "--json")
    assert done.exit_code == 3
    assert "error: " in done.stderr
    told = [json.loads(line) for line in done.stdout.splitlines()]
    if told:
        assert told[-1]["imported"] == len(told) - 1


async def test_a_terminal_shows_progress(full: Path, new: Path, tmp_path: Path) -> None:
    lines = str(tmp_path / "h.jsonl")
    for words in (["export", str(full), "--output", lines], ["import", str(new), lines]):
        shown = await asyncio.to_thread(on_a_terminal, *words)
        assert f"{words[0]}ing" in shown
        assert "100%" in shown


def begin_and_kill(target: Path, source: Path, sessions: int) -> list[bytes]:
    """Begin an import and kill it once it has told of so many sessions; return what it told."""
    words = [sys.executable, "-m", "agents_eventlog", "import", str(target), str(source), "--json"]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(words, stdout=subprocess.PIPE, env=environment) as process:
        assert process.stdout is not None
        told = [process.stdout.readline() for _ in range(sessions)]
        process.kill()
    return told


async def test_of_an_import_that_is_killed_only_whole_sessions_are_there(
    new: Path, tmp_path: Path
) -> None:
    source, lines = tmp_path / "many.db", tmp_path / "many.jsonl"
    async with EventLog.open(source, durability="normal") as log:
        for number in range(300):
            await log.append(f"talk {number}", [ItemsAdded(items=[user("x")])] * 20)
    write(lines, await exported(source))
    told = await asyncio.to_thread(begin_and_kill, new, lines, 20)
    assert json.loads(told[-1])["outcome"] == "imported"
    there = await versions(new, *(f"talk {number}" for number in range(300)))
    assert set(there) == {0, 20}
    assert there.index(0) >= 20
    await assert_sound(new)
    outcomes = await imported(new, await exported(source), on_conflict="skip")  # and so it goes on
    assert {outcome.outcome for outcome in outcomes} == {"imported", "skipped"}
    assert await exported(new) == await exported(source)
