"""
``eventlog init``: create a log with its projections, and the rights of an application's role.

Document of ``--json``: ``initialized`` (path, created, role).
"""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

from rich.text import Text

from agents_eventlog import projections
from agents_eventlog.adapters.cli import terminal
from agents_eventlog.adapters.cli.terminal import ExitCode
from agents_eventlog.adapters.conversations.printable import printable
from agents_eventlog.eventlog import leases
from agents_eventlog.eventlog.log import EventLog

if TYPE_CHECKING:
    from pathlib import Path

    from agents_eventlog.eventlog.storage.transaction import Transaction


def run(path: Path, *, role: str | None, search: bool, as_json: bool) -> None:
    """Create a log unless it exists, and grant rights. Raises an EventLogError."""
    created = False

    def on_create(_: Transaction) -> None:
        nonlocal created
        created = True

    kept = projections.default(search=search)
    with terminal.explain_foreign_file(path):
        log = EventLog.open_sync(path, projections=kept, on_create=on_create)
    with closing(log):
        if role is not None:
            grant(log, role)
        name = log.path
    if as_json:
        terminal.print_json({"kind": "initialized", "path": name, "created": created, "role": role})
        return
    line = f"{'created' if created else 'found'} {name}"
    if role is not None:
        line += f"; the role {role} can append and read"
    terminal.console().print(Text(printable(line)), soft_wrap=True)


def grant(log: EventLog, role: str) -> None:
    """Grant the rights of an application; exit with USAGE where that is impossible."""

    def unit(tx: Transaction) -> None:
        leases.prepare(tx)
        tx.engine.grant(tx, role)

    try:
        log.store.write_sync(unit)
    except ValueError as error:
        terminal.fail(ExitCode.USAGE, error)
