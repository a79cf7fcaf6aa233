"""Execution of one session object's operations in call order, on the store's two connections."""

from __future__ import annotations

import os
import threading
from collections import deque
from typing import Any, Literal, TypeAlias

from agents_eventlog.eventlog.storage.engine import Store
from agents_eventlog.eventlog.storage.pending import PendingUnit

Kind: TypeAlias = Literal["read", "write"]


_first_call = threading.Lock()


class SerialExecutor:
    """
    Runs the reads and writes of one session object in call order.

    The store's queue orders the writes, the reader's queue orders the reads. A read that is submitted
    during a write runs after it, on the writing connection. A write that is submitted during a read waits
    for it. Operations never wait for those of other session objects.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._begin_anew()

    def _begin_anew(self) -> None:
        self._lock = threading.Lock()
        self._idle = threading.Condition(self._lock)
        self._waiters = 0
        self._reads = 0  # queued or running
        self._writes = 0
        self._waiting: deque[tuple[Kind, PendingUnit[Any]]] = deque()
        self._pid = os.getpid()

    def submit(self, kind: Kind, operation: PendingUnit[Any]) -> None:
        """Run an operation after all operations that were submitted before it."""
        if self._pid != os.getpid():
            self._forget_parent()
        with self._lock:
            if self._waiting or not self._start(kind, operation):
                self._waiting.append((kind, operation))

    def wait(self) -> None:
        """Block until all submitted operations have finished."""
        self._forget_parent()
        with self._lock:
            self._waiters += 1
            self._idle.wait_for(lambda: not (self._waiting or self._reads or self._writes))
            self._waiters -= 1

    def _start(self, kind: Kind, operation: PendingUnit[Any]) -> bool:
        """Queue an operation in the store; return False if it must wait. The caller holds the lock."""
        if kind == "read" and not self._writes:
            self._reads += 1
            operation.then = self._read_is_done
            try:
                self._store.queue_read(operation)
            except BaseException:
                self._reads -= 1
                raise
            return True
        if kind == "write" and self._reads:
            return False
        self._writes += 1  # a read after writes runs on the writing connection, which sees them
        operation.then = self._write_is_done
        try:
            self._store.queue_write(operation)
        except BaseException:
            self._writes -= 1
            raise
        return True

    def _read_is_done(self) -> None:
        with self._lock:
            self._reads -= 1
            self._go_on()

    def _write_is_done(self) -> None:
        with self._lock:
            self._writes -= 1
            self._go_on()

    def _go_on(self) -> None:
        """Start the waiting operations that may run now. The caller holds the lock."""
        while self._waiting and self._start_or_fail(*self._waiting[0]):
            self._waiting.popleft()
        if self._waiters:
            self._idle.notify_all()

    def _start_or_fail(self, kind: Kind, operation: PendingUnit[Any]) -> bool:
        try:
            return self._start(kind, operation)
        except Exception as error:
            operation.fail(error)
            return True

    def _forget_parent(self) -> None:
        """In a forked child, reset the state: the lock and the operations belong to the parent."""
        if self._pid == os.getpid():
            return
        with _first_call:
            if self._pid != os.getpid():
                self._begin_anew()
