"""
``eventlog doctor``: what a file is and holds, and what needs doing.

Documents of ``--json``, one a line: ``file`` (path, bytes, wal_bytes, free_bytes, schema_version, events,
sessions, first_recorded_at, last_recorded_at, head: position, digest, journal_mode, sqlite_version),
``events`` (type, events, bytes, erased), ``table`` (table, bytes, is_estimate), ``note`` and ``finding``
(subject, problem, advice), and at the end ``diagnosed`` (ok). Only findings need something done.
"""

from __future__ import annotations

import sqlite3
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from rich import box
from rich.table import Table
from rich.text import Text

from agents_eventlog.adapters.cli import terminal
from agents_eventlog.adapters.cli.terminal import printable
from agents_eventlog.adapters.conversations import doctor_checks, summary, timestamps
from agents_eventlog.eventlog import payloads
from agents_eventlog.eventlog.appender import read_head

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rich.console import Console

    from agents_eventlog.adapters.conversations.doctor_checks import Complaint
    from agents_eventlog.eventlog import EventLog
    from agents_eventlog.eventlog.events import JSON
    from agents_eventlog.eventlog.storage.transaction import Transaction

RECORDED = """
    SELECT COUNT(*), COUNT(DISTINCT session_id), MIN(recorded_at), MAX(recorded_at) FROM events
"""
BYTES_BY_TABLE = """
    SELECT s.tbl_name, SUM(d.pgsize)
    FROM (SELECT name, pgsize FROM dbstat WHERE aggregate = TRUE) AS d
    JOIN sqlite_schema AS s ON s.name = d.name
    GROUP BY s.tbl_name ORDER BY 2 DESC, 1
"""
TABLES = "SELECT name FROM sqlite_schema WHERE type = 'table' AND sql LIKE 'CREATE TABLE%'"


class TableSize(NamedTuple):
    """How much of the file a table takes, with its indexes unless it is an estimate."""

    table: str
    bytes: int
    is_estimate: bool


def run(path: Path, *, as_json: bool) -> bool:
    """Print what a file is and what needs doing; return whether nothing does."""
    with terminal.opened(path, read_only=True) as log:
        complaints = _complaints(log)
        facts: dict[str, JSON] = {}
        types: list[tuple[Any, ...]] = []
        sizes: list[TableSize] = []

        def look() -> list[Complaint]:
            facts.update(log.store.read_sync(partial(_facts, path=Path(log.path))))
            types.extend(log.store.read_sync(payloads.sizes))
            sizes.extend(log.store.read_sync(table_sizes))
            return []

        complaints = [*doctor_checks.guarded(look, "file"), *complaints]
    ok = all(complaint.is_note for complaint in complaints)
    if as_json:
        _print_json(facts, types, sizes, complaints, ok=ok)
    else:
        _print(terminal.console(), facts, types, sizes, complaints, ok=ok)
    return ok


def _complaints(log: EventLog) -> list[Complaint]:
    found: list[Complaint] = []
    in_log: tuple[tuple[str, Callable[[Transaction], Iterator[Complaint]]], ...] = (
        ("file", doctor_checks.of_database),
        ("projections", doctor_checks.of_projections),
        ("sessions", doctor_checks.of_sessions),
        ("the SDK's tables", doctor_checks.of_sdk_tables),
        ("erasing", doctor_checks.of_erasing),
    )
    for subject, check in in_log:

        def run_check(
            check: Callable[[Transaction], Iterator[Complaint]] = check,
        ) -> list[Complaint]:
            return log.store.read_sync(lambda tx: list(check(tx)))

        found += doctor_checks.guarded(run_check, subject)
    return [*found, *doctor_checks.of_surroundings(Path(log.path)), *doctor_checks.of_sqlite()]


def _facts(tx: Transaction, path: Path) -> dict[str, JSON]:
    def pragma(name: str) -> Any:
        return tx.connection.execute(f"PRAGMA {name}").fetchone()[0]

    events, sessions, first, last = tx.one(RECORDED) or (0, 0, None, None)
    head = read_head(tx)
    return {
        "path": str(path),
        "bytes": path.stat().st_size,
        "wal_bytes": doctor_checks.wal_bytes(path),
        "free_bytes": pragma("freelist_count") * pragma("page_size"),
        "schema_version": pragma("user_version"),
        "events": events,
        "sessions": sessions,
        "first_recorded_at": None if first is None else timestamps.iso(first),
        "last_recorded_at": None if last is None else timestamps.iso(last),
        "head": {"position": head.position, "digest": head.digest.hex()},
        "journal_mode": doctor_checks.journal_mode(tx),
        "sqlite_version": sqlite3.sqlite_version,
    }


def table_sizes(tx: Transaction) -> list[TableSize]:
    """Return what each table takes: pages where SQLite can tell, else the length of its values."""
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


# -- printing -----------------------------------------------------------------------------------


def _print_json(
    facts: dict[str, JSON],
    types: list[tuple[Any, ...]],
    sizes: list[TableSize],
    complaints: list[Complaint],
    *,
    ok: bool,
) -> None:
    if facts:
        terminal.print_json({"kind": "file", **facts})
    for row in types:
        terminal.print_json(
            {"kind": "events", **dict(zip(("type", "events", "bytes", "erased"), row, strict=True))}
        )
    for size in sizes:
        terminal.print_json({"kind": "table", **size._asdict()})
    for complaint in complaints:
        document = complaint._asdict()
        kind = "note" if document.pop("is_note") else "finding"
        terminal.print_json({"kind": kind, **document})
    terminal.print_json({"kind": "diagnosed", "ok": ok})


def _print(
    out: Console,
    facts: dict[str, JSON],
    types: list[tuple[Any, ...]],
    sizes: list[TableSize],
    complaints: list[Complaint],
    *,
    ok: bool,
) -> None:
    if facts:
        _print_facts(out, facts)
    if types:
        table = _table("event", "events", "bytes", "erased")
        for kind, events, size, erased in types:
            table.add_row(Text(printable(kind)), f"{events:,}", f"{size:,}", f"{erased:,}")
        out.print(table)
    if sizes:
        estimate = " (estimate)" if sizes[0].is_estimate else ""
        table = _table("table", f"bytes{estimate}")
        for size in sizes:
            table.add_row(Text(printable(size.table)), f"{size.bytes:,}")
        out.print(table)
    for complaint in complaints:
        word, style = ("note", "yellow") if complaint.is_note else ("finding", "bold red")
        line = Text(f"{word}  ", style=style)
        line.append(
            printable(f"{complaint.subject}: {complaint.problem}"), style="not bold default"
        )
        out.print(line)
        out.print(Text(printable(f"  -> {complaint.advice}"), style="dim"))
    findings = sum(not complaint.is_note for complaint in complaints)
    if ok:
        out.print(Text("nothing needs doing", style="green"))
    else:
        out.print(Text(f"{summary.counted(findings, 'thing')} to do", style="bold red"))


def _print_facts(out: Console, facts: dict[str, JSON]) -> None:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    size = f"{facts['bytes']:,} bytes, {facts['free_bytes']:,} of them free"
    wal = f"{facts['wal_bytes']:,} bytes"
    held = f"{summary.counted(facts['events'], 'event')} of "
    held += summary.counted(facts["sessions"], "session")
    times = f"{facts['first_recorded_at']} to {facts['last_recorded_at']}"
    durability = (
        f"journal mode {facts['journal_mode']}; a commit survives power loss unless its program "
        'opened the log with durability="normal"'
    )
    for name, value in (
        ("file", facts["path"]),
        ("what", f"an event log, schema version {facts['schema_version']}"),
        ("size", size),
        ("write-ahead log", wal),
        ("holds", held),
        ("recorded", times if facts["events"] else "nothing yet"),
        ("durability", durability),
        ("SQLite", facts["sqlite_version"]),
    ):
        grid.add_row(name, Text(printable(str(value))))
    out.print(grid)


def _table(*titles: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="dim")
    for index, title in enumerate(titles):
        table.add_column(title, justify="right" if index else "left", overflow="fold")
    return table
