"""Messages as items, and back."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic_ai.messages import (
    AudioUrl,
    BinaryContent,
    CachePoint,
    DocumentUrl,
    FilePart,
    ImageUrl,
    ModelMessagesTypeAdapter,
    ModelRequest,
    ModelResponse,
    NativeToolCallPart,
    NativeToolReturnPart,
    SystemPromptPart,
    TextContent,
    TextPart,
    ThinkingPart,
    ToolCallPart,
    ToolReturnPart,
    UploadedFile,
    UserPromptPart,
    VideoUrl,
)
from pydantic_ai.usage import RequestUsage

from agents_eventlog.adapters.conversations.conversation import said
from agents_eventlog.adapters.conversations.tools import failed
from agents_eventlog.adapters.pydantic_ai.items import items_of, messages_of
from agents_eventlog.adapters.view.cards import card
from agents_eventlog.eventlog import errors
from agents_eventlog.eventlog.events import ItemRef
from agents_eventlog.eventlog.item_kind import classify
from agents_eventlog.projections.conversations.placeholder import placeholder
from tests.adapters.pydantic_ai.agents_for_tests import as_kept

PNG = bytes.fromhex("89504e470d0a1a0afbfffe3e3f")
PICTURE = BinaryContent(PNG, media_type="image/png")
FILES = [
    "See:",
    PICTURE,
    BinaryContent(b"\xfb\xff", media_type="audio/wav", vendor_metadata={"x": None}),
    BinaryContent(b"\xfb\xff", media_type="video/mp4"),
    BinaryContent(b"%PDF", media_type="application/pdf", identifier="paper"),
    ImageUrl("https://example.com/a.png"),
    AudioUrl("https://example.com/a.mp3", force_download=True),
    VideoUrl("https://example.com/a.mp4"),
    DocumentUrl("https://example.com/a.pdf"),
    UploadedFile("file-1", provider_name="openai", media_type="image/png"),
    TextContent("noted", metadata={"a": 1}),
    CachePoint(ttl="1h"),
]
REQUEST_PARTS: list[Any] = [
    SystemPromptPart("Be nice.", dynamic_ref="rules"),
    UserPromptPart("Hello"),
    UserPromptPart(FILES),
    ToolReturnPart("look_up", "a text", tool_call_id="1"),
    ToolReturnPart("look_up", {"a": [None, 1.5]}, tool_call_id="1", metadata={"n": None}),
    ToolReturnPart("look_up", None, tool_call_id="1"),
    ToolReturnPart("look_up", "3", tool_call_id="1", outcome="denied"),
    ToolReturnPart("look_up", ["a", "b"], tool_call_id="1", outcome="failed"),
    ToolReturnPart("draw", PICTURE, tool_call_id="1"),
    ToolReturnPart("draw", ["Done:", PICTURE, {"width": 3}], tool_call_id="1"),
]
RESPONSE_PARTS: list[Any] = [
    TextPart("Hello", id="m1", provider_details={"x": None}),
    ThinkingPart("Hm.", signature="abc", provider_name="anthropic"),
    ThinkingPart(""),
    FilePart(PICTURE, id="f1"),
    ToolCallPart("look_up", {"name": "Ada", "deep": {"a": None}}, tool_call_id="1"),
    ToolCallPart("look_up", '{"name": "Ada"}', tool_call_id="1"),
    ToolCallPart("look_up", "not JSON", tool_call_id="1"),
    ToolCallPart("look_up", {}, tool_call_id="1"),
    ToolCallPart("look_up", tool_call_id="1"),
    NativeToolCallPart("web_search", {"query": "Ada"}, tool_call_id="2", provider_name="openai"),
    NativeToolReturnPart("web_search", [{"url": "x"}], tool_call_id="2", provider_name="openai"),
]
AT = datetime(2026, 1, 2, tzinfo=UTC)


def message(part: Any) -> ModelRequest | ModelResponse:
    if part in RESPONSE_PARTS:
        usage = RequestUsage(input_tokens=3, details={"reasoning": 1})
        return ModelResponse([part], usage=usage, model_name="m", timestamp=AT, run_id="r")
    return ModelRequest([part], instructions="Be brief.", run_id="r")


def named(part: Any) -> str:
    return f"{part.part_kind} {part!r}"[:60]


@pytest.mark.parametrize("part", [*REQUEST_PARTS, *RESPONSE_PARTS], ids=named)
def test_each_part_comes_back_as_it_was(part: Any) -> None:
    items = json.loads(json.dumps(items_of([message(part)])))
    assert messages_of(items) == as_kept([message(part)])


def test_messages_keep_their_bounds() -> None:
    messages = [
        ModelRequest(REQUEST_PARTS[:3]),
        ModelRequest([UserPromptPart("and")]),
        ModelResponse([]),
        ModelResponse(RESPONSE_PARTS),
        ModelResponse([TextPart("also")], model_name="m"),
        ModelRequest([]),
    ]
    assert messages_of(items_of(messages)) == as_kept(messages)


@pytest.mark.parametrize("part", [*REQUEST_PARTS, *RESPONSE_PARTS], ids=named)
def test_a_redacted_part_keeps_its_place_and_nothing_of_its_content(part: Any) -> None:
    (item,) = items_of([message(part)])
    left = placeholder(item)
    assert classify(left) == classify(item)
    (found,) = messages_of([left])
    assert found.kind == message(part).kind
    for secret in ("Hello", "Ada", "example.com", "Be brief", "signature='abc'", "noted"):
        assert secret not in repr(found)


def test_what_people_see_of_each_part() -> None:
    shown = [said(item) for part in REQUEST_PARTS[:5] for item in items_of([message(part)])]
    assert shown[0] == ("system", "Be nice.")
    assert shown[1] == ("user", "Hello")
    assert shown[2][1].splitlines()[:2] == ["See:", "(image, png, 13 B)"]
    assert shown[3:] == [("gets", "a text"), ("gets", '{"a": [null, 1.5]}')]
    calls = [said(items_of([message(part)])[0]) for part in RESPONSE_PARTS[4:6]]
    assert calls[1] == ("calls", 'look_up(name="Ada")')
    assert calls[0][1].startswith('look_up(name="Ada", deep=')


def test_the_page_shows_pictures_of_prompts_answers_and_tools() -> None:
    for part in (UserPromptPart([PICTURE]), FilePart(PICTURE), ToolReturnPart("draw", PICTURE)):
        holder = ModelResponse([part]) if isinstance(part, FilePart) else ModelRequest([part])
        (item,) = items_of([holder])
        shown = card(item, ItemRef(1, 0), classify(item), embeds_pictures=True)
        assert [each.kind for each in shown.parts] == ["image"]


def test_an_outcome_that_is_a_failure_counts_as_one() -> None:
    outcomes = [
        failed(items_of([ModelRequest([ToolReturnPart("t", "x", outcome=outcome)])])[0])
        for outcome in ("success", "failed", "denied", "interrupted")
    ]
    assert outcomes == [False, True, True, True]


def test_the_history_of_another_sdk_is_read_as_messages() -> None:
    found = messages_of(
        [
            {"role": "user", "content": "Weather?"},
            {"type": "reasoning", "id": "rs_1", "summary": [{"text": "Oslo?"}]},
            {"type": "function_call", "call_id": "1", "name": "weather", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "1", "output": "sunny"},
            {
                "type": "message",
                "role": "assistant",
                "content": [{"type": "output_text", "text": "Sun."}],
            },
            {
                "role": "user",
                "content": [
                    {"type": "input_text", "text": "And this?"},
                    {"type": "input_image", "image_url": "https://example.com/a.png"},
                ],
            },
        ]
    )
    assert [[part.part_kind for part in each.parts] for each in found] == [
        ["user-prompt"],
        ["thinking", "tool-call"],
        ["tool-return"],
        ["text"],
        ["user-prompt"],
    ]
    assert found[2].parts[0].tool_name == "weather"
    assert found[4].parts[0].content == ["And this?", ImageUrl("https://example.com/a.png")]


@pytest.mark.parametrize("item", [{"type": "web_search_call", "id": "ws"}, {"x": 1}, "text"])
def test_an_item_that_is_no_message_is_refused(item: Any) -> None:
    with pytest.raises(errors.ConversationError, match="as a message of Pydantic AI"):
        messages_of([item])


def test_a_message_of_a_newer_release_is_refused_with_advice() -> None:
    item = {"type": "pydantic_ai.dream", "pydantic_ai": {"part": {"part_kind": "dream"}}}
    with pytest.raises(errors.ConversationError, match="does not accept"):
        messages_of([item])


@pytest.mark.parametrize("value", [object(), {1, object()}])
def test_a_value_that_json_cannot_hold_is_refused(value: Any) -> None:
    with pytest.raises(errors.UnserialisableError):
        items_of([ModelRequest([ToolReturnPart("t", {"a": value})])])


def test_what_is_no_message_is_refused() -> None:
    with pytest.raises(errors.UnserialisableError):
        items_of([{"role": "user", "content": "Hi"}])  # type: ignore[list-item]


@pytest.mark.parametrize(
    "part",
    [
        {"part_kind": "compaction", "content": "summed up", "id": "c"},
        {"part_kind": "speech", "speaker": "assistant"},
        {"part_kind": "speech", "speaker": "assistant", "transcript": ""},
        {"part_kind": "speech", "speaker": "assistant", "transcript": "Hi", "id": "s"},
    ],
    ids=str,
)
def test_rarer_parts_come_back_as_they_were(part: dict[str, Any]) -> None:
    messages = ModelMessagesTypeAdapter.validate_python([{"kind": "response", "parts": [part]}])
    (item,) = items_of(messages)
    assert messages_of([item]) == as_kept(messages)
    assert part.get("content", "") in said(item)[1]


def test_a_redacted_part_without_another_form_is_left_out() -> None:
    part = {"part_kind": "compaction", "content": "summed up"}
    messages = ModelMessagesTypeAdapter.validate_python([{"kind": "response", "parts": [part]}])
    assert messages_of([placeholder(item) for item in items_of(messages)]) == []
