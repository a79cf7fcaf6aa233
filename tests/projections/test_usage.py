"""Usage: live turns are shown, all that was ever spent stays."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from agents_eventlog.eventlog import (
    BranchDeleted,
    ItemRef,
    RequestUsage,
    SessionCleared,
    SessionDeleted,
    TurnRedone,
    TurnUndone,
    UsageRecorded,
)
from agents_eventlog.projections.reference import fold
from agents_eventlog.projections.usage import queries as usage_queries
from tests.history import meant, seen, stored
from tests.projections.given import ANSWER, USER, added, branched, on, popped, used

if TYPE_CHECKING:
    from tests.projections.given import Given


def by_turn(given: Given, branch_id: str = "main") -> dict[int, int]:
    """Return the tokens of each live turn of a branch."""
    found = given.log.store.read_sync(lambda tx: usage_queries.by_turn(tx, "s", branch_id))
    return {turn: tokens.total_tokens for turn, tokens in found.items()}


def test_two_runs_in_one_turn_add_up(given: Given) -> None:
    given(added(), used(1, 10, run_id="r1")).when(used(1, 5, run_id="r2"))
    assert by_turn(given) == {1: 15}
    assert given.spent().runs == 2


def test_each_request_of_a_run_has_a_row(given: Given) -> None:
    requests = [RequestUsage(total_tokens=n, response_id=f"r{n}") for n in (1, 2)]
    given.when(UsageRecorded(run_id="r", turn=1, requests=requests))
    rows = given.ask("SELECT position, index_in_event, total_tokens, response_id FROM usage")
    assert rows == [(1, 0, 1, "r1"), (1, 1, 2, "r2")]
    assert given.spent().runs == 1


def test_a_turn_that_was_popped_empty_is_no_longer_shown_and_stays_spent(given: Given) -> None:
    given(added(), used(1, 10), added(), used(2, 5))
    given.when(popped(3, 1), popped(3, 0, emptied_turn=2))
    assert by_turn(given) == {1: 10}
    assert given.total() == 10
    assert given.spent().total_tokens == 15


def test_a_turn_that_is_undone_and_redone_shows_its_usage_again(given: Given) -> None:
    given(added(), used(1, 10), added(), used(2, 5))
    given.when(TurnUndone(turn=2, removed=[ItemRef(3, 0), ItemRef(3, 1)]))
    assert by_turn(given) == {1: 10}
    given.when(TurnRedone(turn=2, undone_version=5, items=[USER, ANSWER]))
    assert by_turn(given) == {1: 10, 2: 5}
    assert given.log.store.read_sync(seen) == meant(fold(stored(given.log)))


def test_a_pop_that_leaves_the_turn_standing_ends_nothing(given: Given) -> None:
    given(added(), used(1, 10)).when(popped(1, 1))
    assert given.total() == 10


def test_a_deleted_branch_keeps_its_cost(given: Given) -> None:
    given(added(), branched("b", (1, 1)), used(1, 40, branch_id="b", cost_usd=0.5), used(1, 2))
    given.when(on("b", BranchDeleted(branch_id="b")))
    assert by_turn(given, "b") == {}
    assert given.total() == 2
    assert given.spent().total_tokens == 42
    assert given.spent().cost_usd == 0.5


def test_a_pop_on_one_branch_ends_no_usage_of_another(given: Given) -> None:
    given(added(), branched("b", (1, 1)), used(1, 7), used(1, 8, branch_id="b"))
    given.when(popped(1, 1), popped(1, 0, emptied_turn=1))
    assert by_turn(given) == {}
    assert by_turn(given, "b") == {1: 8}


def test_a_cleared_session_keeps_what_it_cost_and_shows_only_what_comes_after(given: Given) -> None:
    given(added(), used(1, 7), SessionCleared()).when(added(), used(1, 4, run_id="later"))
    assert by_turn(given) == {1: 4}
    assert given.spent().total_tokens == 11


def test_a_deleted_session_keeps_what_it_cost(given: Given) -> None:
    given(added(), used(1, 7)).when(SessionDeleted())
    assert given.spent().total_tokens == 7


def test_usage_whose_turn_was_gone_already_is_spent_and_never_shown(given: Given) -> None:
    given.when(used(None, 9))
    assert by_turn(given) == {}
    assert given.total() == 0
    assert given.spent().total_tokens == 9


def test_usage_before_the_first_user_item_belongs_to_turn_0(given: Given) -> None:
    given.when(used(0, 3))
    assert by_turn(given) == {0: 3}


def test_sessions_do_not_share_usage(given: Given) -> None:
    given.when(used(1, 3))
    assert given.spent("other").total_tokens == 0
    assert given.total(session_id="other") == 0


def test_the_cost_is_the_sum_of_what_is_priced_and_the_rest_is_counted(given: Given) -> None:
    given.when(used(1, 1, cost_usd=0.25), used(1, 1, cost_usd=0.5), used(1, 1, requests=3))
    spent = given.spent()
    assert spent.cost_usd == 0.75
    assert spent.unpriced_requests == 3
    assert spent.requests == 5


def test_every_number_of_a_request_is_summed(given: Given) -> None:
    numbers: Any = {
        "requests": 1,
        "input_tokens": 2,
        "output_tokens": 3,
        "cached_input_tokens": 4,
        "cache_write_tokens": 5,
        "reasoning_tokens": 6,
    }
    given.when(used(1, 7, **numbers), used(2, 7, **numbers))
    spent = given.spent()
    assert {name: getattr(spent, name) for name in numbers} == {
        name: 2 * number for name, number in numbers.items()
    }


@pytest.mark.parametrize(
    ("left", "right", "expected"),
    [
        (None, None, None),
        ({"a": 1}, None, {"a": 1}),
        (None, {"a": 1}, {"a": 1}),
        ({"a": 1, "b": 2}, {"a": 3, "c": 4}, {"a": 4, "b": 2, "c": 4}),
        ({"a": None, "kind": "x"}, {"a": 3, "kind": "y"}, {"a": 3, "kind": "y"}),
    ],
)
def test_details_are_summed_key_by_key_where_they_are_numbers(
    left: dict[str, object] | None,
    right: dict[str, object] | None,
    expected: dict[str, object] | None,
) -> None:
    assert usage_queries.sum_details(left, right) == expected


def test_a_turn_s_details_are_what_the_provider_told(given: Given) -> None:
    details = {"cached_tokens": 3, "audio_tokens": 1}
    given(used(1, 5, input_tokens_details=details)).when(used(1, 5, input_tokens_details=details))
    turns = given.log.store.read_sync(lambda tx: usage_queries.by_turn(tx, "s", "main"))
    assert turns[1].input_tokens_details == {"cached_tokens": 6, "audio_tokens": 2}
    assert turns[1].output_tokens_details is None
