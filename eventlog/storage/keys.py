"""
What a store of keys needs of a database: transactions, and whether another connection has written.

It is apart from the log and its connections: keys must not be in the log's backups.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from contextlib import AbstractContextManager
from typing import Any, Protocol

from agents_eventlog.eventlog.errors import NewerFileError
from agents_eventlog.eventlog.storage import fork


class KeyTransaction(Protocol):
    """An open transaction on the tables of keys."""

    def execute(self, sql: str, parameters: Any = (), /) -> Any:
        """Run a statement of the shared subset; return a cursor."""

    def executemany(self, sql: str, rows: Any, /) -> Any:
        """Run a statement for each row."""


class KeyStorage(Protocol):
    """A database of keys, for all threads of a process."""

    path: str

    def exists(self) -> bool:
        """Whether there is a database of keys."""

    def create(self, statements: tuple[str, ...]) -> None:
        """Create the tables, unless they exist, so that only their owner can read them."""

    def writing(self) -> AbstractContextManager[KeyTransaction]:
        """Run the block in a transaction; it is durable at the end of the block."""

    def reading(self) -> AbstractContextManager[KeyTransaction]:
        """Run the block in a transaction that only reads."""

    def changed(self) -> bool:
        """Whether another connection has written since the last call."""

    def close(self) -> None:
        """Close the connection; the next use opens it again."""


class OneConnection(ABC):
    """The part that every engine's ``KeyStorage`` shares: one connection for a process, closed in forks."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._lock = threading.RLock()
        fork.close_before(self)

    @abstractmethod
    def _close(self) -> None:
        """Close the connection, under the lock."""

    def _check_version(self, found: int, known: int) -> None:
        """Raise NewerFileError for the tables of a newer release."""
        if found > known:
            raise NewerFileError(
                f"{self.path} has version {found}, this program knows {known}: "
                "upgrade agents-eventlog",
                path=self.path,
                found=found,
                known=known,
            )

    def before_fork(self) -> None:
        """Close the connection, and keep other threads from opening it."""
        self._lock.acquire()
        self._close()

    def after_fork(self, *, in_child: bool) -> None:
        """Let it be used again."""
        if in_child:
            self._lock = threading.RLock()
        else:
            self._lock.release()
