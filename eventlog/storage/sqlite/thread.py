"""
One thread for one connection: the only place that reaches into aiosqlite.

aiosqlite's own calls resolve asyncio futures from its thread, and die with it when a loop closes while
an operation of that loop is pending. Only its thread and queue are used here: functions run in order and
deliver their own results. The thread is a daemon, so that an unclosed log never keeps a program from
ending.
"""

from __future__ import annotations

import sqlite3
import threading
import weakref
from collections.abc import Callable
from typing import Any

from aiosqlite import core

from agents_eventlog.eventlog.storage.sqlite import fork


def _no_connector() -> sqlite3.Connection:
    raise RuntimeError("the store opens its connections itself")


def _stop() -> object:
    return core._STOP_RUNNING_SENTINEL  # noqa: SLF001


_STOP = (None, _stop)


class Worker:
    """
    A daemon thread that runs functions one after another, in the order they were posted.

    The thread starts with the first function. ``pause`` ends it, and ``resume`` lets the next function
    start another.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._pauses = 0  # several threads may fork at the same time
        self._held: list[Any] = []
        self._connection: core.Connection | None = None
        self._thread: threading.Thread | None = None

    def post(self, function: Callable[[], None]) -> None:
        """Run a function on the thread after those posted before. It must not raise."""
        held = [function]  # not by the thread, which remembers its last function while it waits

        def run() -> None:
            held.pop()()
            fork.end_child_of_unit()

        with self._lock:
            self._put((None, run))

    def _put(self, item: Any) -> None:
        """Queue an item, or keep it until the pause ends; the lock is held."""
        if self._pauses:
            self._held.append(item)
        else:
            if self._connection is None:
                self._start()
            self._connection._tx.put_nowait(item)  # type: ignore[union-attr]  # noqa: SLF001

    def _start(self) -> None:
        self._connection = core.Connection(_no_connector, iter_chunk_size=64)
        self._thread = self._connection._thread  # noqa: SLF001
        self._thread.daemon = True
        self._thread.name = self.name
        self._thread.start()
        # Without a reference to the worker, so that a worker that is never stopped leaves no thread behind.
        queue = self._connection._tx  # noqa: SLF001
        weakref.finalize(self, queue.put_nowait, _STOP).atexit = False

    @property
    def is_current(self) -> bool:
        """Whether the caller runs on this worker's thread."""
        return self._thread is threading.current_thread()

    @property
    def is_paused(self) -> bool:
        """Whether functions posted now wait until the pause ends."""
        return self._pauses > 0

    def begin_pause(self, last: Callable[[], None]) -> None:
        """End the thread after what was posted and ``last``; hold what is posted from now on."""
        with self._lock:
            if not self._pauses and self._connection is not None:
                self._connection._tx.put_nowait((None, last))  # noqa: SLF001
                self._connection._tx.put_nowait(_STOP)  # noqa: SLF001
            self._pauses += 1

    def resume(self) -> None:
        """End a pause; what was held starts a new thread."""
        with self._lock:
            self._pauses -= 1
            if self._pauses == 0:
                self._connection = self._thread = None
                held, self._held = self._held, []
                for item in held:
                    self._put(item)

    def end(self, last: Callable[[], None]) -> None:
        """Run a last function after everything posted, and end the thread; do not wait."""
        with self._lock:
            if self._connection is not None or self._held:
                self._put((None, last))
                self._put((None, self._ended.set))
                self._put(_STOP)
                return
        last()  # there is no thread that it could disturb
        self._ended.set()

    def join(self, timeout_seconds: float | None = None) -> None:
        """Wait for the thread to end after ``end``."""
        if self._ended.wait(
            timeout_seconds
        ):  # not the thread's end: a fork may pause what was posted
            self.join_thread(timeout_seconds)

    def join_thread(self, timeout_seconds: float | None = None) -> None:
        """Wait for the thread to end after ``begin_pause``."""
        thread = self._thread
        if thread is not None:
            thread.join(timeout_seconds)

    @property
    def has_ended(self) -> bool:
        """Whether the last function has run and no thread is left."""
        thread = self._thread
        return self._ended.is_set() and (thread is None or not thread.is_alive())
