"""
Logs in files with other tables: there, the names of the log's tables, indexes and triggers have a prefix.

All SQL is written with the plain names. A connection to such a file replaces them in each statement that
it runs, so that no other module knows of the prefix, and no statement reaches an application's table of the
same name.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterable
from functools import lru_cache
from typing import Any, Final, Self

from agents_eventlog.eventlog.storage.renaming import substituted
from agents_eventlog.eventlog.storage.sqlite.cursor import UnitCursor

PREFIX: Final = "eventlog_"
APPLICATION_ID: Final = 0x65766C67  # "evlg"

RESERVED: Final = frozenset(
    {
        *("events", "checkpoints", "log_properties", "session_leases"),
        *("sessions", "session_labels", "branches", "segments", "items"),
        *("redactions", "forks"),
        *("usage", "usage_by_day", "item_texts"),
        *("v_messages", "v_turns", "v_sessions", "v_costs"),
    }
)
"""The names that always mean the log's own tables and views, even before these exist."""

IS_THERE: Final = "SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = ?"
NAMES: Final = "SELECT name FROM sqlite_schema WHERE name LIKE 'eventlog\\_%' ESCAPE '\\'"

_CREATED: Final = re.compile(
    r"(\s*CREATE\s+(?:UNIQUE\s+|VIRTUAL\s+)?(TABLE|INDEX|TRIGGER|VIEW)\s+)"
    r'(?:main\.)?(["\'`]?)(\w+)\3',
    re.IGNORECASE,
)


class Connection(sqlite3.Connection):
    """A connection to a file: that of a log, or one that may become one."""

    is_settled = False
    """Whether the file is known to hold a log without a prefix."""

    def recognise(self) -> None:
        """Find out, in a transaction or outside, whether the log of this file has a prefix."""
        if self.execute("PRAGMA application_id").fetchone()[0] == APPLICATION_ID:
            self.is_settled = True
        elif self.execute(IS_THERE, (f"{PREFIX}log_properties",)).fetchone() is not None:
            share(self)
            self.recognise()


class SharedConnection(Connection):
    """A connection to a file whose log has a prefix."""

    names: frozenset[str] = RESERVED
    schema_version: int | None = None

    def recognise(self) -> None:
        """Learn the names that other connections have created."""
        (version,) = super().execute("PRAGMA schema_version").fetchone()
        if version != self.schema_version:
            found = super().execute(NAMES).fetchall()
            self.names = RESERVED | {name.removeprefix(PREFIX) for (name,) in found}
            self.schema_version = version

    def renamed(self, sql: str) -> str:
        """Return a statement with the names that the file has."""
        created = _CREATED.match(sql)
        if created is None:
            return _renamed(sql, self.names)
        kind, name = created[2], created[4]
        if kind.upper() in ("TABLE", "VIEW"):
            self.names |= {name}
        return f'{created[1]}"{PREFIX}{name}"{_renamed(sql[created.end() :], self.names)}'

    def cursor(self, factory: Any = sqlite3.Cursor) -> Any:
        """Return a cursor; one for a unit of work renames, too."""
        return super().cursor(SharedUnitCursor if factory is UnitCursor else factory)

    def execute(self, sql: str, parameters: Any = (), /) -> sqlite3.Cursor:
        """Run a statement."""
        return super().execute(self.renamed(sql), parameters)

    def executemany(self, sql: str, parameters: Iterable[Any], /) -> sqlite3.Cursor:
        """Run a statement for each row."""
        return super().executemany(self.renamed(sql), parameters)


class SharedUnitCursor(UnitCursor):
    """The cursor of a unit on a file whose log has a prefix."""

    def execute(self, sql: str, parameters: Any = (), /) -> Self:
        """Run a statement."""
        connection: Any = self.connection
        return super().execute(connection.renamed(sql), parameters)


def share(connection: Connection) -> None:
    """From now on, use the names with the prefix."""
    connection.__class__ = SharedConnection


def unshare(connection: Connection) -> None:
    """Use the plain names again, as the log was not created."""
    connection.__class__ = Connection


def name_in_file(connection: object, name: str) -> str:
    """Return the name that a table, index or trigger of the log has in the file."""
    return f"{PREFIX}{name}" if isinstance(connection, SharedConnection) else name


def statement_in_file(connection: object, sql: str) -> str:
    """Return a statement with the names that the file has."""
    return connection.renamed(sql) if isinstance(connection, SharedConnection) else sql


def names_of_log(connection: object, names: Iterable[str]) -> set[str]:
    """
    Return names in a file as SQL uses them here.

    Where the log has a prefix, an application's table with the plain name of one of the log's is left out.
    """
    if not isinstance(connection, SharedConnection):
        return set(names)
    own = {name.removeprefix(PREFIX) for name in names if name.startswith(PREFIX)}
    return own | {name for name in names if not name.startswith(PREFIX) and name not in RESERVED}


@lru_cache(maxsize=1_024)
def _renamed(sql: str, names: frozenset[str]) -> str:
    return substituted(sql, names, PREFIX.__add__)
