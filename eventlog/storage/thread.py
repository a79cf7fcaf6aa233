"""
One thread for one connection.

Functions run in order and deliver their own results. The thread is a daemon, so that an unclosed log
never keeps a program from ending.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from queue import SimpleQueue
from typing import NamedTuple, TypeAlias

from agents_eventlog.eventlog.storage import fork

Function: TypeAlias = Callable[[], None]


class Running(NamedTuple):
    """A started thread: how it is given a function, and how it is ended after all of them."""

    thread: threading.Thread
    put: Callable[[Function], None]
    stop: Callable[[], None]


def start_thread(name: str) -> Running:
    """Start a thread that runs functions from a queue."""
    functions: SimpleQueue[Function | None] = SimpleQueue()

    def run() -> None:
        while (function := functions.get()) is not None:
            function()
            del function  # or what it holds would live while the thread waits

    thread = threading.Thread(target=run, name=name, daemon=True)
    thread.start()
    return Running(thread, functions.put, lambda: functions.put(None))


class Worker:
    """
    A daemon thread that runs functions one after another, in the order they were posted.

    The thread starts with the first function. ``pause`` ends it, and ``resume`` lets the next function
    start another.
    """

    def __init__(self, name: str, start: Callable[[str], Running] = start_thread) -> None:
        self.name = name
        self._start_thread = start
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._pauses = 0  # several threads may fork at the same time
        self._held: list[Function | None] = []
        self._running: Running | None = None
        self._thread: threading.Thread | None = None

    def another(self) -> Worker:
        """Return a new worker of the same kind."""
        return Worker(self.name, self._start_thread)

    def post(self, function: Function) -> None:
        """Run a function on the thread after those posted before. It must not raise."""
        held = [function]  # not by the thread, which remembers its last function while it waits

        def run() -> None:
            held.pop()()
            fork.end_child_of_unit()

        with self._lock:
            self._put(run)

    def _put(self, function: Function | None) -> None:
        """Queue a function, or None to end the thread; keep it until a pause ends. The lock is held."""
        if self._pauses:
            self._held.append(function)
            return
        running = self._running or self._start()
        if function is None:
            running.stop()
        else:
            running.put(function)

    def _start(self) -> Running:
        running = self._running = self._start_thread(self.name)
        self._thread = running.thread
        # Without a reference to the worker, so that a worker that is never stopped leaves no thread behind.
        weakref.finalize(self, running.stop).atexit = False
        return running

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
            if not self._pauses and self._running is not None:
                self._running.put(last)
                self._running.stop()
            self._pauses += 1

    def resume(self) -> None:
        """End a pause; what was held starts a new thread."""
        with self._lock:
            self._pauses -= 1
            if self._pauses == 0:
                self._running = self._thread = None
                held, self._held = self._held, []
                for function in held:
                    self._put(function)

    def end(self, last: Callable[[], None]) -> None:
        """Run a last function after everything posted, and end the thread; do not wait."""
        with self._lock:
            if self._running is not None or self._held:
                self._put(last)
                self._put(self._ended.set)
                self._put(None)
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
