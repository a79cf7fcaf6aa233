"""
Connections, transactions and group commit. The store knows rows, not events.

A unit of work is a plain function of an open transaction. It runs whole on the store's thread: one
``BEGIN IMMEDIATE``, the units that were waiting, one ``COMMIT``, and only then is anybody told. A unit that
fails fails alone; a commit that fails fails every unit of it. Reads run on a second, read-only connection
with a thread of its own, so that no read waits for an fsync.

When a unit of several fails after it has written, all of them are rolled back, and each runs again in a
transaction of its own. A unit may therefore run twice; what it does in memory it hands to
``Transaction.on_rollback``.
"""

from __future__ import annotations

import concurrent.futures
import os
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from agents_eventlog.eventlog.errors import (
    ClosedError,
    CorruptFileError,
    ReadOnlyFileError,
    StaleProjectionError,
)
from agents_eventlog.eventlog.recording_context import recorded_values
from agents_eventlog.eventlog.storage.engine import MEMORY, Clock, Durability, Engine
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
from agents_eventlog.eventlog.storage.transaction import (
    Cache,
    Participant,
    Transaction,
    Unit,
)

T = TypeVar("T")
MAX_UNITS_PER_COMMIT = 1_000
"""Bounds how long the first of a burst waits for the last of it."""
MAX_CACHED = 50_000
"""Bounds what a connection remembers of the rows that it read or wrote."""


def system_clock() -> int:
    """Return the time in microseconds since 1970 UTC."""
    return time.time_ns() // 1_000


class _Failed(Exception):  # noqa: N818 - a signal
    """A unit failed after it had written, beside others."""


class _Memory:
    """What a connection remembers of the rows that it read or wrote, until somebody else writes."""

    def __init__(self) -> None:
        self._cache = Cache()
        self._data_version = 0

    def valid(self, connection: sqlite3.Connection) -> Cache:
        """Return what is remembered and still so; asked inside a transaction."""
        version = connection.execute("PRAGMA data_version").fetchone()[0]
        if version != self._data_version or len(self._cache) > MAX_CACHED:
            self._cache.clear()
            self._data_version = version
        return self._cache

    def clear(self) -> None:
        """Forget all."""
        self._cache.clear()


class _Reader:
    """A reading connection, its thread, and what it remembers. Only its thread touches the connection."""

    def __init__(self, path: str, name: str) -> None:
        self.worker = Worker(name)
        self.memory = _Memory()
        self._path = path
        self._connection: sqlite3.Connection | None = None

    def connection(self) -> sqlite3.Connection:
        """Return the connection, opened if necessary."""
        if self._connection is None:
            self.memory.clear()
            self._connection = connections.connect_for_reading(self._path)
        return self._connection

    def drop(self) -> None:
        """Forget a connection that SQLite refused to roll back, and that is closed."""
        self._connection = None

    def close(self) -> None:
        """Close the connection; the next read opens it again."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None


class Store:
    """The connections of one file in one process. The registry makes and shares it."""

    def __init__(
        self,
        path: str,
        *,
        engine: Engine,
        durability: Durability = "full",
        read_only: bool = False,
        clock: Clock = system_clock,
    ) -> None:
        self.path = path
        self.engine = engine
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
        # Of sessions, and of questions to the whole log: those may take long, and no session waits.
        self._readers: dict[bool, _Reader] = {}
        self._running: Transaction | None = None  # of the writing thread
        self._start_writer()

    def _start_writer(self) -> None:
        self._pid = os.getpid()
        name = f"eventlog {Path(self.path).name}"
        self._write_worker: Worker | None = None if self.read_only else Worker(name)

    def _reader(self, *, scan: bool) -> _Reader:
        """Return the reader, started if necessary; the lock is held."""
        found = self._readers.get(scan)
        if found is None:
            name = f"eventlog {Path(self.path).name} {'scan' if scan else 'r'}"
            found = self._readers[scan] = _Reader(self.path, name)
        return found

    # -- asking -------------------------------------------------------------------------------

    async def write(self, unit: Unit[T]) -> T:
        """Run a unit in a writing transaction and return its result once that is committed."""
        outcome: Outcome[T] = Outcome()
        self.submit_write(unit, outcome)
        return await settle(outcome, self.damage)

    async def read(self, unit: Unit[T], *, scan: bool = False) -> T:
        """
        Run a unit in a reading transaction, which sees all earlier commits.

        scan: whether it may read much of the log; it then runs where no session waits for it.
        """
        outcome: Outcome[T] = Outcome()
        self.submit_read(unit, outcome, scan=scan)
        return await settle(outcome, self.damage)

    def write_sync(self, unit: Unit[T]) -> T:
        """Do as ``write`` does, for callers without a running event loop. Blocks."""
        future: concurrent.futures.Future[T] = concurrent.futures.Future()
        self.submit_write(unit, future)
        return settle_sync(future, self.damage)

    def read_sync(self, unit: Unit[T], *, scan: bool = False) -> T:
        """Do as ``read`` does, for callers without a running event loop. Blocks."""
        return settle_sync(self.read_ahead(unit, scan=scan), self.damage)

    def read_ahead(self, unit: Unit[T], *, scan: bool = False) -> concurrent.futures.Future[T]:
        """Start to read, and return at once."""
        future: concurrent.futures.Future[T] = concurrent.futures.Future()
        self.submit_read(unit, future, scan=scan)
        return future

    def damage(self) -> CorruptFileError | None:
        """Return the error for the first damage of the file; None if it is sound."""
        return connections.damage(self.path)

    def prepare_storage(self) -> None:
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
        tx = Transaction(connection, self.clock(), engine=self.engine)
        connection.execute("BEGIN IMMEDIATE")
        try:
            unit(tx)
            tx.close_cursors()
            tx.execute("COMMIT")
        except BaseException:
            tx.close_cursors()
            self._roll_back(connection)
            raise
        finally:
            tx.end()

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
        self,
        unit: Unit[T],
        outcome: Outcome[T] | concurrent.futures.Future[T],
        *,
        scan: bool = False,
    ) -> None:
        """Queue a unit for a reading connection."""
        self.queue_read(Operation(unit, outcome, recorded_values(), scan=scan))

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
        Queue an operation for a reading connection (for a database in memory: the writing one).

        One that raises StaleProjectionError is run again by the writer, which catches up first.
        """
        if self.is_memory:
            self.queue_write(operation)
            return
        with self._lock:
            self._check_open()
            # One connection where nothing may be left beside the file: see connect_for_reading.
            reader = self._reader(scan=operation.scan and not self.read_only)
            reader.worker.post(partial(self._run_read, reader, operation))

    # -- on the threads -----------------------------------------------------------------------

    def _drain(self) -> None:
        while True:
            with self._lock:
                count = min(len(self._pending), MAX_UNITS_PER_COMMIT)
                batch = [self._pending.popleft() for _ in range(count)]
                if not batch:
                    self._draining = False
                    return
            self._run_batch(batch)
            tell(batch)

    def _run_batch(self, batch: list[Operation[Any]]) -> None:
        """Run units in one transaction; each operation ends with a result or an error."""
        try:
            self._commit(batch)
        except _Failed:
            for operation in batch:
                self._run_batch([operation])
        except BaseException as error:
            failure = connections.translated(error, self.path)
            for operation in batch:
                operation.error = operation.error or failure

    def _commit(self, batch: list[Operation[Any]]) -> None:
        """Run units in one transaction. Raises _Failed for several that are to be run one by one."""
        connection = self._writing_connection()
        tx = Transaction(connection, self.clock(), self.participant, engine=self.engine)
        start = tx.mark()
        written = tx.writes()
        self._running = tx
        try:
            connection.execute("BEGIN IMMEDIATE")
            tx.cache = self._written.valid(connection)
            if self.participant is not None:
                self.participant.begin(tx)
            try:
                for operation in batch:
                    self._run_unit(tx, operation, alone=len(batch) == 1)
                tx.flush()
            except BaseException as error:
                if len(batch) == 1:
                    raise
                raise _Failed from error
            if self.participant is not None:
                self.participant.before_commit(tx)
            tx.execute("COMMIT")
            has_written = tx.writes() != written
        except BaseException:
            tx.close_cursors()
            self._roll_back(connection)
            tx.undo_to(start)
            raise
        finally:
            tx.end()
        if has_written:
            self.bell.ring()

    def _run_unit(self, tx: Transaction, operation: Operation[Any], *, alone: bool) -> None:
        """
        Run a unit, and raise what fails more than this unit.

        Beside others, a unit that fails before it has written is told so, and the others go on.
        """
        before = tx.mark()
        written = tx.writes()
        operation.error = None
        tx.recording = operation.recording
        tx.now = self.clock()
        try:
            operation.result = operation.unit(tx)
            self._end_if_forked()
        except BaseException as error:
            self._end_if_forked()
            wrote = tx.writes() != written or tx.broken is not None
            # SQLite may have rolled back all of the transaction by itself, others' rows included.
            if alone or wrote or isinstance(error, sqlite3.Error):
                raise
            tx.undo_to(before)
            operation.error = error
        else:
            if tx.broken is not None:
                raise tx.broken  # although the unit that met it went on
        finally:
            tx.close_cursors()

    def _roll_back(self, connection: sqlite3.Connection) -> None:
        self._written.clear()
        if not _rolled_back(connection) and not self.is_memory:
            self._writer = None  # opened anew by the next operation

    def _run_read(self, reader: _Reader, operation: Operation[Any]) -> None:
        try:
            operation.result = self._result_of_read(reader, operation.unit)
        except StaleProjectionError as error:
            if self._write_worker is not None:
                with self._lock:
                    self._queue(operation, self._write_worker)
                return
            operation.error = error
        except BaseException as error:
            operation.error = connections.translated(error, self.path)
        tell([operation])

    def _result_of_read(self, reader: _Reader, unit: Unit[T]) -> T:
        connection = reader.connection()
        tx = Transaction(connection, self.clock(), engine=self.engine)
        try:
            connection.execute("BEGIN")
            tx.cache = reader.memory.valid(connection)
            result = unit(tx)
            self._end_if_forked()
            tx.end()
            connection.execute("COMMIT")
        except BaseException:
            self._end_if_forked()
            tx.end()
            if not _rolled_back(connection):  # or it would see this moment for ever
                reader.drop()
            raise
        return result

    def _writing_connection(self) -> sqlite3.Connection:
        if self._writer is None:
            self._written.clear()
            self._writer = connections.connect_for_writing(self.path, self.durability)
        return self._writer

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
        for reader in self._readers.values():
            reader.worker.post(reader.close)
            reader.worker.stop(timeout_seconds)
        if self._write_worker is not None:
            self._write_worker.post(self._close_writer)
            self._write_worker.stop(timeout_seconds)

    def before_fork(self) -> None:
        """Finish the work under way and leave no connection open, so that the child inherits none."""
        self._forked.clear()
        parked: list[threading.Event] = []
        with self._lock:
            workers = [(reader.worker, reader.close) for reader in self._readers.values()]
            if self._write_worker is not None:
                workers.append((self._write_worker, self._park_writer))
            # A unit that forks would wait for itself. Its child is ended when the unit returns.
            workers = [(worker, close) for worker, close in workers if not worker.is_current()]
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
        if self._is_running_here():
            if self._running is not None:
                self._running.end()  # its connection is the parent's
            return
        self._readers.clear()
        if not self._closed:
            self._start_writer()

    def _is_running_here(self) -> bool:
        """Whether the current thread is one of the store's, inside a unit."""
        workers = [reader.worker for reader in self._readers.values()]
        if self._write_worker is not None:
            workers.append(self._write_worker)
        return any(worker.is_current() for worker in workers)

    def _end_if_forked(self) -> None:
        """End a process that was forked inside a unit: to commit, or close, would harm the parent."""
        if os.getpid() != self._pid:
            text = "eventlog: a unit of work forked; its child process ends here\n"
            os.write(2, text.encode())
            os._exit(70)

    def _park(self, close: Callable[[], None], parked: threading.Event) -> None:
        close()
        parked.set()
        self._forked.wait()

    def _park_writer(self) -> None:
        if not self.is_memory:
            self._close_writer()

    def _close_writer(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None


def _rolled_back(connection: sqlite3.Connection) -> bool:
    """Leave a connection's transaction, if it is in one; where SQLite refuses, close it: False."""
    try:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
    except sqlite3.Error:
        connection.close()
        return False
    return True
