"""
``eventlog sessions``, ``delete`` and ``restore``: list, delete and restore sessions.

Documents of ``--json``, one per line. ``sessions``: ``session`` (a row of ``list_sessions``, with its
``cursor`` for ``--after``), in order. ``delete``: ``session`` (session_id), oldest first, then ``receipt``
(sessions, items, total_tokens, total_cost, unpriced_requests, dry_run). ``restore``: ``restored``
(session_id).
"""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

from rich.text import Text

from agents_eventlog.adapters.cli import layout, terminal
from agents_eventlog.adapters.cli.layout import Column
from agents_eventlog.adapters.conversations import sessions as session_calls
from agents_eventlog.adapters.conversations import summary
from agents_eventlog.adapters.conversations.printable import printable
from agents_eventlog.eventlog.errors import (
    ConversationError,
    InvalidQueryError,
    UnserialisableError,
)

if TYPE_CHECKING:
    from pathlib import Path

    from agents_eventlog.adapters.cli.options import Which
    from agents_eventlog.adapters.conversations.sessions import Deletion, SessionRow
    from agents_eventlog.projections.sessions.filters import OrderBy, SessionFilters

NAMED = 20
"""Maximum number of deleted sessions printed for people."""


def _filters(which: Which) -> SessionFilters:
    """Return the parsed filters; exit with USAGE for an invalid time or JSON."""
    metadata = which["metadata"]
    return {
        "user_id": which["user"],
        "metadata": None if metadata is None else _json(metadata),
        "created_after": terminal.time(which["created_after"]),
        "created_before": terminal.time(which["created_before"]),
        "updated_after": terminal.time(which["updated_after"]),
        "updated_before": terminal.time(which["updated_before"]),
        "text": which["text"],
        "min_items": which["min_items"],
    }


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        terminal.fail(
            terminal.ExitCode.USAGE, f"invalid --metadata: expected a JSON object, got {text!r}"
        )


# -- listing ------------------------------------------------------------------------------------


def run(
    path: Path,
    which: Which,
    *,
    session_id: str | None,
    deleted: bool,
    order_by: OrderBy,
    reverse: bool,
    limit: int,
    after: str | None,
    as_json: bool,
) -> None:
    """Print a page of sessions. Raises an EventLogError."""
    filters = _filters(which)
    with terminal.conversations(path, read_only=True) as log:
        filters["session_id"] = terminal.session_of(log, session_id)
        try:
            rows = asyncio.run(
                log.sessions(
                    limit=limit + 1,  # one more, to detect a next page
                    after=after,
                    order_by=order_by,
                    reverse=reverse,
                    deleted=deleted,
                    **filters,
                )
            )
        except (InvalidQueryError, UnserialisableError) as error:
            terminal.fail(terminal.ExitCode.USAGE, error)
        shown = rows[:limit]
        short = {} if as_json else terminal.shorter(log, [row["session_id"] for row in shown])
    if as_json:
        for row in shown:
            terminal.print_json(session_calls.document(row))
        return
    if not shown:
        terminal.nothing("sessions")
        return
    out = terminal.console()
    table = _table(shown, short, deleted=deleted, width=terminal.table_width(out))
    out.print(table, soft_wrap=True)
    if len(rows) > limit:
        more = Text(f"next page: --after {shown[-1]['cursor']}", style="dim")
        out.print(more, soft_wrap=True)


def _table(
    rows: list[SessionRow], short: dict[str, str], *, deleted: bool, width: int | None
) -> Text:
    columns = (
        Column("session"),
        Column("title", least=12),
        Column("user", minor=1, least=8),
        Column("deleted (UTC)" if deleted else "last used (UTC)"),
        Column("turns", right=True, minor=2),
        Column("items", right=True, minor=3),
        Column("tokens", right=True),
        Column("cost", right=True),
    )
    cells = [
        (
            row["session_id"],
            row["title"] or "",
            row["user_id"] or "",
            (row["deleted_at"] or row["updated_at"])[:16],
            f"{row['turn_count']:,}",
            f"{row['item_count']:,}",
            f"{row['total_tokens']:,}",
            _cost(row["total_cost"], row["unpriced_requests"]),
        )
        for row in rows
    ]
    texts = [[Text(printable(cell)) for cell in line] for line in cells]
    return layout.table(columns, texts, width=width, shorter=short)


def _cost(cost: float, unpriced_requests: int) -> str:
    """Return a cost, with a plus if some requests have no known price."""
    return f"${summary.usd(cost)}{'+' if unpriced_requests else ''}"


# -- deleting and restoring -----------------------------------------------------------------------


def delete(
    path: Path,
    which: Which,
    *,
    session_id: str | None,
    everything: bool,
    yes: bool,
    reason: str | None,
    actor: str | None,
    as_json: bool,
) -> None:
    """Delete the sessions that match, or only list them. Raises an EventLogError."""
    filters = _filters(which)
    filters["session_id"] = session_id
    with terminal.conversations(path, read_only=not yes) as log, terminal.acting(actor):
        terminal.check_session(log, session_id)
        try:
            deletion = asyncio.run(
                log.delete_sessions(
                    dry_run=not yes, reason=reason, all_sessions=everything, **filters
                )
            )
        except InvalidQueryError as error:
            problem = str(error).replace("all_sessions=True", "--all")
            terminal.fail(terminal.ExitCode.USAGE, problem)
        except UnserialisableError as error:
            terminal.fail(terminal.ExitCode.USAGE, error)
    (print_documents if as_json else print_deletion)(deletion)


def print_documents(deletion: Deletion) -> None:
    """Print the deleted sessions and the sums for programs."""
    session_ids, *rest = deletion
    for session_id in session_ids:
        terminal.print_json({"kind": "session", "session_id": session_id})
    totals = dict(zip(deletion._fields[1:], rest, strict=True))
    terminal.print_json({"kind": "receipt", "sessions": len(session_ids), **totals})


def print_deletion(deletion: Deletion) -> None:
    """Print some of the deleted sessions and the sums for people."""
    out = terminal.console()
    for session_id in deletion.session_ids[:NAMED]:
        out.print(Text(printable(session_id)), soft_wrap=True)
    if (more := len(deletion.session_ids) - NAMED) > 0:
        out.print(f"and {more:,} more")
    cost = _cost(deletion.total_cost, deletion.unpriced_requests)
    what = f"{summary.counted(len(deletion.session_ids), 'session')}, "
    what += f"{summary.counted(deletion.items, 'item')}"
    usage = f"{summary.counted(deletion.total_tokens, 'token')} ({cost}) stay in the usage totals"
    out.print(f"{'would delete' if deletion.dry_run else 'deleted'} {what}; {usage}")
    if deletion.dry_run and deletion.session_ids:
        out.print("nothing was deleted: pass --yes to delete", style="dim")


def restore(path: Path, session_id: str, *, actor: str | None, as_json: bool) -> None:
    """Restore a session. Raises an EventLogError."""
    with terminal.conversations(path, read_only=False) as log, terminal.acting(actor):
        terminal.check_session(log, session_id)
        try:
            asyncio.run(log.restore_session(session_id))
        except ConversationError as error:
            terminal.fail(terminal.ExitCode.USAGE, error)
    if as_json:
        terminal.print_json({"kind": "restored", "session_id": session_id})
    else:
        out = terminal.console()
        out.print(Text(printable(f"restored session {session_id}")), soft_wrap=True)
