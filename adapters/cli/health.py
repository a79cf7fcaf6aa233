"""
``eventlog health``: whether a log can be used, for probes.

The document of ``--json``: ``health`` (path, ok, is_writable, events, projections: projection, version,
events_behind, problems).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.text import Text

from agents_eventlog.adapters.cli import terminal
from agents_eventlog.adapters.conversations import health, summary
from agents_eventlog.adapters.conversations.printable import printable

if TYPE_CHECKING:
    from pathlib import Path


def run(path: Path, *, as_json: bool) -> bool:
    """Print the state of a log; return whether nothing needs action. Raises an OpenError."""
    with terminal.opened(path, read_only=True) as log:
        found = log.store.read_sync(health.check)
    if as_json:
        terminal.print_json(found.document(log.path))
        return found.ok
    out = terminal.console()
    for problem in found.problems:
        out.print(Text(printable(f"problem  {problem}"), style="bold red"), soft_wrap=True)
    state = Text("healthy", style="green") if found.ok else Text("not healthy", style="bold red")
    access = "writable" if found.is_writable else "read-only"
    behind = max(each.events_behind for each in found.projections)
    lag = "tables up to date"
    if behind:
        lag = f"tables {summary.counted(behind, 'event')} behind"
    out.print(state.append(f": {access}, {summary.counted(found.events, 'event')}, {lag}"))
    return found.ok
