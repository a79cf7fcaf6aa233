"""
Processes of their own that do as they are told.

They come from one server process that has the packages loaded and nothing opened, so that each is as
good as a fresh interpreter, and is there at once.
"""

from __future__ import annotations

import multiprocessing
import traceback
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from tests.faults.support import PATIENCE_SECONDS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from multiprocessing.connection import Connection

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["agents_eventlog.adapters", "tests.faults.children.actors"])


class Child:
    """A process that runs ``function(connection, *args)`` and reports what it returns."""

    def __init__(self, function: Callable[..., Any], *args: Any) -> None:
        self.connection, theirs = CONTEXT.Pipe()
        self.process = CONTEXT.Process(
            target=_run, args=(function, theirs, args), daemon=True, name=function.__name__
        )
        self.process.start()
        theirs.close()

    def hear(self) -> Any:
        """Return the next thing that it says."""
        if not self.connection.poll(PATIENCE_SECONDS):
            raise TimeoutError(f"{self.process.name} says nothing")
        kind, value = self.connection.recv()
        if kind == "failed":
            raise AssertionError(f"{self.process.name} failed:\n{value}")
        return value

    def tell(self, value: Any) -> None:
        """Say something to it."""
        self.connection.send(value)

    def ask(self, value: Any) -> Any:
        """Say something to it and return what it answers."""
        self.tell(value)
        return self.hear()

    def end(self) -> None:
        """Wait for its end, which must be a good one."""
        self.process.join(PATIENCE_SECONDS)
        assert self.process.exitcode == 0

    def kill(self) -> None:
        """End it at once, with SIGKILL."""
        self.process.kill()
        self.process.join(PATIENCE_SECONDS)
        self.connection.close()


def _run(function: Callable[..., Any], connection: Connection, args: tuple[Any, ...]) -> None:
    try:
        connection.send(("returned", function(connection, *args)))
    except Exception:
        connection.send(("failed", traceback.format_exc()))
        raise


@contextmanager
def children(count: int, function: Callable[..., Any], *args: Any) -> Iterator[list[Child]]:
    """Start processes that get their number and the arguments; none outlives the block."""
    with ExitStack() as stack:
        started = []
        for number in range(count):
            child = Child(function, number, *args)
            stack.callback(child.kill)
            started.append(child)
        yield started


def all_at_once(count: int, function: Callable[..., Any], *args: Any) -> list[Any]:
    """Start processes, let them go together once all are there, and return what they return."""
    with children(count, function, *args) as started:
        for child in started:
            assert child.hear() == "ready"
        for child in started:
            child.tell("go")
        results = [child.hear() for child in started]
        for child in started:
            child.end()
    return results
