"""The SDK's session and ours, reached through the same calls."""

from __future__ import annotations

import asyncio
import itertools
import json
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any, Protocol

from agents.extensions.memory import AdvancedSQLiteSession as SdkSession

from benchmarks.turns import adds, marker

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from agents import RunResult
    from agents.items import TResponseInputItem

SESSION_ID = "measured"
WEAR_IN_COMMITS = 300


class Session(Protocol):
    """What both classes offer and a measurement uses."""

    async def add_items(self, items: list[TResponseInputItem]) -> None: ...

    async def get_items(self, limit: int | None = None) -> list[TResponseInputItem]: ...

    async def pop_item(self) -> TResponseInputItem | None: ...

    async def store_run_usage(self, result: RunResult) -> None: ...

    async def create_branch_from_turn(
        self, turn_number: int, branch_name: str | None = None
    ) -> str: ...

    async def switch_to_branch(self, branch_id: str) -> None: ...

    async def list_branches(self) -> Any: ...

    async def get_conversation_turns(self) -> Any: ...

    async def get_conversation_by_turns(self) -> Any: ...

    async def get_tool_usage(self) -> list[tuple[str, int, int]]: ...

    async def get_session_usage(self) -> Any: ...

    async def create_branch_from_content(
        self, search_term: str, branch_name: str | None = None
    ) -> str: ...

    async def delete_branch(self, branch_id: str, force: bool = False) -> None: ...

    async def clear_session(self) -> None: ...

    async def get_turn_usage(self) -> Any: ...

    async def find_turns_by_content(self, search_term: str) -> Any: ...

    def close(self) -> None: ...


class Contestant(Protocol):
    """One of the two sides: opens sessions, and writes long histories quickly."""

    name: str

    def open(self, path: Path, session_id: str = SESSION_ID) -> Session:
        """Open a session; WAL and synchronous=FULL."""
        ...

    async def write_history(self, path: Path, turns: int, *, in_one_call: bool) -> None:
        """Fill a new file with what this class writes when it adds these turns one by one, or at once."""
        ...


async def wear_in(contestant: Contestant, path: Path) -> None:
    """
    Bring a file to its steady state: commit to another session until the write-ahead log is full grown.

    The first commits after opening append to that file, which costs more, or less, than writing over it.
    """
    session = contestant.open(path, "another")
    for number in range(WEAR_IN_COMMITS):
        await session.add_items([{"role": "user", "content": marker(number)}])
    session.close()


class Sdk:
    """The SDK's class, as it comes: WAL, and SQLite's own default of synchronous=FULL."""

    name = "sdk"
    pattern_turns = 10

    def open(self, path: Path, session_id: str = SESSION_ID) -> Session:
        return SdkSession(session_id=session_id, db_path=path, create_tables=True)

    async def write_history(self, path: Path, turns: int, *, in_one_call: bool) -> None:
        """
        Let the class write the first turns itself, and carry its rows on with plain inserts.

        Its own adds take some 20 ms each in a long history, too long to wait for. It has a row for each
        item, however many a call adds.
        """
        del in_one_call
        session = self.open(path)
        for number in range(1, min(turns, self.pattern_turns) + 1):
            for items in adds(number):
                await session.add_items(items)
        session.close()
        if turns > self.pattern_turns:
            with closing(sqlite3.connect(path)) as connection, connection:
                _continue_sdk_rows(connection, range(self.pattern_turns + 1, turns + 1))


def _continue_sdk_rows(connection: sqlite3.Connection, numbers: range) -> None:
    pattern = connection.execute(
        """
        SELECT message_type, tool_name, created_at FROM message_structure
        WHERE session_id = ? AND branch_id = 'main' AND user_turn_number = 1
        ORDER BY sequence_number
        """,
        (SESSION_ID,),
    ).fetchall()
    (last_id,) = connection.execute("SELECT MAX(id) FROM agent_messages").fetchone()
    ids = itertools.count(last_id + 1)
    for number in numbers:
        items = [item for batch in adds(number) for item in batch]
        for item, (kind, tool_name, created_at) in zip(items, pattern, strict=True):
            row_id = next(ids)
            connection.execute(
                "INSERT INTO agent_messages (id, session_id, message_data, created_at)"
                " VALUES (?, ?, ?, ?)",
                (row_id, SESSION_ID, json.dumps(item), created_at),
            )
            connection.execute(
                "INSERT INTO message_structure (id, session_id, message_id, branch_id,"
                " message_type, sequence_number, user_turn_number, branch_turn_number,"
                " tool_name, created_at) VALUES (?, ?, ?, 'main', ?, ?, ?, ?, ?, ?)",
                (row_id, SESSION_ID, row_id, kind, row_id, number, number, tool_name, created_at),
            )


class Ours:
    """Our class, with the same durability."""

    name = "ours"
    adds_at_once = 200

    def open(self, path: Path, session_id: str = SESSION_ID) -> Session:
        from agents_eventlog import AdvancedSQLiteSession

        return AdvancedSQLiteSession(session_id, path, durability="full")

    async def write_history(self, path: Path, turns: int, *, in_one_call: bool) -> None:
        """Add the turns, in one call or many; many run in call order and share commits."""
        session = self.open(path)
        batches: Iterator[list[TResponseInputItem]] = (
            items for number in range(1, turns + 1) for items in adds(number)
        )
        if in_one_call:
            batches = iter([list(itertools.chain.from_iterable(batches))])
        for some in _batched(batches, self.adds_at_once):
            await asyncio.gather(*(session.add_items(items) for items in some))
        session.close()


def _batched(
    batches: Iterator[list[TResponseInputItem]], size: int
) -> Iterator[list[list[TResponseInputItem]]]:
    while some := list(itertools.islice(batches, size)):
        yield some
