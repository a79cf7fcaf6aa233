"""Whatever is erased, whenever: tables, replay and fold agree, and what is live stays as it was."""

from __future__ import annotations

import asyncio
import tempfile
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hypothesis import given
from hypothesis import strategies as st

from agents_eventlog import ConversationLog, projections
from agents_eventlog.eventlog import export_lines, import_lines
from agents_eventlog.eventlog.appender import read_events
from agents_eventlog.eventlog.cursor import Cursor
from agents_eventlog.eventlog.errors import ConversationError
from agents_eventlog.eventlog.item_kind import classify, smallest
from agents_eventlog.projections import replay
from agents_eventlog.projections.conversations import queries as conversation_queries
from agents_eventlog.projections.reference import State, fold
from tests.history import meant, seen, stored
from tests.history import recorded as recorded_as
from tests.properties.profiles import examples
from tests.properties.strategies import ERASURES, SESSION_IDS, histories, sensible
from tests.properties.writing import BOTH, rows, write

if TYPE_CHECKING:
    from agents_eventlog.eventlog import EventLog, RecordedEvent, Transaction
    from tests.properties.strategies import Erasure

WORDS = st.none() | st.integers() | st.text(max_size=5) | st.sampled_from(["user", "mcp_call"])
ANY_ITEM = WORDS | st.dictionaries(
    st.sampled_from(
        ["role", "type", "name", "namespace", "server_label", "approval_request_id", "content"]
    ),
    WORDS | st.lists(WORDS, max_size=2),
)


def opened(path: Path) -> ConversationLog:
    return ConversationLog.open_sync(path, projections=projections.default(), durability="normal")


def erase(log: ConversationLog, what: Erasure) -> None:
    """Erase what is asked for; a session that there is not is none to erase."""
    with suppress(ConversationError):
        assert asyncio.run(log.erase(**what)).is_complete


def live_contents(tx: Transaction) -> dict[tuple[str, str], str]:
    """Return the items of each live branch of each session that is not deleted, as text."""
    return {
        (session_id, branch_id): repr(conversation_queries.items(tx, place.pointer))
        for session_id, branch_id in tx.all("SELECT session_id, branch_id FROM branches")
        if (place := conversation_queries.place(tx, session_id, branch_id)).branch_exists
    }


def check(log: EventLog) -> None:
    """Check that the tables are what a replay and the fold say, and that the chain is whole."""
    assert log.store.read_sync(seen) == meant(fold(stored(log)))
    different: list[Any] = []
    replay(log, BOTH, check=True, on_difference=different.append)
    assert [str(each) for each in different] == []
    assert asyncio.run(log.verify()).ok


@given(ANY_ITEM)
@examples(100)
def test_the_structure_of_an_item_has_its_shape_and_nothing_else_of_it(item: Any) -> None:
    kept = smallest(classify(item))
    assert classify(kept) == classify(item)
    assert kept.keys() <= {"role", "type", "name", "approval_request_id"}


class Grown:
    """A log that sensible programs write to, one after what the one before left."""

    def __init__(self, log: ConversationLog, data: st.DataObject) -> None:
        self.log = log
        self.data = data

    def grow(self, events: int, session_ids: st.SearchStrategy[str] = SESSION_IDS) -> None:
        """Do something that the present allows, so many times."""
        state, cursor = State(), Cursor(self.log.store.engine.lanes)
        for _ in range(events):
            for recorded in self.log.store.read_sync(partial(read_events, cursor=cursor)):
                state.apply(recorded)
                cursor.advance((recorded.position,))
            session_id = self.data.draw(session_ids)
            entry = self.data.draw(sensible(state.sessions.get(session_id), session_id))
            write(self.log, [recorded_as(1, 1, entry)])


@given(st.data())
@examples(20)
def test_after_erasing_inline_equals_replay_equals_fold(data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder, closing(opened(Path(folder) / "l.db")) as log:
        grown = Grown(log, data)
        for events in data.draw(st.lists(st.integers(1, 12), min_size=1, max_size=3)):
            grown.grow(events)
            before = log.store.read_sync(live_contents)
            what = data.draw(ERASURES)
            erase(log, what)
            after = log.store.read_sync(live_contents)
            gone = what.get("session_id")
            assert after == {key: before[key] for key in before if key[0] != gone}
        grown.grow(2)
        check(log)
        inline = rows(log)
        replay(log, BOTH)
        assert rows(log) == inline


@given(histories(max_size=12), ERASURES)
@examples(10)
def test_nonsense_is_erased_too(events: list[RecordedEvent], what: Erasure) -> None:
    with tempfile.TemporaryDirectory() as folder, closing(opened(Path(folder) / "l.db")) as log:
        write(log, events)
        erase(log, what)
        check(log)


@given(st.data(), ERASURES)
@examples(12)
def test_an_erased_history_gives_the_same_tables_where_it_is_imported(
    data: st.DataObject, what: Erasure
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        here, there = opened(Path(folder) / "here.db"), opened(Path(folder) / "there.db")
        with closing(here), closing(there):
            grown = Grown(here, data)
            for events in (12, 3):
                # The only session of its log, so that its positions are the same there.
                grown.grow(events, st.just("a"))
                erase(here, what)
            asyncio.run(move(here, there))
            assert rows(there) == rows(here)
            check(there)


async def move(here: EventLog, there: EventLog) -> None:
    lines = [f"{line}\n".encode() async for line in export_lines(here)]
    outcomes = [outcome.outcome async for outcome in import_lines(there, lines)]
    assert set(outcomes) <= {"imported"}
