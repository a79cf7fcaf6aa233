"""Table names of one's own, and the one pair that a file belongs to (bullets 10 to 14)."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import Any

import pytest

from tests.contract.harness import SIDES, World
from tests.contract.items import turns

FIRST: dict[str, Any] = {"sessions_table": "first_sessions", "messages_table": "first_messages"}


pytestmark = pytest.mark.sqlite_only("the names of the SDK's tables, which only files have")


@pytest.mark.parametrize(
    "names",
    [
        FIRST,
        {"sessions_table": '"quoted_sessions"'},
        {"sessions_table": '"Select"', "messages_table": "größe"},
        {"sessions_table": "[bracketed one]"},
    ],
)
async def test_a_pair_of_names_works_like_the_default(world: World, names: dict[str, Any]) -> None:
    pair = world.open(**names)
    await pair.add_items(turns("one", "two"))
    await pair.create_branch_from_turn(2, "draft")
    again = pair.again(**names)
    assert await again.get_items(branch_id="draft") == turns("one")
    assert await again.get_items() == turns("one", "two")
    for side in SIDES:
        assert getattr(pair, side).sessions_table == names["sessions_table"]


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize(
    "names",
    [
        {"sessions_table": "second_sessions", "messages_table": "second_messages"},
        {"sessions_table": "second_sessions", "messages_table": "first_messages"},
        {"sessions_table": "first_sessions", "messages_table": "second_messages"},
        {},
    ],
)
async def test_another_pair_is_refused_by_the_name_of_the_owner(
    world: World, side: str, names: dict[str, Any]
) -> None:
    make = world.session_class(side)
    first = make(session_id="s", db_path=world.path(side), create_tables=True, **FIRST)
    await first.add_items(turns("one"))
    for create_tables in (True, False):
        with pytest.raises(ValueError, match="first_" if create_tables else "table"):
            make(session_id="s", db_path=world.path(side), create_tables=create_tables, **names)
    with closing(sqlite3.connect(world.path(side))) as connection:
        present = {row[0] for row in connection.execute("SELECT name FROM sqlite_master")}
    assert not present & {"second_sessions", "second_messages", "agent_sessions", "agent_messages"}
    assert await first.get_items() == turns("one")
    first.close()


@pytest.mark.parametrize("side", SIDES)
def test_the_refusal_says_already_belongs_to(world: World, side: str) -> None:
    make = world.session_class(side)
    make(session_id="s", db_path=world.path(side), create_tables=True, **FIRST).close()
    with pytest.raises(ValueError, match=r"already belongs to 'first_sessions"):
        make(
            session_id="s",
            db_path=world.path(side),
            create_tables=True,
            sessions_table="second_sessions",
            messages_table="second_messages",
        )


@pytest.mark.parametrize(
    ("first", "second", "one_name"),
    [
        ("FooSessions", "foosessions", True),
        ('"foo_sessions"', "FOO_SESSIONS", True),
        ("[foo_sessions]", '"foo_sessions"', True),
        ("ßsessions", "sssessions", False),
        ("äsessions", "Äsessions", False),
    ],
)
async def test_names_compare_as_sqlite_compares_them(
    world: World, first: str, second: str, one_name: bool
) -> None:
    pair = world.open(sessions_table=first)
    await pair.add_items(turns("one"))
    if one_name:
        assert await pair.again(sessions_table=second).get_items() == turns("one")
        return
    for side in SIDES:
        with pytest.raises(ValueError, match=f"belongs to.*{first}"):
            world.session_class(side)(
                session_id="s", db_path=world.path(side), create_tables=True, sessions_table=second
            )


async def test_the_owning_pair_opens_without_create_tables(world: World) -> None:
    await world.open(**FIRST).add_items(turns("one"))
    assert await world.open(create_tables=False, **FIRST).get_items() == turns("one")


async def test_many_sessions_share_a_file_and_nothing_else(world: World) -> None:
    pairs = [world.open(name) for name in ("a", "A", "a ", "b")]
    for number, pair in enumerate(pairs):
        await pair.add_items(turns(f"turn of {number}"))
        await pair.create_branch_from_turn(1, "draft")
    for number, pair in enumerate(pairs):
        assert await pair.get_items(branch_id="main") == turns(f"turn of {number}")
        assert await pair.find_turns_by_content("turn", "main") != []
    await pairs[0].clear_session()
    assert await pairs[1].get_items(branch_id="main") == turns("turn of 1")
