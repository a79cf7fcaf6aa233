"""
Connections, transactions and group commit. The store knows rows, not events.

A unit of work is a plain function of an open transaction. It runs whole on the store's thread: one
``BEGIN IMMEDIATE``, the units that were waiting, one ``COMMIT``, and only then is anybody told. A unit that
fails fails alone; a commit that fails fails every unit of it. Reads run on a second, read-only connection
with a thread of its own, so that no read waits for an fsync.

Savepoints cost as much as the writes they guard, so they come second: the units run without, and only
when one has failed after writing is everything rolled back and run again, each under its own. A unit may
therefore run twice; what it does in memory it hands to ``Transaction.on_rollback``.
"""

from __future__ import annotations

import concurrent.futures
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Literal, Protocol, TypeAlias, TypeVar

from agents_eventlog.eventlog.errors import ClosedError, ReadOnlyFileError, StaleProjectionError
from agents_eventlog.eventlog.headroom import Headroom
from agents_eventlog.eventlog.recording_context import recorded_values
from agents_eventlog.eventlog.storage.notifier import Bell
from agents_eventlog.eventlog.storage.pending import (
    Operation,
    Outcome,
    settle,
    settle_sync,
    tell,
)
from agents_eventlog.eventlog.storage.sqlite import connections
from agents_eventlog.eventlog.storage.sqlite.thread import Worker
from agents_eventlog.eventlog.storage.transaction import Transaction, Unit

T = TypeVar("T")
Durability: TypeAlias = Literal["full", "normal"]
Clock: TypeAlias = Callable[[], int]

MEMORY = ":memory:"
MAX_UNITS_PER_COMMIT = 1_000
"""Bounds how long the first of a burst waits for the last of it."""
MAX_CACHED = 50_000
"""Bounds what a connection remembers of the rows that it read or wrote."""


def system_clock() -> int:
    """Return the time in microseconds since 1970 UTC."""
    return time.time_ns() // 1_000


class Participant(Protocol):
    """What takes part in each writing transaction beside its units: the log."""

    def begin(self, tx: Transaction) -> None:
        """Load what the units need, before the first of them."""

    def before_commit(self, tx: Transaction) -> None:
        """Write what belongs to the whole transaction, after the last of them."""


class _Failed(Exception):  # noqa: N818 - a signal
    """A unit failed after it had written, beside others that did not."""


class _Memory:
    """What a connection remembers of the rows that it read or wrote, until somebody else writes."""

    def __init__(self) -> None:
        self._rows: dict[Any, Any] = {}
        self._data_version = 0

    def valid(self, connection: sqlite3.Connection) -> dict[Any, Any]:
        """Return what is remembered and still so; asked inside a transaction."""
        version = connection.execute("PRAGMA data_version").fetchone()[0]
        if version != self._data_version or len(self._rows) > MAX_CACHED:
            self._rows.clear()
            self._data_version = version
        return self._rows

    def clear(self) -> None:
        """Forget all."""
        self._rows.clear()


class Store:
    """The connections of one file in one process. The registry makes and shares it."""

    def __init__(
        self,
        path: str,
        *,
        durability: Durability = "full",
        read_only: bool = False,
        clock: Clock = system_clock,
    ) -> None:
        self.path = path
        self.is_memory = path == MEMORY
        self.read_only = read_only
        self.durability: Durability = durability
        self.clock = clock
        self.bell = Bell()
        self.participant: Participant | None = None
        self.file_id: connections.FileId | None = None  # of a shared store, once the file is there
        self._closed = False
        self._pending: deque[Operation[Any]] = deque()
        self._draining = False
        self._lock = threading.Lock()
        self._forked = threading.Event()
        self._writer: sqlite3.Connection | None = None
        self._written = _Memory()
        self._headroom: Headroom | None = None
        self._reader: sqlite3.Connection | None = None
        self._read = _Memory()
        self._start_workers()

    def _start_workers(self) -> None:
        name = Path(self.path).name
        self._write_worker: Worker | None = None if self.read_only else Worker(f"eventlog {name}")
        self._read_worker: Worker | None = None if self.is_memory else Worker(f"eventlog {name} r")

    # -- asking -------------------------------------------------------------------------------

    async def write(self, unit: Unit[T]) -> T:
        """Run a unit in a writing transaction and return its result once that is committed."""
        outcome: Outcome[T] = Outcome()
        self.submit_write(unit, outcome)
        return await settle(outcome, self.path)

    async def read(self, unit: Unit[T]) -> T:
        """Run a unit in a reading transaction: it sees all that was committed before the call."""
        outcome: Outcome[T] = Outcome()
        self.submit_read(unit, outcome)
        return await settle(outcome, self.path)

    def write_sync(self, unit: Unit[T]) -> T:
        """Do as ``write`` does, for callers without a running event loop. Blocks."""
        future: concurrent.futures.Future[T] = concurrent.futures.Future()
        self.submit_write(unit, future)
        return settle_sync(future, self.path)

    def read_sync(self, unit: Unit[T]) -> T:
        """Do as ``read`` does, for callers without a running event loop. Blocks."""
        return settle_sync(self.read_ahead(unit), self.path)

    def read_ahead(self, unit: Unit[T]) -> concurrent.futures.Future[T]:
        """Begin to read, for callers that have something else to do meanwhile."""
        future: concurrent.futures.Future[T] = concurrent.futures.Future()
        self.submit_read(unit, future)
        return future

    def prepare_file(self) -> None:
        """Switch a new file to its write-ahead log, before its first table."""
        if not self.is_memory:
            self._on_writer(connections.switch_to_wal)

    def swap(self, scratch_path: str, unit: Unit[None]) -> None:
        """Run a unit in a transaction of its own that sees another database as ``scratch``."""

        def attached(connection: sqlite3.Connection) -> None:
            connection.execute("ATTACH ? AS scratch", (scratch_path,))
            try:
                self._run_transaction(connection, unit)
            finally:
                self._detach(connection)

        self._on_writer(attached)

    def _detach(self, connection: sqlite3.Connection) -> None:
        """Let go of the other database; it is committed or rolled back by now, so this never fails."""
        try:
            connection.execute("DETACH scratch")
        except sqlite3.Error:
            if self.is_memory:
                raise
            connection.close()
            self._writer = None  # opened anew by the next operation

    def rewrite(self) -> bool:
        """
        Write the whole file anew, without what was deleted, and empty its write-ahead log. Blocks.

        Returns False when readers of other processes kept the write-ahead log from being emptied. Takes
        room for another two copies meanwhile. Raises BusyError while another process writes.
        """

        def rewritten(connection: sqlite3.Connection) -> bool:
            connection.execute("VACUUM")
            return self.is_memory or connections.empty_wal(connection)

        return self._on_writer(rewritten)

    def _run_transaction(self, connection: sqlite3.Connection, unit: Unit[None]) -> None:
        connection.execute("BEGIN IMMEDIATE")
        try:
            tx = Transaction(connection, self.clock())
            unit(tx)
            tx.execute("COMMIT")
        except BaseException:
            self._roll_back(connection)
            raise

    def _on_writer(self, function: Callable[[sqlite3.Connection], T]) -> T:
        """Run a function on the writing connection, outside of any transaction. Blocks."""
        done: concurrent.futures.Future[T] = concurrent.futures.Future()

        def run() -> None:
            self._written.clear()
            try:
                result = function(self._writing_connection())
            except BaseException as error:
                done.set_exception(connections.translated(error, self.path))
            else:
                done.set_result(result)

        worker = self._write_worker
        if worker is None:
            raise self._opened_read_only()
        with self._lock:
            self._check_open()
            worker.post(run)
        return done.result()

    def submit_write(
        self, unit: Unit[T], outcome: Outcome[T] | concurrent.futures.Future[T]
    ) -> None:
        """Queue a unit for the next commit; its events record what the caller bound."""
        self.queue_write(Operation(unit, outcome, recorded_values()))

    def submit_read(
        self, unit: Unit[T], outcome: Outcome[T] | concurrent.futures.Future[T]
    ) -> None:
        """Queue a unit for the reading connection."""
        self.queue_read(Operation(unit, outcome, recorded_values()))

    def queue_write(self, operation: Operation[Any]) -> None:
        """Queue an operation for the next commit."""
        worker = self._write_worker
        if worker is None:
            raise self._opened_read_only()
        with self._lock:
            self._check_open()
            self._queue(operation, worker)

    def _opened_read_only(self) -> ReadOnlyFileError:
        return ReadOnlyFileError(
            f"{self.path} was opened read_only: open it without, to write", path=self.path
        )

    def _check_open(self) -> None:
        if self._closed:
            raise ClosedError("the log is closed")

    def _queue(self, operation: Operation[Any], worker: Worker) -> None:
        """Queue for the next commit; the lock is held."""
        self._pending.append(operation)
        if not self._draining:
            self._draining = True
            worker.post(self._drain)

    def queue_read(self, operation: Operation[Any]) -> None:
        """
        Queue an operation for the reading connection (for a database in memory: the writing one).

        One that raises StaleProjectionError is run again by the writer, which catches up first.
        """
        worker = self._read_worker
        if worker is None:
            self.queue_write(operation)
            return
        with self._lock:
            self._check_open()
            worker.post(partial(self._run_read, operation))

    # -- on the threads -----------------------------------------------------------------------

    def _drain(self) -> None:
        while True:
            with self._lock:
                count = min(len(self._pending), MAX_UNITS_PER_COMMIT)
                batch = [self._pending.popleft() for _ in range(count)]
                if not batch:
                    self._draining = False
                    return
            try:
                self._run_batch(batch)
            except BaseException as error:
                for operation in batch:
                    operation.error = error
            tell(batch)

    def _run_batch(self, batch: list[Operation[Any]]) -> None:
        """Run units in one transaction; each operation ends with a result or an error."""
        try:
            try:
                self._run_together(batch, run_unit=self._run_unguarded)
            except _Failed:
                self._run_together(batch, run_unit=self._run_guarded)
        except Exception as error:
            failure = connections.translated(error, self.path)
            for operation in batch:
                operation.error = operation.error or failure

    def _run_together(
        self,
        batch: list[Operation[Any]],
        run_unit: Callable[[Transaction, Operation[Any], bool], None],
    ) -> None:
        connection = self._writing_connection()
        tx = Transaction(connection, self.clock(), self.participant)
        start = tx.mark()
        written = tx.writes()
        try:
            connection.execute("BEGIN IMMEDIATE")
            if self._headroom is not None:
                self._headroom.keep()
            tx.cache = self._written.valid(connection)
            if self.participant is not None:
                self.participant.begin(tx)
            for operation in batch:
                operation.error = None
                tx.recording = operation.recording
                tx.now = self.clock()
                run_unit(tx, operation, len(batch) == 1)
            self._flush(tx, alone=len(batch) == 1)
            if self.participant is not None:
                self.participant.before_commit(tx)
            tx.execute("COMMIT")
        except BaseException:
            self._roll_back(connection)
            tx.undo_to(start)
            raise
        if tx.writes() != written:
            self.bell.ring()

    def _run_unguarded(self, tx: Transaction, operation: Operation[Any], alone: bool) -> None:
        """Run a unit in the hope that it succeeds, or fails before it writes."""
        before = tx.mark()
        written = tx.writes()
        try:
            operation.result = operation.unit(tx)
            _require_whole(tx)
        except BaseException as error:
            if alone:
                raise
            wrote = tx.writes() != written or tx.broken is not None
            if wrote or isinstance(error, sqlite3.Error):
                raise _Failed from error
            tx.undo_to(before)
            operation.error = error

    def _flush(self, tx: Transaction, *, alone: bool) -> None:
        """Write what the units deferred; whose row it is that fails, their next run tells."""
        try:
            tx.flush()
        except Exception as error:
            if alone:
                raise
            raise _Failed from error

    def _run_guarded(self, tx: Transaction, operation: Operation[Any], alone: bool) -> None:
        """Run a unit under a savepoint, to be rolled back alone."""
        before = tx.mark()
        tx.execute("SAVEPOINT unit")
        try:
            operation.result = operation.unit(tx)
            tx.flush()
            _require_whole(tx)
        except BaseException as error:
            if not tx.connection.in_transaction:
                raise  # SQLite rolled all of it back
            tx.forget_deferred()
            tx.broken = None
            tx.execute("ROLLBACK TO unit")
            tx.undo_to(before)
            tx.cache.clear()
            operation.error = connections.translated(error, self.path)
        tx.execute("RELEASE unit")

    def _roll_back(self, connection: sqlite3.Connection) -> None:
        self._written.clear()
        if not _rolled_back(connection) and not self.is_memory:
            self._writer = None  # opened anew by the next operation

    def _run_read(self, operation: Operation[Any]) -> None:
        try:
            operation.result = self._result_of_read(operation.unit)
        except StaleProjectionError as error:
            if self._write_worker is not None:
                with self._lock:
                    self._queue(operation, self._write_worker)
                return
            operation.error = error
        except BaseException as error:
            operation.error = connections.translated(error, self.path)
        tell([operation])

    def _result_of_read(self, unit: Unit[T]) -> T:
        connection = self._reading_connection()
        tx = Transaction(connection, self.clock())
        try:
            connection.execute("BEGIN")
            tx.cache = self._read.valid(connection)
            result = unit(tx)
            connection.execute("COMMIT")
        except BaseException:
            if not _rolled_back(connection):  # or it would see this moment for ever
                self._reader = None
            raise
        return result

    def _writing_connection(self) -> sqlite3.Connection:
        if self._writer is None:
            self._written.clear()
            before = connections.file_id(self.path)
            self._writer = connections.connect_for_writing(self.path, self.durability)
            self._renew_headroom(before)
        return self._writer

    def _renew_headroom(self, before: connections.FileId | None) -> None:
        """Keep room for a new connection, if it waits for the disk and is certain to have this file."""
        self._close_headroom()
        now = connections.file_id(self.path)
        if self.durability == "full" and now is not None and before in (None, now):
            self._headroom = Headroom(self.path, now)

    def _close_headroom(self) -> None:
        if self._headroom is not None:
            self._headroom.close()
            self._headroom = None

    def _reading_connection(self) -> sqlite3.Connection:
        if self._reader is None:
            self._read.clear()
            self._reader = connections.connect_for_reading(self.path)
        return self._reader

    # -- the store's own life -----------------------------------------------------------------

    def strengthen(self, durability: Durability) -> None:
        """Keep the strictest durability that anybody asked of this file."""
        if durability == "full" and self.durability == "normal":
            self.durability = "full"
            if self._write_worker is not None:
                self._write_worker.post(self._close_writer)  # the next operation opens it stricter

    def close(self, timeout_seconds: float | None = None) -> None:
        """Finish what was asked, close the connections, end the threads. Idempotent."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        self.bell.ring()
        self._stop_workers(timeout_seconds)

    def _stop_workers(self, timeout_seconds: float | None = None) -> None:
        if self._read_worker is not None:
            self._read_worker.post(self._close_reader)
            self._read_worker.stop(timeout_seconds)
        if self._write_worker is not None:
            self._write_worker.post(self._close_writer)
            self._write_worker.stop(timeout_seconds)

    def before_fork(self) -> None:
        """Finish the work under way and leave no connection open, so that the child inherits none."""
        self._forked.clear()
        parked: list[threading.Event] = []
        with self._lock:
            workers = [
                (worker, close)
                for worker, close in (
                    (self._read_worker, self._close_reader),
                    (self._write_worker, self._park_writer),
                )
                if worker is not None
            ]
            for worker, close in () if self._closed else workers:
                parked.append(threading.Event())
                worker.post(partial(self._park, close, parked[-1]))
        for event in parked:
            event.wait()
        for worker, _ in () if parked else workers:
            worker.join()  # it is closing
        self._lock.acquire()

    def after_fork_in_parent(self) -> None:
        """Go on; the connections are opened again by the next operation."""
        self._lock.release()
        self._forked.set()

    def after_fork_in_child(self) -> None:
        """Start threads of the child's own. What the parent had queued is the parent's."""
        self._lock = threading.Lock()
        self._forked = threading.Event()
        self.bell = Bell()  # the parent's tasks are not woken from here
        self._pending.clear()
        self._draining = False
        if not self._closed:
            self._start_workers()

    def _park(self, close: Callable[[], None], parked: threading.Event) -> None:
        close()
        parked.set()
        self._forked.wait()

    def _park_writer(self) -> None:
        if not self.is_memory:
            self._close_writer()

    def _close_writer(self) -> None:
        self._close_headroom()
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _close_reader(self) -> None:
        if self._reader is not None:
            self._reader.close()
            self._reader = None


def _rolled_back(connection: sqlite3.Connection) -> bool:
    """Leave a connection's transaction, if it is in one; where SQLite refuses, close it: False."""
    try:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
    except sqlite3.Error:
        connection.close()
        return False
    return True


def _require_whole(tx: Transaction) -> None:
    """Raise what left a write half done, although the unit that met it went on."""
    if tx.broken is not None:
        raise tx.broken
