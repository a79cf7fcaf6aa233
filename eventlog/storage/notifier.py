"""Wakes tasks when a store's thread has committed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol


class Hints(Protocol):
    """What hears of the commits of other processes, as far as an engine can."""

    def begin(self, wake: Callable[[], None]) -> None:
        """Call ``wake`` for each of them, in any thread, until as many calls of ``end``."""

    def end(self) -> None:
        """Stop, if this was the last one who had begun."""


class Notifier:
    """
    Wakes listeners on their own event loops. Callable from any thread.

    hints: wakes them, too, while there are any.
    """

    def __init__(self, hints: Hints | None = None) -> None:
        self._hints = hints
        self._heard: dict[asyncio.Event, asyncio.AbstractEventLoop] = {}

    @contextmanager
    def listen(self) -> Iterator[asyncio.Event]:
        """Yield an asyncio event that each notification sets; clear it before waiting for it."""
        heard = asyncio.Event()
        self._heard[heard] = asyncio.get_running_loop()
        if self._hints is not None:
            self._hints.begin(self.notify)
        try:
            yield heard
        finally:
            del self._heard[heard]
            if self._hints is not None:
                self._hints.end()

    def notify(self) -> None:
        """Set the event of each listener; skip closed loops."""
        for heard, loop in self._heard.copy().items():  # no other thread runs during a copy
            if heard.is_set():
                continue  # the listener has not yet handled the last notification
            try:
                loop.call_soon_threadsafe(heard.set)
            except RuntimeError:
                continue  # the loop was closed, and its listeners with it
