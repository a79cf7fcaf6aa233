"""What an item is: its type, its tool, whether it opens a turn."""

from __future__ import annotations

import json
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from agents_eventlog.eventlog import EventLog, ItemsAdded, codec, integrity
from agents_eventlog.eventlog.appender import ledger
from agents_eventlog.eventlog.errors import UndecodableEventError
from agents_eventlog.eventlog.item_kind import (
    NAMED_BY_TYPE,
    TOOL_CALLS,
    ItemKind,
    classify,
    classify_items,
    json_text,
    outline,
)
from agents_eventlog.projections import default

if TYPE_CHECKING:
    from pathlib import Path

CALL = {"is_tool_call": True}
NOT = {"is_tool_call": False}


@pytest.mark.parametrize(
    ("item", "expected"),
    [
        ({"role": "user", "content": "x"}, ItemKind("user", None, **NOT)),
        ({"role": "user", "type": "message"}, ItemKind("user", None, **NOT)),
        ({"role": "user", "name": "ada"}, ItemKind("user", None, **NOT)),
        ({"role": "assistant", "type": "message"}, ItemKind("assistant", None, **NOT)),
        ({"role": "system", "type": "message"}, ItemKind("message", None, **NOT)),
        ({"role": "developer", "content": []}, ItemKind("other", None, **NOT)),
        ({"role": ["user"]}, ItemKind("other", None, **NOT)),
        ({"type": "reasoning"}, ItemKind("reasoning", None, **NOT)),
        ({"type": "function_call", "name": "look"}, ItemKind("function_call", "look", **CALL)),
        (
            {"type": "function_call", "name": "look", "namespace": "web"},
            ItemKind("function_call", "web.look", **CALL),
        ),
        (
            {"type": "function_call", "name": "look", "namespace": "look"},
            ItemKind("function_call", "look", **CALL),
        ),
        ({"type": "function_call", "name": None}, ItemKind("function_call", None, **CALL)),
        ({"type": "function_call"}, ItemKind("function_call", None, **CALL)),
        (
            {"type": "function_call_output", "output": "x"},
            ItemKind("function_call_output", None, **NOT),
        ),
        (
            {"type": "mcp_call", "name": "find", "server_label": "docs"},
            ItemKind("mcp_call", "docs.find", **CALL),
        ),
        (
            {
                "type": "mcp_call",
                "name": "find",
                "server_label": "docs",
                "approval_request_id": "1",
            },
            ItemKind("mcp_call", "docs.find", **NOT),
        ),
        (
            {"type": "mcp_approval_request", "name": "f"},
            ItemKind("mcp_approval_request", "f", **CALL),
        ),
        (
            {"type": "mcp_approval_request", "name": "f", "server_label": "docs"},
            ItemKind("mcp_approval_request", "docs.f", **CALL),
        ),
        (
            {"type": "function_call", "name": "look", "server_label": "docs"},
            ItemKind("function_call", "look", **CALL),
        ),
        ({"type": "web_search_call"}, ItemKind("web_search_call", "web_search_call", **CALL)),
        ({"type": "tool_search_call"}, ItemKind("tool_search_call", "tool_search", **CALL)),
        ({"type": "tool_search_output"}, ItemKind("tool_search_output", "tool_search", **NOT)),
        ({"type": 7}, ItemKind("7", None, **NOT)),
        ({"type": None}, ItemKind("other", None, **NOT)),
        ({}, ItemKind("other", None, **NOT)),
        (None, ItemKind("other", None, **NOT)),
        ("user", ItemKind("other", None, **NOT)),
        (["role", "user"], ItemKind("other", None, **NOT)),
    ],
)
def test_an_item_is_known_by_a_few_of_its_keys(item: Any, expected: ItemKind) -> None:
    assert classify(item) == expected
    both = [expected, ItemKind("user", None, is_tool_call=False)]
    data = json.dumps({"items": [item, {"role": "user"}]}).encode()
    assert classify_items(1, "items_added", 1, data) == both
    kept = json_text(outline(1, "items_added", 1, data)).encode()
    assert classify_items(1, "items_added", 1, kept) == both


@pytest.mark.parametrize("kind", sorted(TOOL_CALLS))
def test_every_kind_of_call_counts_as_a_tool_s_use(kind: str) -> None:
    found = classify({"type": kind, "name": "n"})
    assert found.is_tool_call
    assert found.tool_name == (
        {"tool_search_call": "tool_search"}.get(kind, "n") if kind not in NAMED_BY_TYPE else kind
    )


def test_an_item_that_only_the_standard_library_reads_is_known_all_the_same() -> None:
    data = b'{"items":[{"role":"user","content":NaN},{"type":"function_call","name":"\\ud800x"}]}'
    assert classify_items(1, "items_added", 1, data) == [
        ItemKind("user", None, is_tool_call=False),
        ItemKind("function_call", "?x", is_tool_call=True),
    ]


def test_the_content_never_decides() -> None:
    assert classify(
        {"content": {"role": "user"}, "summary": [{"type": "function_call"}]}
    ) == ItemKind("other", None, is_tool_call=False)


# -- of an older release ----------------------------------------------------------------------


def lifted(fields: dict[str, Any]) -> dict[str, Any]:
    """Lift a first shape in which an item told its role under another name, and was given alone."""
    return {"items": [{"role": fields["item"]["who"], "content": fields["item"]["said"]}]}


@pytest.fixture
def later_release(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the second shape of items_added be the present one."""
    monkeypatch.setattr(ItemsAdded, "schema_version", 2)
    monkeypatch.setitem(codec.UPCASTS, ("items_added", 1), lifted)


@pytest.mark.usefixtures("later_release")
def test_an_event_of_an_older_release_has_the_shapes_that_it_is_lifted_to() -> None:
    user = [ItemKind("user", None, **NOT)]
    assert classify_items(1, "items_added", 1, b'{"item":{"who":"user","said":"x"}}') == user
    assert outline(1, "items_added", 1, b'{"item":{"who":"user","said":"x"}}') == {
        "items": [{"role": "user"}]
    }
    assert classify_items(1, "items_added", 2, b'{"items":[{"role":"user"}]}') == user
    assert classify_items(1, "items_replaced", 1, b'{"items":[{"role":"user"}]}') == user
    with pytest.raises(UndecodableEventError, match="position 7"):
        outline(7, "items_added", 1, b'{"items":[]}')


@pytest.mark.usefixtures("later_release")
def test_the_items_of_an_older_release_are_listed_as_they_are_lifted(tmp_path: Path) -> None:
    with closing(EventLog.open_sync(tmp_path / "log.db", projections=default())) as log:
        data = b'{"item":{"who":"user","said":"x"}}'
        old = ("items_added", 1, "main", data, integrity.data_digest(data), None, None)
        log.store.write_sync(lambda tx: ledger(tx).put(tx, "s", 0, [old]))
        ask = "SELECT type, turn FROM items"
        assert log.store.read_sync(lambda tx: tx.all(ask)) == [("user", 1)]
