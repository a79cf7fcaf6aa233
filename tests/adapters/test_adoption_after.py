"""What becomes of a file of the SDK's when it is opened, and afterwards."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from agents import SQLiteSession

from agents_eventlog import AdvancedSQLiteSession
from agents_eventlog.adapters.openai_agents.migration import importer
from agents_eventlog.eventlog.errors import ForeignFileError
from tests.adapters.old_files import (
    DEFAULT_PAIR,
    ITEMS_ON_MAIN,
    assert_sound,
    events,
    execute,
    grow,
    ours,
    picture,
    rows,
    sdk,
    set_times,
    stored,
    tables,
)
from tests.contract.items import ran, turns, user

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "old.db"


# -- names of tables --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "asked"),
    [
        (("chats", "lines"), ("chats", "lines")),
        (("ChatS", "Lines"), ("chats", "LINES")),
        (('"my chats"', "lines"), ('"my chats"', "lines")),
        (('"my ""chats"""', "lines"), ('`MY "chats"`', "[LINES]")),
        (("größe", "länge"), ("größe", '"länge"')),
    ],
)
async def test_tables_of_any_name_are_adopted(
    path: Path, written: tuple[str, str], asked: tuple[str, str]
) -> None:
    session = sdk(path, sessions_table=written[0], messages_table=written[1])
    await grow(session)
    expected = await session.get_items()
    session.close()
    adopted = ours(path, sessions_table=asked[0], messages_table=asked[1])
    assert await adopted.get_items() == expected
    await assert_sound(path)


async def test_another_pair_of_names_is_refused_and_the_owner_named(path: Path) -> None:
    session = sdk(path, sessions_table="chats", messages_table="lines")
    await session.add_items(turns("first"))
    session.close()
    before = stored(path)
    for names in ({}, {"messages_table": "lines"}, {"sessions_table": "chats"}):
        with pytest.raises(ValueError, match="already belongs to 'chats/lines'"):
            ours(path, **names)
    assert stored(path) == before
    adopted = ours(path, sessions_table="chats", messages_table="lines")
    assert await adopted.get_items() == turns("first")
    adopted.close()
    with pytest.raises(ValueError, match="already belongs to 'chats/lines'"):
        ours(path)


async def test_create_tables_false_adopts_a_file_of_the_sdk(path: Path) -> None:
    session = sdk(path)
    await session.add_items(turns("first"))
    session.close()
    adopted = AdvancedSQLiteSession("talk", path, create_tables=False)
    assert await adopted.get_items() == turns("first")


@pytest.mark.parametrize("content", [None, b""], ids=["missing", "empty"])
def test_create_tables_false_refuses_a_file_without_history(
    path: Path, content: bytes | None
) -> None:
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ValueError, match="create_tables=True"):
        AdvancedSQLiteSession("talk", path, create_tables=False)
    assert (stored(path) if path.exists() else None) == content


# -- going on ---------------------------------------------------------------------------------


async def test_history_goes_on_after_adoption(path: Path) -> None:
    session = sdk(path)
    await grow(session)
    before = await session.get_items()
    session.close()
    kept = tables(path)
    adopted = ours(path)
    await adopted.add_items(turns("sixth"))
    assert await adopted.get_items() == before + turns("sixth")
    for item in reversed(before + turns("sixth")):
        assert await adopted.pop_item() == item
    assert await adopted.pop_item() is None
    await adopted.switch_to_branch("draft")
    await adopted.create_branch_from_turn(3, "after")
    assert [turn["content"] for turn in await adopted.get_conversation_turns()] == [
        "about cats é 100%",
        '[{"type": "input_text", "text": "Cats again"}]',
    ]
    await adopted.add_items(turns("new third"))
    await adopted.store_run_usage(ran(1, 5, 5))
    used = await adopted.get_turn_usage(3)
    assert isinstance(used, dict)
    assert used["total_tokens"] == 10
    await adopted.delete_branch("draft of draft")
    assert tables(path) == kept
    await assert_sound(path)


async def test_adoption_happens_once(path: Path) -> None:
    session = sdk(path)
    await grow(session)
    session.close()
    ours(path).close()
    head = rows(path, "SELECT MAX(position) FROM events")
    for _ in range(2):
        again = ours(path)
        assert len(await again.get_items()) == ITEMS_ON_MAIN
        again.close()
    assert rows(path, "SELECT MAX(position) FROM events") == head
    assert len(await events(path, "history_imported")) == 1


async def test_an_adoption_that_fails_logs_nothing_and_the_next_one_logs_once(
    path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = sdk(path)
    await session.add_items(turns("first"))
    session.close()
    caplog.set_level("INFO", "eventlog.importers")

    def fail(*_: object) -> None:
        raise OSError("no space left")

    with monkeypatch.context() as patched:
        patched.setattr(importer, "set_property", fail)  # the last that an adoption does
        with pytest.raises(OSError, match="no space left"):
            ours(path)
    assert caplog.records == []
    for _ in range(2):
        ours(path).close()
    assert ["history.imported" in record.getMessage() for record in caplog.records] == [True]


async def test_adopted_events_tell_where_they_come_from_and_when_they_happened(path: Path) -> None:
    session = sdk(path)
    await session.add_items(turns("first"))
    session.close()
    set_times(path)
    ours(path).close()
    opened, first, *_ = await events(path)
    assert opened.type == "history_imported"
    assert opened.event.source == "openai-agents"
    assert opened.event.counts["items"] == 2
    assert first.metadata["occurred_at"] < first.recorded_at


async def test_messages_that_an_old_program_adds_after_adoption_are_warned_of(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    old = sdk(path)
    await old.add_items(turns("first"))
    ours(path).close()
    ours(path).close()
    assert [record for record in caplog.records if record.levelname == "WARNING"] == []
    await old.add_items([*turns("late"), user("later")])
    old.close()
    adopted = ours(path)
    warnings = [record for record in caplog.records if record.levelname == "WARNING"]
    assert [record.name for record in warnings] == ["eventlog.importers"]
    assert "messages_not_adopted=3" in warnings[0].getMessage()
    assert "late" not in warnings[0].getMessage().replace(str(path), "")
    assert await adopted.get_items() == turns("first")


async def test_an_old_program_that_begins_on_a_log_is_warned_of(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ours(path).close()
    old = SQLiteSession("talk", path)
    await old.add_items(turns("first"))
    old.close()
    assert await ours(path).get_items() == []
    assert ["messages_not_adopted=2" in record.getMessage() for record in caplog.records] == [True]


async def test_popping_in_the_old_tables_before_adoption_leaves_nothing_to_warn_of(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    old = sdk(path)
    await old.add_items(turns("first", "second"))
    assert await old.pop_item() is not None
    old.close()
    ours(path).close()
    ours(path).close()
    assert [record for record in caplog.records if record.levelname == "WARNING"] == []


# -- names that are taken ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "taken",
    [
        "events",
        "Events",
        "checkpoints",
        "log_properties",
        "sessions",
        "Branches",
        "segments",
        "items",
        "usage",
    ],
)
@pytest.mark.parametrize("kind", ["TABLE {} (x)", "VIEW {} AS SELECT 1 AS x"])
async def test_the_history_in_a_file_whose_other_tables_have_our_names_is_migrated(
    path: Path, taken: str, kind: str
) -> None:
    session = sdk(path)
    await session.add_items(turns("first"))
    session.close()
    execute(path, f"CREATE {kind.format(taken)}")
    adopted = ours(path)
    await adopted.add_items(turns("second"))
    assert await adopted.get_items() == turns("first", "second")
    adopted.close()
    assert [column for _, column, *_ in rows(path, f"PRAGMA table_info({taken})")] == ["x"]
    assert await sdk(path).get_items() == turns("first")


async def test_the_sdks_tables_cannot_have_names_of_the_logs_tables(path: Path) -> None:
    session = sdk(path, sessions_table="sessions", messages_table="lines")
    await session.add_items(turns("first"))
    session.close()
    execute(path, "PRAGMA journal_mode=DELETE")
    before = stored(path)
    with pytest.raises(ForeignFileError, match="already has a table 'sessions'"):
        ours(path, sessions_table="sessions", messages_table="lines")
    assert stored(path) == before


async def test_plain_sessions_in_other_tables_are_named_and_nothing_is_written(path: Path) -> None:
    session = SQLiteSession("s", path, sessions_table="chats", messages_table="lines")
    await session.add_items(turns("first"))
    session.close()
    execute(path, "PRAGMA journal_mode=DELETE")
    before = stored(path)
    with pytest.raises(ForeignFileError, match="expected agent_sessions/agent_messages, got chats"):
        ours(path)
    assert stored(path) == before


@pytest.mark.parametrize("columns", ["session_id, name", "id, message_data"])
async def test_tables_that_are_only_called_like_the_sdks_are_refused(
    path: Path, columns: str
) -> None:
    for name in DEFAULT_PAIR:
        execute(path, f"CREATE TABLE {name} ({columns})")
    before = stored(path)
    with pytest.raises(ForeignFileError, match="belong to another program"):
        ours(path)
    assert stored(path) == before


async def test_tables_of_the_application_itself_are_left_alone(path: Path) -> None:
    session = sdk(path)
    await session.add_items(turns("first"))
    session.close()
    execute(path, "CREATE TABLE customers (name)", "INSERT INTO customers VALUES ('Ada')")
    kept = tables(path, (*DEFAULT_PAIR, "customers"))
    assert await ours(path).get_items() == turns("first")
    assert tables(path, (*DEFAULT_PAIR, "customers")) == kept


# -- size -------------------------------------------------------------------------------------


async def test_ten_thousand_messages_are_adopted(path: Path) -> None:
    session = sdk(path)
    await session.add_items(turns(*map(str, range(5_000))))
    await session.create_branch_from_turn(2_500, "half")
    session.close()
    execute(
        path,
        "INSERT INTO turn_usage (session_id, branch_id, user_turn_number, requests, total_tokens) "
        "SELECT session_id, branch_id, branch_turn_number, 1, 7 FROM message_structure "
        "WHERE message_type = 'user'",
    )
    set_times(path)
    before = await picture(sdk(path))
    adopted = ours(path)
    assert await picture(adopted) == before
    await assert_sound(path)
