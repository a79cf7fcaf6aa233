"""What stands in a file, seen from outside."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path


def rows(path: Path) -> dict[str, list[Any]]:
    """Return every row of every table of a file."""
    with closing(sqlite3.Connection(path)) as connection:
        connection.execute("PRAGMA query_only=ON")
        names = connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")
        return {
            name: connection.execute(f'SELECT * FROM "{name}"').fetchall()
            for (name,) in names.fetchall()
        }
