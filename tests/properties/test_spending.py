"""Whatever happened, and however it is asked for: what was spent is the sum over the events."""

from __future__ import annotations

import asyncio
from contextlib import closing, suppress
from datetime import UTC, datetime, timedelta
from itertools import groupby
from typing import TYPE_CHECKING, Any, TypeAlias
from zoneinfo import ZoneInfo

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from agents_eventlog import ConversationLog, EventLogSession
from agents_eventlog.adapters.conversations import usage as usage_calls
from agents_eventlog.eventlog import RequestUsage, UsageCorrected, UsageRecorded
from agents_eventlog.eventlog.errors import ConversationError, UndecodableEventError
from agents_eventlog.projections import Conversations, Usage
from agents_eventlog.projections.reference import fold
from agents_eventlog.projections.usage import queries as usage_queries
from agents_eventlog.projections.usage.builder import DAY, nanos, numbers
from agents_eventlog.projections.usage.queries import BY, UsageQuery, UsageTotals
from tests.history import START, build, empty, meant, seen, stored
from tests.properties.profiles import examples
from tests.properties.strategies import histories

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

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


# -- through sessions ---------------------------------------------------------------------------

Step: TypeAlias = "Callable[[EventLogSession, int], Awaitable[Any]]"


async def use(session: EventLogSession, number: int) -> None:
    """Record two requests of a run, on the current turn."""
    requests = [
        RequestUsage(
            input_tokens=number + 1,
            total_tokens=number + 1,
            model=["small", "large", None][number % 3],
            agent=["Host", None][number % 2],
            cost_usd=[0.1, None][index],
        )
        for index in range(2)
    ]
    used = UsageRecorded(run_id=f"r{number}", turn=number % 2, requests=requests)
    await session.log.append(session.session_id, used, branch_id=session.current_branch)


async def branch_off(session: EventLogSession, number: int) -> None:
    await session.create_branch_from_turn(1, f"b{number}")


async def move(session: EventLogSession, number: int) -> None:
    await session.switch_to_branch("main")


async def drop(session: EventLogSession, number: int) -> None:
    await session.delete_branch(f"b{number}", force=True)


async def redact(session: EventLogSession, number: int) -> None:
    rows = (await session.get_transcript())[number : number + 1]
    if rows:
        await session.redact(rows[0]["position"], rows[0]["index"], reason=f"{number}")


async def reprice(session: EventLogSession, number: int) -> None:
    await log_of(session).reprice(prices=lambda *_: number / 7, only_unpriced=number % 2 == 0)


async def erase(session: EventLogSession, number: int) -> None:
    await log_of(session).erase(session_id=session.session_id)


STEPS: dict[str, Step] = {
    "use": use,
    "use again": use,
    "use more": use,
    "ask": lambda session, number: session.add_items([{"role": "user", "content": f"{number}"}]),
    "pop": lambda session, number: session.pop_item(),
    "undo": lambda session, number: session.undo_turn(),
    "redo": lambda session, number: session.redo(),
    "retry": lambda session, number: session.retry(),
    "edit": lambda session, number: session.edit(1, "another"),
    "clear": lambda session, number: session.clear_session(),
    "redact": redact,
    "fork": lambda session, number: session.fork(f"fork {number} of {session.session_id}"),
    "branch off": branch_off,
    "move": move,
    "drop": drop,
    "reprice": reprice,
    "give": lambda session, number: session.set_metadata(user_id=f"user {number % 2}"),
    "delete": lambda session, number: session.delete_session(),
    "restore": lambda session, number: session.restore_session(),
    "erase": erase,
}


def log_of(session: EventLogSession) -> ConversationLog:
    """Return a session's log, which the test opened."""
    assert isinstance(session.log, ConversationLog)
    return session.log


async def events_say(
    log: ConversationLog, tz: ZoneInfo
) -> list[tuple[dict[str, Any], UsageTotals]]:
    """Return the keys and numbers of each request, after corrections, from nothing but the events."""
    found: dict[tuple[int, int], tuple[dict[str, Any], RequestUsage, int]] = {}
    begun: set[tuple[str, str]] = set()
    async for recorded in log.read():
        event = recorded.event
        if isinstance(event, UsageRecorded):
            local = (EPOCH + timedelta(microseconds=recorded.occurred_at)).astimezone(tz)
            for index, request in enumerate(event.requests):
                run = (recorded.session_id, event.run_id)
                keys = {
                    "session_id": recorded.session_id,
                    "branch_id": recorded.branch_id,
                    "turn": event.turn,
                    "run_id": event.run_id,
                    "day": f"{local:%Y-%m-%d}",
                    "month": f"{local:%Y-%m}",
                }
                found[recorded.position, index] = (keys, request, int(run not in begun))
                begun.add(run)
        elif isinstance(event, UsageCorrected):
            for correction in event.requests:
                ref = (correction.request.position, correction.request.index)
                keys, request, begins = found[ref]
                fields = {"cost_usd": correction.cost_usd, "model": correction.model}
                learnt = {name: value for name, value in fields.items() if value is not None}
                found[ref] = (keys, msgspec.structs.replace(request, **learnt), begins)
    return [
        (
            {**keys, "model": request.model, "agent": request.agent},
            UsageTotals(
                begins,
                *numbers(request),
                nanos(request.cost_usd),
                request.requests if request.cost_usd is None else 0,
            ),
        )
        for keys, request, begins in found.values()
    ]


@given(
    st.lists(
        st.tuples(st.sampled_from([*STEPS]), st.sampled_from("ab"), st.integers(0, 3)), max_size=20
    )
)
@examples(30)
def test_whatever_sessions_do_usage_by_any_group_is_the_sum_over_the_events(
    steps: list[tuple[str, str, int]],
) -> None:
    async def check() -> None:
        async with ConversationLog.open(":memory:") as log:
            now = [START]
            log.store.clock = lambda: now[0]
            sessions = {name: EventLogSession(name, log) for name in "ab"}
            for step, name, number in steps:
                now[0] += 97 * HOUR
                with suppress(
                    ConversationError, UndecodableEventError
                ):  # deleted, erased, or no such branch
                    await STEPS[step](sessions[name], number)
            assert await log.query(seen) == meant(fold(stored(log)))
            requests = await events_say(log, ZoneInfo("Europe/Berlin"))
            total = sum((used for _, used in requests), UsageTotals())
            for by in [*BY, ("user", "month"), ("model", "day"), ("session", "branch", "turn")]:
                answer = await log.usage(by, tz="Europe/Berlin")
                groups = answer.pop("groups")
                assert answer == usage_calls.as_dict(total)
                keys = [BY[name] for name in ([by] if isinstance(by, str) else by)]
                assert len({tuple(group[key] for key in keys) for group in groups}) == len(groups)
                if "user_id" in keys:
                    continue  # the owner is that of the end
                expected: dict[tuple[Any, ...], UsageTotals] = {}
                for known, used in requests:
                    values = tuple(known[key] for key in keys)
                    expected[values] = expected.get(values, UsageTotals()) + used
                assert {tuple(group.pop(key) for key in keys): group for group in groups} == {
                    values: usage_calls.as_dict(used) for values, used in expected.items()
                }

    asyncio.run(check())
