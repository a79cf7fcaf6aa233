"""What each event does to sessions and branches."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
from msgspec.structs import astuple

from agents_eventlog.eventlog import (
    BranchDeleted,
    BranchSwitched,
    ContentErased,
    ForkedItems,
    HistoryImported,
    ItemRef,
    ItemsAdded,
    ItemsReplaced,
    MetadataSet,
    SessionCleared,
    SessionDeleted,
    SessionForked,
)
from agents_eventlog.eventlog.appender import read_events
from agents_eventlog.eventlog.cursor import Cursor
from agents_eventlog.eventlog.errors import UndecodableEventError
from agents_eventlog.projections import Conversations
from agents_eventlog.projections.conversations import builder as conversations
from agents_eventlog.projections.reference import fold
from tests.history import START, build, empty, found_in_metadata, meant, seen, stored
from tests.projections.given import ANSWER, USER, added, branched, on, popped, used

if TYPE_CHECKING:
    from agents_eventlog.eventlog import Transaction
    from tests.history import Entry
    from tests.projections.given import Given

SECOND = 1_000_000


def test_items_stand_in_the_order_in_which_they_were_added(given: Given) -> None:
    given(added(USER, ANSWER)).when(added(USER, ANSWER))
    assert given.refs() == [(1, 0), (1, 1), (2, 0), (2, 1)]


def test_a_user_item_opens_a_turn_and_what_stands_before_the_first_is_turn_0(given: Given) -> None:
    given(added(ANSWER, USER, ANSWER, USER)).when(added(ANSWER))
    assert given.turns() == [0, 1, 1, 2, 2]
    assert given.session("turn_count") == 2


def test_a_row_tells_what_an_item_is_and_which_tool_it_calls(given: Given) -> None:
    given.when(added({"type": "function_call", "name": "look"}, USER))
    assert given.rows() == [(1, 0, "function_call", "look", 1, 0), (1, 1, "user", None, 0, 1)]


def test_a_session_counts_a_shared_item_once(given: Given) -> None:
    given(added(), added(), branched("b", (1, 1))).when(on("b", added()))
    assert given.session("item_count") == 6
    assert given.session("turn_count") == 3
    assert given.session("branch_count") == 2


def test_a_session_and_its_branch_are_read_together_as_each_alone(given: Given) -> None:
    given(MetadataSet(user_id="u", metadata={"plan": "x"}), added(), branched("b", (1, 1)))
    given(SessionCleared(), MetadataSet(user_id="u", metadata={"plan": "x"}), SessionDeleted())
    given.log.store.write_sync(
        lambda tx: tx.execute(
            "UPDATE sessions SET erased_at = 7, turn_count = 8, item_count = 9, expires_after = 10,"
            " expired_version = 1"
        )
    )

    def unit(tx: Transaction) -> tuple[Any, Any]:
        tx.cache.clear()
        alone = conversations.session(tx, "s"), conversations.branch(tx, "s", "b")
        tx.cache.clear()
        return alone, conversations.both(tx, "s", "b")

    alone, together = given.log.store.read_sync(unit)
    assert None not in astuple(alone[0])
    assert together == alone


def test_a_popped_item_is_gone_from_its_branch_alone(given: Given) -> None:
    given(added(), branched("b", (1, 1))).when(popped(1, 1))
    assert given.refs() == [(1, 0)]
    assert given.refs("b") == [(1, 0), (1, 1)]
    assert given.session("item_count") == 2


def test_a_popped_item_that_a_branch_had_alone_leaves_it_where_it_left(given: Given) -> None:
    given(added(), branched("b", (1, 1)), on("b", added()), added(ANSWER)).when(popped(4, 0))
    assert given.refs() == [(1, 0), (1, 1)]


def test_a_pop_of_an_item_that_is_not_the_newest_changes_nothing(given: Given) -> None:
    given(added()).when(popped(1, 0))
    assert given.refs() == [(1, 0), (1, 1)]


def test_a_pop_gives_the_turn_of_the_item_below(given: Given) -> None:
    given(added(USER, ANSWER, USER)).when(popped(1, 2))
    assert given.session("turn_count") == 1
    given.when(added(USER))
    assert given.turns() == [1, 1, 2]


@pytest.mark.parametrize(
    "entry",
    [
        on("ghost", popped(1, 0)),
        on("ghost", BranchDeleted(branch_id="ghost")),
        on("ghost", branched("b", (1, 0), source="ghost")),
    ],
    ids=["a pop", "a deletion", "a branch that leaves it"],
)
def test_a_branch_that_never_was_takes_no_id_by_being_named(given: Given, entry: Entry) -> None:
    given(added()).when(entry)
    assert given.ask("SELECT branch_id FROM branches WHERE branch_id = 'ghost'") == []


def test_a_branch_keeps_what_stands_up_to_the_item_it_leaves_at(given: Given) -> None:
    given(added(), added()).when(branched("b", (2, 0)))
    assert given.refs("b") == [(1, 0), (1, 1), (2, 0)]
    assert given.turns("b") == [1, 1, 2]


def test_a_branch_from_the_very_beginning_is_live_and_empty(given: Given) -> None:
    given(added()).when(branched("b", None))
    assert given.branches() == ["main", "b"]
    assert given.refs("b") == []


def test_a_branch_from_an_item_that_its_source_lacks_is_empty(given: Given) -> None:
    given(added()).when(branched("b", (9, 9)))
    assert given.branches() == ["main", "b"]
    assert given.refs("b") == []


def test_a_branch_that_is_made_again_lets_go_of_what_it_held(given: Given) -> None:
    given(added(), branched("b", (1, 1)), on("b", added())).when(branched("b", (1, 0)))
    assert given.refs("b") == [(1, 0)]
    assert given.session("item_count") == 2


def test_a_branch_of_an_empty_session_comes_after_main(given: Given) -> None:
    given.when(branched("alpha", None))
    assert given.branches() == ["main", "alpha"]


def test_branches_are_told_in_the_order_in_which_they_were_made(given: Given) -> None:
    given(added(), branched("z", None)).when(branched("a", None), branched("k", None))
    assert given.branches() == ["main", "z", "a", "k"]


def test_a_branch_remembers_where_it_came_from_and_whether_its_id_was_made_up(
    given: Given,
) -> None:
    given(added()).when(branched("b", (1, 0), generated=True))
    row = given.ask("SELECT from_branch_id, is_generated FROM branches WHERE branch_id = 'b'")
    assert row == [("main", 1)]


def test_a_session_stands_where_it_was_last_switched_to(given: Given) -> None:
    given(added(), branched("b", None))
    assert given.session("branch_id") == "b"
    given.when(on("main", BranchSwitched(from_branch_id="b", branch_id="main")))
    assert given.session("branch_id") == "main"


def test_a_session_whose_branch_is_deleted_stands_on_main(given: Given) -> None:
    given(added(), branched("b", None)).when(on("b", BranchDeleted(branch_id="b")))
    assert given.session("branch_id") == "main"


def test_a_deleted_branch_is_not_live_and_its_id_stays_taken(given: Given) -> None:
    given(added(), branched("b", (1, 1)), on("b", added()))
    given.when(on("b", BranchDeleted(branch_id="b")))
    assert given.branches() == ["main"]
    assert given.value("SELECT is_live FROM branches WHERE branch_id = 'b'") == 0
    assert given.session("item_count") == 2


def test_items_added_to_a_deleted_branch_bring_it_to_life_empty(given: Given) -> None:
    given(added(), branched("b", (1, 1)), on("b", BranchDeleted(branch_id="b")))
    given.when(on("b", added(ANSWER)))
    assert given.refs("b") == [(4, 0)]
    assert given.session("branch_count") == 2


def test_replacing_from_an_item_on_keeps_what_stands_before_it(given: Given) -> None:
    given(added(), added()).when(ItemsReplaced(first_item=ItemRef(1, 1), items=[ANSWER]))
    assert given.refs() == [(1, 0), (3, 0)]
    assert given.session("item_count") == 2


def test_replacing_all_leaves_what_is_given_and_numbers_turns_anew(given: Given) -> None:
    given(added(), added()).when(ItemsReplaced(first_item=None, items=[USER]))
    assert given.refs() == [(3, 0)]
    assert given.turns() == [1]


def test_replacing_touches_no_other_branch(given: Given) -> None:
    given(added(), branched("b", (1, 1))).when(
        on("b", ItemsReplaced(first_item=None, items=[ANSWER]))
    )
    assert given.refs() == [(1, 0), (1, 1)]
    assert given.refs("b") == [(3, 0)]


def test_clearing_empties_and_ends_every_branch(given: Given) -> None:
    given(added(), branched("b", (1, 0)), on("b", added())).when(SessionCleared())
    assert given.branches() == []
    assert given.ask("SELECT * FROM items") == given.ask("SELECT * FROM segments") == []
    columns = "item_count || ' ' || turn_count || ' ' || branch_count || ' ' || branch_id"
    assert given.session(columns) == "0 0 0 main"
    assert given.session("cleared_version") == 4


def test_clearing_touches_no_other_session(given: Given) -> None:
    given(added(), on("main", added(), "other")).when(SessionCleared())
    assert given.refs(session_id="other") == [(2, 0), (2, 1)]


def test_a_cleared_session_begins_again_at_turn_1(given: Given) -> None:
    given(added(), SessionCleared()).when(added())
    assert given.turns() == [1, 1]
    assert given.branches() == ["main"]


def test_a_deleted_session_knows_when(given: Given) -> None:
    given(added()).when(SessionDeleted(reason="asked to"))
    assert given.session("deleted_at") == START + 2 * SECOND


def test_labels_replace_what_they_name_and_leave_the_rest(given: Given) -> None:
    given(MetadataSet(user_id="alice", metadata={"plan": "free"})).when(MetadataSet(user_id="bob"))
    assert given.session("user_id") == "bob"
    assert given.session("metadata") == '{"plan":"free"}'
    given.when(MetadataSet(metadata={}))
    assert given.session("metadata") is None


def test_a_session_was_made_with_its_first_event_and_updated_by_its_last_but_for_usage(
    given: Given,
) -> None:
    given(added()).when(popped(1, 1), used(1, 5))
    assert given.session("created_at") == START + SECOND
    assert given.session("updated_at") == START + 2 * SECOND


def test_an_imported_event_happened_when_its_source_says(given: Given) -> None:
    with found_in_metadata(occurred_at=START - 5):
        given.when(added())
    assert given.session("created_at") == START - 5


@pytest.mark.parametrize("time", ["yesterday", 1.5, float("nan"), True, [1], 10**30, -(10**30)])
def test_an_event_whose_metadata_names_no_time_happened_when_it_was_recorded(
    given: Given, time: Any
) -> None:
    with found_in_metadata(occurred_at=time):
        given.when(added())
    assert given.session("created_at") == START + SECOND


def forked(*refs: tuple[int, int]) -> SessionForked:
    """Return the event of a session being created with items of "s"."""
    items = [(*ref, 0) for ref in refs]
    origins = [ForkedItems(session_id="s", items=items)]
    return SessionForked(from_session_id="s", from_branch_id="main", origins=origins, kinds=[USER])


@pytest.mark.parametrize(
    "entry",
    [on("main", forked((1, 1), (1, 0)), "t"), on("main", forked((3, 0)), "other")],
    ids=["items that do not ascend", "after items of its own"],
)
def test_a_fork_that_fits_nowhere_adds_no_item(given: Given, entry: Entry) -> None:
    given(added(), on("main", added(USER), "other"), added())
    before = given.refs(session_id=entry.session_id)
    given.when(entry)
    assert given.refs(session_id=entry.session_id) == before
    assert given.log.store.read_sync(seen) == meant(fold(stored(given.log)))


def test_the_opening_of_an_import_makes_the_session(given: Given) -> None:
    given.when(HistoryImported(source="elsewhere", counts={}))
    assert given.session("item_count") == 0
    assert given.branches() == []


def test_an_erasure_alone_makes_no_session(given: Given) -> None:
    given.when(ContentErased(positions=[]))
    assert given.ask("SELECT * FROM sessions") == []


def test_a_session_that_is_erased_keeps_its_place_and_nothing_that_was_said(given: Given) -> None:
    given(MetadataSet(user_id="alice", metadata={"plan": "free"}), added(), branched("b", (2, 0)))
    given.when(ContentErased(positions=[1, 2], is_whole=True, pseudonym="erased-1"))
    assert given.branches() == []
    for table in ("items", "segments", "session_labels"):
        assert given.ask(f"SELECT * FROM {table}") == []
    row = given.ask("SELECT user_id, metadata, branch_id, item_count, erased_at FROM sessions")
    assert row == [("erased-1", None, "main", 0, START + 4 * SECOND)]


def test_an_event_that_cannot_be_read_is_named(given: Given) -> None:
    given(added(), added())
    events = stored(given.log)
    events[1].data = b"{"
    tx = empty([Conversations()])
    with closing(tx.connection), pytest.raises(UndecodableEventError, match="position 2"):
        build(tx, [Conversations()], events)


def test_adding_no_items_makes_the_branch_and_nothing_else(given: Given) -> None:
    given.when(ItemsAdded(items=[]))
    assert given.branches() == ["main"]
    assert given.ask("SELECT * FROM segments") == []


def test_what_is_remembered_is_bounded_and_shows_in_no_row(
    given: Given, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conversations, "MAX_CACHED", 0)
    given(added(), branched("b", (1, 1)), on("b", added()), popped(1, 1), added())
    assert given.refs() == [(1, 0), (5, 0), (5, 1)]
    assert given.refs("b") == [(1, 0), (1, 1), (3, 0), (3, 1)]
    events = given.log.store.read_sync(lambda tx: read_events(tx, Cursor(1)))
    tx = empty([Conversations()])
    with closing(tx.connection):
        build(tx, [Conversations()], events, [2, 4])
        for table in ("sessions", "branches", "segments", "items"):
            rows = f"SELECT * FROM {table} ORDER BY 1, 2"
            assert tx.all(rows) == given.ask(rows)


# -- what it costs --------------------------------------------------------------------------------
