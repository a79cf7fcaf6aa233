"""
``eventlog expire``: clear the sessions that have expired, and erase their contents.

The document of ``--json``: that of ``eventlog erase``.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from agents_eventlog.adapters.cli import erase, retain, terminal

if TYPE_CHECKING:
    from pathlib import Path


def run(
    path: Path,
    *,
    older_than: str | None,
    yes: bool,
    reason: str | None,
    actor: str | None,
    as_json: bool,
) -> bool:
    """Expire; return whether the file contains no copies. Raises an EventLogError."""
    age = retain.age(older_than)
    with terminal.conversations(path, read_only=not yes) as log, terminal.acting(actor):
        expired = asyncio.run(log.expire(older_than=age, dry_run=not yes, reason=reason))
    erase.print_erased(expired, dry_run=not yes, as_json=as_json)
    return expired.is_complete
