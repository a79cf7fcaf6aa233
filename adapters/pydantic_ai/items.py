"""
The messages of Pydantic AI as items, and back.

A message becomes one item for each of its parts, in the form in which the log knows prompts, answers, tool
calls and outputs, so that turns, search, usage of tools and redaction work on them. What this form lacks is
under the key ``pydantic_ai``, so that the same messages come back:

    kind      "request" or "response"
    message   the message without its parts; only with its first part
    part      the part without what is in the item
    json      the arguments or the output are JSON text of a value that was not a text

Defaults of the messages' classes are left out. An item without the key, for example one that was redacted
or that another SDK stored, becomes the part that it looks like.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import MISSING, fields
from typing import Any, Final, TypeAlias, get_origin

from pydantic import ValidationError
from pydantic_ai.messages import ModelMessage, ModelMessagesTypeAdapter
from pydantic_core import PydanticSerializationError

from agents_eventlog.adapters.pydantic_ai import contents
from agents_eventlog.adapters.pydantic_ai.contents import OWN
from agents_eventlog.eventlog.errors import ConversationError, UnserialisableError
from agents_eventlog.eventlog.events import JSON

Item: TypeAlias = dict[str, JSON]

OTHER: Final = "pydantic_ai."
"""The beginning of the types of items that the log has no form of its own for."""

_STATUS: Final = {
    "success": "completed",
    "failed": "failed",
    "retried": "failed",
    "denied": "incomplete",
    "interrupted": "incomplete",
}
_KINDS: Final = {"user": "user-prompt", "assistant": "text"}
_PROVIDER: Final = "server"
"""The ``execution`` of tools that the model's provider runs."""


def items_of(messages: Sequence[ModelMessage]) -> list[Item]:
    """
    Return the items of messages.

    Raises UnserialisableError (a TypeError) for values that JSON cannot represent, and for other objects
    than messages.
    """
    try:
        dumped = ModelMessagesTypeAdapter.dump_python(list(messages), mode="json", warnings="error")
    except PydanticSerializationError as error:
        raise UnserialisableError(
            f"cannot store these messages: {error}"[:300], place="$"
        ) from None
    return [
        item
        for message, dump in zip(messages, dumped, strict=True)
        for item in _items(message, dump)
    ]


def messages_of(items: Iterable[JSON]) -> list[ModelMessage]:
    """
    Return the messages of items.

    Raises ConversationError for an item that is not part of a message, for example another SDK's call of a
    tool of its provider.
    """
    found: list[dict[str, JSON]] = []
    names: dict[str, str] = {}
    for item in items:
        own = item.get(OWN) if isinstance(item, Mapping) else None
        given: Mapping[str, JSON] = own if isinstance(own, Mapping) else {}
        part = _part(item, given, names)
        if part is None and "message" not in given:
            continue
        kind = given.get("kind") or _kind(part or {})
        if "message" in given or not found or found[-1]["kind"] != kind:
            found.append({**given.get("message", {}), "kind": kind, "parts": []})
        if part is not None:
            found[-1]["parts"].append(part)
    try:
        return ModelMessagesTypeAdapter.validate_python(found)
    except ValidationError as error:
        where = ".".join(map(str, error.errors()[0]["loc"]))
        raise ConversationError(
            f"cannot read the messages: this version of pydantic-ai does not accept {where}; "
            "install the one that wrote them, or a newer one"
        ) from None


# -- to items -----------------------------------------------------------------------------------


def _items(message: ModelMessage, dump: dict[str, JSON]) -> Iterator[Item]:
    parts = dump.pop("parts")
    usage: Any = getattr(message, "usage", None)
    if usage is not None:
        dump["usage"] = _brief(usage, dump["usage"])
    envelope = {"kind": message.kind, "message": _brief(message, dump)}
    if not parts:
        yield {"type": f"{OTHER}message", OWN: envelope}
    for number, (part, own) in enumerate(zip(message.parts, parts, strict=True)):
        around = {"kind": message.kind} if number else envelope
        item, facts = _item(_brief(part, own))
        yield {**item, OWN: {**around, **facts}}


def _brief(value: Any, dump: Mapping[str, JSON]) -> dict[str, JSON]:
    """Return the fields of a dataclass without those that have their defaults."""
    defaults = {each.name: each.default for each in fields(value) if each.default is not MISSING}
    empty = {each.name for each in fields(value) if _makes_nothing(each.default_factory)}
    return {
        name: given
        for name, given in dump.items()
        if name == "part_kind"
        or not ((name in defaults and given == defaults[name]) or (name in empty and not given))
    }


def _makes_nothing(factory: Any) -> bool:
    return (get_origin(factory) or factory) in (dict, list)


def _item(part: dict[str, JSON]) -> tuple[Item, dict[str, JSON]]:
    """Return a part as an item, and what the item lacks; takes out of the part what the item has."""
    facts: dict[str, JSON] = {"part": part}
    match part["part_kind"]:
        case "user-prompt" | "system-prompt" | "text" | "file" | "speech" as kind:
            return _message(kind, part), facts
        case "thinking":
            text = {"type": "summary_text", "text": part.pop("content")}
            return {"type": "reasoning", "summary": [text]}, facts
        case "tool-call" | "builtin-tool-call":
            given = part.pop("args", None)
            item = _of_tool("function_call", part)
            if isinstance(given, str):
                return {**item, "arguments": given}, facts
            shown = "" if given is None else json.dumps(given, ensure_ascii=False)
            return {**item, "arguments": shown}, {**facts, "json": True}
        case "tool-return" | "builtin-tool-return" | "retry-prompt" if "tool_name" in part:
            return _output(part, facts), facts
        case kind:
            item = {"type": f"{OTHER}{kind}"}
            if isinstance(part.get("content"), str):
                item["content"] = part.pop("content")
            return item, facts


def _message(kind: str, part: dict[str, JSON]) -> Item:
    if kind == "speech":
        spoken = part.setdefault("transcript", None)
        if spoken is not None:
            del part["transcript"]
        return {"role": part.pop("speaker"), "content": spoken or ""}
    content = part.pop("content")
    if kind == "user-prompt":
        return {"role": "user", "content": contents.of_prompt(content)}
    if kind == "file":
        return {"role": "assistant", "content": [contents.of(content)]}
    return {"role": "system" if kind == "system-prompt" else "assistant", "content": content}


def _output(part: dict[str, JSON], facts: dict[str, JSON]) -> Item:
    is_retry = part["part_kind"] == "retry-prompt"
    outcome = part.get("outcome", "failed" if is_retry else "success")
    content = part.pop("content")
    output = contents.of_output(content)
    if isinstance(output, str) and not isinstance(content, str):
        facts["json"] = True
    item = _of_tool("function_call_output", part)
    return {**item, "status": _STATUS.get(outcome, "completed"), "output": output}


def _of_tool(kind: str, part: dict[str, JSON]) -> Item:
    item = {"type": kind, "call_id": part.pop("tool_call_id"), "name": part.pop("tool_name")}
    return {**item, "execution": _PROVIDER} if part["part_kind"].startswith("builtin") else item


# -- and back -----------------------------------------------------------------------------------


def _part(item: JSON, own: Mapping[str, JSON], names: dict[str, str]) -> dict[str, JSON] | None:
    """
    Return the part of an item; None if it has none, or if it was redacted and has no other form.

    names: those of the tools that were called so far, by the ids of their calls; updated.
    """
    if not isinstance(item, Mapping):
        raise _foreign(type(item).__name__)
    part: dict[str, JSON] = dict(own.get("part", {}))
    match item:
        case {"role": "user" | "assistant" | "system" | "developer" as role}:
            part.setdefault("part_kind", _KINDS.get(role, "system-prompt"))
            _fill_message(part, role, item.get("content"))
        case {"type": "reasoning"}:
            texts = [each.get("text", "") for each in item.get("summary") or ()]
            part = {"part_kind": "thinking", "content": "\n\n".join(texts), **part}
        case {"type": "function_call" | "function_call_output", "call_id": str(call_id)}:
            names.setdefault(call_id, item.get("name") or "unknown")
            part["tool_call_id"], part["tool_name"] = call_id, item.get("name") or names[call_id]
            _fill_tool(part, item, is_json=own.get("json") is True)
        case {"type": str(kind)} if kind.startswith(OTHER):
            if "part_kind" not in part:
                return None
            if "content" in item:
                part["content"] = item["content"]
        case _:
            raise _foreign(item.get("type"))
    return part


def _fill_tool(part: dict[str, JSON], item: Mapping[str, JSON], *, is_json: bool) -> None:
    by_provider = "builtin-" if item.get("execution") == _PROVIDER else ""
    if item["type"] == "function_call":
        arguments = item.get("arguments")
        part.setdefault("part_kind", f"{by_provider}tool-call")
        part["args"] = json.loads(arguments or "null") if is_json else arguments
    else:
        output = item.get("output")
        part.setdefault("part_kind", f"{by_provider}tool-return")
        part["content"] = json.loads(output or "null") if is_json else contents.from_output(output)


def _fill_message(part: dict[str, JSON], role: str, content: JSON) -> None:
    match part["part_kind"]:
        case "user-prompt":
            part["content"] = contents.from_prompt(content)
        case "file":
            part["content"] = contents.from_(content[0])
        case "speech":
            part["speaker"] = role
            part.setdefault("transcript", content)
        case _:
            part["content"] = contents.text(content)


def _kind(part: Mapping[str, JSON]) -> str:
    answers = {"text", "thinking", "tool-call", "builtin-tool-call", "builtin-tool-return"}
    return "response" if part.get("part_kind") in answers else "request"


def _foreign(kind: JSON) -> ConversationError:
    return ConversationError(
        f"cannot return an item of type {kind!r} as a message of Pydantic AI: "
        "read it with ConversationLog, or continue in another session"
    )
