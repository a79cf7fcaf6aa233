"""
Hints between processes: a commit notifies the subscribers of other processes, which otherwise poll.

``NOTIFY`` in the transaction of an append would make commits wait for each other: the server holds a lock
on the whole cluster from there until the transaction is on disk. So it follows the commit as a transaction
of its own, in the same round trip, and at most once in ``HINT_SECONDS`` for each process. Listeners look
again after that time, for commits that followed a hint too closely to send their own.
"""

from __future__ import annotations

import selectors
import socket
import threading
import time
from collections.abc import Callable
from contextlib import closing
from typing import Final

import psycopg

from agents_eventlog.eventlog.storage.postgres.connections import Connection

CHANNEL: Final = "eventlog"
HINT: Final = "SELECT pg_notify(?, ?)"
"""What a commit sends; its parameters are the channel and the schema of the log."""

HINT_SECONDS: Final = 0.025
RETRY_SECONDS: Final = 1.0
"""How long a listener that lost its connection waits before it connects again."""


class Listener:
    """Hears the hints of one log, on a thread and a connection of its own, while there are subscribers."""

    def __init__(
        self, connect: Callable[[], Connection], schema: str, own: Callable[[], int | None]
    ) -> None:
        self._connect = connect
        self._schema = schema
        self._own = own  # the server's process of the connection whose hints this process needs not
        self._lock = threading.Lock()
        self._users = 0
        self._pauses = 0
        self._wake: Callable[[], None] = _nothing
        self._ear: _Ear | None = None

    def begin(self, wake: Callable[[], None]) -> None:
        """Call ``wake`` for each hint, on a thread of its own, until as many calls of ``end``."""
        with self._lock:
            self._users += 1
            self._wake = wake
            self._start()

    def end(self) -> None:
        """Stop, unless another user has begun."""
        with self._lock:
            self._users -= 1
            if not self._users:
                self._stop()

    def begin_pause(self) -> None:
        """Stop before a fork."""
        with self._lock:
            self._pauses += 1
            ear = self._stop()
        if ear is not None:
            ear.join()

    def end_pause(self) -> None:
        """Continue after a fork."""
        with self._lock:
            self._pauses -= 1
            self._start()

    def another(self) -> Listener:
        """Return one for a forked child, without users."""
        return Listener(self._connect, self._schema, self._own)

    def _start(self) -> None:
        if self._ear is None and self._users and not self._pauses:
            self._ear = _Ear(self._connect, self._schema, self._own, self._wake)
            self._ear.start()

    def _stop(self) -> _Ear | None:
        ear, self._ear = self._ear, None
        if ear is not None:
            ear.stop()
        return ear


class _Ear(threading.Thread):
    """The thread of a listener, which ends soon after ``stop``."""

    def __init__(
        self,
        connect: Callable[[], Connection],
        schema: str,
        own: Callable[[], int | None],
        wake: Callable[[], None],
    ) -> None:
        super().__init__(name=f"eventlog {schema} listener", daemon=True)
        self._connect = connect
        self._schema = schema.encode()
        self._own = own
        self._wake = wake
        self._stopped, self._stopper = socket.socketpair()

    def stop(self) -> None:
        """End the thread, without waiting for that."""
        self._stopper.close()

    def run(self) -> None:
        """Listen until stopped; connect again when the connection is lost."""
        with self._stopped, selectors.DefaultSelector() as selector:
            selector.register(self._stopped, selectors.EVENT_READ)
            is_stopped = False
            while not is_stopped:
                try:
                    with closing(self._connect()) as connection:
                        self._listen(connection.raw, selector)
                    is_stopped = True
                except (psycopg.Error, OSError):
                    is_stopped = bool(selector.select(RETRY_SECONDS))

    def _listen(
        self, connection: psycopg.Connection[object], selector: selectors.BaseSelector
    ) -> None:
        connection.execute(f"LISTEN {CHANNEL}")
        self._wake()  # for what was committed before
        look_again_at: float | None = None
        number = connection.fileno()
        selector.register(number, selectors.EVENT_READ)
        try:
            while True:
                timeout = None if look_again_at is None else look_again_at - time.monotonic()
                ready = {key.fileobj for key, _ in selector.select(timeout)}
                if self._stopped in ready:
                    return
                if self._has_hint(connection):
                    look_again_at = time.monotonic() + HINT_SECONDS
                    self._wake()
                elif look_again_at is not None and time.monotonic() >= look_again_at:
                    look_again_at = None
                    self._wake()
        finally:
            selector.unregister(number)

    def _has_hint(self, connection: psycopg.Connection[object]) -> bool:
        """Take what has arrived; return whether another process appended to this log."""
        connection.pgconn.consume_input()
        found = False
        while (notification := connection.pgconn.notifies()) is not None:
            is_ours = notification.extra == self._schema and notification.be_pid != self._own()
            found = found or is_ours
        return found


def _nothing() -> None:
    """Do nothing."""
