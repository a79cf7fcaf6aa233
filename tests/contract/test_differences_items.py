"""The differences in what an item is taken for, each shown on both sides."""

from __future__ import annotations

import json
import sqlite3
from typing import TYPE_CHECKING, Any

import pytest

from agents_eventlog.eventlog.errors import InvalidEventError
from tests.contract.differences import shows
from tests.contract.items import user

if TYPE_CHECKING:
    from tests.contract.harness import Pair


@pytest.mark.parametrize("role", ["user", "assistant", "system"])
@shows("the author name of a message")
async def test_ours_takes_no_author_for_a_tool(pair: Pair, role: str) -> None:
    await pair.add_items([{"role": role, "content": "hello", "name": "ada"}])
    (theirs,) = (await pair.sdk.get_conversation_by_turns()).values()
    (ours,) = (await pair.ours.get_conversation_by_turns()).values()
    assert [entry["tool_name"] for entry in theirs] == ["ada"]
    assert [entry["tool_name"] for entry in ours] == [None]
    assert [entry["type"] for entry in theirs] == [entry["type"] for entry in ours]
    assert await pair.get_tool_usage() == []


@shows("an MCP call with an approval request")
async def test_ours_counts_an_approved_call_once(pair: Pair) -> None:
    named = {"server_label": "docs", "name": "search"}
    request = {"type": "mcp_approval_request", "id": "mcpr_1", **named}
    call = {"type": "mcp_call", "id": "mcp_1", "approval_request_id": "mcpr_1", **named}
    await pair.add_items([user("one"), request, call])
    assert await pair.sdk.get_tool_usage() == [("docs.search", 2, 1)]
    assert await pair.ours.get_tool_usage() == [("docs.search", 1, 1)]
    unasked = {**call, "approval_request_id": None}
    await pair.add_items([user("two"), unasked])
    assert (await pair.sdk.get_tool_usage())[1:] == [("docs.search", 1, 2)]
    assert (await pair.ours.get_tool_usage())[1:] == [("docs.search", 1, 2)]


@pytest.mark.parametrize("kind", [["a"], {"a": 1}])
@shows("an item whose type is a list or an object")
async def test_ours_keeps_an_item_of_any_type(pair: Pair, kind: Any) -> None:
    item = {"type": kind, "name": "lookup"}
    with pytest.raises(TypeError, match="unhashable"):
        await pair.sdk.add_items([item])
    await pair.ours.add_items([item])
    assert await pair.ours.get_items() == [item]
    (entries,) = (await pair.ours.get_conversation_by_turns()).values()
    assert [entry["type"] for entry in entries] == [str(json.loads(json.dumps(kind)))]


@shows("an item that is not JSON")
async def test_ours_names_the_place_of_what_is_no_json(pair: Pair) -> None:
    batch = [user("one"), user([{"text": "two"}, {"image": b"bytes"}])]
    with pytest.raises(TypeError, match="bytes") as theirs:
        await pair.sdk.add_items(batch)
    with pytest.raises(TypeError, match="bytes") as named:
        await pair.ours.add_items(batch)
    assert "image" not in str(theirs.value)
    assert "image" in str(named.value)


@pytest.mark.parametrize("given", ["hello", user("one")])
@shows("one item, or a string, instead of a list of items")
async def test_ours_takes_a_list_of_items_only(pair: Pair, given: Any) -> None:
    await pair.sdk.add_items(given)
    assert await pair.sdk.get_items() == list(given)
    with pytest.raises(InvalidEventError, match="invalid items: expected a list"):
        await pair.ours.add_items(given)
    assert await pair.ours.get_items() == []


@shows("items in a generator")
async def test_ours_adds_items_from_a_generator(pair: Pair) -> None:
    with pytest.raises(TypeError, match="generator"):
        await pair.sdk.add_items(user(text) for text in "ab")
    await pair.ours.add_items(user(text) for text in "ab")
    assert await pair.ours.get_items() == [user("a"), user("b")]


@shows("a limit that is not an integer")
async def test_ours_refuses_half_an_item(pair: Pair) -> None:
    await pair.add_items([user("a"), user("b")])
    with pytest.raises(sqlite3.IntegrityError, match="datatype mismatch"):
        await pair.sdk.get_items(2.5)
    with pytest.raises(TypeError, match="expected an int, got float"):
        await pair.ours.get_items(2.5)


@pytest.mark.parametrize("inner", ["circular", "deep", "digits"])
async def test_what_json_refuses_otherwise_is_a_type_error_of_ours(pair: Pair, inner: str) -> None:
    content: Any = []
    if inner == "circular":
        content.append(content)
    elif inner == "deep":
        for _ in range(100_000):
            content = [content]
    else:
        content = 10**5_000
    with pytest.raises((ValueError, RecursionError)):
        await pair.sdk.add_items([user(content)])
    with pytest.raises(TypeError):
        await pair.ours.add_items([user(content)])
    assert await pair.get_items() == []
