"""The thread for a connection, and what of aiosqlite it stands on: fails loudly if that changes."""

from __future__ import annotations

import gc
import inspect
import threading
import time
import weakref
from importlib.metadata import version
from queue import SimpleQueue
from typing import TYPE_CHECKING

import pytest
from aiosqlite import core

from agents_eventlog.eventlog.storage.sqlite import thread
from agents_eventlog.eventlog.storage.thread import Worker

if TYPE_CHECKING:
    from collections.abc import Iterator

PATIENCE_SECONDS = 10


@pytest.fixture
def worker() -> Iterator[Worker]:
    """Return a running worker."""
    made = started()
    yield made
    stop(made, PATIENCE_SECONDS)


def started() -> Worker:
    """Return a worker whose thread runs."""
    made, done = Worker("under test", thread.start_thread), threading.Event()
    made.post(done.set)
    assert done.wait(PATIENCE_SECONDS)
    return made


def stop(worker: Worker, timeout_seconds: float) -> None:
    """End a worker and wait for it."""
    worker.end(lambda: None)
    worker.join(timeout_seconds)


def thread_of(worker: Worker) -> threading.Thread:
    """Return the thread of a running worker."""
    assert worker._thread is not None
    return worker._thread


def wait(gate: threading.Event) -> None:
    """Keep a worker busy until the gate opens."""
    gate.wait(PATIENCE_SECONDS)


def test_aiosqlite_is_a_version_that_was_looked_at() -> None:
    assert version("aiosqlite").startswith("0.22."), (
        "read aiosqlite.core again: eventlog/storage/sqlite/thread.py uses its thread and queue"
    )


def test_aiosqlite_still_has_the_thread_the_queue_and_the_sentinel() -> None:
    parameters = list(inspect.signature(core.Connection).parameters)
    assert parameters[:2] == ["connector", "iter_chunk_size"]
    connection = core.Connection(lambda: pytest.fail("nothing connects"), iter_chunk_size=64)
    assert isinstance(connection._thread, threading.Thread)
    assert not connection._thread.is_alive()  # started by whoever needs it
    assert not connection._thread.daemon  # why the worker makes it one
    assert isinstance(connection._tx, SimpleQueue)
    assert core._STOP_RUNNING_SENTINEL is not None


def test_aiosqlites_thread_takes_pairs_of_a_future_and_a_function() -> None:
    connection = core.Connection(lambda: pytest.fail("nothing connects"), iter_chunk_size=64)
    ran: list[int] = []
    connection._tx.put_nowait((None, lambda: ran.append(threading.get_ident())))
    connection._tx.put_nowait((None, lambda: core._STOP_RUNNING_SENTINEL))
    connection._tx.put_nowait((None, lambda: ran.append(0)))
    connection._thread.start()
    connection._thread.join(PATIENCE_SECONDS)
    assert not connection._thread.is_alive()
    assert ran == [connection._thread.ident]  # on its thread, and nothing behind the sentinel


def test_a_worker_runs_functions_in_order_on_one_thread_of_its_own(worker: Worker) -> None:
    ran: list[tuple[int, int]] = []
    done = threading.Event()
    for n in range(1_000):
        worker.post(lambda n=n: ran.append((n, threading.get_ident())))  # type: ignore[misc]
    worker.post(done.set)
    assert done.wait(PATIENCE_SECONDS)
    assert [n for n, _ in ran] == list(range(1_000))
    assert {thread for _, thread in ran} == {thread_of(worker).ident}
    assert thread_of(worker).ident != threading.get_ident()


def test_a_worker_never_keeps_a_program_from_ending(worker: Worker) -> None:
    assert thread_of(worker).daemon
    assert thread_of(worker).name == "under test"


def test_a_worker_that_stops_has_run_what_was_posted() -> None:
    worker = started()
    gate = threading.Event()
    ran: list[int] = []
    worker.post(lambda: wait(gate))
    for n in range(10):
        worker.post(lambda n=n: ran.append(n))  # type: ignore[misc]
    threading.Timer(0.05, gate.set).start()
    stop(worker, PATIENCE_SECONDS)
    assert ran == list(range(10))
    assert worker.has_ended


def test_a_worker_survives_a_function_that_raises(worker: Worker) -> None:
    def fail() -> None:
        raise LookupError("it must not, but it did")

    done = threading.Event()
    worker.post(fail)
    worker.post(done.set)
    assert done.wait(PATIENCE_SECONDS)


def test_a_worker_that_nobody_refers_to_any_more_ends() -> None:
    worker = started()
    thread = thread_of(worker)
    done = threading.Event()
    worker.post(done.set)
    assert done.wait(PATIENCE_SECONDS)
    del worker
    gc.collect()
    thread.join(PATIENCE_SECONDS)
    assert not thread.is_alive()


def test_a_worker_remembers_nothing_of_what_it_ran(worker: Worker) -> None:
    class Held:
        def run(self) -> None:
            """Do nothing."""

    held = Held()
    gone = weakref.ref(held)
    done = threading.Event()
    worker.post(held.run)
    worker.post(done.set)
    worker.post(held.run)
    assert done.wait(PATIENCE_SECONDS)
    del held
    deadline = time.monotonic() + PATIENCE_SECONDS
    while gone() is not None and time.monotonic() < deadline:
        time.sleep(0.001)
    assert gone() is None


def test_a_worker_stops_only_so_long_as_it_was_told_to_wait() -> None:
    worker = started()
    gate = threading.Event()
    worker.post(lambda: wait(gate))
    stop(worker, 0.01)
    assert not worker.has_ended
    gate.set()
    worker.join(PATIENCE_SECONDS)
    assert worker.has_ended


def test_a_worker_starts_its_thread_with_the_first_function() -> None:
    worker = Worker("under test", thread.start_thread)
    assert worker._thread is None
    ran: list[int] = []
    worker.end(lambda: ran.append(1))  # no thread is needed for that
    worker.join(PATIENCE_SECONDS)
    assert ran == [1]
    assert worker.has_ended


def test_a_paused_worker_has_no_thread_and_runs_what_was_posted_meanwhile_after_it() -> None:
    worker = started()
    ran: list[str] = []
    worker.begin_pause(lambda: ran.append("last"))
    worker.begin_pause(lambda: ran.append("not run: it pauses already"))
    worker.join_thread()
    assert not thread_of(worker).is_alive()
    worker.post(lambda: ran.append("held"))
    worker.end(lambda: ran.append("end"))
    worker.resume()
    assert worker.is_paused
    assert ran == ["last"]
    worker.resume()
    worker.join(PATIENCE_SECONDS)
    assert ran == ["last", "held", "end"]
    assert worker.has_ended


def test_a_worker_that_is_paused_before_its_first_function_starts_after_the_pause() -> None:
    worker = Worker("under test", thread.start_thread)
    ran: list[int] = []
    worker.begin_pause(lambda: pytest.fail("there was nothing to end"))
    worker.join_thread()
    worker.post(lambda: ran.append(1))
    worker.resume()
    stop(worker, PATIENCE_SECONDS)
    assert ran == [1]


def test_the_thread_never_opens_a_connection_by_itself() -> None:
    with pytest.raises(RuntimeError, match="opens its connections itself"):
        thread._no_connector()


def test_a_thread_of_no_engine_runs_functions_in_order_and_ends() -> None:
    worker = Worker("under test")
    ran: list[int] = []
    for n in range(3):
        worker.post(lambda n=n: ran.append(n))  # type: ignore[misc]
    stop(worker, PATIENCE_SECONDS)
    assert ran == [0, 1, 2]
    assert not thread_of(worker).is_alive()
