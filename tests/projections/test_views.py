"""The SQL views: what plain SQL reads equals what the calls return."""

from __future__ import annotations

import asyncio
import json
import re
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from agents_eventlog import AdvancedSQLiteSession, projections
from agents_eventlog.adapters.conversations import timestamps
from agents_eventlog.eventlog import BranchCreated, EventLog, ItemsAdded
from agents_eventlog.eventlog.errors import ProjectionError
from agents_eventlog.projections.search import text as search_text
from agents_eventlog.projections.views.views import Views
from tests import support_conversation
from tests.contract.items import assistant, call, output, result_of, turns, usage, user
from tests.history import Entry

if TYPE_CHECKING:
    from tests.projections.given import Given

MANUAL = (Path(__file__).parents[2] / "docs" / "sql-views.md").read_text(encoding="utf-8")
NAMES = ("v_messages", "v_turns", "v_sessions", "v_costs")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "log.db"


def select(path: Path, sql: str, *parameters: Any) -> list[dict[str, Any]]:
    """Read a file as a program without this library does."""
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as connection:
        connection.row_factory = sqlite3.Row
        return [dict(row) for row in connection.execute(sql, parameters)]


async def talk(path: Path) -> Any:
    """Hold a conversation on three branches, with tools, usage, a pop and a switch."""
    session: Any = AdvancedSQLiteSession("s", path, user_id="alice", metadata={"tier": 2})
    await session.add_items([assistant("welcome"), *turns("one"), call(), output()])
    await session.store_run_usage(result_of(usage(2, 100, 10)))
    await session.add_items(turns("two", "three"))
    await session.store_run_usage(result_of(usage(1, 50, 5)))
    await session.create_branch_from_turn(3, "b")
    await session.add_items(turns("drei"))
    await session.create_branch_from_turn(2, "c")
    await session.add_items([user([{"type": "input_text", "text": "x"}, {"type": "input_image"}])])
    await session.switch_to_branch("b")
    await session.pop_item()
    other: Any = AdvancedSQLiteSession("other", path)
    await other.add_items(turns("elsewhere"))
    other.close()
    return session


async def test_messages_are_the_items_of_each_branch(path: Path) -> None:
    with closing(await talk(path)) as session:
        for branch_id in ("main", "b", "c"):
            rows = select(
                path,
                "SELECT * FROM v_messages WHERE session_id = 's' AND branch_id = ? ORDER BY number",
                branch_id,
            )
            items = await session.get_items(branch_id=branch_id)
            assert [json.loads(row["item"]) for row in rows] == items
            assert [row["number"] for row in rows] == list(range(1, len(items) + 1))
            kinds = await session.get_conversation_by_turns(branch_id)
            assert [
                (row["turn"], {"type": row["type"], "tool_name": row["tool_name"]}) for row in rows
            ] == [(turn, kind) for turn, some in kinds.items() for kind in some]
            assert {row["is_current_branch"] for row in rows} == {int(branch_id == "b")}
            assert {row["user_id"] for row in rows} == {"alice"}
            for row, item in zip(rows, items, strict=True):
                if row["type"] in ("user", "assistant"):
                    texts = search_text.message_texts(item)
                    assert row["text"] == "\n".join(text for text in texts if text)


async def test_turns_are_those_of_the_session(path: Path) -> None:
    with closing(await talk(path)) as session:
        for branch_id in ("main", "b", "c"):
            rows = select(
                path,
                "SELECT * FROM v_turns WHERE session_id = 's' AND branch_id = ? ORDER BY turn",
                branch_id,
            )
            assert rows[0]["turn"] == 0
            listed = await session.get_conversation_turns(branch_id)
            assert [row["turn"] for row in rows[1:]] == [turn["turn"] for turn in listed]
            for row, turn in zip(rows[1:], listed, strict=True):
                assert (
                    timestamps.as_text(timestamps.instant(row["started_at"])) == turn["timestamp"]
                )
                assert row["ended_at"] >= row["started_at"]
                if branch_id != "c":
                    assert row["user_text"] == turn["content"]
            called = {row["turn"]: row["tool_calls"] for row in rows if row["tool_calls"]}
            assert called == {turn: n for _, n, turn in await session.get_tool_usage(branch_id)}
            used = {
                turn["user_turn_number"]: (turn["requests"], turn["total_tokens"])
                for turn in await session.get_turn_usage(None, branch_id)
            }
            assert {
                row["turn"]: (row["requests"], row["total_tokens"])
                for row in rows
                if row["requests"]
            } == used
        assert select(path, "SELECT COUNT(*) AS n FROM v_turns WHERE session_id = 'other'") == [
            {"n": 1}
        ]


async def test_sessions_are_those_that_the_log_lists(path: Path) -> None:
    with closing(await talk(path)) as session:
        await session.log.delete_session("other")
        rows = select(path, "SELECT * FROM v_sessions ORDER BY session_id")
        [deleted, row] = rows
        [listed] = await session.list_sessions()
        [gone] = await session.log.sessions(deleted=True)
        for found, told in ((row, listed), (deleted, gone)):
            assert found["session_id"] == told["session_id"]
            assert found["user_id"] == told["user_id"]
            assert found["current_branch_id"] == told["current_branch"]
            assert (found["item_count"], found["turn_count"], found["branch_count"]) == (
                told["item_count"],
                told["turn_count"],
                told["branch_count"],
            )
            for name in ("created_at", "updated_at", "deleted_at"):
                time = found[name]
                text = None if time is None else timestamps.as_text(timestamps.instant(time))
                assert text == told[name]
            assert found["total_tokens"] == told["total_tokens"]
            assert found["cost_usd"] == told["total_cost"]
            assert found["unpriced_requests"] == told["unpriced_requests"]
        assert json.loads(row["metadata"]) == listed["metadata"] == {"tier": 2}
        assert select(path, "SELECT DISTINCT session_id FROM v_messages") == [{"session_id": "s"}]


async def test_costs_add_up_to_the_usage_of_the_log(path: Path) -> None:
    prices: Any = lambda *_: 0.25  # noqa: E731
    with closing(await talk(path)) as session:
        await session.log.reprice(prices=prices)
        await session.delete_branch("c")
        await session.switch_to_branch("main")
        await session.pop_item()
        await session.pop_item()  # with it, the last turn and its usage end
        for where, live in (("", False), ("WHERE is_active = 1", True)):
            [summed] = select(
                path,
                "SELECT SUM(requests) AS requests, SUM(input_tokens) AS input_tokens, "
                "SUM(output_tokens) AS output_tokens, SUM(total_tokens) AS total_tokens, "
                f"SUM(cost_usd) AS cost FROM v_costs {where}",
            )
            told = await session.log.usage(live=live)
            assert summed["requests"] == told["total_requests"]
            for name in ("input_tokens", "output_tokens", "total_tokens"):
                assert summed[name] == told[name]
            assert summed["cost"] == told["total_cost"]


def test_imported_events_have_their_own_times(given: Given) -> None:
    given(ItemsAdded(items=[user("a")]))
    metadata = '{"occurred_at":-1}'
    given.write(
        lambda tx: tx.execute(
            "INSERT INTO events SELECT 2, session_id, 2, type, schema_version, branch_id, data, "
            "data_digest, ?, NULL, recorded_at, digest FROM events",
            (metadata,),
        )
    )
    given.write(lambda tx: tx.execute("UPDATE items SET position = 2"))
    assert given.value("SELECT created_at FROM v_messages") == "1969-12-31T23:59:59.999999Z"


@pytest.mark.parametrize(
    ("item", "text"),
    [
        ({"role": "user", "content": "\ud800 half"}, None),
        ({"role": "user", "content": "not half: \\ud800 \\\\ud800"}, "not half: \\ud800 \\\\ud800"),
        ({"role": "user", "content": "whole: \U0001f600"}, "whole: \U0001f600"),
        ({"role": "user", "content": None, "output": "later"}, "later"),
        ({"role": "user", "content": ["a", {"text": "b"}, 3, {"url": "c"}]}, "a\nb"),
        ({"role": "user", "content": {"text": "x"}}, '{"text":"x"}'),
        (
            {"type": "reasoning", "summary": [{"type": "summary_text", "text": "thought"}]},
            "thought",
        ),
        ({"type": "computer_call"}, None),
        ("just a text", None),
        (["content", "x"], None),
        (7, None),
        (None, None),
    ],
)
def test_every_item_has_the_text_that_it_shows(given: Given, item: Any, text: str | None) -> None:
    given(ItemsAdded(items=[item]))
    assert given.ask("SELECT text FROM v_messages") == [(text,)]


def test_json_that_the_database_refuses_does_not_end_a_query(given: Given) -> None:
    given(ItemsAdded(items=[{"role": "user", "content": float("nan")}]))
    given(ItemsAdded(items=[{"role": "assistant", "content": "fine"}]))
    assert given.ask("SELECT text FROM v_messages ORDER BY number") == [(None,), ("fine",)]
    assert given.value("SELECT user_text FROM v_turns") is None


async def test_erased_content_is_null(path: Path) -> None:
    with closing(await talk(path)) as session:
        position = select(path, "SELECT MAX(position) AS p FROM v_messages WHERE session_id = 's'")
        assert position
        await session.log.erase(session_id="other")
        [row] = select(path, "SELECT * FROM v_sessions WHERE session_id = 'other'")
        assert row["erased_at"] is not None
        await session.pop_item()
        await session.log.erase(popped=True)
        texts = select(path, "SELECT text, item FROM v_messages WHERE session_id = 's'")
        assert {row["item"] is None for row in texts} == {False}


def test_an_item_of_an_erased_event_is_null_where_it_is_still_listed(given: Given) -> None:
    given(ItemsAdded(items=[user("secret")]))
    given.write(lambda tx: tx.execute("UPDATE events SET data = NULL"))
    assert given.ask("SELECT text, item FROM v_messages") == [(None, None)]
    assert given.ask("SELECT user_text, item_count FROM v_turns") == [(None, 1)]


def test_segments_in_a_circle_do_not_hang_a_query(given: Given) -> None:
    given(ItemsAdded(items=[user("a")]))
    given(Entry(BranchCreated(branch_id="b", from_branch_id="main", last_item=None), "s", "main"))
    given.write(lambda tx: tx.execute("UPDATE segments SET parent_segment_id = segment_id"))
    assert given.value("SELECT COUNT(*) FROM v_messages") >= 0


# -- the views themselves -------------------------------------------------------------------------


def test_the_manual_lists_every_column_of_every_view(given: Given) -> None:
    for name in NAMES:
        [section] = re.findall(rf"^## {name}\n(.*?)(?=^## |\Z)", MANUAL, re.DOTALL | re.MULTILINE)
        told = re.findall(r"^\| `(\w+)` \| (?:text|integer|real) \| \S", section, re.MULTILINE)
        assert told == [
            row[0] for row in given.ask(f"SELECT name FROM pragma_table_info('{name}')")
        ]


async def test_the_queries_of_the_manual_run(path: Path) -> None:
    await support_conversation.write(path)
    [block] = re.findall(r"^```sql\n(.*?)^```$", MANUAL, re.DOTALL | re.MULTILINE)
    conversation, *others = [each for each in block.split(";") if each.strip()]
    assert [row["text"] for row in select(path, conversation)] == [
        "Where is my parcel?",
        '{"order": 1042}',
        "in Hamburg since Monday",
        "It has been in Hamburg since Monday.",
        "Can I get a refund?",
        "Of course: it is on its way.",
    ]
    for query in others:
        select(path, query)


def test_a_condition_on_a_session_reads_that_session_only(given: Given) -> None:
    given(ItemsAdded(items=[user("a")]))
    for name in NAMES:
        plan = given.ask(f"EXPLAIN QUERY PLAN SELECT * FROM {name} WHERE session_id = 's'")
        steps = [row[-1] for row in plan]
        assert not [step for step in steps if re.match(r"SCAN [bsgieu]\b", step)], steps


def test_a_missing_view_is_found_and_a_replay_creates_it(path: Path) -> None:
    asyncio.run(support_conversation.write(path))
    with closing(EventLog.open_sync(path, projections=projections.default())) as log:
        log.store.write_sync(lambda tx: tx.execute("DROP VIEW v_turns"))
        projections.replay(log, [Views()])
        assert log.store.read_sync(lambda tx: tx.all("SELECT COUNT(*) FROM v_turns")) == [(4,)]


def test_views_without_a_checkpoint_are_created_again(path: Path) -> None:
    asyncio.run(support_conversation.write(path))
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("DELETE FROM checkpoints WHERE projection = 'views'")
    with closing(EventLog.open_sync(path, projections=projections.default())) as log:
        assert log.store.read_sync(lambda tx: tx.all("SELECT COUNT(*) FROM v_turns")) == [(4,)]


def test_a_view_of_another_program_is_never_replaced(path: Path) -> None:
    EventLog.open_sync(path).close()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE VIEW v_costs AS SELECT 1 AS mine")
    with pytest.raises(ProjectionError, match="'v_costs'"):
        EventLog.open_sync(path, projections=projections.default())
    assert select(path, "SELECT * FROM v_costs") == [{"mine": 1}]


def test_a_newer_version_replaces_the_views_without_reading_the_log(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asyncio.run(support_conversation.write(path))

    class Newer(Views):
        version = Views.version + 1

        def views(self, engine: Any) -> Any:
            return {"v_costs": "SELECT 'newer' AS what"}

    with closing(EventLog.open_sync(path, projections=projections.Projections(Newer()))) as log:
        rows = log.store.read_sync(lambda tx: tx.all("SELECT * FROM v_costs"))
        names = log.store.read_sync(log.store.engine.table_names)
    assert rows == [("newer",)]
    assert names.isdisjoint(set(NAMES) - {"v_costs"})
