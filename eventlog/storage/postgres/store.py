"""The store of one log on PostgreSQL."""

from __future__ import annotations

from functools import partial

import psycopg

from agents_eventlog.eventlog.storage import fork
from agents_eventlog.eventlog.storage.engine import Clock, Durability, Engine
from agents_eventlog.eventlog.storage.notifier import Notifier
from agents_eventlog.eventlog.storage.postgres import connections, dsn
from agents_eventlog.eventlog.storage.postgres.connections import Connection
from agents_eventlog.eventlog.storage.postgres.hints import Listener
from agents_eventlog.eventlog.storage.postgres.lazy_connection import LazyConnection
from agents_eventlog.eventlog.storage.reader import Reader
from agents_eventlog.eventlog.storage.store import BaseStore, system_clock
from agents_eventlog.eventlog.storage.thread import Worker
from agents_eventlog.eventlog.storage.transaction import Transaction, Unit
from agents_eventlog.eventlog.storage.writer import Writer

# Not a setting of the connection: with target_session_attrs=read-write, libpq would refuse the server.
BEGIN_READING = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"


class Store(BaseStore):
    """The connections of one log in one process. The registry opens and shares it."""

    def __init__(
        self,
        path: str,
        *,
        engine: Engine,
        durability: Durability = "full",
        read_only: bool = False,
        clock: Clock = system_clock,
    ) -> None:
        _, schema, is_pooled = dsn.target(path)
        name = f"eventlog {schema}"
        self._connection = LazyConnection(
            path,
            partial(connections.connect, path, durability=durability, read_only=read_only),
            "BEGIN",  # each statement sees what was committed before it, so also before the locks
            pipelined=True,
            hints_for=schema,
        )
        listen = partial(connections.connect, path, read_only=True)
        self._listener = Listener(listen, schema, lambda: self._connection.process_id)

        def reader(kind: str) -> Reader:
            connect = partial(connections.connect, path, read_only=True)
            connection = LazyConnection(path, connect, BEGIN_READING)
            return Reader(connection, Worker(f"{name} {kind}"), engine)

        super().__init__(
            path,
            engine=engine,
            durability=durability,
            read_only=read_only,
            writer=Writer(self._connection, Worker(name), engine=engine, clock=clock),
            reader=reader("reader"),
            scanner=reader("scanner"),
        )
        self._is_pooled = is_pooled
        self._writer.notifier = self._notifier()

    def _notifier(self) -> Notifier:
        """Return one that hears other processes; through a pooler it cannot."""
        return Notifier(None if self._is_pooled else self._listener)

    def begin_pause(self) -> None:
        """Before a fork: also stop to listen."""
        super().begin_pause()
        self._listener.begin_pause()

    def after_fork_in_parent(self) -> None:
        """Resume, and listen again if there are subscribers."""
        super().after_fork_in_parent()
        self._listener.end_pause()

    def after_fork_in_child(self) -> None:
        """Begin again, without the parent's subscribers."""
        super().after_fork_in_child()
        self._listener = self._listener.another()
        self._writer.notifier = self._notifier()

    def prepare_storage(self) -> None:
        """Create the schema, before its first table."""
        schema = dsn.target(self.path).schema

        def create(connection: Connection) -> None:
            try:
                connection.execute(f'CREATE SCHEMA IF NOT EXISTS "{schema}"')
            except psycopg.errors.UniqueViolation:
                return  # another process was first

        self._writer.call(create)

    def swap(self, scratch_path: str, unit: Unit[None]) -> None:
        """Run a unit in a transaction of its own, which may take longer than those of sessions."""
        writer = self._writable()

        def run(connection: Connection) -> None:
            tx = writer.tx = Transaction(connection, self.clock(), engine=self.engine)
            tx.cipher = writer.cipher
            writer.connection.begin()
            try:
                try:
                    unit(tx)
                finally:
                    fork.end_child_of_unit()
                tx.flush()
                tx.close_cursors()
                writer.connection.commit()
            except BaseException:
                writer.roll_back(tx)
                raise
            finally:
                writer.tx = None
                tx.end()

        writer.call(run)

    def rewrite(self) -> bool:
        """
        Rewrite the events without erased content. Blocks; readers and writers wait.

        Copies in the server's write-ahead log, its archives, backups and replicas stay.
        """
        schema = dsn.target(self.path).schema

        def rewritten(connection: Connection) -> bool:
            connection.execute(f'VACUUM FULL "{schema}".events')
            return True

        return self._writable().call(rewritten)

    def strengthen(self, durability: Durability) -> None:
        """Use the strictest durability that any user of this log has chosen."""
        if durability == "full" and self.durability == "normal":
            self.durability = "full"
            self._connection.replace(partial(connections.connect, self.path, durability=durability))
