"""
``eventlog redact``: replace the content of one item by a placeholder.

The document of ``--json``: ``redaction`` (session_id, position, index, type, placeholder, copies, dry_run).
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from rich.text import Text

from agents_eventlog.adapters.cli import terminal
from agents_eventlog.adapters.conversations import summary
from agents_eventlog.adapters.conversations.printable import printable
from agents_eventlog.eventlog.errors import ConversationError, InvalidEventError

if TYPE_CHECKING:
    from pathlib import Path

    from agents_eventlog.adapters.conversations.redaction import Redaction


def run(
    path: Path,
    position: int,
    index: int,
    *,
    reason: str | None,
    actor: str | None,
    yes: bool,
    as_json: bool,
) -> None:
    """Redact an item, or show what that would do. Raises an EventLogError."""
    with terminal.conversations(path, read_only=not yes) as log, terminal.acting(actor):
        try:
            found = asyncio.run(log.redact(position, index, reason=reason, dry_run=not yes))
        except (ConversationError, InvalidEventError) as error:
            terminal.fail(terminal.ExitCode.USAGE, error)
    if as_json:
        terminal.print_json({"kind": "redaction", **found, "dry_run": not yes})
    else:
        _print(found, dry_run=not yes)


def _print(found: Redaction, *, dry_run: bool) -> None:
    out = terminal.console()
    what = f"{found['type']} item {found['index']} at position {found['position']}"
    copies = found["copies"]
    also = (
        f" and {len(copies):,} {'copy' if len(copies) == 1 else 'copies'} of it" if copies else ""
    )
    verb = "would redact" if dry_run else "redacted"
    line = f"{verb} {what} of session {found['session_id']!r}{also}"
    out.print(Text(printable(line)), soft_wrap=True)
    placeholder = summary.json_or_text(found["placeholder"])
    out.print(Text(f"its placeholder: {printable(placeholder)}", style="dim"), soft_wrap=True)
    hint = (
        "nothing was redacted: pass --yes to redact"
        if dry_run
        else "the file holds the content until `eventlog erase --popped`"
    )
    out.print(Text(hint, style="dim"), soft_wrap=True)
