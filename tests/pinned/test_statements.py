"""How many statements an operation takes: what was saved once is not lost unseen."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from agents_eventlog import AdvancedSQLiteSession

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

TURN: list[Any] = [
    {"role": "user", "content": "hello"},
    {"type": "function_call", "call_id": "1", "name": "look", "arguments": "{}"},
    {"role": "assistant", "content": "hi"},
]
MOST: dict[str, tuple[Callable[[AdvancedSQLiteSession], Awaitable[Any]], int]] = {
    "add_items": (lambda session: session.add_items(TURN), 10),
    "pop_item": (lambda session: session.pop_item(), 10),
    "get_items": (lambda session: session.get_items(limit=5), 4),
    "find_turns_by_content": (lambda session: session.find_turns_by_content("hello"), 5),
}
AFTER_A_WRITE = 3
"""What a reader looks up again when somebody has written: checkpoints, place, whether it is sealed now."""


def traced(session: AdvancedSQLiteSession) -> list[str]:
    """Have both connections note the statements that they run from now on."""
    statements: list[str] = []
    store = session.log.store
    for ask in (store.write_sync, store.read_sync):
        ask(lambda tx: tx.connection.set_trace_callback(statements.append))
    return statements


@pytest.mark.parametrize("name", MOST)
def test_an_operation_takes_few_statements(tmp_path: Path, name: str) -> None:
    call, most = MOST[name]
    session = AdvancedSQLiteSession("s", tmp_path / "log.db", durability="normal")

    async def run() -> list[list[str]]:
        for _ in range(5):
            await session.add_items(TURN)
        statements = traced(session)
        found = []
        for _ in range(2):
            statements.clear()
            await call(session)
            found.append(list(statements))
        return found

    first, second = asyncio.run(run())
    session.close()
    assert 0 < len(first) <= most + AFTER_A_WRITE, first
    assert len(second) <= most, second
