"""Export: complete, of one moment, safe to print, and the same bytes after any number of moves."""

from __future__ import annotations

import asyncio
import json
import re
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given

from agents_eventlog import ConversationLog, projections
from agents_eventlog.adapters.cli.markdown import export_markdown
from agents_eventlog.adapters.cli.terminal import ExitCode
from agents_eventlog.eventlog import EventLog, ItemRedacted, ItemsAdded, MetadataSet
from agents_eventlog.eventlog.errors import ConversationError, UndecodableEventError
from agents_eventlog.eventlog.jsonl.export import ExportProgress, export_lines
from agents_eventlog.projections.conversations import as_of as past
from agents_eventlog.projections.conversations import queries as conversation_queries
from tests.adapters.moving import (
    NASTY,
    brought,
    exported,
    imported,
    lines_of,
    rows,
    user,
)
from tests.adapters.old_files import assert_sound, execute
from tests.engines import stored
from tests.properties.profiles import examples
from tests.properties.strategies import histories

if TYPE_CHECKING:
    from collections.abc import Callable

    from agents_eventlog.eventlog import RecordedEvent, Transaction

OBEYED = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
"""Control characters but the line break, and what turns the direction of writing."""


# -- moving ---------------------------------------------------------------------------------------


async def test_exported_imported_and_exported_again_it_has_the_same_bytes(
    full: Path, tmp_path: Path
) -> None:
    lines = await exported(full)
    for name in ("second.db", "third.db"):
        outcomes = await imported(tmp_path / name, lines)
        assert {outcome.outcome for outcome in outcomes} == {"imported"}
        assert await exported(tmp_path / name) == lines


async def test_the_bytes_are_the_same_from_a_log_that_held_others_already(
    full: Path, tmp_path: Path
) -> None:
    lines = await exported(full)
    other = tmp_path / "other.db"
    async with EventLog.open(other) as log:
        await log.append("before", [ItemsAdded(items=["x"])] * 7)
    await imported(other, lines)
    async with EventLog.open(other) as log:
        await log.append("after", ItemsAdded(items=["x"]))
    assert await exported(other, "s", "t", "u") == lines


async def test_what_arrives_are_the_same_events(full: Path, tmp_path: Path) -> None:
    await imported(tmp_path / "new.db", await exported(full))
    columns = "version, type, schema_version, branch_id, idempotency_key"
    for session_id in "stu":
        assert rows(full, columns, session_id) == rows(tmp_path / "new.db", columns, session_id)
    same = "type, data_digest"
    speaking = {"item_popped", "items_replaced", "turn_undone", "branch_created"}
    speaking |= {"content_erased", "usage_corrected", "item_redacted", "items_withheld"}
    before, after = (rows(path, same, "s") for path in (full, tmp_path / "new.db"))
    assert [r for r in before if r[0] not in speaking] == [r for r in after if r[0] not in speaking]


async def test_what_arrives_verifies_and_equals_its_replay(full: Path, tmp_path: Path) -> None:
    async with EventLog.open(tmp_path / "new.db", projections=projections.default()) as log:
        await log.append("before", ItemsAdded(items=["x"]))
    await imported(tmp_path / "new.db", await exported(full))
    await assert_sound(tmp_path / "new.db")


async def test_at_every_version_it_reads_as_where_it_came_from(full: Path, tmp_path: Path) -> None:
    async with EventLog.open(tmp_path / "new.db") as log:
        await log.append("before", ItemsAdded(items=["x"]))
    await imported(tmp_path / "new.db", await exported(full))

    pictures = []
    for path in (full, tmp_path / "new.db"):
        async with EventLog.open(path, read_only=True) as log:
            seen = [
                repr(await past.query_as_of(log, "t", version, lambda then: branches(then, "t")))
                for version in range(await log.version("t") + 1)
            ]
        pictures.append(seen)
    assert pictures[0] == pictures[1]
    assert len(set(pictures[0])) > 5


def branches(then: Transaction, session_id: str) -> dict[str, list[Any]]:
    ids = [row[0] for row in then.all("SELECT branch_id FROM branches ORDER BY branch_id")]
    return {
        branch_id: conversation_queries.items(
            then, conversation_queries.place(then, session_id, branch_id).pointer
        )
        for branch_id in ids
    }


@given(histories())
@examples(25)
def test_any_history_moves_with_equal_bytes_and_meaning(events: list[RecordedEvent]) -> None:
    asyncio.run(_moved(events))


async def _moved(events: list[RecordedEvent]) -> None:
    async with EventLog.open(":memory:") as one, EventLog.open(":memory:") as two:
        for recorded in events:
            event: Any = recorded.event
            await one.append(recorded.session_id, event, branch_id=recorded.branch_id)
        await two.append("before", [ItemsAdded(items=["x"])] * 40)
        lines = await lines_of(one)
        await brought(two, lines)
        session_ids = {recorded.session_id for recorded in events}
        assert await lines_of(two, *session_ids) == lines
        for session_id in session_ids:
            last = await one.version(session_id)
            redacts = any(
                isinstance(each.event, ItemRedacted) and each.session_id == session_id
                for each in events
            )
            # Before a redaction, an import shows the placeholder, too.
            for version in [last] if redacts else range(last + 1):
                first, second = [
                    repr(await past.query_as_of(log, session_id, version, _branches_of(session_id)))
                    for log in (one, two)
                ]
                assert first == second


def _branches_of(session_id: str) -> Callable[[Transaction], Any]:
    return lambda then: branches(then, session_id)


# -- provenance -----------------------------------------------------------------------------------


async def test_who_when_and_why_are_kept_over_any_number_of_moves(
    full: Path, tmp_path: Path
) -> None:
    lines = await exported(full)
    await imported(tmp_path / "a.db", lines)
    await imported(tmp_path / "b.db", await exported(tmp_path / "a.db"))
    ((recorded_at,),) = rows(full, "recorded_at", "s")[:1]
    async with EventLog.open(tmp_path / "b.db") as log:
        event = await anext(log.read("s"))
    assert event.metadata["actor"] == "actor 0"
    assert event.metadata["trace_id"] == "trace"
    assert event.metadata["imported"] == {"recorded_at": recorded_at}
    assert event.occurred_at == recorded_at < event.recorded_at


async def test_names_that_a_program_used_for_itself_are_kept(full: Path, tmp_path: Path) -> None:
    await imported(tmp_path / "a.db", await exported(full))
    async with EventLog.open(tmp_path / "a.db") as log:
        event = await anext(log.read("u"))
        assert event.occurred_at == 1_000_000
        assert event.metadata["imported"]["imported"] == "a word of the program's own"
    first = json.loads((await exported(tmp_path / "a.db", "u"))[2])
    assert first["metadata"] == {
        "occurred_at": 1_000_000,
        "imported": "a word of the program's own",
        "events_in_append": 1,
    }


async def test_an_append_that_was_made_before_the_move_is_not_made_again(
    full: Path, tmp_path: Path
) -> None:
    await imported(tmp_path / "a.db", await exported(full))
    async with EventLog.open(tmp_path / "a.db") as log:
        again = await log.append("u", ItemsAdded(items=[user("keyed")]), idempotency_key="key")
        assert (again.version, await log.version("u")) == (1, 3)


# -- what is exported -----------------------------------------------------------------------------


async def test_sessions_come_in_the_order_of_their_first_events(full: Path) -> None:
    headings = [json.loads(line) for line in await exported(full)]
    assert headings[0] == {"kind": "log", "format": 1}
    opened = [line["session_id"] for line in headings if line["kind"] == "session"]
    assert opened == ["s", "t", "u"]
    assert [
        json.loads(line)["session_id"]
        for line in (await exported(full, "u", "s"))
        if '"kind":"session"' in line
    ] == ["s", "u"]


async def test_an_event_names_others_by_their_versions(full: Path) -> None:
    events = [json.loads(line) for line in await exported(full, "t")][2:]
    assert events[4]["data"]["first_item"] == [1, 1]
    assert events[5]["data"]["item"] == [5, 0]
    assert events[11]["data"]["positions"] == [2, 0]  # what is not of this session is 0


async def test_an_erased_content_stays_erased_and_keeps_its_digest(
    full: Path, tmp_path: Path
) -> None:
    line = json.loads((await exported(full, "s"))[3])
    assert line["data"] is None
    await imported(tmp_path / "a.db", await exported(full))
    before, after = (rows(path, "data, data_digest", "s")[1] for path in (full, tmp_path / "a.db"))
    assert before == after == (None, bytes.fromhex(line["data_digest"]))


async def test_a_line_holds_nothing_that_a_terminal_obeys(full: Path) -> None:
    lines = await exported(full)
    assert any("\\u202e" in line for line in lines)
    assert not [line for line in lines if OBEYED.search(line) or "\n" in line]
    texts = [json.loads(line)["data"]["items"][1]["content"] for line in lines[2:3]]
    assert texts == [NASTY]


async def test_ten_megabytes_in_one_item_move(tmp_path: Path) -> None:
    text = "é\x00" * 5_000_000
    async with EventLog.open(":memory:") as one, EventLog.open(":memory:") as two:
        await one.append("s", ItemsAdded(items=[text]))
        await brought(two, await lines_of(one))
        assert await past.items_as_of(two, "s", 0) == []
        (event,) = [recorded.event async for recorded in two.read()]
        assert event == ItemsAdded(items=[text])


@pytest.mark.parametrize("session_ids", [(), ("s",)])
async def test_it_is_the_log_of_one_moment(
    monkeypatch: pytest.MonkeyPatch, session_ids: tuple[str, ...]
) -> None:
    monkeypatch.setattr("agents_eventlog.eventlog.jsonl.export.PAGE_EVENTS", 2)
    async with EventLog.open(":memory:") as log:
        await log.append("s", [ItemsAdded(items=[n]) for n in range(5)])
        lines: list[str] = []
        async for line in export_lines(log, session_ids or None):
            if len(lines) in {0, 2, 5}:
                await log.append("s", ItemsAdded(items=["later"]))
                await log.append("new", ItemsAdded(items=["later"]))
            lines.append(line)
    assert [json.loads(line)["data"]["items"] for line in lines[2:]] == [[n] for n in range(5)]


async def test_an_empty_log_exports_what_can_be_imported(tmp_path: Path) -> None:
    async with EventLog.open(":memory:") as one, EventLog.open(":memory:") as two:
        lines = await lines_of(one)
        assert [json.loads(line) for line in lines] == [{"kind": "log", "format": 1}]
        assert await brought(two, lines) == []


async def test_progress_is_told_up_to_the_last_event(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agents_eventlog.eventlog.jsonl.export.PAGE_EVENTS", 2)
    told: list[ExportProgress] = []
    async with EventLog.open(":memory:") as log:
        for session_id in ("s", "t"):
            await log.append(session_id, [ItemsAdded(items=["x"])] * 3)
        lines = [line async for line in export_lines(log, on_progress=told.append)]
    assert told == [(2, 6, 1), (3, 6, 1), (5, 6, 2), (6, 6, 2)]
    assert len(lines) == 1 + 2 + 6


async def test_a_session_that_there_is_not_is_an_error_before_the_first_line(full: Path) -> None:
    async with EventLog.open(full, read_only=True) as log:
        for form in (export_lines, export_markdown):
            with pytest.raises(ConversationError, match="'nobody' does not exist") as caught:
                await anext(form(log, ["s", "nobody"]))
            assert caught.value.session_id == "nobody"


async def test_an_event_that_cannot_be_read_stops_the_export_and_is_named(full: Path) -> None:
    execute(
        full,
        "DROP TRIGGER events_are_never_changed",
        "UPDATE events SET type = 'of the future' WHERE position = 5",
    )
    with pytest.raises(UndecodableEventError, match="position 5"):
        await exported(full)


@pytest.mark.parametrize("text", ["{", "[]", "7"])
async def test_metadata_that_cannot_be_read_stops_the_export_and_is_named(
    full: Path, text: str
) -> None:
    execute(
        full,
        "DROP TRIGGER events_are_never_changed",
        f"UPDATE events SET metadata = '{text}' WHERE position = 5",
    )
    with pytest.raises(UndecodableEventError, match="metadata of the event at position 5"):
        await exported(full)


async def test_what_was_written_by_hand_moves_as_what_it_means(full: Path, tmp_path: Path) -> None:
    execute(
        full,
        "DROP TRIGGER events_are_never_changed",
        'UPDATE events SET data = \'{\n "items" : [ "by\\u0020hand" ]\r\n}\' WHERE position = 1',
    )
    lines = await exported(full)
    assert json.loads(lines[2])["data"] == {"items": ["by hand"]}
    await imported(tmp_path / "a.db", lines)
    assert await exported(tmp_path / "a.db") == lines


# -- the command ------------------------------------------------------------------------------------


def test_the_command_prints_the_lines_and_writes_nothing(command: Any, full: Path) -> None:
    before = stored(full)
    done = command("export", full, "--session", "u")
    assert done.exit_code == 0
    assert done.stdout.splitlines() == asyncio.run(exported(full, "u"))
    assert stored(full) == before


def test_a_file_is_there_once_it_is_whole(command: Any, full: Path, tmp_path: Path) -> None:
    target = tmp_path / "out.jsonl"
    done = command("export", full, "--output", target, "--json")
    assert json.loads(done.stdout) == {
        "kind": "exported",
        "sessions": 3,
        "events": 51,
        "output": str(target),
    }
    whole = target.read_text()
    assert whole.splitlines() == asyncio.run(exported(full))
    execute(
        full,
        "DROP TRIGGER events_are_never_changed",
        "UPDATE events SET data = '{' WHERE position = 9",
    )
    failed = command("export", full, "--output", target)
    assert failed.exit_code == 3
    assert "position 9" in failed.stderr
    assert target.read_text() == whole
    assert not list(tmp_path.glob("*.part"))


def test_an_output_that_cannot_be_written_is_named_as_it_was_asked_for(
    command: Any, full: Path, tmp_path: Path
) -> None:
    target = tmp_path / "missing" / "out.jsonl"
    done = command("export", full, "--output", target)
    assert (done.exit_code, done.stdout) == (3, "")
    assert done.stderr == (
        f"error: {target} cannot be written: the folder {target.parent} does not exist\n"
    )
    target = full / "out.jsonl"
    done = command("export", full, "--output", target)
    assert done.exit_code == 3
    assert done.stderr == f"error: {target} cannot be written: Not a directory\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no /dev/full")
@pytest.mark.parametrize("arguments", [["--output", "/dev/full"], []])
def test_an_output_on_a_full_disk_is_named(full: Path, arguments: list[str]) -> None:
    command = [sys.executable, "-m", "agents_eventlog", "export", str(full)]
    with Path("/dev/full").open("wb") as stdout:
        done = subprocess.run(
            [*command, *arguments], stdout=stdout, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == ExitCode.CANNOT_OPEN
    name = "/dev/full" if arguments else "stdout"
    assert done.stderr == f"error: {name}: No space left on device\n"


def test_the_log_itself_is_never_overwritten(command: Any, full: Path) -> None:
    before = stored(full)
    assert command("export", full, "--output", full.parent / "." / full.name).exit_code == 2
    assert stored(full) == before


def test_a_session_that_there_is_not_is_a_usage_error(command: Any, full: Path) -> None:
    done = command("export", full, "--session", "\x1b[31mnobody")
    assert done.exit_code == 2
    assert done.stdout == ""
    assert "\x1b[31m" not in done.stderr


def test_a_file_that_is_no_log_cannot_be_exported(command: Any, tmp_path: Path) -> None:
    assert command("export", tmp_path / "none.db").exit_code == 3
    assert not list(tmp_path.iterdir())


def test_lines_are_utf_8_whatever_the_terminals_encoding(full: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "agents_eventlog", "export", str(full)],
        env={"PYTHONIOENCODING": "ascii", "PATH": ""},
        capture_output=True,
        check=True,
    )
    assert done.stdout.decode().splitlines() == asyncio.run(exported(full))
    assert "é" in done.stdout.decode()


def test_an_export_replaces_no_database_and_nothing_beside_one(
    full: Path, tmp_path: Path, command: Callable[..., Any]
) -> None:
    other, damaged = tmp_path / "other.db", tmp_path / "damaged.db"
    with closing(sqlite3.connect(other)) as connection:
        connection.execute("CREATE TABLE recipes (name)")
    for output in (full, other, Path(f"{other}-wal")):
        assert command("export", full, "--output", output).exit_code == 2
    damaged.write_bytes(other.read_bytes()[:100] + b"\xff" * 8092)
    before = damaged.read_bytes()
    assert command("export", full, "--output", damaged).exit_code == 3
    assert damaged.read_bytes() == before
    assert command("import", tmp_path / "new.db", damaged).exit_code == 3


async def test_all_sessions_of_a_user_are_exported_deleted_ones_included(
    command: Any, tmp_path: Path
) -> None:
    path = tmp_path / "users.db"
    async with ConversationLog.open(path) as log:
        for session_id, user_id in (("a1", "alice"), ("a2", "alice"), ("b", "bob")):
            await log.append(session_id, MetadataSet(user_id=user_id))
        await log.delete_session("a2")
        lines = [line async for line in log.export_user("alice")]
        assert len([line async for line in log.export_user("nobody")]) == 1  # the first line
    done = command("export", path, "--user", "alice")
    assert done.stdout.splitlines() == lines
    assert [json.loads(line)["session_id"] for line in lines if '"session_id"' in line] == [
        "a1",
        "a2",
    ]


def test_a_user_without_sessions_exports_nothing(command: Any, full: Path) -> None:
    done = command("export", full, "--user", "nobody")
    assert (done.exit_code, done.stdout) == (ExitCode.USAGE, "")
    assert "user 'nobody' has no sessions" in done.stderr
    done = command("export", full, "--user", "nobody", "--session", "s")
    assert (done.exit_code, done.stdout) == (ExitCode.USAGE, "")


def test_a_file_of_the_sdks_is_written_and_what_it_lacks_is_named(
    command: Any, db: Path, tmp_path: Path
) -> None:
    sdk = tmp_path / "sdk.db"
    run = command("export", db, "--format", "sdk", "--output", sdk)
    assert run.exit_code == 0
    assert run.stdout == f"exported 1 session, 7 items to {sdk}; left out: 1 deleted branch\n"
    run = command("export", db, "--format", "sdk", "--output", tmp_path / "again.db", "--json")
    assert json.loads(run.stdout) == {
        "kind": "exported",
        "sessions": 1,
        "items": 7,
        "branches": 2,
        "turns_with_usage": 0,
        "erased_items": 0,
        "empty_branches": 0,
        "deleted_branches": 1,
        "deleted_sessions": 0,
        "events": 10,
        "output": str(tmp_path / "again.db"),
    }


def test_a_file_of_the_sdks_needs_a_new_output(command: Any, full: Path, tmp_path: Path) -> None:
    run = command("export", full, "--format", "sdk")
    assert run.exit_code == 2
    assert "--format sdk needs --output" in run.stderr
    (tmp_path / "there").write_text("a file")
    run = command("export", full, "--format", "sdk", "--output", tmp_path / "there")
    assert run.exit_code == 3
    assert "exists: expected a new file" in run.stderr
    assert (tmp_path / "there").read_text() == "a file"
