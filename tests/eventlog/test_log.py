"""Appending: all or nothing, at the version that was expected, once for each key."""

from __future__ import annotations

import asyncio
import gc
import pickle
import sqlite3
import weakref
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from agents_eventlog.eventlog import (
    AppendResult,
    BranchSwitched,
    Event,
    EventLog,
    ItemsAdded,
    MetadataSet,
    SessionCleared,
    errors,
    recording,
)
from agents_eventlog.projections import Projections, Usage, default
from tests.history import START

if TYPE_CHECKING:
    from pathlib import Path

ONE = ItemsAdded(items=["one"])
TWO = ItemsAdded(items=["two"])
CLEARED = SessionCleared()


def content(path: Path) -> bytes:
    """Return what is in a file."""
    return path.read_bytes()


async def test_a_session_counts_its_own_versions_and_the_log_its_positions(log: EventLog) -> None:
    assert await log.append("a", ONE) == AppendResult(version=1, position=1, events=1)
    assert await log.append("b", [ONE, TWO]) == AppendResult(version=2, position=3, events=2)
    assert await log.append("a", [CLEARED]) == AppendResult(version=2, position=4, events=1)
    assert [await log.version(name) for name in ("a", "b", "c")] == [2, 2, 0]


async def test_appending_nothing_says_where_things_stand(log: EventLog) -> None:
    await log.append("a", ONE)
    assert await log.append("a", []) == AppendResult(version=1, position=1, events=0)
    assert await log.version("a") == 1


async def test_an_event_comes_back_with_all_that_was_recorded(log: EventLog) -> None:
    with recording(actor="alice"):
        await log.append("a", ONE, branch_id="draft", idempotency_key="k")
    (found,) = [recorded async for recorded in log.read()]
    assert (found.position, found.version, found.session_id) == (1, 1, "a")
    assert (found.type, found.schema_version, found.branch_id) == ("items_added", 1, "draft")
    assert found.event == ONE
    assert found.metadata["actor"] == "alice"
    assert found.idempotency_key == "k"
    assert found.recorded_at > START
    assert found.digest == (await log.head()).digest


async def test_two_appends_at_once_get_positions_of_their_own(log: EventLog) -> None:
    done = await asyncio.gather(*(log.append("a", [ONE, TWO]) for _ in range(20)))
    assert [appended.version for appended in done] == list(range(2, 42, 2))
    assert [recorded.version async for recorded in log.read("a")] == list(range(1, 41))
    assert (await log.verify()).ok


# -- the version that was expected ----------------------------------------------------------------


@pytest.mark.parametrize("expected", ["any", "new", 0])
async def test_a_session_that_is_not_there_is_new_and_at_version_0(
    log: EventLog, expected: Any
) -> None:
    assert (await log.append("a", ONE, expected_version=expected)).version == 1


@pytest.mark.parametrize("expected", ["any", "exists", 2])
async def test_a_session_that_is_there_exists_at_its_version(log: EventLog, expected: Any) -> None:
    await log.append("a", [ONE, TWO])
    assert (await log.append("a", CLEARED, expected_version=expected)).version == 3


async def test_a_session_of_one_event_exists(log: EventLog) -> None:
    await log.append("a", ONE)
    assert (await log.append("a", TWO, expected_version="exists")).version == 2


@pytest.mark.parametrize(
    ("there", "expected"), [(0, "exists"), (0, 1), (2, "new"), (2, 0), (2, 1), (2, 3), (2, -1)]
)
async def test_an_append_at_another_version_is_refused_and_writes_nothing(
    log: EventLog, there: int, expected: Any
) -> None:
    await log.append("a", [ONE, TWO][:there])
    head = await log.head()
    with pytest.raises(errors.WrongExpectedVersionError) as caught:
        await log.append("a", CLEARED, expected_version=expected)
    assert (caught.value.session_id, caught.value.expected, caught.value.actual) == (
        "a",
        expected,
        there,
    )
    assert str(caught.value) == f"session 'a' is at version {there}, not {expected}"
    assert await log.head() == head


@pytest.mark.parametrize("expected", [None, "some", 1.5, 0.0, False])
async def test_what_is_no_version_is_refused_as_such(log: EventLog, expected: Any) -> None:
    with pytest.raises(errors.InvalidEventError, match="expected_version"):
        await log.append("a", ONE, expected_version=expected)


async def test_of_two_that_expect_the_same_version_one_gets_it(log: EventLog) -> None:
    done = await asyncio.gather(
        *(log.append("a", ONE, expected_version=0) for _ in range(5)), return_exceptions=True
    )
    assert [type(outcome) for outcome in done] == [
        AppendResult,
        *4 * [errors.WrongExpectedVersionError],
    ]
    assert await log.version("a") == 1


# -- the same append once ---------------------------------------------------------------------


async def test_a_repeated_append_happens_once_and_returns_its_first_result(log: EventLog) -> None:
    events = [ONE, TWO, ONE]
    first = await log.append("a", events, idempotency_key="k", expected_version=0)
    await log.append("a", CLEARED)
    head = await log.head()
    again = await log.append("a", events, idempotency_key="k", expected_version=0)
    assert again == first == AppendResult(version=3, position=3, events=3)
    assert await log.head() == head


@pytest.mark.parametrize(
    "other",
    [[TWO, ONE], [ONE], [ONE, TWO, CLEARED], [ONE, CLEARED], [], [MetadataSet(), TWO]],
    ids=["another order", "shorter", "longer", "another event", "none", "another type"],
)
async def test_a_key_that_comes_with_other_events_is_refused(
    log: EventLog, other: list[Event]
) -> None:
    await log.append("a", [ONE, TWO], idempotency_key="k")
    await log.append("a", CLEARED)
    with pytest.raises(errors.IdempotencyConflictError) as caught:
        await log.append("a", other, idempotency_key="k")
    assert (caught.value.session_id, caught.value.idempotency_key) == ("a", "k")
    assert await log.version("a") == 3


async def test_a_key_that_comes_with_another_branch_is_refused(log: EventLog) -> None:
    await log.append("a", ONE, idempotency_key="k", branch_id="main")
    with pytest.raises(errors.IdempotencyConflictError):
        await log.append("a", ONE, idempotency_key="k", branch_id="draft")


async def test_a_key_belongs_to_its_session(log: EventLog) -> None:
    await log.append("a", ONE, idempotency_key="k")
    assert (await log.append("b", TWO, idempotency_key="k")).position == 2


async def test_a_key_is_known_whatever_else_was_recorded_with_it(log: EventLog) -> None:
    with recording(score=float("nan"), note="\ud800"):
        first = await log.append("a", [ONE, TWO], idempotency_key="k")
    assert await log.append("a", [ONE, TWO], idempotency_key="k") == first


async def test_a_key_whose_first_append_cannot_be_read_is_named_by_its_position(
    log: EventLog, path: Path
) -> None:
    await log.append("b", ONE)
    with closing(sqlite3.connect(path)) as other, other:
        other.execute(
            "INSERT INTO events SELECT 2, 'a', 1, type, schema_version, branch_id, data, data_digest,"
            " NULL, 'k', recorded_at, digest FROM events"
        )
    with pytest.raises(errors.UndecodableEventError, match="position 2") as caught:
        await log.append("a", ONE, idempotency_key="k")
    assert caught.value.position == 2


async def test_a_refused_append_leaves_its_key_free(log: EventLog) -> None:
    with pytest.raises(errors.WrongExpectedVersionError):
        await log.append("a", ONE, idempotency_key="k", expected_version=7)
    assert (await log.append("a", TWO, idempotency_key="k")).version == 1


# -- what is refused ----------------------------------------------------------------------------


async def refused(log: EventLog, session_id: Any, events: Any, **keywords: Any) -> Exception:
    """Return the error of an append that must write nothing."""
    with pytest.raises(errors.EventLogError) as caught:
        await log.append(session_id, events, **keywords)
    assert await log.head() == (0, bytes(32))
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
    return caught.value


@pytest.mark.parametrize("thing", ["items", {"type": "items_added"}, None, Event(), Event])
async def test_what_is_no_event_is_refused(log: EventLog, thing: Any) -> None:
    error = await refused(log, "a", [ONE, thing])
    assert isinstance(error, errors.InvalidEventError)
    got = type(thing).__name__
    assert str(error) == f"invalid event: expected one of eventlog's event classes, got {got}"


@pytest.mark.parametrize(
    "event",
    [
        BranchSwitched(from_branch_id=1, branch_id="b"),  # type: ignore[arg-type]
        ItemsAdded(items="text"),  # type: ignore[arg-type]
        ItemsAdded(items=None),  # type: ignore[arg-type]
        MetadataSet(user_id=["alice"]),  # type: ignore[arg-type]
        MetadataSet(metadata=["a list"]),  # type: ignore[arg-type]
    ],
)
async def test_an_event_that_could_not_be_read_back_is_refused(log: EventLog, event: Event) -> None:
    assert isinstance(await refused(log, "a", [ONE, event]), errors.InvalidEventError)


@pytest.mark.parametrize(
    "event",
    [
        BranchSwitched(from_branch_id="main", branch_id="\ud800"),
        MetadataSet(user_id="\udfff"),
    ],
)
async def test_a_name_in_an_event_that_is_no_text_is_refused(log: EventLog, event: Event) -> None:
    assert isinstance(await refused(log, "a", [ONE, event]), errors.InvalidEventError)


@pytest.mark.parametrize("name", [None, 7, b"a", "\ud800"])
async def test_a_session_id_that_is_no_text_is_refused(log: EventLog, name: Any) -> None:
    error = await refused(log, name, ONE)
    assert isinstance(error, errors.InvalidEventError)
    assert "session_id" in str(error)


@pytest.mark.parametrize("keyword", ["branch_id", "idempotency_key"])
async def test_a_name_that_is_no_text_is_refused(log: EventLog, keyword: str) -> None:
    error = await refused(log, "a", ONE, **{keyword: "\ud800"})
    assert isinstance(error, errors.InvalidEventError)
    assert keyword in str(error)


async def test_an_item_that_is_no_json_is_refused_with_the_whole_append(log: EventLog) -> None:
    error = await refused(log, "a", [ONE, ItemsAdded(items=[{"ok": [1, {"bad": object()}]}])])
    assert isinstance(error, TypeError)
    assert "$.items[0].ok[1].bad" in str(error)


async def test_what_is_recorded_with_it_that_is_no_json_refuses_the_append(log: EventLog) -> None:
    with recording(actor=object()):
        assert isinstance(await refused(log, "a", ONE), TypeError)


# -- its life -----------------------------------------------------------------------------------


async def test_a_log_can_be_awaited_and_closed(path: Path) -> None:
    log = await EventLog.open(path)
    await log.append("a", ONE)
    log.close()
    log.close()
    for call in (log.append("a", ONE), log.version("a"), log.head(), log.verify()):
        with pytest.raises(errors.ClosedError):
            await call


async def test_a_log_is_closed_at_the_end_of_its_block(path: Path) -> None:
    async with EventLog.open(path) as log:
        await log.append("a", ONE)
    with pytest.raises(RuntimeError, match="closed"):
        await log.head()
    async with await EventLog.open(path) as log:
        assert await log.version("a") == 1
    with pytest.raises(RuntimeError, match="closed"):
        await log.head()


async def test_one_of_two_users_may_close_without_harm_to_the_other(path: Path) -> None:
    one, other = await EventLog.open(path), await EventLog.open(path)
    one.close()
    assert (await other.append("a", ONE)).version == 1
    other.close()


async def test_a_log_in_memory_is_its_object_s_alone() -> None:
    async with EventLog.open(":memory:") as one, EventLog.open(":memory:") as other:
        await one.append("a", ONE)
        assert await other.version("a") == 0
        assert (await one.verify()).ok


async def test_a_log_in_memory_is_like_one_in_a_file_however_many_were_opened_before(
    path: Path,
) -> None:
    schemas = []
    for where in (path, ":memory:", ":memory:", ":memory:"):
        async with EventLog.open(where, projections=default()) as log:
            assert (await log.head()).position == 0
            assert await log.query(lambda tx: tx.all("SELECT * FROM items")) == []
            schemas.append(
                await log.query(lambda tx: tx.all("SELECT * FROM sqlite_schema ORDER BY name"))
            )
            await log.append("a", ONE)
            assert await log.query(lambda tx: tx.all("SELECT count(*) FROM items")) == [(1,)]
            assert (await log.verify()).ok
    assert schemas == schemas[:1] * 4


def test_a_log_in_memory_leaves_nothing_behind_that_keeps_its_projections() -> None:
    own = Projections(Usage())
    EventLog.open_sync(":memory:", projections=own).close()
    kept = weakref.ref(own)
    del own
    gc.collect()
    assert kept() is None


async def test_a_log_opened_read_only_reads_and_refuses_to_write(path: Path) -> None:
    async with EventLog.open(path) as log:
        await log.append("a", ONE)
    before = content(path)
    async with EventLog.open(path, read_only=True) as log:
        assert await log.version("a") == 1
        assert [recorded.event async for recorded in log.read()] == [ONE]
        assert (await log.verify()).ok
        with pytest.raises(errors.ReadOnlyFileError, match="was opened read-only: open it without"):
            await log.append("a", ONE)
    assert content(path) == before


async def test_a_reader_that_is_read_only_sees_what_others_append(path: Path) -> None:
    async with EventLog.open(path) as log, EventLog.open(path, read_only=True) as reader:
        await log.append("a", ONE)
        assert await reader.version("a") == 1
