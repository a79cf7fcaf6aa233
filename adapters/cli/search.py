"""
``eventlog search``: search items by text and by filters.

Documents of ``--json``, one per line: ``item`` (session_id, branch_ids, added_on,
is_active, turn: null if removed, position, index, type, role,
tool_name, occurred_at, snippet, hit: [start, end] in it, cursor, item), newest first, and at the end
``searched`` (items, indexed, scanned, after: the cursor of the last item if there are more).
"""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Any

from rich.padding import Padding
from rich.text import Text

from agents_eventlog import projections
from agents_eventlog.adapters.cli import terminal
from agents_eventlog.adapters.conversations import item_search, summary
from agents_eventlog.adapters.conversations.printable import printable
from agents_eventlog.eventlog.errors import InvalidQueryError
from agents_eventlog.projections.background import build_incrementally
from agents_eventlog.projections.search import index as search_index

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import Console

    from agents_eventlog.adapters.conversations.item_search import ItemHit, SearchResults
    from agents_eventlog.adapters.conversations.log import ConversationLog


def run(
    path: Path,
    text: str | None,
    *,
    since: str | None,
    until: str | None,
    limit: int,
    after: str | None,
    include_removed: bool,
    index: bool,
    as_json: bool,
    **which: Any,
) -> None:
    """Search, and print the results. Raises an EventLogError."""
    which.update(since=terminal.time(since), until=terminal.time(until, end_of_day=True))
    has_no_query = text is None and not any(which.values())
    with terminal.conversations(path, read_only=not index) as log:
        which["session_id"] = terminal.session_of(log, which["session_id"])
        if index:
            build_index(log, shown=not as_json)
        if index and has_no_query:
            return
        try:
            found = asyncio.run(
                log.find_items(
                    text, limit=limit, after=after, include_removed=include_removed, **which
                )
            )
        except InvalidQueryError as error:
            terminal.fail(terminal.ExitCode.USAGE, error)
    if as_json:
        for document in item_search.documents(found):
            terminal.print_json(document)
        return
    out, aside = terminal.console(), terminal.console(stderr=True)
    for row in found:
        _print_row(out, row)
    if not found:
        terminal.nothing("items")
    if account := _account(found, text):
        aside.print(Text(account, style="dim"), soft_wrap=True)
    if found.cursor is not None:
        aside.print(Text(f"next page: --after {found.cursor}", style="dim"), soft_wrap=True)


def build_index(log: ConversationLog, *, shown: bool) -> None:
    """Build or update the full-text index and the other tables of a file."""
    from agents_eventlog.adapters.cli import replay

    with replay.progress("indexing", shown=shown) as bar:
        build_incrementally(log.store, projections.Search(), bar.show)
    log.join(projections.default(search=True))


def _account(found: SearchResults, text: str | None) -> str:
    """Return the number of scanned events, and how to make the search faster."""
    if not found.scanned:
        return ""
    account = f"scanned {summary.counted(found.scanned, 'event')}"
    if text is None or search_index.expression(text) is None:
        return account  # no index helps
    return f"{account} (eventlog search --index builds or updates the full-text index)"


def _print_row(out: Console, row: ItemHit) -> None:
    """Print the place and role of an item, and a snippet below."""
    first, *others = map(printable, row["branch_ids"] or [row["added_on"] or ""])
    also = f" and {summary.counted(len(others), 'other')}" if others else ""
    where = Text(printable(row["session_id"]), style="bold")
    where.append(f"  {first}{also}", style="not bold cyan")
    if not row["is_active"]:
        what = "session deleted" if row["branch_ids"] else "removed"
        where.append(f"  {what}", style="not bold red")
    turn = "" if row["turn"] is None else f"turn {row['turn']}  "
    where.append(f"  {turn}{row['occurred_at'][:16]}  ", style="not bold dim")
    where.append(printable(row["tool_name"] or row["type"]), style="not bold")
    out.print(where, soft_wrap=True)
    out.print(Padding(_snippet(row["snippet"], *row["hit"]), (0, 0, 0, 2)))


def _snippet(text: str, start: int, end: int) -> Text:
    """Return a snippet on one line, with the match highlighted."""
    before, hit, after = (_on_one_line(t) for t in (text[:start], text[start:end], text[end:]))
    return Text.assemble(before, (hit, "bold reverse"), after)


def _on_one_line(text: str) -> str:
    return printable(re.sub(r"\s+", " ", text))
