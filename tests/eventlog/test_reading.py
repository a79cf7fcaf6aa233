"""Reading: the events that were asked for, in order, forward and backward, page by page."""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing
from datetime import UTC, date, datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import pytest

from agents_eventlog.eventlog import (
    ContentErased,
    EventLog,
    ItemsAdded,
    MetadataSet,
    SessionCleared,
    appender,
    errors,
)
from agents_eventlog.eventlog.reader import microseconds

if TYPE_CHECKING:
    from pathlib import Path

    from agents_eventlog.eventlog import RecordedEvent


async def filled(log: EventLog) -> None:
    """Append nine events: of two sessions in turn, on two branches, of three types."""
    events = [ItemsAdded(items=["x"]), MetadataSet(user_id="u"), SessionCleared()]
    for number in range(9):
        branch_id = "draft" if number % 4 == 0 else "main"
        session_id = "a" if number % 2 == 0 else "b"
        await log.append(session_id, events[number % 3], branch_id=branch_id)


async def positions(log: EventLog, *args: Any, **keywords: Any) -> list[int]:
    """Return the positions of what is read."""
    return [recorded.position async for recorded in log.read(*args, **keywords)]


@pytest.mark.parametrize(
    ("args", "keywords", "expected"),
    [
        ([], {}, [1, 2, 3, 4, 5, 6, 7, 8, 9]),
        (["a"], {}, [1, 3, 5, 7, 9]),
        (["nobody"], {}, []),
        ([], {"branch_id": "draft"}, [1, 5, 9]),
        (["b"], {"branch_id": "draft"}, []),
        ([], {"types": ["metadata_set"]}, [2, 5, 8]),
        ([], {"types": [MetadataSet, SessionCleared]}, [2, 3, 5, 6, 8, 9]),
        (["a"], {"types": [MetadataSet, "session_cleared"]}, [3, 5, 9]),
        ([], {"types": []}, []),
        ([], {"after": 3}, [4, 5, 6, 7, 8, 9]),
        ([], {"until": 3}, [1, 2, 3]),
        (["a"], {"after": 3, "until": 7}, [5, 7]),
        ([], {"after": 9}, []),
        ([], {"limit": 2}, [1, 2]),
        ([], {"limit": 0}, []),
        (["a"], {"limit": 99}, [1, 3, 5, 7, 9]),
    ],
)
@pytest.mark.parametrize("page", [1, 2, 1_000])
async def test_what_was_asked_for_is_read_in_order_and_backward(
    log: EventLog,
    monkeypatch: pytest.MonkeyPatch,
    args: list[str],
    keywords: dict[str, Any],
    expected: list[int],
    page: int,
) -> None:
    monkeypatch.setattr("agents_eventlog.eventlog.log.PAGE_EVENTS", page)
    await filled(log)
    assert await positions(log, *args, **keywords) == expected
    backward = await positions(log, *args, **keywords, backward=True)
    if "limit" in keywords:
        everything = await positions(log, *args)
        assert backward == everything[::-1][: keywords["limit"]]
    else:
        assert backward == expected[::-1]


async def test_large_payloads_make_small_pages_and_nothing_is_left_out(
    log: EventLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(appender, "PAGE_BYTES", 50)
    for number in range(7):
        await log.append("a", ItemsAdded(items=["x" * 10 * number]))
    assert await positions(log) == [1, 2, 3, 4, 5, 6, 7]
    assert await positions(log, "a", backward=True) == [7, 6, 5, 4, 3, 2, 1]
    assert await positions(log, after=2, limit=4) == [3, 4, 5, 6]
    assert (await log.verify()).events == 7


async def times(log: EventLog) -> list[datetime]:
    """Return when each event was recorded."""
    return [
        datetime.fromtimestamp(recorded.recorded_at // 1_000_000, UTC)
        async for recorded in log.read()
    ]


async def test_a_time_bounds_what_is_read_from_it_on_and_up_to_before_it(log: EventLog) -> None:
    await filled(log)
    at = await times(log)
    assert await positions(log, since=at[3]) == [4, 5, 6, 7, 8, 9]
    assert await positions(log, before=at[3]) == [1, 2, 3]
    assert await positions(log, since=at[2], before=at[5], backward=True) == [5, 4, 3]
    microsecond = timedelta(microseconds=1)
    assert await positions(log, since=at[3] + microsecond, before=at[4] + microsecond) == [5]


async def test_a_time_without_a_zone_is_utc_and_a_zone_is_heeded(log: EventLog) -> None:
    await filled(log)
    at = (await times(log))[3]
    elsewhere = at.astimezone(timezone(timedelta(hours=9)))
    assert await positions(log, before=at.replace(tzinfo=None)) == [1, 2, 3]
    assert await positions(log, before=elsewhere) == [1, 2, 3]


def test_a_time_is_exact_to_the_microsecond_up_to_the_last_that_there_is() -> None:
    assert microseconds(datetime.max.replace(tzinfo=UTC)) == 253_402_300_799_999_999


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        ({"types": "items_added"}, r"expected a sequence, got a str; did you mean"),
        (
            {"types": ["items_added", "item_added"]},
            "unknown event type 'item_added'; expected one of: items_added,",
        ),
        ({"since": date(2026, 11, 4)}, "invalid since: expected a datetime, got date"),
        ({"before": 5}, "invalid before: expected a datetime, got int"),
    ],
)
async def test_what_can_never_be_found_is_refused(
    log: EventLog, asked: dict[str, Any], why: str
) -> None:
    with pytest.raises(errors.InvalidQueryError, match=why):
        await positions(log, **asked)


async def test_an_erased_event_is_read_with_what_is_kept_of_it(log: EventLog, path: Path) -> None:
    await log.append("a", ItemsAdded(items=["secret"]))
    await log.append("a", ContentErased(positions=[1], structures=[{"items": [{}]}]))
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE events SET data = NULL WHERE position = 1")
    recorded = [recorded async for recorded in log.read()]
    assert [(each.data, each.structure) for each in recorded[:1]] == [(None, b'{"items":[{}]}')]


async def test_what_is_appended_while_it_is_read_is_read_too(
    log: EventLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agents_eventlog.eventlog.log.PAGE_EVENTS", 2)
    await filled(log)
    seen: list[RecordedEvent] = []
    async for recorded in log.read():
        seen.append(recorded)
        if recorded.position == 5:
            await log.append("a", SessionCleared())
    assert [recorded.position for recorded in seen] == list(range(1, 11))


async def test_an_empty_log_reads_as_nothing(log: EventLog) -> None:
    assert await positions(log) == await positions(log, backward=True) == []
    assert await log.head() == (0, bytes(32))
    verified = await log.verify()
    assert (verified.ok, verified.events, verified.head) == (True, 0, (0, bytes(32)))


async def test_reading_a_log_at_rest_leaves_its_folder_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    async with EventLog.open(path) as log:
        await log.append("a", ItemsAdded(items=["hello"]))
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    async with EventLog.open(path, read_only=True) as log:
        assert [recorded.session_id async for recorded in log.read()] == ["a"]
    assert (
        {file.name: file.read_bytes() for file in tmp_path.iterdir()}
        == before
        == {"log.db": before["log.db"]}
    )


@pytest.mark.parametrize("way", ["read", "write"])
def test_half_a_surrogate_pair_is_refused_by_name(log: EventLog, way: str) -> None:
    run = getattr(log.store, f"{way}_sync")
    with pytest.raises(errors.InvalidQueryError, match="unpaired surrogate") as refused:
        run(lambda tx: tx.one("SELECT ?", ("\udcff",)))
    assert isinstance(refused.value.__cause__, UnicodeEncodeError)


@pytest.mark.parametrize("limit", [-1, 2.5, "2", True])
async def test_a_limit_that_is_no_number_of_events_is_refused(log: EventLog, limit: Any) -> None:
    with pytest.raises(errors.InvalidQueryError, match=f"got {re.escape(repr(limit))}$"):
        _ = [event async for event in log.read(limit=limit)]
