"""
Placeholders of redacted items: what is left of an item, so that the conversation is still valid input.

A placeholder has its item's kind, role, ids, tool and status, so a call keeps its output and an output its
call. Of everything else, nothing is kept: a field that a model's API requires gets a neutral value.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from agents_eventlog.eventlog.events import JSON
from agents_eventlog.eventlog.item_kind import classify, smallest

REDACTED: Final = "[redacted]"

PICTURE: Final = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAQAAAC1HAwCAAAAC0lEQVR42mNk+A8AAQUBAScY42YAAAAASUVORK5CYII="
)
"""A PNG of one pixel, in base64: where a picture is required, no text can take its place."""

KEPT: Final = frozenset(
    {
        *("type", "role", "id", "call_id", "name", "namespace", "status", "phase", "execution"),
        *("server_label", "approval_request_id", "approve", "container_id"),
    }
)
"""The keys whose values are kept, if they are a text, a boolean or null: they say what an item is."""

Neutral = Callable[[Mapping[str, JSON]], JSON]
"""Gives a neutral value for a field of an item."""


def _arguments(item: Mapping[str, JSON]) -> JSON:
    return "{}" if isinstance(item.get("arguments"), str) else {}


def _content(item: Mapping[str, JSON]) -> JSON:
    """Return a text where there was one, else one part of the kind that the role may have."""
    if not isinstance(item.get("content"), list):
        return REDACTED
    if item.get("role") == "assistant":
        return [{"type": "output_text", "text": REDACTED, "annotations": []}]
    return [{"type": "input_text", "text": REDACTED}]


def _output(item: Mapping[str, JSON]) -> JSON:
    output = item.get("output")
    match item.get("type"):
        case "computer_call_output":
            image = f"data:image/png;base64,{PICTURE}"
            return {"type": "computer_screenshot", "image_url": image}
        case "shell_call_output":
            parts = output if isinstance(output, list) else []
            return [{"stdout": REDACTED, "stderr": "", "outcome": _outcome(part)} for part in parts]
    return None if output is None else REDACTED


def _outcome(part: JSON) -> JSON:
    """Return how a command of a shell call ended."""
    match part:
        case {"outcome": {"type": "timeout"}}:
            return {"type": "timeout"}
        case {"outcome": {"exit_code": int() as exit_code}}:
            return {"type": "exit", "exit_code": exit_code}
    return {"type": "exit", "exit_code": 0}


def _action(item: Mapping[str, JSON]) -> JSON:
    match item.get("type"):
        case "computer_call":
            return {"type": "screenshot"}
        case "local_shell_call":
            return {"type": "exec", "command": [REDACTED], "env": {}}
        case "shell_call":
            return {"commands": [REDACTED]}
        case "web_search_call":
            return {"type": "search", "query": REDACTED}
    return {}


def _operation(item: Mapping[str, JSON]) -> JSON:
    operation = item.get("operation")
    kind = operation.get("type") if isinstance(operation, Mapping) else None
    if kind == "delete_file":
        return {"type": kind, "path": REDACTED}
    if kind != "create_file":
        kind = "update_file"
    return {"type": kind, "path": REDACTED, "diff": REDACTED}


def _error(item: Mapping[str, JSON]) -> JSON:
    error = item.get("error")
    if isinstance(error, Mapping):
        return {"type": "mcp_tool_execution_error", "content": REDACTED}
    return None if error is None else REDACTED


def _if_any(name: str, neutral: JSON = REDACTED) -> Neutral:
    """Return what gives a neutral value, and null for null."""
    return lambda item: None if item.get(name) is None else neutral


NEUTRAL: Final[dict[str, Neutral]] = {
    "action": _action,
    "arguments": _arguments,
    "code": _if_any("code"),
    "content": _content,
    "encrypted_content": _if_any("encrypted_content"),
    "error": _error,
    "input": lambda _: REDACTED,
    "operation": _operation,
    "output": _output,
    "outputs": lambda _: [],
    "pending_safety_checks": lambda _: [],
    "queries": lambda _: [REDACTED],
    "reason": _if_any("reason"),
    "result": _if_any("result", PICTURE),
    "summary": lambda _: [],
    "tools": lambda _: [],
}
"""The other keys that a placeholder may have, where its item has them."""

LEFT_OUT: Final = {("reasoning", "encrypted_content"), ("reasoning", "content")}
"""Keys that items of a type need not have, and for which there is no neutral value."""


def placeholder(item: JSON) -> JSON:
    """Return what is left of an item once it is redacted."""
    kind = classify(item)
    if not isinstance(item, Mapping):
        return smallest(kind)
    left = {
        key: value
        for key, value in item.items()
        if key in KEPT and isinstance(value, str | bool | None)
    }
    if isinstance(item.get("role"), str):
        left.pop("name", None)  # of the author
    left |= {
        key: neutral(item)
        for key, neutral in NEUTRAL.items()
        if key in item and (kind.type, key) not in LEFT_OUT
    }
    return left if classify(left) == kind else smallest(kind)
