"""Operations that share a commit: each succeeds or fails alone, in the order of the calls."""

from __future__ import annotations

import asyncio
import sqlite3
from typing import TYPE_CHECKING, Any

import pytest

from agents_eventlog.eventlog import EventLog, ItemsAdded
from agents_eventlog.eventlog.appender import append
from agents_eventlog.eventlog.errors import BranchNotFoundError, DiskFullError, StoreError
from agents_eventlog.projections import Projection, Projections
from tests.faults.support import batch, batches, check_log, closed_gate, texts, user

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from agents_eventlog import AdvancedSQLiteSession
    from agents_eventlog.eventlog.storage.transaction import Transaction

    Opened = Callable[..., AdvancedSQLiteSession]


async def together(store: Any, *calls: Any) -> list[Any]:
    """Make calls that wait for each other's commit; return what each gives, or its error."""
    with closed_gate(store) as gate:
        tasks = [asyncio.ensure_future(call) for call in calls]
        await asyncio.sleep(0)
        gate.open()
        return await asyncio.gather(*tasks, return_exceptions=True)


async def on_a_deleted_branch(opened: Opened, session_id: str) -> AdvancedSQLiteSession:
    """Return a session that stands on a branch that is gone, and knows nothing of it."""
    session = opened(session_id)
    await session.add_items([user("one")])
    await session.create_branch("gone")
    await opened(session_id).delete_branch("gone")
    return session


async def test_a_read_sees_the_writes_called_before_it_and_none_called_after(
    opened: Opened,
) -> None:
    session = opened()
    await session.add_items([user("0")])
    answers = await together(
        session.log.store,
        session.add_items([user("1")]),
        session.get_items(),
        session.get_current_turn(),
        session.add_items([user("2")]),
        session.list_branches(),
        session.pop_item(),
        session.get_items(),
        session.clear_session(),
        session.get_items(),
        session.get_current_turn(),
        session.add_items([user("3")]),
    )
    assert answers[1] == [user("0"), user("1")]
    assert answers[2] == 2
    assert [branch["message_count"] for branch in answers[4]] == [3]
    assert answers[5] == user("2")
    assert answers[6] == [user("0"), user("1")]
    assert answers[8:10] == [[], 0]
    assert await session.get_items() == [user("3")]


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (1, 0, 3, 2), (2, 3, 0, 1)], ids=str)
async def test_a_refused_write_takes_nobody_elses_along(
    opened: Opened, order: tuple[int, ...]
) -> None:
    sessions = [
        opened("first"),
        await on_a_deleted_branch(opened, "second"),
        opened("third"),
        await on_a_deleted_branch(opened, "fourth"),
    ]
    for n in (1, 3):  # everything about them is in memory
        with pytest.raises(BranchNotFoundError):
            await sessions[n].add_items(batch("early"))
    for session in (sessions[0], sessions[2]):
        await session.add_items(batch("early"))
    calls = [sessions[n].add_items(batch(round_)) for round_ in range(5) for n in order]
    answers = await together(sessions[0].log.store, *calls)
    assert [type(answer) for answer in answers] == [
        BranchNotFoundError if n in (1, 3) else type(None) for _ in range(5) for n in order
    ]
    for session in (sessions[0], sessions[2]):
        assert batches(await session.get_items()) == ["early", "0", "1", "2", "3", "4"]
    check_log(sessions[0].log)


@pytest.mark.parametrize(
    "error",
    [LookupError("mine"), sqlite3.IntegrityError("mine")],
    ids=lambda error: type(error).__name__,
)
async def test_a_unit_that_fails_after_it_wrote_takes_nobody_elses_along(
    opened: Opened, error: Exception
) -> None:
    session, other = opened(), opened("other")
    await session.add_items(batch("early"))

    def write_and_fail(tx: Transaction) -> None:
        tx.execute("INSERT INTO log_properties VALUES ('half', 'done')")
        raise error

    answers = await together(
        session.log.store,
        session.add_items(batch("before")),
        session.log.write(write_and_fail),
        other.add_items(batch("after")),
        session.create_branch("draft"),
    )
    expected = StoreError if isinstance(error, sqlite3.Error) else type(error)
    assert isinstance(answers[1], expected)
    assert [answers[0], *answers[2:]] == [None, None, "draft"]
    assert batches(await session.get_items()) == ["early", "before"]
    assert batches(await other.get_items()) == ["after"]
    half = "SELECT * FROM log_properties WHERE name = 'half'"
    assert await session.log.query(lambda tx: tx.all(half)) == []
    await session.add_items(batch("later"))
    assert batches(await session.get_items())[-1] == "later"
    check_log(session.log)


@pytest.mark.parametrize("place", ["first", "in the middle", "last"])
async def test_a_full_disk_refuses_what_it_cannot_keep_and_keeps_the_rest(
    opened: Opened, place: str
) -> None:
    session, others = opened(), [opened(f"other {n}") for n in range(3)]
    for each in (session, *others):
        await each.add_items(batch("early"))

    def limit(connection: sqlite3.Connection) -> None:
        [pages] = connection.execute("PRAGMA page_count").fetchone()
        connection.execute(f"PRAGMA max_page_count={pages + 20}")

    session.log.store._writer.call(limit)
    small = [each.add_items(batch("small")) for each in others]
    at = {"first": 0, "in the middle": 1, "last": 3}[place]
    calls = [*small[:at], session.add_items([user("x" * 1_000_000)]), *small[at:]]
    answers = await together(session.log.store, *calls)
    assert isinstance(answers.pop(at), DiskFullError)
    assert batches(await session.get_items()) == ["early"]
    for each, answer in zip(others, answers, strict=True):
        assert answer is None or isinstance(answer, DiskFullError)
        kept = ["early", "small"] if answer is None else ["early"]
        assert batches(await each.get_items()) == kept
    await session.add_items([user("fits")])
    assert texts(await session.get_items())[-1] == "fits"
    check_log(session.log)


async def test_an_interrupted_statement_fails_its_commit_and_nothing_later(opened: Opened) -> None:
    session, other = opened(), opened("other")
    await session.add_items(batch("early"))

    def interrupt(tx: Transaction) -> None:
        tx.connection.set_progress_handler(lambda: 1, 1)
        try:
            tx.execute("INSERT INTO log_properties SELECT position, data FROM events")
        finally:
            tx.connection.set_progress_handler(None, 1)

    answers = await together(
        session.log.store,
        session.create_branch("draft"),
        session.log.write(interrupt),
        other.add_items(batch("other")),
    )
    assert isinstance(answers[1], StoreError)
    kept = [answer for answer in answers if not isinstance(answer, StoreError)]
    assert ("draft" in kept) is (session.current_branch == "draft")
    listed = [branch["branch_id"] for branch in await session.list_branches()]
    assert listed == (["main", "draft"] if "draft" in kept else ["main"])
    assert batches(await other.get_items()) == (["other"] if None in kept else [])
    await session.add_items(batch("later"))
    check_log(session.log)


class Once(Projection):
    """A projection of an application's own that takes each session only once."""

    name = "once"
    version = 1
    schema = ("CREATE TABLE once (session_id TEXT NOT NULL PRIMARY KEY) STRICT",)
    handles = (ItemsAdded,)

    def __init__(self, *, defers: bool) -> None:
        self.defers = defers

    def apply(self, tx: Transaction, events: Any) -> None:
        for recorded in events:
            row = (recorded.session_id,)
            if self.defers:
                tx.defer("INSERT INTO once VALUES (?)", [row])
            else:
                tx.execute("INSERT INTO once VALUES (?)", row)


@pytest.mark.parametrize("defers", [False, True])
async def test_an_event_without_its_rows_is_never_acknowledged_whoever_catches_the_error(
    tmp_path: Path, defers: bool
) -> None:
    projections = Projections(Once(defers=defers))
    said = ItemsAdded(items=["hello"])

    def looks_away(tx: Transaction) -> str:
        try:
            tx.one("SELECT 1")  # runs what others have deferred
        except sqlite3.Error:
            return "looked away"
        return "saw nothing"

    def appends_and_looks_away(tx: Transaction) -> None:
        try:
            append(tx, "a", said)
        except sqlite3.Error:
            return

    async with EventLog.open(tmp_path / "log.db", projections=projections) as log:
        await log.append("a", said)
        refused, seen, swallowed, kept = await together(
            log.store,
            log.append("a", said),
            log.write(looks_away),
            log.write(appends_and_looks_away),
            log.append("b", said),
        )
        assert isinstance(refused, StoreError)
        assert seen == "saw nothing"
        assert isinstance(swallowed, StoreError)
        assert kept.version == 1
        assert [recorded.session_id async for recorded in log.read()] == ["a", "b"]
        assert (await log.verify()).ok
        assert await log.query(lambda tx: tx.all("SELECT * FROM once")) == [("a",), ("b",)]


@pytest.mark.parametrize("error", [asyncio.CancelledError, StopIteration, GeneratorExit])
async def test_a_unit_that_raises_what_is_no_exception_fails_alone(
    opened: Opened, error: type[BaseException]
) -> None:
    session = opened()

    def unit(_tx: Transaction) -> None:
        raise error

    answers = await together(
        session.log.store,
        session.add_items([user("before")]),
        session.log.write(unit),
        session.add_items([user("after")]),
    )
    assert answers[0] is answers[2] is None
    assert isinstance(answers[1], BaseException)
    assert await session.get_items() == [user("before"), user("after")]
