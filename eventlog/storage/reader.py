"""Reads: one connection that cannot write, on a thread of its own."""

from __future__ import annotations

import weakref
from typing import TypeVar

from agents_eventlog.eventlog.storage import fork
from agents_eventlog.eventlog.storage.connection import Connection
from agents_eventlog.eventlog.storage.engine import Engine
from agents_eventlog.eventlog.storage.thread import Worker
from agents_eventlog.eventlog.storage.transaction import PayloadCipher, Transaction, Unit

T = TypeVar("T")


class Reader:
    """A thread and a read-only connection, both started by the first read."""

    def __init__(self, connection: Connection, worker: Worker, engine: Engine) -> None:
        self._engine = engine
        self.tx: Transaction | None = None  # the one under way
        self.cipher: PayloadCipher | None = None
        self.worker = worker
        self.connection = connection
        weakref.finalize(self, connection.close).atexit = False

    def run(self, unit: Unit[T], now: int) -> T:
        """Run a unit in a reading transaction, again if its connection was lost; called on the thread."""
        attempt = 1
        while True:
            try:
                return self._run(unit, now)
            except BaseException as error:
                if not self.connection.may_repeat(error, attempt):
                    raise
                attempt += 1

    def _run(self, unit: Unit[T], now: int) -> T:
        connection = self.connection
        tx = self.tx = Transaction(connection.get(), now, engine=self._engine)
        tx.cipher = self.cipher
        try:
            tx.cache = connection.begin()
            try:
                result = unit(tx)
            finally:
                fork.end_child_of_unit()
            tx.end()
            connection.commit()
        except BaseException:
            tx.end()
            connection.roll_back()
            raise
        finally:
            self.tx = None
        return result
