"""What a chat product does with turns: look at them, run one again, edit it, undo it."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

import pytest
from agents import Agent, Runner

from agents_eventlog import AdvancedSQLiteSession, EventLogSession, projections
from agents_eventlog.adapters.openai_agents.testing import ScriptedModel
from agents_eventlog.eventlog import EventLog, TurnRedone, recording
from agents_eventlog.eventlog.errors import (
    BranchNotFoundError,
    TurnNotFoundError,
    UndecodableEventError,
)
from tests.adapters.looking import answer, tampered, user
from tests.faults.support import ran

if TYPE_CHECKING:
    from pathlib import Path

    from tests.postgres import Server


@pytest.fixture
async def session(tmp_path: Path) -> AdvancedSQLiteSession:
    """A conversation of three turns on main, with items before the first."""
    opened = AdvancedSQLiteSession("s", tmp_path / "talk.db")
    await opened.add_items([{"role": "system", "content": "Be kind."}])
    for number in ("one", "two", "three"):
        with recording(actor=f"writer of {number}"):
            await opened.add_items([user(number), answer(f"answer to {number}")])
    return opened


def texts(items: Any) -> list[str]:
    return [item["content"] for item in items]


# -- the tree ---------------------------------------------------------------------------------


async def test_the_tree_says_where_each_branch_left_and_how_it_goes_on(
    session: AdvancedSQLiteSession,
) -> None:
    await session.create_branch_from_turn(2, "again")
    await session.add_items([user("two, but kinder"), answer("of course")])
    await session.create_branch("later")
    main, again, later = await session.branch_tree()
    assert (main["from_branch_id"], main["fork_turn"], main["first_words"]) == (None, None, "one")
    assert (again["from_branch_id"], again["fork_turn"], again["before_turn"]) == ("main", 1, 2)
    assert (again["items"], again["own_items"], again["turns"]) == (5, 2, 2)
    assert again["first_words"] == "two, but kinder"
    assert (later["fork_turn"], later["before_turn"], later["own_items"]) == (2, None, 0)
    assert later["first_words"] is None
    assert [node["is_current"] for node in (main, again, later)] == [False, False, True]
    assert datetime.fromisoformat(main["last_used_at"]).utcoffset() is not None


async def test_the_tree_keeps_deleted_branches_with_their_end(
    session: AdvancedSQLiteSession,
) -> None:
    await session.create_branch_from_turn(2, "gone")
    await session.delete_branch("gone", force=True)
    main, gone = await session.branch_tree()
    assert main["is_current"]
    assert (gone["is_live"], gone["ended"], gone["last_version"]) == (False, "deleted", 5)


async def test_a_branch_whose_shared_items_were_removed_shares_the_turns_that_are_left(
    session: AdvancedSQLiteSession,
) -> None:
    await session.create_branch("short")
    for _ in range(3):
        await session.pop_item()
    await session.add_items([user("instead")])
    short = (await session.branch_tree())[1]
    assert (short["fork_turn"], short["own_items"], short["first_words"]) == (2, 1, "instead")
    for _ in range(2):
        await session.pop_item()
    short = (await session.branch_tree())[1]
    assert (short["fork_turn"], short["own_items"], short["first_words"]) == (1, 0, None)


async def test_a_new_session_has_an_empty_tree(tmp_path: Path) -> None:
    assert await AdvancedSQLiteSession("new", tmp_path / "talk.db").branch_tree() == []


# -- versions of a turn -----------------------------------------------------------------------


async def test_siblings_are_the_versions_of_a_turn_on_all_branches(
    session: AdvancedSQLiteSession,
) -> None:
    await session.create_branch_from_turn(2, "b")
    await session.add_items([user("two again")])
    await session.create_branch("c")
    await session.add_items([user("three after two again")])
    versions = await session.siblings(2)
    assert texts(each["item"] for each in versions) == ["two", "two again"]
    assert [each["number"] for each in versions] == [1, 2]
    assert [each["branch_ids"] for each in versions] == [["main"], ["b", "c"]]
    assert [each["branch_id"] for each in versions] == ["main", "c"]
    assert [each["is_current"] for each in versions] == [False, True]
    (only,) = await session.siblings(3)  # turn 3 of main follows another turn 2
    assert only["item"] == user("three after two again")
    assert len(await session.siblings(1)) == 1


async def test_siblings_are_known_before_the_new_version_is_run(
    session: AdvancedSQLiteSession,
) -> None:
    await session.retry(3)
    (first,) = await session.siblings(3)
    assert (first["is_current"], first["branch_id"]) == (False, "main")


async def test_a_turn_that_the_branch_lacks_has_no_siblings(session: AdvancedSQLiteSession) -> None:
    for turn in (-1, 0, 5):
        with pytest.raises(TurnNotFoundError):
            await session.siblings(turn)


async def test_siblings_leave_out_versions_that_were_removed(
    session: AdvancedSQLiteSession,
) -> None:
    await session.create_branch_from_turn(3, "b")
    await session.add_items([user("three again")])
    await session.switch_to_branch("main")
    await session.delete_branch("b")
    assert len(await session.siblings(3)) == 1
    await session.delete_session()
    assert await session.siblings(1) == []


# -- the transcript ---------------------------------------------------------------------------


async def test_a_transcript_says_of_each_item_when_where_and_by_whom_it_was_added(
    session: AdvancedSQLiteSession,
) -> None:
    await session.create_branch_from_turn(2, "b")
    await session.add_items([user("two again")])
    rows = await session.get_transcript()
    assert [row["turn"] for row in rows] == [0, 1, 1, 2]
    assert [(row["position"], row["index"]) for row in rows] == [(1, 0), (2, 0), (2, 1), (6, 0)]
    assert [row["version"] for row in rows] == [1, 2, 2, 6]
    assert [row["branch_id"] for row in rows] == ["main", "main", "main", "b"]
    assert [row["actor"] for row in rows] == [None, "writer of one", "writer of one", None]
    assert [row["item"] for row in rows] == await session.get_items()
    assert all(datetime.fromisoformat(row["time"]).utcoffset() is not None for row in rows)


async def test_a_transcript_of_some_turns_has_only_those(session: AdvancedSQLiteSession) -> None:
    async def turns(**window: Any) -> list[int]:
        return [row["turn"] for row in await session.get_transcript("main", **window)]

    await session.create_branch_from_turn(2, "b")
    assert await turns() == [0, 1, 1, 2, 2, 3, 3]
    assert await turns(first_turn=2) == [2, 2, 3, 3]
    assert await turns(first_turn=2, last_turn=2) == [2, 2]
    assert await turns(last_turn=0) == [0]
    assert await turns(first_turn=0, last_turn=1) == [0, 1, 1]
    assert await turns(first_turn=4) == []
    assert await turns(first_turn=3, last_turn=1) == []


async def test_a_transcript_keeps_the_place_of_erased_content(
    session: AdvancedSQLiteSession, tmp_path: Path
) -> None:
    tampered(tmp_path / "talk.db", "UPDATE events SET data = NULL WHERE position = 2")
    rows = await session.get_transcript(last_turn=1)
    assert [(row["item"], row["is_erased"]) for row in rows[1:]] == [(None, True), (None, True)]
    assert (await session.branch_tree())[0]["first_words"] is None


# -- run again --------------------------------------------------------------------------------


async def test_retry_runs_a_turn_again_on_a_branch_of_its_own(
    session: AdvancedSQLiteSession, no_tracing: None
) -> None:
    agent = Agent(name="a", model=ScriptedModel(["another answer"]))
    await Runner.run(agent, await session.retry(2, "again"), session=session)
    assert session.current_branch == "again"
    items: Any = await session.get_items()
    assert texts(items[:-1]) == ["Be kind.", "one", "answer to one", "two"]
    assert items[-1]["content"][0]["text"] == "another answer"
    assert len(await session.get_items(branch_id="main")) == 7
    assert [each["branch_id"] for each in await session.siblings(2)] == ["main", "again"]


async def test_retry_takes_the_last_turn_by_default(session: AdvancedSQLiteSession) -> None:
    assert await session.retry() == "three"
    assert texts(await session.get_items())[-1] == "answer to two"
    with pytest.raises(TurnNotFoundError):
        await session.retry(3)


async def test_retry_without_a_turn_changes_nothing(tmp_path: Path) -> None:
    session = AdvancedSQLiteSession("new", tmp_path / "talk.db", first_turn_number=0)
    with pytest.raises(TurnNotFoundError):
        await session.retry()
    with pytest.raises(TurnNotFoundError):
        await session.retry(0)
    assert await session.branch_tree() == []


async def test_retry_and_edit_count_turns_from_the_sessions_first_number(tmp_path: Path) -> None:
    session = AdvancedSQLiteSession("s", tmp_path / "talk.db", first_turn_number=0)
    await session.add_items([user("zero"), user("one")])
    assert [row["turn"] for row in await session.get_transcript()] == [0, 1]
    assert await session.retry(1) == "one"
    await session.add_items([user("one again")])
    (_, node) = await session.branch_tree()
    assert (node["before_turn"], node["fork_turn"]) == (1, 0)
    assert [each["turn"] for each in await session.siblings(1)] == [1, 1]
    assert await session.edit(0, "other") == "other"


async def test_edit_gives_the_input_with_another_text(session: AdvancedSQLiteSession) -> None:
    assert await session.edit(1, "first of all") == "first of all"
    assert texts(await session.get_items()) == ["Be kind."]
    with pytest.raises(TypeError, match="expected a str, got int"):
        await session.edit(1, 7)  # type: ignore[arg-type]


async def test_an_input_with_more_than_text_is_given_whole_and_edit_keeps_its_pictures(
    session: AdvancedSQLiteSession,
) -> None:
    picture = {"type": "input_image", "image_url": "data:image/png;base64,AAAA"}
    message: Any = {
        "role": "user",
        "content": [picture, {"type": "input_text", "text": "What is it?"}, picture],
    }
    await session.add_items([message])
    assert await session.retry() == [message]
    await session.add_items([message])
    assert await session.edit(4, "Who?") == [
        {"role": "user", "content": [picture, {"type": "input_text", "text": "Who?"}, picture]}
    ]
    named: Any = {"role": "user", "content": "hi", "type": "message"}
    await session.add_items([named])
    assert await session.retry() == [named]
    await session.add_items([{"role": "user", "content": [picture]}])
    assert await session.edit(4, "Look:") == [
        {"role": "user", "content": [{"type": "input_text", "text": "Look:"}, picture]}
    ]


# -- undo and redo ----------------------------------------------------------------------------


async def test_undo_takes_the_last_turn_in_one_event_and_redo_gives_it_back(
    session: AdvancedSQLiteSession,
) -> None:
    before = await session.get_items()
    version = await session.log.version("s")
    assert await session.undo_turn() == [user("three"), answer("answer to three")]
    assert await session.log.version("s") == version + 1
    assert await session.get_items() == before[:-2]
    assert await session.undo_turn() == [user("two"), answer("answer to two")]
    assert await session.redo() == [user("two"), answer("answer to two")]
    assert await session.redo() == [user("three"), answer("answer to three")]
    assert await session.get_items() == before
    assert await session.redo() == []
    assert await session.get_current_turn() == 3


async def test_undo_ends_with_the_items_before_the_first_turn(tmp_path: Path) -> None:
    session = AdvancedSQLiteSession("s", tmp_path / "talk.db")
    assert await session.undo_turn() == []
    assert await session.redo() == []
    await session.add_items([answer("welcome"), answer("how can I help?"), user("one")])
    assert await session.undo_turn() == [user("one")]
    assert await session.undo_turn() == [answer("welcome"), answer("how can I help?")]
    assert await session.undo_turn() == []
    assert len(await session.redo()) == 2
    assert await session.redo() == [user("one")]


async def test_an_undone_turn_can_be_undone_and_redone_again_by_any_object(
    session: AdvancedSQLiteSession, tmp_path: Path
) -> None:
    before = await session.get_items()
    for _ in range(3):
        await session.undo_turn()
        other = AdvancedSQLiteSession("s", tmp_path / "talk.db")
        assert len(await other.redo()) == 2
    assert await session.get_items() == before


@pytest.mark.parametrize("change", ["add", "pop", "clear", "replace"])
async def test_nothing_is_redone_after_another_change_of_the_branch(
    session: AdvancedSQLiteSession, change: str
) -> None:
    await session.undo_turn()
    if change == "add":
        await session.add_items([user("three anew")])
    elif change == "pop":
        await session.pop_item()
    elif change == "replace":
        await session._atomic_replace_items([user("all of it")])
    else:
        await session.clear_session()
    items = await session.get_items()
    assert await session.redo() == []
    assert await session.get_items() == items


async def test_what_happens_on_other_branches_does_not_keep_a_turn_from_being_redone(
    session: AdvancedSQLiteSession,
) -> None:
    await session.undo_turn()
    await session.create_branch("b")
    assert await session.redo() == []  # b never had the turn
    await session.add_items([user("on b")])
    assert await session.undo_turn() == [user("on b")]
    await session.switch_to_branch("main")
    assert await session.redo() == [user("three"), answer("answer to three")]


async def test_undo_leaves_other_branches_alone(session: AdvancedSQLiteSession) -> None:
    await session.create_branch("b")
    await session.undo_turn()
    assert len(await session.get_items(branch_id="main")) == 7
    assert len(await session.get_items()) == 5


async def test_the_usage_of_an_undone_turn_stays_counted_and_is_active_again_once_redone(
    session: AdvancedSQLiteSession,
) -> None:
    await session.store_run_usage(ran(20))
    used = await session.get_turn_usage(3)
    total = await session.get_usage_stats()
    await session.undo_turn()
    assert await session.get_turn_usage(3) == {}
    assert await session.get_session_usage() is None
    await session.redo()
    assert await session.get_turn_usage(3) == used
    await session.undo_turn()
    await session.add_items([user("three anew")])
    await session.store_run_usage(ran(30))
    await session.undo_turn()
    await session.redo()
    live: Any = await session.get_turn_usage(3)
    assert live["total_tokens"] == 30  # not that of the turn that was undone before
    assert (await session.get_usage_stats())["total_tokens"] == total["total_tokens"] + 30


async def test_a_large_turn_is_redone_whole(session: AdvancedSQLiteSession) -> None:
    items: Any = [user("many"), *(answer(str(number)) for number in range(120))]
    await session.add_items(items)
    await session.undo_turn()
    assert await session.redo() == items
    assert (await session.get_items())[-121:] == items
    assert await session.redo() == []
    assert await session.undo_turn() == items


async def test_content_that_was_erased_is_not_redone(session: AdvancedSQLiteSession) -> None:
    log: Any = session.log
    await session.undo_turn()
    await log.erase(popped=True)
    with pytest.raises(UndecodableEventError, match="was erased"):
        await session.redo()
    assert await session.get_current_turn() == 2


async def test_what_was_redone_is_found_and_erased_like_any_item(
    session: AdvancedSQLiteSession,
) -> None:
    log: Any = session.log
    await session.undo_turn()
    await session.redo()
    assert len(await session.find_items("answer to three")) == 1
    await log.erase(popped=True)
    assert texts(await session.get_items())[-1] == "answer to three"
    await session.undo_turn()
    await log.erase(popped=True)
    (found,) = [each async for each in log.read("s", types=[TurnRedone])]
    assert found.is_erased
    projections.replay(log, projections.default().named([]), check=True)


# -- comparisons ------------------------------------------------------------------------------


async def test_two_branches_are_compared_turn_by_turn_after_what_they_share(
    session: AdvancedSQLiteSession,
) -> None:
    await session.store_run_usage(ran(20))
    await session.create_branch_from_turn(2, "b")
    await session.add_items([user("two again"), answer("another answer")])
    await session.store_run_usage(ran(30))
    found = await session.compare_branches("main", "b")
    assert (found["a"], found["b"]) == ("main", "b")
    assert (found["shared_turns"], found["shared_items"]) == (1, 3)
    two, three = found["turns"]
    assert two["a"] is not None
    assert two["b"] is not None
    assert texts(row["item"] for row in two["a"]["items"]) == ["two", "answer to two"]
    assert texts(row["item"] for row in two["b"]["items"]) == ["two again", "another answer"]
    assert (two["a"]["total_tokens"], two["b"]["total_tokens"]) == (0, 30)
    assert (two["b"]["requests"], two["b"]["unpriced_requests"]) == (1, 1)
    assert two["b"]["seconds"] == 0
    assert datetime.fromisoformat(two["a"]["started_at"]).utcoffset() is not None
    assert three["b"] is None
    assert three["a"] is not None
    assert three["a"]["total_tokens"] == 20
    assert (found["total_a"]["total_tokens"], found["total_b"]["total_tokens"]) == (20, 30)
    assert found["total_b"]["models"] == []


async def test_branches_with_the_same_items_share_all_their_turns(
    session: AdvancedSQLiteSession,
) -> None:
    await session.create_branch("b")
    found = await session.compare_branches("b", "main")
    assert (found["shared_turns"], found["shared_items"], found["turns"]) == (3, 7, [])
    await session.add_items([answer("one more")])  # the turn that is open on both differs now
    found = await session.compare_branches("b", "main")
    assert (found["shared_turns"], found["shared_items"]) == (2, 7)
    (turn,) = found["turns"]
    assert turn["a"] is not None
    assert turn["b"] is not None
    assert (len(turn["a"]["items"]), len(turn["b"]["items"])) == (3, 2)
    await session.create_branch_from_turn(0, "empty")
    found = await session.compare_branches("empty", "b")
    assert (found["shared_turns"], found["shared_items"]) == (0, 0)
    assert [turn["turn"] for turn in found["turns"]] == [0, 1, 2, 3]
    await session.add_items([user("another beginning")])
    found = await session.compare_branches("empty", "main")
    assert (found["shared_turns"], found["shared_items"]) == (0, 0)
    assert found["turns"][1]["a"] is not None


async def test_the_usage_of_a_turn_that_was_written_on_a_third_branch_is_compared_too(
    session: AdvancedSQLiteSession,
) -> None:
    await session.create_branch_from_turn(2, "first")
    await session.add_items([user("two again")])
    await session.store_run_usage(ran(30))
    await session.create_branch("second")
    for version in ("kept", "popped there", "deleted there"):
        if version == "popped there":
            await session.switch_to_branch("first")
            await session.undo_turn()
            await session.add_items([user("a third two")])
            await session.store_run_usage(ran(50))
        elif version == "deleted there":
            await session.switch_to_branch("main")
            await session.delete_branch("first")
        found = await session.compare_branches("main", "second")
        assert found["turns"][0]["b"] is not None
        assert found["turns"][0]["b"]["total_tokens"] == 30


async def test_a_turn_without_usage_that_its_branch_no_longer_has_is_compared(
    session: AdvancedSQLiteSession,
) -> None:
    await session.create_branch("b")
    await session.switch_to_branch("main")
    await session.undo_turn()
    (turn,) = (await session.compare_branches("main", "b"))["turns"]
    assert turn["a"] is None
    assert turn["b"] is not None
    assert turn["b"]["requests"] == 0


async def test_a_branch_that_does_not_exist_is_not_compared(
    session: AdvancedSQLiteSession,
) -> None:
    with pytest.raises(BranchNotFoundError):
        await session.compare_branches("main", "nowhere")


# -- PostgreSQL -------------------------------------------------------------------------------


async def test_turns_are_the_same_on_postgresql(server: Server) -> None:
    async with EventLog.open(server.url()) as log:
        session = EventLogSession("s", log)
        for number in ("one", "two"):
            await session.add_items([user(number), answer(f"answer to {number}")])
        await session.store_run_usage(ran(20))
        assert await session.undo_turn() == [user("two"), answer("answer to two")]
        assert await session.get_turn_usage(2) == {}
        assert await session.redo() == [user("two"), answer("answer to two")]
        assert await session.redo() == []
        live: Any = await session.get_turn_usage(2)
        assert live["total_tokens"] == 20
        assert await session.retry(2, "b") == "two"
        await session.add_items([user("two again")])
        assert texts(each["item"] for each in await session.siblings(2)) == ["two", "two again"]
        assert [row["turn"] for row in await session.get_transcript(first_turn=2)] == [2]
        assert [node["fork_turn"] for node in await session.branch_tree()] == [None, 1]
        found = await session.compare_branches("main", "b")
        assert (found["shared_turns"], found["total_a"]["total_tokens"]) == (1, 20)
