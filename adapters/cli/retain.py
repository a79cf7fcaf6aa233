"""
``eventlog retain``: delete sessions that were not used for long, and erase those deleted for long.

Documents of ``--json``, one per line: those of ``eventlog delete`` and of ``eventlog erase``.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from agents_eventlog.adapters.cli import erase, sessions, terminal
from agents_eventlog.adapters.conversations import timestamps

if TYPE_CHECKING:
    from datetime import timedelta
    from pathlib import Path


def run(
    path: Path,
    *,
    delete_after: str | None,
    erase_after: str | None,
    yes: bool,
    reason: str | None,
    actor: str | None,
    as_json: bool,
) -> bool:
    """Delete and erase; return whether the file contains no copies. Raises an EventLogError."""
    if delete_after is None and erase_after is None:
        terminal.fail(terminal.ExitCode.USAGE, "pass --delete-after, --erase-after or both")
    ages = age(delete_after), age(erase_after)
    with terminal.conversations(path, read_only=not yes) as log, terminal.acting(actor):
        done = asyncio.run(
            log.retain(delete_after=ages[0], erase_after=ages[1], dry_run=not yes, reason=reason)
        )
    if done.deletion is not None:
        (sessions.print_documents if as_json else sessions.print_deletion)(done.deletion)
    if done.erasure is not None:
        erase.print_erased(done.erasure, dry_run=not yes, as_json=as_json)
    return done.erasure is None or done.erasure.is_complete


def age(text: str | None) -> timedelta | None:
    """Parse the age of an option; exit with USAGE for an invalid one."""
    try:
        return None if text is None else timestamps.duration(text)
    except ValueError as error:
        terminal.fail(terminal.ExitCode.USAGE, error)
