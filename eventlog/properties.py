"""What the log remembers of itself, by name, in the table ``log_properties``."""

from __future__ import annotations

from agents_eventlog.eventlog.storage.transaction import Transaction


def get_property(tx: Transaction, name: str) -> str | None:
    """Return the value of a property; None if it is not set."""
    row = tx.one("SELECT value FROM log_properties WHERE name = ?", (name,))
    return None if row is None else str(row[0])


def set_property(tx: Transaction, name: str, value: str) -> None:
    """Set a property."""
    tx.execute(
        "INSERT INTO log_properties (name, value) VALUES (?, ?) "
        "ON CONFLICT (name) DO UPDATE SET value = excluded.value",
        (name, value),
    )


def delete_property(tx: Transaction, name: str) -> None:
    """Remove a property."""
    tx.execute("DELETE FROM log_properties WHERE name = ?", (name,))
