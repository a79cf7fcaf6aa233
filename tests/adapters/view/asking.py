"""How the tests ask for pages: as a browser does that has the key, without a network."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import httpx

from agents_eventlog.adapters.view.app import create_app

if TYPE_CHECKING:
    from agents_eventlog import ConversationLog

HOST = "127.0.0.1:4780"
KEY = "k" * 32


def client(log: ConversationLog, **options: Any) -> httpx.AsyncClient:
    """A browser that asks a server of the pages over a log; it has no key."""
    app = create_app(log, hosts=[HOST], key=KEY, cookie="eventlog_4780")
    transport = httpx.ASGITransport(app)
    return httpx.AsyncClient(transport=transport, base_url=f"http://{HOST}", **options)


def reader(log: ConversationLog) -> httpx.AsyncClient:
    """A browser that has the key."""
    return client(log, cookies={"eventlog_4780": KEY})


async def text(browser: httpx.AsyncClient, path: str, **query: Any) -> str:
    """Return a page's HTML."""
    answer = await browser.get(path, params=query or None)
    assert answer.status_code == 200, answer.text
    return answer.text


async def documents(browser: httpx.AsyncClient, path: str, **query: Any) -> list[dict[str, Any]]:
    """Return the documents of a page for programs."""
    return [json.loads(line) for line in (await text(browser, path, **query)).splitlines()]
