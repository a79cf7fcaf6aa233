"""What ``eventlog doctor`` reports about an SQLite file, besides damage."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from agents_eventlog.eventlog.events import JSON
from agents_eventlog.eventlog.storage.engine import Problem, TableSize
from agents_eventlog.eventlog.storage.sqlite import prefix, schema, wal_reset_bug
from agents_eventlog.eventlog.storage.sqlite.connections import WAL_SIZE_LIMIT_BYTES
from agents_eventlog.eventlog.storage.sqlite.scratch import leftovers
from agents_eventlog.eventlog.storage.transaction import Transaction

TRIGGERS = "SELECT name, sql FROM sqlite_schema WHERE type = 'trigger' AND tbl_name = 'events'"
BYTES_BY_TABLE = """
    SELECT s.tbl_name, SUM(d.pgsize)
    FROM (SELECT name, pgsize FROM dbstat WHERE aggregate = TRUE) AS d
    JOIN sqlite_schema AS s ON s.name = d.name
    GROUP BY s.tbl_name ORDER BY 2 DESC, 1
"""
TABLES = "SELECT name FROM sqlite_schema WHERE type = 'table' AND sql LIKE 'CREATE TABLE%'"


def problems(tx: Transaction) -> Iterator[Problem]:
    """Yield what needs attention in the file, in the files beside it, and in SQLite itself."""
    yield from _file_problems(tx)
    yield from _trigger_problems(tx)
    yield from _problems_beside(_file(tx))
    yield from version_problems(sqlite3.sqlite_version_info)


def _file_problems(tx: Transaction) -> Iterator[Problem]:
    for (problem,) in tx.all("PRAGMA quick_check(10)"):
        if problem != "ok":
            yield Problem("file", str(problem), "restore a copy; run `eventlog verify` for details")
    mode = journal_mode(tx)
    if mode != "wal":
        yield Problem(
            "file",
            f"its journal mode is {mode!r}: readers and writers wait for each other",
            "set it once, while no program has the file open: PRAGMA journal_mode=WAL",
        )


def _trigger_problems(tx: Transaction) -> Iterator[Problem]:
    present = {name: _spaced(sql) for name, sql in tx.all(TRIGGERS)}
    for name, sql in schema.triggers(tx).items():
        if present.get(prefix.name_in_file(tx.connection, name)) != _spaced(
            prefix.statement_in_file(tx.connection, sql)
        ):
            yield Problem(
                "events",
                f"the trigger {name!r} is missing or changed: events can be altered",
                "run `eventlog verify` with a head kept elsewhere, then create the trigger again",
            )


def _spaced(sql: str) -> str:
    return " ".join(sql.split())


def _problems_beside(path: Path) -> Iterator[Problem]:
    size = wal_bytes(path)
    if size > WAL_SIZE_LIMIT_BYTES:
        yield Problem(
            "write-ahead log",
            f"it has {size:,} bytes",
            "end programs that keep a reading transaction open; the next commits then shorten it",
        )
    for file in leftovers(str(path)):
        yield Problem(
            "replay", f"{file.name} was left by a killed replay", "the next replay removes it"
        )


def version_problems(version: tuple[int, ...]) -> Iterator[Problem]:
    """Yield the problems of a version of SQLite."""
    if wal_reset_bug.is_in(version):
        name = ".".join(map(str, version))
        problem = f"{name} {wal_reset_bug.DESCRIPTION}"
        yield Problem("SQLite", problem, wal_reset_bug.ADVICE, is_note=True)


def journal_mode(tx: Transaction) -> str:
    """Return a file's journal mode, also of a file that SQLite had to open as immutable."""
    mode = str(_pragma(tx, "journal_mode"))
    if mode == "wal":
        return mode
    try:
        with closing(sqlite3.connect(f"{_file(tx).as_uri()}?mode=ro", uri=True)) as plain:
            plain.execute("SELECT 1 FROM sqlite_schema").fetchone()
    except sqlite3.OperationalError as error:
        # Only a write-ahead log needs files beside it, which cannot be created in this folder.
        code = error.sqlite_errorcode & 0xFF
        return "wal" if code in {sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY} else mode
    return mode


def _file(tx: Transaction) -> Path:
    return Path(tx.all("PRAGMA database_list")[0][2])


def wal_bytes(path: Path) -> int:
    """Return the size of the write-ahead log beside a file."""
    try:
        return path.with_name(f"{path.name}-wal").stat().st_size
    except OSError:
        return 0


def is_writable(tx: Transaction) -> bool:
    """Whether this user may write the file, and create SQLite's files beside it."""
    path = _file(tx)
    return os.access(path, os.W_OK) and os.access(path.parent, os.W_OK)


def facts(tx: Transaction) -> dict[str, JSON]:
    """Return what the file is and how large."""
    path = _file(tx)
    return {
        "bytes": path.stat().st_size,
        "wal_bytes": wal_bytes(path),
        "free_bytes": _pragma(tx, "freelist_count") * _pragma(tx, "page_size"),
        "schema_version": schema.schema_version(tx),
        "journal_mode": journal_mode(tx),
        "sqlite_version": sqlite3.sqlite_version,
    }


def _pragma(tx: Transaction, name: str) -> Any:
    row = tx.one(f"PRAGMA {name}")
    return None if row is None else row[0]


def table_sizes(tx: Transaction) -> list[TableSize]:
    """Return the size of each table: its pages if SQLite knows them, else the length of its values."""
    try:
        return [TableSize(name, size, is_estimate=False) for name, size in tx.all(BYTES_BY_TABLE)]
    except sqlite3.OperationalError:
        return estimated_sizes(tx)  # dbstat is not compiled in


def estimated_sizes(tx: Transaction) -> list[TableSize]:
    """Return the length of each table's values, the largest first."""
    sizes = []
    for (name,) in tx.all(TABLES):
        quoted = '"' + name.replace('"', '""') + '"'
        columns = tx.all("SELECT name FROM pragma_table_info(?)", (name,))
        quoted_columns = ['"' + column.replace('"', '""') + '"' for (column,) in columns]
        length = " + ".join(f"COALESCE(LENGTH(CAST({c} AS BLOB)), 1)" for c in quoted_columns)
        row = tx.one(f"SELECT COALESCE(SUM({length}), 0) FROM {quoted}")
        sizes.append(TableSize(name, 0 if row is None else int(row[0]), is_estimate=True))
    return sorted(sizes, key=lambda size: (-size.bytes, size.table))
