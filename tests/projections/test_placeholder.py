"""What is left of a redacted item: what it is, what it answers, and nothing that was said."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.responses import ResponseInputItemParam
from pydantic import TypeAdapter

from agents_eventlog.eventlog.item_kind import classify
from agents_eventlog.projections.conversations.placeholder import (
    KEPT,
    NEUTRAL,
    REDACTED,
    placeholder,
)
from tests.properties.profiles import examples
from tests.properties.strategies import ITEMS

SECRET = "4111 1111"
MODEL_INPUT: TypeAdapter[Any] = TypeAdapter(ResponseInputItemParam)

TEXT_PART = {"type": "input_text", "text": SECRET}
PICTURE_PART = {"type": "input_image", "image_url": f"data:image/png;base64,{SECRET}"}
ANSWER_PART = {"type": "output_text", "text": SECRET, "annotations": []}
OUTPUT = {"id": "x", "call_id": "c", "status": "completed"}
SPOKEN: list[Any] = [
    {"role": "user", "content": SECRET},
    {"role": "user", "content": [TEXT_PART, {**PICTURE_PART, "detail": "auto"}]},
    {"role": "system", "content": SECRET},
    {"type": "message", "role": "developer", "content": [TEXT_PART]},
    {"role": "assistant", "content": SECRET},
    {
        "type": "message",
        "role": "assistant",
        "id": "msg",
        "status": "completed",
        "content": [ANSWER_PART, {"type": "refusal", "refusal": SECRET}],
    },
    {
        "type": "reasoning",
        "id": "rs",
        "summary": [{"type": "summary_text", "text": SECRET}],
        "encrypted_content": SECRET,
        "content": [{"type": "reasoning_text", "text": SECRET}],
    },
    {"type": "function_call", "call_id": "c", "name": "look", "arguments": f'{{"a":"{SECRET}"}}'},
    {"type": "function_call_output", "call_id": "c", "output": SECRET},
    {"type": "function_call_output", "call_id": "c", "output": [TEXT_PART]},
    {"type": "custom_tool_call", "call_id": "c", "name": "look", "input": SECRET},
    {"type": "custom_tool_call_output", "call_id": "c", "output": SECRET},
    {
        "type": "computer_call",
        "pending_safety_checks": [{"id": SECRET, "code": SECRET, "message": SECRET}],
        "action": {"type": "type", "text": SECRET},
        **OUTPUT,
    },
    {
        "type": "computer_call_output",
        "call_id": "c",
        "output": {"type": "computer_screenshot", "image_url": SECRET},
        "acknowledged_safety_checks": [{"id": SECRET, "message": SECRET}],
    },
    {
        "type": "web_search_call",
        "id": "x",
        "status": "completed",
        "action": {"type": "find_in_page", "pattern": SECRET, "url": SECRET},
    },
    {
        "type": "file_search_call",
        "id": "x",
        "status": "completed",
        "queries": [SECRET],
        "results": [{"text": SECRET}],
    },
    {
        "type": "code_interpreter_call",
        "id": "x",
        "container_id": "cntr",
        "status": "completed",
        "code": SECRET,
        "outputs": [{"type": "logs", "logs": SECRET}],
    },
    {
        "type": "local_shell_call",
        "action": {"type": "exec", "command": [SECRET], "env": {"KEY": SECRET}},
        **OUTPUT,
    },
    {"type": "local_shell_call_output", "id": "x", "output": SECRET},
    {"type": "shell_call", "call_id": "c", "action": {"commands": [SECRET]}},
    {
        "type": "shell_call_output",
        "call_id": "c",
        "output": [
            {"stdout": SECRET, "stderr": SECRET, "outcome": {"type": "exit", "exit_code": 2}},
            {"stdout": SECRET, "stderr": SECRET, "outcome": {"type": "timeout"}},
        ],
    },
    {
        "type": "apply_patch_call",
        "call_id": "c",
        "status": "completed",
        "operation": {"type": "create_file", "path": SECRET, "diff": SECRET},
    },
    {
        "type": "apply_patch_call",
        "call_id": "c",
        "status": "completed",
        "operation": {"type": "delete_file", "path": SECRET},
    },
    {
        "type": "apply_patch_call",
        "call_id": "c",
        "status": "completed",
        "operation": {"type": "update_file", "path": SECRET, "diff": SECRET},
    },
    {
        "type": "apply_patch_call_output",
        "call_id": "c",
        "status": "completed",
        "output": SECRET,
    },
    {
        "type": "mcp_list_tools",
        "id": "x",
        "server_label": "docs",
        "tools": [{"name": SECRET, "input_schema": {}}],
    },
    {
        "type": "mcp_approval_request",
        "id": "x",
        "name": "find",
        "server_label": "docs",
        "arguments": SECRET,
    },
    {
        "type": "mcp_approval_response",
        "approval_request_id": "x",
        "approve": True,
        "reason": SECRET,
    },
    {
        "type": "mcp_call",
        "id": "x",
        "name": "find",
        "server_label": "docs",
        "arguments": SECRET,
        "output": None,
        "error": {"type": "http_error", "code": 500, "message": SECRET},
    },
    {"type": "image_generation_call", "id": "x", "status": "completed", "result": SECRET},
    {"type": "compaction", "encrypted_content": SECRET},
    {"type": "item_reference", "id": "msg"},
]
"""An item of each kind that a model takes, with a secret in every place that can hold one."""

OTHERS: list[Any] = [
    {"type": "tool_search_call", "call_id": "c", "arguments": {"query": SECRET}},
    {"type": "tool_search_output", "call_id": "c", "tools": [{"name": SECRET}]},
    {"type": "tool_call", "name": "look", "payload": SECRET},
    {"type": "mcp_call", "name": "find", "error": SECRET, "output": SECRET},
    {"type": "a kind of next year", "id": "x", "content": {"deep": [SECRET]}},
    {"type": "shell_call_output", "call_id": "c", "output": SECRET},
    {"type": "shell_call_output", "call_id": "c", "output": [SECRET]},
    {"type": "apply_patch_call", "operation": SECRET},
    {"type": "mcp_call", "name": "find", "error": None, "output": None, "arguments": "{}"},
    {"type": "local_shell_call", "action": None},
    {"type": "next", "action": {"a": SECRET}},
    {"type": 7, "name": [SECRET]},
    {"role": "user", "name": SECRET, "content": None},
    {"role": ["user"], "content": SECRET},
    SECRET,
    [SECRET],
    None,
    {},
]

VALUES = st.recursive(
    st.sampled_from([SECRET, None, True, 7, "", 1.5]),
    lambda values: (
        st.lists(values, max_size=2)
        | st.dictionaries(st.sampled_from(["type", "text", "outcome", SECRET]), values, max_size=2)
    ),
    max_leaves=4,
)
TYPES = st.sampled_from([item["type"] for item in SPOKEN if "type" in item] + ["", None, 7])
ANY_ITEMS = st.fixed_dictionaries(
    {},
    optional={
        "type": TYPES,
        "role": st.sampled_from(["user", "assistant", "system", "tool", None, 7]),
        **dict.fromkeys((*NEUTRAL, "results", "annotations"), VALUES),
        **{key: st.sampled_from(["a", None, True, 7, [1]]) for key in KEPT - {"type", "role"}},
    },
)


def said(item: Any) -> str:
    return json.dumps(item)


@pytest.mark.parametrize("item", SPOKEN, ids=said)
def test_a_placeholder_is_what_its_item_was_for_the_model(item: Any) -> None:
    MODEL_INPUT.validate_python(item)
    MODEL_INPUT.validate_python(placeholder(item))


@pytest.mark.parametrize("item", [*SPOKEN, *OTHERS], ids=said)
def test_a_placeholder_keeps_kind_and_ids_and_nothing_that_was_said(item: Any) -> None:
    left = placeholder(item)
    assert SECRET not in said(left) or "name" in left
    assert classify(left) == classify(item)
    if isinstance(item, dict):
        kept = {key: item[key] for key in ("id", "call_id", "approval_request_id") if key in item}
        assert {key: left.get(key) for key in kept} == kept
    assert placeholder(left) == left


@given(ANY_ITEMS | ITEMS)
@examples(400)
def test_whatever_the_item_a_placeholder_keeps_its_kind_and_nothing_that_was_said(
    item: Any,
) -> None:
    left = placeholder(item)
    assert SECRET not in said(left)
    assert classify(left) == classify(item)
    assert placeholder(left) == left


def test_a_placeholder_says_so_where_it_can() -> None:
    assert placeholder({"role": "user", "content": SECRET}) == {"role": "user", "content": REDACTED}
    assert placeholder({"type": "function_call", "name": "look", "arguments": SECRET}) == {
        "type": "function_call",
        "name": "look",
        "arguments": "{}",
    }
    output = {"type": "function_call_output", "call_id": "c", "output": REDACTED}
    assert placeholder({**output, "output": SECRET}) == output


def test_a_command_s_placeholder_says_how_the_command_ended() -> None:
    (item,) = (item for item in SPOKEN if item.get("type") == "shell_call_output")
    ends = [part["outcome"] for part in placeholder(item)["output"]]
    assert ends == [{"type": "exit", "exit_code": 2}, {"type": "timeout"}]
