"""What applications use: the session for the OpenAI Agents SDK, the conversation log, the command line."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from agents_eventlog.adapters.conversations.audit_trail import TimelineItem, TimelineRow
    from agents_eventlog.adapters.conversations.branch_usage import BranchRequest
    from agents_eventlog.adapters.conversations.branches import BranchNode, Sibling
    from agents_eventlog.adapters.conversations.budgets import Budget, BudgetUsage
    from agents_eventlog.adapters.conversations.census import Census, CensusOfType
    from agents_eventlog.adapters.conversations.comparison import (
        BranchComparison,
        ComparedTurn,
        TurnSide,
        TurnUsage,
    )
    from agents_eventlog.adapters.conversations.forking import Fork
    from agents_eventlog.adapters.conversations.item_places import ItemPlaces
    from agents_eventlog.adapters.conversations.item_search import (
        ItemFilters,
        ItemHit,
        SearchResults,
    )
    from agents_eventlog.adapters.conversations.log import ConversationLog
    from agents_eventlog.adapters.conversations.outline import OutlineTurn
    from agents_eventlog.adapters.conversations.pricing import OnlyPrices, Price, Prices
    from agents_eventlog.adapters.conversations.redaction import Redaction
    from agents_eventlog.adapters.conversations.repricing import RepriceResult
    from agents_eventlog.adapters.conversations.rows import (
        BranchRow,
        ItemRow,
        SessionUsage,
        TurnRow,
        UsageGroup,
        UsageOfTurn,
        UsageStats,
    )
    from agents_eventlog.adapters.conversations.sdk_tables import TablePair
    from agents_eventlog.adapters.conversations.sessions import (
        Deletion,
        Retention,
        SessionRow,
        StoredMetadata,
    )
    from agents_eventlog.adapters.conversations.tools import ToolCounts, ToolFilters
    from agents_eventlog.adapters.conversations.transcript import TranscriptRow
    from agents_eventlog.adapters.openai_agents.advanced_sqlite import AdvancedSQLiteSession
    from agents_eventlog.adapters.openai_agents.hooks import UsageHooks
    from agents_eventlog.adapters.openai_agents.migration.export_file import (
        SDKExport,
        export_sdk_file,
    )
    from agents_eventlog.adapters.openai_agents.migration.import_file import import_file
    from agents_eventlog.adapters.openai_agents.session import EventLogSession
    from agents_eventlog.adapters.openai_agents.sync import SyncSession

__all__ = [
    "AdvancedSQLiteSession",
    "BranchComparison",
    "BranchNode",
    "BranchRequest",
    "BranchRow",
    "Budget",
    "BudgetUsage",
    "Census",
    "CensusOfType",
    "ComparedTurn",
    "ConversationLog",
    "Deletion",
    "EventLogSession",
    "Fork",
    "ItemFilters",
    "ItemHit",
    "ItemPlaces",
    "ItemRow",
    "OnlyPrices",
    "OutlineTurn",
    "Price",
    "Prices",
    "Redaction",
    "RepriceResult",
    "Retention",
    "SDKExport",
    "SearchResults",
    "SessionRow",
    "SessionUsage",
    "Sibling",
    "StoredMetadata",
    "SyncSession",
    "TablePair",
    "TimelineItem",
    "TimelineRow",
    "ToolCounts",
    "ToolFilters",
    "TranscriptRow",
    "TurnRow",
    "TurnSide",
    "TurnUsage",
    "UsageGroup",
    "UsageHooks",
    "UsageOfTurn",
    "UsageStats",
    "export_sdk_file",
    "import_file",
]

_MODULES = {
    "AdvancedSQLiteSession": "openai_agents.advanced_sqlite",
    "BranchComparison": "conversations.comparison",
    "BranchNode": "conversations.branches",
    "BranchRequest": "conversations.branch_usage",
    "BranchRow": "conversations.rows",
    "Budget": "conversations.budgets",
    "BudgetUsage": "conversations.budgets",
    "Census": "conversations.census",
    "CensusOfType": "conversations.census",
    "ComparedTurn": "conversations.comparison",
    "ConversationLog": "conversations.log",
    "Deletion": "conversations.sessions",
    "EventLogSession": "openai_agents.session",
    "Fork": "conversations.forking",
    "ItemFilters": "conversations.item_search",
    "ItemHit": "conversations.item_search",
    "ItemPlaces": "conversations.item_places",
    "ItemRow": "conversations.rows",
    "OutlineTurn": "conversations.outline",
    "OnlyPrices": "conversations.pricing",
    "Price": "conversations.pricing",
    "Prices": "conversations.pricing",
    "Redaction": "conversations.redaction",
    "RepriceResult": "conversations.repricing",
    "Retention": "conversations.sessions",
    "SDKExport": "openai_agents.migration.export_file",
    "SearchResults": "conversations.item_search",
    "SessionRow": "conversations.sessions",
    "SessionUsage": "conversations.rows",
    "Sibling": "conversations.branches",
    "StoredMetadata": "conversations.sessions",
    "SyncSession": "openai_agents.sync",
    "TablePair": "conversations.sdk_tables",
    "TimelineItem": "conversations.audit_trail",
    "TimelineRow": "conversations.audit_trail",
    "ToolCounts": "conversations.tools",
    "ToolFilters": "conversations.tools",
    "TranscriptRow": "conversations.transcript",
    "TurnRow": "conversations.rows",
    "TurnSide": "conversations.comparison",
    "TurnUsage": "conversations.comparison",
    "UsageOfTurn": "conversations.rows",
    "UsageGroup": "conversations.rows",
    "UsageHooks": "openai_agents.hooks",
    "UsageStats": "conversations.rows",
    "export_sdk_file": "openai_agents.migration.export_file",
    "import_file": "openai_agents.migration.import_file",
}


def __getattr__(name: str) -> Any:
    """Import a name when it is first used: the SDK takes long to import."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = import_module(f"{__name__}.{_MODULES[name]}")
    globals()[name] = found = getattr(module, name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


if __name__ != "agents_eventlog.adapters":  # or every module here would be loaded a second time
    raise ImportError("import agents_eventlog.adapters: this folder is a part of that package")
