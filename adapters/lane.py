"""One session's operations, in the order they were called, over the store's two connections."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple, TypeAlias

from eventlog.events import JSON
from eventlog.operation import Outcome
from eventlog.store import Store
from eventlog.transaction import Unit

Kind: TypeAlias = Literal["read", "write"]


_first_call = threading.Lock()


class _Queued(NamedTuple):
    kind: Kind
    unit: Unit[Any]
    outcome: Outcome[Any]
    recording: Mapping[str, JSON]


class Lane:
    """
    Keeps call order between reads and writes of one session object, and nothing more.

    Writes follow each other in the store's queue, reads in the reader's. A read that is called while a
    write is under way runs behind it on the writing connection; a write that is called while a read is
    under way waits for that read. Other sessions are never waited for.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._idle = threading.Condition()
        self._under_way: dict[Kind, int] = {"read": 0, "write": 0}
        self._waiting: deque[_Queued] = deque()
        self._pid = os.getpid()

    def submit(
        self, kind: Kind, unit: Unit[Any], outcome: Outcome[Any], recording: Mapping[str, JSON]
    ) -> None:
        """Run a unit after everything that was submitted before it."""
        queued = _Queued(kind, unit, outcome, recording)
        self._forget_parent()
        with self._idle:
            if self._waiting or not self._start(queued):
                self._waiting.append(queued)

    def wait(self) -> None:
        """Block until nothing is under way."""
        self._forget_parent()
        with self._idle:
            self._idle.wait_for(lambda: not (self._waiting or any(self._under_way.values())))

    def _start(self, queued: _Queued) -> bool:
        kind = queued.kind
        if kind == "write" and self._under_way["read"]:
            return False
        if self._under_way["write"]:
            kind = "write"  # a read behind writes sees them where they are
        submit = self._store.submit_read if kind == "read" else self._store.submit_write
        self._under_way[kind] += 1
        try:
            submit(queued.unit, queued.outcome, self._finished(kind), queued.recording)
        except BaseException:
            self._under_way[kind] -= 1
            raise
        return True

    def _finished(self, kind: Kind) -> Callable[[], None]:
        def finished() -> None:
            with self._idle:
                self._under_way[kind] -= 1
                while self._waiting and self._start_or_fail(self._waiting[0]):
                    self._waiting.popleft()
                self._idle.notify_all()

        return finished

    def _start_or_fail(self, queued: _Queued) -> bool:
        try:
            return self._start(queued)
        except Exception as error:
            _fail(queued.outcome, error)
            return True

    def _forget_parent(self) -> None:
        """In a forked child, begin anew: the lock, and what is under way, are the parent's."""
        if self._pid == os.getpid():
            return
        with _first_call:
            if self._pid != os.getpid():
                self._idle = threading.Condition()
                self._waiting = deque()
                self._under_way = {"read": 0, "write": 0}
                self._pid = os.getpid()


def _fail(outcome: Outcome[Any], error: Exception) -> None:
    try:
        outcome.get_loop().call_soon_threadsafe(outcome.set_exception, error)
    except RuntimeError:
        return  # the loop was closed; nobody waits there any more
