"""Who talks to the log: the session for the OpenAI Agents SDK, and the command line."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from adapters.hooks import UsageHooks
    from adapters.log import ConversationLog
    from adapters.openai_agents import AdvancedSQLiteSession, EventLogSession
    from adapters.pricing import Price
    from adapters.sdk_files import import_file
    from adapters.sdk_tables import TablePair

__all__ = [
    "AdvancedSQLiteSession",
    "ConversationLog",
    "EventLogSession",
    "Price",
    "TablePair",
    "UsageHooks",
    "import_file",
]

_MODULES = {
    "ConversationLog": "log",
    "Price": "pricing",
    "TablePair": "sdk_tables",
    "UsageHooks": "hooks",
    "import_file": "sdk_files",
}


def __getattr__(name: str) -> Any:
    """Import what is asked for when it is first asked for: the SDK takes long to import."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = import_module(f"adapters.{_MODULES.get(name, 'openai_agents')}")
    globals()[name] = found = getattr(module, name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
