"""What a log keeps up to date with each append is what a replay gives, and what the fold says."""

from __future__ import annotations

import tempfile
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from agents_eventlog import projections
from agents_eventlog.eventlog import (
    EventLog,
)
from agents_eventlog.eventlog.appender import read_events
from agents_eventlog.eventlog.cursor import Cursor
from agents_eventlog.projections import replay
from agents_eventlog.projections.base import names
from agents_eventlog.projections.conversations import branch_tree
from agents_eventlog.projections.conversations import queries as conversation_queries
from agents_eventlog.projections.reference import fold
from tests.history import meant, seen, stored
from tests.properties.profiles import examples
from tests.properties.strategies import contents, histories
from tests.properties.writing import BOTH, rows, write

if TYPE_CHECKING:
    from agents_eventlog.eventlog import RecordedEvent, Transaction


def opened(path: Path) -> EventLog:
    """Open a log with the default projections."""
    return EventLog.open_sync(path, projections=projections.default(), durability="normal")


@given(st.lists(st.tuples(histories(max_size=6), st.booleans()), min_size=1, max_size=5))
@examples(40)
def test_inline_equals_replay_equals_fold(units: list[tuple[list[RecordedEvent], bool]]) -> None:
    with tempfile.TemporaryDirectory() as folder, closing(opened(Path(folder) / "l.db")) as log:
        for events, fails in units:
            write(log, events, fails=fails)
        inline = rows(log)
        assert log.store.read_sync(seen) == meant(fold(stored(log)))
        different: list[object] = []
        replay(log, BOTH, check=True, on_difference=different.append)
        assert different == []
        replay(log, BOTH)
        assert rows(log) == inline
        replay(log, BOTH)
        assert rows(log) == inline


@given(histories(), histories(max_size=5))
@examples(25)
def test_dropped_tables_come_back_byte_for_byte(
    events: list[RecordedEvent], later: list[RecordedEvent]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "l.db"
        with closing(opened(path)) as log:
            for recorded in events:
                write(log, [recorded])
            before = rows(log)
        with closing(EventLog.open_sync(path, durability="normal")) as log:
            log.store.write_sync(forget)
        with closing(opened(path)) as log:
            assert rows(log) == before
            write(log, later)
            assert log.store.read_sync(seen) == meant(fold(stored(log)))


def forget(tx: Transaction) -> None:
    """Drop the projections' tables and views, and their checkpoints."""
    for projection in projections.default().named([]):
        for name in reversed(names(tx.engine, projection)):
            tx.engine.drop(tx, name)
    tx.execute("DELETE FROM checkpoints")


@given(histories(), histories(max_size=8), st.booleans())
@examples(25)
def test_what_a_program_without_projections_appends_is_caught_up_with(
    events: list[RecordedEvent], others: list[RecordedEvent], again: bool
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "l.db"
        with closing(opened(path)) as log:
            write(log, events)
        with closing(EventLog.open_sync(path, durability="normal")) as plain:
            write(plain, others)
        with closing(opened(path)) as log:
            if again:
                write(log, events[:3])
            assert log.store.read_sync(seen) == meant(fold(stored(log)))


@given(histories(max_size=40), st.integers(0, 5))
@examples(25)
def test_readers_give_the_items_that_the_fold_says_whole_and_the_newest(
    events: list[RecordedEvent], newest: int
) -> None:
    def read(tx: Transaction) -> None:
        stored_events = read_events(tx, Cursor(tx.engine.lanes))
        content = contents(stored_events)
        for session_id, session in fold(stored_events).sessions.items():
            for branch_id, branch in session.branches.items():
                refs = [item.ref for item in branch.items]
                expected = [content[ref.position][ref.index] for ref in refs]
                place = conversation_queries.place(tx, session_id, branch_id)
                if session.deleted_at is not None:
                    assert (place.is_deleted, place.branch_exists) == (True, False)
                    continue
                assert place.branch_exists == branch.is_live
                assert place.turn == branch.turn
                assert conversation_queries.refs(tx, place.pointer) == refs
                assert repr(conversation_queries.items(tx, place.pointer)) == repr(expected)
                last = expected[len(expected) - newest :] if newest < len(expected) else expected
                assert repr(conversation_queries.items(tx, place.pointer, newest)) == repr(last)
                for number, item in enumerate(branch.items, start=1):
                    found = branch_tree.find(tx, place.pointer, item.ref)
                    assert found == branch_tree.at_length(tx, place.pointer, number)

    with tempfile.TemporaryDirectory() as folder, closing(opened(Path(folder) / "l.db")) as log:
        write(log, events)
        log.store.read_sync(read)
