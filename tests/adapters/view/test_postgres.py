"""The pages over a log in PostgreSQL: the same as over a file."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from agents_eventlog import ConversationLog
from tests.adapters.view.asking import documents, reader, text
from tests.adapters.view.conversation import EVERY_PAGE, ID, talk

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.postgres import Server


@pytest.fixture
async def log(server: Server) -> AsyncIterator[ConversationLog]:
    """A log with one conversation, as the pages open it."""
    url = server.url()
    await talk(url)
    async with ConversationLog.open(url, read_only=True) as opened:
        yield opened


async def test_every_page_is_shown(log: ConversationLog) -> None:
    browser = reader(log)
    first = min(row["position"] for row in await log.timeline(ID))
    for address in EVERY_PAGE:
        page = await text(browser, re.sub(r"position=\d+", f"position={first}", address))
        assert "<script>alert" not in page
    assert "Sorry!" in await text(browser, "/session", id=ID, branch="main")
    assert "9 events proved" in await text(browser, "/health", prove=1)
    assert len(await documents(browser, "/session/timeline", id=ID, format="json")) == 9
