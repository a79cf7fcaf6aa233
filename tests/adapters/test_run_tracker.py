"""Which requests of a run a session still has to record: the three cases of ``RunTracker``."""

from __future__ import annotations

import pytest

from agents_eventlog.adapters.openai_agents.usage.runs import RecordedRequest, RunRecord, RunTracker
from agents_eventlog.eventlog.events import ItemRef, RequestUsage

REQUEST = RecordedRequest(ItemRef(1, 0), 0, RequestUsage())


def one(n: int) -> tuple[int, ...]:
    """Return the numbers of n requests without tokens."""
    return (n, 0, 0, 0, 0, 0, 0)


def tracker(begins: dict[str, int], *recorded: tuple[str, int]) -> RunTracker:
    """Return the tracker of a run; beside the recorded requests "a" recorded 2 and "b" 1 in sum."""
    requests = dict.fromkeys(recorded, REQUEST)
    return RunTracker(begins=begins, run=RunRecord("r", requests, {"a": one(2), "b": one(1)}))


@pytest.mark.parametrize(
    ("begins", "recorded", "session_id", "known", "rest"),
    [
        ({"a": 0}, [], "a", set(), 3),
        ({"a": 0}, [("a", 0), ("a", 1)], "a", {0, 1}, 3),
        ({"a": 0, "b": 2}, [("a", 0), ("b", 2)], "a", {0, 2}, 3),
        ({"a": 0, "b": 2}, [("a", 0), ("b", 2)], "b", {0, 1, 2}, 3),
        ({"a": 0, "b": 2}, [("a", 0), ("b", 2)], "c", set(), 0),
        ({"a": 0}, [("a", 0), ("b", 1)], "b", {1}, 1),
    ],
    ids=[
        "fed alone, nothing recorded",
        "fed alone, some recorded",
        "fed with another session: what either recorded",
        "fed from the third request on: the first two as well",
        "given the result: all is new",
        "given the result again: its own alone",
    ],
)
def test_a_session_records_what_is_its_own_and_not_recorded_yet(
    begins: dict[str, int],
    recorded: list[tuple[str, int]],
    session_id: str,
    known: set[int],
    rest: int,
) -> None:
    run = tracker(begins, *recorded)
    assert run.known(session_id) == known
    assert run.rest_known(session_id) == one(rest)


@pytest.mark.parametrize("begins", [{}, {"a": 0}], ids=["given the result", "fed"])
def test_of_a_run_of_which_nothing_is_recorded_nothing_is_known(begins: dict[str, int]) -> None:
    run = RunTracker(begins=begins)
    assert (run.known("a"), run.rest_known("a")) == (set(), one(0))
