"""Which items a find finds, in which order, and page by page."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from agents_eventlog.eventlog import (
    BranchDeleted,
    ItemRef,
    ItemsReplaced,
    MetadataSet,
    SessionCleared,
    SessionDeleted,
    SessionRestored,
)
from agents_eventlog.eventlog.errors import InvalidQueryError
from agents_eventlog.projections.search.searcher import (
    ItemQuery,
    Searcher,
    cursor,
    parse_cursor,
)
from tests.history import START
from tests.projections.given import added, branched, on, popped, watched

if TYPE_CHECKING:
    from agents_eventlog.eventlog import ItemsAdded
    from agents_eventlog.projections.search.searcher import Hit
    from tests.projections.given import Given


def said(text: str) -> ItemsAdded:
    return added({"role": "user", "content": text})


def find(given: Given, text: str | None = None, **which: Any) -> list[Hit]:
    return page(given, ItemQuery(text=text, **which), None)


def page(given: Given, sought: ItemQuery, limit: int | None, after: str | None = None) -> list[Hit]:
    searcher = Searcher(sought, limit=limit, after=after)
    while searcher.collect(given.log.store.read_sync(searcher.read_batch)):
        pass
    return searcher.hits


def refs(hits: list[Hit]) -> list[tuple[int, int]]:
    return [(hit.ref.position, hit.ref.index) for hit in hits]


def test_a_hit_tells_what_it_is_and_where_it_stands(given: Given) -> None:
    item = {"type": "function_call", "name": "track", "arguments": '{"order": 1042}'}
    given(added({"role": "user", "content": "Where is it?"}, item))
    [hit] = find(given, "ORDER")
    assert (hit.session_id, hit.branch_ids, hit.turn) == ("s", ("main",), 1)
    assert (hit.ref, hit.item) == (ItemRef(1, 1), item)
    assert hit.kind == ("function_call", "track", True)
    assert hit.snippet == ('{"order": 1042}', 2, 7)
    assert hit.occurred_at == START + 1_000_000


def test_a_shared_item_is_one_hit_with_all_its_branches(given: Given) -> None:
    given(said("the first"), branched("early", (1, 0)), said("the second"))
    given(branched("late", (3, 0)), on("early", said("the third")))
    found = {hit.ref.position: hit.branch_ids for hit in find(given, "the")}
    assert found == {1: ("main", "early", "late"), 3: ("main", "late"), 5: ("early",)}
    assert refs(find(given, "the", branch_id="early")) == [(5, 0), (1, 0)]
    assert refs(find(given, "the", branch_id="nobody's")) == []


def test_what_stands_on_no_branch_is_not_found(given: Given) -> None:
    given(said("one popped"), popped(1, 0))
    given(branched("b", None), on("b", said("one deleted")), on("b", BranchDeleted(branch_id="b")))
    given(on("main", said("one cleared"), "t"), on("main", SessionCleared(), "t"))
    given(on("main", said("one replaced"), "u"))
    given(on("main", ItemsReplaced(first_item=None, items=[{"content": "one anew"}]), "u"))
    assert [hit.item["content"] for hit in find(given, "one")] == ["one anew"]


def test_a_deleted_session_is_not_found_until_it_is_restored(given: Given) -> None:
    given(said("here"), SessionDeleted())
    assert find(given, "here") == []
    given(SessionRestored())
    assert refs(find(given, "here")) == [(1, 0)]


def test_filters_leave_what_matches_all_of_them(given: Given) -> None:
    call = {"type": "function_call", "name": "track", "arguments": "x"}
    given(added({"role": "user", "content": "x"}, call, {"role": "system", "content": "x"}))
    given(on("main", MetadataSet(user_id="alice"), "t"), on("main", said("x"), "t"))
    assert refs(find(given, "x", type="function_call")) == [(1, 1)]
    assert refs(find(given, tool_name="track")) == [(1, 1)]
    assert refs(find(given, "x", role="system")) == [(1, 2)]
    assert refs(find(given, "x", session_id="t")) == refs(find(given, user_id="alice")) == [(3, 0)]
    assert find(given, "x", session_id="s", user_id="alice") == []
    assert find(given, "y", role="system") == []
    second = START + 1_000_000
    assert refs(find(given, since=second + 1)) == [(3, 0)]
    assert refs(find(given, "x", until=second + 1, role="user")) == [(1, 0)]
    assert find(given, until=second) == []


@pytest.mark.parametrize("text", [None, "", "a"])
def test_the_newest_come_first_however_often_they_say_it(given: Given, text: str | None) -> None:
    given(added({"content": "a" * 500}, {"content": "a a a"}), said("b " * 500 + "a"))
    assert refs(find(given, text)) == [(2, 0), (1, 1), (1, 0)]


def test_an_empty_text_stands_in_every_text_but_not_where_there_is_none(given: Given) -> None:
    given(added({"type": "reasoning", "summary": []}, {"role": "user", "content": ""}))
    assert refs(find(given, "")) == [(1, 1)]
    assert refs(find(given)) == [(1, 1), (1, 0)]


@pytest.fixture
def many(given: Given) -> Given:
    """Thirty-three hits in events of one to three."""
    for number in range(17):
        given(added(*[{"content": "hit " * (1 + 7 * number % 5)}] * (1 + number % 3)))
    return given


@pytest.mark.parametrize("limit", [1, 2, 3, 5, 32, 33, 34])
def test_pages_give_each_hit_once_in_the_order_of_the_whole(many: Given, limit: int) -> None:
    whole = refs(find(many, "hit"))
    assert len(whole) == 33
    pages: list[tuple[int, int]] = []
    after = None
    while found := page(many, ItemQuery(text="hit"), limit, after):
        assert len(found) <= limit
        pages += refs(found)
        after = cursor(found[-1].ref)
    assert pages == whole


def test_pages_go_on_where_they_were_whatever_happens_meanwhile(many: Given) -> None:
    whole = refs(find(many, "hit"))
    first = page(many, ItemQuery(text="hit"), 1)
    many(said("hit hit"), popped(18, 0), popped(17, 1), popped(17, 0), said("hit"))
    rest = page(many, ItemQuery(text="hit"), None, cursor(first[-1].ref))
    assert whole[:3] == [(17, 1), (17, 0), (16, 0)]
    assert refs(rest) == whole[2:]


def test_no_more_than_the_limit(many: Given) -> None:
    assert page(many, ItemQuery(text="hit"), 0) == []
    assert len(page(many, ItemQuery(text="hit"), 7)) == 7


@pytest.mark.parametrize("after", ["", "1", "1-2-3", "a-b", "1-\u0661", "-1-1", 7, "9" * 99])
def test_what_is_no_cursor_is_refused(after: object) -> None:
    with pytest.raises(InvalidQueryError, match="after"):
        Searcher(ItemQuery(), limit=1, after=after)


def test_a_cursor_is_read_as_it_was_written() -> None:
    assert parse_cursor(cursor(ItemRef(20, 3))) == ItemRef(20, 3)


# -- in a session of many branches ------------------------------------------------------------


def edited(given: Given, branches: int, session_id: str) -> None:
    """Let a session branch at each turn: each branch shares the one before up to its last turn."""
    given(on("main", said("begin"), session_id))
    source = "main"
    for number in range(branches):
        position = given.value("SELECT MAX(position) FROM events WHERE type = 'items_added'")
        branch_id = f"b{number}"
        leaving = branched(branch_id, (position, 0), source=source)
        given(on("main", leaving, session_id), on(branch_id, said("hello"), session_id))
        given(on(source, said("hello, as it was before"), session_id))
        source = branch_id


def statements(given: Given, session_id: str) -> int:
    """Return how many statements it takes to find all that a session says."""
    with watched(given.log) as seen:
        assert len(find(given, "hello", session_id=session_id)) > 20
    return len(seen)


def test_the_statements_of_a_find_grow_no_faster_than_its_branches(given: Given) -> None:
    edited(given, 20, "small")
    edited(given, 80, "large")
    assert statements(given, "large") < 4.5 * statements(given, "small")


def test_what_its_own_branch_lost_is_found_on_the_branches_that_share_it(given: Given) -> None:
    given(said("begin"), branched("other", (1, 0)), said("hello"), branched("late", (3, 0)))
    given(on("other", said("hello")), popped(3, 0), said("hello"))
    given(branched("later", (5, 0), source="other"))
    given(on("other", BranchDeleted(branch_id="other")), said("hello"))
    found = [(hit.ref.position, hit.branch_ids) for hit in find(given, "hello")]
    assert found == [(10, ("main",)), (7, ("main",)), (5, ("later",)), (3, ("late",))]
