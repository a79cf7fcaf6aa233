"""Replay: the tables again from the first event, beside the live ones, whatever goes on meanwhile."""

from __future__ import annotations

import errno
import importlib
import signal
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from agents_eventlog import projections
from agents_eventlog.eventlog import (
    BranchDeleted,
    EventLog,
    ItemsAdded,
    MetadataSet,
    UsageRecorded,
    append,
    codec,
    errors,
)
from agents_eventlog.projections import Conversations, Projection, Usage, replay
from agents_eventlog.projections.reference import fold
from agents_eventlog.projections.replay import Difference
from tests.history import dump, meant, seen, stored
from tests.projections.given import added, branched, on, popped, used

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from agents_eventlog.eventlog import Event, RecordedEvent, Transaction
    from agents_eventlog.projections import Progress
    from tests.projections.given import Given

BOTH = (Conversations(), Usage())
REPLAYING = importlib.import_module("agents_eventlog.projections.replay")
SCRATCH = importlib.import_module("agents_eventlog.eventlog.storage.sqlite.scratch")
ROOT = Path(__file__).parents[2]


@pytest.fixture
def talked(given: Given) -> Given:
    """A log with a bit of everything: 12 events."""
    given(added(), used(1, 5), added(), branched("b", (1, 1)), on("b", added()), added())
    given(popped(6, 1), used(2, 7, branch_id="b", cost_usd=0.5), MetadataSet(user_id="alice"))
    given(on("main", added(), "other"), branched("c", None), on("c", BranchDeleted(branch_id="c")))
    return given


def rows(given: Given) -> dict[str, list[tuple[Any, ...]]]:
    """Return every row of the projections' tables."""
    return given.log.store.read_sync(lambda tx: dump(tx, BOTH))


def spoil(given: Given, *statements: str) -> None:
    """Change the file behind the log's back."""
    with closing(sqlite3.connect(given.log.path, isolation_level=None)) as connection:
        for statement in statements:
            connection.execute(statement)


def checked(given: Given) -> list[Difference]:
    """Return what a check finds; the sums that it returns must agree."""
    found: list[Difference] = []
    outcomes = replay(given.log, BOTH, check=True, on_difference=found.append)
    for outcome in outcomes:
        assert outcome.differences == sum(one.table == outcome.table for one in found)
    return found


def beside(given: Given) -> list[str]:
    """Return the files that lie beside the log and are not its own."""
    log = Path(given.log.path)
    own = {log.name, f"{log.name}-wal", f"{log.name}-shm"}
    return sorted(file.name for file in log.parent.iterdir() if file.name not in own)


# -- checking -----------------------------------------------------------------------------------


def test_a_check_of_tables_that_are_well_finds_nothing_and_counts_their_rows(
    talked: Given,
) -> None:
    found: list[Difference] = []
    outcomes = replay(talked.log, BOTH, check=True, on_difference=found.append)
    assert found == []
    assert [(o.projection, o.table, o.rows, o.differences) for o in outcomes] == [
        ("conversations", "sessions", 2, 0),
        ("conversations", "branches", 4, 0),
        ("conversations", "segments", 3, 0),
        ("conversations", "items", 9, 0),
        ("conversations", "session_labels", 0, 0),
        ("conversations", "redactions", 0, 0),
        ("conversations", "forks", 0, 0),
        ("usage", "usage", 2, 0),
        ("usage", "usage_by_day", 1, 0),
    ]


def test_a_check_names_every_row_that_was_altered_and_how(talked: Given) -> None:
    spoil(
        talked,
        "UPDATE usage SET total_tokens = 8, model = 'x' WHERE position = 2",
        "UPDATE items SET turn = 9 WHERE segment_id = 1 AND number = 2",
    )
    items, usage = checked(talked)
    assert str(items) == "items 1/2: turn 9 -> 1"
    assert str(usage) == "usage 2/0: total_tokens 8 -> 5, model 'x' -> None"
    assert (usage.table, usage.key) == ("usage", (2, 0))
    assert usage.live is not None
    assert usage.replayed is not None
    assert (usage.live["total_tokens"], usage.replayed["total_tokens"]) == (8, 5)


def test_a_check_names_every_row_that_is_missing(talked: Given) -> None:
    spoil(talked, "DELETE FROM branches WHERE session_id = 's'")
    assert [str(difference) for difference in checked(talked)] == [
        "branches s/b: missing",
        "branches s/c: missing",
        "branches s/main: missing",
    ]


def test_a_check_names_every_row_that_should_not_exist(talked: Given) -> None:
    for name in ("a", "é", "s", "zz"):
        spoil(
            talked,
            f"INSERT INTO sessions SELECT '{name}0', created_at, updated_at, user_id,"
            " metadata, branch_id, item_count, turn_count, branch_count, cleared_version,"
            " cleared_at, deleted_at, erased_at, expires_after, is_filled, expired_version"
            " FROM sessions WHERE session_id = 's'",
        )
    assert [str(difference) for difference in checked(talked)] == [
        "sessions a0: should not exist",
        "sessions s0: should not exist",
        "sessions zz0: should not exist",
        "sessions é0: should not exist",
    ]


def test_a_check_names_all_rows_of_a_table_that_is_gone(talked: Given) -> None:
    spoil(talked, "DROP TABLE usage")
    assert [str(difference) for difference in checked(talked)] == [
        "usage 2/0: missing",
        "usage 8/0: missing",
    ]


def test_a_check_changes_nothing(talked: Given) -> None:
    spoil(talked, "UPDATE usage SET total_tokens = 8 WHERE position = 2")
    before = rows(talked)
    assert len(checked(talked)) == 1
    assert rows(talked) == before
    assert beside(talked) == []


def test_a_check_while_writers_go_on_finds_nothing(
    talked: Given, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(REPLAYING, "BATCH_EVENTS", 3)
    found: list[Difference] = []
    outcomes = replay(
        talked.log, BOTH, check=True, on_progress=busy(talked), on_difference=found.append
    )
    assert found == []
    assert outcomes[0].rows == 2
    assert talked.value("SELECT COUNT(*) FROM events") == 24  # progress was told


# -- replaying ----------------------------------------------------------------------------------


def busy(given: Given, times: int = 6) -> Callable[[Progress], None]:
    """Return a listener that appends something each time that it hears of progress."""
    left = times

    def listen(progress: Progress) -> None:
        nonlocal left
        if left:
            left -= 1
            given(added(), on("b", added()))

    return listen


def test_a_replay_mends_what_was_spoilt(talked: Given) -> None:
    before = rows(talked)
    spoil(
        talked,
        "UPDATE usage SET total_tokens = 8",
        "DELETE FROM items WHERE number = 2",
        "INSERT INTO segments VALUES (99, 'nobody', NULL, 0)",
        "DROP TABLE branches",
    )
    outcomes = replay(talked.log, BOTH)
    assert rows(talked) == before
    assert outcomes == replay(talked.log, BOTH, check=True)


def test_a_replay_of_one_projection_leaves_the_others_as_they_are(talked: Given) -> None:
    spoil(talked, "UPDATE usage SET total_tokens = 8", "UPDATE sessions SET item_count = 77")
    replay(talked.log, [BOTH[1]])
    assert {difference.table for difference in checked(talked)} == {"sessions"}


def test_a_replayed_table_has_its_indexes_again(talked: Given) -> None:
    names = "SELECT name FROM sqlite_schema WHERE type = 'index' ORDER BY name"
    before = talked.ask(names)
    replay(talked.log, BOTH)
    assert talked.ask(names) == before


class Computed(Projection):
    """Tables of a kind that a user may make: a column that SQLite computes, no key, an index on both."""

    name: ClassVar[str] = "computed"
    version: ClassVar[int] = 1
    schema: ClassVar[Sequence[str]] = (
        "CREATE TABLE computed (twice INTEGER AS (position * 2) STORED, position INTEGER, session TEXT)",
        "CREATE INDEX computed_twice ON computed (twice, session) WHERE position > 1",
        "CREATE TABLE later (position INTEGER PRIMARY KEY DESC, kind TEXT DEFAULT 'other')",
    )
    handles: ClassVar[Sequence[type[Event]]] = (ItemsAdded, UsageRecorded)

    def apply(self, tx: Transaction, events: Sequence[RecordedEvent]) -> None:
        for event in events:
            row = (event.position, event.session_id)
            tx.execute("INSERT INTO computed (position, session) VALUES (?, ?)", row)
            tx.execute("INSERT INTO later (position) VALUES (?)", (event.position,))


def test_tables_of_any_make_are_swapped_in_whole(talked: Given) -> None:
    replay(talked.log, [Computed()])
    with closing(sqlite3.connect(talked.log.path)) as connection:
        computed = connection.execute("SELECT * FROM computed").fetchall()
        found = connection.execute(
            "SELECT twice FROM computed WHERE twice > 4 AND position > 1"
        ).fetchall()
        later = connection.execute("SELECT * FROM later ORDER BY position DESC").fetchall()
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    added_or_used = [
        event for event in stored(talked.log) if event.type in {"items_added", "usage_recorded"}
    ]
    assert computed == [(2 * e.position, e.position, e.session_id) for e in added_or_used]
    assert sorted(found) == [(2 * e.position,) for e in added_or_used if e.position > 2]
    assert later == [(e.position, "other") for e in reversed(added_or_used)]
    assert all(not outcome.differences for outcome in replay(talked.log, [Computed()], check=True))


def test_a_log_goes_on_after_a_replay(talked: Given) -> None:
    replay(talked.log, BOTH)
    talked(added(), popped(13, 1))
    assert checked(talked) == []


def test_what_is_appended_during_a_replay_is_in_the_tables_when_they_are_swapped(
    talked: Given, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(REPLAYING, "BATCH_EVENTS", 3)
    told: list[Progress] = []
    listen = busy(talked)

    def both(progress: Progress) -> None:
        told.append(progress)
        listen(progress)

    replay(talked.log, BOTH, on_progress=both)
    assert talked.log.store.read_sync(seen) == meant(fold(stored(talked.log)))
    assert talked.value("SELECT COUNT(*) FROM events") == 24
    assert [progress.events for progress in told] == list(range(3, 25, 3))
    assert all(progress.events <= progress.total for progress in told)


def test_a_replay_tells_how_long_it_has_taken(
    talked: Given, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    seconds = count(100, 0.12345)
    monkeypatch.setattr(REPLAYING, "time", SimpleNamespace(monotonic=lambda: next(seconds)))
    caplog.set_level("INFO", "eventlog.replay")
    told: list[Progress] = []
    replay(talked.log, BOTH, on_progress=told.append)
    assert told == [(12, 12, pytest.approx(0.12345))]
    assert [record.getMessage() for record in caplog.records] == [
        "replay.finished projection='conversations' seconds=0.37",
        "replay.finished projection='usage' seconds=0.494",
    ]


def test_a_swap_among_busy_writers_loses_nothing(given: Given) -> None:
    done = threading.Event()

    def write() -> None:
        while not done.is_set():
            given.write(lambda tx: append(tx, "s", added(), branch_id="main"))

    given(added(), branched("b", (1, 1)))
    writers = [threading.Thread(target=write) for _ in range(2)]
    for writer in writers:
        writer.start()
    try:
        for _ in range(5):
            replay(given.log, BOTH)
    finally:
        done.set()
        for writer in writers:
            writer.join()
    assert given.log.store.read_sync(seen) == meant(fold(stored(given.log)))
    assert checked(given) == []


def test_a_log_in_memory_can_be_replayed_and_checked() -> None:
    with closing(EventLog.open_sync(":memory:", projections=projections.default())) as log:
        log.store.write_sync(lambda tx: append(tx, "s", added(), branch_id="main"))
        log.store.write_sync(lambda tx: tx.all("UPDATE items SET turn = 9"))
        found = {o.table: o.differences for o in replay(log, BOTH, check=True)}
        assert {table: count for table, count in found.items() if count} == {"items": 2}
        replay(log, BOTH)
        assert {o.differences for o in replay(log, BOTH, check=True)} == {0}


def test_an_empty_log_can_be_replayed(given: Given) -> None:
    assert {outcome.rows for outcome in replay(given.log, BOTH)} == {0}


# -- what stops it ------------------------------------------------------------------------------

INSERT = (
    "INSERT INTO events (session_id, version, type, schema_version, branch_id, data, data_digest,"
    " recorded_at, digest) VALUES ('s', 99, '{type}', {version}, 'main', '{data}', x'', 1, x'')"
)


@pytest.mark.parametrize(
    ("kind", "version", "data"),
    [
        ("items_added", 1, "no json"),
        ("items_added", 1, "{}"),
        ("items_added", 1, "null"),
        ("items_added", 1, '{"items":5}'),
        ("items_added", 1, '{"items":"text"}'),
        ("items_added", 1, '{"items":{"a":1}}'),
        ("items_added", 1, '{"items":null}'),
        ("items_replaced", 1, '{"items":[1]}'),
        ("branch_created", 1, '{"branch_id":5}'),
        ("usage_recorded", 1, '{"run_id":"r"}'),
        ("items_added", 2, '{"items":[]}'),
        ("items_taken", 1, "{}"),
    ],
)
def test_an_event_that_cannot_be_read_stops_the_replay_and_is_named(
    talked: Given, kind: str, version: int, data: str
) -> None:
    before = rows(talked)
    spoil(talked, INSERT.format(type=kind, version=version, data=data))
    for check in (True, False):
        with pytest.raises(errors.UndecodableEventError, match="position 13") as caught:
            replay(talked.log, BOTH, check=check)
        assert caught.value.position == 13
    assert rows(talked) == before
    assert beside(talked) == []


def test_a_replay_that_fails_at_the_swap_leaves_the_tables_as_they_were(
    talked: Given, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = rows(talked)

    def fail(*_: Any) -> None:
        raise LookupError

    monkeypatch.setattr("agents_eventlog.projections.build.set_checkpoint", fail)
    with pytest.raises(LookupError):
        replay(talked.log, BOTH)
    monkeypatch.undo()
    assert rows(talked) == before
    assert beside(talked) == []
    talked(added())
    assert checked(talked) == []


def test_tables_that_a_newer_program_built_meanwhile_are_left_to_it(talked: Given) -> None:
    def renew(progress: Progress) -> None:
        spoil(talked, "UPDATE checkpoints SET version = 99 WHERE projection = 'usage'")

    before = rows(talked)
    REPLAYING.rebuild(talked.log.store, BOTH, on_progress=renew)
    assert rows(talked) == before
    assert talked.ask("SELECT COUNT(*) FROM usage__v5") == talked.ask("SELECT COUNT(*) FROM usage")


KILLED = """
import sys, time
from agents_eventlog import projections
from agents_eventlog.eventlog import EventLog
from agents_eventlog.projections import replay

def listen(progress):
    print("under way", flush=True)
    time.sleep(60)

kept_up = projections.default()
replay(EventLog.open_sync(sys.argv[1], projections=kept_up), kept_up.named([]), on_progress=listen)
"""


def test_a_replay_that_is_killed_has_changed_nothing_and_the_next_one_clears_up(
    talked: Given,
) -> None:
    before = rows(talked)
    command = [sys.executable, "-c", KILLED, talked.log.path]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"under way\n"
        process.send_signal(signal.SIGKILL)
        process.wait(10)
    assert rows(talked) == before
    assert len(beside(talked)) == 1
    replay(talked.log, BOTH)
    assert rows(talked) == before
    assert beside(talked) == []


def test_erased_items_do_not_come_back(talked: Given) -> None:
    data = codec.encode(added())
    assert talked.value("SELECT CAST(data AS BLOB) FROM events WHERE position = 10") == data
    spoil(talked, "UPDATE events SET data = NULL WHERE position = 10")
    replay(talked.log, BOTH)
    assert talked.refs(session_id="other") == []
    assert talked.branches("other") == ["main"]
    assert talked.log.store.read_sync(seen) == meant(fold(stored(talked.log)))


def test_a_difference_between_kinds_of_keys_keeps_the_order_of_the_table() -> None:
    keys = [b"\xff", b"A", "é", "z", "Z", 2.5, 10, -1, None]
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.execute("CREATE TABLE t (k)")
        connection.executemany("INSERT INTO t VALUES (?)", [(key,) for key in keys])
        ordered = [key for (key,) in connection.execute("SELECT k FROM t ORDER BY k")]
    for place, key in enumerate(ordered):
        before = [other for other in ordered if REPLAYING._before((other,), (key,))]
        assert before == ordered[:place]


@pytest.mark.parametrize("check", [False, True])
@pytest.mark.parametrize("events", [0, 3])
def test_what_is_appended_once_the_rest_is_built_is_heeded_too(
    given: Given, monkeypatch: pytest.MonkeyPatch, events: int, check: bool
) -> None:
    build = REPLAYING._build

    def built_and_outrun(*args: Any) -> int:
        position: int = build(*args)
        given(*[added()] * 3)
        return position

    given(*[added()] * events)
    monkeypatch.setattr(REPLAYING, "BATCH_EVENTS", 2)
    monkeypatch.setattr(REPLAYING, "_build", built_and_outrun)
    outcomes = replay(given.log, BOTH, check=check)
    assert not any(outcome.differences for outcome in outcomes)
    assert given.log.store.read_sync(seen) == meant(fold(stored(given.log)))


@pytest.mark.parametrize(
    ("number", "kind"),
    [(errno.ENOSPC, errors.DiskFullError), (errno.EACCES, errors.DiskError)],
)
def test_a_folder_that_takes_no_file_is_told_and_the_tables_stay(
    talked: Given, monkeypatch: pytest.MonkeyPatch, number: int, kind: type[Exception]
) -> None:
    def refuse(**_: Any) -> None:
        raise OSError(number, "refused")

    before = rows(talked)
    monkeypatch.setattr(SCRATCH.tempfile, "mkstemp", refuse)
    with pytest.raises(kind, match="beside") as caught:
        replay(talked.log, BOTH)
    assert caught.value.path == talked.log.path  # type: ignore[attr-defined]
    assert rows(talked) == before


@pytest.mark.parametrize("owner", ["notes", "1"])
def test_a_file_whose_owner_may_be_running_is_no_leftover(
    talked: Given, monkeypatch: pytest.MonkeyPatch, owner: str
) -> None:
    def refuse(pid: int, signal: int) -> None:
        raise PermissionError

    monkeypatch.setattr(SCRATCH.os, "kill", refuse)
    kept = Path(f"{talked.log.path}-replay-{owner}")
    kept.write_text("mine")
    replay(talked.log, BOTH)
    assert kept.read_text() == "mine"


def test_the_file_of_a_replay_that_is_under_way_is_no_leftover(talked: Given) -> None:
    command = [sys.executable, "-c", "import sys; sys.stdin.read()"]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as process:
        kept = Path(f"{talked.log.path}-replay-x-{process.pid}")
        kept.write_text("its own")
        replay(talked.log, BOTH)
        assert kept.read_text() == "its own"
        process.communicate()
    assert process.returncode == 0
