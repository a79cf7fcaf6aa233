"""A branch's items come in order and whole, however they are asked for and whatever their events hold."""

from __future__ import annotations

import json
import sqlite3
from typing import TYPE_CHECKING, Any

import pytest

from agents_eventlog.eventlog import ItemsReplaced, errors
from agents_eventlog.projections.conversations import queries as conversation_queries
from tests.projections.given import added, branched, on, popped

if TYPE_CHECKING:
    from agents_eventlog.eventlog import Transaction
    from tests.projections.given import Given


def items(given: Given, newest: int | None = None, branch_id: str = "main") -> list[Any]:
    """Return a branch's items, all or the newest."""
    return given.log.store.read_sync(
        lambda tx: conversation_queries.items(
            tx, conversation_queries.place(tx, "s", branch_id).pointer, newest
        )
    )


def every_way(given: Given, branch_id: str = "main") -> list[Any]:
    """Return a branch's items, having asked for the newest so many of them, for each number."""
    whole = items(given, None, branch_id)
    for newest in range(1, len(whole) + 2):
        assert items(given, newest, branch_id) == whole[-newest:]
    return whole


def test_items_come_in_order_from_events_of_any_size(given: Given) -> None:
    given(added("a"), added("b", "c", "d"), added("e", "f"))
    assert every_way(given) == ["a", "b", "c", "d", "e", "f"]


def test_the_newest_none_are_none(given: Given) -> None:
    given(added("a"), added("b"))
    assert items(given, 0) == []


def test_an_event_of_which_some_items_went_shows_the_others(given: Given) -> None:
    given(added("a", "b", "c"), popped(1, 2), added("d", "e"), popped(3, 1), added("f"))
    assert every_way(given) == ["a", "b", "d", "f"]


def test_a_branch_from_the_middle_of_an_event_shares_its_beginning(given: Given) -> None:
    given(added("a", "b", "c"), branched("other", (1, 1)), on("other", added("x", "y")))
    given(added("d"))
    assert every_way(given, "other") == ["a", "b", "x", "y"]
    assert every_way(given) == ["a", "b", "c", "d"]


def test_what_replaces_items_is_read_like_what_was_added(given: Given) -> None:
    given(added("a", "b"), ItemsReplaced(first_item=None, items=["c", "d"]), added("e"))
    assert every_way(given) == ["c", "d", "e"]


def test_a_payload_beyond_msgspec_leaves_its_neighbours_in_place(given: Given) -> None:
    given(added("a", "b"), added("\ud800", float("inf")), added("c"))
    assert every_way(given) == ["a", "b", "\ud800", float("inf"), "c"]


def test_text_with_line_breaks_stays_one_item(given: Given) -> None:
    texts = ["a\nb", "\r\n", "\u2028", 'c\\n"d"']
    given(*(added(text) for text in texts))
    assert every_way(given) == texts


def test_a_history_of_many_megabytes_is_read_at_once(given: Given) -> None:
    batches = [[{"n": n, "text": "x" * 20_000}, n] for n in range(100)]
    given(*(added(*batch) for batch in batches))
    assert items(given) == [item for batch in batches for item in batch]


def test_an_erased_payload_is_named(given: Given) -> None:
    given(added("a"), added("b"), added("c"))
    given.write(lambda tx: tx.execute("UPDATE events SET data = NULL WHERE position = 2"))
    with pytest.raises(errors.UndecodableEventError, match="position 2 was erased"):
        items(given)


def test_an_erased_question_is_named(given: Given) -> None:
    given(added({"role": "user", "content": "a"}), added({"role": "user", "content": "b"}))
    given.write(lambda tx: tx.execute("UPDATE events SET data = NULL WHERE position = 2"))

    def questions(tx: Any) -> Any:
        pointer = conversation_queries.place(tx, "s", "main").pointer
        return conversation_queries.user_items(tx, pointer)

    with pytest.raises(errors.UndecodableEventError, match="position 2 was erased"):
        given.log.store.read_sync(questions)


@pytest.mark.parametrize(
    ("damage", "told"),
    [("position = 9", "position 9 is missing"), ("index_in_event = 7", "no item 7")],
)
def test_an_item_of_which_the_event_knows_nothing_is_named(
    given: Given, damage: str, told: str
) -> None:
    given(added("a"), added("b"))
    given.write(lambda tx: tx.execute(f"UPDATE items SET {damage} WHERE number = 2"))

    def entries(tx: Any) -> Any:
        pointer = conversation_queries.place(tx, "s", "main").pointer
        return conversation_queries.entries(tx, pointer)

    with pytest.raises(errors.UndecodableEventError, match=told):
        given.log.store.read_sync(entries)


def test_the_time_of_a_missing_event_is_asked_for_in_vain(given: Given) -> None:
    given(added("a"))
    times = given.log.store.read_sync(lambda tx: conversation_queries.times(tx, "s"))
    with pytest.raises(errors.UndecodableEventError, match="position 9 is missing"):
        times[9]


def test_a_damaged_payload_is_named(given: Given) -> None:
    given(added("a"), added("b"), added("c"))
    with pytest.raises(errors.UndecodableEventError, match="position 2 cannot be decoded"):
        given.log.store.read_sync(_damaged)


def _damaged(tx: Any) -> Any:
    """Read where the second event's text is no JSON; a view in place of the table shows it so."""
    tx.execute("PRAGMA query_only=OFF")
    damaged = json.dumps('{"items":["b"')[1:-1].replace('\\"', '"')
    tx.execute(
        "CREATE TEMP VIEW events AS SELECT position, session_id, type, schema_version, "
        f"CASE position WHEN 2 THEN '{damaged}' ELSE data END AS data FROM main.events"
    )
    try:
        return conversation_queries.items(tx, conversation_queries.place(tx, "s", "main").pointer)
    finally:
        tx.execute("DROP VIEW temp.events")
        tx.execute("PRAGMA query_only=ON")


def test_items_that_are_too_long_for_one_value_are_read_one_by_one(given: Given) -> None:
    given(added("a" * 7_000), added("b" * 7_000), added("c" * 7_000))

    def limited(tx: Transaction) -> Any:
        before = tx.connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, 15_000)
        try:
            return conversation_queries.items(
                tx, conversation_queries.place(tx, "s", "main").pointer
            )
        finally:
            tx.connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, before)

    found = given.log.store.read_sync(limited)
    assert [item[:1] for item in found] == ["a", "b", "c"]
