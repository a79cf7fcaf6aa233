"""How tasks are woken by what happens on a store's threads."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager


class Bell:
    """Wakes whoever listens, on their own event loops. May be rung from any thread."""

    def __init__(self) -> None:
        self._heard: dict[asyncio.Event, asyncio.AbstractEventLoop] = {}

    @contextmanager
    def listening(self) -> Iterator[asyncio.Event]:
        """Give an event that is set with each ring; whoever waits for it clears it first."""
        heard = asyncio.Event()
        self._heard[heard] = asyncio.get_running_loop()
        try:
            yield heard
        finally:
            del self._heard[heard]

    def ring(self) -> None:
        """Set the event of each listener; closed loops are passed over."""
        for heard, loop in self._heard.copy().items():  # no other thread runs during a copy
            if heard.is_set():
                continue  # it has yet to be cleared, and only then is there a look
            try:
                loop.call_soon_threadsafe(heard.set)
            except RuntimeError:
                continue  # the loop was closed; nobody listens there any more
