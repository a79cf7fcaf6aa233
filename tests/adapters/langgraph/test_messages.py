"""LangChain's messages as items, and back."""

from __future__ import annotations

import json
from typing import Any

import pytest
from langchain_core.messages import (
    AIMessage,
    ChatMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
)

from agents_eventlog.adapters.conversations.conversation import said
from agents_eventlog.adapters.conversations.tools import failed
from agents_eventlog.adapters.langgraph.messages import (
    digest_of,
    items_of,
    message_of,
    places_of,
    usage_of,
)
from agents_eventlog.projections.conversations.placeholder import placeholder

CALL = {"name": "look_up", "args": {"name": "Ada"}, "id": "1"}
PICTURE = {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}
KEPT: list[Any] = [
    HumanMessage("Hello", id="h1", name="Ada"),
    HumanMessage([{"type": "text", "text": "See:"}, PICTURE]),
    HumanMessage(""),
    SystemMessage("Be nice."),
    AIMessage("Hello", id="a1", response_metadata={"model_name": "m"}),
    AIMessage("", tool_calls=[CALL]),
    AIMessage([], tool_calls=[CALL]),
    AIMessage("Let me see.", tool_calls=[CALL, {**CALL, "id": "2", "args": {}}]),
    AIMessage("", tool_calls=[{**CALL, "id": None}]),
    AIMessage("", invalid_tool_calls=[{"name": "x", "args": "{", "id": "3", "error": "bad"}]),
    ToolMessage("room 4", tool_call_id="1", name="look_up"),
    ToolMessage(["a", {"type": "text", "text": "b"}], tool_call_id="1", status="error"),
    ToolMessage("x", tool_call_id="1", artifact={"deep": [None]}),
]


def named(message: Any) -> str:
    return repr(message)[:50]


@pytest.mark.parametrize("message", KEPT, ids=named)
def test_each_message_comes_back_as_it_was(message: Any) -> None:
    items = items_of(message)
    assert items is not None
    again = json.loads(json.dumps(items))
    assert message_of(again) == message
    assert places_of([*again, *again]) == {digest_of(message): (len(again), len(again))}


@pytest.mark.parametrize("message", KEPT, ids=named)
def test_a_redacted_message_keeps_its_place_and_is_known_there(message: Any) -> None:
    items = items_of(message) or []
    left = [placeholder(item) for item in items]
    assert "Ada" not in str(left[1:])
    found = message_of(left)
    assert type(found) is type(message)
    assert found.id == message.id
    assert places_of([*left, {"role": "user", "content": "Hi"}])[digest_of(found) or ""] == (
        0,
        len(left),
    )


def test_a_message_with_a_redacted_call_is_known_as_it_was_and_as_it_is() -> None:
    message = AIMessage("Let me see.", tool_calls=[CALL])
    first, call = items_of(message) or []
    left = [first, placeholder(call)]
    places = places_of(left)
    assert places[digest_of(message) or ""] == places[digest_of(message_of(left)) or ""] == (0, 2)


def test_what_is_not_kept_as_items_is_left_to_the_serializer() -> None:
    class Own(HumanMessage):
        pass

    for other in (Own("Hi"), ChatMessage("Hi", role="x"), "text", None):
        assert digest_of(other) is None
    assert digest_of(ToolMessage("x", tool_call_id="1", artifact=object())) is None
    assert items_of(AIMessage("x", additional_kwargs={"pair": (1, 2)})) is None
    with pytest.warns(UserWarning, match="serializer"):
        assert items_of(HumanMessage.model_construct(content=3)) is None


@pytest.mark.parametrize("item", ["text", {"type": "web_search_call"}, {"role": "critic"}, {}])
def test_items_of_others_have_no_place(item: Any) -> None:
    message = HumanMessage("Hi")
    assert places_of([item, *(items_of(message) or [])])[digest_of(message) or ""] == (1, 1)


def test_what_people_see_of_messages() -> None:
    shown = [said(item) for message in KEPT for item in items_of(message) or []]
    assert ("user", "See:\n(image, https://example.com/a.png)") in shown
    assert ("calls", 'look_up(name="Ada")') in shown
    assert ("gets", "room 4") in shown
    assert [failed((items_of(each) or [{}])[0]) for each in KEPT[-3:]] == [False, True, False]


def test_usage_is_read_with_its_details_where_a_message_reports_it() -> None:
    message = AIMessage(
        "Hello",
        id="a1",
        name="Desk",
        response_metadata={"model": "claude"},
        usage_metadata={
            "input_tokens": 10,
            "output_tokens": 5,
            "total_tokens": 15,
            "input_token_details": {"cache_read": 4, "cache_creation": 2},
            "output_token_details": {"reasoning": 3},
        },
    )
    usage = usage_of(message)
    assert usage is not None
    assert (usage.cached_input_tokens, usage.cache_write_tokens, usage.reasoning_tokens) == (
        4,
        2,
        3,
    )
    assert (usage.model, usage.agent, usage.response_id) == ("claude", "Desk", "a1")
    assert usage_of(AIMessage("Hello")) is None
    assert usage_of(HumanMessage("Hello")) is None
