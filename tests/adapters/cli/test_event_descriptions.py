"""Each kind of event has its words."""

from __future__ import annotations

import pytest

from agents_eventlog.adapters.conversations import event_descriptions
from agents_eventlog.eventlog import (
    BranchCreated,
    BranchDeleted,
    BranchSwitched,
    ContentErased,
    Event,
    EventLog,
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
    TurnRedone,
    TurnUndone,
    UsageCorrected,
    UsageCorrection,
    UsageRecorded,
)
from agents_eventlog.eventlog.events import (
    EVENT_TYPES,
    ExpirySet,
    ForkCreated,
    ForkedItems,
    ItemRedacted,
    ItemsWithheld,
    SessionForked,
)

ITEM = ItemRef(3, 0)
REQUEST = RequestUsage(total_tokens=602, cost_usd=0.00155)
ACCOUNTS: list[tuple[Event, str]] = [
    (ItemsAdded(items=["one"]), "added"),
    (ItemsAdded(items=["one", "two"]), "added 2 items"),
    (ItemPopped(item=ITEM), "popped an item"),
    (ItemsReplaced(first_item=None, items=[1, 2]), "replaced 0 items by 2"),
    (TurnUndone(turn=2, removed=[ITEM]), "undid turn 2 with 1 item"),
    (TurnRedone(turn=2, undone_version=4, items=[1, 2]), "redid turn 2 with 2 items"),
    (
        BranchCreated(branch_id="b", from_branch_id="main", last_item=ITEM, before_turn=2),
        "branched 'b' from main before turn 2",
    ),
    (
        BranchCreated(branch_id="b", from_branch_id="main", last_item=None),
        "branched 'b' from main at its end",
    ),
    (BranchSwitched(from_branch_id="main", branch_id="b"), "switched from main to b"),
    (BranchDeleted(branch_id="b"), "deleted branch 'b' with 0 items"),
    (SessionCleared(), "cleared 0 items on 0 branches"),
    (SessionCleared(expired=True), "cleared 0 items on 0 branches: the session had expired"),
    (ExpirySet(expires_after_seconds=86_400), "set the session to expire after 1d without use"),
    (ExpirySet(expires_after_seconds=None), "set the session to never expire"),
    (SessionDeleted(reason="asked to"), "deleted the session with 0 items: asked to"),
    (
        MetadataSet(user_id="alice", metadata={"plan": "pro"}),
        "set user id 'alice'; metadata plan",
    ),
    (
        UsageRecorded(run_id="r", turn=1, requests=[REQUEST] * 2),
        "recorded 2 requests, 1,204 tokens, $0.003100",
    ),
    (SessionRestored(), "restored the session"),
    (
        UsageCorrected(
            requests=[UsageCorrection(request=ItemRef(3, 0), cost_usd=0.1)], reason="new prices"
        ),
        "corrected the usage of 1 request: new prices",
    ),
    (
        ItemRedacted(item=ItemRef(3, 1), items=[], reason="a name"),
        "redacted item 1 at position 3: a name",
    ),
    (
        ItemsWithheld(position=3, items=[{}, {}]),
        "replaced 2 items at position 3 by placeholders, for forks",
    ),
    (
        SessionForked(
            from_session_id="s",
            from_branch_id="b",
            origins=[ForkedItems(session_id="s", items=[(3, 0, 0), (3, 1, 0)])],
            kinds=[{}],
        ),
        "forked from session 's', b, with 2 items",
    ),
    (ForkCreated(session_id="copy", branch_id="b"), "forked b into session 'copy'"),
    (ContentErased(positions=[4]), "erased the content of 1 event"),
    (HistoryImported(source="sdk", counts={"items": 3}), "imported from sdk: 3 items"),
]


@pytest.mark.parametrize(("event", "words"), ACCOUNTS)
async def test_an_event_is_told_in_words(event: Event, words: str) -> None:
    async with EventLog.open(":memory:") as log:
        await log.append("talk", event)
        (recorded,) = [each async for each in log.read("talk")]
    assert event_descriptions.describe_event(recorded, None).account == words


def test_every_kind_of_event_has_an_example_here() -> None:
    assert {type(event) for event, _ in ACCOUNTS} == set(EVENT_TYPES.values())
