"""An append-only log of conversation events in one SQLite file: append, read, verify, export, import."""

from agents_eventlog.eventlog import errors
from agents_eventlog.eventlog.appender import append
from agents_eventlog.eventlog.appending import AppendResult
from agents_eventlog.eventlog.cipher.key_store import KeyCounts, KeyDatabase, KeyEpoch, KeyFile
from agents_eventlog.eventlog.cipher.keys import Destroyed, Key, Keys, LogKeys
from agents_eventlog.eventlog.cipher.root import Root, RootKey, generate_root_key
from agents_eventlog.eventlog.errors import EventLogError
from agents_eventlog.eventlog.events import (
    BranchCreated,
    BranchDeleted,
    BranchSwitched,
    ContentErased,
    Event,
    ExpirySet,
    ForkCreated,
    ForkedItems,
    HistoryImported,
    ItemPopped,
    ItemRedacted,
    ItemRef,
    ItemsAdded,
    ItemsReplaced,
    ItemsWithheld,
    MetadataSet,
    RequestUsage,
    SessionCleared,
    SessionDeleted,
    SessionForked,
    SessionRestored,
    TurnRedone,
    TurnUndone,
    UsageCorrected,
    UsageCorrection,
    UsageRecorded,
)
from agents_eventlog.eventlog.integrity import Finding, Head, Verification
from agents_eventlog.eventlog.jsonl.export import ExportProgress, export_lines
from agents_eventlog.eventlog.jsonl.import_ import ImportResult, import_lines
from agents_eventlog.eventlog.log import Backup, EventLog
from agents_eventlog.eventlog.proofs.checking import (
    Consistency,
    ProvenSession,
    check_consistency,
    check_proof,
)
from agents_eventlog.eventlog.proofs.checkpoint import SignedHead
from agents_eventlog.eventlog.proofs.signing import SigningKey, generate_signing_key
from agents_eventlog.eventlog.recorded_event import RecordedEvent
from agents_eventlog.eventlog.recording_context import recording
from agents_eventlog.eventlog.storage.engines import configure
from agents_eventlog.eventlog.storage.transaction import Transaction

__all__ = [
    "AppendResult",
    "Backup",
    "BranchCreated",
    "BranchDeleted",
    "BranchSwitched",
    "Consistency",
    "ContentErased",
    "Destroyed",
    "Event",
    "EventLog",
    "EventLogError",
    "ExpirySet",
    "ExportProgress",
    "Finding",
    "ForkCreated",
    "ForkedItems",
    "Head",
    "HistoryImported",
    "ImportResult",
    "ItemPopped",
    "ItemRedacted",
    "ItemRef",
    "ItemsAdded",
    "ItemsReplaced",
    "ItemsWithheld",
    "Key",
    "KeyCounts",
    "KeyDatabase",
    "KeyEpoch",
    "KeyFile",
    "Keys",
    "LogKeys",
    "MetadataSet",
    "ProvenSession",
    "RecordedEvent",
    "RequestUsage",
    "Root",
    "RootKey",
    "SessionCleared",
    "SessionDeleted",
    "SessionForked",
    "SessionRestored",
    "SignedHead",
    "SigningKey",
    "Transaction",
    "TurnRedone",
    "TurnUndone",
    "UsageCorrected",
    "UsageCorrection",
    "UsageRecorded",
    "Verification",
    "append",
    "check_consistency",
    "check_proof",
    "configure",
    "errors",
    "export_lines",
    "generate_root_key",
    "generate_signing_key",
    "import_lines",
    "recording",
]

if __name__ != "agents_eventlog.eventlog":  # or every module here would be loaded a second time
    raise ImportError("import agents_eventlog.eventlog: this folder is a part of that package")
