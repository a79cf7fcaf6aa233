"""Whatever happened, and however it is asked for: what was spent is the sum over the events."""

from __future__ import annotations

from contextlib import closing
from datetime import UTC, datetime, timedelta
from itertools import groupby
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from hypothesis import given
from hypothesis import strategies as st

from agents_eventlog.projections import Conversations, Usage
from agents_eventlog.projections.reference import fold
from agents_eventlog.projections.usage import queries as usage_queries
from agents_eventlog.projections.usage.builder import DAY, nanos, numbers
from agents_eventlog.projections.usage.queries import BY, UsageQuery, UsageTotals
from tests.history import START, build, empty
from tests.properties.profiles import examples
from tests.properties.strategies import histories

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from agents_eventlog.eventlog import RecordedEvent
    from agents_eventlog.projections.reference import Session, State, Used

BOTH = (Conversations(), Usage())
HOUR = DAY // 24
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
FIRST_DAY = START // DAY * DAY
NAMES = st.lists(st.sampled_from(list(BY)), max_size=3, unique=True)
TIMES = (
    st.none()
    | st.integers(0, 160).map(lambda days: FIRST_DAY + days * DAY)
    | st.integers(0, 160 * 24).map(lambda hours: FIRST_DAY + hours * HOUR)
)
ZONES = ("Europe/Berlin", "America/St_Johns", "Australia/Lord_Howe", "Pacific/Kiritimati")
WANTED = st.builds(
    UsageQuery,
    by=NAMES,
    since=TIMES,
    until=TIMES,
    user_id=st.sampled_from([None, None, None, "alice"]),
    session_id=st.sampled_from([None, None, None, "a"]),
    live=st.booleans(),
    tz=st.sampled_from([UTC, UTC, *map(ZoneInfo, ZONES)]),
)
KEYS: dict[str, Callable[[str, Session, Used], Any]] = {
    "session": lambda session_id, session, used: session_id,
    "user": lambda session_id, session, used: session.user_id,
    "branch": lambda session_id, session, used: used.branch_id,
    "turn": lambda session_id, session, used: used.turn,
    "run": lambda session_id, session, used: used.run_id,
    "model": lambda session_id, session, used: used.request.model or None,
    "agent": lambda session_id, session, used: used.request.agent or None,
}


def spread(events: list[RecordedEvent]) -> list[RecordedEvent]:
    """Let 97 hours pass between one event and the next, so that months and clocks change."""
    for recorded in events:
        recorded.recorded_at = START + recorded.position * 97 * HOUR
    return events


def requests(state: State) -> Iterator[tuple[str, Session, Used, bool]]:
    """Return every request of every session, and whether a run begins with it."""
    for session_id, session in state.sessions.items():
        begun: set[str] = set()
        for used in session.usage:
            yield session_id, session, used, used.run_id not in begun
            begun.add(used.run_id)


def naive(state: State, wanted: UsageQuery) -> dict[tuple[Any, ...], UsageTotals]:
    """Add up what is wanted, request by request."""
    sums: dict[tuple[Any, ...], UsageTotals] = {}
    for session_id, session, used, begins in requests(state):
        if (
            wanted.session_id not in (None, session_id)
            or wanted.user_id not in (None, session.user_id)
            or (wanted.live and not (used.is_live and session.deleted_at is None))
            or (wanted.since is not None and used.occurred_at < wanted.since)
            or (wanted.until is not None and used.occurred_at >= wanted.until)
        ):
            continue
        local = (EPOCH + timedelta(microseconds=used.occurred_at)).astimezone(wanted.tz)
        periods = {"day": f"{local:%Y-%m-%d}", "month": f"{local:%Y-%m}"}
        key = tuple(
            periods[name] if name in periods else KEYS[name](session_id, session, used)
            for name in wanted.by
        )
        cost = used.request.cost_usd
        spent = UsageTotals(
            int(begins),
            *numbers(used.request),
            nanos(cost),
            used.request.requests if cost is None else 0,
        )
        sums[key] = sums.get(key, UsageTotals()) + spent
    return sums


@given(
    histories(max_size=40), st.sets(st.integers(1, 39)), st.lists(WANTED, min_size=1, max_size=6)
)
@examples(80)
def test_every_grouping_adds_up_what_the_events_say(
    events: list[RecordedEvent], cuts: set[int], questions: list[UsageQuery]
) -> None:
    spread(events)
    tx = empty(BOTH)
    with closing(tx.connection):
        build(tx, BOTH, events, cuts)
        for wanted in questions:
            found = usage_queries.groups(tx, wanted)
            expected = naive(fold(events), wanted)
            assert {as_key(wanted, group.keys): group.totals for group in found} == expected
            assert usage_queries.total(found) == sum(expected.values(), UsageTotals())


def as_key(wanted: UsageQuery, keys: dict[str, Any]) -> tuple[Any, ...]:
    """Return a group's keys in the order asked for."""
    return tuple(keys[BY[name]] for name in wanted.by)


@given(histories(max_size=40), NAMES)
@examples(40)
def test_groups_come_in_the_order_of_their_keys(events: list[RecordedEvent], by: list[str]) -> None:
    tx = empty(BOTH)
    with closing(tx.connection):
        build(tx, BOTH, spread(events))
        found = usage_queries.groups(tx, UsageQuery(by=by))
    keys = [tuple((key is not None, key) for key in group.keys.values()) for group in found]
    assert keys == sorted(keys, key=lambda key: [(known, str(value)) for known, value in key])
    assert all(len(list(same)) == 1 for _, same in groupby(keys))


@given(histories(max_size=40))
@examples(40)
def test_no_sum_is_kept_of_nothing(events: list[RecordedEvent]) -> None:
    tx = empty(BOTH)
    with closing(tx.connection):
        build(tx, BOTH, events, range(len(events)))
        assert tx.all("SELECT * FROM usage_by_day WHERE entries < 1") == []
        (kept,) = tx.one("SELECT COALESCE(SUM(entries), 0) FROM usage_by_day") or (None,)
        assert (kept,) == tx.one("SELECT COUNT(*) FROM usage")
