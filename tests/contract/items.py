"""The items and results that the contract tests pass to a session."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from agents.usage import Usage
from openai.types.responses.response_usage import InputTokensDetails, OutputTokensDetails


def user(text: Any, **more: Any) -> Any:
    """Return an item that starts a turn."""
    return {"role": "user", "content": text, **more}


def assistant(text: str) -> Any:
    """Return a message of the model."""
    return {
        "type": "message",
        "role": "assistant",
        "content": [{"type": "output_text", "text": text, "annotations": []}],
    }


def call(name: str | None = "get_weather", **more: Any) -> Any:
    """Return a call of a function."""
    named = {} if name is None else {"name": name}
    return {"type": "function_call", "call_id": "call_1", "arguments": "{}", **named, **more}


def output(text: str = "sunny") -> Any:
    """Return what a function answered."""
    return {"type": "function_call_output", "call_id": "call_1", "output": text}


def turns(*texts: str) -> list[Any]:
    """Return one turn of two items for each text."""
    return [item for text in texts for item in (user(text), assistant(f"about {text}"))]


def usage(
    requests: int = 1, inputs: int = 10, outputs: int = 5, *, cached: int = 0, reasoning: int = 0
) -> Usage:
    """Return the usage of a run."""
    return Usage(
        requests=requests,
        input_tokens=inputs,
        output_tokens=outputs,
        total_tokens=inputs + outputs,
        input_tokens_details=InputTokensDetails.model_validate(
            {"cached_tokens": cached, "cache_write_tokens": 0}
        ),
        output_tokens_details=OutputTokensDetails(reasoning_tokens=reasoning),
    )


def result_of(spent: Any) -> Any:
    """Return the result of a run, as far as a session looks into it."""
    return SimpleNamespace(context_wrapper=SimpleNamespace(usage=spent))


def ran(requests: int = 1, inputs: int = 10, outputs: int = 5, **details: int) -> Any:
    """Return the result of a run that used so much."""
    return result_of(usage(requests, inputs, outputs, **details))
