"""Work on the whole file, between transactions: replace tables by those of another file, rewrite."""

from __future__ import annotations

import sqlite3

from agents_eventlog.eventlog.storage import fork
from agents_eventlog.eventlog.storage.sqlite import connections
from agents_eventlog.eventlog.storage.transaction import Transaction, Unit
from agents_eventlog.eventlog.storage.writer import Writer


def swap(writer: Writer, scratch_path: str, unit: Unit[None], now: int, *, is_memory: bool) -> None:
    """Run a unit in a transaction of its own that sees another database as ``scratch``. Blocks."""

    def attached(connection: sqlite3.Connection) -> None:
        connection.execute("ATTACH ? AS scratch", (scratch_path,))
        try:
            _run_transaction(writer, connection, unit, now)
        finally:
            _detach(writer, connection, is_memory=is_memory)

    writer.call(attached)


def rewrite(writer: Writer, *, is_memory: bool) -> bool:
    """Rewrite the file without deleted content, and empty its write-ahead log. Blocks."""

    def rewritten(connection: sqlite3.Connection) -> bool:
        connection.execute("VACUUM")
        return is_memory or connections.empty_wal(connection)

    return writer.call(rewritten)


def _run_transaction(
    writer: Writer, connection: sqlite3.Connection, unit: Unit[None], now: int
) -> None:
    tx = writer.tx = Transaction(connection, now, engine=writer.engine)
    tx.cipher = writer.cipher
    writer.connection.begin()
    try:
        try:
            unit(tx)
        finally:
            fork.end_child_of_unit()
        tx.close_cursors()
        tx.execute("COMMIT")
    except BaseException:
        writer.roll_back(tx)
        raise
    finally:
        writer.tx = None
        tx.end()


def _detach(writer: Writer, connection: sqlite3.Connection, *, is_memory: bool) -> None:
    """Detach the other database. Its transaction is over, so closing the connection loses nothing."""
    try:
        connection.execute("DETACH scratch")
    except sqlite3.Error:
        if is_memory:
            raise
        writer.connection.close()
