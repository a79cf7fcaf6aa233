"""Files as the SDK's own classes leave them, and everything that can be read out of such a file."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any

from agents.extensions.memory import AdvancedSQLiteSession as SDKSession

from agents_eventlog import AdvancedSQLiteSession, projections
from agents_eventlog.eventlog import EventLog
from agents_eventlog.projections.replay import replay
from tests.contract.items import assistant, call, output, ran, turns, user

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

DEFAULT_PAIR = ("agent_sessions", "agent_messages")
STRUCTURE_TABLES = (
    "message_structure",
    "turn_usage",
    "branch_reservations",
    "session_clear_generations",
)


def sdk(path: Path, session_id: str = "talk", **options: Any) -> SDKSession:
    """Open a session of the SDK's class."""
    return SDKSession(session_id=session_id, db_path=path, create_tables=True, **options)


def ours(path: Path, session_id: str = "talk", **options: Any) -> AdvancedSQLiteSession:
    """Open a session of our class."""
    return AdvancedSQLiteSession(session_id, path, **options)


def execute(path: Path, *statements: str) -> None:
    """Change a file as no session would."""
    with closing(sqlite3.connect(path)) as connection:
        for statement in statements:
            connection.execute(statement)
        connection.commit()


def rows(path: Path, sql: str) -> list[Any]:
    """Read a file as no session would."""
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(sql).fetchall()


def stored(path: Path) -> bytes:
    """Return a file's bytes."""
    return path.read_bytes()


def damage(path: Path) -> None:
    """Overwrite pages in the middle of a file that nobody has open."""
    execute(path, "PRAGMA wal_checkpoint(TRUNCATE)")
    whole = path.read_bytes()
    assert len(whole) > 40_000
    path.write_bytes(whole[:4_096] + b"\xa5" * 16_384 + whole[20_480:])


def set_times(path: Path, messages: str = DEFAULT_PAIR[1], sessions: str = DEFAULT_PAIR[0]) -> None:
    """Give every message a minute of its own, each session a day, and copies on branches an hour."""
    execute(
        path,
        f"UPDATE {messages} SET created_at = datetime('2024-03-01', '+' || id || ' minutes')",
        f"UPDATE {sessions} SET created_at = date('2024-02-01', '+' || rowid || ' days') || ' 09:00:00'",
    )
    if rows(path, "SELECT 1 FROM sqlite_schema WHERE name = 'message_structure'"):
        execute(
            path,
            "UPDATE message_structure SET created_at = datetime('2024-03-01', '+' || message_id ||"
            " ' minutes', CASE branch_id WHEN 'main' THEN '+0 hours' ELSE '+5 hours' END)",
            "UPDATE turn_usage SET created_at = datetime('2024-03-02', '+' || id || ' minutes')",
        )


def tables(path: Path, names: Iterable[str] = (*DEFAULT_PAIR, *STRUCTURE_TABLES)) -> dict[str, Any]:
    """Return what stands in a file's tables of these names: their SQL, their indexes, every byte."""
    kept: dict[str, Any] = {}
    for name in names:
        quoted = '"' + name.replace('"', '""') + '"'
        made = f"SELECT name, sql FROM sqlite_schema WHERE tbl_name = '{name}' ORDER BY name"
        if found := rows(path, made):
            columns = [column for _, column, *_ in rows(path, f"PRAGMA table_info({quoted})")]
            told = ", ".join(f"typeof({column}), CAST({column} AS BLOB)" for column in columns)
            kept[name] = [found, rows(path, f"SELECT {told} FROM {quoted} ORDER BY rowid")]
    assert kept
    return kept


async def grow(session: Any) -> None:
    """Fill a session with tools, branches of branches, usage, a pop, and branches that are gone."""
    await session.add_items([{"role": "system", "content": "be kind"}])
    await session.add_items([user("about cats é 100%"), call("get_weather"), output()])
    await session.add_items([assistant("sunny")])
    await session.store_run_usage(ran(2, 100, 20, cached=30, reasoning=7))
    await session.add_items([user([{"type": "input_text", "text": "Cats again"}])])
    await session.add_items([{"type": "web_search_call", "id": "ws_1", "status": "completed"}])
    await session.store_run_usage(ran(1, 50, 5))
    await session.add_items([*turns("third", "fourth"), user("taken back")])
    assert await session.pop_item() is not None
    await session.create_branch_from_turn(3, "draft")
    await session.add_items([*turns("another third"), call("lookup", namespace="crm")])
    await session.store_run_usage(ran(1, 11, 3, reasoning=2))
    await session.create_branch_from_turn(3, "draft of draft")
    await session.add_items(turns("yet another third"))
    await session.switch_to_branch("main")
    await session.create_branch_from_turn(2, "deleted")
    await session.add_items(turns("gone"))
    await session.store_run_usage(ran(1, 1000, 1000))
    await session.delete_branch("deleted", force=True)
    await session.create_branch_from_turn(1, "emptied")
    assert await session.pop_item() is not None
    await session.switch_to_branch("main")
    await session.add_items(turns("fifth"))


ITEMS_ON_MAIN = 13
"""How many items ``grow`` leaves on main: five before the second turn, two in it, six after it."""


async def picture(session: Any, terms: Iterable[str] = ()) -> dict[str, Any]:
    """
    Return everything that a session answers, branch by branch.

    Times on branches are left out: a copy of the SDK's carries the time of copying. So is an order
    that the SDK leaves open.
    """
    branches = {branch.pop("branch_id"): branch for branch in await session.list_branches()}
    seen: dict[str, Any] = {
        "items": await session.get_items(),
        "newest": [await session.get_items(limit) for limit in (-1, 0, 1, 2, 5)],
        "turns": await session.get_conversation_turns(),
        "usage": await session.get_session_usage(),
        "branches": branches,
    }
    for name in branches:
        answers = [
            await session.get_items(branch_id=name),
            await session.get_items(3, name),
            await session.get_conversation_turns(name),
            await session.get_conversation_by_turns(name),
            sorted(await session.get_tool_usage(name), key=lambda row: (row[2], str(row[0]))),
            await session.get_turn_usage(branch_id=name),
            await session.get_session_usage(name),
            [await session.find_turns_by_content(term, name) for term in terms],
        ]
        if name != "main":
            _forget(answers, "timestamp")
        seen[f"branch {name!r}"] = answers
    return seen


def _forget(value: Any, key: str) -> None:
    if isinstance(value, dict):
        value.pop(key, None)
    if isinstance(value, list):
        for element in value:
            _forget(element, key)


async def pictures(sessions: Iterable[Any], terms: Iterable[str] = ()) -> dict[str, Any]:
    """Return the pictures of several sessions, by their ids, and close the sessions."""
    seen = {}
    for session in sessions:
        seen[session.session_id] = await picture(session, terms)
        session.close()
    return seen


async def assert_sound(path: Path) -> None:
    """Verify a file's log, and compare its tables with a replay from the first event."""
    builders = projections.default()
    async with EventLog.open(path, projections=builders) as log:
        verified = await log.verify()
        assert verified.findings == ()
        assert verified.events > 0
        different: list[Any] = []
        checked = replay(log, builders.named([]), check=True, on_difference=different.append)
        assert different == []
        assert {outcome.differences for outcome in checked} == {0}


async def events(path: Path, *types: str) -> list[Any]:
    """Return the events in a file, of these types or all."""
    async with EventLog.open(path, create=False) as log:
        return [event async for event in log.read(types=types or None)]
