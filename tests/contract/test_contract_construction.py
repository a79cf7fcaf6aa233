"""What a session can be made of, on both sides (bullets 1 to 9)."""

from __future__ import annotations

import inspect
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
from agents.extensions.memory import AdvancedSQLiteSession as SDKSession
from agents.memory import SessionSettings

from tests.contract.harness import SIDES, World, our_class
from tests.contract.items import turns, user

if TYPE_CHECKING:
    from pathlib import Path

PUBLIC_METHODS = sorted(
    name
    for name, _ in inspect.getmembers(SDKSession, inspect.isfunction)
    if not name.startswith("_")
)


def attribute(pair: Any, name: str) -> Any:
    """Return an attribute that has the same value on both sides."""
    sdk, ours = (getattr(getattr(pair, side), name) for side in SIDES)
    assert sdk == ours
    return sdk


def tables(path: Path) -> set[str]:
    """Return the tables of a file, none if there is no file."""
    if not path.exists():
        return set()
    with closing(sqlite3.connect(path)) as connection:
        return {row[0] for row in connection.execute("SELECT name FROM sqlite_master")}


@pytest.mark.parametrize("method", PUBLIC_METHODS)
def test_a_method_takes_every_argument_that_the_sdks_takes(method: str) -> None:
    theirs = list(inspect.signature(getattr(SDKSession, method)).parameters.values())
    ours = list(inspect.signature(getattr(our_class(), method)).parameters.values())
    common = ours[: len(theirs)]
    assert [(p.name, p.default) for p in common] == [(p.name, p.default) for p in theirs]
    assert all(p.kind is p.POSITIONAL_OR_KEYWORD for p in common)
    assert all(p.default is not p.empty for p in ours[len(theirs) :])
    assert inspect.iscoroutinefunction(getattr(our_class(), method)) is (
        inspect.iscoroutinefunction(getattr(SDKSession, method))
    )


def test_the_attributes_of_the_sdks_class_are_there(world: World) -> None:
    pair = world.open("conversation")
    assert attribute(pair, "session_id") == "conversation"
    assert attribute(pair, "sessions_table") == "agent_sessions"
    assert attribute(pair, "messages_table") == "agent_messages"
    assert attribute(pair, "session_settings") == SessionSettings(limit=None)
    for side in SIDES:
        assert getattr(pair, side).db_path == world.path(side)


@pytest.mark.parametrize("session_id", [" ", "a'b\"c", "x" * 5000, "日本 🍕", "a/b\nc"])
async def test_a_session_id_may_be_any_text(world: World, session_id: str) -> None:
    pair = world.open(session_id)
    await pair.add_items(turns("one"))
    assert attribute(pair, "session_id") == session_id
    assert await pair.again().get_items() == turns("one")
    assert await world.open(session_id + "!").get_items() == []


@pytest.mark.parametrize("side", SIDES)
def test_an_unknown_keyword_is_refused(world: World, side: str) -> None:
    with pytest.raises(TypeError, match="tables_table"):
        world.session_class(side)(
            session_id="s", db_path=world.path(side), create_tables=True, tables_table="x"
        )


@pytest.mark.parametrize("settings", [{"limit": 2}, SessionSettings(limit=2)])
async def test_settings_are_an_object_or_a_dict(world: World, settings: Any) -> None:
    pair = world.open(session_settings=settings)
    await pair.add_items(turns("one", "two"))
    assert attribute(pair, "session_settings") == SessionSettings(limit=2)
    assert await pair.get_items() == turns("two")


def test_unknown_settings_are_named(world: World) -> None:
    for side in SIDES:
        with pytest.raises(TypeError, match=r"^Unknown session settings: limitt$"):
            world.session_class(side)(
                session_id="s",
                db_path=world.path(side),
                create_tables=True,
                session_settings={"limitt": 3},
            )


@pytest.mark.sqlite_only("it opens the file")
@pytest.mark.parametrize("side", SIDES)
def test_an_unclaimed_file_needs_create_tables_and_stays_as_it_was(world: World, side: str) -> None:
    with pytest.raises(ValueError, match="create_tables=True"):
        world.session_class(side)(session_id="s", db_path=world.path(side), create_tables=False)
    assert tables(world.path(side)) == set()


@pytest.mark.parametrize("side", SIDES)
def test_a_database_in_memory_needs_create_tables_too(world: World, side: str) -> None:
    with pytest.raises(ValueError, match="create_tables=True"):
        world.session_class(side)(session_id="s", create_tables=False)


async def test_a_claimed_file_opens_without_create_tables(world: World) -> None:
    await world.open("first").add_items(turns("one"))
    pair = world.open("first", create_tables=False)
    assert await pair.get_items() == turns("one")
    await pair.add_items(turns("two"))
    assert await world.open("second", create_tables=False).get_items() == []


async def test_a_claimed_file_opens_with_create_tables_again(world: World) -> None:
    await world.open().add_items(turns("one"))
    assert await world.open(create_tables=True).get_items() == turns("one")


@pytest.mark.parametrize("side", SIDES)
async def test_a_path_may_be_text(world: World, side: str) -> None:
    path = str(world.path(side))
    session = world.session_class(side)(session_id="s", db_path=path, create_tables=True)
    await session.add_items([user("hello")])
    assert await session.get_items() == [user("hello")]
    assert session.db_path == path
    session.close()


async def test_sessions_in_memory_share_nothing(world: World) -> None:
    first, second = world.open(memory=True), world.open(memory=True)
    await first.add_items(turns("one"))
    assert await first.get_items() == turns("one")
    assert await second.get_items() == []
    assert await first.create_branch_from_turn(1, "draft") == "draft"


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("kind", ["folder", "text", "nowhere"])
def test_a_path_that_cannot_be_a_database_fails_at_once(world: World, side: str, kind: str) -> None:
    path = world.folder / kind
    if kind == "folder":
        path.mkdir()
    elif kind == "text":
        path.write_text("This is no database, whatever its name says. " * 50)
    else:
        path = path / "deep" / "file.db"
    before = path.read_bytes() if kind == "text" else b""
    with pytest.raises(Exception, match=r".+"):
        world.session_class(side)(session_id="s", db_path=path, create_tables=True)
    assert (path.read_bytes() if kind == "text" else b"") == before


async def test_a_session_that_could_not_be_opened_holds_nothing_back(world: World) -> None:
    for side in SIDES:
        with pytest.raises(ValueError, match="create_tables=True"):
            world.session_class(side)(session_id="s", db_path=world.path(side), create_tables=False)
    pair = world.open()
    await pair.add_items(turns("one"))
    assert await pair.get_items() == turns("one")


async def test_every_instance_starts_on_main(world: World) -> None:
    pair = world.open()
    await pair.add_items(turns("one", "two"))
    await pair.create_branch_from_turn(2, "draft")
    assert await pair.current() == "draft"
    assert await pair.again().current() == "main"
    assert await pair.again().get_items() == turns("one", "two")
