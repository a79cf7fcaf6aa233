"""
``eventlog doctor``: facts about a file, and its problems.

Documents of ``--json``, one per line: ``file`` (path, bytes, wal_bytes, free_bytes, schema_version, events,
sessions, first_recorded_at, last_recorded_at, leases: session_id, holder, since, expires_at, head:
position, digest, journal_mode, sqlite_version), ``events`` (type, events, bytes, erased), ``table`` (table,
bytes, is_estimate), ``note`` and ``finding`` (subject, problem, advice), and at the end ``diagnosed`` (ok).
Only findings need action.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich import box
from rich.table import Table
from rich.text import Text

from agents_eventlog.adapters.cli import terminal
from agents_eventlog.adapters.conversations import summary
from agents_eventlog.adapters.conversations.diagnosis import diagnose
from agents_eventlog.adapters.conversations.printable import printable

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import Console

    from agents_eventlog.adapters.conversations.diagnosis import Diagnosis
    from agents_eventlog.eventlog.events import JSON


def run(path: Path, *, as_json: bool) -> bool:
    """Print facts and problems of a file; return whether there are no findings."""
    with terminal.opened(path, read_only=True) as log:
        found = diagnose(log)
    if as_json:
        for document in found.documents():
            terminal.print_json(document)
    else:
        _print(terminal.console(), found)
    return found.ok


# -- printing -----------------------------------------------------------------------------------


def _print(out: Console, found: Diagnosis) -> None:
    facts, types, sizes, complaints = found
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
    if found.ok:
        notes = f"; {summary.counted(len(complaints), 'note')}" if complaints else ""
        out.print(Text(f"no problems found{notes}", style="green"))
    else:
        out.print(Text(f"{summary.counted(findings, 'problem')} found", style="bold red"))


def _print_facts(out: Console, facts: dict[str, JSON]) -> None:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    size = f"{facts['bytes']:,} bytes"
    if "free_bytes" in facts:
        size += f", {facts['free_bytes']:,} of them free"
    held = f"{summary.counted(facts['events'], 'event')} of "
    held += summary.counted(facts["sessions"], "session")
    times = f"{facts['first_recorded_at']} to {facts['last_recorded_at']}"
    settings = f"journal mode {facts['journal_mode']}; " if "journal_mode" in facts else ""
    durability = (
        f"{settings}a commit survives power loss unless its program "
        'opened the log with durability="normal"'
    )
    wal = [("write-ahead log", f"{facts['wal_bytes']:,} bytes")] if "wal_bytes" in facts else []
    servers = {"SQLite": "sqlite_version", "PostgreSQL": "postgres_version"}
    versions = [(name, facts[key]) for name, key in servers.items() if key in facts]
    for name, value in (
        ("file", facts["path"]),
        ("what", f"an event log, schema version {facts['schema_version']}"),
        ("size", size),
        *wal,
        ("holds", held),
        ("recorded", times if facts["events"] else "nothing yet"),
        ("durability", durability),
        *versions,
    ):
        grid.add_row(name, Text(printable(str(value))))
    for lease in facts["leases"]:
        line = f"{lease['session_id']!r}, by {lease['holder']} since {lease['since']}"
        grid.add_row("lease", Text(printable(line)))
    out.print(grid)


def _table(*titles: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="dim")
    for index, title in enumerate(titles):
        table.add_column(title, justify="right" if index else "left", overflow="fold")
    return table
