"""
The metadata index: the leaves of a session's metadata, one a row, to find sessions by them.

A sealed log keeps a token in place of each leaf, with an empty value.
"""

from __future__ import annotations

from collections.abc import Iterable

from agents_eventlog.eventlog.metadata_leaves import Leaf
from agents_eventlog.eventlog.storage.transaction import Transaction

SESSION_LEAVES = """
    CREATE TABLE session_labels (
        session_id TEXT NOT NULL,
        path       TEXT NOT NULL,
        value      TEXT NOT NULL,
        PRIMARY KEY (session_id, path)
    )
"""
SESSIONS_OF_LEAF = """
    CREATE INDEX sessions_of_label ON session_labels (path, value, session_id)
"""
SCHEMA = (SESSION_LEAVES, SESSIONS_OF_LEAF)

INSERT_LEAF = "INSERT INTO session_labels (session_id, path, value) VALUES (?, ?, ?)"
DELETE_LEAVES = "DELETE FROM session_labels WHERE session_id = ?"


def set_leaves(tx: Transaction, session_id: str, leaves: Iterable[Leaf]) -> None:
    """Replace a session's leaves."""
    tx.execute(DELETE_LEAVES, (session_id,))
    tx.executemany(INSERT_LEAF, [(session_id, *leaf) for leaf in leaves])
