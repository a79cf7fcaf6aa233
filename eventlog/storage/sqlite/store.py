"""The store of one SQLite file, and the work on the whole file."""

from __future__ import annotations

import sqlite3
from functools import partial
from pathlib import Path
from weakref import WeakKeyDictionary, finalize

from agents_eventlog.eventlog.storage.engine import Clock, Durability, Engine
from agents_eventlog.eventlog.storage.reader import Reader
from agents_eventlog.eventlog.storage.sqlite import connections, maintenance, wal_reset_bug
from agents_eventlog.eventlog.storage.sqlite.lazy_connection import LazyConnection
from agents_eventlog.eventlog.storage.sqlite.thread import start_thread
from agents_eventlog.eventlog.storage.store import BaseStore, system_clock
from agents_eventlog.eventlog.storage.thread import Worker
from agents_eventlog.eventlog.storage.transaction import Unit
from agents_eventlog.eventlog.storage.writer import Writer

_templates: WeakKeyDictionary[object, sqlite3.Connection] = WeakKeyDictionary()
"""Empty logs in memory, by what has made their tables."""


class Store(BaseStore):
    """The connections of one file in one process. The registry opens and shares it."""

    def __init__(
        self,
        path: str,
        *,
        engine: Engine,
        durability: Durability = "full",
        read_only: bool = False,
        clock: Clock = system_clock,
    ) -> None:
        connections.check_version(path)
        name = f"eventlog {Path(path).name}"
        self._file_id: connections.FileId | None = None
        self._connection = LazyConnection(
            path,
            partial(connections.connect_for_writing, path, durability),
            "BEGIN IMMEDIATE",
            partial(wal_reset_bug.warn, path),
        )

        def reader(kind: str) -> Reader:
            connect = partial(connections.connect_for_reading, path)
            connection = LazyConnection(path, connect, "BEGIN")
            return Reader(connection, Worker(f"{name} {kind}", start_thread), engine)

        super().__init__(
            path,
            engine=engine,
            durability=durability,
            read_only=read_only,
            writer=Writer(self._connection, Worker(name, start_thread), engine=engine, clock=clock),
            reader=reader("reader"),
            scanner=reader("scanner"),
        )

    def note_identity(self) -> None:
        """Note which file this is."""
        self._file_id = connections.file_id(self.path)

    @property
    def is_current(self) -> bool:
        """Whether the file is still the one at its path (it may have been deleted or replaced)."""
        return self._file_id == connections.file_id(self.path)

    def prepare_storage(self) -> None:
        """Switch a new file to its write-ahead log, before its first table."""
        if not self.is_memory:
            self._writer.call(connections.switch_to_wal)

    def keep_template(self, name: object) -> None:
        """Keep a copy of an empty log in memory under this name; nothing for None."""
        if name is not None and name not in _templates:
            template = connections.connect_for_writing(self.path, "full")
            finalize(name, template.close)
            self._writer.call(lambda connection: connection.backup(template))
            _templates[name] = template

    def copy_template(self, name: object) -> bool:
        """Make this new log in memory a copy of the one that was kept; False without one."""
        template = None if name is None else _templates.get(name)
        if template is not None:
            self._writer.call(template.backup)
        return template is not None

    def swap(self, scratch_path: str, unit: Unit[None]) -> None:
        """Run a unit in a transaction of its own that sees another database as ``scratch``."""
        maintenance.swap(
            self._writable(), scratch_path, unit, self.clock(), is_memory=self.is_memory
        )

    def rewrite(self) -> bool:
        """
        Rewrite the whole file without deleted content, and empty its write-ahead log. Blocks.

        Returns False if readers of other processes kept the write-ahead log from being emptied. Needs
        disk space for two more copies meanwhile. Raises BusyError while another process writes.
        """
        return maintenance.rewrite(self._writable(), is_memory=self.is_memory)

    def strengthen(self, durability: Durability) -> None:
        """Use the strictest durability that any user of this file has chosen."""
        if durability == "full" and self.durability == "normal":
            self.durability = "full"
            self._connection.connect = partial(
                connections.connect_for_writing, self.path, durability
            )
            self._writer.worker.post(self._connection.close)
