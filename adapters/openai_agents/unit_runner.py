"""The runner of a session object's units of work."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import Future
from typing import TypeVar

from agents_eventlog.adapters.conversations.call_order import Kind, SerialExecutor
from agents_eventlog.adapters.openai_agents import sdk_internals
from agents_eventlog.eventlog.errors import ClosedError
from agents_eventlog.eventlog.events import JSON
from agents_eventlog.eventlog.log import EventLog
from agents_eventlog.eventlog.recording_context import recorded_values
from agents_eventlog.eventlog.storage.pending import PendingUnit, UncancellableFuture, wait_for
from agents_eventlog.eventlog.storage.transaction import Transaction, Unit
from agents_eventlog.projections import Projections

T = TypeVar("T")


class UnitRunner:
    """
    Runs a session object's units of work in call order.

    check: runs before each unit, in its transaction, and raises what refuses it.

    Each call is one hop to the store's thread. Reads raise StaleProjectionError if the tables are not up to
    date with the log.
    """

    def __init__(
        self, log: EventLog, projections: Projections, check: Callable[[Transaction], None]
    ) -> None:
        self.log = log
        self._check = check
        self._projections = projections
        self._executor = SerialExecutor(log.store)
        self._closed = False

    def write(self, unit: Unit[T]) -> Awaitable[T]:
        """Submit a writing unit immediately; await the result for its outcome."""
        return self._run("write", self._checked(unit))

    def write_ahead(self, unit: Unit[T]) -> Future[T]:
        """Submit a writing unit, and do not wait for its outcome; later calls run after it."""
        self.check_not_closed()
        outcome: Future[T] = Future()
        self._executor.submit("write", PendingUnit(self._checked(unit), outcome, _recording()))
        return outcome

    def read(self, unit: Unit[T]) -> Awaitable[T]:
        """Submit a reading unit immediately; await the result for its outcome."""
        return self._run("read", self._fresh(unit))

    def scan(self, unit: Unit[T]) -> Awaitable[T]:
        """Submit a reading unit as ``read`` does, on the connection for reads of the whole log."""
        return self._run("read", self._fresh(unit), scan=True)

    def read_sync(self, unit: Unit[T]) -> T:
        """Run a reading unit and block; for the constructor, which may run without an event loop."""
        return self.log.store.read_sync(self._fresh(unit))

    def close(self) -> bool:
        """Reject further units and wait for the submitted ones; return False if already closed."""
        if self._closed:
            return False
        self._closed = True
        self._executor.wait()
        return True

    def check_not_closed(self) -> None:
        """Raise ClosedError if the session is closed."""
        if self._closed:
            raise ClosedError("SQLiteSession is closed")

    def _run(self, kind: Kind, unit: Unit[T], *, scan: bool = False) -> Awaitable[T]:
        self.check_not_closed()
        outcome: UncancellableFuture[T] = UncancellableFuture(loop=asyncio.get_running_loop())
        self._executor.submit(kind, PendingUnit(unit, outcome, _recording(), scan=scan))
        return wait_for(outcome, self.log.store.damage)

    def _fresh(self, unit: Unit[T]) -> Unit[T]:
        def fresh(tx: Transaction) -> T:
            self._projections.require_fresh(tx)
            self._check(tx)
            return unit(tx)

        return fresh

    def _checked(self, unit: Unit[T]) -> Unit[T]:
        def checked(tx: Transaction) -> T:
            self._check(tx)
            return unit(tx)

        return checked


def _recording() -> Mapping[str, JSON]:
    """Return the metadata to record with the events: the caller's values, and the SDK's trace id."""
    recording = recorded_values()
    trace_id = sdk_internals.trace_id()
    if trace_id is None or "trace_id" in recording:
        return recording
    return {**recording, "trace_id": trace_id}
