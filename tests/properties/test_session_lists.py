"""A list of sessions is what a plain look at the fold's sessions gives, whatever is asked."""

from __future__ import annotations

import json
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents_eventlog.eventlog.storage.sqlite import schema
from agents_eventlog.projections import Conversations, Usage
from agents_eventlog.projections.reference import fold
from agents_eventlog.projections.sessions import filters
from agents_eventlog.projections.sessions import queries as session_queries
from tests.history import START, build, empty
from tests.properties.profiles import examples
from tests.properties.strategies import METADATA, histories

if TYPE_CHECKING:
    from agents_eventlog.eventlog import RecordedEvent
    from agents_eventlog.projections.reference import Session

BOTH = (Conversations(), Usage())
TIMES = st.none() | st.integers(0, 32).map(
    lambda position: datetime.fromtimestamp(0, UTC) + timedelta(microseconds=START + position)
)
ASKED = st.fixed_dictionaries(
    {
        "user_id": st.none() | st.sampled_from(["alice", "bob"]),
        "metadata": METADATA,
        "created_after": TIMES,
        "created_before": TIMES,
        "updated_after": TIMES,
        "updated_before": TIMES,
        "text": st.none() | st.sampled_from(["HELL", "hi", "sun"]),
        "min_items": st.none() | st.integers(0, 4),
        "deleted": st.booleans(),
        "order_by": st.sampled_from(["updated_at", "created_at"]),
        "reverse": st.booleans(),
    }
)
FILTERED_BY = st.lists(st.sampled_from(sorted(filters.SessionFilters.__annotations__)), max_size=2)


@given(histories(), ASKED, FILTERED_BY, st.sampled_from([-1, 1, 2_000]), st.integers(1, 3))
@examples(80)
def test_a_list_read_page_by_page_is_what_the_fold_says(
    events: list[RecordedEvent], asked: dict[str, Any], kept: list[str], few: int, size: int
) -> None:
    for name in filters.SessionFilters.__annotations__.keys() - set(kept):
        asked[name] = None
    tx = empty(BOTH)
    with closing(tx.connection), pytest.MonkeyPatch.context() as patch:
        tx.execute(schema.CHECKPOINTS)
        tx.execute(
            "CREATE TABLE events "
            "(position INTEGER PRIMARY KEY AUTOINCREMENT, type TEXT, schema_version INTEGER, data TEXT)"
        )
        tx.executemany(
            "INSERT INTO events VALUES (?, ?, ?, CAST(? AS TEXT))",
            [(each.position, each.type, each.schema_version, each.data) for each in events],
        )
        patch.setattr(session_queries, "FEW", few)
        patch.setattr(session_queries, "SCANNED_AT_ONCE", 1)
        build(tx, BOTH, events)
        assert listed(tx, asked, size) == meant(fold(events).sessions, asked, events)


def listed(tx: Any, asked: dict[str, Any], size: int) -> list[str]:
    """Return the ids of a list, read in pages of a size by their cursors."""
    found: list[str] = []
    after: str | None = None
    while True:
        query = filters.parse(**asked, limit=size, after=after)
        page, place = session_queries.page(tx, query)
        assert len(page) <= size
        found += [session.session_id for session in page]
        if place is None:
            return found
        after = filters.cursor(query.order_by, place)


# -- the same, said simply ----------------------------------------------------------------------


def meant(
    folded: dict[str, Session], asked: dict[str, Any], events: list[RecordedEvent]
) -> list[str]:
    """Return what should be listed."""
    texts = {(event.position, index): item for event in events for index, item in items_of(event)}
    matching = [name for name, session in folded.items() if matches(session, asked, texts)]
    newest_first = sorted(
        matching, key=lambda name: (-getattr(folded[name], asked["order_by"]), name)
    )
    return newest_first[::-1] if asked["reverse"] else newest_first


def items_of(event: RecordedEvent) -> Any:
    return enumerate(json.loads(event.data or b"{}").get("items", []))


def matches(session: Session, asked: dict[str, Any], texts: dict[tuple[int, int], Any]) -> bool:
    bounds = [
        (session.created_at, asked["created_after"], asked["created_before"]),
        (session.updated_at, asked["updated_after"], asked["updated_before"]),
    ]
    for time, after, before in bounds:
        at = datetime.fromtimestamp(0, UTC) + timedelta(microseconds=time)
        if (after is not None and at < after) or (before is not None and at >= before):
            return False
    return (
        asked["deleted"] is (session.deleted_at is not None)
        and asked["user_id"] in (None, session.user_id)
        and session.item_count >= (asked["min_items"] or 0)
        and holds(session.metadata or {}, asked["metadata"] or {})
        and (asked["text"] is None or says(session, asked["text"], texts))
    )


def holds(metadata: Any, wanted: dict[str, Any]) -> bool:
    """Whether each wanted leaf is in the metadata."""
    return all(
        isinstance(metadata, dict)
        and key in metadata
        and (
            holds(metadata[key], value)
            if isinstance(value, dict) and value
            else same(metadata[key], value)
        )
        for key, value in wanted.items()
    )


def same(left: Any, right: Any) -> bool:
    """Whether two values are equal as JSON: Python takes True for 1."""
    return bool(left == right) and isinstance(left, bool) == isinstance(right, bool)


def says(session: Session, text: str, texts: dict[tuple[int, int], Any]) -> bool:
    return any(
        text.lower() in str(texts[item.ref.position, item.ref.index].get("content")).lower()
        for branch in session.branches.values()
        for item in branch.items
        if item.kind.type in ("user", "assistant")
    )
