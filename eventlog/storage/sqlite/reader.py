"""Reads: one connection that cannot write, on a thread of its own."""

from __future__ import annotations

import weakref
from functools import partial
from pathlib import Path
from typing import TypeVar

from agents_eventlog.eventlog.storage.engine import Engine
from agents_eventlog.eventlog.storage.sqlite import connections, fork
from agents_eventlog.eventlog.storage.sqlite.lazy_connection import LazyConnection
from agents_eventlog.eventlog.storage.sqlite.thread import Worker
from agents_eventlog.eventlog.storage.transaction import Transaction, Unit

T = TypeVar("T")


class Reader:
    """A thread and a read-only connection, both started by the first read."""

    def __init__(self, path: str, engine: Engine, kind: str) -> None:
        self._engine = engine
        self.tx: Transaction | None = None  # the one under way
        self.worker = Worker(f"eventlog {Path(path).name} {kind}")
        self.connection = LazyConnection(partial(connections.connect_for_reading, path))
        weakref.finalize(self, self.connection.close).atexit = False

    def run(self, unit: Unit[T], now: int) -> T:
        """Run a unit in a reading transaction; called on the thread."""
        connection = self.connection.get()
        tx = self.tx = Transaction(connection, now, engine=self._engine)
        try:
            connection.execute("BEGIN")
            tx.cache = self.connection.cache()
            try:
                result = unit(tx)
            finally:
                fork.end_child_of_unit()
            tx.end()
            connection.execute("COMMIT")
        except BaseException:
            tx.end()
            if not self.connection.roll_back():
                self.connection.close()  # or later reads would see this moment's state
            raise
        finally:
            self.tx = None
        return result
