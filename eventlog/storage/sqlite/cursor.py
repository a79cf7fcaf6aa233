"""The cursors that SQLite gives to units of work."""

from __future__ import annotations

import sqlite3
from typing import Any

from agents_eventlog.eventlog.storage.transaction import ended


class UnitCursor(sqlite3.Cursor):
    """A cursor of a unit: as SQLite's, and just as fast, until the unit ends."""

    def end(self) -> None:
        """Close it, as using it after the unit raises ClosedError."""
        self.close()
        self.abandon()

    def abandon(self) -> None:
        """Do as ``end`` does, without touching SQLite."""
        self.__class__ = _EndedCursor  # type: ignore[assignment]


class _EndedCursor(sqlite3.Cursor):
    """What a unit's cursor becomes when the unit ends."""

    def _refuse(self, *_: Any) -> Any:
        raise ended("cursor")

    __iter__ = __next__ = fetchone = fetchall = execute = executemany = _refuse
    fetchmany = _refuse  # type: ignore[assignment]
