"""The paths of a session, held to what the tables said at each version."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from agents_eventlog import AdvancedSQLiteSession
from agents_eventlog.eventlog import ItemRef, RecordedEvent
from agents_eventlog.projections.conversations import queries as conversation_queries
from agents_eventlog.projections.conversations.as_of import query_as_of
from agents_eventlog.projections.conversations.paths import ROOT, Effect, Paths

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from agents_eventlog.eventlog import Transaction


def user(text: str) -> Any:
    return {"role": "user", "content": text}


@pytest.fixture
async def session(tmp_path: Path) -> AsyncIterator[AdvancedSQLiteSession]:
    with closing(AdvancedSQLiteSession("s", tmp_path / "log.db", durability="normal")) as session:
        yield session


async def paths_of(session: AdvancedSQLiteSession) -> Paths:
    return await session.log.query(lambda tx: Paths.read(tx, session.session_id))


async def refs_at(session: AdvancedSQLiteSession, branch_id: str, version: int) -> list[ItemRef]:
    def refs(then: Transaction) -> list[ItemRef]:
        place = conversation_queries.place(then, session.session_id, branch_id)
        return conversation_queries.refs(then, place.pointer)

    return await query_as_of(session.log, session.session_id, version, refs)


async def wander(session: AdvancedSQLiteSession) -> None:
    """Do everything that moves the tip of a branch."""
    await session.add_items([user("one"), user("two"), user("three")])
    await session.pop_item()
    await session.undo_turn()
    await session.redo()
    await session.create_branch_from_turn(2, "draft")
    await session.add_items([user("another two")])
    await session._atomic_replace_items([user("all in one")])
    await session.create_branch("deeper")
    await session.switch_to_branch("main")
    await session.delete_branch("draft")
    snapshot = await session._get_compaction_snapshot(2)
    assert snapshot is not None
    await snapshot.replace_suffix(1, [user("short")])
    await session.clear_session()
    await session.create_branch("on an empty main")
    await session.add_items([user("again")])


async def test_the_items_of_each_branch_at_each_version_are_those_of_the_tables_then(
    session: AdvancedSQLiteSession,
) -> None:
    await wander(session)
    paths = await paths_of(session)
    assert paths.version == await session.log.version("s")
    assert set(paths.moves) == {"main", "draft", "deeper", "on an empty main"}
    for version in range(paths.version + 1):
        for branch_id in paths.moves:
            shown = [node.ref for node in paths.items(branch_id, version)]
            assert shown == await refs_at(session, branch_id, version)
    for node in paths.nodes[1:]:
        assert paths.nodes[paths.number(node.ref) or ROOT] == node


async def test_what_is_fed_later_gives_what_is_read_at_once(
    session: AdvancedSQLiteSession,
) -> None:
    await session.add_items([user("one")])
    paths = await paths_of(session)
    await wander(session)
    await session.log.query(lambda tx: paths.catch_up(tx, "s"))
    assert vars(paths) == vars(await paths_of(session))


async def test_long_branches_part_where_they_were_created(session: AdvancedSQLiteSession) -> None:
    await session.add_items([user(str(number)) for number in range(70)])
    await session.create_branch_from_turn(12, "other")
    await session.add_items([user(str(number)) for number in range(90)])
    paths = await paths_of(session)
    main, other = paths.tip("main"), paths.tip("other")
    assert paths.nodes[paths.shared(main, other)].turn == 11
    assert paths.shared(main, main) == main
    assert [paths.nodes[paths.ancestor(main, depth)].depth for depth in range(71)] == [*range(71)]
    version = paths.version
    opening = paths.turn_opening("main", 5, version)
    assert opening == paths.turn_opening("other", 5, version)
    assert paths.turn_opening("main", 30, version) != paths.turn_opening("other", 30, version)
    assert paths.turn_opening("main", 99, version) is None


async def test_an_erased_session_has_no_live_branch(session: AdvancedSQLiteSession) -> None:
    await session.add_items([user("one")])
    await session.log.erase(session_id="s")
    paths = await paths_of(session)
    assert not paths.exists("main")
    assert paths.exists("main", 1)
    assert paths.items("main") == []
    assert len(paths.items("main", 1)) == 1


async def test_events_that_fit_nothing_change_nothing(session: AdvancedSQLiteSession) -> None:
    await session.add_items([user("one")])
    event = await anext(aiter(session.log.read("s")))
    paths = Paths()
    paths.feed(event)
    lost = (2, "s", 2, "items_added", 1, "main", None, b"", None, None, 0, b"")
    paths.feed(RecordedEvent(lost))  # its content and its structure are gone
    paths.feed(RecordedEvent((*lost[:3], "item_popped", *lost[4:])))
    for data in (
        b'{"item":[9,0],"emptied_turn":null}',
        b'{"turn":1,"removed":[[9,0]]}',
        b'{"turn":1,"removed":[]}',
        b'{"first_item":[9,0],"items":[]}',
        (
            b'{"origins":[{"session_id":"t","items":[[9,0,0]]}],"kinds":[{"role":"user"}],'
            b'"from_session_id":"t","from_branch_id":"main"}'
        ),
        b'{"branch_id":"nowhere"}',
    ):
        kind = {
            b"i": "item_popped",
            b"t": "turn_undone",
            b"f": "items_replaced",
            b"o": "session_forked",
        }
        name = kind.get(data[2:3], "branch_deleted")
        paths.feed(RecordedEvent((3, "s", 3, name, 1, "main", data, b"", None, None, 0, b"")))
    assert [node.ref for node in paths.items("main")] == [ItemRef(event.position, 0)]
    assert paths.exists("main")


async def test_what_is_unknown_was_not_removed_and_removed_nothing(
    session: AdvancedSQLiteSession,
) -> None:
    await session.add_items([user("one"), user("two")])
    await session.pop_item()
    paths = await paths_of(session)
    assert paths.removal(ItemRef(99, 0)) is None
    assert paths.effect(0) == paths.effect(99) == Effect()
    assert paths.effect(2) == Effect(items=1, branches=1, number=2)


async def test_a_node_has_the_lifelines_of_its_branch(session: AdvancedSQLiteSession) -> None:
    await session.add_items([user("one"), user("two")])
    await session.pop_item()
    await session.create_branch("other")
    paths = await paths_of(session)
    popped = paths.number(ItemRef(1, 1))
    assert popped is not None
    [line] = paths.lifelines("main").of_node(popped)
    assert (line.since, line.until) == (1, 2)
    assert paths.lifelines("other").of_node(popped) == []
    assert popped in paths.lifelines("main")
    assert popped not in paths.lifelines("other")
    assert paths.began("other") == 3
    assert paths.nodes[paths.last_tip("main", 1)].ref == ItemRef(1, 1)
    assert paths.last_tip("other", 2) == ROOT
    assert paths.branches_with(ItemRef(1, 0)) == ["main", "other"]
    assert paths.branches_with(ItemRef(1, 1), 1) == ["main"]


async def test_a_deleted_session_has_removed_items_until_it_is_restored(
    session: AdvancedSQLiteSession,
) -> None:
    await session.add_items([user("one"), user("two")])
    await session.pop_item()
    await session.create_branch("other")
    await session.log.delete_session("s")
    paths = await paths_of(session)
    assert paths.removal(ItemRef(1, 0)) == paths.version
    assert paths.removal(ItemRef(1, 1)) == 2
    assert paths.effect(paths.version) == Effect(items=1, branches=2)
    await session.log.restore_session("s")
    paths = await paths_of(session)
    assert paths.removal(ItemRef(1, 0)) is None
