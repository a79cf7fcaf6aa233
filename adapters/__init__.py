"""Who talks to the log: the session for the OpenAI Agents SDK, and the command line."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from adapters.log import ConversationLog
    from adapters.openai_agents import AdvancedSQLiteSession, EventLogSession

__all__ = ["AdvancedSQLiteSession", "ConversationLog", "EventLogSession"]


def __getattr__(name: str) -> Any:
    """Import what is asked for when it is first asked for: the SDK takes long to import."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from adapters import log, openai_agents

    module = log if name == "ConversationLog" else openai_agents
    globals()[name] = found = getattr(module, name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
