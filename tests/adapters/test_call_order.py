"""A session's calls in their order, also when the store closes under them."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from agents_eventlog.adapters.conversations.call_order import SerialExecutor
from agents_eventlog.eventlog import EventLog
from agents_eventlog.eventlog.errors import ClosedError
from agents_eventlog.eventlog.storage.pending import PendingUnit, UncancellableFuture

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PATIENCE_SECONDS = 10


@pytest.fixture
def log(tmp_path: Path) -> Iterator[EventLog]:
    opened = EventLog.open_sync(tmp_path / "log.db")
    yield opened
    opened.close()


def operation(unit: Any, outcome: Any = None) -> PendingUnit[Any]:
    return PendingUnit(unit, outcome or concurrent.futures.Future(), {})


async def test_a_call_that_waited_for_its_turn_learns_that_the_store_closed(log: EventLog) -> None:
    executor = SerialExecutor(log.store)
    go_on = threading.Event()
    under_way = operation(lambda _: go_on.wait(PATIENCE_SECONDS))
    blocking = operation(lambda _: None)
    awaited: UncancellableFuture[None] = UncancellableFuture(loop=asyncio.get_running_loop())
    executor.submit("read", under_way)
    executor.submit("write", blocking)
    executor.submit("write", operation(lambda _: None, awaited))
    closing = threading.Thread(target=log.store.close)
    closing.start()
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not log.store.is_closed and time.monotonic() < deadline:  # noqa: ASYNC110
        await asyncio.sleep(0.001)
    go_on.set()
    assert await asyncio.wrap_future(under_way.outcome)
    with pytest.raises(ClosedError):
        await asyncio.wrap_future(blocking.outcome)
    with pytest.raises(ClosedError):
        await awaited
    closing.join(PATIENCE_SECONDS)
    executor.wait()  # nothing is left under way


@pytest.mark.parametrize("kind", ["read", "write"])
def test_a_call_of_a_closed_store_is_refused_and_nothing_waits_for_it(
    log: EventLog, kind: Any
) -> None:
    executor = SerialExecutor(log.store)
    log.store.close()
    with pytest.raises(ClosedError):
        executor.submit(kind, operation(lambda _: None))
    executor.wait()
