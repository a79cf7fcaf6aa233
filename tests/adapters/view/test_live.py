"""New events reach the pages that follow: one subscription of the log for all of them."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest

from agents_eventlog import ConversationLog
from agents_eventlog.adapters.view.live import Live
from agents_eventlog.eventlog import ItemsAdded

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

ITEM: Any = {"role": "user", "content": "x"}


@pytest.fixture(params=["sqlite", "postgres"])
async def logs(
    request: pytest.FixtureRequest, tmp_path: Path
) -> AsyncIterator[tuple[ConversationLog, ConversationLog]]:
    """A log that writes, and the same one as the pages open it: as another process would."""
    path = tmp_path / "log.db"
    place = path if request.param == "sqlite" else request.getfixturevalue("server").url()
    async with ConversationLog.open(place) as log:
        await log.append("s", ItemsAdded(items=[ITEM]), branch_id="main")
        async with ConversationLog.open(place, read_only=True) as read:
            yield log, read


async def event(stream: AsyncIterator[str]) -> dict[str, Any]:
    """Return the next event of a stream."""
    async with asyncio.timeout(20):
        async for text in stream:
            if text.startswith("id:"):
                found: dict[str, Any] = json.loads(text.partition("data: ")[2])
                assert text.startswith(f"id: {found['version']}\nevent: appended\n")
                return found
    raise AssertionError("the stream ended")


async def following(stream: AsyncIterator[str]) -> None:
    assert await anext(stream) == ": following\n\n"


async def test_pages_get_the_new_versions_of_their_session_alone(
    logs: tuple[ConversationLog, ConversationLog],
) -> None:
    log, read = logs
    live = Live(read)
    streams = [live.stream("s", 1), live.stream("s", 1), live.stream("other", 0)]
    await asyncio.gather(*map(following, streams))
    waiting = [asyncio.create_task(event(stream)) for stream in streams]
    await asyncio.sleep(0.1)
    await log.append("s", ItemsAdded(items=[ITEM]), branch_id="main")
    await log.append("other", ItemsAdded(items=[ITEM]), branch_id="main")
    first, second, other = await asyncio.gather(*waiting)
    assert first == second == {"version": 2, "type": "items_added"}
    assert other["version"] == 1
    await live.close()


async def test_a_page_that_missed_versions_gets_the_newest_at_once(
    logs: tuple[ConversationLog, ConversationLog],
) -> None:
    log, read = logs
    await log.append("s", [ItemsAdded(items=[ITEM])] * 3, branch_id="main")
    live = Live(read)
    stream = live.stream("s", 1)
    await following(stream)
    assert await event(stream) == {"version": 4, "type": "missed"}
    await live.close()


async def test_a_page_that_is_loaded_again_gets_new_versions(
    logs: tuple[ConversationLog, ConversationLog],
) -> None:
    log, read = logs
    live = Live(read)
    before, after = live.stream("s", 1), live.stream("s", 1)
    await following(before)
    await before.aclose()  # type: ignore[attr-defined]
    await following(after)  # at once: what served the page before has not ended yet
    waiting = asyncio.create_task(event(after))
    await asyncio.sleep(0.1)
    await log.append("s", ItemsAdded(items=[ITEM]), branch_id="main")
    assert await waiting == {"version": 2, "type": "items_added"}
    await live.close()


async def test_streams_end_with_the_server_and_the_log_is_read_only_while_pages_follow(
    tmp_path: Path,
) -> None:
    async with ConversationLog.open(tmp_path / "log.db") as log:
        live = Live(log)
        stream = live.stream("s", 0)
        await following(stream)
        waiting = asyncio.create_task(anext(stream, None))
        await asyncio.sleep(0.05)
        task = live._task
        assert task is not None
        await live.close()
        assert await waiting is None
        await asyncio.wait([task], timeout=20)
        assert task.done()
        again = Live(log)
        left = again.stream("s", 0)
        await following(left)
        waits = asyncio.create_task(anext(left, None))
        await asyncio.sleep(0.05)
        task = again._task
        assert task is not None
        waits.cancel()  # the browser left
        await asyncio.wait([waits], timeout=20)
        await asyncio.wait([task], timeout=20)
        assert task.done()
        nobody = Live(log)
        await nobody.close()


async def test_a_stream_without_events_shows_that_it_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from agents_eventlog.adapters.view import live as module

    monkeypatch.setattr(module, "KEEP_ALIVE_SECONDS", 0.01)
    async with ConversationLog.open(tmp_path / "log.db") as log:
        live = Live(log)
        stream = live.stream("s", 0)
        await following(stream)
        assert await anext(stream) == ": still here\n\n"
        await live.close()


async def test_a_log_that_was_closed_ends_the_streams(tmp_path: Path) -> None:
    log = await ConversationLog.open(tmp_path / "log.db")
    live = Live(log)
    stream = live.stream("s", 0)
    await following(stream)
    waiting = asyncio.create_task(anext(stream, None))
    await asyncio.sleep(0.05)
    log.close()
    async with asyncio.timeout(20):
        assert await waiting is None
