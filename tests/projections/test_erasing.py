"""What an erase keeps of an event is enough for its replay: each kind by an example."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from agents_eventlog.eventlog import (
    BranchDeleted,
    BranchSwitched,
    ContentErased,
    ItemRedacted,
    ItemRef,
    ItemsReplaced,
    ItemsWithheld,
    MetadataSet,
    SessionDeleted,
    SessionForked,
    SessionRestored,
    TurnRedone,
    TurnUndone,
)
from agents_eventlog.eventlog.erased_shapes import ErasedShapes
from agents_eventlog.eventlog.errors import BusyError
from agents_eventlog.projections import Conversations, Usage, replay
from agents_eventlog.projections.erasure import eraser
from agents_eventlog.projections.erasure.scopes import DeletedSessions, PoppedItems
from agents_eventlog.projections.reference import fold
from tests.history import meant, seen, stored
from tests.projections.given import ANSWER, USER, added, branched, on, popped, used

if TYPE_CHECKING:
    from agents_eventlog.eventlog import Event
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
    erased = asyncio.run(eraser.erase(given.log, PoppedItems()))
    assert erased.events > 0
    assert given.log.store.read_sync(seen) == before == meant(fold(stored(given.log)))
    different: list[Any] = []
    both = [Conversations(), Usage()]
    replay(given.log, both, check=True, on_difference=different.append)
    assert different == []


def test_what_was_erased_before_structures_were_kept_has_no_items(given: Given) -> None:
    given(added(USER), added(ANSWER), popped(2, 0), ContentErased(positions=[2]))
    given.write(lambda tx: tx.execute("UPDATE events SET data = NULL WHERE position = 2"))
    replay(given.log, [Conversations(), Usage()])
    assert given.refs() == [(1, 0)]
    assert given.log.store.read_sync(seen) == meant(fold(stored(given.log)))


def test_a_structure_is_found_that_came_after_the_session_was_looked_through(given: Given) -> None:
    structures = ErasedShapes()
    given(added(USER), added(ANSWER), popped(2, 0))
    for erases in (False, True):
        if erases:
            asyncio.run(eraser.erase(given.log, PoppedItems()))
        events = stored(given.log)
        given.log.store.read_sync(lambda tx, found=events: structures.fill(tx, found))
        assert events[1].is_erased == erases
        assert events[1].outlined().event is not None
        assert (events[1].event is None) == erases


BLANKED: dict[str, Event] = {
    "branch_created": branched("c", (1, 0)),
    "branch_switched": BranchSwitched(from_branch_id="main", branch_id="b"),
    "branch_deleted": BranchDeleted(branch_id="b"),
    "item_popped": popped(1, 1),
    "items_replaced": ItemsReplaced(first_item=ItemRef(1, 0), items=[ANSWER]),
    "items_replaced, with an item that is gone": ItemsReplaced(
        first_item=ItemRef(99, 0), items=[ANSWER]
    ),
    "turn_undone": TurnUndone(turn=1, removed=[ItemRef(1, 0), ItemRef(1, 1)]),
    "turn_undone, with an item that is gone": TurnUndone(turn=1, removed=[ItemRef(99, 0)]),
    "turn_redone": TurnRedone(turn=1, undone_version=1, items=[USER]),
    "metadata_set": MetadataSet(user_id="alice"),
    "usage_recorded": used(1, 5).event,
    "content_erased": ContentErased(positions=[], is_whole=True),
    "items_withheld": ItemsWithheld(position=1, items=[ANSWER]),
    "item_redacted": ItemRedacted(item=ItemRef(1, 0), items=[ANSWER, ANSWER]),
    "session_forked": SessionForked(from_session_id="s", from_branch_id="b", origins=[], kinds=[]),
}


@pytest.mark.parametrize("name", BLANKED)
@pytest.mark.parametrize("is_blank", [False, True])
def test_an_event_that_was_blanked_means_the_same_to_tables_and_fold(
    given: Given, name: str, is_blank: bool
) -> None:
    given(added(USER, ANSWER), branched("b", (1, 1)), on("main", BLANKED[name]))
    if is_blank:
        given.write(lambda tx: tx.execute("UPDATE events SET data = NULL WHERE position = 3"))
        replay(given.log, [Conversations(), Usage()])
    assert given.log.store.read_sync(seen) == meant(fold(stored(given.log)))


def test_an_erasure_that_was_blanked_itself_keeps_no_structure(given: Given) -> None:
    given(added(USER), added(ANSWER), popped(2, 0))
    asyncio.run(eraser.erase(given.log, PoppedItems()))
    given.write(
        lambda tx: tx.execute("UPDATE events SET data = NULL WHERE type = 'content_erased'")
    )
    events = stored(given.log)
    given.log.store.read_sync(lambda tx: ErasedShapes().fill(tx, events))
    assert events[1].structure is None


def test_structures_are_found_in_any_number_of_sessions(
    given: Given, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agents_eventlog.eventlog.erased_shapes.MAX_REMEMBERED", 0)
    for session_id in "abc":
        given(on("main", added(USER), session_id))
    given(*[on("main", popped(n, 0), name) for n, name in enumerate("abc", start=1)])
    asyncio.run(eraser.erase(given.log, PoppedItems()))
    events = stored(given.log)
    given.log.store.read_sync(lambda tx: ErasedShapes().fill(tx, events))
    assert [event.structure is not None for event in events[:3]] == [True] * 3


def test_a_file_that_another_process_holds_is_rewritten_later(
    given: Given, monkeypatch: pytest.MonkeyPatch
) -> None:
    given(added(USER), added(ANSWER), popped(2, 0))
    rewrite = given.log.store.rewrite

    def busy() -> bool:
        raise BusyError("held", path=given.log.path)

    monkeypatch.setattr(given.log.store, "rewrite", busy)
    assert not asyncio.run(eraser.erase(given.log, PoppedItems())).is_complete
    monkeypatch.setattr(given.log.store, "rewrite", rewrite)
    assert asyncio.run(eraser.erase(given.log, PoppedItems())).is_complete


def test_a_session_that_is_restored_meanwhile_is_not_erased(
    given: Given, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(eraser, "PAGE_EVENTS", 1)
    for session_id in "abc":
        given(on("main", added(USER), session_id), on("main", SessionDeleted(), session_id))

    def restore(_: object) -> None:
        given(on("main", SessionRestored(), "c"))

    erased = asyncio.run(eraser.erase(given.log, DeletedSessions(given.now), on_progress=restore))
    assert erased.sessions == 2
    assert [event.is_erased for event in stored(given.log) if event.type == "items_added"] == [
        True,
        True,
        False,
    ]


def test_what_somebody_else_erased_meanwhile_is_told_once(
    given: Given, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(eraser, "PAGE_EVENTS", 1)
    given(added(USER), added(USER), popped(1, 0), popped(2, 0), popped(1, 0))

    def blank(_: object) -> None:
        given.write(
            lambda tx: tx.execute(
                "UPDATE events SET data = NULL WHERE position < 3 AND data IS NOT NULL"
            )
        )

    erased = asyncio.run(eraser.erase(given.log, PoppedItems(), on_progress=blank))
    assert erased.events == 1
    assert sum(event.type == "content_erased" for event in stored(given.log)) == 1


def test_who_holds_copies_is_told_of_the_items_and_of_nothing_else(given: Given) -> None:
    given(added(USER), popped(1, 0), MetadataSet(metadata={"a": 1}), MetadataSet(metadata={"b": 2}))
    told: list[Any] = []
    asyncio.run(
        eraser.erase(
            given.log,
            PoppedItems(),
            forget=lambda _, session_id, items: told.append((session_id, list(items or ()))),
        )
    )
    assert told == [("s", [USER])]
