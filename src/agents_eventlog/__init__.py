"""
A conversation log for LLM agents: events, projections, and a session for the OpenAI Agents SDK.

    from agents_eventlog import AdvancedSQLiteSession

Each name is imported when it is first used, because the SDK takes long to import.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from agents_eventlog.adapters import (
        AdvancedSQLiteSession,
        Budget,
        ConversationLog,
        EventLogSession,
        OnlyPrices,
        Price,
        TablePair,
        UsageHooks,
        export_sdk_file,
        import_file,
    )
    from agents_eventlog.eventlog import (
        EventLog,
        EventLogError,
        KeyDatabase,
        KeyFile,
        RootKey,
        generate_root_key,
        recording,
    )
    from agents_eventlog.projections import replay

__all__ = [
    "AdvancedSQLiteSession",
    "Budget",
    "ConversationLog",
    "EventLog",
    "EventLogError",
    "EventLogSession",
    "KeyDatabase",
    "KeyFile",
    "OnlyPrices",
    "Price",
    "RootKey",
    "TablePair",
    "UsageHooks",
    "export_sdk_file",
    "generate_root_key",
    "import_file",
    "recording",
    "replay",
]

_PART_OF = {
    "EventLog": "eventlog",
    "EventLogError": "eventlog",
    "KeyDatabase": "eventlog",
    "KeyFile": "eventlog",
    "RootKey": "eventlog",
    "generate_root_key": "eventlog",
    "recording": "eventlog",
    "replay": "projections",
}


def __getattr__(name: str) -> Any:
    """Import a public name from the part that defines it."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    part = import_module(f"{__name__}.{_PART_OF.get(name, 'adapters')}")
    globals()[name] = found = getattr(part, name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
