"""Import from other files: the SDK's, branch by branch as the SDK reads them, and other logs."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from agents import SQLiteSession

from agents_eventlog.eventlog import EventLog, ItemsAdded, recording
from agents_eventlog.eventlog.errors import OpenError, SourceError
from tests.adapters.moving import (
    NAMES,
    PAIR,
    by_outcome,
    exported,
    from_file,
    sdk_file,
    versions,
    write,
)
from tests.adapters.old_files import (
    assert_sound,
    events,
    execute,
    ours,
    picture,
    sdk,
    tables,
)
from tests.contract.items import turns

if TYPE_CHECKING:
    from pathlib import Path


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


CELLS = {
    "when a message came": "UPDATE agent_messages SET created_at = {} WHERE session_id = 'short'",
    "a branch": "UPDATE message_structure SET branch_id = {} WHERE session_id = 'short'",
    "its id": (
        "UPDATE agent_sessions SET session_id = {0} WHERE session_id = 'short';"
        "UPDATE agent_messages SET session_id = {0} WHERE session_id = 'short'"
    ),
}


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("dry_run", [False, True])
async def test_a_text_that_is_not_utf8_breaks_its_session_and_no_other(
    tmp_path: Path, new: Path, cell: str, dry_run: bool
) -> None:
    source = tmp_path / "sdk.db"
    await sdk_file(source)
    with closing(sqlite3.connect(source)) as connection:
        connection.executescript(CELLS[cell].format("CAST(X'6162FF63' AS TEXT)"))
    talk, broken = sorted(
        await from_file(new, source, dry_run=dry_run),
        key=lambda outcome: outcome.outcome != "imported",
    )
    assert (talk.session_id, talk.outcome) == ("talk", "imported")
    assert (broken.outcome, broken.events) == ("broken", 0)
    assert broken.problem in {"one of its texts is not valid UTF-8", "its id is not valid UTF-8"}
    assert "ab" not in str(broken.problem)


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


TORN = "UPDATE agent_messages SET message_data = 'torn' WHERE id < 3"
IMPOSSIBLE = "UPDATE turn_usage SET input_tokens = -5 WHERE id = 1"


@pytest.mark.parametrize(
    ("damage", "left_out"),
    [
        ([TORN], "2 messages"),
        ([IMPOSSIBLE], "1 usage row"),
        ([TORN, IMPOSSIBLE], "2 messages, 1 usage row"),
    ],
)
@pytest.mark.parametrize("dry_run", [True, False])
async def test_messages_and_usage_that_are_damaged_are_left_out_and_told_apart(
    tmp_path: Path, new: Path, damage: list[str], left_out: str, dry_run: bool
) -> None:
    source = tmp_path / "sdk.db"
    await sdk_file(source)
    execute(source, *damage)
    outcomes = await from_file(new, source, dry_run=dry_run)
    assert by_outcome(outcomes) == {"talk": "imported", "short": "imported"}
    told = {outcome.session_id: outcome.problem for outcome in outcomes}
    assert told == {"short": None, "talk": f"left out, because damaged: {left_out}"}
    assert ((await versions(new, "talk"))[0] == 0) is dry_run


async def test_what_came_in_is_logged_once_and_only_when_it_did(
    tmp_path: Path, new: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = tmp_path / "sdk.db"
    await sdk_file(source)
    execute(source, TORN)
    caplog.set_level("INFO", "eventlog.importers")
    await from_file(new, source, dry_run=True)
    assert caplog.records == []
    for _ in range(2):  # the second time they are refused
        await from_file(new, source)
    said = {record.levelname: record.getMessage() for record in caplog.records}
    assert len(caplog.records) == len(said) == 2
    assert "session_id='short'" in said["INFO"]
    assert "session_id='talk'" in said["WARNING"]
    assert "unreadable=2 unreadable_usage=0" in said["WARNING"]


async def test_who_imports_is_recorded_with_the_import_and_not_with_what_others_did(
    tmp_path: Path, new: Path
) -> None:
    source = tmp_path / "sdk.db"
    await sdk_file(source)
    with recording(actor="anna"):
        await from_file(new, source)
        async with EventLog.open(new) as log:
            await log.append("after", ItemsAdded(items=["x"]))
    acted = [event.type for event in await events(new) if event.metadata.get("actor") == "anna"]
    assert acted == ["history_imported", "history_imported", "items_added"]


async def test_another_log_can_be_the_source(full: Path, new: Path) -> None:
    outcomes = await from_file(new, full)
    assert by_outcome(outcomes) == {"s": "imported", "t": "imported", "u": "imported"}
    assert await exported(new) == await exported(full)


async def test_a_file_of_another_program_is_refused(tmp_path: Path, new: Path) -> None:
    source = tmp_path / "other.db"
    execute(source, "CREATE TABLE recipes (name)")
    with pytest.raises(SourceError, match="does not hold a log or the SDK's tables"):
        await from_file(new, source)
    execute(source, "CREATE TABLE agent_sessions (a)", "CREATE TABLE agent_messages (b)")
    with pytest.raises(SourceError, match="belong to another program"):
        await from_file(new, source)


async def test_a_source_that_is_not_there_or_is_a_folder_is_an_error(
    tmp_path: Path, new: Path
) -> None:
    for source, problem in (
        (tmp_path / "none", "file not found"),
        (tmp_path, "expected a file, got a folder"),
    ):
        with pytest.raises(OpenError, match=problem):
            await from_file(new, source)


@pytest.mark.parametrize("kind", ["lines", "log", "sdk"])
async def test_progress_is_told_to_the_end(
    full: Path, tmp_path: Path, new: Path, kind: str
) -> None:
    source = {"lines": tmp_path / "h.jsonl", "log": full, "sdk": tmp_path / "sdk.db"}[kind]
    if kind == "lines":
        write(source, await exported(full))
    elif kind == "sdk":
        await sdk_file(source)
    told: list[tuple[int, int]] = []
    await from_file(new, source, on_progress=lambda *progress: told.append(progress))
    assert told[-1][0] == told[-1][1] > 0
    assert told == sorted(told)
