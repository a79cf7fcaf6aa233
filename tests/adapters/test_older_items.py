"""Items that an older release wrote in another shape are read like all others, wherever items are read."""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from agents_eventlog import AdvancedSQLiteSession, ConversationLog
from agents_eventlog.adapters.conversations import doctor_checks
from agents_eventlog.eventlog import ItemsAdded, codec, integrity
from agents_eventlog.eventlog.appender import ledger
from agents_eventlog.projections import Search, default
from agents_eventlog.projections.background import build_incrementally
from tests.adapters.looking import answer, call, output, user

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from agents_eventlog.eventlog import Transaction

OLD = [user("Where is my refund?"), call("c", "lookup")]
NEW = [output("c"), answer("On its way.")]


def write_old(tx: Transaction, item: Any, version: int) -> None:
    data = json.dumps({"item": item}).encode()
    row = ("items_added", 1, "main", data, integrity.data_digest(data), None, None)
    ledger(tx).put(tx, "s", version, [row])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "log.db"


@pytest.fixture
async def log(path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[ConversationLog]:
    """A log of a release whose items_added is of a second shape; in the first, each held one item."""
    monkeypatch.setattr(ItemsAdded, "schema_version", 2)
    monkeypatch.setitem(codec.UPCASTS, ("items_added", 1), lambda old: {"items": [old["item"]]})
    async with ConversationLog.open(path, projections=default()) as log:
        for version, item in enumerate(OLD):
            log.store.write_sync(partial(write_old, item=item, version=version))
        await log.append("s", ItemsAdded(items=NEW), branch_id="main")
        yield log


@pytest.mark.usefixtures("log")
async def test_a_history_holds_them(path: Path) -> None:
    session = AdvancedSQLiteSession("s", path)
    assert await session.get_items() == [*OLD, *NEW]
    assert await session.get_items(limit=3) == [OLD[1], *NEW]
    assert await session.find_turns_by_content("refund") != []
    assert [await session.pop_item() for _ in range(4)] == [*NEW[::-1], *OLD[::-1]]


async def test_sessions_are_titled_and_found_by_them(log: ConversationLog) -> None:
    [found] = await log.sessions(text="refund")
    assert found["title"] == "Where is my refund?"


async def test_what_they_say_is_found(log: ConversationLog) -> None:
    for is_indexed in (False, True):
        if is_indexed:
            build_incrementally(log.store, Search())
        found = await log.find_items("refund")
        assert [row["item"] for row in found] == OLD[:1]
        assert found.indexed is is_indexed


async def test_their_tool_calls_are_counted(log: ConversationLog) -> None:
    [counts] = await log.tools()
    assert counts == {"tool_name": "lookup", "calls": 1, "failures": 0, "unanswered": 0}


async def test_nothing_is_wrong_with_them(log: ConversationLog) -> None:
    assert await log.query(lambda tx: list(doctor_checks.of_sessions(tx))) == []
