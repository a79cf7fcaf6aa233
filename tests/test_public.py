"""The public surface: what may be imported, and that it suffices."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agents_eventlog.eventlog import errors

ROOT = Path(__file__).parent.parent

PUBLIC = {
    "agents_eventlog": """
        AdvancedSQLiteSession Budget ConversationLog EventLog EventLogError EventLogSession KeyDatabase
        KeyFile OnlyPrices Price RootKey TablePair UsageHooks export_sdk_file generate_root_key import_file
        recording replay
    """,
    "agents_eventlog.eventlog": """
        AppendResult Backup BranchCreated BranchDeleted BranchSwitched ContentErased Destroyed Event
        EventLog EventLogError
        ForkCreated ForkedItems ItemsWithheld SessionForked
        ExportProgress Finding Head HistoryImported ImportResult ItemPopped ItemRedacted
        ItemRef ItemsAdded ItemsReplaced
        Key KeyCounts KeyDatabase KeyEpoch KeyFile Keys LogKeys
        MetadataSet RecordedEvent RequestUsage Root RootKey SessionCleared SessionDeleted SessionRestored
        Transaction
        TurnRedone TurnUndone
        UsageCorrected UsageCorrection UsageRecorded Verification append configure errors export_lines
        generate_root_key import_lines recording
        Consistency ProvenSession SignedHead SigningKey check_consistency check_proof generate_signing_key
    """,
    "agents_eventlog.projections": """
        Conversations Difference ErasureResult Progress Projection Projections ReplayResult Search
        SessionFilters Usage Views default items_as_of kept replay
    """,
    "agents_eventlog.adapters": """
        AdvancedSQLiteSession BranchComparison BranchNode BranchRequest BranchRow Budget BudgetUsage
        Census CensusOfType ComparedTurn ConversationLog Deletion EventLogSession Fork ItemFilters ItemHit
        ItemPlaces ItemRow OnlyPrices OutlineTurn Price Prices
        Redaction RepriceResult Retention SDKExport SearchResults SessionRow SessionUsage
        Sibling StoredMetadata SyncSession TablePair TimelineItem TimelineRow ToolCounts ToolFilters
        TranscriptRow TurnRow TurnSide TurnUsage UsageGroup UsageHooks UsageOfTurn UsageStats
        export_sdk_file import_file
    """,
    "agents_eventlog.adapters.langgraph": "EventLogSaver",
    "agents_eventlog.adapters.pydantic_ai": "Conversation Run",
    "agents_eventlog.testing": """
        Answer ScriptedModel UnexpectedModelCall call reply together tokens
    """,
}
"""The names that each public module exports. A change here is a change for users: see CHANGELOG.md."""

ERRORS = "agents_eventlog.eventlog.errors"

# Internal types in public signatures, whose values users get and pass on but need not name.
# "Checkpoint" is LangGraph's there, which has the name of an internal class.
UNNAMED = {"Checkpoint", "Engine", "Opening", "Projector", "Store"}


def exported() -> Iterator[tuple[str, Any]]:
    for module, names in PUBLIC.items():
        for name in names.split():
            yield f"{module}.{name}", getattr(importlib.import_module(module), name)


def callables() -> Iterator[tuple[str, Any]]:
    """Yield the public functions, and the public methods and properties that our classes define."""
    for name, value in exported():
        if inspect.isfunction(value):
            yield name, value
        for base in value.__mro__ if inspect.isclass(value) else ():
            if not base.__module__.startswith("agents_eventlog"):
                continue
            for member, raw in vars(base).items():
                function = raw.fget if isinstance(raw, property) else getattr(raw, "__func__", raw)
                if not member.startswith("_") and inspect.isfunction(function):
                    yield f"{name}.{member}", function


@pytest.mark.parametrize("module", PUBLIC)
def test_a_face_exports_exactly_the_public_names(module: str) -> None:
    assert sorted(importlib.import_module(module).__all__) == sorted(PUBLIC[module].split())


def test_every_public_name_has_a_docstring() -> None:
    undocumented = [
        name
        for name, value in [*exported(), *callables(), *vars(errors).items()]
        if (callable(value) or inspect.ismodule(value)) and not value.__doc__
        if not name.startswith("_")
    ]
    assert undocumented == []


def test_every_class_that_a_public_signature_names_is_public() -> None:
    ours = {
        node
        for part in ("eventlog", "projections", "adapters")
        for file in (ROOT / part).rglob("*.py")
        for node in re.findall(r"^class (\w+)", file.read_text(encoding="utf-8"), re.MULTILINE)
    }
    public = {name.rpartition(".")[2] for name, _ in exported()} | set(vars(errors)) | UNNAMED
    missing = {
        f"{name}: {word}"
        for name, function in callables()
        if ".Transaction." not in name and ".Projections." not in name
        for word in re.findall(r"\b[A-Z]\w+", str(inspect.signature(function)))
        if word in ours - public
    }
    assert missing == set()


@pytest.mark.parametrize("manual", [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))])
def test_manuals_name_only_what_is_public(manual: Path) -> None:
    text = manual.read_text(encoding="utf-8")
    imported = {
        f"{module}.{name}"
        for module, names in re.findall(r"from (agents_eventlog[\w.]*) import ([\w, ]+)", text)
        for name in names.split(", ")
    }
    named = imported | set(re.findall(r"(?<!from )\bagents_eventlog(?:\.\w+)+", text))
    public = {*PUBLIC, *(name for name, _ in exported())}
    public |= {f"{ERRORS}.{name}" for name in vars(errors)}
    assert named - public == set()
