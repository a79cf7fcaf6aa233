"""Which texts an item has, and how one is found in them."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import Any

import pytest

from agents_eventlog.eventlog import ItemsAdded, codec, payloads
from agents_eventlog.eventlog.payloads import may_hold
from agents_eventlog.projections.search import text as search_text
from agents_eventlog.projections.search.text import folded, snippet


@pytest.mark.parametrize(
    ("item", "expected"),
    [
        ({"role": "user", "content": "hello"}, ["hello"]),
        (
            {"role": "user", "content": [{"type": "input_text", "text": "a"}, {"text": "b"}]},
            ["a", "b"],
        ),
        ({"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]}, ["no"]),
        ({"type": "function_call", "name": "look", "arguments": '{"at": 1}'}, ['{"at": 1}']),
        ({"type": "function_call_output", "call_id": "c", "output": "sunny"}, ["sunny"]),
        ({"type": "function_call_output", "output": [{"type": "input_text", "text": "x"}]}, ["x"]),
        ({"type": "custom_tool_call", "name": "sql", "input": "SELECT"}, ["SELECT"]),
        ({"type": "mcp_call", "arguments": "{}", "output": None, "error": "gone"}, ["{}", "gone"]),
        ({"type": "mcp_call", "error": {"type": "http", "message": "500"}}, ["500"]),
        ({"type": "web_search_call", "action": {"type": "search", "query": "rain"}}, ["rain"]),
        ({"type": "file_search_call", "queries": ["q"], "results": [{"text": "r"}]}, ["q", "r"]),
        ({"type": "code_interpreter_call", "code": "1", "outputs": [{"logs": "2"}]}, ["1", "2"]),
        ({"type": "shell_call", "action": {"commands": ["ls", "pwd"]}}, ["ls", "pwd"]),
        ({"type": "shell_call_output", "output": [{"stdout": "o", "stderr": "e"}]}, ["o", "e"]),
        ({"type": "apply_patch_call", "operation": {"path": "a.py", "diff": "+"}}, ["a.py", "+"]),
        ({"type": "reasoning", "summary": [{"text": "so"}], "encrypted_content": "x"}, ["so"]),
        ({"role": "user", "content": [{"type": "input_image", "image_url": "data:"}]}, []),
        ({"role": "user", "content": None}, []),
        ({}, []),
        (None, []),
        ("text", []),
    ],
)
def test_the_texts_of_an_item(item: Any, expected: list[str]) -> None:
    assert search_text.texts(item) == expected


def test_parts_within_parts_have_an_end() -> None:
    item: Any = "deep"
    for _ in range(500):
        item = {"content": [item]}
    assert search_text.texts(item) == []


@pytest.fixture(scope="module")
def changed() -> dict[str, str]:
    """Each character beyond ASCII that is not as it is folded."""
    beyond = map(chr, range(128, 0x110000))
    return {c: folded(c) for c in beyond if c != c.casefold()}


def test_no_letter_beyond_ascii_folds_to_ascii(changed: dict[str, str]) -> None:
    assert len(changed) > 1_000
    assert [c for c in changed if set(map(chr, range(128))) & set(changed[c])] == []


def test_folding_goes_character_by_character() -> None:
    for text in ("Ärger", "ΑΣ", "İstanbul", "Straße", "ŉ", "ΐ", "\ud800A", "好"):
        assert folded(text) == "".join(map(folded, text))
    assert folded("ÄRGER") == folded("ärger")
    assert folded("ΣΊΣΥΦΟΣ") == folded("σίσυφος")


def test_only_characters_that_nothing_else_folds_to_are_compared_by_sqlite(
    changed: dict[str, str],
) -> None:
    results = {part for c in changed if changed[c] != c for part in changed[c]}
    assert len(results) > 1_000
    assert [part for part in results if payloads._pattern(part) != "%"] == []


@pytest.mark.parametrize(
    "text",
    [
        "plain",
        "PLAIN Text",
        'a "quoted" \\ word',
        "100%_sure",
        "Ärger",
        "世界",
        "\0\n\x1b",
        "\ud800 x",
        "😀",
    ],
)
def test_every_payload_that_holds_a_text_meets_its_condition(text: str) -> None:
    item = {"role": "user", "content": f"before {text} after"}
    stored = [
        codec.encode(ItemsAdded(items=[item])).decode(),
        codec.encode_json({"items": [item]}).decode(),
    ]
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.execute("CREATE TABLE events (data TEXT)")
        connection.executemany("INSERT INTO events VALUES (?)", [(data,) for data in stored])
        for sought in (text, text.upper(), text.lower()):
            condition, parameters = may_hold(sought)
            sql = f"SELECT COUNT(*) FROM events AS e WHERE 1 {condition}"
            assert connection.execute(sql, parameters).fetchone() == (2,)


def test_a_snippet_shows_what_was_found_with_its_surroundings() -> None:
    text = "x" * 500 + " My REFUND " + "y" * 500
    piece, start, end = snippet(text, "refund")
    assert piece[start:end] == "REFUND"
    assert len(piece) == search_text.SNIPPET_CHARACTERS
    assert start == search_text.SNIPPET_BEFORE


@pytest.mark.parametrize(
    ("text", "sought", "shown"),
    [
        ("İİİ refund", "refund", "refund"),
        ("ΐΐΐ Ärger!", "ÄRGER", "Ärger"),
        ("aΐb", "\u0308", "ΐ"),
        ("nothing sought", "", ""),
        ("z" * 900, "z" * 300, "z" * 160),
    ],
)
def test_a_snippet_marks_what_stands_in_the_text(text: str, sought: str, shown: str) -> None:
    piece, start, end = snippet(text, folded(sought))
    assert piece[start:end] == shown
