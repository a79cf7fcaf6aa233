"""A file of the SDK's is adopted on first opening: what it said, it goes on saying."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from agents import SQLiteSession

from agents_eventlog.eventlog import export_lines
from tests.adapters.old_files import (
    ITEMS_ON_MAIN,
    assert_sound,
    execute,
    grow,
    ours,
    pictures,
    rows,
    sdk,
    set_times,
    tables,
)
from tests.contract.items import assistant, call, output, ran, turns, user

if TYPE_CHECKING:
    from pathlib import Path

TERMS = ("cats", "CATS", "%", "é", "", "nothing like it")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "old.db"


async def assert_adopted(path: Path, before: dict[str, Any], terms: Any = TERMS) -> None:
    """Check that our sessions on a file say what the SDK's said, and that nothing there changed."""
    kept = tables(path)
    after = await pictures((ours(path, session_id) for session_id in before), terms)
    for session_id, seen in before.items():
        assert after[session_id] == seen, session_id
    assert tables(path) == kept
    await assert_sound(path)


async def seen_by_sdk(path: Path, *session_ids: str) -> dict[str, Any]:
    return await pictures((sdk(path, session_id) for session_id in session_ids), TERMS)


# -- what was there, is there -----------------------------------------------------------------


async def test_a_session_with_branches_tools_and_usage_reads_as_before(path: Path) -> None:
    session = sdk(path)
    await grow(session)
    session.close()
    set_times(path)
    before = await seen_by_sdk(path, "talk")
    seen = before["talk"]
    assert set(seen["branches"]) == {"main", "draft", "draft of draft"}
    assert len(seen["items"]) == ITEMS_ON_MAIN
    assert seen["usage"]["total_tokens"] == 120 + 55 + 14
    await assert_adopted(path, before)


async def test_several_sessions_in_one_file_stay_apart(path: Path) -> None:
    for number, session_id in enumerate(("one", "two", "drei ünd 'vier'")):
        session = sdk(path, session_id)
        await session.add_items(turns(*(f"{session_id} {turn}" for turn in range(number + 1))))
        await session.store_run_usage(ran(1, number, 1))
        if number % 2:
            await session.create_branch_from_turn(number + 1, "same name")
            await session.add_items(turns(f"on the branch of {session_id}"))
        session.close()
    set_times(path)
    before = await seen_by_sdk(path, "one", "two", "drei ünd 'vier'")
    await assert_adopted(path, before)


async def test_a_history_under_an_empty_id_can_be_read_exported_and_erased(path: Path) -> None:
    session = sdk(path, "")
    await session.add_items(turns("one"))
    session.close()
    async with ours(path).log as log:
        assert (await log.session(""))["title"] == "one"
        assert len(await log.find_items("one", session_id="")) == 2
        assert len([line async for line in export_lines(log, [""])]) > 1
        await log.delete_session("")
        await log.restore_session("")
        assert (await log.erase(session_id="")).sessions == 1


async def test_a_plain_session_reads_as_before(path: Path) -> None:
    plain = SQLiteSession("talk", path)
    items = [user("hello"), assistant("hi"), user("and cats?"), call(), output(), assistant("yes")]
    for item in items:
        await plain.add_items([item])
    plain.close()
    set_times(path)
    kept = tables(path)
    session = ours(path)
    assert await session.get_items() == items
    assert await session.get_items(2) == items[-2:]
    assert [turn["content"] for turn in await session.get_conversation_turns()] == [
        "hello",
        "and cats?",
    ]
    assert await session.get_tool_usage() == [("get_weather", 1, 2)]
    assert await session.get_session_usage() is None
    assert tables(path) == kept
    await assert_sound(path)


@pytest.mark.parametrize("journal", ["wal", "delete"])
async def test_a_file_of_any_journal_is_adopted(path: Path, journal: str) -> None:
    session = sdk(path)
    await grow(session)
    session.close()
    execute(path, f"PRAGMA journal_mode={journal}")
    assert rows(path, "PRAGMA journal_mode") == [(journal,)]
    set_times(path)
    kept = tables(path)
    adopted = ours(path)
    assert len(await adopted.get_items()) == ITEMS_ON_MAIN
    assert tables(path) == kept
    assert rows(path, "PRAGMA journal_mode") == [("wal",)]
    await assert_sound(path)


async def test_turns_keep_the_time_when_they_were_said(path: Path) -> None:
    session = sdk(path)
    await session.add_items(turns("first", "second"))
    await session.create_branch_from_turn(2, "draft")
    await session.add_items(turns("other second"))
    session.close()
    set_times(path)
    adopted = ours(path)
    main = [turn["timestamp"] for turn in await adopted.get_conversation_turns()]
    draft = [turn["timestamp"] for turn in await adopted.get_conversation_turns("draft")]
    assert main == ["2024-03-01 00:01:00", "2024-03-01 00:03:00"]
    assert draft == ["2024-03-01 00:01:00", "2024-03-01 00:05:00"]


async def test_sessions_keep_the_time_when_they_were_made(path: Path) -> None:
    for session_id in ("one", "two"):
        session = sdk(path, session_id)
        await session.add_items(turns("first"))
        session.close()
    set_times(path)
    made = {row["session_id"]: row for row in await ours(path).list_sessions()}
    assert made["one"]["created_at"] == "2024-02-02 09:00:00"
    assert made["two"]["created_at"] == "2024-02-03 09:00:00"
    assert made["one"]["updated_at"] == "2024-03-01 00:02:00"
    assert made["two"]["updated_at"] == "2024-03-01 00:04:00"


async def test_branches_are_listed_in_the_order_of_their_making(path: Path) -> None:
    session = sdk(path)
    await session.add_items(turns("first", "second"))
    for name in ("zulu", "alpha", "mike"):
        await session.create_branch_from_turn(2, name)
        await session.switch_to_branch("main")
    session.close()
    listed = [branch["branch_id"] for branch in await ours(path).list_branches()]
    assert listed == ["main", "zulu", "alpha", "mike"]


async def test_an_adopted_session_opens_on_main(path: Path) -> None:
    session = sdk(path)
    await grow(session)
    session.close()
    assert ours(path).current_branch == "main"
    assert ours(path, resume=True).current_branch == "main"
    assert ours(path, branch_id="draft").current_branch == "draft"


async def test_details_of_usage_are_kept(path: Path) -> None:
    session = sdk(path)
    await session.add_items(turns("first"))
    await session.store_run_usage(ran(3, 100, 20, cached=30, reasoning=7))
    session.close()
    stats = await ours(path).get_usage_stats()
    assert (stats["total_requests"], stats["total_tokens"]) == (3, 120)
    assert (stats["cached_tokens"], stats["reasoning_tokens"]) == (30, 7)
    turn = await ours(path).get_turn_usage(1)
    assert isinstance(turn, dict)
    assert turn["input_tokens_details"]["cached_tokens"] == 30
    assert turn["output_tokens_details"] == {"reasoning_tokens": 7}


async def test_a_branch_shares_its_items_instead_of_copying_them(path: Path) -> None:
    session = sdk(path)
    await session.add_items(turns(*map(str, range(20))))
    for number in range(5):
        await session.create_branch_from_turn(20, f"branch {number}")
        await session.switch_to_branch("main")
    session.close()
    ours(path).close()
    [(items,)] = rows(path, "SELECT COUNT(*) FROM items")
    assert items == 40


async def test_a_generated_branch_id_of_the_sdk_opens_only_beside_its_session(path: Path) -> None:
    session = sdk(path)
    await session.add_items(turns("first", "second"))
    branch_id = await session.create_branch_from_turn(2)
    await session.add_items(turns("other"))
    session.close()
    assert await ours(path, branch_id).get_items() == []  # it could be guessed
    opened = ours(path, branch_id=branch_id)
    assert opened.current_branch == branch_id
    assert await opened.get_items() == turns("first", "other")


@pytest.mark.parametrize("reserved", ["main", "draft", "deleted", "emptied"])
async def test_branch_ids_stay_taken(path: Path, reserved: str) -> None:
    session = sdk(path)
    await grow(session)
    session.close()
    adopted = ours(path)
    with pytest.raises(ValueError, match="has already been used"):
        await adopted.create_branch_from_turn(1, reserved)


async def test_branch_ids_stay_taken_after_the_sdk_cleared_the_session(path: Path) -> None:
    session = sdk(path)
    await grow(session)
    await session.clear_session()
    await session.add_items(turns("a new life"))
    session.close()
    adopted = ours(path)
    assert await adopted.get_items() == turns("a new life")
    with pytest.raises(ValueError, match="has already been used"):
        await adopted.create_branch_from_turn(1, "draft")
    await assert_sound(path)


async def test_branch_ids_stay_taken_where_nothing_else_is_left_of_a_session(path: Path) -> None:
    session = sdk(path)
    await grow(session)
    await session.clear_session()
    session.close()
    adopted = ours(path)
    assert await adopted.get_items() == []
    await adopted.add_items(turns("a new life"))
    with pytest.raises(ValueError, match="has already been used"):
        await adopted.create_branch_from_turn(1, "draft")
    await assert_sound(path)


async def test_a_main_that_was_popped_empty_stays_empty(path: Path) -> None:
    session = sdk(path)
    await session.add_items(turns("first", "second"))
    await session.create_branch_from_turn(2, "draft")
    await session.switch_to_branch("main")
    while await session.pop_item() is not None:
        pass
    session.close()
    adopted = ours(path)
    assert await adopted.get_items() == []
    assert await adopted.get_items(branch_id="draft") == turns("first")
    assert await adopted.get_conversation_turns() == []
    await adopted.add_items(turns("again"))
    assert await adopted.get_items() == turns("again")
    assert await adopted.get_items(branch_id="draft") == turns("first")
    await assert_sound(path)


async def test_an_empty_session_is_adopted_empty(path: Path) -> None:
    session = sdk(path)
    await session.add_items(turns("first"))
    await session.clear_session()
    session.close()
    execute(path, "INSERT INTO agent_sessions (session_id) VALUES ('never used')")
    for session_id in ("talk", "never used"):
        adopted = ours(path, session_id)
        assert await adopted.get_items() == []
        assert await adopted.list_branches() == []
        await adopted.add_items(turns("now"))
        assert await adopted.get_items() == turns("now")
    await assert_sound(path)


async def test_a_file_without_sessions_is_adopted(path: Path) -> None:
    sdk(path).close()
    adopted = ours(path)
    assert await adopted.list_sessions() == []
    await adopted.add_items(turns("first"))
    assert await adopted.get_items() == turns("first")
    await assert_sound(path)


# -- what the SDK hid, or could not read ------------------------------------------------------


async def test_messages_that_the_sdk_hid_are_shown_in_their_place(path: Path) -> None:
    advanced, plain = sdk(path), SQLiteSession("talk", path)
    await advanced.add_items(turns("first"))
    await advanced.store_run_usage(ran(1, 10, 1))
    await plain.add_items(turns("hidden"))
    await advanced.add_items(turns("second"))
    await advanced.store_run_usage(ran(1, 20, 2))
    await advanced.create_branch_from_turn(2, "draft")
    await advanced.add_items(turns("other second"))
    assert len(await advanced.get_items(branch_id="main")) == 4
    advanced.close()
    plain.close()
    kept = tables(path)
    adopted = ours(path)
    assert await adopted.get_items() == turns("first", "hidden", "second")
    assert await adopted.get_items(branch_id="draft") == turns("first", "other second")
    numbers = {turn["content"]: turn["turn"] for turn in await adopted.get_conversation_turns()}
    assert numbers == {"first": 1, "hidden": 2, "second": 3}
    spent = await adopted.get_turn_usage()
    assert isinstance(spent, list)
    assert {row["user_turn_number"]: row["input_tokens"] for row in spent} == {1: 10, 3: 20}
    assert tables(path) == kept
    await assert_sound(path)


@pytest.mark.parametrize("broken", ['\'{"role": "us\'', "''", "x'ff00'", "CAST(x'22ff22' AS TEXT)"])
async def test_rows_that_cannot_be_read_are_counted_and_the_rest_is_adopted(
    path: Path, broken: str, caplog: pytest.LogCaptureFixture
) -> None:
    session = sdk(path)
    await session.add_items(turns("first", "second"))
    session.close()
    execute(path, f"UPDATE agent_messages SET message_data = {broken} WHERE id = 2")
    kept = tables(path)
    adopted = ours(path)
    assert await adopted.get_items() == [user("first"), *turns("second")]
    assert await adopted.get_items(2) == turns("second")
    assert len(await adopted.get_conversation_turns()) == 2
    warnings = [record for record in caplog.records if record.levelname == "WARNING"]
    assert ["unreadable=1" in record.getMessage() for record in warnings] == [True]
    assert tables(path) == kept
    await assert_sound(path)


async def test_usage_of_a_turn_that_cannot_be_read_is_still_spent(path: Path) -> None:
    session = sdk(path)
    await session.add_items(turns("first"))
    await session.add_items([user("second")])
    await session.store_run_usage(ran(1, 40, 2))
    session.close()
    execute(path, "UPDATE agent_messages SET message_data = '{' WHERE id = 3")
    adopted = ours(path)
    assert await adopted.get_session_usage() is None
    assert (await adopted.get_usage_stats())["total_tokens"] == 42


async def test_items_of_every_shape_come_back(path: Path) -> None:
    items: list[Any] = [
        user("\ud800 lone"),
        {"role": "user", "content": None},
        {"nan": float("inf"), "huge": 10**40, "deep": [[[[{}]]]]},
        "text",
        None,
        [1, 2],
        {"role": "assistant", "content": "q'uo\"te\n"},
    ]
    plain = SQLiteSession("talk", path)
    await plain.add_items(items)
    plain.close()
    assert await ours(path).get_items() == items
    await assert_sound(path)


async def test_usage_that_counts_nothing_possible_is_left_out_and_told(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    session = sdk(path)
    await session.add_items(turns("first", "second"))
    await session.store_run_usage(ran(10))
    session.close()
    execute(path, "UPDATE turn_usage SET input_tokens = -7")
    adopted = ours(path)
    assert await adopted.get_items() == turns("first", "second")
    assert (await adopted.get_usage_stats())["total_tokens"] == 0
    warnings = [record for record in caplog.records if record.levelname == "WARNING"]
    assert ["unreadable=0 unreadable_usage=1" in record.getMessage() for record in warnings] == [
        True
    ]


async def test_structure_that_is_damaged_hides_no_message(path: Path) -> None:
    session = sdk(path)
    await session.add_items(turns("one", "two"))
    await session.store_run_usage(ran(1, 7, 1))
    await session.store_run_usage(ran(1, 7, 1))
    session.close()
    execute(
        path,
        "UPDATE message_structure SET branch_id = x'ff' WHERE message_id = 2",
        "UPDATE branch_reservations SET branch_id = x'ff'",
        "UPDATE turn_usage SET input_tokens_details = hex(zeroblob(50000))",
        "UPDATE turn_usage SET input_tokens_details = replace(input_tokens_details, '0', '[')",
    )
    adopted = ours(path)
    assert await adopted.get_items() == turns("one", "two")
    assert (await adopted.get_usage_stats())["total_tokens"] == 8
    adopted.close()
    execute(path, "UPDATE turn_usage SET branch_id = x'ff'")
    await assert_sound(path)
