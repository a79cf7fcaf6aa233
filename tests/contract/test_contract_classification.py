"""What an item is and which tool it names, on both sides (bullets 22, 23, 67 to 69)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.contract.items import user

if TYPE_CHECKING:
    from tests.contract.harness import Pair

NAMED_BY_TYPE = [
    "computer_call",
    "file_search_call",
    "web_search_call",
    "code_interpreter_call",
    "shell_call",
    "apply_patch_call",
]
UNCOUNTED = [
    "local_shell_call",
    "image_generation_call",
    "mcp_list_tools",
    "mcp_approval_response",
    "function_call_output",
    "computer_call_output",
    "shell_call_output",
    "apply_patch_call_output",
    "custom_tool_call_output",
    "reasoning",
    "compaction",
    "item_reference",
    "message",
]
COUNTED = ["tool_call", "function_call", "custom_tool_call", "mcp_call", "mcp_approval_request"]


async def seen_as(pair: Pair, item: Any) -> tuple[str, str | None]:
    """Add one item and return the type and tool that both sides give it."""
    await pair.add_items([item])
    by_turns = await pair.get_conversation_by_turns()
    (described,) = [entry for turn in by_turns.values() for entry in turn]
    return described["type"], described["tool_name"]


@pytest.mark.parametrize(
    ("item", "expected"),
    [
        ({"role": "user"}, "user"),
        ({"role": "user", "type": "function_call"}, "user"),
        ({"role": "assistant"}, "assistant"),
        ({"role": "assistant", "type": "message"}, "assistant"),
        ({"role": "system", "content": "be nice"}, "other"),
        ({"role": "system", "type": "message", "content": "be nice"}, "message"),
        ({"role": "developer", "content": "x"}, "other"),
        ({"role": "developer", "type": "message"}, "message"),
        ({"role": "User"}, "other"),
        ({"role": ["user"]}, "other"),
        ({"type": "reasoning", "summary": []}, "reasoning"),
        ({"type": "something_of_tomorrow"}, "something_of_tomorrow"),
        ({"type": 5}, "5"),
        ({"type": 0}, "other"),
        ({"type": ""}, "other"),
        ({"type": None}, "other"),
        ({"type": True}, "True"),
        ({}, "other"),
        ("user", "other"),
        (["role", "user"], "other"),
        (5, "other"),
        (None, "other"),
    ],
)
async def test_the_type_of_an_item(pair: Pair, item: Any, expected: str) -> None:
    assert await seen_as(pair, item) == (expected, None)


@pytest.mark.parametrize("kind", ["mcp_call", "mcp_approval_request"])
@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"server_label": "docs", "name": "search"}, "docs.search"),
        ({"server_label": "docs"}, "docs"),
        ({"server_label": "docs", "name": ""}, "docs"),
        ({"server_label": "docs", "name": None}, "docs"),
        ({"server_label": "", "name": "search"}, "search"),
        ({"server_label": None, "name": "search"}, "search"),
        ({"server_label": None}, None),
        ({"server_label": "", "name": ""}, None),
        ({"server_label": 7, "name": 8}, "7.8"),
        ({"name": "search"}, "search"),
        ({"name": "search", "namespace": "docs"}, "docs.search"),
        ({}, None),
    ],
)
async def test_an_mcp_tool_is_named_with_its_server(
    pair: Pair, kind: str, fields: dict[str, Any], expected: str | None
) -> None:
    assert await seen_as(pair, {"type": kind, **fields}) == (kind, expected)
    assert await pair.get_tool_usage() == [(expected, 1, 0)]


@pytest.mark.parametrize("kind", NAMED_BY_TYPE)
@pytest.mark.parametrize("fields", [{}, {"name": "ignored"}, {"server_label": "ignored"}])
async def test_a_hosted_tool_is_named_by_its_type(
    pair: Pair, kind: str, fields: dict[str, Any]
) -> None:
    assert await seen_as(pair, {"type": kind, **fields}) == (kind, kind)
    assert await pair.get_tool_usage() == [(kind, 1, 0)]


@pytest.mark.parametrize("kind", ["tool_search_call", "tool_search_output"])
async def test_a_tool_search_has_one_name(pair: Pair, kind: str) -> None:
    assert await seen_as(pair, {"type": kind, "name": "ignored"}) == (kind, "tool_search")
    assert await pair.get_tool_usage() == [("tool_search", 1, 0)]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"name": "lookup"}, "lookup"),
        ({"name": "lookup", "namespace": "crm"}, "crm.lookup"),
        ({"name": "lookup", "namespace": "lookup"}, "lookup"),
        ({"name": "lookup", "namespace": ""}, "lookup"),
        ({"name": "lookup", "namespace": None}, "lookup"),
        ({"name": "lookup", "namespace": 3}, "3.lookup"),
        ({"name": "", "namespace": "crm"}, ""),
        ({"name": ""}, ""),
        ({"name": 5}, "5"),
        ({"name": 5, "namespace": 5}, "5"),
        ({"name": None, "namespace": "crm"}, None),
        ({"name": None}, None),
        ({"namespace": "crm"}, None),
        ({"name": "lookup", "server_label": "docs"}, "lookup"),
        ({}, None),
    ],
)
@pytest.mark.parametrize("kind", ["function_call", "custom_tool_call", "tool_call"])
async def test_a_function_is_named_within_its_namespace(
    pair: Pair, kind: str, fields: dict[str, Any], expected: str | None
) -> None:
    assert await seen_as(pair, {"type": kind, **fields}) == (kind, expected)
    assert await pair.get_tool_usage() == [(expected, 1, 0)]


@pytest.mark.parametrize("kind", UNCOUNTED)
async def test_what_is_no_call_is_not_counted(pair: Pair, kind: str) -> None:
    await pair.add_items([user("go"), {"type": kind, "call_id": "1"}])
    assert await pair.get_tool_usage() == []


@pytest.mark.parametrize("kind", [*COUNTED, *NAMED_BY_TYPE])
async def test_calls_are_counted_by_name_and_turn(pair: Pair, kind: str) -> None:
    item = {"type": kind, "name": "lookup"}
    await pair.add_items([item, user("one"), item, item, user("two"), item])
    assert [row[1:] for row in await pair.get_tool_usage()] == [(1, 0), (2, 1), (1, 2)]


async def test_a_searchs_output_counts_only_without_its_call(pair: Pair) -> None:
    found = {"type": "tool_search_output"}
    await pair.add_items(
        [user("one"), {"type": "tool_search_call"}, found, user("two"), found, found]
    )
    assert await pair.get_tool_usage() == [("tool_search", 1, 1), ("tool_search", 2, 2)]


async def test_an_approval_request_and_its_call_count_twice(pair: Pair) -> None:
    named = {"server_label": "docs", "name": "search"}
    await pair.add_items(
        [user("one"), {"type": "mcp_approval_request", **named}, {"type": "mcp_call", **named}]
    )
    assert await pair.get_tool_usage() == [("docs.search", 2, 1)]


async def test_several_tools_of_a_turn_are_counted_apart(pair: Pair) -> None:
    names = ["b", "a", "b", None, "a", None, "b"]
    calls = [{"type": "function_call", **({"name": n} if n else {})} for n in names]
    await pair.add_items([user("one"), *calls, {"type": "shell_call"}])
    assert await pair.get_tool_usage() == [
        (None, 2, 1),
        ("a", 2, 1),
        ("b", 3, 1),
        ("shell_call", 1, 1),
    ]


async def test_a_branch_counts_its_own_calls(pair: Pair) -> None:
    lookup = {"type": "function_call", "name": "lookup"}
    await pair.add_items([user("one"), lookup, user("two"), lookup, lookup])
    await pair.create_branch_from_turn(2, "draft")
    await pair.add_items([user("other two"), {"type": "shell_call"}])
    assert await pair.get_tool_usage() == [("lookup", 1, 1), ("shell_call", 1, 2)]
    assert await pair.get_tool_usage("main") == [("lookup", 1, 1), ("lookup", 2, 2)]
    await pair.switch_to_branch("main")
    await pair.pop_item()
    assert await pair.get_tool_usage() == [("lookup", 1, 1), ("lookup", 1, 2)]
