"""
``eventlog tools``: count tool calls and failures.

Documents of ``--json``, one per line: ``tool`` (tool_name, session_id and day as selected by ``--by``;
calls, failures, unanswered), in the order of the table.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from rich.text import Text

from agents_eventlog.adapters.cli import layout, terminal
from agents_eventlog.adapters.cli.layout import Column
from agents_eventlog.adapters.conversations.printable import printable
from agents_eventlog.eventlog.errors import InvalidQueryError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

NUMBERS = ("calls", "failures", "unanswered")


def run(
    path: Path,
    *,
    by: Sequence[str],
    session_id: str | None,
    user_id: str | None,
    since: str | None,
    until: str | None,
    as_json: bool,
) -> None:
    """Print the counts of tool calls. Raises an EventLogError."""
    first, last = terminal.time(since), terminal.time(until, end_of_day=True)
    try:
        with terminal.conversations(path, read_only=True) as log:
            session = terminal.session_of(log, session_id)
            rows = asyncio.run(
                log.tools(by, session_id=session, user_id=user_id, since=first, until=last)
            )
            short = terminal.shorter(
                log, {row["session_id"] for row in rows if "session_id" in row}
            )
    except InvalidQueryError as error:
        terminal.fail(terminal.ExitCode.USAGE, error)
    if as_json:
        for row in rows:
            terminal.print_json({"kind": "tool", **row})
        return
    if not rows:
        terminal.nothing("tool calls")
        return
    columns = [
        Column(name.removesuffix("_name").removesuffix("_id"), right=name in NUMBERS)
        for name in rows[0]
    ]
    cells = [
        [
            Text(f"{value:,}" if isinstance(value, int) else printable(str(value or "-")))
            for value in row.values()
        ]
        for row in rows
    ]
    out = terminal.console()
    width = terminal.table_width(out)
    out.print(layout.table(columns, cells, width=width, shorter=short), soft_wrap=True)
