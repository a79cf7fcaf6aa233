"""
What a store of keys needs of a database: transactions, and whether another connection has written.

It is apart from the log and its connections: keys must not be in the log's backups.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any, Protocol


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
