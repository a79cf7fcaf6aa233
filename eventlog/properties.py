"""What the log remembers of itself, by name, in the table ``log_properties``."""

from __future__ import annotations

from agents_eventlog.eventlog.storage.transaction import Transaction


def get_property(tx: Transaction, name: str) -> str | None:
    """Return the value of a property; None if it is not set."""
    row = tx.one("SELECT value FROM log_properties WHERE name = ?", (name,))
    return None if row is None else str(row[0])


def properties_after(tx: Transaction, prefix: str) -> dict[str, str]:
    """Return the properties whose names begin with a prefix, by the rest of their names."""
    end = prefix[:-1] + chr(ord(prefix[-1]) + 1)
    rows = tx.all(
        "SELECT name, value FROM log_properties WHERE name >= ? AND name < ?", (prefix, end)
    )
    return {str(name).removeprefix(prefix): str(value) for name, value in rows}


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


def rename_property(tx: Transaction, name: str, new_name: str) -> None:
    """Give a property another name, unless it has gone."""
    tx.execute("UPDATE log_properties SET name = ? WHERE name = ?", (new_name, name))
