"""What a projection is."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from functools import cache
from typing import ClassVar, NamedTuple, Protocol

from agents_eventlog.eventlog.events import Event
from agents_eventlog.eventlog.recorded_event import Recorded
from agents_eventlog.eventlog.storage.transaction import Transaction


class Projection(Protocol):
    """
    Tables that a builder derives from events; a replay can rebuild them. Subclass it.

    A builder is deterministic: no clock, no randomness, no reading outside its own tables, so that the
    same events always give the same rows. It is given its events in the order of the log, one at a
    time or thousands, and must not care how they are cut into batches.

    An event whose content was erased has its structure in place of its content, and ``is_erased`` is
    true: the same number of items, of the same kinds. A builder that keeps content also handles
    ``ContentErased``, and removes what its tables hold of those positions.
    """

    name: ClassVar[str]
    """Under which its checkpoint is kept."""

    version: ClassVar[int]
    """Bump it when the builder or its tables change; the tables are then replayed."""

    schema: ClassVar[Sequence[str]]
    """The CREATE TABLE and CREATE INDEX statements. Only primary keys may be unique."""

    handles: ClassVar[Sequence[type[Event]]]
    """The events it wants to see."""

    is_built_in_steps: ClassVar[bool] = False
    """Whether its readers cope with tables that show less than the log, so that writers need not wait."""

    def apply(self, tx: Transaction, events: Sequence[Recorded]) -> None:
        """Change the tables by what these events say."""


class Table(NamedTuple):
    """A projection's table: its columns, those that make its key, and whether rows hold nothing else."""

    name: str
    columns: tuple[str, ...]
    key: tuple[str, ...]
    is_plain: bool


TABLES = """
    SELECT made.name, known.type = 'virtual'
    FROM sqlite_schema AS made
    JOIN pragma_table_list AS known ON known.schema = 'main' AND known.name = made.name
    WHERE known.type IN ('table', 'virtual')
    ORDER BY made.rowid
"""
COLUMNS = "SELECT name, pk, hidden FROM pragma_table_xinfo(?)"


def tables(projection: Projection) -> list[Table]:
    """
    Return a projection's tables, as SQLite understands its schema.

    A virtual one is its rows, by rowid; the tables in which it keeps them are its own affair.
    """
    return list(_tables(tuple(projection.schema)))


@cache  # each new file asks several times, and parsing takes SQLite milliseconds
def _tables(schema: tuple[str, ...]) -> tuple[Table, ...]:
    scratch = sqlite3.connect(":memory:")
    try:
        for statement in schema:
            scratch.execute(statement)
        return tuple(
            _table(scratch, name, is_virtual=bool(is_virtual))
            for name, is_virtual in scratch.execute(TABLES).fetchall()
        )
    finally:
        scratch.close()


def _table(connection: sqlite3.Connection, name: str, *, is_virtual: bool) -> Table:
    info = connection.execute(COLUMNS, (name,)).fetchall()
    columns = tuple(column for column, _, hidden in info if not hidden)
    is_plain = len(columns) == len(info)
    if is_virtual:
        return Table(name, ("rowid", *columns), ("rowid",), is_plain)
    key = tuple(
        column for _, column in sorted((place, column) for column, place, _ in info if place)
    )
    return Table(name, columns, key or columns, is_plain)
