"""Wakes tasks when a store's thread has committed."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager


class Notifier:
    """Wakes listeners on their own event loops. Callable from any thread."""

    def __init__(self) -> None:
        self._heard: dict[asyncio.Event, asyncio.AbstractEventLoop] = {}

    @contextmanager
    def listen(self) -> Iterator[asyncio.Event]:
        """Yield an asyncio event that each notification sets; clear it before waiting for it."""
        heard = asyncio.Event()
        self._heard[heard] = asyncio.get_running_loop()
        try:
            yield heard
        finally:
            del self._heard[heard]

    def notify(self) -> None:
        """Set the event of each listener; skip closed loops."""
        for heard, loop in self._heard.copy().items():  # no other thread runs during a copy
            if heard.is_set():
                continue  # the listener has not yet handled the last notification
            try:
                loop.call_soon_threadsafe(heard.set)
            except RuntimeError:
                continue  # the loop was closed, and its listeners with it
