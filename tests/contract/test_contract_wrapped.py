"""A session inside the SDK's encrypting session, on both sides (bullet 82)."""

from __future__ import annotations

from typing import Any

import pytest
from agents.extensions.memory import EncryptedSession
from agents.memory import SQLiteSession

from tests.contract.harness import SIDES, World
from tests.contract.items import call, output, turns, user

# Its spaces keep it out of any base64 text.
SECRET = "what nobody else may read"


@pytest.fixture
async def wrapped(world: World) -> Any:
    """Two encrypted sessions, one on each side's store."""
    pair = world.open()
    boxes = {
        side: EncryptedSession("conversation", getattr(pair, side), encryption_key="a key")
        for side in SIDES
    }
    return pair, boxes


async def test_encrypted_items_come_back(wrapped: Any) -> None:
    pair, boxes = wrapped
    for box in boxes.values():
        await box.add_items([*turns(SECRET), call(), output()])
        assert await box.get_items() == [*turns(SECRET), call(), output()]
        assert await box.get_items(2) == [call(), output()]
        assert await box.pop_item() == output()
        assert await box.get_items(limit=1) == [call()]
    assert await pair.get_conversation_turns() == []
    shown = await pair.get_conversation_by_turns()
    assert shown == {0: [{"type": "other", "tool_name": None}] * 3}
    for side in SIDES:
        raw = await getattr(pair, side).get_items()
        assert all(item.keys() == raw[0].keys() and SECRET not in str(item) for item in raw)


async def test_an_encrypted_session_is_cleared(wrapped: Any) -> None:
    pair, boxes = wrapped
    for box in boxes.values():
        await box.add_items([user("one")])
        await box.clear_session()
        assert await box.get_items() == []
        assert await box.pop_item() is None
    assert await pair.get_items() == []


@pytest.mark.parametrize("side", SIDES)
def test_a_session_is_one_to_the_runner(world: World, side: str) -> None:
    from agents.memory import Session

    session = world.session_class(side)(
        session_id="s", db_path=world.path(side), create_tables=True
    )
    world.opened.append(session)
    assert isinstance(session, Session)
    assert not hasattr(session, "run_compaction")
    anything: Any = session
    anything.add_items = SQLiteSession.add_items
    assert anything.add_items is SQLiteSession.add_items
