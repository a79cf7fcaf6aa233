"""Whatever an item is, it comes back as JSON gives it, or is refused by its place."""

from __future__ import annotations

import asyncio
import json
import math
import tempfile
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from agents_eventlog import AdvancedSQLiteSession
from agents_eventlog.eventlog import errors
from tests.properties.profiles import examples

ANY_TEXT = st.text(st.characters(), max_size=6)  # lone surrogates and all
NAMES = st.sampled_from(
    ["role", "type", "name", "namespace", "server_label", "content", "approval_request_id"]
)
TELLING = st.sampled_from(
    ["user", "assistant", "function_call", "mcp_call", "tool_search_call", "shell_call", ""]
)
HUGE = st.integers(-(10**400), 10**400)
LEAVES = st.one_of(st.none(), st.booleans(), st.integers(), HUGE, st.floats(), ANY_TEXT, TELLING)
KEYS = st.one_of(NAMES, ANY_TEXT, st.integers(), st.floats(), st.booleans(), st.none())
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.tuples(inner, inner),
        st.dictionaries(KEYS, inner, max_size=4),
    ),
    max_leaves=8,
)
ITEMS = st.dictionaries(NAMES | KEYS, VALUES, max_size=5) | VALUES


class Opaque:
    """Something that JSON cannot hold."""


BAD = st.sampled_from([Opaque(), {1, 2}, b"bytes", 1j, object, {(1, 2): "a tuple as a key"}])
SPOILT = st.one_of(
    BAD,
    st.tuples(VALUES, BAD),
    st.lists(VALUES, max_size=2).flatmap(lambda good: BAD.map(lambda bad: [*good, bad])),
    st.dictionaries(NAMES, VALUES, max_size=2).flatmap(
        lambda good: BAD.map(lambda bad: {**good, "deep": {"inside": [bad]}})
    ),
)


def same(left: Any, right: Any) -> bool:
    """Tell whether two values are equal, of the same types and order throughout; NaN is NaN."""
    if type(left) is not type(right):
        return False
    if isinstance(left, dict):
        return list(left) == list(right) and all(same(left[key], right[key]) for key in left)
    if isinstance(left, list):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, float):
        both_nan = math.isnan(left) and math.isnan(right)
        return both_nan or math.copysign(1, left) * left == math.copysign(1, right) * right
    return bool(left == right)


async def there_and_back(path: Path, items: list[Any]) -> tuple[list[Any], list[Any]]:
    """Add items, and read them back by the same session and, after a restart, by another."""
    with closing(AdvancedSQLiteSession("s", path, durability="normal")) as session:
        await session.add_items(items)
        first: list[Any] = await session.get_items()
        await session.get_conversation_by_turns()
        await session.get_tool_usage()
    with closing(AdvancedSQLiteSession("s", path, durability="normal")) as session:
        popped = [await session.pop_item() for _ in items]
        return first, popped[::-1]


@given(st.lists(ITEMS, min_size=1, max_size=4))
@examples(50)
@example([{"type": "\ud800", "name": "\udfff"}])
@example([{"role": "user", "content": "\ud800 and \udc00"}])
@example([{"type": "function_call", "name": "\ud800", "namespace": "\udc00"}])
@example([{"type": "mcp_call", "server_label": "\ud83d", "name": "x"}])
@example([{"type": ["\ud800"], "name": {"\ud800": 1}}])
@example([{"type": "function_call", "name": "nul \x00 inside"}])
@example([{"type": float("nan")}, float("inf"), -0.0, 10**400, -(2**64), 2**63])
@example([{1: "int", "1": "text", None: "null", 1.5: "float"}, {True: "bool", False: "bool"}])
@example([(1, (2, 3)), {"a": (True, None)}])
@example([{"text": "\x00\x1f\x7f\u2028\ufeff\U0001f355"}])
def test_an_item_comes_back_as_json_gives_it(items: list[Any]) -> None:
    expected = json.loads(json.dumps(items))
    with tempfile.TemporaryDirectory() as folder:
        first, popped = asyncio.run(there_and_back(Path(folder) / "s.db", items))
    assert same(first, expected)
    assert same(popped, expected)


@pytest.mark.parametrize("depth", [10, 200, 400])
async def test_a_deeply_nested_item_comes_back(tmp_path: Path, depth: int) -> None:
    item: Any = "bottom"
    for level in range(depth):
        item = [item] if level % 2 else {"down": item}
    first, popped = await there_and_back(tmp_path / "s.db", [item])
    assert first == popped == [item]


@pytest.mark.parametrize("depth", [900, 990, 1_000, 3_000, 100_000])
async def test_an_item_too_deep_is_refused_or_comes_back(tmp_path: Path, depth: int) -> None:
    item: Any = "bottom"
    for _ in range(depth):
        item = [item]
    with closing(AdvancedSQLiteSession("s", tmp_path / "s.db")) as session:
        await session.add_items([{"role": "user", "content": "first"}])
        try:
            await session.add_items([item])
        except TypeError:
            assert len(await session.get_items()) == 1
        else:
            assert len(await session.get_items()) == 2


@given(st.lists(ITEMS, max_size=2), SPOILT)
@examples(40)
def test_an_item_that_is_not_json_is_refused_by_its_place_and_nothing_is_written(
    good: list[Any], bad: Any
) -> None:
    async def refused(path: Path) -> None:
        with closing(AdvancedSQLiteSession("s", path, durability="normal")) as session:
            with pytest.raises(TypeError, match=rf"\$\.items\[{len(good)}\]") as caught:
                await session.add_items([*good, bad])
            assert isinstance(caught.value, errors.UnserialisableError)
            assert await session.log.head() == (0, bytes(32))
            assert await session.get_items() == []

    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(refused(Path(folder) / "s.db"))
