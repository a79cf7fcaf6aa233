"""Import: each session whole or not at all, from our lines, another log, or the SDK's files."""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
from agents import SQLiteSession
from typer.testing import CliRunner

import projections
from adapters import cli
from adapters.opening import TablePair
from adapters.sdk_files import import_file
from eventlog import EventLog, ItemsAdded
from eventlog.errors import OpenError, SourceError
from eventlog.importing import Imported, import_lines
from tests.adapters.moving import brought, exported, fill, imported, user
from tests.adapters.old_files import (
    assert_sound,
    damage,
    execute,
    grow,
    ours,
    picture,
    sdk,
    set_times,
    stored,
    tables,
)
from tests.adapters.test_cli import on_a_terminal
from tests.contract.items import turns

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

PAIR = TablePair("my_sessions", "my_messages")
NAMES = {"sessions_table": PAIR.sessions, "messages_table": PAIR.messages}


@pytest.fixture
async def db(tmp_path: Path) -> Path:
    """A log with the sessions s, t and u."""
    path = tmp_path / "full.db"
    await fill(path)
    return path


@pytest.fixture
def new(tmp_path: Path) -> Path:
    """Where a log is to be."""
    return tmp_path / "new.db"


@pytest.fixture
def run() -> Callable[..., Any]:
    """Run a command, in a thread that has no event loop; answers with exit_code and output."""

    def invoke(*arguments: object) -> Any:
        with ThreadPoolExecutor(1) as pool:
            words = [str(each) for each in arguments]
            return pool.submit(CliRunner().invoke, cli.app, words).result()

    return invoke


def write(path: Path, lines: list[str]) -> None:
    path.write_text("".join(f"{line}\n" for line in lines))


async def from_file(target: Path, source: Path, **options: Any) -> list[Imported]:
    async with EventLog.open(target, projections=projections.default()) as log:
        return [outcome async for outcome in import_file(log, source, **options)]


async def versions(path: Path, *session_ids: str) -> list[int]:
    async with EventLog.open(path, read_only=True) as log:
        return [await log.version(session_id) for session_id in session_ids]


def is_there(path: Path) -> bool:
    return path.exists()


def by_outcome(outcomes: list[Imported]) -> dict[str, str]:
    return {outcome.session_id: outcome.outcome for outcome in outcomes}


# -- sessions that exist ------------------------------------------------------------------------------


async def test_a_session_that_exists_is_refused_and_the_others_come_in(db: Path, new: Path) -> None:
    async with EventLog.open(new) as log:
        await log.append("t", ItemsAdded(items=["mine"]))
    outcomes = await imported(new, await exported(db))
    assert by_outcome(outcomes) == {"s": "imported", "t": "refused", "u": "imported"}
    assert await versions(new, "s", "t", "u") == [16, 1, 3]
    assert outcomes[1].problem == "session 't' exists already"


async def test_a_session_that_exists_can_be_skipped_or_renamed(db: Path, new: Path) -> None:
    lines = await exported(db)
    await imported(new, lines)
    skipped = await imported(new, lines, on_conflict="skip")
    assert {outcome.outcome for outcome in skipped} == {"skipped"}
    for names in (["s-imported", "t-imported", "u-imported"], ["s-imported-2", "t-imported-2"]):
        renamed = await imported(new, lines, on_conflict="rename")
        assert [outcome.imported_as for outcome in renamed][: len(names)] == names
        assert await versions(new, *names) == [16, 16, 3][: len(names)]
    again = [line.replace("s-imported-2", "s") for line in await exported(new, "s-imported-2")]
    assert again == await exported(db, "s")
    await assert_sound(new)


async def test_a_session_that_was_deleted_exists(db: Path, new: Path) -> None:
    with closing(ours(new, "s")) as session:
        await session.add_items([user("x")])
        await session.delete_session()
    assert by_outcome(await imported(new, await exported(db)))["s"] == "refused"


async def test_what_to_do_about_conflicts_is_checked(new: Path) -> None:
    with pytest.raises(ValueError, match="on_conflict"):
        await imported(new, [], on_conflict="overwrite")


# -- broken sources -----------------------------------------------------------------------------------


def change(line: str, **fields: Any) -> str:
    return json.dumps({**json.loads(line), **fields})


BREAKS: dict[str, tuple[Callable[[list[str]], list[str]], str]] = {
    "its tail is cut": (lambda s: s[:-1], "it has 15 of its 16 events"),
    "it has no events": (lambda s: s[:1], "it has 0 of its 16 events"),
    "an event is missing": (lambda s: [*s[:5], *s[6:]], "version 6 comes after version 4"),
    "an event comes twice": (lambda s: [*s[:5], *s[4:]], "version 4 comes after version 4"),
    "there are more": (lambda s: [*s, change(s[-1], version=17)], "it has 17 of its 16 events"),
    "it is no JSON": (lambda s: [*s[:5], s[5][:-9], *s[6:]], "is not JSON"),
    "a kind is unknown": (lambda s: [*s[:5], '{"kind":"x"}', *s[6:]], "not of a known kind"),
    "it is no object": (lambda s: [*s[:5], "[]", *s[6:]], "not of a known kind"),
    "a type is unknown": (lambda s: [*s[:5], change(s[5], type="x"), *s[6:]], "does not fit"),
    "an erased type is unknown": (
        lambda s: [*s[:2], change(s[2], type="x", data=None), *s[3:]],
        "its type is unknown",
    ),
    "a schema is newer": (
        lambda s: [*s[:5], change(s[5], schema_version=9), *s[6:]],
        "newer release",
    ),
    "data is of another type": (
        lambda s: [*s[:5], change(s[5], data={"items": "x"}), *s[6:]],
        "does not fit",
    ),
    "a digest is missing": (
        lambda s: [*s[:5], change(s[5], data=None), *s[6:]],
        "data_digest",
    ),
    "a time is out of range": (
        lambda s: [*s[:5], change(s[5], recorded_at=10**18), *s[6:]],
        "recorded_at",
    ),
    "metadata is no object": (lambda s: [*s[:5], change(s[5], metadata=[]), *s[6:]], "metadata"),
    "a branch is no text": (
        lambda s: [*s[:5], change(s[5], branch_id=7), *s[6:]],
        "branch_id is a int",
    ),
    "a name is half a character": (
        lambda s: [
            *s[:3],
            change(s[3], data={"branch_id": "\ud800", "from_branch_id": "main", "last_item": None}),
            *s[4:],
        ],
        "surrogate",
    ),
    "a key stands twice": (
        lambda s: [
            change(line, idempotency_key="k") if n in {2, 9} else line for n, line in enumerate(s)
        ],
        "an idempotency key stands twice",
    ),
}


@pytest.mark.parametrize("what", BREAKS)
@pytest.mark.parametrize("dry_run", [False, True])
async def test_of_a_broken_session_nothing_comes_in_and_the_others_do(
    db: Path, new: Path, what: str, dry_run: bool
) -> None:
    break_it, problem = BREAKS[what]
    lines = [
        '{"kind":"log","format":1}',
        *(await exported(db, "s"))[1:],
        *break_it((await exported(db, "t"))[1:]),
        *(await exported(db, "u"))[1:],
    ]
    outcomes = await imported(new, lines, dry_run=dry_run)
    assert by_outcome(outcomes) == {"s": "imported", "t": "broken", "u": "imported"}
    assert problem in str(outcomes[1].problem)
    assert outcomes[1].events == 0
    assert await versions(new, "s", "t", "u") == ([0, 0, 0] if dry_run else [16, 0, 3])


async def test_a_broken_session_line_breaks_no_session_before_it(db: Path, new: Path) -> None:
    lines = await exported(db)
    at = next(n for n, line in enumerate(lines) if '"session_id":"t"' in line)
    lines[at] = lines[at][:-3]
    outcomes = await imported(new, lines)
    told = {"s": "imported", f"(line {at + 1})": "broken", "u": "imported"}
    assert by_outcome(outcomes) == told


async def test_events_without_a_session_are_told(db: Path, new: Path) -> None:
    lines = await exported(db, "u")
    (outcome,) = await imported(new, [lines[0], *lines[2:]])
    assert (outcome.outcome, outcome.problem) == ("broken", "its session line is missing")


@pytest.mark.parametrize(
    ("first", "why"),
    [
        ("hello", "not JSON"),
        ('{"role": "user"}', "known kind"),
        ('{"kind":"session","session_id":"s","events":1}', "opens none"),
        ('{"kind":"log","format":2}', "format 2, this program knows 1"),
    ],
)
async def test_what_is_no_export_is_refused_as_a_whole(new: Path, first: str, why: str) -> None:
    with pytest.raises(SourceError, match=why):
        await imported(new, [first])
    with pytest.raises(SourceError, match="empty"):
        await imported(new, [])


async def test_exports_may_stand_one_behind_the_other(db: Path, new: Path) -> None:
    outcomes = await imported(new, [*await exported(db, "s"), *await exported(db, "u")])
    assert by_outcome(outcomes) == {"s": "imported", "u": "imported"}


async def test_lines_may_come_from_anywhere(db: Path) -> None:
    async def arriving() -> AsyncIterator[bytes]:
        for line in await exported(db):
            yield line.encode()

    async with EventLog.open(":memory:") as log:
        outcomes = [outcome async for outcome in import_lines(log, arriving())]
        assert [outcome.events for outcome in outcomes] == [16, 16, 3]


# -- dry runs -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("on_conflict", ["refuse", "skip", "rename"])
async def test_a_dry_run_tells_what_then_happens_and_writes_nothing(
    db: Path, new: Path, on_conflict: Any
) -> None:
    async with EventLog.open(new) as log:
        await log.append("t", ItemsAdded(items=["mine"]))
    lines = [*await exported(db), *(await exported(db, "s"))[1:]]  # s comes twice
    told = await imported(new, lines, on_conflict=on_conflict, dry_run=True)
    assert await versions(new, "s", "t", "u") == [0, 1, 0]
    assert told == await imported(new, lines, on_conflict=on_conflict)
    assert len(told) == 4


# -- the SDK's files --------------------------------------------------------------------------------------


async def sdk_file(path: Path, **names: str) -> None:
    for session_id in ("talk", "short"):
        with closing(sdk(path, session_id, **names)) as session:
            await (grow(session) if session_id == "talk" else session.add_items(turns("a", "b")))
    set_times(
        path,
        names.get("messages_table", "agent_messages"),
        names.get("sessions_table", "agent_sessions"),
    )


async def test_an_advanced_file_reads_as_through_the_sdk_branch_by_branch(
    tmp_path: Path, new: Path
) -> None:
    source = tmp_path / "sdk.db"
    await sdk_file(source)
    kept = tables(source)
    async with EventLog.open(new) as log:
        await log.append("before", ItemsAdded(items=["x"]))
    outcomes = await from_file(new, source)
    assert by_outcome(outcomes) == {"talk": "imported", "short": "imported"}
    assert tables(source) == kept
    for session_id in ("talk", "short"):
        with closing(sdk(source, session_id)) as theirs, closing(ours(new, session_id)) as mine:
            assert await picture(mine, ["cats"]) == await picture(theirs, ["cats"])
    await assert_sound(new)


async def test_a_plain_file_comes_in(tmp_path: Path, new: Path) -> None:
    source = tmp_path / "plain.db"
    with closing(SQLiteSession("talk", source)) as session:
        await session.add_items(turns("a", "b"))
    (outcome,) = await from_file(new, source)
    assert outcome.outcome == "imported"
    with closing(ours(new, "talk")) as session:
        assert await session.get_items() == turns("a", "b")


async def test_tables_of_other_names_are_found_by_their_names(tmp_path: Path, new: Path) -> None:
    source = tmp_path / "custom.db"
    await sdk_file(source, **NAMES)
    with pytest.raises(SourceError, match="my_sessions/my_messages"):
        await from_file(new, source)
    outcomes = await from_file(new, source, tables=PAIR)
    assert len(outcomes) == 2
    with closing(sdk(source, **NAMES)) as theirs, closing(ours(new, "talk")) as mine:
        assert await picture(mine) == await picture(theirs)


async def test_sessions_of_the_sdk_are_refused_skipped_and_renamed_alike(
    tmp_path: Path, new: Path
) -> None:
    source = tmp_path / "sdk.db"
    await sdk_file(source)
    async with EventLog.open(new) as log:
        await log.append("talk", ItemsAdded(items=["mine"]))
    for on_conflict, told in (("refuse", "refused"), ("skip", "skipped"), ("rename", "renamed")):
        options = {"on_conflict": on_conflict}
        foretold = await from_file(new, source, dry_run=True, **options)
        before = await versions(new, "talk", "short")
        outcomes = await from_file(new, source, **options)
        assert outcomes == foretold
        assert by_outcome(outcomes)["talk"] == told
        if on_conflict == "refuse":
            assert before == [1, 0]
    with closing(sdk(source)) as theirs, closing(ours(new, "talk-imported")) as mine:
        assert await mine.get_items() == await theirs.get_items()
    await assert_sound(new)


async def test_messages_that_cannot_be_read_are_told(tmp_path: Path, new: Path) -> None:
    source = tmp_path / "plain.db"
    with closing(SQLiteSession("talk", source)) as session:
        await session.add_items(turns("a", "b"))
    execute(source, "UPDATE agent_messages SET message_data = 'torn' WHERE id = 2")
    (outcome,) = await from_file(new, source)
    assert outcome.outcome == "imported"
    assert "1 of its messages could not be read" in str(outcome.problem)


@pytest.mark.parametrize("dry_run", [True, False])
async def test_a_session_of_the_sdk_with_impossible_usage_is_broken_and_alone(
    tmp_path: Path, new: Path, dry_run: bool
) -> None:
    source = tmp_path / "sdk.db"
    await sdk_file(source)
    execute(source, "UPDATE turn_usage SET input_tokens = -5 WHERE id = 1")
    outcomes = await from_file(new, source, dry_run=dry_run)
    assert by_outcome(outcomes) == {"talk": "broken", "short": "imported"}
    assert (await versions(new, "talk"))[0] == 0


async def test_another_log_can_be_the_source(db: Path, new: Path) -> None:
    outcomes = await from_file(new, db)
    assert by_outcome(outcomes) == {"s": "imported", "t": "imported", "u": "imported"}
    assert await exported(new) == await exported(db)


async def test_a_file_of_another_program_is_refused(tmp_path: Path, new: Path) -> None:
    source = tmp_path / "other.db"
    execute(source, "CREATE TABLE recipes (name)")
    with pytest.raises(SourceError, match="holds no log, and no tables of the SDK's"):
        await from_file(new, source)
    execute(source, "CREATE TABLE agent_sessions (a)", "CREATE TABLE agent_messages (b)")
    with pytest.raises(SourceError, match="another program's"):
        await from_file(new, source)


async def test_a_source_that_is_not_there_or_is_a_folder_is_an_error(
    tmp_path: Path, new: Path
) -> None:
    for source in (tmp_path / "none", tmp_path):
        with pytest.raises(OpenError, match="there is no file"):
            await from_file(new, source)


@pytest.mark.parametrize("kind", ["lines", "log", "sdk"])
async def test_progress_is_told_to_the_end(db: Path, tmp_path: Path, new: Path, kind: str) -> None:
    source = {"lines": tmp_path / "h.jsonl", "log": db, "sdk": tmp_path / "sdk.db"}[kind]
    if kind == "lines":
        write(source, await exported(db))
    elif kind == "sdk":
        await sdk_file(source)
    told: list[tuple[int, int]] = []
    await from_file(new, source, on_progress=lambda *progress: told.append(progress))
    assert told[-1][0] == told[-1][1] > 0
    assert told == sorted(told)


# -- the command ----------------------------------------------------------------------------------------


async def test_the_command_imports_what_the_other_exported(
    run: Any, db: Path, new: Path, tmp_path: Path
) -> None:
    lines = tmp_path / "h.jsonl"
    assert run("export", db, "--output", lines).exit_code == 0
    dry = run("import", new, lines, "--dry-run")
    assert (dry.exit_code, dry.stdout.split()) == (
        0,
        f"would import 3 sessions, 35 events into {new}".split(),
    )
    assert not is_there(new)
    done = run("import", new, lines)
    assert (done.exit_code, done.stdout.split()) == (
        0,
        f"imported 3 sessions, 35 events into {new}".split(),
    )
    assert run("export", new).stdout == lines.read_text()


async def test_the_command_tells_conflicts_and_exits_with_1(run: Any, db: Path, new: Path) -> None:
    await imported(new, await exported(db, "t"))
    done = run("import", new, db)
    assert done.exit_code == 1
    assert "t: refused: session 't' exists already" in done.stdout
    assert "2 sessions, 19 events" in done.stdout
    assert "; 1 refused" in done.stdout
    assert run("import", new, db, "--on-conflict", "skip").exit_code == 0
    renamed = run("import", new, db, "--on-conflict", "rename")
    assert renamed.exit_code == 0
    assert "u: renamed to u-imported" in renamed.stdout


async def test_the_commands_json_is_a_line_a_session_and_a_receipt(
    run: Any, db: Path, new: Path
) -> None:
    await imported(new, await exported(db, "t"))
    *sessions, receipt = map(json.loads, run("import", new, db, "--json").stdout.splitlines())
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
        "events": 19,
        "dry_run": False,
    }


async def test_a_dry_run_of_the_command_leaves_the_log_as_it_is(
    run: Any, db: Path, new: Path
) -> None:
    await imported(new, await exported(db, "t"))
    before = stored(new)
    assert run("import", new, db, "--dry-run").exit_code == 1
    assert stored(new) == before
    assert await versions(new, "s") == [0]


def test_no_log_is_made_for_a_source_that_is_none(run: Any, new: Path, tmp_path: Path) -> None:
    text = tmp_path / "text"
    text.write_text("hello\n")
    execute(tmp_path / "other", "CREATE TABLE recipes (name)")
    for source in ("text", "other", "nothing"):
        done = run("import", new, tmp_path / source)
        assert done.exit_code == 3
        assert done.stderr.startswith("error: ")
        assert not new.exists()


def test_a_name_that_no_table_can_have_is_a_usage_error(run: Any, db: Path, new: Path) -> None:
    assert run("import", new, db, "--sessions-table", "a b").exit_code == 2
    assert not new.exists()


async def test_the_command_takes_the_sdks_tables_by_name(
    run: Any, tmp_path: Path, new: Path
) -> None:
    source = tmp_path / "custom.db"
    await sdk_file(source, **NAMES)
    names = ["--sessions-table", "MY_SESSIONS", "--messages-table", '"my_messages"']
    done = run("import", new, source, *names)
    assert (done.exit_code, "imported 2 sessions" in done.stdout) == (0, True)


async def test_a_hostile_session_id_is_shown_not_obeyed(run: Any, new: Path) -> None:
    async with EventLog.open(new) as log:
        await log.append("\x1b[31m\u202e", ItemsAdded(items=["x"]))
    for arguments in ([], ["--on-conflict", "rename"]):
        done = run("import", new, new, *arguments)
        assert "\\x1b[31m" in done.stdout
        assert "\x1b" not in done.stdout
        assert "\u202e" not in done.stdout


async def test_what_came_in_before_a_source_failed_is_told(
    run: Any, tmp_path: Path, new: Path
) -> None:
    source = tmp_path / "sdk.db"
    for number in range(60):
        with closing(SQLiteSession(f"talk {number}", source)) as session:
            await session.add_items(turns("text " * 200))
    with closing(sqlite3.connect(source)) as connection:
        connection.execute("PRAGMA journal_mode=DELETE")
    damage(source)
    done = run("import", new, source, "--json")
    assert done.exit_code == 3
    assert "error: " in done.stderr
    told = [json.loads(line) for line in done.stdout.splitlines()]
    if told:
        assert told[-1]["imported"] == len(told) - 1


async def test_a_terminal_shows_progress(db: Path, new: Path, tmp_path: Path) -> None:
    lines = str(tmp_path / "h.jsonl")
    for words in (["export", str(db), "--output", lines], ["import", str(new), lines]):
        shown = await asyncio.to_thread(on_a_terminal, *words)
        assert f"{words[0]}ing" in shown
        assert "100%" in shown


def begin_and_kill(target: Path, source: Path, sessions: int) -> list[bytes]:
    """Begin an import and kill it once it has told of so many sessions; return what it told."""
    words = [sys.executable, "-m", "adapters", "import", str(target), str(source), "--json"]
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


async def test_one_that_imports_its_own_lines_needs_nothing_private(new: Path) -> None:
    lines = [
        '{"kind":"log","format":1}',
        '{"kind":"session","session_id":"mine","events":1}',
        (
            '{"kind":"event","version":1,"type":"items_added","schema_version":1,"recorded_at":5,'
            '"data":{"items":[{"role":"user","content":"from elsewhere"}]}}'
        ),
    ]
    async with EventLog.open(new, projections=projections.default()) as log:
        assert [outcome.outcome for outcome in await brought(log, lines)] == ["imported"]
        event = await anext(log.read())
        assert event.occurred_at == 5
