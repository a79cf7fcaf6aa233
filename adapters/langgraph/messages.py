"""
The messages of LangChain as items, and back.

A message becomes one item for its text and one for each tool call, in the form in which the log knows
prompts, answers, calls and outputs, so that turns, search and the counts of tools work on them. The rest of
the message is under the key ``langgraph`` of its first item.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final, TypeAlias

from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
    message_to_dict,
    messages_from_dict,
)

from agents_eventlog.eventlog.events import JSON, RequestUsage

Item: TypeAlias = dict[str, JSON]

OWN: Final = "langgraph"
"""The key under which an item has what its form lacks."""

_ROLES: Final = {"human": "user", "ai": "assistant", "system": "system"}
_TYPES: Final = {"user": "human", "assistant": "ai", "system": "system"}
KEPT: Final = frozenset({AIMessage, HumanMessage, SystemMessage, ToolMessage})
_CALL_KEYS: Final = {"name", "args", "id", "type"}


def digest_of(message: object) -> str | None:
    """Return what identifies a message by all of its content; None for one that is not kept as items."""
    if not isinstance(message, BaseMessage) or type(message) not in KEPT:
        return None
    try:
        kept = json.dumps(message_to_dict(message), sort_keys=True)
    except (TypeError, ValueError):
        return None
    return hashlib.sha256(kept.encode(errors="surrogatepass")).hexdigest()[:32]


def items_of(message: BaseMessage) -> list[Item] | None:
    """Return a message as items; None if it would come back changed."""
    items = _items(json.loads(json.dumps(message_to_dict(message)))["data"])
    items[0][OWN] |= {"digest": digest_of(message), "count": len(items)}
    try:
        return items if message_of(items) == message else None
    except (LookupError, TypeError, ValueError):
        return None


def places_of(messages: Sequence[JSON]) -> dict[str, tuple[int, int]]:
    """
    Return where each message is among the items of a branch, by its digest: its number and count of items.

    A redacted message is there with its present digest, so that it is not added again, and if something of
    it is left, with its former one, too.
    """
    found: dict[str, tuple[int, int]] = {}
    for number, count in groups(messages, 0, len(messages)):
        digests = [_own(messages[number]).get("digest")]
        with suppress(AttributeError, LookupError, TypeError, ValueError):  # items of others
            digests.append(digest_of(message_of(messages[number : number + count])))
        found |= {digest: (number, count) for digest in digests if digest is not None}
    return found


def groups(items: Sequence[JSON], start: int, end: int) -> Iterator[tuple[int, int]]:
    """Yield for each message in a range of items the number of its first item, and their count."""
    while start < end:
        count = _own(items[start]).get("count") or _count_redacted(items, start, end)
        yield start, count
        start += count


def message_of(items: Sequence[Mapping[str, JSON]]) -> BaseMessage:
    """Return the message of its items; some of them may be redacted."""
    first = items[0]
    data: dict[str, JSON] = dict(_own(first).get("message", {}))
    calls = [_call(item) for item in items if item.get("type") == "function_call"]
    if first.get("type") == "function_call_output":
        data |= {"type": "tool", "content": first["output"], "tool_call_id": first["call_id"]}
    elif "role" in first:
        data |= {"type": _TYPES[first["role"]], "content": first["content"]}
    else:
        data = {"type": "ai", "content": "", **data}
    if calls:
        data["tool_calls"] = calls
    if isinstance(first.get("id"), str):
        data["id"] = first["id"]
    (message,) = messages_from_dict([{"type": data["type"], "data": data}])
    return message


def usage_of(message: BaseMessage) -> RequestUsage | None:
    """Return the usage of the request that a message answers; None if the message does not report it."""
    usage: Any = getattr(message, "usage_metadata", None)
    if not usage:
        return None
    read = usage.get("input_token_details") or {}
    written = usage.get("output_token_details") or {}
    told = message.response_metadata
    return RequestUsage(
        input_tokens=usage["input_tokens"],
        output_tokens=usage["output_tokens"],
        total_tokens=usage["total_tokens"],
        cached_input_tokens=read.get("cache_read") or 0,
        cache_write_tokens=read.get("cache_creation") or 0,
        reasoning_tokens=written.get("reasoning") or 0,
        response_id=message.id,
        model=told.get("model_name") or told.get("model"),
        agent=message.name,
    )


def _own(item: JSON) -> Mapping[str, JSON]:
    own = item.get(OWN) if isinstance(item, Mapping) else None
    return own if isinstance(own, Mapping) else {}


def _count_redacted(items: Sequence[JSON], start: int, end: int) -> int:
    """Return how many items a message without its first one has: an answer's calls follow it."""
    first, after = items[start], start + 1
    if isinstance(first, Mapping) and (
        first.get("role") == "assistant" or first.get("type") == "function_call"
    ):
        while after < end and _is_further_call(items[after]):
            after += 1
    return after - start


def _is_further_call(item: JSON) -> bool:
    return isinstance(item, Mapping) and item.get("type") == "function_call" and OWN not in item


def _items(data: dict[str, JSON]) -> list[Item]:
    kind = data.pop("type")
    identity = {"id": data.pop("id")} if data.get("id") else {}
    calls = data.get("tool_calls") or []
    items: list[Item] = []
    if kind == "tool":
        status = "failed" if data.get("status") == "error" else "completed"
        call = {"call_id": data.pop("tool_call_id"), "name": data.get("name")}
        output = {"status": status, "output": data.pop("content")}
        items.append({"type": "function_call_output", **call, **output})
    are_items = all(each.keys() <= _CALL_KEYS and each["id"] for each in calls)
    if kind != "tool" and (data["content"] or not (calls and are_items)):
        items.append({"role": _ROLES[kind], "content": data.pop("content")})
    if are_items:
        data.pop("tool_calls", None)
        for each in calls:
            arguments = json.dumps(each["args"], ensure_ascii=False)
            call = {"call_id": each["id"], "name": each["name"], "arguments": arguments}
            items.append({"type": "function_call", **call})
    rest = {
        name: value
        for name, value in data.items()
        if name == "content" or value not in (None, {}, [])
    }
    items[0] = {**items[0], **identity, OWN: {"message": rest}}
    return items


def _call(item: Mapping[str, JSON]) -> dict[str, JSON]:
    arguments = json.loads(item["arguments"])
    return {"name": item["name"], "args": arguments, "id": item["call_id"], "type": "tool_call"}
