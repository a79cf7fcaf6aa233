"""
The full-text index on SQLite: FTS5 with trigrams.

The index records which trigrams an event has, not where: half the size of one that does, and every match is
compared with the text anyway.
"""

from __future__ import annotations

from collections.abc import Sequence

from agents_eventlog.eventlog.storage.transaction import Insert, Transaction

CREATE = """
    CREATE VIRTUAL TABLE item_texts USING fts5 (
        text, tokenize = 'trigram case_sensitive 1', detail = 'none', columnsize = 0
    )
"""
INSERT_TEXT = Insert("item_texts", ("rowid", "text"))
DELETE_TEXT = "DELETE FROM item_texts WHERE rowid = ?"
OPTIMIZE = "INSERT INTO item_texts (item_texts) VALUES ('optimize')"
MATCHES = """
    SELECT rowid FROM item_texts
    WHERE item_texts MATCH ? AND rowid BETWEEN ? AND ?
    ORDER BY rowid DESC
    LIMIT ?
"""
COUNT = "SELECT COUNT(*) FROM (SELECT 1 FROM item_texts WHERE item_texts MATCH ? LIMIT ?) AS some"
SESSIONS = """
    SELECT DISTINCT e.session_id
    FROM item_texts
    JOIN events AS e ON e.position = item_texts.rowid
    WHERE item_texts MATCH ?
"""


class SQLiteFullText:
    """The index over the texts of items. Queries are in FTS5's syntax."""

    def put(self, tx: Transaction, rows: Sequence[tuple[int, str]]) -> None:
        """Add texts, each under the position of its event."""
        tx.defer(INSERT_TEXT, rows)

    def remove(self, tx: Transaction, positions: Sequence[int]) -> None:
        """Remove the texts of events."""
        tx.executemany(DELETE_TEXT, [(position,) for position in positions])

    def compact(self, tx: Transaction) -> None:
        """Merge the index into one segment, without the trigrams of removed texts."""
        tx.execute(OPTIMIZE)

    def matches(self, tx: Transaction, query: str, first: int, last: int, limit: int) -> list[int]:
        """Return the newest positions from ``first`` to ``last`` that match, newest first."""
        return [position for (position,) in tx.execute(MATCHES, (query, first, last, limit))]

    def count(self, tx: Transaction, query: str, limit: int) -> int:
        """Return the number of matching events, counting no further than ``limit``."""
        row = tx.one(COUNT, (query, limit))
        return 0 if row is None else int(row[0])

    def sessions(self, query: str) -> tuple[str, tuple[str, ...]]:
        """Return a query, with its parameters, for the sessions of matching events."""
        return SESSIONS, (query,)
