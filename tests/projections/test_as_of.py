"""The past: at every version, a session reads as the fold of its first events says."""

from __future__ import annotations

import asyncio
from contextlib import closing
from datetime import UTC, datetime, timedelta, timezone
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given

from agents_eventlog import EventLogSession, projections
from agents_eventlog.eventlog import (
    BranchDeleted,
    EventLog,
    ItemsAdded,
    ItemsReplaced,
    SessionCleared,
    SessionDeleted,
    codec,
)
from agents_eventlog.eventlog.appender import append_all
from agents_eventlog.eventlog.errors import (
    ConversationError,
    UndecodableEventError,
    VersionNotFoundError,
)
from agents_eventlog.eventlog.payloads import INSERT_EVENT
from agents_eventlog.eventlog.storage.sqlite import schema
from agents_eventlog.projections.conversations import as_of as past
from agents_eventlog.projections.conversations import queries as conversation_queries
from agents_eventlog.projections.reference import fold
from tests.history import START, Entry, empty, items_of, meant
from tests.projections.given import Given, added, branched, on, popped
from tests.properties.profiles import examples
from tests.properties.strategies import contents, histories

if TYPE_CHECKING:
    from pathlib import Path

    from agents_eventlog.eventlog import Event, RecordedEvent, Transaction

SECOND = 1_000_000


def stored(events: list[RecordedEvent]) -> Transaction:
    """Return a database that holds these events and nothing else."""
    tx = empty([])
    tx.execute(schema.EVENTS)
    for e in events:
        columns = (e.position, e.session_id, e.version, e.type, e.schema_version, e.branch_id)
        rest = (e.data, e.data_digest, e.metadata_json, e.idempotency_key, e.recorded_at, e.digest)
        tx.execute(INSERT_EVENT.one, (*columns, *rest))
    return tx


def pictured(then: Transaction, session_id: str) -> dict[str, Any]:
    """Return the session's branches as the tables have them, with the contents of their items."""
    rows = then.all(
        "SELECT branch_id, is_live, from_branch_id, turn, created_position, updated_at"
        " FROM branches WHERE session_id = ?",
        (session_id,),
    )
    found = {}
    for branch_id, *columns in rows:
        pointer = conversation_queries.place(then, session_id, branch_id).pointer
        found[branch_id] = (
            columns,
            items_of(then, pointer),
            repr(conversation_queries.items(then, pointer)),
        )
    return found


def folded(
    events: list[RecordedEvent], session_id: str, everything: list[RecordedEvent]
) -> dict[str, Any]:
    """Return the same picture of the fold, with contents from the events; of forked items, from all."""
    state = fold(events)
    if session_id not in state.sessions:
        return {}
    session = state.sessions[session_id]
    content = {**contents(everything), **contents(events)}
    rows = meant(state)[session_id]["branches"]
    is_gone = session.deleted_at is not None
    return {
        branch_id: (
            [
                int(branch.is_live),
                branch.from_branch_id,
                branch.turn,
                branch.created_position,
                branch.updated_at,
            ],
            [] if is_gone else rows[branch_id][2],
            repr([])
            if is_gone
            else repr([content[item.ref.position][item.ref.index] for item in branch.items]),
        )
        for branch_id, branch in session.branches.items()
    }


@given(histories())
@examples(40)
def test_every_version_reads_as_the_fold_of_its_prefix(events: list[RecordedEvent]) -> None:
    tx = stored(events)
    with closing(tx.connection):
        for session_id in ("a", "b"):
            own = [e for e in events if e.session_id == session_id]
            for version in range(len(own) + 1):
                with past.session_as_of(tx, session_id, version) as then:
                    assert pictured(then, session_id) == folded(own[:version], session_id, events)


@given(histories())
@examples(30)
def test_a_time_is_the_version_of_its_last_event(events: list[RecordedEvent]) -> None:
    tx = stored(events)
    with closing(tx.connection):
        for recorded in events:
            at = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=recorded.recorded_at)
            assert past.version_at(tx, recorded.session_id, at) == recorded.version
            before = at - timedelta(microseconds=1)
            assert past.version_at(tx, recorded.session_id, before) == recorded.version - 1


@pytest.fixture
def given_log(tmp_path: Path) -> Given:
    return Given(tmp_path / "log.db")


def was(log: Given, as_of: past.AsOf, branch_id: str = "main") -> list[Any]:
    def unit(tx: Transaction) -> list[Any]:
        with past.session_as_of(tx, "s", as_of) as then:
            return conversation_queries.items(
                then, conversation_queries.place(then, "s", branch_id).pointer
            )

    return log.log.store.read_sync(unit)


def test_what_was_popped_cleared_and_deleted_is_there_as_it_was(given_log: Given) -> None:
    given_log(
        added("one", "two"),
        popped(1, 1),
        branched("b", (1, 0)),
        on("b", ItemsAdded(items=["three"])),
        on("b", ItemsReplaced(first_item=None, items=["four"])),
        BranchDeleted(branch_id="b"),
        SessionCleared(),
        SessionDeleted(),
    )
    assert [was(given_log, version) for version in range(9)] == [
        [],
        ["one", "two"],
        *[["one"]] * 5,
        [],
        [],
    ]
    assert [was(given_log, version, "b") for version in range(9)] == [
        *[[]] * 3,
        ["one"],
        ["one", "three"],
        ["four"],
        *[[]] * 3,
    ]


def test_a_version_that_never_was_is_an_error_that_tells_which_were(given_log: Given) -> None:
    given_log(added("one"), added("two"))
    for version in (-1, 3):
        with pytest.raises(
            VersionNotFoundError, match=rf"no version {version} \(latest: 2\)"
        ) as caught:
            was(given_log, version)
        assert isinstance(caught.value, ConversationError)
        error = caught.value
        assert (error.session_id, error.version, error.actual) == ("s", version, 2)


@pytest.mark.parametrize("as_of", [True, "1", 1.0, None])
def test_what_is_no_version_and_no_time_is_refused(given_log: Given, as_of: Any) -> None:
    given_log(added("one"))
    with pytest.raises(TypeError, match=f"as_of.* got {type(as_of).__name__}"):
        was(given_log, as_of)


def test_a_time_without_a_zone_is_utc(given_log: Given) -> None:
    given_log(added("one"), added("two"))
    first = datetime(1970, 1, 1) + timedelta(microseconds=START + SECOND)  # noqa: DTZ001
    assert was(given_log, first) == ["one"]
    assert was(given_log, first - timedelta(seconds=1)) == []
    elsewhere = first.replace(tzinfo=UTC).astimezone(timezone(timedelta(hours=5)))
    assert was(given_log, elsewhere) == ["one"]


def _imported(events: list[tuple[Event, bytes]], at: int, tx: Transaction) -> None:
    append_all(tx, "s", events, branch_id="main", occurred_at=at)


def test_an_imported_event_counts_from_when_it_happened(given_log: Given) -> None:
    long_ago = datetime(2001, 1, 1, tzinfo=UTC)
    for days, text in ((0, "old"), (2, "newer")):
        at = int((long_ago + timedelta(days=days)).timestamp()) * SECOND
        event = ItemsAdded(items=[text])
        pair = (event, codec.encode(event))
        given_log.write(
            partial(_imported, [pair], at),
        )
    assert was(given_log, long_ago - timedelta(days=1)) == []
    assert was(given_log, long_ago + timedelta(days=1)) == ["old"]
    assert was(given_log, long_ago + timedelta(days=3)) == ["old", "newer"]


def test_an_erased_content_does_not_come_back(given_log: Given) -> None:
    given_log(added("one"), added("secret"), added("three"), popped(3, 0))
    given_log.write(lambda tx: tx.execute("UPDATE events SET data = NULL WHERE position = 2"))
    assert was(given_log, 3) == ["one", "three"]


def test_an_event_that_cannot_be_read_is_named(given_log: Given) -> None:
    given_log(added("one"), added("two"))

    def break_it(tx: Transaction) -> None:
        tx.execute("DROP TRIGGER events_are_never_changed")
        tx.execute("UPDATE events SET data = '{' WHERE position = 2")

    given_log.write(break_it)
    assert was(given_log, 1) == ["one"]
    with pytest.raises(UndecodableEventError, match="position 2"):
        was(given_log, 2)


def test_looking_back_writes_nothing(given_log: Given, tmp_path: Path) -> None:
    given_log(added("one"), added("two"))
    given_log.log.close()
    log = EventLog.open_sync(tmp_path / "log.db", read_only=True)
    log.store.read_sync(lambda tx: tx.one("SELECT 1 FROM events"))
    try:
        before = [(f.name, f.read_bytes()) for f in sorted(tmp_path.iterdir())]
        items = log.store.read_sync(lambda tx: _items_at(tx, 1))
        assert items == ["one"]
        assert [(f.name, f.read_bytes()) for f in sorted(tmp_path.iterdir())] == before
    finally:
        log.close()


def _items_at(tx: Transaction, version: int) -> list[Any]:
    with past.session_as_of(tx, "s", version) as then:
        return conversation_queries.items(
            then, conversation_queries.place(then, "s", "main").pointer
        )


async def test_the_past_of_a_log_in_memory_can_be_asked() -> None:
    async with EventLog.open(":memory:", projections=projections.default()) as log:
        await log.append("s", ItemsAdded(items=["one"]))
        await log.append("s", SessionCleared())
        assert await past.items_as_of(log, "s", 1) == ["one"]
        assert await past.items_as_of(log, "s", 2) == []
        branches = await past.query_as_of(
            log, "s", 1, lambda then: then.all(conversation_queries.BRANCHES, ("s",))
        )
        assert [branch_id for branch_id, *_ in branches] == ["main"]


async def test_a_session_reads_its_own_past(tmp_path: Path) -> None:
    async with EventLog.open(tmp_path / "log.db") as log:
        session = EventLogSession("s", log)
        one, two = {"role": "user", "content": "one"}, {"role": "user", "content": "two"}
        await session.add_items([one, two])  # type: ignore[list-item]
        await session.create_branch_from_turn(2, "b")
        await session.pop_item()
        assert await session.get_items() == []
        assert await session.get_items(as_of=2) == [one]
        assert await session.get_items(branch_id="main", as_of=1) == [one, two]
        assert await session.get_items(1, "main", as_of=1) == [two]
        assert await session.get_items(0, "main", as_of=1) == []
        assert await session.get_items(as_of=1) == []  # the branch was not there yet
        assert await session.get_items(branch_id="main", as_of=datetime.now(UTC)) == [one, two]
        with pytest.raises(VersionNotFoundError):
            await session.get_items(as_of=4)
        await session.clear_session()
        assert await session.get_items(as_of=3, branch_id="main") == [one, two]
        assert session.current_branch == "main"


async def test_the_past_is_read_in_call_order(tmp_path: Path) -> None:
    async with EventLog.open(tmp_path / "log.db") as log:
        session = EventLogSession("s", log)
        one: Any = {"role": "user", "content": "one"}
        _, items = await asyncio.gather(session.add_items([one]), session.get_items(as_of=1))
        assert items == [one]


async def test_a_long_history_is_built_page_by_page(tmp_path: Path) -> None:
    async with EventLog.open(tmp_path / "log.db", durability="normal") as log:
        await log.append("s", [ItemsAdded(items=[number]) for number in range(2_500)])
        await log.append("other", ItemsAdded(items=["elsewhere"]))
        assert await past.items_as_of(log, "s", 2_345) == list(range(2_345))


def test_an_entry_of_another_session_is_not_in_it(given_log: Given) -> None:
    given_log(added("one"), Entry(added("other"), "t"), added("two"))
    assert was(given_log, 2) == ["one", "two"]


def test_of_events_that_somebody_took_away_the_past_shows_what_is_left(given_log: Given) -> None:
    given_log(added("one"), added("two"), added("three"))

    def take_away(tx: Transaction) -> None:
        tx.execute("DROP TRIGGER events_are_never_deleted")
        tx.execute("DELETE FROM events WHERE position = 2")

    given_log.write(take_away)
    assert was(given_log, 2) == ["one"]
    assert was(given_log, 3) == ["one", "three"]
