"""The full-text index on PostgreSQL: a table of texts, with trigrams where pg_trgm is installed."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from agents_eventlog.eventlog.storage.transaction import Insert, Transaction

CREATE: Final = """
    DO $create$
    BEGIN
        CREATE TABLE item_texts (rowid BIGINT PRIMARY KEY, text TEXT COLLATE "C" NOT NULL);
        BEGIN
            CREATE EXTENSION IF NOT EXISTS pg_trgm WITH SCHEMA public;
            CREATE INDEX item_texts_trigrams ON item_texts USING gin (text public.gin_trgm_ops);
        EXCEPTION WHEN insufficient_privilege OR undefined_object OR undefined_file
            OR feature_not_supported THEN
            NULL;  -- without the index the same statements find the same events, by reading all texts
        END;
    END
    $create$
"""
INSERT_TEXT: Final = Insert("item_texts", ("rowid", "text"))
DELETE_TEXT: Final = "DELETE FROM item_texts WHERE rowid = ?"
_TRIGRAM: Final = re.compile(r'"((?:[^"]|"")*)"')


class PostgresFullText:
    """The index over the texts of items. Queries are trigrams in double quotes, as FTS5 takes them."""

    def put(self, tx: Transaction, rows: Sequence[tuple[int, str]]) -> None:
        """Add texts, each under the position of its event."""
        tx.defer(INSERT_TEXT, rows)

    def remove(self, tx: Transaction, positions: Sequence[int]) -> None:
        """Remove the texts of events."""
        tx.executemany(DELETE_TEXT, [(position,) for position in positions])

    def compact(self, tx: Transaction) -> None:
        """Do nothing: VACUUM removes what is left of removed texts."""

    def matches(self, tx: Transaction, query: str, first: int, last: int, limit: int) -> list[int]:
        """Return the newest positions from ``first`` to ``last`` that match, newest first."""
        condition, parameters = _condition(query)
        rows = tx.all(
            f"SELECT rowid FROM item_texts WHERE {condition} AND rowid BETWEEN ? AND ? "
            "ORDER BY rowid DESC LIMIT ?",
            (*parameters, first, last, limit),
        )
        return [position for (position,) in rows]

    def count(self, tx: Transaction, query: str, limit: int) -> int:
        """Return the number of matching events, counting no further than ``limit``."""
        condition, parameters = _condition(query)
        row = tx.one(
            "SELECT COUNT(*) FROM "
            f"(SELECT 1 FROM item_texts WHERE {condition} LIMIT ?) AS first_ones",
            (*parameters, limit),
        )
        return 0 if row is None else int(row[0])

    def sessions(self, query: str) -> tuple[str, tuple[str, ...]]:
        """Return a query, with its parameters, for the sessions of matching events."""
        condition, parameters = _condition(query)
        sql = f"""
            SELECT DISTINCT e.session_id FROM item_texts
            JOIN events AS e ON e.position = item_texts.rowid
            WHERE {condition}
        """
        return sql, parameters


def _condition(query: str) -> tuple[str, tuple[str, ...]]:
    trigrams = [found.replace('""', '"') for found in _TRIGRAM.findall(query)]
    patterns = tuple("%" + re.sub(r"([\\%_])", r"\\\1", text) + "%" for text in trigrams)
    return " AND ".join(["item_texts.text LIKE ?"] * len(patterns)), patterns
