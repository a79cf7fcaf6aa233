"""The conversation that every measurement holds: turns of four items of about 300 bytes each."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, cast

from agents import Agent, ModelResponse, RunContextWrapper, RunResult, Usage
from openai.types.responses.response_usage import InputTokensDetails, OutputTokensDetails

if TYPE_CHECKING:
    from agents.items import TResponseInputItem

ITEM_BYTES = 300
_WORDS = (
    "the ledger keeps every entry in the order in which it came and a reader who asks for the "
    "newest few need not walk through all that went before because each page knows its place "
    "and its neighbour so that the answer costs the same on the first day as after ten years "
)


def marker(number: int) -> str:
    """Text that stands in the user item of this turn and of no other."""
    return f"question {number:07d}:"


def adds(number: int) -> list[list[TResponseInputItem]]:
    """Make the two batches that a run of the turn adds: what the user says, then all the rest."""
    call_id = f"call_{number:07d}"
    user = _padded({"role": "user", "content": marker(number)}, "content")
    call: dict[str, Any] = {
        "type": "function_call",
        "call_id": call_id,
        "name": "look_up",
        "arguments": "",
    }
    call["arguments"] = json.dumps(
        {"query": _text(number, ITEM_BYTES - len(json.dumps(call)) - 15)}
    )
    output = _padded({"type": "function_call_output", "call_id": call_id, "output": ""}, "output")
    message: dict[str, Any] = {
        "id": f"msg_{number:07d}",
        "type": "message",
        "role": "assistant",
        "status": "completed",
        "content": [{"type": "output_text", "text": "", "annotations": []}],
    }
    message["content"][0]["text"] = _text(number, ITEM_BYTES - len(json.dumps(message)))
    return [
        cast("list[TResponseInputItem]", [user]),
        cast("list[TResponseInputItem]", [call, output, message]),
    ]


def run_result(number: int) -> RunResult:
    """Make what `Runner.run` returns after a turn of two model requests, usage included."""
    request = Usage(
        requests=1,
        input_tokens=1_000 + number,
        output_tokens=60,
        total_tokens=1_060 + number,
        input_tokens_details=InputTokensDetails(cached_tokens=800, cache_write_tokens=0),
        output_tokens_details=OutputTokensDetails(reasoning_tokens=20),
    )
    total = Usage()
    for _ in range(2):
        total.add(request)
    return RunResult(
        input=marker(number),
        new_items=[],
        raw_responses=[
            ModelResponse(output=[], usage=request, response_id=f"resp_{number:07d}_{index}")
            for index in range(2)
        ],
        final_output="done",
        input_guardrail_results=[],
        output_guardrail_results=[],
        tool_input_guardrail_results=[],
        tool_output_guardrail_results=[],
        context_wrapper=RunContextWrapper(context=None, usage=total),
        _last_agent=_AGENT,
    )


_AGENT: Agent[Any] = Agent(name="assistant")


def _padded(item: dict[str, Any], key: str) -> dict[str, Any]:
    room = ITEM_BYTES - len(json.dumps(item)) - 1
    return {**item, key: f"{item[key]} {_text(len(item[key]), room)}"}


def _text(offset: int, length: int) -> str:
    start = offset * 7 % len(_WORDS)
    return (_WORDS[start:] + _WORDS * (1 + length // len(_WORDS)))[:length]
