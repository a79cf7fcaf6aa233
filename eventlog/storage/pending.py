"""Units of work that wait for a thread of the store, and how their results are delivered."""

from __future__ import annotations

import asyncio
import concurrent.futures
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, Generic, TypeAlias, TypeVar

from agents_eventlog.eventlog.errors import CorruptFileError, EventLogError
from agents_eventlog.eventlog.events import JSON
from agents_eventlog.eventlog.storage.transaction import Unit

T = TypeVar("T")

FindDamage: TypeAlias = Callable[[], CorruptFileError | None]
"""Returns the error for a damaged file; None if it is sound. Takes a while."""

UNEXPECTED: Final = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)
"""What code raises that meets a value of an impossible type: a damaged file, or a defect."""


class UncancellableFuture(asyncio.Future[T]):
    """
    A future that its waiting task cannot cancel.

    ``cancel`` refuses and keeps the first message: the task waits for the outcome, then is cancelled.
    """

    cancelled_with: str | None = None
    was_cancelled = False

    def cancel(self, msg: Any | None = None) -> bool:
        """Refuse: the unit may be committed already, so the task must not believe that it was not."""
        if not self.was_cancelled:
            self.was_cancelled, self.cancelled_with = True, msg
        return False


async def wait_for(outcome: UncancellableFuture[T], damage: FindDamage) -> T:
    """
    Wait for an outcome. A cancelled caller waits too, then gets its first CancelledError.

    If the file is damaged, an error that the damage may have caused is raised as CorruptFileError.
    """
    try:
        return await outcome
    except UNEXPECTED as error:
        if not isinstance(error, EventLogError) and (found := await asyncio.to_thread(damage)):
            raise found from error
        raise
    except asyncio.CancelledError:
        if not outcome.was_cancelled:
            raise  # raised by the unit: nothing has cancelled this task
        message = outcome.cancelled_with
        raise asyncio.CancelledError(*(() if message is None else (message,))) from None
    finally:
        if outcome.done() and not outcome.cancelled():
            outcome.exception()  # retrieved, or asyncio would log what a cancelled caller never sees


def wait_for_sync(outcome: concurrent.futures.Future[T], damage: FindDamage) -> T:
    """Do as ``wait_for`` does, without an event loop. Blocks."""
    try:
        return outcome.result()
    except UNEXPECTED as error:
        if not isinstance(error, EventLogError) and (found := damage()):
            raise found from error
        raise


class PendingUnit(Generic[T]):
    """
    A queued unit of work, the metadata recorded with its events, and the future to resolve.

    recording: what goes into the metadata of its events.
    scan: whether it reads much of the log, so that no session should wait for it.
    """

    __slots__ = ("error", "loop", "outcome", "recording", "result", "scan", "then", "unit")

    def __init__(
        self,
        unit: Unit[T],
        outcome: UncancellableFuture[T] | concurrent.futures.Future[T],
        recording: Mapping[str, JSON],
        *,
        scan: bool = False,
    ) -> None:
        self.unit = unit
        self.scan = scan
        self.outcome = outcome
        self.loop = outcome.get_loop() if isinstance(outcome, UncancellableFuture) else None
        self.recording = recording
        self.then: Callable[[], None] | None = None  # runs on the store's thread, before delivery
        self.result: Any = None
        self.error: BaseException | None = None

    def resolve(self) -> None:
        """Resolve the future; call it on the thread of the future's loop."""
        if self.outcome.done():
            return
        if self.error is None:
            self.outcome.set_result(self.result)
        else:
            error = self.error
            if isinstance(error, StopIteration):  # which no future can carry
                error = RuntimeError("a unit of work raised StopIteration")
            self.outcome.set_exception(error)

    def fail(self, error: Exception) -> None:
        """Resolve the future with an error, for a unit that did not run. Callable from any thread."""
        self.error = error
        if self.loop is None:
            self.resolve()
        else:
            _resolve_on(self.loop, [self])


def deliver(operations: Iterable[PendingUnit[Any]]) -> None:
    """Resolve the futures, with one wake-up for each event loop; skip closed loops."""
    by_loop: dict[asyncio.AbstractEventLoop, list[PendingUnit[Any]]] = {}
    for operation in operations:
        if operation.then is not None:
            operation.then()
        if operation.loop is None:
            operation.resolve()
        else:
            by_loop.setdefault(operation.loop, []).append(operation)
    for loop, group in by_loop.items():
        _resolve_on(loop, group)


def _resolve_on(loop: asyncio.AbstractEventLoop, operations: list[PendingUnit[Any]]) -> None:
    try:
        loop.call_soon_threadsafe(_resolve_all, operations)
    except RuntimeError:
        return  # the loop was closed, and its waiting tasks ended


def _resolve_all(operations: list[PendingUnit[Any]]) -> None:
    for operation in operations:
        operation.resolve()
