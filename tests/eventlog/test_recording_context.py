"""What ``recording`` binds lands in the metadata of what is appended inside."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

import pytest

from agents_eventlog.eventlog import EventLog, SessionCleared, errors, recording

CLEARED = SessionCleared()


async def recorded(log: EventLog) -> list[dict[str, Any]]:
    """Return the metadata of each event."""
    return [event.metadata async for event in log.read()]


async def test_what_is_bound_is_recorded_with_every_event_of_the_block(log: EventLog) -> None:
    with recording(actor="alice", run_id="r1"):
        await log.append("a", [CLEARED, CLEARED])
        await log.append("b", CLEARED)
    await log.append("a", CLEARED)
    bound = {"actor": "alice", "run_id": "r1"}
    of_two = {**bound, "events_in_append": 2}
    assert await recorded(log) == [of_two, of_two, bound, {}]


async def test_blocks_nest_and_the_inner_ones_win(log: EventLog) -> None:
    with recording(actor="alice", source="web"):
        with recording(actor="bob", trace_id="t"):
            await log.append("a", CLEARED)
        await log.append("a", CLEARED)
    assert await recorded(log) == [
        {"actor": "bob", "source": "web", "trace_id": "t"},
        {"actor": "alice", "source": "web"},
    ]


async def test_none_takes_a_name_out(log: EventLog) -> None:
    with recording(actor="alice", source="web"), recording(actor=None):
        await log.append("a", CLEARED)
    assert await recorded(log) == [{"source": "web"}]


async def test_a_block_that_fails_ends_like_any_other(log: EventLog) -> None:
    with suppress(LookupError), recording(actor="alice"):
        raise LookupError
    await log.append("a", CLEARED)
    assert await recorded(log) == [{}]


async def test_tasks_inherit_what_was_bound_when_they_began(log: EventLog) -> None:
    async def later(name: str) -> None:
        with recording(run_id=name):
            await asyncio.sleep(0)
            await log.append(name, CLEARED)

    with recording(actor="alice"):
        tasks = [asyncio.ensure_future(later(name)) for name in ("r1", "r2")]
    await asyncio.gather(*tasks)
    assert await recorded(log) == [
        {"actor": "alice", "run_id": "r1"},
        {"actor": "alice", "run_id": "r2"},
    ]


async def test_any_json_can_be_recorded(log: EventLog) -> None:
    values: dict[str, Any] = {"n": [1, {"x": None}], "é": "\ud800", "big": 10**30, "inf": 1e999}
    with recording(**values):
        await log.append("a", CLEARED)
    assert await recorded(log) == [values]
    assert (await log.verify()).ok


@pytest.mark.parametrize("name", ["occurred_at", "imported", "events_in_append"])
async def test_a_name_that_the_log_itself_records_under_is_refused(
    log: EventLog, name: str
) -> None:
    with pytest.raises(errors.InvalidEventError, match=f"reserved name '{name}'"):  # noqa: SIM117
        with recording(**{name: 0}):
            await log.append("a", CLEARED)
    assert await recorded(log) == []
