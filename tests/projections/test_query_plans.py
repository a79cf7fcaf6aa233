"""No hot statement scans a table: each finds its rows by a key, however long the history is."""

from __future__ import annotations

import re
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from agents_eventlog import AdvancedSQLiteSession
from agents_eventlog.adapters.conversations import tools
from agents_eventlog.eventlog import EventLog, ItemsAdded, appender, export_lines, payloads
from agents_eventlog.eventlog.storage.sqlite.engine import LANE_ENDS, SQLITE
from agents_eventlog.projections import default
from agents_eventlog.projections.base import tables
from agents_eventlog.projections.conversations import branch_tree, metadata_index, redactions
from agents_eventlog.projections.conversations import builder as conversations
from agents_eventlog.projections.conversations import queries as conversation_queries
from agents_eventlog.projections.search import plan, searcher
from agents_eventlog.projections.sessions import filters
from agents_eventlog.projections.sessions import queries as session_queries
from agents_eventlog.projections.usage import builder as usage_builder
from agents_eventlog.projections.usage import queries as usage_queries
from tests.history import START
from tests.projections.given import added, branched, on, used, watched

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from types import ModuleType

    from tests.projections.given import Given

USER: Any = {"role": "user", "content": "hello"}
ANSWER: Any = {"role": "assistant", "content": "hi"}
STATEMENT = re.compile(r"\s*(SELECT|UPDATE|DELETE)\b")
TABLES = {"events"} | {table.name for p in default().named([]) for table in tables(SQLITE, p)}
MODULES = (
    *(
        conversations,
        metadata_index,
        redactions,
        branch_tree,
        conversation_queries,
        session_queries,
        usage_builder,
        usage_queries,
        appender,
    ),
    *(plan, searcher, tools),
)
WHOLE_BY_NATURE = {
    "LIVE_BRANCHES",  # all that there are, for the command line
    "FIRST_SESSIONS",  # the first page: an index's own beginning, with a limit
}


def statements(module: ModuleType) -> list[Any]:
    """Return the statements that a module has as constants."""
    return [
        pytest.param(value, id=f"{module.__name__}.{name}")
        for name, value in vars(module).items()
        if name.isupper() and isinstance(value, str) and STATEMENT.match(value)
        if name not in WHOLE_BY_NATURE
    ]


def scans(given: Given, sql: str, parameters: Any = None) -> list[str]:
    """Return which steps of a statement's plan read a whole table."""
    if parameters is None:
        sql = sql.format("?")
        parameters = [None] * sql.count("?")
    plan = [detail for *_, detail in given.ask(f"EXPLAIN QUERY PLAN {sql}", *parameters)]
    assert plan
    return [step for step in plan if scanned(step, sql)]


def scanned(step: str, sql: str) -> bool:
    """Tell whether a step of a plan reads a whole table, by its own name or an alias."""
    found = re.match(r"SCAN (\w+)", step)
    if found is None:
        return False
    name = found[1]
    alias = re.search(rf"\b({'|'.join(TABLES)})\s+AS\s+{name}\b", sql, re.IGNORECASE)
    return name in TABLES or alias is not None


@pytest.mark.parametrize(
    "sql",
    [statement for module in MODULES for statement in statements(module)],
)
def test_a_statement_finds_its_rows_by_a_key(given: Given, sql: str) -> None:
    assert scans(given, sql) == []


SOME_DAYS = {"since": 20_000 * usage_builder.DAY, "until": 20_030 * usage_builder.DAY}
SOME_TIME = {"since": 20_000 * usage_builder.DAY + 1, "until": 20_030 * usage_builder.DAY - 1}


@pytest.mark.parametrize(
    "by", [(), *((name,) for name in usage_queries.BY), ("user", "model", "day")]
)
@pytest.mark.parametrize(
    "which",
    [
        SOME_DAYS,
        SOME_TIME,
        {**SOME_DAYS, "live": True},
        {"session_id": "s"},
        {"session_id": "s", "live": True},
        {"user_id": "alice"},
        {"user_id": "alice", **SOME_TIME},
    ],
    ids=str,
)
def test_what_was_spent_is_found_by_a_key(
    given: Given, by: tuple[str, ...], which: dict[str, Any]
) -> None:
    def unit(tx: Any) -> list[str]:
        seen: list[str] = []
        tx.connection.set_trace_callback(seen.append)
        usage_queries.groups(tx, usage_queries.UsageQuery(by=by, **which))
        tx.connection.set_trace_callback(None)
        return seen

    (sql,) = given.log.store.read_sync(unit)
    assert scans(given, sql, ()) == []


def test_a_scan_would_be_found(given: Given) -> None:
    assert scans(given, "SELECT * FROM usage WHERE run_id = ?")
    assert scans(given, "SELECT * FROM events AS e WHERE e.recorded_at > ?")
    assert scans(given, "SELECT * FROM sessions WHERE item_count > ?")
    assert not scans(given, "SELECT * FROM (SELECT 1 AS one) AS r JOIN usage ON position = one")


def test_the_last_event_is_read_from_the_end_and_alone(given: Given) -> None:
    given(*[added() for _ in range(50)])
    steps = 0

    def unit(tx: Any) -> None:
        def count() -> int:
            nonlocal steps
            steps += 1
            return 0

        tx.one(LANE_ENDS)  # the schema has been read now
        tx.connection.set_progress_handler(count, 1)
        tx.one(LANE_ENDS)
        tx.connection.set_progress_handler(None, 1)

    given.log.store.read_sync(unit)
    assert 0 < steps < 40


# -- whatever is run, wherever it stands -------------------------------------------------------


def is_plain(sql: str) -> bool:
    """Tell whether a statement is one that reads or changes rows by a condition."""
    return STATEMENT.match(sql) is not None and "sqlite_sequence" not in sql


async def test_nothing_that_a_session_does_scans_a_table(given: Given, tmp_path: Path) -> None:
    given(added(), branched("b", (1, 1)), on("b", added()), used(1, 5))
    session = AdvancedSQLiteSession("s", tmp_path / "log.db", durability="normal")
    with closing(session), watched(session.log) as seen:
        await session.add_items([USER, ANSWER])
        await session.pop_item()
        await session.get_items()
        await session.get_items(limit=2)
        await session.create_branch_from_turn(1, "c")
        await session.add_items([USER])
        await session.create_branch()
        await session.switch_to_branch("b")
        await session.delete_branch("c")
        await session.list_branches()
        await session.get_current_turn()
        await session.get_conversation_turns()
        await session.find_turns_by_content("hell")
        await session.get_conversation_by_turns()
        await session.get_tool_usage()
        await session.get_session_usage()
        await session.get_turn_usage()
        await session.get_usage_stats()
        await session.clear_session()
    hot = sorted(
        {sql for sql in seen if is_plain(sql) and "ORDER BY position DESC LIMIT 1" not in sql}
    )
    assert len(hot) > 25
    found = {sql: scans(given, sql, ()) for sql in hot}
    assert {sql: steps for sql, steps in found.items() if steps} == {}


async def test_nothing_that_a_log_does_with_one_session_scans_a_table(
    given: Given, tmp_path: Path
) -> None:
    given(*[added() for _ in range(5)])
    one = ItemsAdded(items=["one"])
    async with EventLog.open(tmp_path / "log.db", durability="normal") as log:
        with watched(log) as seen:
            for _ in range(2):
                await log.append("s", one, idempotency_key="k", expected_version="any")
            await log.version("s")
            for backward in (False, True):
                _ = [r async for r in log.read("s", types=[ItemsAdded], backward=backward)]
                _ = [r async for r in log.read("s", branch_id="main", after=2, backward=backward)]
    hot = sorted({sql for sql in seen if is_plain(sql) and "DESC LIMIT 1" not in sql})
    assert len(hot) >= 6
    found = {sql: scans(given, sql, ()) for sql in hot}
    assert {sql: steps for sql, steps in found.items() if steps} == {}


@contextmanager
def counted(log: EventLog) -> Iterator[list[int]]:
    """Count the steps of SQLite's machine on a log's reading connection."""
    steps = [0]

    def count() -> int:
        steps[0] += 1
        return 0

    log.store.read_sync(lambda tx: tx.connection.set_progress_handler(count, 1))
    steps[0] = 0
    yield steps
    log.store.read_sync(lambda tx: tx.connection.set_progress_handler(None, 1))


@pytest.mark.parametrize("what", ["read", "verify", "export"])
async def test_one_session_of_a_large_log_takes_no_more_steps_than_in_a_small_one(
    given: Given, what: str
) -> None:
    async def use(log: EventLog) -> int:
        with counted(log) as steps:
            if what == "read":
                assert len([r async for r in log.read("s", after=1)]) == 4
            elif what == "verify":
                assert (await log.verify_session("s")).events == 5
            else:
                assert len([line async for line in export_lines(log, ["s"])]) == 7
        return steps[0]

    given(*[added() for _ in range(5)])
    small = await use(given.log)
    given(*[on("main", added(), "other") for _ in range(300)])
    assert await use(given.log) <= 1.2 * small


@pytest.mark.parametrize("backward", [False, True])
async def test_each_page_of_a_long_session_takes_as_many_steps(
    given: Given, monkeypatch: pytest.MonkeyPatch, backward: bool
) -> None:
    monkeypatch.setattr("agents_eventlog.eventlog.log.PAGE_EVENTS", 5)

    async def read(events: int) -> int:
        with counted(given.log) as steps:
            assert len([r async for r in given.log.read("s", backward=backward)]) == events
        return steps[0]

    given(*[added() for _ in range(50)])
    short = await read(50)
    given(*[added() for _ in range(350)])
    assert await read(400) <= 1.2 * 8 * short


# -- lists of sessions ---------------------------------------------------------------------------


def listed_plan(given: Given, few: int, **asked: Any) -> list[str]:
    """Return the plan of a page of sessions, with at most so many looked at and sorted."""

    def unit(tx: Any) -> tuple[str, tuple[Any, ...]]:
        query = filters.parse(limit=50, **asked)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(session_queries, "FEW", few)
            return session_queries.statement(query, session_queries._narrowest(tx, query))

    sql, parameters = given.log.store.read_sync(unit)
    return [detail for *_, detail in given.ask(f"EXPLAIN QUERY PLAN {sql}", *parameters)]


NOON = datetime(2023, 11, 14, 12, tzinfo=UTC)
AFTER = filters.cursor("updated_at", filters.SessionCursor(START, "s"))
AFTER_CREATED = filters.cursor("created_at", filters.SessionCursor(START, "s"))


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize(
    ("asked", "index"),
    [
        ({}, "sessions_by_update"),
        ({"after": AFTER}, "sessions_by_update"),
        ({"order_by": "created_at"}, "sessions_by_creation"),
        ({"order_by": "created_at", "after": AFTER_CREATED}, "sessions_by_creation"),
        ({"user_id": "alice"}, "sessions_of_user"),
        ({"user_id": "alice", "after": AFTER}, "sessions_of_user"),
        ({"user_id": "alice", "order_by": "created_at"}, "sessions_by_creation"),
        ({"updated_after": NOON, "updated_before": NOON}, "sessions_by_update"),
        ({"created_after": NOON}, "sessions_by_update"),
        ({"created_after": NOON, "order_by": "created_at"}, "sessions_by_creation"),
        ({"metadata": {"plan": "pro", "tier": 2}}, "sessions_by_update"),
        ({"user_id": "alice", "metadata": {"plan": "pro"}}, "sessions_of_user"),
        ({"min_items": 3, "after": AFTER}, "sessions_by_update"),
        ({"deleted": True, "after": AFTER}, "deleted_sessions"),
    ],
)
def test_a_page_of_sessions_is_walked_along_an_index_and_never_sorted(
    given: Given, asked: dict[str, Any], index: str, reverse: bool
) -> None:
    first, *probes = listed_plan(given, -1, **asked, reverse=reverse)
    assert f"s USING INDEX {index}" in first
    assert not [step for step in probes if "TEMP B-TREE" in step or "SCAN" in step]


@pytest.mark.parametrize(
    ("asked", "index"),
    [
        ({"metadata": {"plan": "pro"}}, "session_labels USING COVERING INDEX sessions_of_label"),
        ({"metadata": {"plan": "pro"}, "user_id": "alice", "after": AFTER}, "sessions_of_label"),
        ({"user_id": "alice", "order_by": "created_at"}, "sessions USING INDEX sessions_of_user"),
        ({"created_after": NOON}, "sessions USING INDEX sessions_by_creation"),
        ({"deleted": True, "metadata": {"plan": "pro"}}, "sessions_of_label"),
    ],
)
def test_where_few_match_they_are_found_first_and_each_session_by_its_key(
    given: Given, asked: dict[str, Any], index: str
) -> None:
    first, second, *_ = listed_plan(given, 2_000, **asked)
    assert index in first
    assert second == "SEARCH s USING PRIMARY KEY (session_id=?)"


# -- finding -------------------------------------------------------------------------------------


async def test_a_find_goes_by_position_session_or_index_and_sorts_nothing(
    given: Given, monkeypatch: pytest.MonkeyPatch
) -> None:
    given(added(), branched("b", (1, 1)), on("b", added()))
    given.log.join(default(search=True))
    given(added())
    with watched(given.log) as seen:
        for few in (2_000, 0):
            monkeypatch.setattr(plan, "FEW_EVENTS", few)
            for text in (None, "hi", "hello"):
                for which in ({}, {"session_id": "s"}, {"user_id": "alice"}):
                    search = searcher.Searcher(searcher.ItemQuery(text=text, **which), limit=None)
                    while search.collect(given.log.store.read_sync(search.read_batch)):
                        pass
    hot = sorted({sql for sql in seen if is_plain(sql) and "DESC LIMIT 1" not in sql})
    assert len(hot) > 10
    assert any("item_texts MATCH" in sql for sql in hot)
    found = {sql: unwanted(given, sql) for sql in hot}
    assert {sql: steps for sql, steps in found.items() if steps} == {}


def unwanted(given: Given, sql: str) -> list[str]:
    """Return which steps of a plan read a whole table, or sort more than a session's branches."""
    plan = [detail for *_, detail in given.ask(f"EXPLAIN QUERY PLAN {sql}")]
    is_short = "FROM branches" in sql or "FROM checkpoints" in sql
    sorts = [step for step in plan if "TEMP B-TREE" in step and not is_short]
    return [*sorts, *(step for step in plan if scanned(step, sql) and "VIRTUAL" not in step)]


@pytest.mark.parametrize(
    "sql",
    [
        conversation_queries.USER_ITEMS,
        *map(payloads.statement, redactions.forms(conversation_queries.FIRST_USER_ITEMS)),
        *map(payloads.statement, redactions.forms(conversation_queries.USER_EVENTS)),
    ],
)
def test_user_items_are_found_in_an_index_that_holds_all_that_is_asked(
    given: Given, sql: str
) -> None:
    plan = given.ask(f"EXPLAIN QUERY PLAN {sql}", *[1] * sql.count("?"))
    assert any("COVERING INDEX turns" in step for *_, step in plan), plan
