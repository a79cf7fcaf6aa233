"""Tables as SQLite has them: how they are created, and what a schema contains."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Sequence
from functools import cache, partial

from agents_eventlog.eventlog.storage.engine import CREATE_FULL_TEXT, Table
from agents_eventlog.eventlog.storage.renaming import with_suffixes
from agents_eventlog.eventlog.storage.sqlite import full_text, prefix
from agents_eventlog.eventlog.storage.transaction import Transaction

NAMES = """
    SELECT name FROM sqlite_schema
    WHERE type IN ('table', 'view') AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'
"""
TABLES = """
    SELECT made.name, known.type = 'virtual'
    FROM sqlite_schema AS made
    JOIN pragma_table_list AS known ON known.schema = 'main' AND known.name = made.name
    WHERE known.type IN ('table', 'virtual')
    ORDER BY made.rowid
"""
MADE = "SELECT type, sql FROM main.sqlite_schema WHERE name = ?"
INDEXES = """
    SELECT name, sql FROM main.sqlite_schema
    WHERE type = 'index' AND tbl_name = ? AND sql IS NOT NULL
"""
COLUMNS = "SELECT name, pk, hidden FROM pragma_table_xinfo(?)"

_PLAIN_TABLE = re.compile(r"\s*CREATE\s+TABLE\b.*\)\s*", re.IGNORECASE | re.DOTALL)
_ROWID_KEY = re.compile(r"\bINTEGER\b[^,]*\bPRIMARY\s+KEY\b", re.IGNORECASE)
_KEY = re.compile(r"\bPRIMARY\s+KEY\b", re.IGNORECASE)


def names(tx: Transaction) -> set[str]:
    """Return the names of the file's tables and views, as SQL uses them, without SQLite's own."""
    return prefix.names_of_log(tx.connection, [name for (name,) in tx.all(NAMES)])


def drop(tx: Transaction, name: str) -> None:
    """Drop a table or view of the file, if it exists."""
    name_in_file = prefix.name_in_file(tx.connection, name)
    kind = tx.one("SELECT type FROM main.sqlite_schema WHERE name = ?", (name_in_file,))
    if kind is not None:
        tx.execute(f'DROP {kind[0]} main."{name_in_file}"')


def keep(tx: Transaction, names: Sequence[str], suffix: str) -> list[str]:
    """Add a suffix to the names of tables, of their indexes, and of views that read these tables."""
    in_file = {prefix.name_in_file(tx.connection, name): name for name in names}
    run = partial(
        sqlite3.Connection.execute, tx.connection
    )  # statements with the names in the file
    found = {name: run(MADE, (name,)).fetchone() for name in in_file}
    views = {name: row[1] for name, row in found.items() if row is not None and row[0] == "view"}
    tables = [name for name, row in found.items() if row is not None and row[0] == "table"]
    for name in views:
        run(f'DROP VIEW main."{name}"')
    for name in tables:
        indexes = run(INDEXES, (name,)).fetchall()
        for index, _ in indexes:
            run(f'DROP INDEX main."{index}"')
        run(
            "PRAGMA legacy_alter_table=ON"
        )  # or views of others that read the table would follow it
        run(f'ALTER TABLE main."{name}" RENAME TO "{name}{suffix}"')
        run("PRAGMA legacy_alter_table=OFF")
        for index, sql in indexes:
            head, parenthesis, columns = sql.partition("(")
            suffixes = frozenset({(index.lower(), suffix), (name.lower(), suffix)})
            run(with_suffixes(head, suffixes) + parenthesis + columns)
    if not tables:
        return []
    suffixes = frozenset((name.lower(), suffix) for name in (*views, *tables))
    for sql in views.values():
        run(with_suffixes(sql, suffixes))
    return [in_file[name] for name in (*views, *tables)]


def create_statement(statement: str) -> str:
    """
    Return a CREATE statement as SQLite takes it.

    A table becomes STRICT, and WITHOUT ROWID if it has a key that is not one integer. One that already says
    how it is stored, after its closing parenthesis, is left unchanged.
    """
    if statement == CREATE_FULL_TEXT:
        return full_text.CREATE
    if not _PLAIN_TABLE.fullmatch(statement):
        return statement
    has_rowid = _ROWID_KEY.search(statement) or not _KEY.search(statement)
    return f"{statement.rstrip()} {'STRICT' if has_rowid else 'STRICT, WITHOUT ROWID'}"


@cache  # each new file asks several times, and parsing takes SQLite milliseconds
def tables(schema: Sequence[str]) -> tuple[Table, ...]:
    """
    Return the tables of a schema, as SQLite parses it.

    A virtual table has its columns and the rowid; the tables in which SQLite stores it are not listed.
    """
    scratch = sqlite3.connect(":memory:")
    try:
        for statement in schema:
            scratch.execute(create_statement(statement))
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


def copy_from_scratch(tx: Transaction, table: Table) -> None:
    """Fill an empty table. With ``SELECT *`` SQLite copies records and indexes unchanged."""
    if table.is_plain:
        tx.execute(f'INSERT INTO main."{table.name}" SELECT * FROM scratch."{table.name}"')
        return
    columns = ", ".join(f'"{column}"' for column in table.columns)
    tx.execute(
        f'INSERT INTO main."{table.name}" ({columns}) SELECT {columns} FROM scratch."{table.name}"'
    )
