"""
Conversations of Pydantic AI's agents on an event log.

    from agents_eventlog.adapters.pydantic_ai import Conversation

It needs the extra ``pydantic-ai``, and does not import the OpenAI Agents SDK.
"""

try:
    import pydantic_ai as _pydantic_ai  # noqa: F401 - first, for its absence to be named
except ImportError as error:  # pragma: no cover - a test runs it in a process without the package
    raise ImportError(
        "Pydantic AI is not installed: pip install 'agents-eventlog[pydantic-ai]'"
    ) from error

from agents_eventlog.adapters.pydantic_ai.conversation import Conversation, Run

__all__ = ["Conversation", "Run"]
