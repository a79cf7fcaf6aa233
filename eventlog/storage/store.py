"""
The store of one log: a writer, and two readers that never wait for it.

The store knows rows, not events. Group commit is in ``writer``, reads are in ``reader``, each engine adds
what works on the whole database, and ``fork`` says what happens around ``os.fork``. A unit that writes may
run twice (see ``writer``); what it changes in memory it registers with ``Transaction.on_rollback``.
"""

from __future__ import annotations

import concurrent.futures
import time
from abc import ABC, abstractmethod
from functools import partial
from typing import Any, TypeVar

from agents_eventlog.eventlog.errors import (
    CorruptFileError,
    ReadOnlyFileError,
    StaleProjectionError,
)
from agents_eventlog.eventlog.recording_context import recorded_values
from agents_eventlog.eventlog.storage import fork
from agents_eventlog.eventlog.storage.engine import MEMORY, Clock, Durability, Engine
from agents_eventlog.eventlog.storage.notifier import Notifier
from agents_eventlog.eventlog.storage.pending import (
    PendingUnit,
    UncancellableFuture,
    deliver,
    wait_for,
    wait_for_sync,
)
from agents_eventlog.eventlog.storage.reader import Reader
from agents_eventlog.eventlog.storage.transaction import Participant, PayloadCipher, Unit
from agents_eventlog.eventlog.storage.writer import Writer

T = TypeVar("T")


def system_clock() -> int:
    """Return the time in microseconds since 1970 UTC."""
    return time.time_ns() // 1_000


class BaseStore(ABC):
    """The connections of one log in one process. The registry opens and shares it."""

    def __init__(
        self,
        path: str,
        *,
        engine: Engine,
        durability: Durability,
        read_only: bool,
        writer: Writer,
        reader: Reader,
        scanner: Reader,
    ) -> None:
        self.path = path
        self.engine = engine
        self.is_memory = path == MEMORY
        self.read_only = read_only
        self.durability: Durability = durability
        self._writer = writer
        # Two connections read: a question on the whole log takes long, and sessions must not wait for it.
        self._reader = reader
        self._scanner = scanner

    @property
    def clock(self) -> Clock:
        """What gives the time of a transaction, in microseconds since 1970 UTC."""
        return self._writer.clock

    @clock.setter
    def clock(self, clock: Clock) -> None:
        self._writer.clock = clock

    @property
    def notifier(self) -> Notifier:
        """What wakes subscribers after a commit."""
        return self._writer.notifier

    @property
    def participant(self) -> Participant | None:
        """What takes part in each writing transaction."""
        return self._writer.participant

    @participant.setter
    def participant(self, participant: Participant | None) -> None:
        self._writer.participant = participant

    @property
    def cipher(self) -> PayloadCipher | None:
        """What seals and opens payloads; None without keys."""
        return self._writer.cipher

    @cipher.setter
    def cipher(self, cipher: PayloadCipher | None) -> None:
        for lane in self._lanes():
            lane.cipher = cipher

    def keep_template(self, name: object) -> None:
        """Keep nothing: only logs in memory are copied."""
        del name

    def copy_template(self, name: object) -> bool:
        """Return False: nothing is kept."""
        del name
        return False

    # -- units of work ------------------------------------------------------------------------

    async def write(self, unit: Unit[T]) -> T:
        """Run a unit in a writing transaction and return its result once that is committed."""
        outcome: UncancellableFuture[T] = UncancellableFuture()
        self.submit_write(unit, outcome)
        return await wait_for(outcome, self.damage)

    async def read(self, unit: Unit[T], *, scan: bool = False) -> T:
        """
        Run a unit in a reading transaction, which sees all earlier commits.

        scan: whether it may read much of the log; it then runs where no session waits for it.
        """
        outcome: UncancellableFuture[T] = UncancellableFuture()
        self.submit_read(unit, outcome, scan=scan)
        return await wait_for(outcome, self.damage)

    def write_sync(self, unit: Unit[T]) -> T:
        """Do as ``write`` does, for callers without a running event loop. Blocks."""
        future: concurrent.futures.Future[T] = concurrent.futures.Future()
        self.submit_write(unit, future)
        return wait_for_sync(future, self.damage)

    def read_sync(self, unit: Unit[T], *, scan: bool = False) -> T:
        """Do as ``read`` does, for callers without a running event loop. Blocks."""
        return wait_for_sync(self.read_ahead(unit, scan=scan), self.damage)

    def read_ahead(self, unit: Unit[T], *, scan: bool = False) -> concurrent.futures.Future[T]:
        """Begin to read, for callers that do something else meanwhile."""
        future: concurrent.futures.Future[T] = concurrent.futures.Future()
        self.submit_read(unit, future, scan=scan)
        return future

    def submit_write(
        self, unit: Unit[T], outcome: UncancellableFuture[T] | concurrent.futures.Future[T]
    ) -> None:
        """Queue a unit for the next commit; its events record what the caller bound."""
        self.queue_write(PendingUnit(unit, outcome, recorded_values()))

    def submit_read(
        self,
        unit: Unit[T],
        outcome: UncancellableFuture[T] | concurrent.futures.Future[T],
        *,
        scan: bool = False,
    ) -> None:
        """Queue a unit for a reading connection."""
        self.queue_read(PendingUnit(unit, outcome, recorded_values(), scan=scan))

    def queue_write(self, pending: PendingUnit[Any]) -> None:
        """Queue a pending unit for the next commit."""
        self._writable().queue(pending)

    def queue_read(self, pending: PendingUnit[Any]) -> None:
        """
        Queue a pending unit for a reading connection (for a database in memory: the writing one).

        A unit that raises StaleProjectionError runs again on the writer, which catches up first.
        """
        if self.is_memory:
            self._writer.queue(pending)
            return
        # Read-only stores have one connection: SQLite would leave files beside a file at rest, see its
        # ``connect_for_reading``.
        reader = self._scanner if pending.scan and not self.read_only else self._reader
        with self._writer.lock:
            self._writer.check_open()
            reader.worker.post(partial(self._run_read, reader, pending))

    def _run_read(self, reader: Reader, pending: PendingUnit[Any]) -> None:
        try:
            pending.result = reader.run(pending.unit, self._writer.clock())
        except StaleProjectionError as error:
            if not self.read_only:
                self._writer.queue_again(pending)
                return
            pending.error = error
        except BaseException as error:
            pending.error = reader.connection.translated(error)
        deliver([pending])

    def _writable(self) -> Writer:
        if self.read_only:
            raise ReadOnlyFileError(
                f"{self.path} was opened read-only: open it without read_only to write",
                path=self.path,
            )
        return self._writer

    def damage(self) -> CorruptFileError | None:
        """Return the error for the first damage of the storage; None if it is sound."""
        return self.engine.damage(self.path)

    # -- what an engine may add ---------------------------------------------------------------

    def note_identity(self) -> None:  # noqa: B027 - an engine may have nothing to do
        """Note what storage the path refers to, once it is open."""

    @property
    def is_current(self) -> bool:
        """Whether the path still refers to the storage that is open."""
        return True

    def strengthen(self, durability: Durability) -> None:  # noqa: B027
        """Use the strictest durability that any user of this storage has chosen."""

    def prepare_storage(self) -> None:  # noqa: B027
        """Prepare new storage for its first table."""

    # -- what an engine must add --------------------------------------------------------------

    @abstractmethod
    def swap(self, scratch_path: str, unit: Unit[None]) -> None:
        """Run a unit in a transaction of its own that sees a scratch database as ``scratch``."""

    @abstractmethod
    def rewrite(self) -> bool:
        """Rewrite the storage without erased content; False if another process was in the way."""

    # -- the store's own life -----------------------------------------------------------------

    @property
    def is_closed(self) -> bool:
        """Whether ``close`` or ``begin_close`` was called."""
        return self._writer.is_closed

    @property
    def is_working(self) -> bool:
        """Whether a store that is being closed still works on that."""
        return not all(lane.worker.has_ended for lane in self._lanes())

    def close(self, timeout_seconds: float | None = None) -> None:
        """Finish what was queued, close the connections, end the threads. Idempotent."""
        self.begin_close()
        for lane in self._lanes():
            lane.worker.join(timeout_seconds)

    def begin_close(self) -> None:
        """Do as ``close`` does, but do not wait: the store's own threads close the connections."""
        if self._writer.begin_close():
            self.notifier.notify()
            self._end(*self._lanes())

    def _end(self, lane: Reader | Writer, *others: Reader | Writer) -> None:
        """End the lanes one after another."""

        def last() -> None:
            lane.connection.close()
            if others:
                self._end(*others)

        lane.worker.end(last)

    def _lanes(self) -> tuple[Reader | Writer, ...]:
        # The writer ends last: a read may hand its unit to it, and the last connection checkpoints.
        return self._reader, self._scanner, self._writer

    # -- forks --------------------------------------------------------------------------------

    def begin_pause(self) -> None:
        """Before a fork: stop after the work under way, and close the files; do not wait."""
        for lane in self._lanes():
            if not lane.worker.is_current:  # a unit that forks cannot wait for its own end
                lane.worker.begin_pause(partial(self._close_file, lane))
            elif lane.tx is None:
                self._close_file(lane)

    def finish_pause(self) -> None:
        """Wait until no thread of the store is alive, except one that forks inside a unit."""
        for lane in self._lanes():
            if not lane.worker.is_current:
                lane.worker.join_thread()

    def _close_file(self, lane: Reader | Writer) -> None:
        if not self.is_memory:  # a database in memory is copied by the fork
            lane.connection.close()

    def after_fork_in_parent(self) -> None:
        """Resume; threads and connections start again with the next unit."""
        for lane in self._lanes():
            if not lane.worker.is_current:
                lane.worker.resume()

    def after_fork_in_child(self) -> None:
        """Begin again. What the parent had queued is the parent's."""
        self._writer.after_fork_in_child()
        for lane in self._lanes():
            if lane.worker.is_current:
                fork.mark_child_of_unit()
            if lane.tx is not None:
                # The file stays open in this process through a connection that must not be touched.
                # SQLite would think that the process holds its locks, so no other connection may be
                # opened here.
                lane.tx.abandon()
                lane.connection.abandon()
                self._writer.refuse("the log cannot be used in a child that a unit of work forked")
        for lane in self._lanes():
            lane.worker = lane.worker.another()
            if self.is_closed:
                lane.worker.end(_nothing)  # so that ``close`` does not wait


def _nothing() -> None:
    """Do nothing."""
