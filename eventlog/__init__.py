"""An append-only log of what happens to conversations, in one SQLite table."""

from eventlog import errors
from eventlog.appending import Appended
from eventlog.context import recording
from eventlog.errors import EventLogError
from eventlog.events import (
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
from eventlog.exporting import Exported, export_lines
from eventlog.importing import Imported, import_lines
from eventlog.integrity import Finding, Head, Verified
from eventlog.ledger import append
from eventlog.log import EventLog
from eventlog.recorded import Recorded
from eventlog.transaction import Transaction

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
    "errors",
    "export_lines",
    "import_lines",
    "recording",
]
