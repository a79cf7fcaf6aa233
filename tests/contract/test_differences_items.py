"""The differences in what an item is taken for, each shown on both sides."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from eventlog.errors import InvalidEventError
from tests.contract.differences import shows
from tests.contract.items import user

if TYPE_CHECKING:
    from tests.contract.harness import Pair


@pytest.mark.parametrize("role", ["user", "assistant", "system"])
@shows("the name of who wrote a message")
async def test_ours_takes_no_author_for_a_tool(pair: Pair, role: str) -> None:
    await pair.add_items([{"role": role, "content": "hello", "name": "ada"}])
    (theirs,) = (await pair.sdk.get_conversation_by_turns()).values()
    (ours,) = (await pair.ours.get_conversation_by_turns()).values()
    assert [entry["tool_name"] for entry in theirs] == ["ada"]
    assert [entry["tool_name"] for entry in ours] == [None]
    assert [entry["type"] for entry in theirs] == [entry["type"] for entry in ours]
    assert await pair.get_tool_usage() == []


@shows("an MCP call that was asked approval for")
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
@shows("one item, or a text, in place of a list of items")
async def test_ours_takes_a_list_of_items_only(pair: Pair, given: Any) -> None:
    await pair.sdk.add_items(given)
    assert await pair.sdk.get_items() == list(given)
    with pytest.raises(InvalidEventError, match="items are a list"):
        await pair.ours.add_items(given)
    assert await pair.ours.get_items() == []
