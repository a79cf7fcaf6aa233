"""What builders and readers remember of rows, and so need not look up."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from agents_eventlog import projections
from agents_eventlog.eventlog import ItemRef, ItemsReplaced
from agents_eventlog.projections import Usage
from agents_eventlog.projections.conversations import branch_tree
from agents_eventlog.projections.conversations import builder as conversations
from agents_eventlog.projections.conversations import queries as conversation_queries
from agents_eventlog.projections.conversations.branch_tree import Pointer
from tests.projections.given import ANSWER, USER, added, branched, on, popped, watched

if TYPE_CHECKING:
    from agents_eventlog.eventlog import Transaction
    from agents_eventlog.projections.conversations.branch_tree import Span
    from tests.projections.given import Given


def queries(seen: list[str]) -> list[str]:
    """Return those of some statements that look something up in the tables."""
    return [sql for sql in seen if re.match(r"(?s)\s*SELECT\b.*\bFROM (items|segments)\b", sql)]


def test_what_was_just_written_is_not_looked_up(given: Given) -> None:
    given(added(), added(ANSWER), branched("b", (1, 0)), on("b", added()), on("b", added()))
    given(branched("c", (4, 1), source="b"), on("c", added()), added())
    end = given.write(lambda tx: conversation_queries.place(tx, "s", "c").pointer)
    with watched(given.log) as seen:
        given(added(), added(ANSWER)).write(lambda tx: list(branch_tree.spans(tx, end)))
    assert queries(seen) == []


def test_a_pop_looks_once_at_the_end_of_its_branch(given: Given) -> None:
    given(added())
    with watched(given.log) as seen:
        given.write(lambda tx: branch_tree.tail(tx, Pointer(1, 2)))
        given(popped(1, 1), added())
    assert len(queries(seen)) == 1, seen


def test_where_a_segment_ends_that_was_cut_is_known(given: Given) -> None:
    given(added())
    with watched(given.log) as seen:
        given(ItemsReplaced(first_item=ItemRef(1, 1), items=[ANSWER]))
    assert [sql for sql in queries(seen) if "MAX(number)" in sql] == []


def test_a_chat_that_goes_on_writes_of_its_rows_only_what_grows(given: Given) -> None:
    given(added())
    with watched(given.log) as seen:
        given(added(USER, ANSWER), popped(2, 1))
    assert [sql for sql in seen if "INTO sessions" in sql or "INTO branches" in sql] == []


def test_where_a_branch_stands_is_looked_up_once(given: Given) -> None:
    given(added()).write(lambda tx: tx.cache.clear())

    def look(tx: Transaction) -> list[Span]:
        return list(branch_tree.spans(tx, conversation_queries.place(tx, "s", "main").pointer))

    with watched(given.log) as seen:
        assert given.write(look) == given.write(look) == [(1, 1, 2)]
        assert given.write(lambda tx: conversations.session(tx, "s")) is not None
    assert len([sql for sql in seen if "sessions" in sql or "FROM branches" in sql]) == 1, seen
    assert len([sql for sql in seen if "parent_segment_id" in sql]) == 1, seen


def test_who_joins_what_is_kept_up_already_asks_nothing_of_the_file(given: Given) -> None:
    with watched(given.log) as seen:
        given.log.join(projections.Projections(Usage()))
        given.log.join(projections.default())
        assert seen == []


def test_a_writer_that_nobody_disturbs_looks_at_no_checkpoint(given: Given) -> None:
    given(added())
    with watched(given.log) as seen:
        given(added()).write(lambda _: None)
    assert [sql for sql in seen if "checkpoints" in sql] == ["UPDATE checkpoints SET position = 2"]


def test_a_reader_looks_at_the_checkpoints_once_until_somebody_writes(given: Given) -> None:
    kept_up = projections.default()
    given.log.join(kept_up)
    given(added())
    with watched(given.log) as seen:
        for _ in range(2):
            given.log.store.read_sync(kept_up.require_fresh)
    assert len([sql for sql in seen if "FROM checkpoints" in sql]) == 1
