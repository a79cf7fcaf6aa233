"""
Group commit: units of work that wait together are committed together.

A unit runs whole on the writer's thread: one ``BEGIN``, the units that were waiting, one ``COMMIT``,
and only then are results delivered. A unit that fails fails alone; a commit that fails fails
every unit of it.
"""

from __future__ import annotations

import concurrent.futures
import threading
import weakref
from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar

from agents_eventlog.eventlog.errors import ClosedError
from agents_eventlog.eventlog.storage import fork
from agents_eventlog.eventlog.storage.connection import Connection
from agents_eventlog.eventlog.storage.engine import Clock, Engine
from agents_eventlog.eventlog.storage.notifier import Notifier
from agents_eventlog.eventlog.storage.pending import PendingUnit, deliver
from agents_eventlog.eventlog.storage.thread import Worker
from agents_eventlog.eventlog.storage.transaction import Participant, PayloadCipher, Transaction

T = TypeVar("T")

MAX_UNITS_PER_COMMIT = 1_000
"""Bounds how long the first of a burst waits for the last of it."""


class _RunSeparately(Exception):  # noqa: N818 - a signal
    """A unit failed after it had written, beside others."""


class Writer:
    """The queue of units, the thread that runs them, and the one connection that writes."""

    def __init__(
        self,
        connection: Connection,
        worker: Worker,
        *,
        engine: Engine,
        clock: Clock,
    ) -> None:
        self.connection = connection
        self.worker = worker
        self.engine = engine
        self.participant: Participant | None = None
        self.cipher: PayloadCipher | None = None
        self.notifier = Notifier()
        self.is_closed = False
        self._closed_message = "the log is closed"
        self.clock = clock
        self.tx: Transaction | None = None  # the one under way
        self._pending: deque[PendingUnit[Any]] = deque()
        self._is_draining = False
        self.lock = threading.Lock()
        # Python 3.13 warns of a connection that is dropped open, and a store need not be closed.
        weakref.finalize(self, connection.close).atexit = False

    # -- queue --------------------------------------------------------------------------------

    def queue(self, pending: PendingUnit[Any]) -> None:
        """Queue a unit for the next commit."""
        with self.lock:
            self.check_open()
            self._queue(pending)

    def queue_again(self, pending: PendingUnit[Any]) -> None:
        """Queue a unit that was accepted before, even if the store was closed since."""
        with self.lock:
            self._queue(pending)

    def _queue(self, pending: PendingUnit[Any]) -> None:
        self._pending.append(pending)
        if not self._is_draining:
            self._is_draining = True
            self.worker.post(self._drain)

    def call(self, function: Callable[[Any], T]) -> T:
        """Run a function on the connection, outside of any transaction. Blocks."""
        done: concurrent.futures.Future[T] = concurrent.futures.Future()

        def run() -> None:
            self.connection.clear_cache()
            try:
                result = self.connection.call(function)
            except BaseException as error:
                done.set_exception(self.connection.translated(error))
            else:
                done.set_result(result)

        with self.lock:
            self.check_open()
            self.worker.post(run)
        return done.result()

    def check_open(self) -> None:
        """Raise ClosedError after ``close``."""
        if self.is_closed:
            raise ClosedError(self._closed_message)

    # -- group commit, on the thread ----------------------------------------------------------

    def _drain(self) -> None:
        while True:
            with self.lock:
                count = min(len(self._pending), MAX_UNITS_PER_COMMIT)
                batch = [self._pending.popleft() for _ in range(count)]
                if not batch:
                    self._is_draining = False
                    return
            self._run_batch(batch)
            deliver(batch)
            fork.end_child_of_unit()  # a callback of a future may fork, too
            if self.worker.is_paused:
                self.worker.post(
                    self._drain
                )  # a fork waits for one commit, not for the whole queue
                return

    def _run_batch(self, batch: list[PendingUnit[Any]], attempt: int = 1) -> None:
        """Run units in one transaction; each ends with a result or an error."""
        try:
            self._commit(batch)
        except _RunSeparately:
            # A savepoint around each unit would spare this second run, and cost every commit two
            # statements a unit. Failing after writing is rare, so the rare case pays: all is rolled
            # back, and each unit runs again alone. What it did in memory was undone by ``undo_to``.
            for pending in batch:
                self._run_batch([pending])
        except BaseException as error:
            if self.connection.may_repeat(error, attempt):
                self._run_batch(batch, attempt + 1)
                return
            failure = self.connection.translated(error)
            for pending in batch:
                pending.error = pending.error or failure

    def _commit(self, batch: list[PendingUnit[Any]]) -> None:
        """Run units in one transaction. Raises _RunSeparately if several must run one by one."""
        tx = self.tx = Transaction(
            self.connection.get(), self.clock(), self.participant, engine=self.engine
        )
        tx.cipher = self.cipher
        start = tx.mark()
        written = tx.writes()
        try:
            tx.cache = self.connection.begin()
            if self.participant is not None:
                self.participant.begin(tx)
            try:
                for pending in batch:
                    self._run_unit(tx, pending, alone=len(batch) == 1)
                tx.flush()
            except BaseException as error:
                if len(batch) == 1:
                    raise
                raise _RunSeparately from error
            if self.participant is not None:
                self.participant.before_commit(tx)
            tx.flush()
            tx.close_cursors()
            self.connection.commit()
            has_written = tx.writes() != written
        except BaseException:
            self.roll_back(tx)
            tx.undo_to(start)
            raise
        finally:
            self.tx = None
            tx.end()
        if has_written:
            self.notifier.notify()

    def _run_unit(self, tx: Transaction, pending: PendingUnit[Any], *, alone: bool) -> None:
        """
        Run a unit, and raise if more than this unit fails.

        If a unit fails before it has written, only its own caller gets the error.
        """
        before = tx.mark()
        written = tx.writes()
        pending.error = None
        tx.recording = pending.recording
        tx.now = self.clock()
        try:
            try:
                pending.result = pending.unit(tx)
            finally:
                fork.end_child_of_unit()
        except BaseException as error:
            wrote = tx.writes() != written or tx.broken is not None
            # On some errors a database rolls back the whole transaction, the rows of other units included.
            if alone or wrote or self.connection.is_own(error):
                raise
            tx.undo_to(before)
            pending.error = error
        else:
            if tx.broken is not None:
                raise tx.broken  # the unit caught the error, but its rows are incomplete
        finally:
            tx.close_cursors()

    def roll_back(self, tx: Transaction) -> None:
        """Roll back, or close the connection, which rolls back as well."""
        fork.end_child_of_unit()
        tx.close_cursors()
        self.connection.roll_back()

    # -- life ---------------------------------------------------------------------------------

    def begin_close(self) -> bool:
        """Accept no more units. Returns False if that was so already."""
        with self.lock:
            was_closed, self.is_closed = self.is_closed, True
        return not was_closed

    def refuse(self, message: str) -> None:
        """Refuse all further units with this message."""
        self.is_closed, self._closed_message = True, message

    def after_fork_in_child(self) -> None:
        """Begin with a lock, a queue and a notifier of the child's own."""
        self.lock = threading.Lock()  # a thread that the child lacks may have held it
        self.notifier = Notifier()  # or the child would wake the parent's tasks
        self._pending.clear()  # the parent runs them
        self._is_draining = False
