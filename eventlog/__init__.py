"""An append-only log of conversation events, in one table."""

from agents_eventlog.eventlog import errors
from agents_eventlog.eventlog.appender import append
from agents_eventlog.eventlog.appending import Appended
from agents_eventlog.eventlog.errors import EventLogError
from agents_eventlog.eventlog.events import (
    BranchCreated,
    BranchDeleted,
    BranchSwitched,
    ContentErased,
    Event,
    HistoryImported,
    ItemPopped,
    ItemRef,
    ItemsAdded,
    ItemsReplaced,
    MetadataSet,
    RequestUsage,
    SessionCleared,
    SessionDeleted,
    SessionRestored,
    UsageCorrected,
    UsageCorrection,
    UsageRecorded,
)
from agents_eventlog.eventlog.integrity import Finding, Head, Verified
from agents_eventlog.eventlog.jsonl.export import Exported, export_lines
from agents_eventlog.eventlog.jsonl.import_ import Imported, import_lines
from agents_eventlog.eventlog.log import EventLog
from agents_eventlog.eventlog.recorded_event import Recorded
from agents_eventlog.eventlog.recording_context import recording
from agents_eventlog.eventlog.storage.sqlite.registry import configure
from agents_eventlog.eventlog.storage.transaction import Transaction

__all__ = [
    "Appended",
    "BranchCreated",
    "BranchDeleted",
    "BranchSwitched",
    "ContentErased",
    "Event",
    "EventLog",
    "EventLogError",
    "Exported",
    "Finding",
    "Head",
    "HistoryImported",
    "Imported",
    "ItemPopped",
    "ItemRef",
    "ItemsAdded",
    "ItemsReplaced",
    "MetadataSet",
    "Recorded",
    "RequestUsage",
    "SessionCleared",
    "SessionDeleted",
    "SessionRestored",
    "Transaction",
    "UsageCorrected",
    "UsageCorrection",
    "UsageRecorded",
    "Verified",
    "append",
    "configure",
    "errors",
    "export_lines",
    "import_lines",
    "recording",
]

if __name__ != "agents_eventlog.eventlog":  # or every module here would be loaded a second time
    raise ImportError("import agents_eventlog.eventlog: this folder is a part of that package")
