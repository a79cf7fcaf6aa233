"""An agent without a network, whose model looks up what it is asked for with a tool."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic_ai import Agent, ModelMessagesTypeAdapter
from pydantic_ai.messages import ModelResponse, TextPart, ToolCallPart, ToolReturnPart
from pydantic_ai.models.function import FunctionModel
from pydantic_ai.usage import RequestUsage

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pydantic_ai.messages import ModelMessage
    from pydantic_ai.models.function import AgentInfo


def answer(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
    """Call the tool with the prompt, then give its answer."""
    last = messages[-1].parts[-1]
    usage = RequestUsage(input_tokens=100, output_tokens=20, cache_read_tokens=40)
    if isinstance(last, ToolReturnPart):
        return ModelResponse(
            [TextPart(f"It is {last.content}.")], usage=usage, model_name="gpt-4.1"
        )
    call = ToolCallPart("look_up", {"name": last.content}, tool_call_id=f"call_{len(messages)}")
    return ModelResponse([TextPart("Let me see."), call], usage=usage, model_name="gpt-4.1")


def desk(**options: Any) -> Agent[None, str]:
    """The agent."""
    agent = Agent(
        FunctionModel(answer, model_name="gpt-4.1"),
        name="Desk",
        system_prompt="You look things up.",
        instructions="Be brief.",
        **options,
    )

    @agent.tool_plain
    def look_up(name: str) -> dict[str, str]:
        """Look up a name."""
        if name == "nobody":
            raise RuntimeError("the directory is away")
        return {"name": name, "room": "4"}

    return agent


def as_kept(messages: Sequence[ModelMessage]) -> list[ModelMessage]:
    """Return messages as Pydantic AI reads them from the JSON that it writes."""
    return ModelMessagesTypeAdapter.validate_json(
        ModelMessagesTypeAdapter.dump_json(list(messages))
    )
