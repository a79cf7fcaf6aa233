"""Adding and reading items, on both sides (bullets 15 to 21)."""

from __future__ import annotations

import json
from typing import Any

import pytest
from agents.memory import SessionSettings
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.contract.harness import Pair, World, picture, same
from tests.contract.items import assistant, call, output, turns, user

FIVE = [user(str(number)) for number in range(5)]
ODD_ITEMS: list[Any] = [
    "text",
    "",
    5,
    0,
    -1.5,
    True,
    None,
    [],
    ["a", {"b": 1}],
    {},
    {"type": None},
    {"type": ""},
    {"role": None, "content": None},
]
TEXTS = [
    "héllo wörld",
    "日本語 🍕 \U0001f469‍\U0001f680",
    "'; DROP TABLE agent_messages; --",
    'a "quoted" \\ back\\slash',
    "line\nfeed\r\n\ttab \x00 nul \x1f \x7f  ",
    "\ud800 lone",
    "%_\\",
    "x" * 100_000,
]
NO_JSON: list[Any] = [object(), {1, 2}, b"bytes", {"a": 1j}, {"content": [object()]}, {(1, 2): 3}]


async def test_items_come_back_in_the_order_they_were_added(pair: Pair) -> None:
    await pair.add_items([user("one"), call(), output(), assistant("two")])
    await pair.add_items([user("three")])
    assert await pair.get_items() == [
        user("one"),
        call(),
        output(),
        assistant("two"),
        user("three"),
    ]


async def test_nothing_added_changes_nothing(pair: Pair) -> None:
    await pair.add_items([])
    assert await pair.get_items() == []
    assert await pair.list_branches() == []


async def test_an_item_need_not_be_a_dict(pair: Pair) -> None:
    await pair.add_items(ODD_ITEMS)
    assert same(await pair.get_items(), ODD_ITEMS)
    await picture(pair)
    for item in reversed(ODD_ITEMS):
        assert same(await pair.pop_item(), item)
    assert await pair.get_items() == []


@pytest.mark.parametrize("text", TEXTS)
async def test_text_comes_back_exactly(pair: Pair, text: str) -> None:
    await pair.add_items([user(text), user([{"type": "input_text", "text": text, text: text}])])
    assert await pair.get_items() == [
        user(text),
        user([{"type": "input_text", "text": text, text: text}]),
    ]
    assert (await pair.get_conversation_turns())[0]["full_content"] == text


@pytest.mark.parametrize(
    "item",
    [
        {"numbers": [0, -0.0, 1e400, -1e400, 1e-7, 10**40, -(2**63), 2**64, 0.1]},
        {"not a number": float("nan")},
        {1: "int", 2.5: "float", None: "none"},
        {True: "bool", False: "bool"},
        {"tuple": (1, (2, 3))},
        {"nested": {"a": [{"b": {"c": [[[]]]}}]}},
        {"order": 1, "is": 2, "kept": 3, "a": 4},
    ],
)
async def test_an_item_comes_back_as_json_gives_it_back(pair: Pair, item: Any) -> None:
    await pair.add_items([item])
    (stored,) = await pair.get_items()
    assert same(stored, json.loads(json.dumps(item)))
    for side in (pair.sdk, pair.ours):
        assert list((await side.get_items())[0]) == list(json.loads(json.dumps(item)))


# The SDK looks a type up in a set, so that a list there is an error of its own.
KEYS = st.text().filter(lambda key: key != "type")
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)
ANY_ITEM: st.SearchStrategy[Any] = JSON | st.fixed_dictionaries(
    {"role": st.sampled_from(["user", "assistant", "system"]), "content": st.text() | st.just([])}
)


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(items=st.lists(ANY_ITEM, max_size=5))
async def test_whatever_json_can_say_is_kept(pair: Pair, items: list[Any]) -> None:
    before = await pair.get_items()
    await pair.add_items(items)
    assert same(await pair.get_items(), before + items)
    await pair.get_conversation_by_turns()
    await pair.get_conversation_turns()
    for item in reversed(items):
        assert same(await pair.pop_item(), item)


async def test_the_caller_may_change_an_item_afterwards(world: World) -> None:
    pair = world.open()
    for side in (pair.sdk, pair.ours):
        item = user(["mine"])
        await side.add_items([item])
        item["content"].append("later")
        read = await side.get_items()
        read[0]["content"].append("read")
        read.clear()
    assert await pair.get_items() == [user(["mine"])]


@pytest.mark.parametrize("item", NO_JSON, ids=lambda item: type(item).__name__)
@pytest.mark.parametrize("place", [0, 1, 2])
async def test_what_is_no_json_is_refused_with_all_its_batch(
    world: World, item: Any, place: int
) -> None:
    pair = world.open()
    await pair.add_items(turns("before"))
    batch = [user("one"), user("two")]
    batch.insert(place, item)
    for side in (pair.sdk, pair.ours):
        with pytest.raises(TypeError):
            await side.add_items(batch)
    assert await pair.get_items() == turns("before")
    await pair.add_items(turns("after"))
    assert await pair.get_items() == turns("before", "after")
    assert [turn["turn"] for turn in await pair.get_conversation_turns()] == [1, 2]


@pytest.mark.parametrize(
    ("limit", "first"),
    [(None, 0), (1, 4), (2, 3), (5, 0), (6, 0), (2_147_483_647, 0), (0, 5), (-1, 0), (-7, 0)],
)
async def test_a_limit_is_the_newest_in_their_order(
    pair: Pair, limit: int | None, first: int
) -> None:
    await pair.add_items(FIVE)
    await pair.create_branch_from_turn(3, "draft")
    await pair.add_items([user("new")])
    await pair.switch_to_branch("main")
    assert await pair.get_items(limit) == FIVE[first:]
    assert await pair.get_items(limit=limit) == FIVE[first:]
    assert await pair.get_items(limit, "main") == FIVE[first:]
    on_draft = [*FIVE[:2], user("new")]
    expected = on_draft if limit is None or limit < 0 else on_draft[max(0, 3 - limit) :]
    assert await pair.get_items(limit=limit, branch_id="draft") == expected


@pytest.mark.parametrize("default", [None, 0, 1, 3, 9, -1])
@pytest.mark.parametrize("limit", [None, 0, 2, -1])
async def test_an_explicit_limit_beats_the_settings(
    world: World, default: int | None, limit: int | None
) -> None:
    pair = world.open(session_settings=SessionSettings(limit=default))
    await pair.add_items(FIVE)
    effective = default if limit is None else limit
    whole = effective is None or effective < 0
    assert await pair.get_items(limit) == (FIVE if whole else FIVE[max(0, 5 - (effective or 0)) :])


async def test_settings_may_change_while_a_session_lives(world: World) -> None:
    pair = world.open()
    await pair.add_items(FIVE)
    for value, expected in [
        (SessionSettings(limit=2), FIVE[3:]),
        ({"limit": 1}, FIVE[4:]),
        (None, FIVE),
    ]:
        pair.sdk.session_settings = value
        pair.ours.session_settings = value
        assert await pair.get_items() == expected
        assert await pair.get_items(branch_id="main") == expected


@pytest.mark.parametrize("branch", ["", "nowhere", "MAIN", " main"])
async def test_an_unknown_branch_reads_as_empty(pair: Pair, branch: str) -> None:
    await pair.add_items(FIVE)
    assert await pair.get_items(branch_id=branch) == []
    assert await pair.get_items(2, branch) == []
    assert await pair.get_conversation_turns(branch) == []
    assert await pair.get_conversation_by_turns(branch) == {}
    assert await pair.find_turns_by_content("1", branch) == []
    assert await pair.get_tool_usage(branch) == []
    assert await pair.get_turn_usage(branch_id=branch) == []
    assert await pair.get_turn_usage(1, branch) == {}


async def test_a_big_batch_is_one_batch(pair: Pair) -> None:
    batch = [user(str(number)) for number in range(3000)]
    await pair.add_items(batch)
    assert await pair.get_items() == batch
    assert await pair.get_items(3) == batch[-3:]
    assert (await pair.get_conversation_turns())[-1]["turn"] == 3000
