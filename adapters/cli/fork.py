"""
``eventlog fork``: create a session that begins with the items of another session's branch.

The document of ``--json``: ``fork`` (session_id, from_session_id, from_branch_id, items, turns).
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


def run(
    path: Path,
    session_id: str,
    new_session_id: str,
    *,
    branch_id: str | None,
    user_id: str | None,
    actor: str | None,
    as_json: bool,
) -> None:
    """Fork a session. Raises an EventLogError."""
    with terminal.conversations(path, read_only=False) as log, terminal.acting(actor):
        try:
            made = asyncio.run(
                log.fork(session_id, new_session_id, branch_id=branch_id, user_id=user_id)
            )
        except (ConversationError, InvalidEventError) as error:
            terminal.fail(terminal.ExitCode.USAGE, error)
    if as_json:
        terminal.print_json({"kind": "fork", **made})
        return
    counts = f"{summary.counted(made['items'], 'item')}, {summary.counted(made['turns'], 'turn')}"
    line = (
        f"forked {made['from_branch_id']!r} of session {session_id!r} "
        f"into session {new_session_id!r}: {counts}"
    )
    terminal.console().print(Text(printable(line)), soft_wrap=True)
