"""An event of each type with every field set, as its golden file has it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agents_eventlog.eventlog import (
    BranchCreated,
    BranchDeleted,
    BranchSwitched,
    ContentErased,
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

if TYPE_CHECKING:
    from agents_eventlog.eventlog import Event

REQUEST = RequestUsage(
    requests=2,
    input_tokens=120,
    output_tokens=45,
    total_tokens=165,
    cached_input_tokens=100,
    cache_write_tokens=7,
    reasoning_tokens=30,
    input_tokens_details={"cached_tokens": 100, "cache_write_tokens": 7},
    output_tokens_details={"reasoning_tokens": 30},
    response_id="resp_1",
    model="gpt-5",
    agent="Assistant",
    cost_usd=0.00125,
    price_source="table of 2026-01",
)
EVENTS: list[Event] = [
    ItemsAdded(
        items=[
            {"role": "user", "content": "Grüße, 世界 🍕"},
            {"type": "function_call", "name": "look", "arguments": '{"a": 1}', "n": None},
            [1, -2, 0.5, True, {"deep": []}],
        ]
    ),
    ItemPopped(item=ItemRef(12, 3), emptied_turn=4),
    ItemsReplaced(first_item=ItemRef(5, 0), items=[{"type": "compaction"}]),
    TurnUndone(turn=3, removed=[ItemRef(5, 1), ItemRef(6, 0)]),
    TurnRedone(turn=3, undone_version=7, items=[{"role": "user", "content": "again"}]),
    ItemRedacted(
        item=ItemRef(8, 1),
        items=[{"role": "user", "content": "hello"}, {"role": "user", "content": "[redacted]"}],
        reason="a card number",
    ),
    BranchCreated(
        branch_id="branch_from_turn_2_1700000000",
        from_branch_id="main",
        last_item=ItemRef(3, 1),
        before_turn=2,
        generated=True,
    ),
    BranchSwitched(from_branch_id="main", branch_id="draft"),
    BranchDeleted(branch_id="draft"),
    SessionCleared(expired=True),
    ExpirySet(expires_after_seconds=2_592_000),
    SessionDeleted(reason="asked to"),
    SessionRestored(),
    MetadataSet(
        user_id="alice",
        metadata={"plan": "free", "tags": ["a", "b"]},
        salt="0123456789abcdef0123456789abcdef",
    ),
    UsageRecorded(
        run_id="run_1", turn=3, requests=[REQUEST, RequestUsage(total_tokens=1)], interrupted=True
    ),
    UsageCorrected(
        requests=[
            UsageCorrection(
                request=ItemRef(4, 1),
                response_id="resp_2",
                model="gpt-5-mini",
                agent="Helper",
                cost_usd=0.0005,
                price_source="table of 2026-02",
            ),
            UsageCorrection(request=ItemRef(9, 0), cost_usd=0.0),
        ],
        reason="prices of 2026-02",
    ),
    ContentErased(
        positions=[3, 5],
        reason="asked to",
        structures=[{"items": [{"role": "user"}]}, {}],
        payload_bytes=1_234,
        is_whole=True,
        pseudonym="erased-0123456789abcdef",
        key_ids=["718466670e71f8846dd6c505d9cf03da944e74411ec1043f8d63959fd24f631f"],
        expired_version=7,
    ),
    HistoryImported(source="sqlite_session", counts={"sessions": 1, "items": 20}),
    SessionForked(
        from_session_id="talk",
        from_branch_id="draft",
        origins=[
            ForkedItems(session_id="older", items=[(3, 0, 0)]),
            ForkedItems(session_id="talk", items=[(7, 0, 0), (7, 1, 1)]),
        ],
        kinds=[{"role": "user"}, {"type": "function_call", "name": "look"}],
    ),
    ForkCreated(session_id="talk-2", branch_id="draft"),
    ItemsWithheld(position=7, items=[{"role": "user", "content": "[redacted]"}], reason="asked to"),
]

OLDER: dict[str, Event] = {
    "metadata_set.v1": MetadataSet(user_id="alice", metadata={"plan": "free", "tags": ["a", "b"]}),
    "content_erased.v1": ContentErased(positions=[3, 5], reason="asked to"),
    "content_erased.v2": ContentErased(
        positions=[3, 5],
        reason="asked to",
        structures=[{"items": [{"role": "user"}]}, {}],
        payload_bytes=1_234,
        is_whole=True,
    ),
    "content_erased.v3": ContentErased(
        positions=[3, 5],
        reason="asked to",
        structures=[{"items": [{"role": "user"}]}, {}],
        payload_bytes=1_234,
        is_whole=True,
        pseudonym="erased-0123456789abcdef",
    ),
    "content_erased.v4": ContentErased(
        positions=[3, 5],
        reason="asked to",
        structures=[{"items": [{"role": "user"}]}, {}],
        payload_bytes=1_234,
        is_whole=True,
        pseudonym="erased-0123456789abcdef",
        key_ids=["718466670e71f8846dd6c505d9cf03da944e74411ec1043f8d63959fd24f631f"],
    ),
    "session_cleared.v1": SessionCleared(),
}
"""What the golden files of earlier schema versions mean now."""
