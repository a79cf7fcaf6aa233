"""What an erase keeps of an event is enough for its replay: each kind by an example."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from eventlog import ContentErased, ItemRef, ItemsReplaced, MetadataSet
from eventlog.structures import Structures
from projections import Conversations, Usage, erasing, replay
from projections.erasable import PoppedItems
from projections.state import fold
from tests.history import meant, seen
from tests.projections.given import ANSWER, USER, added, branched, on, popped, used
from tests.projections.test_replay import stored

if TYPE_CHECKING:
    from tests.projections.given import Given

HISTORIES: dict[str, list[Any]] = {
    "popped, and a branch that left there": [
        added(USER),
        added(USER, ANSWER),
        branched("b", (2, 1)),
        popped(2, 1),
        popped(2, 0, 2),
        on("b", popped(2, 1)),
        on("b", popped(2, 0, 2)),
    ],
    "replaced by what was replaced again": [
        added(USER, ANSWER),
        ItemsReplaced(first_item=ItemRef(1, 1), items=[USER, USER]),
        used(3, 15),
        ItemsReplaced(first_item=ItemRef(2, 0), items=[ANSWER]),
    ],
    "labels that later ones replaced": [
        MetadataSet(user_id="alice", metadata={"a": 1}),
        MetadataSet(user_id="bob", metadata={"b": 2}),
    ],
}


@pytest.mark.parametrize("name", HISTORIES)
def test_a_replay_after_an_erase_gives_the_same_tables(given: Given, name: str) -> None:
    given(*HISTORIES[name])
    before = given.log.store.read_sync(seen)
    erased = asyncio.run(erasing.erase(given.log, PoppedItems()))
    assert erased.events > 0
    assert given.log.store.read_sync(seen) == before == meant(fold(stored(given)))
    different: list[Any] = []
    both = [Conversations(), Usage()]
    replay(given.log, both, check=True, on_difference=different.append)
    assert different == []


def test_what_was_erased_before_structures_were_kept_has_no_items(given: Given) -> None:
    given(added(USER), added(ANSWER), popped(2, 0), ContentErased(positions=[2]))
    given.write(lambda tx: tx.execute("UPDATE events SET data = NULL WHERE position = 2"))
    replay(given.log, [Conversations(), Usage()])
    assert given.refs() == [(1, 0)]
    assert given.log.store.read_sync(seen) == meant(fold(stored(given)))


def test_a_structure_is_found_that_came_after_the_session_was_looked_through(given: Given) -> None:
    structures = Structures()
    given(added(USER), added(ANSWER), popped(2, 0))
    for erases in (False, True):
        if erases:
            asyncio.run(erasing.erase(given.log, PoppedItems()))
        events = stored(given)
        given.log.store.read_sync(lambda tx, found=events: structures.fill(tx, found))
        assert events[1].is_erased == erases
        assert events[1].outlined().event is not None
        assert (events[1].event is None) == erases
