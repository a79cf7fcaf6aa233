"""Segments: a branch copies nothing, what nobody reaches goes, and no operation grows with history."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest

from agents_eventlog.eventlog import (
    BranchDeleted,
    ItemRef,
    ItemsReplaced,
    append,
)
from agents_eventlog.projections.conversations import branch_tree
from agents_eventlog.projections.conversations import queries as conversation_queries
from agents_eventlog.projections.conversations.branch_tree import Pointer
from tests.projections.given import ANSWER, USER, added, branched, on, popped

if TYPE_CHECKING:
    from collections.abc import Callable

    from agents_eventlog.eventlog import Event, Transaction
    from tests.projections.given import Given


def segment_ids(given: Given) -> list[int]:
    """Return which segments there are."""
    return [segment_id for (segment_id,) in given.ask("SELECT segment_id FROM segments")]


def item_rows(given: Given) -> int:
    """Return how many item rows there are."""
    return int(given.value("SELECT COUNT(*) FROM items"))


def ask(given: Given, function: Callable[..., Any], *args: Any, branch_id: str = "main") -> Any:
    """Call a function of a transaction and of where a branch ends."""

    def unit(tx: Transaction) -> Any:
        return function(tx, conversation_queries.place(tx, "s", branch_id).pointer, *args)

    return given.log.store.read_sync(unit)


# -- what stands where ---------------------------------------------------------------------------


def test_a_session_that_never_branches_is_one_segment(given: Given) -> None:
    given(*[added() for _ in range(20)])
    assert segment_ids(given) == [1]


def test_a_new_branch_copies_nothing(given: Given) -> None:
    given(*[added() for _ in range(5)]).when(*[branched(f"b{n}", (3, 1)) for n in range(10)])
    assert segment_ids(given) == [1]
    assert item_rows(given) == 10


def test_a_branch_that_stands_at_the_tip_goes_on_in_the_same_segment(given: Given) -> None:
    given(added(), branched("b", (1, 1))).when(on("b", added()))
    assert segment_ids(given) == [1]
    assert given.refs("b") == [(1, 0), (1, 1), (3, 0), (3, 1)]
    assert given.refs() == [(1, 0), (1, 1)]


def test_the_second_branch_to_go_on_leaves_for_a_segment_of_its_own(given: Given) -> None:
    given(added(), branched("b", (1, 1)), on("b", added())).when(added())
    assert segment_ids(given) == [1, 4]
    assert given.refs() == [(1, 0), (1, 1), (4, 0), (4, 1)]
    assert given.refs("b") == [(1, 0), (1, 1), (3, 0), (3, 1)]


def test_a_branch_of_branches_walks_up_its_segments(given: Given) -> None:
    given(added(), added(), branched("b", (1, 1)), on("b", added()), on("b", added()))
    given(branched("c", (4, 0), source="b")).when(on("c", added()))
    assert given.refs("c") == [(1, 0), (1, 1), (4, 0), (7, 0), (7, 1)]
    assert given.turns("c") == [1, 1, 2, 3, 3]


def test_a_chat_that_pops_and_adds_forever_keeps_one_segment_and_no_more_rows(
    given: Given,
) -> None:
    given(added())
    for position in range(2, 30, 2):
        given(added(USER)).when(popped(position, 0))
    given.when(added(ANSWER))
    assert segment_ids(given) == [1]
    assert item_rows(given) == 3


def test_a_chat_of_which_nothing_is_remembered_goes_on_in_its_segment(given: Given) -> None:
    given(added()).write(lambda tx: tx.cache.clear())
    given.when(added())
    assert segment_ids(given) == [1]


@pytest.mark.parametrize(
    "change", [popped(1, 1), ItemsReplaced(first_item=ItemRef(1, 1), items=[])]
)
def test_what_stands_in_the_place_of_another_item_can_be_popped(
    given: Given, change: Event
) -> None:
    given(added(), popped(9, 9), change, added(ANSWER))
    assert segment_ids(given) == [1]
    given.when(popped(4, 0))
    assert given.refs() == [(1, 0)]


def test_a_branch_that_is_popped_empty_leaves_no_segment(given: Given) -> None:
    given(added(USER)).when(popped(1, 0))
    assert segment_ids(given) == []
    given.when(added(USER))
    assert given.refs() == [(3, 0)]


def test_a_shared_item_outlives_the_branch_that_pops_it(given: Given) -> None:
    given(added(), branched("b", (1, 1))).when(popped(1, 1), popped(1, 0))
    assert item_rows(given) == 2
    given.when(on("b", popped(1, 1)), on("b", popped(1, 0)))
    assert item_rows(given) == 0
    assert segment_ids(given) == []


def test_a_deleted_branch_takes_along_what_it_alone_reached(given: Given) -> None:
    given(
        added(), added(), branched("b", (1, 1)), on("b", added()), branched("c", (4, 0), source="b")
    )
    given.when(on("b", BranchDeleted(branch_id="b")))
    assert given.refs("c") == [(1, 0), (1, 1), (4, 0)]
    assert item_rows(given) == 5
    given.when(on("c", BranchDeleted(branch_id="c")))
    assert item_rows(given) == 4
    assert segment_ids(given) == [1]


def test_what_was_only_a_way_to_a_deleted_branch_goes_with_it(given: Given) -> None:
    given(added(), branched("b", (1, 1)), on("b", added()), popped(1, 1), added())
    given.when(on("b", BranchDeleted(branch_id="b")))
    assert given.refs() == [(1, 0), (5, 0), (5, 1)]
    assert item_rows(given) == 3


def test_a_segment_that_nobody_needs_any_more_goes_with_the_last_one_that_left_it(
    given: Given,
) -> None:
    given(added(), branched("b", (1, 1)), on("b", added()), added())  # main: segment 4, from 1
    given(branched("c", (4, 0)), on("c", added()))  # segment 6, from 4
    given(ItemsReplaced(first_item=None, items=[]))
    assert segment_ids(given) == [1, 4, 6]
    given.when(on("c", BranchDeleted(branch_id="c")))
    assert segment_ids(given) == [1]
    assert given.refs("b") == given.ask("SELECT position, index_in_event FROM items")


def test_replaced_items_go_unless_another_branch_shares_them(given: Given) -> None:
    given(added(), added(), branched("b", (1, 1))).when(
        ItemsReplaced(first_item=None, items=[ANSWER])
    )
    assert item_rows(given) == 3
    assert given.refs("b") == [(1, 0), (1, 1)]


# -- finding ------------------------------------------------------------------------------------


@pytest.fixture
def woven(given: Given) -> Given:
    """A branch "c" that runs through three segments."""
    given(added(), added(ANSWER), branched("b", (1, 0)), on("b", added()), on("b", added()))
    return given(branched("c", (4, 1), source="b"), on("c", added()), added())


def test_every_item_of_a_branch_is_found_where_it_stands(woven: Given) -> None:
    rows = woven.rows("c")
    assert [row[:2] for row in rows] == [(1, 0), (4, 0), (4, 1), (7, 0), (7, 1)]
    for number, (position, index, kind, _, _, turn) in enumerate(rows, start=1):
        ref = ItemRef(position, index)
        place = ask(woven, branch_tree.find, ref, branch_id="c")
        assert place.length == number
        assert ask(woven, lambda tx, _, at=place: branch_tree.newest(tx, at)) == (ref, turn, kind)
        end = Pointer(*ask(woven, lambda _, pointer: pointer, branch_id="c"))
        assert ask(woven, lambda tx, _, n=number, e=end: branch_tree.at_length(tx, e, n)) == place


@pytest.mark.parametrize("ref", [(0, 0), (1, 1), (2, 0), (5, 0), (7, 2), (8, 0), (99, 0)])
def test_an_item_that_a_branch_lacks_is_not_found_in_it(woven: Given, ref: tuple[int, int]) -> None:
    assert ask(woven, branch_tree.find, ItemRef(*ref), branch_id="c") is None


def test_a_turn_begins_before_its_user_item(woven: Given) -> None:
    places = [ask(woven, branch_tree.before_turn, turn, branch_id="c") for turn in range(5)]
    assert [place and place.length for place in places] == [None, 0, 1, 3, None]


def test_the_empty_place_is_before_everything(woven: Given) -> None:
    empty = Pointer(None, 0)
    assert ask(woven, lambda tx, pointer: branch_tree.at_length(tx, pointer, 0)) == empty
    assert ask(woven, lambda tx, _: branch_tree.newest(tx, empty)) is None
    assert ask(woven, lambda tx, _: branch_tree.turn_at(tx, empty)) == 0
    assert ask(woven, lambda tx, _: list(branch_tree.spans(tx, empty))) == []


# -- what it costs --------------------------------------------------------------------------------


def steps(given: Given, unit: Callable[[Transaction], Any]) -> int:
    """Return how many instructions SQLite's machine takes for a unit of work."""
    taken = 0

    def counted(tx: Transaction) -> None:
        nonlocal taken

        def count() -> int:
            nonlocal taken
            taken += 1
            return 0

        tx.flush()
        tx.cache.clear()
        tx.connection.set_progress_handler(count, 1)
        try:
            unit(tx)
            tx.flush()
        finally:
            tx.connection.set_progress_handler(None, 1)

    given.write(counted)
    return taken


@pytest.fixture
def grown(given: Given) -> Given:
    """A conversation of 10 turns, and one of 1,000, in one file."""

    def grow(tx: Transaction) -> None:
        for session_id, turns in (("short", 10), ("long", 1_000)):
            for _ in range(turns):
                append(tx, session_id, added(), branch_id="main")

    given.write(grow)
    return given


def pointer(tx: Transaction, session_id: str) -> Pointer:
    """Return where a session's main branch ends."""
    return conversation_queries.place(tx, session_id, "main").pointer


def half(tx: Transaction, session_id: str) -> ItemRef:
    """Return an item in the middle of a session."""
    end = pointer(tx, session_id)
    item = branch_tree.newest(tx, branch_tree.at_length(tx, end, end.length // 2))
    assert item is not None
    return item.ref


def newest(tx: Transaction, session_id: str) -> ItemRef:
    """Return the last item of a session."""
    item = branch_tree.newest(tx, pointer(tx, session_id))
    assert item is not None
    return item.ref


def queries(seen: list[str]) -> list[str]:
    """Return those of some statements that look something up in the tables."""
    return [sql for sql in seen if re.match(r"(?s)\s*SELECT\b.*\bFROM (items|segments)\b", sql)]


OPERATIONS: dict[str, Callable[[Transaction, str], Any]] = {
    "add": lambda tx, s: append(tx, s, added(), branch_id="main"),
    "pop": lambda tx, s: append(tx, s, popped(*newest_of(tx, s)), branch_id="main"),
    "branch": lambda tx, s: append(
        tx, s, branched("half", tuple_of(half(tx, s))), branch_id="main"
    ),
    "branch and add": lambda tx, s: (
        append(tx, s, branched("b", tuple_of(half(tx, s))), branch_id="main"),
        append(tx, s, added(), branch_id="b"),
    ),
    "branch and delete": lambda tx, s: (
        append(tx, s, branched("d", tuple_of(half(tx, s))), branch_id="main"),
        append(tx, s, BranchDeleted(branch_id="d"), branch_id="d"),
    ),
    "newest items": lambda tx, s: conversation_queries.items(tx, pointer(tx, s), 6),
    "a turn's place": lambda tx, s: branch_tree.before_turn(tx, pointer(tx, s), 5),
}


def tuple_of(ref: ItemRef) -> tuple[int, int]:
    """Return an item's identity as a pair."""
    return ref.position, ref.index


def newest_of(tx: Transaction, session_id: str) -> tuple[int, int]:
    """Return the last item of a session as a pair."""
    return tuple_of(newest(tx, session_id))


@pytest.mark.parametrize("operation", OPERATIONS)
def test_an_operation_costs_about_the_same_at_turn_10_and_at_turn_1000(
    grown: Given, operation: str
) -> None:
    run = OPERATIONS[operation]
    few = steps(grown, lambda tx: run(tx, "short"))
    many = steps(grown, lambda tx: run(tx, "long"))
    assert 0 < many < 2.5 * few  # bisection takes 11 probes where it took 4


# -- tables that were spoilt ----------------------------------------------------------------------


def test_a_branch_whose_segment_is_gone_reads_as_empty_and_can_be_left(woven: Given) -> None:
    woven.write(lambda tx: tx.execute("DELETE FROM segments WHERE segment_id <> 1"))
    woven.write(lambda tx: tx.cache.clear())
    end = ask(woven, lambda _, pointer: pointer, branch_id="c")
    assert ask(woven, lambda tx, _: list(branch_tree.spans(tx, end))) == []
    assert ask(woven, lambda tx, _: branch_tree.at_length(tx, end, 2)) == Pointer(None, 0)
    assert woven.write(lambda tx: branch_tree.trim(tx, end.segment_id)) == (0, 0)


def test_an_item_whose_row_is_gone_is_not_found(woven: Given) -> None:
    woven.write(lambda tx: tx.execute("DELETE FROM items"))
    assert ask(woven, branch_tree.find, ItemRef(7, 0), branch_id="c") is None
