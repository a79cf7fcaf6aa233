"""How a session object works on its log: in units of work, in the order of its calls."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import TypeVar

from agents.tracing import get_current_trace

from agents_eventlog.adapters.conversations.call_order import Kind, Lane
from agents_eventlog.adapters.conversations.commands import Seat
from agents_eventlog.eventlog.errors import ClosedError
from agents_eventlog.eventlog.events import JSON
from agents_eventlog.eventlog.log import EventLog
from agents_eventlog.eventlog.recording_context import recorded_values
from agents_eventlog.eventlog.storage.pending import PendingUnit, UncancellableFuture, wait_for
from agents_eventlog.eventlog.storage.transaction import Transaction
from agents_eventlog.projections import Projections

T = TypeVar("T")


class Working:
    """
    What the methods of a session object share: its log, its seat, and how a unit of work is run.

    Each call is one hop to the store's thread; those of one object run in call order.
    """

    session_id: str
    log: EventLog
    _seat: Seat
    _lane: Lane
    _projections: Projections
    _closed: bool

    def _write(self, unit: Callable[[Transaction], T]) -> Awaitable[T]:
        return self._run("write", unit)

    def _read(self, unit: Callable[[Transaction], T]) -> Awaitable[T]:
        return self._run("read", self._fresh(unit))

    def _run(self, kind: Kind, unit: Callable[[Transaction], T]) -> Awaitable[T]:
        """Ask for a unit at once; what is returned waits for its outcome."""
        self._check_not_closed()
        outcome: UncancellableFuture[T] = UncancellableFuture(loop=asyncio.get_running_loop())
        self._lane.submit(kind, PendingUnit(unit, outcome, _recording()))
        return wait_for(outcome, self.log.store.path)

    def _look(self, unit: Callable[[Transaction], T]) -> T:
        """Read from the constructor, where no event loop need be running."""
        return self.log.store.read_sync(self._fresh(unit))

    def _fresh(self, unit: Callable[[Transaction], T]) -> Callable[[Transaction], T]:
        """Return the unit behind a check that it is not shown less than the log holds."""

        def fresh(tx: Transaction) -> T:
            self._projections.require_fresh(tx)
            return unit(tx)

        return fresh

    def _check_not_closed(self) -> None:
        if self._closed:
            raise ClosedError("SQLiteSession is closed")


def _recording() -> Mapping[str, JSON]:
    """Return what is recorded with the events: what the caller bound, and the SDK's trace."""
    recording = recorded_values()
    trace = get_current_trace()
    if trace is None or trace.trace_id == "no-op" or "trace_id" in recording:
        return recording
    return {**recording, "trace_id": trace.trace_id}
