"""Script of the demo: an agent with a tool, the questions, and scripted answers."""

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
"""Model whose prices apply to the scripted token counts."""

REPORTS: Final = {"lisbon": "24 degrees, sunny", "oslo": "9 degrees, rain"}


@function_tool
def get_weather(city: str) -> str:
    """Return the weekend weather of a city."""
    return REPORTS.get(city.lower(), "no report")


def script() -> list[Step]:
    """Return the scripted answers, in order of the requests."""
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
    """Return whether an API key for the SDK's default model is set."""
    return bool(os.environ.get("OPENAI_API_KEY", "").strip())


def make_agent(*, live: bool) -> tuple[Agent[Any], str]:
    """Return the agent, and a description of its model."""
    if live:
        agent = Agent[Any](name="Planner", instructions=INSTRUCTIONS, tools=[get_weather])
        return agent, f"{get_default_model()} (OPENAI_API_KEY is set)"
    model = ScriptedModel(script(), model=PRICED_AS)
    agent = Agent[Any](name="Planner", instructions=INSTRUCTIONS, tools=[get_weather], model=model)
    return agent, f"scripted (OPENAI_API_KEY is not set), priced like {PRICED_AS}"


def run_config(*, live: bool) -> RunConfig:
    """Return the run configuration; without a key, tracing is disabled because uploads would fail."""
    return RunConfig(workflow_name="eventlog demo", tracing_disabled=not live)
