"""History that was changed behind the log's back is found, and where."""

from __future__ import annotations

import hashlib
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from agents_eventlog.eventlog import EventLog, recording
from agents_eventlog.eventlog.events import BranchCreated, ItemsAdded, SessionCleared
from agents_eventlog.eventlog.integrity import Head, link
from tests.faults.support import batch

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from agents_eventlog.eventlog.integrity import Verification

EVENTS = 8
OTHER_DATA = '{"items":[{"role":"user","content":"never said"}]}'

CHANGES: dict[str, Any] = {
    "session_id": "mallory",
    "version": 40,
    "type": "metadata_set",
    "schema_version": 0,
    "branch_id": "other",
    "data": OTHER_DATA,
    "data_digest": hashlib.sha256(OTHER_DATA.encode()).digest(),
    "metadata": '{"actor":"bob"}',
    "idempotency_key": "another",
    "recorded_at": 1,
    "digest": bytes(32),
}


@pytest.fixture
async def head(path: Path) -> Head:
    """Write a log of two sessions with every column in use; return its head."""
    async with EventLog.open(path) as log:
        with recording(actor="alice"):
            for n in range(1, EVENTS):
                event = BranchCreated(branch_id="b", from_branch_id="main", last_item=None)
                await log.append(
                    "ab"[n % 2],
                    event if n == 2 else ItemsAdded(items=batch(n)),
                    branch_id="main",
                    idempotency_key=f"key {n}",
                )
            await log.append("a", SessionCleared())
        assert (await log.verify()).ok
        return await log.head()


async def tampered(
    path: Path, change: Callable[[sqlite3.Connection], object], expect: Head | None = None
) -> Verification:
    """Drop the triggers, change something, and verify."""
    with closing(sqlite3.connect(path)) as connection:
        for trigger in ("events_are_never_changed", "events_are_never_deleted"):
            connection.execute(f"DROP TRIGGER {trigger}")
        change(connection)
        connection.commit()
    async with EventLog.open(path, read_only=True) as log:
        return await log.verify(expect)


async def tampered_session(path: Path, session_id: str, sql: str, *parameters: Any) -> Verification:
    """Do as ``tampered`` does, and verify one session only."""
    await tampered(path, lambda connection: connection.execute(sql, parameters))
    async with EventLog.open(path, read_only=True) as log:
        return await log.verify_session(session_id)


def places(verified: Verification) -> set[int]:
    return {finding.position for finding in verified.findings}


@pytest.mark.parametrize("column", sorted(CHANGES))
@pytest.mark.parametrize("position", [1, 4, EVENTS])
async def test_a_changed_column_is_found_at_its_position(
    path: Path, head: Head, column: str, position: int
) -> None:
    verified = await tampered(
        path,
        lambda connection: connection.execute(
            f"UPDATE events SET {column} = ? WHERE position = ?", (CHANGES[column], position)
        ),
    )
    assert not verified.ok
    assert min(places(verified)) == position


@pytest.mark.parametrize("column", ["branch_id", "metadata", "idempotency_key"])
async def test_a_column_that_was_emptied_is_found_at_its_position(
    path: Path, head: Head, column: str
) -> None:
    verified = await tampered(
        path,
        lambda connection: connection.execute(
            f"UPDATE events SET {column} = NULL WHERE position = 3"
        ),
    )
    assert places(verified) == {3}


async def test_a_changed_payload_with_a_digest_to_match_is_found(path: Path, head: Head) -> None:
    verified = await tampered(
        path,
        lambda connection: connection.execute(
            "UPDATE events SET data = ?, data_digest = ? WHERE position = 5",
            (OTHER_DATA, CHANGES["data_digest"]),
        ),
    )
    assert places(verified) == {5}


async def test_an_erased_payload_leaves_the_chain_whole(path: Path, head: Head) -> None:
    verified = await tampered(
        path,
        lambda connection: connection.execute("UPDATE events SET data = NULL WHERE position = 5"),
    )
    assert verified.ok
    assert verified.head == head


@pytest.mark.parametrize("position", [1, 4, EVENTS - 1])
async def test_a_removed_event_is_found_at_its_place(path: Path, head: Head, position: int) -> None:
    verified = await tampered(
        path,
        lambda connection: connection.execute("DELETE FROM events WHERE position = ?", (position,)),
    )
    first = verified.findings[0]
    assert first.position == position + 1
    assert first.problem == f"events {position} to {position} are missing"


async def test_an_event_that_moved_is_found_where_it_was_and_where_it_is(
    path: Path, head: Head
) -> None:
    verified = await tampered(
        path,
        lambda connection: connection.execute("UPDATE events SET position = 90 WHERE position = 3"),
    )
    assert {4, 90} <= places(verified)


def insert_copy(connection: sqlite3.Connection) -> None:
    """Add an event at the end that looks right in every way but its place in the chain."""
    connection.execute(
        """
        INSERT INTO events SELECT position + 1, session_id, version + 1, type, schema_version,
            branch_id, data, data_digest, metadata, idempotency_key, recorded_at, digest
        FROM events WHERE position = ?
        """,
        (EVENTS,),
    )


async def test_an_event_that_was_slipped_in_is_found_at_its_position(
    path: Path, head: Head
) -> None:
    assert places(await tampered(path, insert_copy)) == {EVENTS + 1}


@pytest.mark.parametrize("columns", ["data, data_digest", "session_id, version", "digest"])
async def test_two_events_that_were_swapped_are_found_at_both_positions(
    path: Path, head: Head, columns: str
) -> None:
    def swap(connection: sqlite3.Connection) -> None:
        rows = [
            connection.execute(f"SELECT {columns} FROM events WHERE position = ?", (n,)).fetchone()
            for n in (4, 6)
        ]
        marks = ", ".join("?" * len(rows[0]))
        connection.execute("UPDATE events SET version = -version + 99 WHERE position IN (4, 6)")
        for position, row in zip((6, 4), rows, strict=True):
            connection.execute(
                f"UPDATE events SET ({columns}) = (SELECT {marks}) WHERE position = ?",
                (*row, position),
            )
        if "version" not in columns:
            connection.execute("UPDATE events SET version = -version + 99 WHERE position IN (4, 6)")

    assert {4, 6} <= places(await tampered(path, swap))


@pytest.mark.parametrize("kept", [0, 1, 5, EVENTS - 1])
async def test_a_cut_tail_is_found_by_the_positions_that_were_given(
    path: Path, head: Head, kept: int
) -> None:
    verified = await tampered(
        path,
        lambda connection: connection.execute("DELETE FROM events WHERE position > ?", (kept,)),
    )
    assert places(verified) == {kept + 1}
    missing = f"events {kept + 1} to {EVENTS} are missing at the end"
    assert [finding.problem for finding in verified.findings] == [missing]


def cut_without_trace(connection: sqlite3.Connection) -> None:
    connection.execute("DELETE FROM events WHERE position > 5")
    connection.execute("UPDATE sqlite_sequence SET seq = 5 WHERE name = 'events'")


async def test_a_tail_cut_without_trace_is_found_by_a_head_kept_elsewhere(
    path: Path, head: Head
) -> None:
    verified = await tampered(path, cut_without_trace, expect=head)
    async with EventLog.open(path) as log:
        assert await log.verify(expect_head=str(head)) == verified
    assert places(verified) == {EVENTS}


async def test_a_tail_cut_without_trace_is_a_shorter_log_to_who_kept_no_head(
    path: Path, head: Head
) -> None:
    verified = await tampered(path, cut_without_trace)
    assert (verified.ok, verified.events) == (True, 5)  # the limit of a chain, stated


async def test_a_chain_computed_anew_is_found_by_a_head_kept_elsewhere(
    path: Path, head: Head
) -> None:
    def forge(connection: sqlite3.Connection) -> None:
        connection.execute(
            "UPDATE events SET data = ?, data_digest = ? WHERE position = 4",
            (OTHER_DATA, CHANGES["data_digest"]),
        )
        previous = bytes(32)
        for row in connection.execute("SELECT * FROM events ORDER BY position").fetchall():
            previous = link(previous, *row[:6], *row[7:11])
            connection.execute(
                "UPDATE events SET digest = ? WHERE position = ?", (previous, row[0])
            )

    verified = await tampered(path, forge, expect=head)
    assert places(verified) == {EVENTS}
    assert verified.events == EVENTS


async def test_an_earlier_head_is_in_the_log_that_went_on(path: Path, head: Head) -> None:
    async with EventLog.open(path) as log:
        await log.append("a", ItemsAdded(items=batch("more")), branch_id="main")
        verified = await log.verify(head)
        assert verified.ok
        assert verified.head.position == EVENTS + 1
        assert Head.parse(str(head)) == head


# -- one session alone --------------------------------------------------------------------------


@pytest.mark.parametrize("column", sorted(CHANGES))
@pytest.mark.parametrize("position", [2, 4, EVENTS])
async def test_a_changed_column_is_found_by_verifying_its_session(
    path: Path, head: Head, column: str, position: int
) -> None:
    sql = f"UPDATE events SET {column} = ? WHERE position = ?"
    verified = await tampered_session(path, "a", sql, CHANGES[column], position)
    if column == "session_id":  # it is the session's no more, and its place is empty
        assert verified.ok == (position == EVENTS)
    else:
        assert position in places(verified)


async def test_a_session_is_verified_whatever_happened_to_others(path: Path, head: Head) -> None:
    sql = "UPDATE events SET data = ? WHERE session_id = 'b'"
    verified = await tampered_session(path, "a", sql, OTHER_DATA)
    assert verified.ok
    assert verified.events == EVENTS // 2
    assert verified.head == head  # the log's last event is this session's


async def test_an_event_that_was_taken_out_before_a_sessions_event_is_found(
    path: Path, head: Head
) -> None:
    verified = await tampered_session(path, "a", "DELETE FROM events WHERE position = 3")
    assert places(verified) == {4}
