"""A session inside the SDK's encrypting session, on both sides (bullet 82)."""

from __future__ import annotations

from typing import Any

import pytest
from agents.extensions.memory import EncryptedSession

from tests.contract.harness import SIDES, World
from tests.contract.items import call, output, turns

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
