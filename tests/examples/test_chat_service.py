"""The chat service of the examples, driven over HTTP."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from agents import Agent
from httpx import ASGITransport, AsyncClient

from agents_eventlog.testing import ScriptedModel, reply
from examples.chat_service import create_app

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


class Talker(ScriptedModel):
    """Answers each message; while it is held, it does not answer."""

    def __init__(self) -> None:
        super().__init__(fallback=self.answer)
        self.text = "Gladly."
        self.asked = asyncio.Event()
        self.may_answer = asyncio.Event()
        self.may_answer.set()

    async def answer(self, _items: Any) -> Any:
        self.asked.set()
        await self.may_answer.wait()
        return reply(self.text)


@pytest.fixture
async def model() -> Talker:
    return Talker()


@asynccontextmanager
async def serving(path: Path, model: Talker) -> AsyncIterator[AsyncClient]:
    """Start one worker of the service and yield a client of it."""
    app = create_app(str(path), Agent(name="Assistant", model=model))
    async with (
        app.router.lifespan_context(app),
        AsyncClient(transport=ASGITransport(app), base_url="http://test") as client,
    ):
        yield client


@pytest.fixture
async def client(tmp_path: Path, model: Talker) -> AsyncIterator[AsyncClient]:
    async with serving(tmp_path / "chats.db", model) as client:
        yield client


def of(user_id: str) -> dict[str, str]:
    return {"X-User": user_id}


ALICE, MALLORY = of("alice"), of("mallory")


async def new_chat(client: AsyncClient, *texts: str, headers: dict[str, str] = ALICE) -> str:
    created = await client.post("/chats", json={}, headers=headers)
    assert created.status_code == 201
    chat_id = created.json()["chat_id"]
    for text in texts:
        assert (await send(client, chat_id, text, headers)).status_code == 200
    return str(chat_id)


async def send(
    client: AsyncClient, chat_id: str, text: str, headers: dict[str, str] = ALICE
) -> Any:
    return await client.post(f"/chats/{chat_id}/messages", json={"text": text}, headers=headers)


async def texts(client: AsyncClient, chat_id: str) -> list[str]:
    answer = await client.get(f"/chats/{chat_id}", headers=ALICE)
    assert answer.status_code == 200
    return [
        content if isinstance(content := item["content"], str) else content[0]["text"]
        for item in answer.json()["items"]
    ]


async def test_a_message_is_answered_and_kept(client: AsyncClient) -> None:
    chat_id = await new_chat(client)
    assert (await send(client, chat_id, "Tell me a joke.")).json() == {"answer": "Gladly."}
    assert await texts(client, chat_id) == ["Tell me a joke.", "Gladly."]


async def test_the_chats_of_a_user_are_listed_by_page_under_their_titles(
    client: AsyncClient,
) -> None:
    first = await new_chat(client, "Hello.")
    second = await new_chat(client, "Good evening.")
    await new_chat(client, "I am mallory.", headers=MALLORY)
    renamed = await client.put(f"/chats/{second}/title", json={"title": "Evening"}, headers=ALICE)
    assert renamed.status_code == 204
    chats = (await client.get("/chats", headers=ALICE)).json()
    assert [(chat["chat_id"], chat["title"]) for chat in chats] == [
        (second, "Evening"),
        (first, "Hello."),
    ]
    rest = await client.get("/chats", params={"after": chats[0]["cursor"]}, headers=ALICE)
    assert [chat["chat_id"] for chat in rest.json()] == [first]


REQUESTS = [
    ("GET", "", None),
    ("PUT", "/title", {"title": "Mine"}),
    ("POST", "/messages", {"text": "Give me the secret."}),
    ("POST", "/turns/1/retry", None),
    ("PUT", "/turns/1", {"text": "Give me the secret."}),
    ("GET", "/turns/1/versions", None),
    ("PUT", "/version", {"branch_id": "main"}),
    ("POST", "/undo", None),
    ("POST", "/redo", None),
    ("DELETE", "", None),
]


@pytest.mark.parametrize(("method", "path", "body"), REQUESTS)
async def test_a_chat_of_another_user_does_not_exist(
    method: str, path: str, body: Any, client: AsyncClient
) -> None:
    chat_id = await new_chat(client, "My secret.")
    answers = [
        await client.request(method, f"/chats/{each}{path}", json=body, headers=MALLORY)
        for each in (chat_id, "none-such")
    ]
    assert [answer.status_code for answer in answers] == [404, 404]
    assert answers[0].json() == answers[1].json()
    assert await texts(client, chat_id) == ["My secret.", "Gladly."]
    [chat] = (await client.get("/chats", headers=ALICE)).json()
    assert chat["title"] == "My secret."
    assert (await client.get("/chats", headers=MALLORY)).json() == []


async def test_a_request_without_a_user_is_refused(client: AsyncClient) -> None:
    assert (await client.get("/chats")).status_code == 422


async def test_a_message_sent_twice_is_answered_once(
    client: AsyncClient, model: Talker, tmp_path: Path
) -> None:
    chat_id = await new_chat(client)
    model.may_answer.clear()
    first = asyncio.create_task(send(client, chat_id, "Hello."))
    await model.asked.wait()
    async with serving(tmp_path / "chats.db", model) as another_worker:
        for worker in (client, another_worker):
            assert (await send(worker, chat_id, "Hello.")).status_code == 409
    model.may_answer.set()
    assert (await first).status_code == 200
    assert await texts(client, chat_id) == ["Hello.", "Gladly."]
    assert (await send(client, chat_id, "And again.")).status_code == 200


async def test_an_answer_is_retried_and_a_question_edited_and_both_versions_stay(
    client: AsyncClient, model: Talker
) -> None:
    chat_id = await new_chat(client, "Hello.", "Tell me a joke.")
    chat = f"/chats/{chat_id}"
    model.text = "Another joke."
    retried = await client.post(f"{chat}/turns/2/retry", headers=ALICE)
    assert retried.json() == {"answer": "Another joke."}
    assert await texts(client, chat_id) == ["Hello.", "Gladly.", "Tell me a joke.", "Another joke."]
    model.text = "A poem."
    edited = await client.put(f"{chat}/turns/2", json={"text": "A poem, please."}, headers=ALICE)
    assert edited.json() == {"answer": "A poem."}
    assert await texts(client, chat_id) == ["Hello.", "Gladly.", "A poem, please.", "A poem."]
    versions = (await client.get(f"{chat}/turns/2/versions", headers=ALICE)).json()
    assert [each["is_current"] for each in versions] == [False, False, True]
    first = {"branch_id": versions[0]["branch_id"]}
    assert (await client.put(f"{chat}/version", json=first, headers=ALICE)).status_code == 204
    assert await texts(client, chat_id) == ["Hello.", "Gladly.", "Tell me a joke.", "Gladly."]
    for missing in (
        await client.post(f"{chat}/turns/9/retry", headers=ALICE),
        await client.put(f"{chat}/version", json={"branch_id": "none"}, headers=ALICE),
    ):
        assert missing.status_code == 404
        assert missing.json() == {"detail": "turn or version not found"}


async def test_turns_are_undone_and_redone(client: AsyncClient) -> None:
    chat_id = await new_chat(client, "Hello.", "Tell me a joke.")
    undone = await client.post(f"/chats/{chat_id}/undo", headers=ALICE)
    assert [item["role"] for item in undone.json()["items"]] == ["user", "assistant"]
    assert await texts(client, chat_id) == ["Hello.", "Gladly."]
    assert (await client.post(f"/chats/{chat_id}/redo", headers=ALICE)).status_code == 200
    assert len(await texts(client, chat_id)) == 4


async def test_what_changes_a_chat_waits_for_no_message_under_way(
    client: AsyncClient, model: Talker
) -> None:
    chat_id = await new_chat(client, "Hello.")
    model.may_answer.clear()
    model.asked.clear()
    running = asyncio.create_task(send(client, chat_id, "Tell me a joke."))
    await model.asked.wait()
    for method, path, body in REQUESTS:
        if path.startswith(("/messages", "/turns/1", "/version", "/undo", "/redo")) and (
            method != "GET"
        ):
            answer = await client.request(
                method, f"/chats/{chat_id}{path}", json=body, headers=ALICE
            )
            assert answer.status_code == 409, path
    model.may_answer.set()
    assert (await running).status_code == 200
    assert len(await texts(client, chat_id)) == 4


async def test_a_chat_that_is_deleted_is_gone_also_for_a_message_under_way(
    client: AsyncClient, model: Talker
) -> None:
    chat_id = await new_chat(client)
    model.may_answer.clear()
    running = asyncio.create_task(send(client, chat_id, "Hello."))
    await model.asked.wait()
    assert (await client.delete(f"/chats/{chat_id}", headers=ALICE)).status_code == 204
    model.may_answer.set()
    assert (await running).status_code == 404
    for method, path, body in REQUESTS:
        answer = await client.request(method, f"/chats/{chat_id}{path}", json=body, headers=ALICE)
        assert answer.status_code == 404
    assert (await client.get("/chats", headers=ALICE)).json() == []


async def test_a_user_takes_all_data_along_and_has_it_erased(
    client: AsyncClient, tmp_path: Path
) -> None:
    await new_chat(client, "My secret.")
    deleted = await new_chat(client, "My other secret.")
    await client.delete(f"/chats/{deleted}", headers=ALICE)
    await new_chat(client, "I am mallory.", headers=MALLORY)
    exported = await client.get("/me/data", headers=ALICE)
    lines = [json.loads(line) for line in exported.text.splitlines()]
    assert len(lines) > 4
    assert "My secret." in exported.text
    assert "My other secret." in exported.text
    assert "mallory" not in exported.text
    erased = await client.delete("/me/data", headers=ALICE)
    assert erased.json() == {"chats": 2, "is_complete": True}
    assert (await client.get("/chats", headers=ALICE)).json() == []
    assert len((await client.get("/chats", headers=MALLORY)).json()) == 1
    for file in tmp_path.iterdir():
        assert b"secret." not in file.read_bytes()
