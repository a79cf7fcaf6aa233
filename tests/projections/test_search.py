"""The full-text index: what stands in it, how it comes about, and what is found through it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from agents_eventlog import projections
from agents_eventlog.eventlog import (
    ContentErased,
    EventLog,
    ItemsAdded,
    append,
)
from agents_eventlog.eventlog.errors import ProjectionError
from agents_eventlog.eventlog.storage.sqlite import full_text
from agents_eventlog.eventlog.storage.sqlite.engine import SQLITE
from agents_eventlog.projections import Search, background, projector, replay
from agents_eventlog.projections.background import build_incrementally
from agents_eventlog.projections.base import tables
from agents_eventlog.projections.search import index as search_index
from agents_eventlog.projections.search import plan
from agents_eventlog.projections.search.searcher import ItemQuery, Searcher
from tests.projections.given import Given, added, on, popped

if TYPE_CHECKING:
    from collections.abc import Iterator

    from agents_eventlog.projections import Difference, Progress


def said(text: str) -> ItemsAdded:
    return added({"role": "user", "content": text})


@pytest.fixture
def indexed(given: Given) -> Given:
    given.log.join(projections.default(search=True))
    return given


@pytest.fixture
def behind(given: Given) -> Iterator[Given]:
    """A log whose index shows "the first", while "the second" was appended without it."""
    given.log.join(projections.default(search=True))
    given(said("the first"))
    path = given.log.path
    given.log.close()
    given.log = EventLog.open_sync(path, projections=projections.default())
    given(said("the second"))
    yield given
    given.log.close()


def find(given: Given, text: str | None, **which: Any) -> Searcher:
    searcher = Searcher(ItemQuery(text=text, **which), limit=None)
    while searcher.collect(given.log.store.read_sync(searcher.read_batch)):
        pass
    return searcher


def positions(searcher: Searcher) -> list[int]:
    return [hit.ref.position for hit in searcher.hits]


def rows(given: Given) -> list[tuple[int, str]]:
    return given.ask("SELECT rowid, text FROM item_texts ORDER BY rowid")


def built_to(given: Given) -> int | None:
    return given.log.store.read_sync(search_index.built_to)


# -- what stands in it ------------------------------------------------------------------------


def test_an_events_texts_are_one_row_with_their_case_folded(indexed: Given) -> None:
    indexed(added({"role": "user", "content": "One"}, {"role": "assistant", "content": "TWÖ"}))
    assert rows(indexed) == [(1, "one\ntwö")]


def test_what_says_nothing_has_no_row(indexed: Given) -> None:
    indexed(added({}), popped(1, 0))
    assert rows(indexed) == []


def test_what_a_row_cannot_hold_is_in_it_as_something_else(indexed: Given) -> None:
    indexed(said("a\0b\ud800c"))
    assert rows(indexed) == [(1, "a\ufffdb?c")]


def test_what_is_erased_goes_from_the_file(indexed: Given) -> None:
    indexed(said("a kept text"), said("qqwertz"), ContentErased(positions=[2]))
    assert rows(indexed) == [(1, "a kept text")]
    indexed.write(search_index.optimize)  # as an erase does at its end, once
    [blocks] = zip(*indexed.ask("SELECT block FROM item_texts_data"), strict=True)
    assert not any(b"qwe" in block or b"rtz" in block for block in blocks)
    assert any(b"kep" in block for block in blocks)


def test_the_tables_of_a_virtual_table_are_its_own_affair() -> None:
    [table] = tables(SQLITE, Search())
    assert (table.name, table.columns, table.key) == ("item_texts", ("rowid", "text"), ("rowid",))


# -- how it comes about -----------------------------------------------------------------------


def test_a_log_has_no_index_unless_it_is_asked_for(given: Given) -> None:
    given(said("something"))
    assert built_to(given) is None
    assert given.ask("SELECT name FROM sqlite_schema WHERE name LIKE 'item_texts%'") == []


def test_it_is_built_from_the_history_when_it_is_first_asked_for(given: Given) -> None:
    given(said("before"))
    given.log.join(projections.default(search=True))
    given(said("after"))
    assert rows(given) == [(1, "before"), (2, "after")]


def test_a_long_history_is_built_in_steps_with_room_for_writers(
    given: Given, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(background, "STEP_EVENTS", 2)
    monkeypatch.setattr(projector, "REPLAY_ON_OPEN_EVENTS", 3)
    given(*[said(f"text {number}") for number in range(5)])
    seen: list[Progress] = []

    def write_between(progress: Progress) -> None:
        if not seen:
            given(said("meanwhile"))
        seen.append(progress)

    build_incrementally(given.log.store, Search(), write_between)
    assert [progress.events for progress in seen] == [2, 4, 6]
    assert len(rows(given)) == built_to(given) == 6
    given(said("later"))
    given.log.join(projections.default(search=True))
    assert len(rows(given)) == 7


def test_a_log_that_asks_for_the_index_later_gets_all_of_its_history(
    given: Given, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(projector, "REPLAY_ON_OPEN_EVENTS", 3)
    given(*[said(f"text {number}") for number in range(5)])
    given.log.join(projections.default(search=True))
    assert len(rows(given)) == built_to(given) == 5


def test_a_build_that_was_killed_goes_on_where_it_was(
    given: Given, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(background, "STEP_EVENTS", 2)
    given(*[said(f"text {number}") for number in range(5)])

    def die(_: Progress) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_incrementally(given.log.store, Search(), die)
    assert built_to(given) == 2
    build_incrementally(given.log.store, Search())
    assert [position for position, _ in rows(given)] == [1, 2, 3, 4, 5]


def test_it_is_built_anew_when_its_version_is_higher(
    indexed: Given, monkeypatch: pytest.MonkeyPatch
) -> None:
    indexed(said("text"))
    monkeypatch.setattr(Search, "version", 2)
    assert built_to(indexed) is None
    build_incrementally(indexed.log.store, Search())
    assert rows(indexed) == [(1, "text")]


def test_that_of_a_newer_program_is_left_alone_and_another_is_built_beside_it(
    indexed: Given, monkeypatch: pytest.MonkeyPatch
) -> None:
    indexed(said("text"))
    monkeypatch.setattr(Search, "version", 0)
    assert built_to(indexed) is None
    assert positions(find(indexed, "text")) == [1]
    build_incrementally(indexed.log.store, Search())
    assert rows(indexed) == [(1, "text")]
    assert indexed.ask("SELECT rowid FROM item_texts__v0") == [(1,)]


def test_a_table_of_somebody_else_is_not_taken(given: Given) -> None:
    given.write(lambda tx: tx.execute("CREATE TABLE item_texts (theirs)"))
    with pytest.raises(ProjectionError, match="item_texts"):
        given.log.join(projections.default(search=True))


def test_a_replay_gives_the_same_rows_and_a_check_names_what_differs(indexed: Given) -> None:
    indexed(said("one"), said("two"), popped(2, 0), ContentErased(positions=[1]), said("three"))
    indexed.write(lambda tx: tx.execute("UPDATE events SET data = NULL WHERE position = 1"))
    before = rows(indexed)
    assert before == [(2, "two"), (5, "three")]
    found: list[Difference] = []
    replay(indexed.log, [Search()], check=True, on_difference=found.append)
    assert found == []
    replay(indexed.log, [Search()])
    assert rows(indexed) == before
    assert positions(find(indexed, "three")) == [5]
    indexed(said("four, after the replay"))
    assert positions(find(indexed, "after the")) == [6]
    indexed.write(lambda tx: tx.execute("DELETE FROM item_texts WHERE rowid = 5"))
    replay(indexed.log, [Search()], check=True, on_difference=found.append)
    assert [str(each) for each in found] == ["item_texts 5: missing"]


# -- what is found through it -----------------------------------------------------------------


def test_the_index_is_asked_where_it_can_help(indexed: Given) -> None:
    indexed(said("a refund"))
    searcher = find(indexed, "REFUND")
    assert (positions(searcher), searcher.indexed, searcher.scanned) == ([1], True, 0)
    for text in (None, "re"):
        searcher = find(indexed, text)
        assert (positions(searcher), searcher.indexed, searcher.scanned) == ([1], False, 1)


def test_what_the_index_does_not_show_yet_is_scanned(behind: Given) -> None:
    searcher = find(behind, "the ")
    assert (positions(searcher), searcher.indexed, searcher.scanned) == ([2, 1], True, 1)


def test_a_program_that_knows_the_index_catches_up(behind: Given) -> None:
    assert built_to(behind) == 1
    behind.log.join(projections.default(search=True))
    assert [text for _, text in rows(behind)] == ["the first", "the second"]


def test_common_words_of_a_small_session_are_sought_in_its_events(
    indexed: Given, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan, "FEW_EVENTS", 3)
    indexed(*[on("main", said("the same"), f"s{number % 4}") for number in range(12)])
    searcher = find(indexed, "the", session_id="s1")
    assert (positions(searcher), searcher.indexed) == ([10, 6, 2], False)
    monkeypatch.setattr(plan, "SCOPED_EVENTS", 2)
    searcher = find(indexed, "the", session_id="s1")
    assert (positions(searcher), searcher.indexed) == ([10, 6, 2], True)


@pytest.mark.parametrize(
    "text",
    [
        '"',
        '"""',
        '" OR "',
        "a AND b",
        "NOT text",
        "NEAR(a b)",
        "text: x",
        "te*",
        "^te",
        "{te}",
        "%_\\",
        "'; DROP TABLE events; --",
        "\0\0\0",
        "a\0b",
        "\ud800\udfff x",
        "世界你好",
        "e\u0301te\u0301",
        "👩\u200d👩\u200d👧",
        "y" * 60_000,
    ],
)
def test_no_text_is_taken_for_syntax(indexed: Given, text: str) -> None:
    indexed(said(f"before {text} after"), said("something else"))
    for sought in (text, f"e {text} a"):
        assert positions(find(indexed, sought)) == [1]
    assert positions(find(indexed, f"{text}!")) == []


def test_a_step_of_a_find_is_bounded_however_common_the_word(
    indexed: Given, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan, "BATCH_EVENTS", 4)
    indexed(*[said("the same") for _ in range(30)])
    looked = indexed.log.store.read_sync(Searcher(ItemQuery(text="the"), limit=1).read_batch)
    assert [hit.ref.position for hit in looked.hits] == [30, 29, 28, 27]


def test_the_index_finds_by_its_trigrams_and_reads_no_more(indexed: Given) -> None:
    expression = search_index.expression("the zebra")
    assert expression == '"the" " ze" "bra"'
    for sql, parameters in (
        (full_text.MATCHES, (expression, 1, 9, 5)),
        (full_text.COUNT, (expression, 5)),
    ):
        plan = [step for *_, step in indexed.ask(f"EXPLAIN QUERY PLAN {sql}", *parameters)]
        assert any("VIRTUAL TABLE INDEX" in step and "M1" in step for step in plan)
        assert not any("TEMP B-TREE" in step for step in plan)


def test_it_is_part_of_the_unit_of_work_that_appends(indexed: Given) -> None:
    with pytest.raises(ZeroDivisionError):
        indexed.write(lambda tx: (append(tx, "s", said("gone"), branch_id="main"), 1 / 0))
    assert rows(indexed) == []
