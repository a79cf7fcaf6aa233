"""Whatever is erased, whenever: tables, replay and fold agree, and what is live stays as it was."""

from __future__ import annotations

import asyncio
import tempfile
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hypothesis import given
from hypothesis import strategies as st

import projections
from adapters import ConversationLog
from eventlog import export_lines, import_lines
from eventlog.errors import ConversationError
from projections import reading, replay
from projections.shape import shape, smallest
from projections.state import fold
from tests.history import meant, seen
from tests.properties.profiles import examples
from tests.properties.strategies import ERASURES, histories
from tests.properties.test_replay import BOTH, rows, stored, write

if TYPE_CHECKING:
    from eventlog import EventLog, Recorded, Transaction
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
        (session_id, branch_id): repr(reading.items(tx, place.pointer))
        for session_id, branch_id in tx.all("SELECT session_id, branch_id FROM branches")
        if (place := reading.place(tx, session_id, branch_id)).branch_exists
    }


def check(log: EventLog) -> None:
    """Check that the tables are what a replay and the fold say, and that the chain is whole."""
    assert log.store.read_sync(seen) == meant(fold(stored(log)))
    different: list[Any] = []
    replay(log, BOTH, check=True, on_difference=different.append)
    assert [str(each) for each in different] == []
    assert asyncio.run(log.verify()).ok


@given(ANY_ITEM)
@examples(200)
def test_the_structure_of_an_item_has_its_shape_and_nothing_else_of_it(item: Any) -> None:
    kept = smallest(shape(item))
    assert shape(kept) == shape(item)
    assert kept.keys() <= {"role", "type", "name", "approval_request_id"}


@given(st.lists(st.tuples(histories(max_size=10), ERASURES), min_size=1, max_size=4))
@examples(15)
def test_after_erasing_inline_equals_replay_equals_fold(
    steps: list[tuple[list[Recorded], Erasure]],
) -> None:
    with tempfile.TemporaryDirectory() as folder, closing(opened(Path(folder) / "l.db")) as log:
        for events, what in steps:
            write(log, events)
            before = log.store.read_sync(live_contents)
            erase(log, what)
            after = log.store.read_sync(live_contents)
            if what.get("session_id") is None:
                assert after == before
            else:
                assert after == {key: before[key] for key in before if key[0] != what["session_id"]}
        check(log)
        inline = rows(log)
        replay(log, BOTH)
        assert rows(log) == inline


@given(histories(max_size=25), ERASURES, histories(max_size=5))
@examples(12)
def test_an_erased_history_gives_the_same_tables_where_it_is_imported(
    events: list[Recorded], what: Erasure, later: list[Recorded]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        here, there = opened(Path(folder) / "here.db"), opened(Path(folder) / "there.db")
        with closing(here), closing(there):
            # The only session of its log, so that its positions are the same there.
            write(here, [event for event in events if event.session_id == "a"])
            erase(here, what)
            write(here, [event for event in later if event.session_id == "a"])
            asyncio.run(move(here, there))
            assert rows(there) == rows(here)
            check(there)


async def move(here: EventLog, there: EventLog) -> None:
    lines = [f"{line}\n".encode() async for line in export_lines(here)]
    outcomes = [outcome.outcome async for outcome in import_lines(there, lines)]
    assert set(outcomes) <= {"imported"}
