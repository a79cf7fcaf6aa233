"""Each page gives programs the documents of the command of the same name."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.adapters.view.asking import documents
from tests.adapters.view.conversation import ID

if TYPE_CHECKING:
    from pathlib import Path

    import httpx

SAME = [
    ("/", {}, ["sessions"]),
    ("/", {"user": "anna"}, ["sessions", "--user", "anna"]),
    ("/session", {"id": ID}, ["show", ID]),
    (
        "/session",
        {"id": ID, "branch": "draft", "v": 8},
        ["show", ID, "--branch", "draft", "--as-of", 8],
    ),
    ("/session", {"id": ID, "turns": 1}, ["show", ID, "--turns"]),
    ("/session/outline", {"id": ID}, ["branches", ID, "--removed"]),
    ("/session/compare", {"id": ID, "a": "main", "b": "draft"}, ["compare", ID, "main", "draft"]),
    ("/session/spend", {"id": ID, "by": "model"}, ["usage", "--session", ID, "--by", "model"]),
    ("/spend", {"by": "user"}, ["usage", "--by", "user"]),
    ("/search", {"q": "question"}, ["search", "question"]),
    ("/search", {"q": "picture", "removed": 1}, ["search", "picture", "--removed"]),
    ("/health", {}, ["doctor"]),
]


@pytest.mark.parametrize(("address", "query", "words"), SAME)
async def test_a_page_gives_the_documents_of_its_command(
    browser: httpx.AsyncClient,
    path: Path,
    command: Any,
    address: str,
    query: dict[str, Any],
    words: list[Any],
) -> None:
    printed = command(words[0], path, *words[1:], "--json").stdout
    assert await documents(browser, address, format="json", **query) == [
        json.loads(line) for line in printed.splitlines()
    ]


async def test_the_timeline_and_the_events_are_those_of_the_audit(
    browser: httpx.AsyncClient, path: Path, command: Any
) -> None:
    printed = command("audit", path, "--session", ID, "--json").stdout
    events = [
        document
        for line in printed.splitlines()
        if (document := json.loads(line))["kind"] == "event"
    ]
    assert await documents(browser, "/session/timeline", id=ID, format="json") == events
    assert await documents(browser, "/event", position=5, format="json") == [events[4]]
    listed = await documents(browser, "/events", format="json")
    assert [each["position"] for each in listed] == [each["position"] for each in events]


async def test_a_proof_gives_the_result_of_verify(
    browser: httpx.AsyncClient, path: Path, command: Any
) -> None:
    [*_, verified] = map(json.loads, command("verify", path, "--json").stdout.splitlines())
    assert await documents(browser, "/health", prove=1, format="json") == [verified]
    [first, *_, last] = await documents(browser, "/health/verify")
    assert (first["kind"], first["events"]) == ("proving", 0)
    assert last == verified


async def test_a_page_without_anything_to_compare_or_to_search_gives_no_documents(
    browser: httpx.AsyncClient,
) -> None:
    assert await documents(browser, "/search", format="json") == []
    one = await documents(browser, "/session/compare", id=ID, a="main", b="main", format="json")
    assert [each["kind"] for each in one] == ["comparison"]
