"""
A checkpointer for LangGraph on an event log.

    from agents_eventlog.adapters.langgraph import EventLogSaver

It needs the extra ``langgraph``, and does not import the OpenAI Agents SDK.
"""

try:
    import langgraph.checkpoint.base as _langgraph  # noqa: F401 - first, for its absence to be named
except ImportError as error:  # pragma: no cover - a test runs it in a process without the package
    raise ImportError(
        "LangGraph is not installed: pip install 'agents-eventlog[langgraph]'"
    ) from error

from agents_eventlog.adapters.langgraph.saver import EventLogSaver

__all__ = ["EventLogSaver"]
