"""Keeping up: with every append, with what others appended, with new versions; and a user's own."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import threading
import time
from concurrent.futures import Future
from contextlib import closing
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from agents_eventlog import ConversationLog, EventLogSession, projections
from agents_eventlog.eventlog import (
    Event,
    EventLog,
    ItemPopped,
    ItemsAdded,
    RecordedEvent,
    SessionCleared,
    Transaction,
    append,
    codec,
    errors,
    export_lines,
    import_lines,
)
from agents_eventlog.eventlog.appender import append_all
from agents_eventlog.eventlog.errors import (
    ProjectionError,
    StaleProjectionError,
    UndecodableEventError,
)
from agents_eventlog.eventlog.storage.sqlite.engine import SQLITE
from agents_eventlog.projections import (
    Conversations,
    Projection,
    Projections,
    Search,
    Usage,
    background,
    build,
    projector,
)
from agents_eventlog.projections.background import build_incrementally
from agents_eventlog.projections.base import Table, tables
from agents_eventlog.projections.erasure import eraser
from agents_eventlog.projections.erasure.scopes import PoppedItems
from tests.faults.support import refusal
from tests.history import Entry, empty, history, seen
from tests.projections.given import ANSWER, USER, added, popped

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tests.projections.given import Given


class Tally(Projection):
    """A user's own projection: how many items each session ever got."""

    name: ClassVar[str] = "tally"
    version: ClassVar[int] = 1
    schema: ClassVar[Sequence[str]] = (
        "CREATE TABLE tally (session_id TEXT NOT NULL PRIMARY KEY, items INTEGER NOT NULL) STRICT",
    )
    handles: ClassVar[Sequence[type[Event]]] = (ItemsAdded,)

    def __init__(self) -> None:
        self.batches: list[int] = []

    def apply(self, tx: Transaction, events: Sequence[RecordedEvent]) -> None:
        self.batches.append(len(events))
        for recorded in events:
            assert isinstance(recorded.event, ItemsAdded)
            tx.execute(
                "INSERT INTO tally VALUES (?, ?)"
                " ON CONFLICT (session_id) DO UPDATE SET items = items + excluded.items",
                (recorded.session_id, len(recorded.event.items)),
            )


class WeightedTally(Tally):
    """The same in a newer version, which counts by tens in a table of another shape."""

    version: ClassVar[int] = 2
    schema: ClassVar[Sequence[str]] = (
        """
        CREATE TABLE tally (
            session_id TEXT    NOT NULL PRIMARY KEY,
            items      INTEGER NOT NULL,
            weight     INTEGER NOT NULL DEFAULT 10
        ) STRICT
        """,
    )

    def apply(self, tx: Transaction, events: Sequence[RecordedEvent]) -> None:
        for recorded in events:
            tx.execute(
                "INSERT INTO tally VALUES (?, 10, 10)"
                " ON CONFLICT (session_id) DO UPDATE SET items = items + 10",
                (recorded.session_id,),
            )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the log is."""
    return tmp_path / "log.db"


def opened(path: Path, *kept_up: Any) -> EventLog:
    """Open a log that keeps these projections up to date."""
    chosen = Projections(*kept_up) if kept_up else None
    return EventLog.open_sync(path, projections=chosen, durability="normal")


def add(log: EventLog, session_id: str = "s", times: int = 1) -> None:
    """Append turns, all in one transaction."""

    def unit(tx: Transaction) -> None:
        for _ in range(times):
            append(tx, session_id, added(), branch_id="main")

    log.store.write_sync(unit)


def tally(log: EventLog) -> list[tuple[Any, ...]]:
    """Return the user's own table."""
    return log.store.read_sync(lambda tx: tx.all("SELECT * FROM tally ORDER BY session_id"))


def checkpoints(log: EventLog) -> dict[str, tuple[int, int]]:
    """Return each projection's version and position."""
    return {
        name: (checkpoint.version, checkpoint.position)
        for name, checkpoint in log.store.read_sync(build.checkpoints).items()
    }


# -- with every append ---------------------------------------------------------------------------


def test_a_projection_is_kept_up_with_in_the_transaction_of_the_append(path: Path) -> None:
    with closing(opened(path, Tally())) as log:

        def unit(tx: Transaction) -> list[tuple[Any, ...]]:
            append(tx, "s", added())
            return tx.all("SELECT * FROM tally")

        assert log.store.write_sync(unit) == [("s", 2)]
        assert checkpoints(log) == {"tally": (1, 1)}


async def test_a_conversation_log_keeps_more_projections_beside_the_default_ones(
    path: Path,
) -> None:
    async with ConversationLog.open(path, projections=Projections(Tally())) as log:
        await log.append(
            "s", ItemsAdded(items=[{"role": "user", "content": "hi"}]), branch_id="main"
        )
        assert await log.query(lambda tx: tx.all("SELECT * FROM tally")) == [("s", 1)]
        assert [row["session_id"] for row in await log.sessions()] == ["s"]


def test_a_checkpoint_moves_past_events_that_the_projection_does_not_handle(path: Path) -> None:
    with closing(opened(path, Tally())) as log:
        log.store.write_sync(lambda tx: append(tx, "s", SessionCleared()))
        assert checkpoints(log) == {"tally": (1, 1)}
        assert tally(log) == []


def test_a_projection_sees_only_what_it_handles(path: Path) -> None:
    own = Tally()
    events = [(event, codec.encode(event)) for event in (added(), popped(1, 1))]
    with closing(opened(path, own)) as log:

        def unit(tx: Transaction) -> None:
            append_all(tx, "s", events)
            for pair in events:
                append_all(tx, "s", [pair])

        log.store.write_sync(unit)
        assert own.batches == [1, 1]
    assert ItemPopped not in own.handles


def test_a_projection_that_fails_refuses_the_append(path: Path) -> None:
    class Fussy(Tally):
        def apply(self, tx: Transaction, events: Sequence[RecordedEvent]) -> None:
            super().apply(tx, events)
            raise LookupError

    with closing(opened(path, Fussy())) as log:
        with pytest.raises(LookupError):
            add(log)
        assert tally(log) == []
        assert log.store.read_sync(lambda tx: tx.all("SELECT * FROM events")) == []


def test_projections_do_not_see_each_other_s_batches(path: Path) -> None:
    with closing(opened(path, Conversations(), Usage(), Tally())) as log:
        add(log, times=3)
        assert checkpoints(log) == {
            kind.name: (kind.version, 3) for kind in (Conversations, Usage, Tally)
        }
        assert tally(log) == [("s", 6)]


def test_what_was_appended_in_the_transaction_in_which_others_join_counts_once(path: Path) -> None:
    with closing(opened(path, Tally())) as log:
        begun, busy = threading.Event(), threading.Event()

        def hold(_: Transaction) -> None:
            begun.set()
            busy.wait(30)

        held = threading.Thread(target=log.store.write_sync, args=(hold,))
        held.start()
        begun.wait()
        outcome: Future[Any] = Future()
        log.store.submit_write(lambda tx: append(tx, "s", added(), branch_id="main"), outcome)
        joining = threading.Thread(target=log.join, args=(Projections(Conversations(), Tally()),))
        joining.start()
        while len(log.store._writer._pending) < 2:
            time.sleep(0.01)  # both are to be in the next transaction
        busy.set()
        for thread in (held, joining):
            thread.join()
        outcome.result()
        add(log)
        assert tally(log) == [("s", 4)]
        assert log.store.read_sync(lambda tx: tx.one("SELECT COUNT(*) FROM items")) == (4,)


def test_a_join_that_is_not_committed_leaves_those_that_are_kept_up(path: Path) -> None:
    with closing(opened(path, Tally())) as log:
        with refusal(log.store), pytest.raises(errors.StoreError):
            log.join(Projections(Conversations()))
        add(log)
        assert tally(log) == [("s", 2)]
        assert tables_in(path) == {"tally"}


async def test_what_was_erased_before_it_was_imported_is_built_from_its_structure(
    given: Given, path: Path
) -> None:
    given(added(), added(), popped(2, 1), popped(2, 0), added())
    await eraser.erase(given.log, PoppedItems())
    lines = [f"{line}\n".encode() async for line in export_lines(given.log)]
    with closing(opened(path.with_name("other.db"), Conversations(), Usage())) as log:
        assert [each.outcome async for each in import_lines(log, lines)] == ["imported"]
        assert log.store.read_sync(seen) == given.log.store.read_sync(seen)


# -- with what others appended ------------------------------------------------------------------


def test_a_log_without_projections_appends_and_leaves_them_behind(path: Path) -> None:
    with closing(opened(path, Tally())) as log:
        add(log)
    with closing(opened(path)) as plain:
        add(plain)
        assert checkpoints(plain) == {"tally": (1, 1)}
    with closing(opened(path, Tally())) as log:
        assert checkpoints(log) == {"tally": (1, 2)}
        assert tally(log) == [("s", 4)]


def test_a_writer_that_knows_the_projections_catches_up_before_it_appends(path: Path) -> None:
    own = Tally()
    with closing(opened(path, own)) as log:
        add(log)
        append_elsewhere(path)
        own.batches.clear()
        add(log)
        assert own.batches == [1, 1]
        assert dict(tally(log)) == {"s": 4, "t": 1}


def test_a_checkpoint_of_a_projection_that_is_unknown_here_is_never_moved(path: Path) -> None:
    with closing(opened(path, Conversations())) as log:
        add(log)
    with closing(opened(path, Tally(), Usage())) as log:
        add(log)
        add(log)
        assert checkpoints(log) == {
            "tally": (1, 3),
            "usage": (Usage.version, 3),
            "conversations": (Conversations.version, 1),
        }


def test_a_checkpoint_that_another_program_made_meanwhile_is_never_moved(path: Path) -> None:
    with closing(opened(path, Tally())) as log:
        add(log)
        add(log)  # by now all checkpoints are moved at once
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("INSERT INTO checkpoints VALUES ('theirs', 7, 1)")
            connection.commit()
        add(log)
        add(log)
        assert checkpoints(log) == {"tally": (1, 4), "theirs": (7, 1)}


def test_a_checkpoint_that_a_step_of_this_program_made_is_never_moved(path: Path) -> None:
    with closing(opened(path, Tally())) as log:
        add(log)
        add(log)  # by now all checkpoints are moved at once
        build_incrementally(log.store, Search())  # and not kept up from then on
        add(log)
        add(log)
        assert checkpoints(log) == {"tally": (1, 4), "search": (Search.version, 2)}


def append_elsewhere(path: Path) -> None:
    """Append as another program that knows no projection, in a session ``t``."""
    import subprocess
    import sys

    script = (
        "import asyncio, sys\n"
        "from agents_eventlog.eventlog import EventLog, ItemsAdded\n"
        "async def main():\n"
        "    async with EventLog.open(sys.argv[1]) as log:\n"
        "        await log.append('t', ItemsAdded(items=['theirs']))\n"
        "asyncio.run(main())\n"
    )
    subprocess.run([sys.executable, "-c", script, str(path)], check=True, timeout=60)


def test_a_reader_learns_that_its_tables_are_behind_and_a_writer_brings_them_up(
    path: Path,
) -> None:
    kept_up = Projections(Tally())
    with closing(EventLog.open_sync(path, projections=kept_up)) as log:
        add(log)
        log.store.read_sync(kept_up.require_fresh)
        append_elsewhere(path)
        reader = EventLog.open_sync(path, read_only=True)
        with closing(reader), pytest.raises(StaleProjectionError, match="tally"):
            reader.store.read_sync(kept_up.require_fresh)
        log.store.read_sync(kept_up.require_fresh)  # run by the writer, which catches up first
        assert dict(tally(log)) == {"s": 2, "t": 1}


async def test_a_query_sees_what_a_program_without_projections_appended(path: Path) -> None:
    async with EventLog.open(path, projections=Projections(Tally())) as log:
        await asyncio.to_thread(append_elsewhere, path)
        assert await log.query(lambda tx: tx.all("SELECT * FROM tally")) == [("t", 1)]
        await asyncio.to_thread(append_elsewhere, path)
        assert await log.version("t") == 2
        await asyncio.to_thread(log.join, Projections(Tally(), Search()))
        await asyncio.to_thread(append_elsewhere, path)
        assert await log.query(lambda tx: tx.all("SELECT * FROM tally")) == [("t", 3)]


@pytest.mark.parametrize("events", [0, 2])
@pytest.mark.parametrize("lost", [None, "events", "sqlite_sequence"])
def test_tables_that_show_all_that_was_appended_are_read_without_a_writer(
    path: Path, events: int, lost: str | None
) -> None:
    kept_up = Projections(Tally(), Usage())
    with closing(EventLog.open_sync(path, projections=kept_up)) as log:
        add(log, times=events)
    if lost is not None:
        with closing(sqlite3.connect(path)) as connection, connection:
            connection.execute("DROP TRIGGER events_are_never_deleted")
            connection.execute(f"DELETE FROM {lost}")
    with closing(EventLog.open_sync(path, read_only=True)) as log:
        log.store.read_sync(kept_up.require_fresh)
        assert dict(tally(log)).get("s", 0) == 2 * events


async def test_a_session_reads_what_a_program_without_projections_appended(path: Path) -> None:
    from agents_eventlog import AdvancedSQLiteSession

    with closing(AdvancedSQLiteSession("t", path)) as session:
        await session.add_items([{"role": "user", "content": "ours"}])
        append_elsewhere(path)
        found: list[Any] = await session.get_items()
        assert found[1:] == ["theirs"]


def test_a_projection_that_joins_later_is_built_from_the_first_event(path: Path) -> None:
    with closing(opened(path)) as log:
        add(log)
        log.join(Projections(Tally()))
        assert tally(log) == [("s", 2)]
        add(log)
        log.join(Projections(Conversations()))
        add(log)
        assert tally(log) == [("s", 6)]
        assert checkpoints(log) == {"tally": (1, 3), "conversations": (Conversations.version, 3)}


def test_an_event_of_a_newer_release_is_named_and_stops_what_is_built(path: Path) -> None:
    events = history([Entry(added()), Entry(added())])
    events[1].schema_version = 9
    tx = empty([Tally()])
    with closing(tx.connection), pytest.raises(UndecodableEventError, match="position 2"):
        build.apply(tx, [Tally()], events)


# -- versions -----------------------------------------------------------------------------------


def test_a_newer_version_of_a_projection_is_replayed_when_the_log_is_opened(path: Path) -> None:
    with closing(opened(path, Tally())) as log:
        add(log, times=2)
    with closing(opened(path, WeightedTally())) as log:
        assert tally(log) == [("s", 20, 10)]
        assert checkpoints(log) == {"tally": (2, 2), "tally__v1": (1, 2)}
        add(log)
        assert tally(log) == [("s", 30, 10)]


class SplitTally(Tally):
    """The same in a newer version, whose tables have other names."""

    version: ClassVar[int] = 2
    schema: ClassVar[Sequence[str]] = (
        "CREATE TABLE half (session_id TEXT NOT NULL PRIMARY KEY, items INTEGER NOT NULL) STRICT",
        "CREATE TABLE other_half (items INTEGER NOT NULL PRIMARY KEY) STRICT",
    )

    def apply(self, tx: Transaction, events: Sequence[RecordedEvent]) -> None:
        tx.execute("INSERT OR IGNORE INTO half VALUES ('s', 1)")


class TalliedAgain(SplitTally):
    """The same once more, with one of its tables left out."""

    version: ClassVar[int] = 3
    schema: ClassVar[Sequence[str]] = SplitTally.schema[:1]


class Heir(Tally):
    """A projection that makes a table under the name of another's."""

    name: ClassVar[str] = "heir"


class NewHeir(Heir):
    """The same in a newer version."""

    version: ClassVar[int] = 2


class EarlyHeir(Heir):
    """One that had a table of its own before."""

    schema: ClassVar[Sequence[str]] = ("CREATE TABLE early (x INTEGER NOT NULL PRIMARY KEY)",)

    def apply(self, tx: Transaction, events: Sequence[RecordedEvent]) -> None:
        tx.execute("INSERT OR IGNORE INTO early VALUES (1)")


def tables_in(path: Path) -> set[str]:
    """Return the names of the tables that are not the log's own."""
    with closing(sqlite3.connect(path)) as connection:
        found = connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'").fetchall()
    own = {"events", "checkpoints", "log_properties", "sqlite_sequence"}
    return {name for (name,) in found} - own


@pytest.mark.parametrize("is_far_behind", [False, True])
def test_of_a_newer_version_no_table_of_an_earlier_one_is_left_after_a_replay(
    path: Path, monkeypatch: pytest.MonkeyPatch, is_far_behind: bool
) -> None:
    if is_far_behind:
        monkeypatch.setattr(projector, "REPLAY_ON_OPEN_EVENTS", 0)
    versions = ((Tally, {"tally"}), (SplitTally, {"half", "other_half"}), (TalliedAgain, {"half"}))
    for own, names in versions:
        with closing(opened(path, own())) as log:
            add(log)
            assert names < tables_in(path) or own is Tally
            projections.replay(log, [own()])
        assert tables_in(path) == names


@pytest.mark.parametrize("is_first", [False, True])
def test_a_table_that_another_projection_took_over_is_left_to_it(
    path: Path, is_first: bool
) -> None:
    with closing(opened(path, Tally(), EarlyHeir())) as log:
        add(log)
    chosen = (NewHeir(), SplitTally()) if is_first else (SplitTally(), NewHeir())
    with closing(opened(path, *chosen)) as log:
        add(log)
        assert tally(log) == [("s", 4)]
        projections.replay(log, chosen)
        assert tally(log) == [("s", 4)]
    assert tables_in(path) == {"tally", "half", "other_half"}


# -- several versions at once --------------------------------------------------------------------


class IndexedTally(Tally):
    """The tally with an index and a view, as an older program has it."""

    schema: ClassVar[Sequence[str]] = (
        *Tally.schema,
        "CREATE INDEX tally_by_items ON tally (items, session_id)",
    )

    def views(self, engine: Any) -> dict[str, str]:
        return {"tallied": "SELECT items FROM tally"}


class NewTally(WeightedTally):
    """The same in a newer program."""

    schema: ClassVar[Sequence[str]] = (
        *WeightedTally.schema,
        "CREATE INDEX tally_by_items ON tally (items, weight)",
    )
    views = IndexedTally.views


def in_own_tables(log: EventLog, sql: str = "SELECT * FROM tally") -> list[tuple[Any, ...]]:
    """Return what a program reads."""
    return asyncio.run(log.query(lambda tx: tx.all(sql)))


def test_an_older_program_and_a_newer_one_each_keep_the_tables_of_their_version(
    path: Path,
) -> None:
    with closing(opened(path, IndexedTally())) as older:
        add(older)
    for count in (2, 4):
        with closing(opened(path, NewTally())) as newer:
            add(newer)
            assert in_own_tables(newer) == [("s", count * 10, 10)]
        with closing(opened(path, IndexedTally())) as older:
            add(older)
            assert in_own_tables(older) == [("s", (count + 1) * 2)]
            assert in_own_tables(older, "SELECT * FROM tallied") == [((count + 1) * 2,)]
            check = projections.replay(older, [IndexedTally()], check=True)
            assert [(each.rows, each.differences) for each in check] == [(1, 0)]
    with closing(sqlite3.connect(path)) as connection:
        indexes = connection.execute(
            "SELECT name, tbl_name FROM sqlite_schema WHERE type = 'index' AND sql IS NOT NULL"
        ).fetchall()
        assert {("tally_by_items", "tally"), ("tally_by_items__v1", "tally__v1")} <= {*indexes}
        assert connection.execute("SELECT * FROM tallied").fetchall() == [(40,)]


async def test_an_older_program_finds_the_metadata_that_it_sets_beside_a_newer_one(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with ConversationLog.open(path) as older:
        await EventLogSession("s", older).add_items([USER])
    with monkeypatch.context() as release:
        release.setattr(Conversations, "version", Conversations.version + 1)
        async with ConversationLog.open(path) as newer:
            await EventLogSession("s", newer).add_items([ANSWER])
    async with ConversationLog.open(path) as older:
        await EventLogSession("s", older).set_metadata({"plan": "pro"})
        assert [row["session_id"] for row in await older.sessions(metadata={"plan": "pro"})] == [
            "s"
        ]


def test_an_older_program_that_comes_later_builds_tables_of_its_own(path: Path) -> None:
    with closing(opened(path, NewTally())) as newer:
        add(newer)
    with closing(opened(path, IndexedTally())) as older:
        assert in_own_tables(older) == [("s", 2)]
    with closing(opened(path)) as log:
        assert checkpoints(log) == {"tally": (2, 1), "tally__v1": (1, 1)}


def test_a_replay_by_an_older_program_gives_it_the_plain_names_again(path: Path) -> None:
    for own in (IndexedTally(), NewTally()):
        with closing(opened(path, own)) as log:
            add(log)
    with closing(opened(path, IndexedTally())) as older:
        projections.replay(older, [IndexedTally()])
        add(older)
        assert in_own_tables(older) == [("s", 6)]
        assert checkpoints(older) == {"tally": (1, 3)}
    assert tables_in(path) == {"tally"}


def test_a_read_only_older_program_names_the_users_projection_that_is_newer(path: Path) -> None:
    with closing(opened(path, NewTally())) as newer:
        add(newer)
    log = EventLog.open_sync(path, read_only=True)
    with closing(log), pytest.raises(errors.NewerProjectionError) as caught:
        log.store.read_sync(Projections(IndexedTally()).require_fresh)
    assert (caught.value.projection, caught.value.found, caught.value.known) == ("tally", 2, 1)
    assert "use the newer version of your projection" in str(caught.value)


async def test_an_erasure_drops_the_tables_of_other_versions(path: Path) -> None:
    for own in (IndexedTally(), NewTally()):
        async with ConversationLog.open(path, projections=Projections(own)) as log:
            add(log)
            await log.write(lambda tx: append(tx, "s", popped(1, 1), branch_id="main"))
    assert "tally__v1" in tables_in(path)
    async with ConversationLog.open(path, projections=Projections(NewTally())) as log:
        await log.erase(session_id="s")
    assert not {name for name in tables_in(path) if "__v" in name}


@pytest.mark.parametrize(("events", "is_left"), [(3, True), (4, False)])
def test_tables_that_no_program_has_used_for_long_are_dropped_when_the_log_is_opened(
    path: Path, monkeypatch: pytest.MonkeyPatch, events: int, is_left: bool
) -> None:
    for own in (IndexedTally(), NewTally()):
        with closing(opened(path, own)) as log:
            add(log)
    with closing(opened(path, NewTally())) as log:
        add(log, times=events - 1)
    monkeypatch.setattr(projector, "REPLAY_ON_OPEN_EVENTS", 3)
    with closing(opened(path, NewTally())) as log:
        assert tally(log)
    assert ("tally__v1" in tables_in(path)) is is_left


@pytest.mark.parametrize("own", [Tally(), WeightedTally()])
def test_a_projection_far_behind_is_replayed_beside_the_live_tables(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, own: Tally
) -> None:
    with closing(opened(path, Tally())) as log:
        add(log)
    with closing(opened(path)) as log:
        add(log, times=30)
    monkeypatch.setattr(projector, "REPLAY_ON_OPEN_EVENTS", 20)
    caplog.set_level(logging.INFO)
    with closing(opened(path, own)) as log:
        assert "replay.started projections=['tally']" in [r.getMessage() for r in caplog.records]
        assert tally(log)[0][1] == {1: 62, 2: 310}[own.version]
        assert checkpoints(log) == {"tally": (own.version, 31)}


@pytest.mark.parametrize(
    ("own", "allowed", "is_far"),
    [
        (Tally(), 2, False),
        (Tally(), 1, True),
        (WeightedTally(), 5, False),
        (WeightedTally(), 4, True),
    ],
)
def test_a_projection_is_far_behind_when_more_events_wait_than_may(
    path: Path, monkeypatch: pytest.MonkeyPatch, own: Tally, allowed: int, is_far: bool
) -> None:
    with closing(opened(path, Tally())) as log:
        add(log, times=3)
    monkeypatch.setattr(projector, "REPLAY_ON_OPEN_EVENTS", allowed)
    with closing(opened(path)) as log:
        add(log, times=2)
        assert log.store.read_sync(Projections(own).far_behind) == ([own] if is_far else [])


class SteppedTally(Tally):
    """One that may show less than the log for a while."""

    is_built_in_steps: ClassVar[bool] = True


@pytest.mark.parametrize(("own", "batches"), [(Tally(), [5]), (SteppedTally(), [2, 2, 1])])
def test_what_is_far_behind_is_built_at_once_or_step_by_step_if_it_says_so(
    path: Path, monkeypatch: pytest.MonkeyPatch, own: Tally, batches: list[int]
) -> None:
    monkeypatch.setattr(projector, "REPLAY_ON_OPEN_EVENTS", 0)
    monkeypatch.setattr(background, "STEP_EVENTS", 2)
    with closing(opened(path)) as log:
        add(log, times=5)
    with closing(opened(path, own)) as log:
        assert tally(log) == [("s", 10)]
    assert own.batches == batches


def test_a_projection_a_little_behind_is_caught_up_in_place(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with closing(opened(path)) as log:
        add(log, times=30)
    caplog.set_level(logging.INFO)
    with closing(opened(path, Tally())) as log:
        assert tally(log) == [("s", 60)]
    assert not [r for r in caplog.records if "replay.started" in r.getMessage()]


def test_catching_up_goes_page_by_page(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with closing(opened(path)) as log:
        add(log, times=7)
    monkeypatch.setattr(build, "PAGE_EVENTS", 3)
    own = Tally()
    with closing(opened(path, own)) as log:
        assert tally(log) == [("s", 14)]
    assert own.batches == [3, 3, 1]


# -- what a set of projections is --------------------------------------------------------------


def test_two_projections_of_one_name_are_refused() -> None:
    with pytest.raises(errors.ProjectionError, match="tally"):
        Projections(Tally(), WeightedTally())


def test_projections_are_asked_for_by_name() -> None:
    kept_up = projections.default()
    assert [p.name for p in kept_up.named([])] == ["conversations", "usage", "views"]
    assert [p.name for p in kept_up.named(["usage"])] == ["usage"]
    with pytest.raises(
        errors.UnknownProjectionError, match="conversations, usage, views"
    ) as caught:
        kept_up.named(["usage", "nothing"])
    assert caught.value.projection == "nothing"


def test_a_table_of_somebody_else_s_is_never_taken(path: Path) -> None:
    with closing(opened(path)) as log:
        log.store.write_sync(lambda tx: tx.all("CREATE TABLE tally (mine)"))
    told = "^table 'tally' already exists, and projection 'tally' did not create it$"
    with pytest.raises(errors.ProjectionError, match=told) as caught:
        opened(path, Tally())
    assert caught.value.projection == "tally"
    with closing(sqlite3.connect(path)) as connection:
        assert [name for _, name, *_ in connection.execute("PRAGMA table_info(tally)")] == ["mine"]


def test_a_projection_s_tables_are_what_its_schema_makes() -> None:
    columns = ("session_id", "items")
    assert tables(SQLITE, Tally()) == (Table("tally", columns, ("session_id",), is_plain=True),)
    keys = {table.name: table.key for table in tables(SQLITE, Conversations())}
    assert keys == {
        "sessions": ("session_id",),
        "branches": ("session_id", "branch_id"),
        "segments": ("segment_id",),
        "items": ("segment_id", "number"),
        "session_labels": ("session_id", "path"),
        "redactions": ("position", "index_in_event"),
        "forks": ("session_id", "origin_session_id"),
    }


def test_a_process_keeps_a_projection_at_one_version(path: Path) -> None:
    class Newer(Tally):
        version = Tally.version + 1

    with (
        closing(EventLog.open_sync(path, projections=Projections(Tally()))),
        pytest.raises(ProjectionError, match="version") as caught,
    ):
        EventLog.open_sync(path, projections=Projections(Newer()))
    assert caught.value.projection == "tally"
    with closing(EventLog.open_sync(path, projections=Projections(Newer()))) as log:
        add(log)
        assert dict(tally(log)) == {"s": 2}
