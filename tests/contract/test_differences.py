"""The table of differences, and those in making and opening sessions, each shown on both sides."""

from __future__ import annotations

import asyncio
import importlib
import json
import re
from typing import Any

import pytest
from agents import RunContextWrapper
from agents.memory import OpenAIResponsesCompactionSession, Session, SessionABC, SQLiteSession

from tests.contract.differences import DIFFERENCES, SHOWN, shows
from tests.contract.harness import SIDES, World, our_class
from tests.contract.items import assistant, ran, turns, user


def test_every_difference_is_shown_by_a_test() -> None:
    for topic in ("", "_branches", "_items", "_usage"):
        importlib.import_module(f"tests.contract.test_differences{topic}")
    assert sorted(SHOWN) == sorted(difference.name for difference in DIFFERENCES)


def test_a_difference_is_told_in_plain_words() -> None:
    names = [difference.name for difference in DIFFERENCES]
    assert len(set(names)) == len(names)
    for difference in DIFFERENCES:
        told = (difference.name, difference.sdk, difference.ours, difference.reason)
        assert all(text and "|" not in text and "\n" not in text for text in told)
        assert not any(text.endswith(".") for text in told)


def test_a_difference_that_is_not_in_the_table_cannot_be_shown() -> None:
    with pytest.raises(LookupError, match="nothing of the kind"):
        shows("nothing of the kind")


@shows("how a session is created")
async def test_ours_is_made_by_place_as_well(world: World) -> None:
    with pytest.raises(TypeError, match="positional"):
        world.session_class("sdk")("s", world.path("sdk"), True)
    session = world.session_class("ours")("s", world.path("ours"), True)
    await session.add_items(turns("one"))
    assert (session.session_id, session.db_path) == ("s", world.path("ours"))
    assert await session.get_items() == turns("one")


@shows("tables in a new file")
async def test_ours_needs_no_flag_for_a_new_file(world: World) -> None:
    with pytest.raises(ValueError, match="create_tables=True"):
        world.session_class("sdk")(session_id="s", db_path=world.path("sdk"))
    with pytest.raises(ValueError, match="create_tables=True"):
        world.session_class("sdk")(session_id="s")
    for path in ({"db_path": world.path("ours")}, {}):
        session = world.session_class("ours")(session_id="s", **path)
        await session.add_items(turns("one"))
        assert await session.get_items() == turns("one")


@shows("an empty session id")
async def test_ours_refuses_an_empty_session_id(world: World) -> None:
    theirs = world.session_class("sdk")(
        session_id="", db_path=world.path("sdk"), create_tables=True
    )
    await theirs.add_items(turns("one"))
    with pytest.raises(ValueError, match="invalid session_id: expected a non-empty string, got ''"):
        world.session_class("ours")("", world.path("ours"))


@shows("a generated branch id given as a session id")
async def test_ours_opens_a_generated_branch_id_as_that_branch(world: World) -> None:
    pair = world.open()
    await pair.add_items(turns("one", "two"))
    branch = await pair.new_branch(2)
    theirs = world.session_class("sdk")(session_id=branch.sdk, db_path=world.path("sdk"))
    assert await theirs.get_items() == []
    ours = world.session_class("ours")(branch.ours, world.path("ours"))
    assert await ours.get_items() == turns("one")
    assert ours.current_branch == branch.ours
    await ours.add_items(turns("other two"))
    assert await pair.ours.get_items(branch_id=branch.ours) == turns("one", "other two")
    await pair.create_branch_from_turn(1, "draft")
    for side in SIDES:
        named = world.session_class(side)(
            session_id="draft", db_path=world.path(side), create_tables=True
        )
        assert await named.get_items() == []
        assert named._current_branch_id == "main"


@shows("the form of a generated branch id")
async def test_a_branch_id_that_could_be_guessed_opens_nothing(world: World) -> None:
    pair = world.open()
    await pair.add_items(turns("one", "two"))
    branch = await pair.new_branch(2)
    assert re.fullmatch(r"branch_from_turn_2_\d+", branch.sdk)
    guessable, random = branch.ours.rsplit("_", 1)
    assert len(random) == 16
    for guess in (guessable, f"{guessable}_2", f"{guessable}_{'0' * 16}"):
        stranger = world.session_class("ours")(guess, world.path("ours"))
        assert (stranger.session_id, await stranger.get_items()) == (guess, [])


@shows("clearing, switching and branching among other calls at once")
async def test_ours_takes_every_call_in_turn(world: World) -> None:
    pair = world.open()
    left = {}
    for side in SIDES:
        session = getattr(pair, side)
        adds = [session.add_items([user(str(number))]) for number in range(20)]
        await asyncio.gather(*adds, session.clear_session())
        left[side] = len(await session.get_items())
    assert left["sdk"] > 0
    assert left["ours"] == 0


async def test_ours_switches_and_branches_in_turn() -> None:
    session = our_class()("s")
    await asyncio.gather(
        session.add_items(turns("one")),
        session.add_items(turns("two")),
        session.create_branch_from_turn(2, "draft"),
        session.add_items(turns("of draft")),
        session.switch_to_branch("main"),
        session.add_items(turns("three")),
        session.switch_to_branch("draft"),
        session.pop_item(),
        session.delete_branch("draft", force=True),
        session.add_items(turns("four")),
    )
    assert await session.get_items() == turns("one", "two", "three", "four")
    assert [branch["branch_id"] for branch in await session.list_branches()] == ["main"]


class Compactor:
    """A client whose compaction answers with one message."""

    @property
    def responses(self) -> Compactor:
        return self

    async def compact(self, **asked: Any) -> Any:
        answer = type("Compacted", (), {})()
        answer.output = [assistant("all that was said")]
        answer.usage = None
        return answer


@shows("compacting a branch")
async def test_ours_compacts_a_branch_and_nothing_else(world: World) -> None:
    pair = world.open()
    await pair.add_items(turns("one", "two"))
    await pair.store_run_usage(ran())
    await pair.create_branch_from_turn(2, "draft")
    await pair.add_items(turns("other two"))
    await pair.store_run_usage(ran())
    summaries = {}
    for side in SIDES:
        client: Any = Compactor()
        box = OpenAIResponsesCompactionSession(
            "s", getattr(pair, side), client=client, compaction_mode="input"
        )
        await box.run_compaction({"force": True})
        summaries[side] = await getattr(pair, side).get_items()
    assert summaries["sdk"] == summaries["ours"]
    assert "all that was said" in json.dumps(summaries["ours"])
    assert pair.sdk._current_branch_id == "main"
    assert await pair.sdk.get_items(branch_id="draft") == []
    assert await pair.sdk.get_session_usage() is None
    assert pair.ours._current_branch_id == "draft"
    assert await pair.ours.get_items(branch_id="draft") == summaries["ours"]
    assert await pair.ours.get_items(branch_id="main") == turns("one", "two")
    assert await pair.ours.get_turn_usage(2, "main") != {}
    assert (await pair.ours.get_usage_stats())["total_runs"] == 2


@shows("a file with the history of a plain `SQLiteSession`")
@pytest.mark.sqlite_only("a history of the SDK's, which only files have")
async def test_ours_adopts_a_plain_history(world: World) -> None:
    plain = {}
    for side in SIDES:
        plain[side] = SQLiteSession("conversation", world.path(side))
        await plain[side].add_items([*turns("one"), user("two")])
    pair = world.open()
    assert await pair.sdk.get_items() == []
    assert await pair.sdk.pop_item() is None
    await pair.sdk.add_items(turns("new"))
    await pair.sdk.pop_item()
    assert await plain["sdk"].get_items() == turns("new")[:1]
    assert await pair.ours.get_items() == [*turns("one"), user("two")]
    assert [turn["turn"] for turn in await pair.ours.get_conversation_turns()] == [1, 2]
    await pair.ours.add_items(turns("new"))
    assert await pair.ours.pop_item() == turns("new")[-1]
    assert await plain["ours"].get_items() == [*turns("one"), user("two")]
    for session in plain.values():
        session.close()


@shows("the run context")
async def test_ours_takes_the_run_context(world: World) -> None:
    pair = world.open()
    context: Any = RunContextWrapper(context=None)
    calls: list[tuple[str, list[Any]]] = [
        ("add_items", [turns("one")]),
        ("get_items", []),
        ("pop_item", []),
        ("clear_session", []),
    ]
    for method, args in calls:
        with pytest.raises(TypeError, match="wrapper"):
            await getattr(pair.sdk, method)(*args, wrapper=context)
        await getattr(pair.ours, method)(*args, wrapper=context)
    assert await pair.ours.get_items() == []


@shows("a session id that is a number")
async def test_a_number_is_the_session_of_its_text(world: World) -> None:
    for side in SIDES:
        session = world.session_class(side)(
            session_id=42, db_path=world.path(side), create_tables=True
        )
        world.opened.append(session)
        await session.add_items(turns("one"))
        assert session.session_id == (42 if side == "sdk" else "42")
    assert await world.open("42").get_items() == turns("one")


@shows("the classes")
async def test_ours_is_a_session_of_its_own(world: World) -> None:
    pair = world.open()
    assert isinstance(pair.sdk, SQLiteSession)
    assert not isinstance(pair.ours, SessionABC)
    assert isinstance(pair.ours, Session)
