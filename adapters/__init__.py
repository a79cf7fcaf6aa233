"""Who talks to the log: the session for the OpenAI Agents SDK, and the command line."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from adapters.openai_agents import AdvancedSQLiteSession, EventLogSession

__all__ = ["AdvancedSQLiteSession", "EventLogSession"]


def __getattr__(name: str) -> Any:
    """Import the session when it is first asked for: the SDK takes long to import."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from adapters import openai_agents

    globals()[name] = found = getattr(openai_agents, name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
