"""Labels: which leaves metadata has, and that none of them means anything to SQL."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from agents_eventlog.eventlog import MetadataSet
from agents_eventlog.eventlog.metadata_leaves import (
    MAX_CHARACTERS,
    MAX_LEVELS,
    TooDeepError,
    leaves,
    leaves_to_match,
)
from tests.projections.given import added

if TYPE_CHECKING:
    from tests.projections.given import Given


def nested(levels: int, leaf: Any = 1) -> dict[str, Any]:
    """Return metadata whose only leaf stands so many levels deep."""
    found: Any = leaf
    for _ in range(levels):
        found = {"in": found}
    return dict(found)


def test_a_leaf_is_what_is_no_object_or_an_empty_one() -> None:
    metadata = {"plan": "pro", "customer": {"tier": 2, "tags": ["a", {"b": 1}]}, "none": {}}
    assert list(leaves(metadata)) == [
        ('["plan"]', '"pro"'),
        ('["customer","tier"]', "2"),
        ('["customer","tags"]', '["a",{"b":1}]'),
        ('["none"]', "{}"),
    ]


@pytest.mark.parametrize(
    ("left", "right"),
    [(1, 1.0), (0, -0.0), (10**20, 1e20), ([1.0, {"b": 2, "a": 1}], [1, {"a": 1.0, "b": 2.0}])],
)
def test_values_that_are_equal_as_json_are_one_label(left: Any, right: Any) -> None:
    assert list(leaves({"k": left})) == list(leaves({"k": right}))


@pytest.mark.parametrize(
    ("left", "right"),
    [(1, True), (0, False), (1, "1"), (None, "null"), ([], {}), ([1, 2], [2, 1]), (1, 1.5)],
)
def test_values_that_differ_as_json_are_two(left: Any, right: Any) -> None:
    assert list(leaves({"k": left})) != list(leaves({"k": right}))


def test_a_key_with_a_dot_is_no_path() -> None:
    assert list(leaves({"a.b": 1})) != list(leaves({"a": {"b": 1}}))
    assert list(leaves({'a","b': 1})) != list(leaves({"a": {"b": 1}}))


def test_a_label_stays_short_however_long_its_key_and_value_are() -> None:
    [label] = leaves({"k" * 60_000: "v" * 60_000})
    [other] = leaves({"k" * 60_000: "v" * 59_999 + "w"})
    assert max(map(len, label)) <= MAX_CHARACTERS
    assert label.path == other.path
    assert label.value != other.value


def test_what_is_nested_too_deeply_has_no_label_and_cannot_be_asked_for() -> None:
    assert len(list(leaves(nested(MAX_LEVELS)))) == 1
    assert list(leaves({"plan": "pro", **nested(MAX_LEVELS + 2)})) == list(leaves({"plan": "pro"}))
    for deep in (nested(300), {"list": json.loads("[" * 300 + "]" * 300)}):
        assert list(leaves(deep)) == []
        with pytest.raises(TooDeepError):
            leaves_to_match(deep)


def test_new_metadata_takes_the_place_of_all_that_was(given: Given) -> None:
    given(added(), MetadataSet(metadata={"plan": "pro", "tier": 2}))
    given.when(MetadataSet(metadata={"plan": "free"}))
    assert given.ask("SELECT path, value FROM session_labels") == [('["plan"]', '"free"')]
    given.when(MetadataSet(user_id="alice"))
    assert len(given.ask("SELECT * FROM session_labels")) == 1
    given.when(MetadataSet(metadata={}))
    assert given.ask("SELECT * FROM session_labels") == []
    assert given.session("metadata") is None


def test_an_empty_user_takes_the_user_away(given: Given) -> None:
    given(added(), MetadataSet(user_id="alice")).when(MetadataSet(user_id=""))
    assert given.session("user_id") is None
