"""Usage, row by row and sum by sum: what is recorded, corrected and counted by day."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from agents_eventlog.eventlog import (
    BranchDeleted,
    Event,
    ItemPopped,
    ItemRef,
    RequestUsage,
    SessionCleared,
    UsageCorrected,
    UsageCorrection,
    UsageRecorded,
)
from agents_eventlog.projections import Usage
from agents_eventlog.projections.usage import builder as usage_builder
from agents_eventlog.projections.usage import queries as usage_queries
from agents_eventlog.projections.usage.builder import (
    COUNTS,
    DAY,
    MOST_NANOS,
    SUMMED,
    nanos,
)
from tests.history import START, Entry, build, empty, history

if TYPE_CHECKING:
    from collections.abc import Iterator

    from agents_eventlog.eventlog.storage.transaction import Transaction

TODAY = START // DAY
NUMBERS = {
    "requests": 2,
    "input_tokens": 30,
    "output_tokens": 40,
    "total_tokens": 70,
    "cached_input_tokens": 5,
    "cache_write_tokens": 6,
    "reasoning_tokens": 7,
}
NAMED: dict[str, Any] = {
    "response_id": "resp",
    "model": "small",
    "agent": "alice",
    "endpoint": "http://localhost:8000/v1",
    "service_tier": "flex",
    "cost_usd": 0.25,
    "price_source": "list",
}
FULL = RequestUsage(
    **NUMBERS,
    **NAMED,
    input_tokens_details={"cached_tokens": 5},
    output_tokens_details={"reasoning_tokens": 7},
)


@pytest.fixture
def tx() -> Iterator[Transaction]:
    """A database in memory that holds the projection's tables."""
    opened = empty([Usage()])
    with closing(opened.connection):
        yield opened


def apply(tx: Transaction, *events: Entry | Event, cuts: tuple[int, ...] = ()) -> None:
    """Apply events, in one batch unless it is cut."""
    entries = [each if isinstance(each, Entry) else Entry(each) for each in events]
    build(tx, [Usage()], history(entries), cuts)


def ran(*requests: RequestUsage, run_id: str = "r", turn: int | None = 1) -> UsageRecorded:
    return UsageRecorded(run_id=run_id, turn=turn, requests=list(requests))


def corrected(position: int, index: int = 0, **learnt: Any) -> UsageCorrected:
    request = ItemRef(position, index)
    return UsageCorrected(requests=[UsageCorrection(request=request, **learnt)])


def rows(tx: Transaction, *columns: str) -> list[tuple[Any, ...]]:
    return tx.all(f"SELECT {', '.join(columns)} FROM usage ORDER BY position, index_in_event")


def sums(tx: Transaction) -> dict[tuple[Any, ...], dict[str, int]]:
    """Return the sums of each group."""
    return {
        row[:4]: dict(zip(SUMMED, row[4:], strict=True))
        for row in tx.all("SELECT * FROM usage_by_day")
    }


def test_a_request_s_row_holds_all_that_was_recorded(tx: Transaction) -> None:
    interrupted = UsageRecorded(run_id="r", turn=4, requests=[FULL], interrupted=True)
    apply(tx, Entry(interrupted, "s", "draft"))
    cursor = tx.execute("SELECT * FROM usage")
    names = [name for name, *_ in cursor.description]
    assert dict(zip(names, cursor.fetchone(), strict=True)) == {
        **NUMBERS,
        **NAMED,
        "position": 1,
        "index_in_event": 0,
        "session_id": "s",
        "branch_id": "draft",
        "turn": 4,
        "is_live": 1,
        "run_id": "r",
        "begins_run": 1,
        "is_interrupted": 1,
        "input_token_details": '{"cached_tokens":5}',
        "output_token_details": '{"reasoning_tokens":7}',
        "cost_nanos": 250_000_000,
        "occurred_at": START + 1,
        "undone_version": None,
    }


def test_what_is_not_known_is_left_out_and_happens_on_main(tx: Transaction) -> None:
    apply(tx, Entry(ran(RequestUsage(), turn=None), "s", None))
    unknown = ("turn", "response_id", "model", "agent", "cost_usd", "price_source")
    details = ("input_token_details", "output_token_details")
    assert rows(tx, *unknown, *details) == [(None,) * 8]
    assert rows(tx, "branch_id", "is_live", "is_interrupted", "requests", "cost_nanos") == [
        ("main", 0, 0, 1, 0)
    ]


@pytest.mark.parametrize("cuts", [(), (1,), (1, 2, 3, 4)])
def test_a_run_begins_with_its_first_request_once_in_each_session(
    tx: Transaction, cuts: tuple[int, ...]
) -> None:
    one = RequestUsage()
    apply(
        tx,
        ran(run_id="empty"),
        ran(one, one),
        ran(one),
        Entry(ran(one), "t"),
        ran(one, run_id="empty"),
        ran(one, run_id="other"),
        cuts=cuts,
    )
    assert rows(tx, "position", "begins_run") == [(2, 1), (2, 0), (3, 0), (4, 1), (5, 1), (6, 1)]
    first = [getattr(one, name) for name in COUNTS]
    found = [run.run_id for run in usage_queries.runs_beginning(tx, "s", first, None)]
    assert found == ["other", "empty", "r"]


def test_many_runs_are_asked_after_some_at_a_time(
    tx: Transaction, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(usage_builder, "MOST_ASKED", 12)
    tx.connection.setlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER, 27)  # what one row takes
    runs = [ran(RequestUsage(), run_id=f"r{n}") for n in range(13)]
    apply(tx, *runs, *runs, cuts=(13,))
    assert [begins for (begins,) in rows(tx, "begins_run")] == [1] * 13 + [0] * 13


def test_sums_are_kept_by_day_session_model_and_agent(tx: Transaction) -> None:
    apply(tx, ran(FULL, FULL), ran(FULL, RequestUsage(requests=3), run_id="q"))
    known = {name: 3 * number for name, number in NUMBERS.items()}
    nothing = dict.fromkeys(SUMMED, 0)
    assert sums(tx) == {
        (TODAY, "s", "small", "alice"): {
            **nothing,
            **known,
            "entries": 3,
            "runs": 2,
            "cost_nanos": 750_000_000,
        },
        (TODAY, "s", "", ""): {**nothing, "entries": 1, "requests": 3, "unpriced_requests": 3},
    }


def test_a_day_begins_at_midnight_utc(tx: Transaction) -> None:
    events = history([Entry(ran(RequestUsage())) for _ in range(3)])
    for recorded, at in zip(events, (DAY - 1, DAY, 2 * DAY - 1), strict=True):
        recorded.recorded_at = at
    build(tx, [Usage()], events)
    assert {key[0]: found["entries"] for key, found in sums(tx).items()} == {0: 1, 1: 2}


@pytest.mark.parametrize("cuts", [(), (1,), (1, 2)])
def test_a_correction_puts_what_was_learnt_in_place_and_leaves_the_rest(
    tx: Transaction, cuts: tuple[int, ...]
) -> None:
    learnt = {"model": "large", "cost_usd": 0.5}
    apply(tx, ran(FULL, FULL), corrected(1, 1, **learnt), ran(FULL, run_id="q"), cuts=cuts)
    assert rows(tx, *NAMED, "cost_nanos") == [
        (*NAMED.values(), 250_000_000),
        (*(NAMED | learnt).values(), 500_000_000),
        (*NAMED.values(), 250_000_000),
    ]
    numbers = rows(tx, *NUMBERS)
    assert numbers == [tuple(NUMBERS.values())] * 3


@pytest.mark.parametrize("name", NAMED)
def test_each_field_can_be_corrected_alone(tx: Transaction, name: str) -> None:
    value = 2.0 if name == "cost_usd" else "better"
    apply(tx, ran(FULL), corrected(1, **{name: value}))
    assert rows(tx, *NAMED) == [tuple((NAMED | {name: value}).values())]


@pytest.mark.parametrize("cuts", [(), (1,), (1, 2)])
def test_a_correction_moves_the_sums_to_where_they_belong(
    tx: Transaction, cuts: tuple[int, ...]
) -> None:
    first = ran(FULL, RequestUsage(requests=3, model="small", agent="alice"))
    apply(tx, first, corrected(1, 0, agent="bob"), corrected(1, 1, cost_usd=1.0), cuts=cuts)
    nothing = dict.fromkeys(SUMMED, 0)
    priced = {"entries": 1, "requests": 3, "cost_nanos": 1_000_000_000}
    assert sums(tx) == {
        (TODAY, "s", "small", "alice"): {**nothing, **priced},
        (TODAY, "s", "small", "bob"): {
            **nothing,
            **NUMBERS,
            "entries": 1,
            "runs": 1,
            "cost_nanos": 250_000_000,
        },
    }


def test_a_group_that_nothing_belongs_to_any_more_is_gone(tx: Transaction) -> None:
    apply(tx, ran(FULL), corrected(1, model="large"))
    assert list(sums(tx)) == [(TODAY, "s", "large", "alice")]
    assert tx.one("SELECT runs, entries FROM usage_by_day") == (1, 1)


def test_a_correction_of_a_request_that_there_is_not_changes_nothing(tx: Transaction) -> None:
    apply(tx, ran(FULL), corrected(1, 1, model="large"), corrected(9, model="large"))
    two = [UsageCorrection(request=ItemRef(n, 0), agent="bob") for n in (9, 1)]
    assert rows(tx, "model", "agent") == [("small", "alice")]
    build(
        tx,
        [Usage()],
        history([*[Entry(SessionCleared(), "t")] * 3, Entry(UsageCorrected(requests=two))]),
    )
    assert rows(tx, "model", "agent") == [("small", "bob")]


def live(tx: Transaction) -> list[int]:
    """Return the positions of what is shown."""
    return [position for (position,) in tx.all("SELECT position FROM usage WHERE is_live = 1")]


@pytest.mark.parametrize("cuts", [(), (6,)])
@pytest.mark.parametrize(
    ("end", "left"),
    [
        (Entry(ItemPopped(item=ItemRef(1, 0), emptied_turn=1), "s", "main"), [2, 3, 4, 5]),
        (Entry(ItemPopped(item=ItemRef(1, 0), emptied_turn=1), "s", None), [2, 3, 4, 5]),
        (Entry(ItemPopped(item=ItemRef(1, 0), emptied_turn=0), "s", "main"), [1, 2, 3, 4]),
        (Entry(ItemPopped(item=ItemRef(1, 0)), "s", "main"), [1, 2, 3, 4, 5]),
        (Entry(BranchDeleted(branch_id="b"), "s", "main"), [1, 2, 4, 5]),
        (Entry(SessionCleared(), "s", "main"), [4]),
    ],
)
def test_what_is_taken_away_is_no_longer_shown(
    tx: Transaction, end: Entry, left: list[int], cuts: tuple[int, ...]
) -> None:
    one = RequestUsage()
    recorded = [
        Entry(ran(one, turn=1)),
        Entry(ran(one, turn=2)),
        Entry(ran(one, turn=1), "s", "b"),
        Entry(ran(one, turn=1), "t"),
        Entry(ran(one, turn=0)),
    ]
    apply(tx, *recorded, end, Entry(ran(one, turn=1)), cuts=cuts)
    assert live(tx) == [*left, 7]


@pytest.mark.parametrize(
    ("cost_usd", "expected"),
    [
        (None, 0),
        (float("nan"), 0),
        (float("inf"), 0),
        (0.0, 0),
        (1.5e-9, 2),
        (-0.5, -500_000_000),
        (1e300, MOST_NANOS),
        (-1e300, -MOST_NANOS),
    ],
)
def test_a_cost_is_a_whole_number_of_billionths(cost_usd: float | None, expected: int) -> None:
    assert nanos(cost_usd) == expected
