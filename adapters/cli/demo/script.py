"""What the demo talks about: an agent with a tool, what is asked, and a script of answers."""

from __future__ import annotations

import os
from typing import Any, Final

from agents import Agent, RunConfig, function_tool
from agents.models import get_default_model

from agents_eventlog.adapters.openai_agents.testing import (
    ScriptedModel,
    Step,
    call,
    reply,
    together,
    tokens,
)

CHOICE: Final = "I have a free weekend. Oslo or Lisbon?"
SIGHTS: Final = "Lisbon, then. What should I see?"
OFF_TOPIC: Final = "And who won the match last night?"
RAIN: Final = "I like rain. What would I do in Oslo?"
CHILDREN: Final = "And with two small children?"

RAINY: Final = "rainy-oslo"
FAMILY: Final = "with-children"

INSTRUCTIONS: Final = (
    "You help to plan weekends. Look up the weather before you compare cities. "
    "Answer in at most two sentences, without markup."
)

PRICED_AS: Final = "gpt-4.1-mini"
"""Whose prices the script's made-up tokens are given."""

REPORTS: Final = {"lisbon": "24 degrees, sunny", "oslo": "9 degrees, rain"}


@function_tool
def get_weather(city: str) -> str:
    """Tell the weather of a city at the weekend."""
    return REPORTS.get(city.lower(), "no report")


def script() -> list[Step]:
    """Return the answers, in the order of the requests."""
    return [
        together(
            call("get_weather", {"city": "Oslo"}),
            call("get_weather", {"city": "Lisbon"}),
            usage=tokens(118, 38),
        ),
        reply("Lisbon: 24 degrees and sun. Oslo has 9 degrees and rain.", usage=tokens(181, 17)),
        reply(
            "Walk through Alfama in the morning, then take tram 28 up to Graça for the view.",
            usage=tokens(214, 22, cached=128),
        ),
        reply("I do not know; I only plan weekends.", usage=tokens(252, 11, cached=192)),
        reply(
            "The Munch museum while it pours, then a floating sauna in the fjord.",
            usage=tokens(215, 19, cached=128),
        ),
        reply(
            "The ships of the Fram museum: dry, and made for climbing about.",
            usage=tokens(253, 18, cached=192),
        ),
    ]


def has_key() -> bool:
    """Whether the SDK's default model can be asked."""
    return bool(os.environ.get("OPENAI_API_KEY", "").strip())


def make_agent(*, live: bool) -> tuple[Agent[Any], str]:
    """Return the agent, and what to call its model."""
    if live:
        agent = Agent[Any](name="Planner", instructions=INSTRUCTIONS, tools=[get_weather])
        return agent, f"{get_default_model()} of OpenAI, as OPENAI_API_KEY is set"
    model = ScriptedModel(script(), model=PRICED_AS)
    agent = Agent[Any](name="Planner", instructions=INSTRUCTIONS, tools=[get_weather], model=model)
    return agent, f"a scripted one, as OPENAI_API_KEY is not set; priced like {PRICED_AS}"


def run_config(*, live: bool) -> RunConfig:
    """Return how to run: without a key nothing is traced, as nothing could take the traces."""
    return RunConfig(workflow_name="eventlog demo", tracing_disabled=not live)
