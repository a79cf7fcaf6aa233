"""
One thread for one connection: the only place that reaches into aiosqlite.

aiosqlite's own calls resolve asyncio futures from its thread, and die with it when a loop closes while
an operation of that loop is pending. Here only its thread and queue are used: functions go in, in
order, and whoever waits for them is told by the function itself. The thread is a daemon, so that an
unclosed log never keeps a program from ending.
"""

from __future__ import annotations

import sqlite3
import threading
import weakref
from collections.abc import Callable

from aiosqlite import core


def _no_connector() -> sqlite3.Connection:
    raise RuntimeError("the store opens its connections itself")


def _stop() -> object:
    return core._STOP_RUNNING_SENTINEL  # noqa: SLF001


_STOP = (None, _stop)


class Worker:
    """A daemon thread that runs functions one after another, in the order they were posted."""

    def __init__(self, name: str) -> None:
        self._connection = core.Connection(_no_connector, iter_chunk_size=64)
        self._thread = self._connection._thread  # noqa: SLF001
        self._queue = self._connection._tx  # noqa: SLF001
        self._thread.daemon = True
        self._thread.name = name
        self._thread.start()
        # Without a reference to the worker: whoever forgets to stop it leaves no thread behind.
        weakref.finalize(self, self._queue.put_nowait, _STOP).atexit = False

    def post(self, function: Callable[[], None]) -> None:
        """Run a function on the thread after those posted before. It must not raise."""
        held = [function]  # not by the thread, which remembers its last function while it waits
        self._queue.put_nowait((None, lambda: held.pop()()))  # noqa: PLW0108

    def is_current(self) -> bool:
        """Whether the calling thread is this one."""
        return threading.current_thread() is self._thread

    def stop(self, timeout_seconds: float | None = None) -> None:
        """End the thread once everything posted has run, and wait for its end."""
        self._queue.put_nowait(_STOP)
        self.join(timeout_seconds)

    def join(self, timeout_seconds: float | None = None) -> None:
        """Wait for the end of a thread that somebody stops."""
        self._thread.join(timeout_seconds)
