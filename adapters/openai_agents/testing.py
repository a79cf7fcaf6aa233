"""
A model that answers from a script, for tests, demos and examples without network access.

    model = ScriptedModel([call("get_weather", {"city": "Oslo"}), "Sunny, 21 degrees."])
    agent = Agent(name="Weather", model=model, tools=[get_weather])
    await Runner.run(agent, "How is Oslo?")
    model.inputs[1]  # the input of the request after the tool call
    model.assert_complete()  # the script has no further steps

It extends the scripted model of `agents.testing` (with `calls`, `remaining_steps`, `assert_complete` and
streamed events) by shorter ways to write a step, numbered ids, and a fallback.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from agents import ItemHelpers, ModelResponse, TResponseInputItem, Usage
from agents.testing import ModelCall, ModelStep, UnexpectedModelCall, assistant_message
from agents.testing import ScriptedModel as SDKScriptedModel
from agents.testing.model import ModelScriptItem
from openai.types.responses import ResponseFunctionToolCall, ResponseOutputMessage
from openai.types.responses.response_usage import InputTokensDetails, OutputTokensDetails

if TYPE_CHECKING:
    from agents.items import TResponseOutputItem, TResponseStreamEvent

__all__ = ["Answer", "ScriptedModel", "UnexpectedModelCall", "call", "reply", "together", "tokens"]

_UNNAMED = ""  # the id of an item that is numbered when the step runs


@dataclass(frozen=True)
class Answer:
    """One response; the model fills in a usage or id that is None."""

    items: tuple[TResponseOutputItem, ...]
    usage: Usage | None = None
    response_id: str | None = None


Told: TypeAlias = str | Answer | ModelScriptItem
"""The result of a step: an exception is raised, any other value is returned as the response."""
Step: TypeAlias = Told | Callable[[list[TResponseInputItem]], Told | Awaitable[Told]]
"""A step: a result, or a function (async or not) that computes it from the model's input."""


def tokens(
    read: int, written: int, *, cached: int = 0, cache_write: int = 0, reasoning: int = 0
) -> Usage:
    """
    Return the usage of one request.

    read, written: numbers of input and output tokens.
    cached, cache_write: parts of the input tokens, as with a provider.
    reasoning: part of the output tokens.
    """
    details = InputTokensDetails(cached_tokens=cached, cache_write_tokens=cache_write)
    return Usage(
        requests=1,
        input_tokens=read,
        output_tokens=written,
        total_tokens=read + written,
        input_tokens_details=details,
        output_tokens_details=OutputTokensDetails(reasoning_tokens=reasoning),
    )


def reply(content: Any, *, usage: Usage | None = None, response_id: str | None = None) -> Answer:
    """Answer with a text; other values than a `str` are encoded as JSON, for an `output_type`."""
    text = content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)
    return Answer((assistant_message(text, item_id=_UNNAMED),), usage, response_id)


def call(
    name: str,
    arguments: Mapping[str, Any] | str | None = None,
    *,
    call_id: str | None = None,
    usage: Usage | None = None,
    response_id: str | None = None,
) -> Answer:
    """
    Call a tool, or make a handoff: `call("transfer_to_billing")`.

    arguments: a mapping is encoded as JSON. A `str` is sent unchanged, so that a test can send invalid
        JSON.
    call_id: by default numbered like the responses, for example `call_1`.
    """
    text = arguments if isinstance(arguments, str) else json.dumps(dict(arguments or {}))
    item = ResponseFunctionToolCall(
        type="function_call",
        id=_UNNAMED,
        call_id=call_id or _UNNAMED,
        name=name,
        arguments=text,
        status="completed",
    )
    return Answer((item,), usage, response_id)


def together(
    *answers: Answer, usage: Usage | None = None, response_id: str | None = None
) -> Answer:
    """Combine several answers in one response, as a model that calls tools in parallel does."""
    return Answer(tuple(item for one in answers for item in one.items), usage, response_id)


class ScriptedModel(SDKScriptedModel):
    """
    Answers each request with the next step of a script.

    usage: the usage of steps without their own; by default one request and no tokens.
    model: the name that is recorded and priced; without one the requests have no price.
    response_id: a pattern, in which `{n}` is the number of the answer. A pattern without it is a constant
        id; None means no id, as with some providers.
    first: the number of the first answer. Messages and tool calls are numbered in the same way: `msg_1`,
        `call_1`, and `call_1_2` for the second call of a response. The SDK treats two tool calls with the
        same id as one call: if several models answer in one session, their numbers must differ.
    fallback: the step for each request after the end of the script; without one, such a request raises
        `UnexpectedModelCall`.
    """

    def __init__(
        self,
        script: Iterable[Step] = (),
        *,
        usage: Usage | None = None,
        model: str | None = None,
        response_id: str | None = "resp_{n}",
        first: int = 1,
        fallback: Step | None = None,
    ) -> None:
        super().__init__(default_usage=usage)
        self.model = model
        self._response_id = response_id
        self._number = first
        self._fallback = fallback
        self.extend(script)

    @property
    def inputs(self) -> list[list[TResponseInputItem]]:
        """The input of each request so far, at the time of the request."""
        return [ItemHelpers.input_to_new_input_list(each.input) for each in self.calls]

    def enqueue(self, step: Step) -> None:
        """Append a step to the script."""
        super().enqueue(ModelStep.respond(self._player(step)))

    def extend(self, steps: Iterable[Step]) -> None:
        """Append several steps to the script."""
        for step in steps:
            self.enqueue(step)

    async def get_response(self, *args: Any, **kwargs: Any) -> ModelResponse:
        """Answer with the next step."""
        self._ensure_step()
        return await super().get_response(*args, **kwargs)

    def stream_response(self, *args: Any, **kwargs: Any) -> AsyncIterator[TResponseStreamEvent]:
        """Answer with the next step, as the events that a provider would stream."""
        self._ensure_step()
        return super().stream_response(*args, **kwargs)

    def _ensure_step(self) -> None:
        if self._fallback is not None and not self.remaining_steps:
            self.enqueue(self._fallback)

    def _player(self, step: Step) -> Callable[[ModelCall], Awaitable[Any]]:
        async def play(request: ModelCall) -> Any:
            heard = ItemHelpers.input_to_new_input_list(request.input)
            result = step(heard) if callable(step) else step
            if inspect.isawaitable(result):
                result = await result
            if isinstance(result, str | list):
                result = reply(result) if isinstance(result, str) else Answer(tuple(result))
            return self._numbered(result) if isinstance(result, Answer) else result

        return play

    def _numbered(self, answer: Answer) -> ModelStep:
        number = self._number
        self._number += 1
        pattern = answer.response_id or self._response_id
        return ModelStep(
            output=[_named(item, number, index) for index, item in enumerate(answer.items)],
            usage=answer.usage or Usage(),
            response_id=None if pattern is None else pattern.replace("{n}", str(number)),
        )


def _named(item: TResponseOutputItem, number: int, index: int) -> TResponseOutputItem:
    suffix = str(number) if index == 0 else f"{number}_{index + 1}"
    if isinstance(item, ResponseOutputMessage) and item.id == _UNNAMED:
        return item.model_copy(update={"id": f"msg_{suffix}"})
    if isinstance(item, ResponseFunctionToolCall) and item.id == _UNNAMED:
        call_id = item.call_id or f"call_{suffix}"
        return item.model_copy(update={"id": f"fc_{suffix}", "call_id": call_id})
    return item
