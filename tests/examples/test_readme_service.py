"""The web service of the manual is safe as it is written."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from agents import Agent
from httpx import ASGITransport, AsyncClient

from agents_eventlog import AdvancedSQLiteSession
from agents_eventlog.testing import ScriptedModel, reply
from tests.manual import page


@pytest.fixture
async def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ScriptedModel:
    monkeypatch.chdir(tmp_path)
    return ScriptedModel(fallback=reply("Gladly."))


@pytest.fixture
def client(model: ScriptedModel) -> AsyncClient:
    namespace: dict[str, Any] = {}
    [code] = [code for code in page("guides/chat-service").code("python") if "FastAPI()" in code]
    exec(code, namespace)
    namespace["agent"] = Agent(name="Assistant", model=model)
    return AsyncClient(transport=ASGITransport(namespace["app"]), base_url="http://test")


async def send(client: AsyncClient, user_id: str) -> int:
    answer = await client.post("/chats/c", params={"text": "Hi."}, headers={"X-User": user_id})
    return answer.status_code


async def test_the_service_of_the_manual_answers_the_owner_only(client: AsyncClient) -> None:
    assert await send(client, "alice") == 200
    assert await send(client, "mallory") == 404
    alice = AdvancedSQLiteSession("c", "conversations.db", user_id="alice")
    assert len(await alice.get_items()) == 2
    await alice.delete_session()
    assert await send(client, "alice") == 404


async def test_the_service_of_the_manual_answers_one_message_at_a_time(
    client: AsyncClient, model: ScriptedModel
) -> None:
    async def slow(_items: Any) -> Any:
        await asyncio.sleep(0.3)
        return reply("Gladly.")

    model.enqueue(slow)
    codes = await asyncio.gather(*(send(client, "alice") for _ in range(4)))
    assert sorted(codes) == [200, 409, 409, 409]
    assert await send(client, "alice") == 200
