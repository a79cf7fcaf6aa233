"""The builders give what the fold says, after any history, in batches of any cut."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from agents_eventlog.projections import Conversations, Usage
from agents_eventlog.projections.reference import fold
from tests.history import build, dump, empty, live_refs, meant, seen
from tests.properties.profiles import examples
from tests.properties.strategies import histories

if TYPE_CHECKING:
    from agents_eventlog.eventlog import RecordedEvent

BOTH = (Conversations(), Usage())
CUTS = st.sets(st.integers(1, 29))


@given(histories(nonsense=False), CUTS)
@examples(90)
def test_the_tables_mean_what_the_fold_says(events: list[RecordedEvent], cuts: set[int]) -> None:
    tx = empty(BOTH)
    with closing(tx.connection):
        build(tx, BOTH, events, cuts)
        assert seen(tx) == meant(fold(events))


@given(histories(), CUTS)
@examples(100)
def test_events_that_fit_nothing_mean_the_same_to_tables_and_fold(
    events: list[RecordedEvent], cuts: set[int]
) -> None:
    tx = empty(BOTH)
    with closing(tx.connection):
        build(tx, BOTH, events, cuts)
        assert seen(tx) == meant(fold(events))


@given(histories(), CUTS, CUTS)
@examples(60)
def test_the_cut_into_batches_leaves_no_trace(
    events: list[RecordedEvent], some: set[int], others: set[int]
) -> None:
    one, other = empty(BOTH), empty(BOTH)
    with closing(one.connection), closing(other.connection):
        build(one, BOTH, events, some)
        build(other, BOTH, events, others, forgetful=True)
        assert dump(one, BOTH) == dump(other, BOTH)


@given(histories())
@examples(60)
def test_every_event_applied_alone_gives_what_one_batch_gives(events: list[RecordedEvent]) -> None:
    one, other = empty(BOTH), empty(BOTH)
    with closing(one.connection), closing(other.connection):
        build(one, BOTH, events, range(len(events)))
        build(other, BOTH, events)
        assert dump(one, BOTH) == dump(other, BOTH)


@given(histories(), CUTS)
@examples(90)
def test_what_no_live_branch_reaches_is_gone(events: list[RecordedEvent], cuts: set[int]) -> None:
    tx = empty(BOTH)
    with closing(tx.connection):
        build(tx, BOTH, events, cuts)
        items = tx.all("SELECT position, index_in_event FROM items ORDER BY 1, 2")
        assert items == live_refs(fold(events))
        empty_segments = tx.all(
            "SELECT segment_id FROM segments WHERE segment_id NOT IN (SELECT segment_id FROM items)"
        )
        assert empty_segments == []
