"""What was spent, asked of a session and of all of a log's."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from agents_eventlog import AdvancedSQLiteSession, ConversationLog
from agents_eventlog.eventlog import RequestUsage, UsageRecorded
from agents_eventlog.eventlog.errors import InvalidQueryError
from agents_eventlog.eventlog.recorded_event import EARLIEST, LATEST

if TYPE_CHECKING:
    from pathlib import Path

MIDNIGHT = datetime(2026, 11, 4, tzinfo=UTC)
DAY = timedelta(days=1)
USED = [
    # session, hours after midnight, run, turn, branch, model, agent, tokens, cost
    ("a", 1, "r1", 1, "main", "small", "host", 10, 0.5),
    ("a", 2, "r1", 1, "main", "large", "guest", 20, None),
    ("a", 30, "r2", 2, "draft", "small", "host", 40, 0.25),
    ("b", 3, "r3", 1, "main", "small", "host", 80, 1.0),
    ("b", 31, "r4", 1, "main", None, None, 160, None),
]


@pytest.fixture
async def path(tmp_path: Path) -> Path:
    """Return a file with two sessions that spent something on two days; "a" is alice's."""
    path = tmp_path / "log.db"
    alice = AdvancedSQLiteSession("a", path, user_id="alice", durability="normal")
    await alice.add_items([{"role": "user", "content": "one"}])
    log = alice.log
    for session_id, hours, run_id, turn, branch_id, model, agent, tokens, cost in USED:
        at = int((MIDNIGHT + timedelta(hours=hours)).timestamp()) * 1_000_000
        log.store.clock = lambda at=at: at
        request = RequestUsage(
            input_tokens=tokens, total_tokens=tokens, model=model, agent=agent, cost_usd=cost
        )
        event = UsageRecorded(run_id=run_id, turn=turn, requests=[request])
        await log.append(session_id, event, branch_id=branch_id)
    alice.close()
    return path


def table(answer: dict[str, Any], *keys: str) -> list[tuple[Any, ...]]:
    """Return the groups' keys, runs, tokens, costs and unpriced requests."""
    sums = ("total_runs", "total_tokens", "total_cost", "unpriced_requests")
    return [tuple(group[key] for key in (*keys, *sums)) for group in answer["groups"]]


async def test_a_log_is_asked_by_any_group(path: Path) -> None:
    async with ConversationLog.open(path) as log:
        assert table(await log.usage("user"), "user_id") == [
            (None, 2, 240, 1.0, 1),
            ("alice", 2, 70, 0.75, 1),
        ]
        assert table(await log.usage("model"), "model") == [
            (None, 1, 160, 0.0, 1),
            ("large", 0, 20, 0.0, 1),
            ("small", 3, 130, 1.75, 0),
        ]
        assert table(await log.usage(by=("day", "session")), "day", "session_id") == [
            ("2026-11-04", "a", 1, 30, 0.5, 1),
            ("2026-11-04", "b", 1, 80, 1.0, 0),
            ("2026-11-05", "a", 1, 40, 0.25, 0),
            ("2026-11-05", "b", 1, 160, 0.0, 1),
        ]
        assert table(await log.usage("branch", session_id="a"), "branch_id") == [
            ("draft", 1, 40, 0.25, 0),
            ("main", 1, 30, 0.5, 1),
        ]


async def test_an_answer_has_the_sums_of_all_groups(path: Path) -> None:
    async with ConversationLog.open(path) as log:
        plain = await log.usage()
        assert "groups" not in plain
        assert (plain["total_runs"], plain["total_tokens"], plain["total_cost"]) == (4, 310, 1.75)
        grouped = await log.usage(by=("agent", "turn"))
        assert {name: grouped[name] for name in plain} == plain


@pytest.mark.parametrize(
    ("since", "until", "tokens"),
    [
        (MIDNIGHT, MIDNIGHT + DAY, 110),
        (MIDNIGHT + timedelta(hours=2), MIDNIGHT + timedelta(hours=31), 140),
        (MIDNIGHT + timedelta(hours=2), None, 300),
        (None, MIDNIGHT + timedelta(hours=2), 10),
        (date(2026, 11, 5), None, 200),
        (None, date(2026, 11, 4), 110),
        (date(2026, 11, 4), date(2026, 11, 5), 310),
        (datetime(2026, 11, 4, 3), datetime(2026, 11, 4, 4), 80),  # noqa: DTZ001 - UTC then
        (date(2026, 11, 6), None, 0),
    ],
)
async def test_a_time_range_is_exact_and_a_day_alone_counts_whole(
    path: Path, since: Any, until: Any, tokens: int
) -> None:
    async with ConversationLog.open(path, read_only=True) as log:
        assert (await log.usage(since=since, until=until))["total_tokens"] == tokens
        by_day = await log.usage("day", since=since, until=until)
        assert by_day["total_tokens"] == tokens


async def test_a_session_is_asked_by_any_group_in_its_own_numbers(path: Path) -> None:
    session = AdvancedSQLiteSession("a", path, first_turn_number=0)
    assert table(await session.get_usage_stats("turn"), "turn") == [
        (0, 1, 30, 0.5, 1),
        (1, 1, 40, 0.25, 0),
    ]
    assert table(await session.get_usage_stats(["run", "agent"]), "run_id", "agent") == [
        ("r1", "guest", 0, 20, 0.0, 1),
        ("r1", "host", 1, 10, 0.5, 0),
        ("r2", "host", 1, 40, 0.25, 0),
    ]
    later = await session.get_usage_stats(since=date(2026, 11, 5))
    assert (later["total_runs"], later["total_tokens"]) == (1, 40)


async def test_only_what_still_stands_on_demand(path: Path) -> None:
    session = AdvancedSQLiteSession("a", path)
    await session.pop_item()
    assert (await session.get_usage_stats())["total_tokens"] == 70
    assert (await session.get_usage_stats(live=True))["total_tokens"] == 40
    async with ConversationLog.open(path) as log:
        assert (await log.usage("session", live=True))["total_tokens"] == 280
        await session.delete_session()
        assert table(await log.usage("session", live=True), "session_id") == [("b", 2, 240, 1.0, 1)]
        assert (await log.usage("session"))["total_tokens"] == 310


@pytest.mark.parametrize(
    ("by", "says"),
    [
        ("colour", "'colour'; expected one of: session, user, branch"),
        (("day", "day"), "each name once"),
    ],
)
async def test_a_group_that_there_is_not_is_an_error_that_lists_what_there_is(
    path: Path, by: Any, says: str
) -> None:
    async with ConversationLog.open(path) as log:
        with pytest.raises(ValueError, match=says):
            await log.usage(by)
    with pytest.raises(ValueError, match=says):
        await AdvancedSQLiteSession("a", path).get_usage_stats(by)


BERLIN = "Europe/Berlin"


@pytest.fixture
async def year(tmp_path: Path) -> Path:
    """Return a file with a token at each of the borders of a year in Berlin, and before each."""
    path = tmp_path / "year.db"
    borders = [  # in UTC; the clocks change on the 29th of March and on the 25th of October
        *("2025-12-31T23:00", "2026-03-28T23:00", "2026-03-29T22:00", "2026-03-31T22:00"),
        *("2026-10-24T22:00", "2026-10-25T23:00", "2026-10-31T23:00"),
    ]
    async with ConversationLog.open(path) as log:
        for border in borders:
            at = int(datetime.fromisoformat(f"{border}+00:00").timestamp()) * 1_000_000
            for moment in (at - 1, at):
                log.store.clock = lambda moment=moment: moment
                requests = [RequestUsage(input_tokens=1, total_tokens=1)]
                await log.append("a", UsageRecorded(run_id="r", turn=1, requests=requests))
    return path


async def test_months_end_at_midnight_in_the_time_zone(year: Path) -> None:
    async with ConversationLog.open(year) as log:
        berlin = await log.usage("month", tz=BERLIN)
        assert [(group["month"], group["total_tokens"]) for group in berlin["groups"]] == [
            ("2025-12", 1),
            ("2026-01", 1),
            ("2026-03", 5),
            ("2026-04", 1),
            ("2026-10", 5),
            ("2026-11", 1),
        ]
        utc = await log.usage(["month", "session"])
        assert [(group["month"], group["total_tokens"]) for group in utc["groups"]] == [
            ("2025-12", 2),
            ("2026-03", 6),
            ("2026-10", 6),
        ]
        assert {each: berlin[each] for each in berlin if each != "groups"} == await log.usage()


async def test_days_end_at_midnight_when_clocks_change(year: Path) -> None:
    session = AdvancedSQLiteSession("a", year)
    days = (await session.get_usage_stats("day", tz=BERLIN, since=date(2026, 3, 1)))["groups"]
    assert [(group["day"], group["total_tokens"]) for group in days] == [
        ("2026-03-28", 1),
        ("2026-03-29", 2),  # 23 hours
        ("2026-03-30", 1),
        ("2026-03-31", 1),
        ("2026-04-01", 1),
        ("2026-10-24", 1),
        ("2026-10-25", 2),  # 25 hours
        ("2026-10-26", 1),
        ("2026-10-31", 1),
        ("2026-11-01", 1),
    ]


@pytest.mark.parametrize("by", [(), "day", "month", "session"])
@pytest.mark.parametrize(
    ("since", "until", "tokens"),
    [
        (date(2026, 3, 29), date(2026, 3, 29), 2),
        (date(2026, 10, 25), date(2026, 10, 25), 2),
        (date(2026, 3, 1), date(2026, 3, 31), 5),
        (datetime(2026, 3, 29), datetime(2026, 3, 30), 2),  # noqa: DTZ001 - Berlin then
        (datetime(2026, 3, 29, tzinfo=UTC), datetime(2026, 3, 30, tzinfo=UTC), 2),
    ],
)
async def test_dates_and_times_without_a_zone_are_in_the_time_zone(
    year: Path, by: str, since: Any, until: Any, tokens: int
) -> None:
    async with ConversationLog.open(year) as log:
        used = await log.usage(by, since=since, until=until, tz=BERLIN)
    assert used["total_tokens"] == tokens


async def test_the_first_and_the_last_day_have_a_month_in_every_time_zone(tmp_path: Path) -> None:
    async with ConversationLog.open(tmp_path / "log.db") as log:
        assert (await log.usage("month", tz=BERLIN))["groups"] == []
        for moment in (EARLIEST, LATEST):
            log.store.clock = lambda moment=moment: moment
            used = UsageRecorded(run_id="r", turn=1, requests=[RequestUsage()])
            await log.append("a", used)
        for tz in ("UTC", "Pacific/Kiritimati", "Pacific/Pago_Pago"):
            found = (await log.usage(("month", "day"), tz=tz))["groups"]
            assert [group["month"] for group in found] == ["0001-01", "9999-12"]


async def test_a_time_zone_that_does_not_exist_is_refused(path: Path) -> None:
    async with ConversationLog.open(path) as log:
        with pytest.raises(InvalidQueryError, match="unknown time zone: expected an IANA name"):
            await log.usage("month", tz="Berlin")
