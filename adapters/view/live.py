"""New events for open pages: one subscription for the process, shared by all pages that follow."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Final

from agents_eventlog.eventlog.errors import EventLogError
from agents_eventlog.eventlog.log import EventLog

KEEP_ALIVE_SECONDS: Final = 15.0
"""How often a stream without events sends a comment, so that a closed page is noticed."""


class Live:
    """Streams of a log's new events. It reads the log only while a page follows."""

    def __init__(self, log: EventLog) -> None:
        self._log = log
        self._listeners: set[asyncio.Queue[tuple[str, int, str] | None]] = set()
        self._task: asyncio.Task[None] | None = None
        self._is_closed = False

    async def stream(self, session_id: str, after: int) -> AsyncIterator[str]:
        """
        Yield server-sent events for a session: its version after each new event.

        after: the version that the page shows. If there are later ones, the newest comes at once.
        """
        queue: asyncio.Queue[tuple[str, int, str] | None] = asyncio.Queue()
        self._listeners.add(queue)
        try:
            if self._task is None or self._task.done():
                head = await self._log.head()
                if self._task is None or self._task.done():
                    self._task = asyncio.create_task(self._follow(head))
            yield ": following\n\n"
            version = await self._log.version(session_id)
            if version > after:
                yield _event(version, "missed")
            while not self._is_closed:
                try:
                    async with asyncio.timeout(KEEP_ALIVE_SECONDS):
                        found = await queue.get()
                except TimeoutError:
                    yield ": still here\n\n"
                    continue
                if found is None:
                    return
                session, new, kind = found
                if session == session_id and new > version:
                    version = new
                    yield _event(new, kind)
        finally:
            self._listeners.discard(queue)
            if not self._listeners and self._task is not None:
                self._task.cancel()
                self._task = None  # a page that comes before it has ended needs another one

    async def close(self) -> None:
        """End all streams."""
        self._is_closed = True
        if self._task is not None:
            self._task.cancel()
        for queue in self._listeners:
            queue.put_nowait(None)
        await asyncio.sleep(0)

    async def _follow(self, head: object) -> None:
        try:
            async with aclosing(self._log.subscribe(after=head)) as events:  # type: ignore[arg-type]
                async for recorded in events:
                    for queue in self._listeners:
                        queue.put_nowait((recorded.session_id, recorded.version, recorded.type))
        except EventLogError:
            pass  # the pages follow again, and get the error as a page if it stays
        for queue in self._listeners:
            queue.put_nowait(None)


def _event(version: int, kind: str) -> str:
    return f"id: {version}\nevent: appended\ndata: {json.dumps({'version': version, 'type': kind})}\n\n"
