"""Test doubles for programs that use the OpenAI Agents SDK: a model that answers from a script."""

from agents_eventlog.adapters.openai_agents.testing import (
    Answer,
    ScriptedModel,
    UnexpectedModelCall,
    call,
    reply,
    together,
    tokens,
)

__all__ = ["Answer", "ScriptedModel", "UnexpectedModelCall", "call", "reply", "together", "tokens"]
