"""Export: complete, of one moment, safe to print, and the same bytes after any number of moves."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from typer.testing import CliRunner

import projections
from adapters import AdvancedSQLiteSession, cli
from adapters.markdown import export_markdown, fence, span
from eventlog import EventLog, ItemsAdded
from eventlog.errors import ConversationError, UndecodableEventError
from eventlog.exporting import Exported, export_lines
from projections import past, reading
from tests.adapters.moving import (
    NASTY,
    brought,
    exported,
    fill,
    imported,
    lines_of,
    rows,
    user,
)
from tests.adapters.old_files import assert_sound, execute
from tests.properties.profiles import examples
from tests.properties.strategies import histories

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from eventlog import Recorded, Transaction

OBEYED = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
"""Control characters but the line break, and what turns the direction of writing."""


@pytest.fixture
async def db(tmp_path: Path) -> Path:
    path = tmp_path / "full.db"
    await fill(path)
    return path


@pytest.fixture
def run() -> Callable[..., Any]:
    def invoke(*arguments: object) -> Any:
        return CliRunner().invoke(cli.app, [str(each) for each in arguments])

    return invoke


# -- moving ---------------------------------------------------------------------------------------


async def test_exported_imported_and_exported_again_it_has_the_same_bytes(
    db: Path, tmp_path: Path
) -> None:
    lines = await exported(db)
    for name in ("second.db", "third.db"):
        outcomes = await imported(tmp_path / name, lines)
        assert {outcome.outcome for outcome in outcomes} == {"imported"}
        assert await exported(tmp_path / name) == lines


async def test_the_bytes_are_the_same_from_a_log_that_held_others_already(
    db: Path, tmp_path: Path
) -> None:
    lines = await exported(db)
    other = tmp_path / "other.db"
    async with EventLog.open(other) as log:
        await log.append("before", [ItemsAdded(items=["x"])] * 7)
    await imported(other, lines)
    async with EventLog.open(other) as log:
        await log.append("after", ItemsAdded(items=["x"]))
    assert await exported(other, "s", "t", "u") == lines


async def test_what_arrives_are_the_same_events(db: Path, tmp_path: Path) -> None:
    await imported(tmp_path / "new.db", await exported(db))
    columns = "version, type, schema_version, branch_id, idempotency_key"
    for session_id in "stu":
        assert rows(db, columns, session_id) == rows(tmp_path / "new.db", columns, session_id)
    same = "type, data_digest"
    speaking = {"item_popped", "items_replaced", "branch_created", "content_erased"}
    before, after = (rows(path, same, "s") for path in (db, tmp_path / "new.db"))
    assert [r for r in before if r[0] not in speaking] == [r for r in after if r[0] not in speaking]


async def test_what_arrives_verifies_and_equals_its_replay(db: Path, tmp_path: Path) -> None:
    async with EventLog.open(tmp_path / "new.db", projections=projections.default()) as log:
        await log.append("before", ItemsAdded(items=["x"]))
    await imported(tmp_path / "new.db", await exported(db))
    await assert_sound(tmp_path / "new.db")


async def test_at_every_version_it_reads_as_where_it_came_from(db: Path, tmp_path: Path) -> None:
    async with EventLog.open(tmp_path / "new.db") as log:
        await log.append("before", ItemsAdded(items=["x"]))
    await imported(tmp_path / "new.db", await exported(db))

    pictures = []
    for path in (db, tmp_path / "new.db"):
        async with EventLog.open(path, read_only=True) as log:
            seen = [
                repr(await past.ask(log, "t", version, lambda then: branches(then, "t")))
                for version in range(await log.version("t") + 1)
            ]
        pictures.append(seen)
    assert pictures[0] == pictures[1]
    assert len(set(pictures[0])) > 5


def branches(then: Transaction, session_id: str) -> dict[str, list[Any]]:
    ids = [row[0] for row in then.all("SELECT branch_id FROM branches ORDER BY branch_id")]
    return {
        branch_id: reading.items(then, reading.place(then, session_id, branch_id).pointer)
        for branch_id in ids
    }


@given(histories())
@examples(60)
def test_any_history_moves_with_equal_bytes_and_meaning(events: list[Recorded]) -> None:
    asyncio.run(_moved(events))


async def _moved(events: list[Recorded]) -> None:
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
            for version in range(await one.version(session_id) + 1):
                first, second = [
                    repr(await past.ask(log, session_id, version, _branches_of(session_id)))
                    for log in (one, two)
                ]
                assert first == second


def _branches_of(session_id: str) -> Callable[[Transaction], Any]:
    return lambda then: branches(then, session_id)


# -- provenance -----------------------------------------------------------------------------------


async def test_who_when_and_why_are_kept_over_any_number_of_moves(db: Path, tmp_path: Path) -> None:
    lines = await exported(db)
    await imported(tmp_path / "a.db", lines)
    await imported(tmp_path / "b.db", await exported(tmp_path / "a.db"))
    ((recorded_at,),) = rows(db, "recorded_at", "s")[:1]
    async with EventLog.open(tmp_path / "b.db") as log:
        event = await anext(log.read("s"))
    assert event.metadata["actor"] == "actor 0"
    assert event.metadata["trace_id"] == "trace"
    assert event.metadata["imported"] == {"recorded_at": recorded_at}
    assert event.occurred_at == recorded_at < event.recorded_at


async def test_names_that_a_program_used_for_itself_are_kept(db: Path, tmp_path: Path) -> None:
    await imported(tmp_path / "a.db", await exported(db))
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
    db: Path, tmp_path: Path
) -> None:
    await imported(tmp_path / "a.db", await exported(db))
    async with EventLog.open(tmp_path / "a.db") as log:
        again = await log.append("u", ItemsAdded(items=[user("keyed")]), idempotency_key="key")
        assert (again.version, await log.version("u")) == (1, 3)


# -- what is exported -----------------------------------------------------------------------------


async def test_sessions_come_in_the_order_of_their_first_events(db: Path) -> None:
    headings = [json.loads(line) for line in await exported(db)]
    assert headings[0] == {"kind": "log", "format": 1}
    opened = [line["session_id"] for line in headings if line["kind"] == "session"]
    assert opened == ["s", "t", "u"]
    assert [
        json.loads(line)["session_id"]
        for line in (await exported(db, "u", "s"))
        if '"kind":"session"' in line
    ] == ["s", "u"]


async def test_an_event_names_others_by_their_versions(db: Path) -> None:
    events = [json.loads(line) for line in await exported(db, "t")][2:]
    assert events[4]["data"]["first_item"] == [1, 1]
    assert events[5]["data"]["item"] == [5, 0]
    assert events[11]["data"]["positions"] == [2, 0]  # what is not of this session is 0


async def test_an_erased_content_stays_erased_and_keeps_its_digest(
    db: Path, tmp_path: Path
) -> None:
    line = json.loads((await exported(db, "s"))[3])
    assert line["data"] is None
    await imported(tmp_path / "a.db", await exported(db))
    before, after = (rows(path, "data, data_digest", "s")[1] for path in (db, tmp_path / "a.db"))
    assert before == after == (None, bytes.fromhex(line["data_digest"]))


async def test_a_line_holds_nothing_that_a_terminal_obeys(db: Path) -> None:
    lines = await exported(db)
    assert any("\\u202e" in line for line in lines)
    assert not [line for line in lines if OBEYED.search(line) or "\n" in line]
    texts = [json.loads(line)["data"]["items"][1]["content"] for line in lines[2:3]]
    assert texts == [NASTY]


async def test_ten_megabytes_in_one_item_move(tmp_path: Path) -> None:
    text = "é\x00" * 5_000_000
    async with EventLog.open(":memory:") as one, EventLog.open(":memory:") as two:
        await one.append("s", ItemsAdded(items=[text]))
        await brought(two, await lines_of(one))
        assert await past.items(two, "s", 0) == []
        (event,) = [recorded.event async for recorded in two.read()]
        assert event == ItemsAdded(items=[text])


async def test_it_is_the_log_of_one_moment(tmp_path: Path) -> None:
    async with EventLog.open(tmp_path / "log.db", durability="normal") as log:
        await log.append("s", [ItemsAdded(items=[n]) for n in range(1_500)])
        lines: list[str] = []
        async for line in export_lines(log):
            if len(lines) in {2, 1_200}:
                await log.append("s", ItemsAdded(items=["later"]))
                await log.append("new", ItemsAdded(items=["later"]))
            lines.append(line)
        assert len(lines) == 2 + 1_500
        assert not any("later" in line for line in lines)


async def test_an_empty_log_exports_what_can_be_imported(tmp_path: Path) -> None:
    async with EventLog.open(":memory:") as one, EventLog.open(":memory:") as two:
        lines = await lines_of(one)
        assert [json.loads(line) for line in lines] == [{"kind": "log", "format": 1}]
        assert await brought(two, lines) == []


async def test_progress_is_told_up_to_the_last_event(db: Path) -> None:
    told: list[Exported] = []
    async with EventLog.open(db, read_only=True) as log:
        lines = [line async for line in export_lines(log, on_progress=told.append)]
    assert told[-1] == Exported(35, 35, 3)
    assert len(lines) == 1 + 3 + 35


async def test_a_session_that_there_is_not_is_an_error_before_the_first_line(db: Path) -> None:
    async with EventLog.open(db, read_only=True) as log:
        for form in (export_lines, export_markdown):
            with pytest.raises(ConversationError, match="'nobody' does not exist"):
                await anext(form(log, ["s", "nobody"]))


async def test_an_event_that_cannot_be_read_stops_the_export_and_is_named(db: Path) -> None:
    execute(
        db,
        "DROP TRIGGER events_are_never_changed",
        "UPDATE events SET type = 'of the future' WHERE position = 5",
    )
    with pytest.raises(UndecodableEventError, match="position 5"):
        await exported(db)


@pytest.mark.parametrize("text", ["{", "[]", "7"])
async def test_metadata_that_cannot_be_read_stops_the_export_and_is_named(
    db: Path, text: str
) -> None:
    execute(
        db,
        "DROP TRIGGER events_are_never_changed",
        f"UPDATE events SET metadata = '{text}' WHERE position = 5",
    )
    with pytest.raises(UndecodableEventError, match="metadata of the event at position 5"):
        await exported(db)


async def test_what_was_written_by_hand_moves_as_what_it_means(db: Path, tmp_path: Path) -> None:
    execute(
        db,
        "DROP TRIGGER events_are_never_changed",
        'UPDATE events SET data = \'{\n "items" : [ "by\\u0020hand" ]\r\n}\' WHERE position = 1',
    )
    lines = await exported(db)
    assert json.loads(lines[2])["data"] == {"items": ["by hand"]}
    await imported(tmp_path / "a.db", lines)
    assert await exported(tmp_path / "a.db") == lines


# -- the command ------------------------------------------------------------------------------------


def test_the_command_prints_the_lines_and_writes_nothing(run: Any, db: Path) -> None:
    before = db.read_bytes()
    done = run("export", db, "--session", "u")
    assert done.exit_code == 0
    assert done.stdout.splitlines() == asyncio.run(exported(db, "u"))
    assert db.read_bytes() == before


def test_a_file_is_there_once_it_is_whole(run: Any, db: Path, tmp_path: Path) -> None:
    target = tmp_path / "out.jsonl"
    done = run("export", db, "--output", target, "--json")
    assert json.loads(done.stdout) == {
        "kind": "exported",
        "sessions": 3,
        "events": 35,
        "output": str(target),
    }
    whole = target.read_text()
    assert whole.splitlines() == asyncio.run(exported(db))
    execute(
        db,
        "DROP TRIGGER events_are_never_changed",
        "UPDATE events SET data = '{' WHERE position = 9",
    )
    failed = run("export", db, "--output", target)
    assert failed.exit_code == 3
    assert "position 9" in failed.stderr
    assert target.read_text() == whole
    assert not list(tmp_path.glob("*.part"))


def test_the_log_itself_is_never_overwritten(run: Any, db: Path) -> None:
    before = db.read_bytes()
    assert run("export", db, "--output", db.parent / "." / db.name).exit_code == 2
    assert db.read_bytes() == before


def test_a_session_that_there_is_not_is_a_usage_error(run: Any, db: Path) -> None:
    done = run("export", db, "--session", "\x1b[31mnobody")
    assert done.exit_code == 2
    assert done.stdout == ""
    assert "\x1b[31m" not in done.stderr


def test_a_file_that_is_no_log_cannot_be_exported(run: Any, tmp_path: Path) -> None:
    assert run("export", tmp_path / "none.db").exit_code == 3
    assert not list(tmp_path.iterdir())


def test_lines_are_utf_8_whatever_the_terminals_encoding(db: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "adapters", "export", str(db)],
        env={"PYTHONIOENCODING": "ascii", "PATH": ""},
        capture_output=True,
        check=True,
    )
    assert done.stdout.decode().splitlines() == asyncio.run(exported(db))
    assert "é" in done.stdout.decode()


# -- Markdown ---------------------------------------------------------------------------------------


async def marked(path: Path, *session_ids: str) -> str:
    async with EventLog.open(path, read_only=True) as log:
        return "\n".join([text async for text in export_markdown(log, session_ids)])


async def test_markdown_tells_turns_tools_and_branches(tmp_path: Path) -> None:
    with closing(AdvancedSQLiteSession("talk", tmp_path / "talk.db", user_id="ann")) as session:
        await session.add_items([user("weather?")])
        answer: list[Any] = [
            {"type": "function_call", "name": "look", "arguments": '{"a": 1}', "call_id": "1"},
            {"type": "function_call_output", "call_id": "1", "output": "sunny"},
            {"role": "assistant", "content": [{"type": "output_text", "text": "It is sunny."}]},
        ]
        await session.add_items(answer)
        await session.add_items([user("and now?")])
        await session.create_branch_from_turn(2, "draft")
        await session.add_items([user("instead")])
        await session.create_branch_from_turn(1, "gone")
        await session.delete_branch("gone", force=True)
    text = re.sub(r" \(\d{4}-\d\d-\d\d \d\d:\d\d\)", "", await marked(tmp_path / "talk.db"))
    lines = [line for line in text.splitlines() if line][2:]
    assert lines == [
        "- user `ann`",
        "- 6 items, 3 turns, branches: 2",
        "## Branch `main`",
        "### Turn 1",
        *["**user**", "```text", "weather?", "```"],
        *["**calls** `look`", "```text", '{"a": 1}', "```"],
        *["**gets**", "```text", "sunny", "```"],
        *["**assistant**", "```text", "It is sunny.", "```"],
        "### Turn 2",
        *["**user**", "```text", "and now?", "```"],
        "## Branch `draft`",
        "It left `main`, with which it shares 4 items.",
        "### Turn 2",
        *["**user**", "```text", "instead", "```"],
    ]


async def test_markdown_of_a_hostile_conversation_is_only_text(tmp_path: Path) -> None:
    async with EventLog.open(tmp_path / "log.db") as log:
        items = [
            user(NASTY),
            {"role": NASTY, "content": NASTY},
            {"type": "function_call", "name": NASTY, "arguments": NASTY},
            {"type": NASTY},
            NASTY,
            {"role": "user", "content": [{"type": "input_image", "image_url": NASTY}]},
            user("`" * 50),
        ]
        await log.append(NASTY, ItemsAdded(items=items), branch_id=NASTY)
    text = await marked(tmp_path / "log.db")
    assert not OBEYED.search(text)
    outside = _outside_of_fences(text)
    assert not [line for line in outside if line.startswith("# head")]
    for line in outside:
        assert "javascript" not in re.sub(r"(`+)(?!`).*?(?<!`)\1(?!`)", "", line)
        assert "<b>" not in re.sub(r"(`+)(?!`).*?(?<!`)\1(?!`)", "", line)


def _outside_of_fences(text: str) -> list[str]:
    outside, ticks = [], ""
    for line in text.splitlines():
        if ticks:
            ticks = "" if line == ticks else ticks
        elif found := re.fullmatch(r"(`{3,})text", line):
            ticks = found[1]
        else:
            outside.append(line)
    assert not ticks
    return outside


def test_a_text_cannot_end_its_fence_or_its_span() -> None:
    assert fence("a\n```\nb").startswith("````text\n")
    assert span("a`b``c") == "``` a`b``c ```"
    assert span("a\nb") == "`a\\nb`"


async def test_markdown_of_a_deleted_session_tells_that_it_is(db: Path) -> None:
    text = await marked(db, "t")
    assert "- deleted " in text
    assert "after" not in text


def test_the_command_prints_markdown(run: Any, db: Path, tmp_path: Path) -> None:
    done = run("export", db, "--format", "markdown", "--session", "u")
    assert done.exit_code == 0
    assert done.stdout.startswith("# Session `u`\n")
    done = run("export", db, "--format", "markdown", "--output", tmp_path / "talk.md")
    assert done.stdout.split() == f"exported 3 sessions, 35 events to {tmp_path}/talk.md".split()
