"""The scripted model: what a script may hold, and what the model tells about itself."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from agents import Agent, ModelResponse, Runner, Usage
from agents.testing import UnconsumedModelSteps, assistant_message
from openai.types.responses import ResponseFunctionToolCall
from pydantic import BaseModel

from agents_eventlog.adapters.openai_agents.testing import (
    ScriptedModel,
    UnexpectedModelCall,
    call,
    reply,
    together,
    tokens,
)
from tests.adapters.running import Item, said, user, weather

if TYPE_CHECKING:
    from collections.abc import Sequence

pytestmark = pytest.mark.usefixtures("no_tracing")


class Forecast(BaseModel):
    city: str
    degrees: int


def agent(model: ScriptedModel, **options: Any) -> Any:
    return Agent(name="Host", model=model, tools=[weather], **options)


async def test_each_request_gets_the_next_step(run: Any) -> None:
    model = ScriptedModel(["One", reply("Two")])
    answers = [(await run(agent(model), "Hi")).final_output for _ in range(2)]
    assert answers == ["One", "Two"]
    model.assert_complete()


async def test_a_script_that_is_used_up_says_so(run: Any) -> None:
    with pytest.raises(UnexpectedModelCall, match="no scripted steps remain"):
        await run(agent(ScriptedModel()), "Hi")


async def test_a_fallback_answers_whatever_comes_after_the_script(run: Any) -> None:
    model = ScriptedModel(["One"], fallback="More")
    answers = [(await run(agent(model), "Hi")).final_output for _ in range(4)]
    assert answers == ["One", "More", "More", "More"]
    model.assert_complete()


async def test_a_script_that_is_not_used_up_can_be_noticed(run: Any) -> None:
    model = ScriptedModel(["One", "Two"])
    await run(agent(model), "Hi")
    assert model.remaining_steps == 1
    with pytest.raises(UnconsumedModelSteps):
        model.assert_complete()


async def test_steps_can_be_added_while_a_conversation_goes_on(run: Any) -> None:
    model = ScriptedModel(["One"])
    await run(agent(model), "Hi")
    model.extend(["Two"])
    model.enqueue(reply("Three"))
    answers = [(await run(agent(model), "Hi")).final_output for _ in range(2)]
    assert answers == ["Two", "Three"]


async def test_an_exception_in_the_script_is_raised(run: Any) -> None:
    model = ScriptedModel([ConnectionError("gone"), "Back"])
    with pytest.raises(ConnectionError, match="gone"):
        await run(agent(model), "Hi")
    assert (await run(agent(model), "Hi")).raw_responses[0].response_id == "resp_1"


async def test_a_function_sees_the_input_and_chooses_the_step(run: Any) -> None:
    def choose(heard: Sequence[Any]) -> Any:
        return call("weather", {"city": heard[-1]["content"]})

    async def repeat(heard: Sequence[Any]) -> str:
        return str(heard[-1]["output"])

    result = await run(agent(ScriptedModel([choose, repeat])), "Rome")
    assert result.final_output == "sunny in Rome"


async def test_a_function_may_fail(run: Any) -> None:
    def fail(_heard: Sequence[Any]) -> Exception:
        return ConnectionError("gone")

    with pytest.raises(ConnectionError, match="gone"):
        await run(agent(ScriptedModel([fail])), "Hi")


async def test_the_inputs_are_kept_as_they_were_sent(run: Any) -> None:
    model = ScriptedModel(["One", "Two"])
    question: Item = {"role": "user", "content": "Hi"}
    await run(agent(model), [question])
    question["content"] = "changed later"
    await run(agent(model), "Bye")
    assert model.inputs == [[user("Hi")], [user("Bye")]]


async def test_ids_count_up_and_calls_of_one_response_differ(run: Any) -> None:
    both = together(call("weather", {"city": "Oslo"}), call("weather", {"city": "Rome"}))
    result = await run(agent(ScriptedModel([both, "Done"])), "Hi")
    assert [response.response_id for response in result.raw_responses] == ["resp_1", "resp_2"]
    items = result.to_input_list()
    assert [item["call_id"] for item in items[1:3]] == ["call_1", "call_1_2"]
    assert items[-1] == said("Done", 2)


async def test_a_second_model_can_count_on_from_the_first(run: Any) -> None:
    result = await run(agent(ScriptedModel(["Hello"], first=7)), "Hi")
    assert result.raw_responses[0].response_id == "resp_7"
    assert result.to_input_list()[-1] == said("Hello", 7)


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [("chat-{n}", ["chat-1", "chat-2"]), ("same", ["same", "same"]), (None, [None, None])],
)
async def test_response_ids_follow_the_pattern(
    run: Any, pattern: str | None, expected: list[str | None]
) -> None:
    model = ScriptedModel(["One", "Two"], response_id=pattern)
    results = [await run(agent(model), "Hi") for _ in range(2)]
    assert [result.raw_responses[0].response_id for result in results] == expected


async def test_a_step_s_own_ids_stand(run: Any) -> None:
    asked = call("weather", {"city": "Oslo"}, call_id="mine", response_id="first")
    result = await run(agent(ScriptedModel([asked, "Done"])), "Hi")
    assert [response.response_id for response in result.raw_responses] == ["first", "resp_2"]
    assert result.to_input_list()[1]["call_id"] == "mine"


async def test_a_step_costs_what_it_says_or_what_the_model_says(run: Any) -> None:
    dear = reply("One", usage=tokens(100, 20, cached=60, cache_write=5, reasoning=8))
    model = ScriptedModel([dear, "Two"], usage=tokens(10, 5))
    first, second = [(await run(agent(model), "Hi")).context_wrapper.usage for _ in range(2)]
    assert (first.requests, first.input_tokens, first.output_tokens) == (1, 100, 20)
    assert first.total_tokens == 120
    assert first.input_tokens_details.cached_tokens == 60
    assert first.input_tokens_details.cache_write_tokens == 5
    assert first.output_tokens_details.reasoning_tokens == 8
    assert second.total_tokens == 15


async def test_a_step_without_usage_is_one_request_without_tokens(run: Any) -> None:
    usage = (await run(agent(ScriptedModel(["One"])), "Hi")).context_wrapper.usage
    assert (usage.requests, usage.total_tokens) == (1, 0)


async def test_json_is_written_for_an_output_type(run: Any) -> None:
    model = ScriptedModel([reply({"city": "Tromsø", "degrees": -4})])
    result = await run(agent(model, output_type=Forecast), "Hi")
    assert result.final_output == Forecast(city="Tromsø", degrees=-4)


async def test_arguments_that_are_not_json_can_be_sent(run: Any) -> None:
    model = ScriptedModel([call("weather", "{not json"), "Sorry"])
    result = await run(agent(model), "Hi")
    assert result.to_input_list()[1]["arguments"] == "{not json"


async def test_what_the_sdk_s_own_types_say_is_given_unchanged(run: Any) -> None:
    response = ModelResponse([assistant_message("As is", item_id="m")], Usage(), "own")
    item = ResponseFunctionToolCall(
        type="function_call", call_id="c", name="weather", arguments=json.dumps({"city": "Bonn"})
    )
    result = await run(agent(ScriptedModel([[item], response])), "Hi")
    assert [raw.response_id for raw in result.raw_responses] == ["resp_1", "own"]
    assert result.to_input_list()[1]["call_id"] == "c"
    assert result.to_input_list()[-1]["id"] == "m"


async def test_a_stream_gives_the_text_before_the_response_is_complete() -> None:
    result = Runner.run_streamed(agent(ScriptedModel(["Hello"])), "Hi")
    seen: list[Any] = [
        event.data async for event in result.stream_events() if hasattr(event, "data")
    ]
    kinds = [event.type for event in seen]
    assert kinds.index("response.output_text.delta") < kinds.index("response.completed")
    text = "".join(event.delta for event in seen if event.type == "response.output_text.delta")
    assert text == "Hello"
