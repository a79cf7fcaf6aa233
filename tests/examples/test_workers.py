"""The chat service of the examples in two processes, as uvicorn starts it."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from httpx import AsyncClient, AsyncHTTPTransport, Limits, TransportError

from agents_eventlog import ConversationLog

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

ROOT = Path(__file__).parent.parent.parent
CHATS = 6
SENDS = 4


@asynccontextmanager
async def serving(folder: Path) -> AsyncIterator[AsyncClient]:
    """Start two workers, and yield a client whose requests each have a connection; SIGTERM ends them."""
    socket = folder / "http"
    command = ["--factory", "tests.examples.worker:make", "--workers", "2", "--uds", str(socket)]
    server = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "uvicorn", "--log-level", "warning", *command),
        cwd=ROOT,
        env={
            **os.environ,
            "CHATS_DB": str(folder / "chats.db"),
            "PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "src"))),
            "OPENAI_AGENTS_DISABLE_TRACING": "1",
        },
    )
    transport = AsyncHTTPTransport(uds=str(socket), limits=Limits(max_keepalive_connections=0))
    async with AsyncClient(transport=transport, base_url="http://test", timeout=60) as client:
        try:
            await answers(client)
            yield client
        finally:
            if server.returncode is None:
                server.send_signal(signal.SIGTERM)
            await server.wait()


async def answers(client: AsyncClient) -> None:
    """Wait until a worker answers."""
    async with asyncio.timeout(60):
        while True:
            try:
                await client.get("/chats", headers={"X-User": "nobody"})
            except TransportError:
                await asyncio.sleep(0.1)
            else:
                return


async def test_two_workers_answer_one_message_of_a_chat_at_a_time_and_mix_nothing(
    tmp_path: Path,
) -> None:
    async def chat(client: AsyncClient, number: int) -> tuple[str, list[Any]]:
        headers = {"X-User": f"user {number}"}
        created = await client.post("/chats", json={}, headers=headers)
        chat_id = created.json()["chat_id"]
        sends = [
            client.post(f"/chats/{chat_id}/messages", json={"text": f"{number}"}, headers=headers)
            for _ in range(SENDS)
        ]
        return chat_id, await asyncio.gather(*sends)

    async with serving(tmp_path) as client:
        chats = await asyncio.gather(*(chat(client, number) for number in range(CHATS)))
    async with ConversationLog.open(tmp_path / "chats.db") as log:
        for number, (chat_id, answered) in enumerate(chats):
            codes = [answer.status_code for answer in answered]
            assert set(codes) <= {200, 409}
            answered_times = codes.count(200)
            assert answered_times >= 1
            row = await log.session(chat_id)
            assert row["user_id"] == f"user {number}"
            assert (row["turn_count"], row["item_count"]) == (answered_times, 2 * answered_times)
            assert row["total_tokens"] == 12 * answered_times
        assert (await log.verify()).ok
