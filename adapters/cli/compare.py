"""
``eventlog compare``: two branches of a session, turn beside turn.

Documents of ``--json``, one per line: ``comparison`` (session_id, a, b, shared_turns, shared_items,
total_a, total_b), then for each turn after the shared ones ``turn`` (turn, a, b). A side is null if the
branch does not have the turn, and otherwise requests, input_tokens, output_tokens, total_tokens,
total_cost, unpriced_requests, models, seconds, started_at and items, each with turn, position, index,
version, time, branch_id, actor, item, is_erased, is_redacted, withheld.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich import box
from rich.table import Table
from rich.text import Text

from agents_eventlog import projections
from agents_eventlog.adapters.cli import terminal
from agents_eventlog.adapters.conversations import comparison, event_descriptions, summary
from agents_eventlog.adapters.conversations.comparison_at import compare
from agents_eventlog.adapters.conversations.printable import printable
from agents_eventlog.eventlog.errors import ConversationError

if TYPE_CHECKING:
    from pathlib import Path

    from agents_eventlog.adapters.conversations.comparison import (
        BranchComparison,
        TurnSide,
        TurnUsage,
    )
    from agents_eventlog.eventlog.storage.transaction import Transaction


def run(path: Path, session_id: str, a: str, b: str, *, as_json: bool) -> None:
    """Print the comparison of two branches. Raises an EventLogError."""
    with terminal.opened(path, read_only=True) as log:
        session = terminal.session_of(log, session_id)

        def unit(tx: Transaction) -> BranchComparison:
            projections.default().require_fresh(tx)
            return compare(tx, session, a, b)

        try:
            found = log.store.read_sync(unit)
        except ConversationError as error:
            terminal.fail(terminal.ExitCode.USAGE, error)
    if as_json:
        for document in comparison.documents(session, found):
            terminal.print_json(document)
        return
    turns = summary.counted(found["shared_turns"], "turn")
    items = summary.counted(found["shared_items"], "item")
    out = terminal.console()
    out.print(Text(f"{printable(session)}  {turns}, {items} shared", style="bold"))
    out.print(_table(found))


def _table(found: BranchComparison) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold", show_lines=False)
    table.add_column("turn", justify="right", style="dim")
    for name in (found["a"], found["b"]):
        table.add_column(Text(printable(name)), overflow="fold", ratio=1)
    for turn in found["turns"]:
        table.add_row(str(turn["turn"]), _cell(turn["a"]), _cell(turn["b"]))
    table.add_section()
    table.add_row("", _numbers(found["total_a"]), _numbers(found["total_b"]))
    return table


def _cell(side: TurnSide | None) -> Text:
    if side is None:
        return Text("-", style="dim")
    cell = Text()
    for row in side["items"]:
        told = f"({row['withheld']})" if row["withheld"] else event_descriptions.brief(row["item"])
        cell.append(f"{printable(told)}\n")
    return cell.append_text(_numbers(side))


def _numbers(used: TurnUsage) -> Text:
    unpriced = "+" if used["unpriced_requests"] else ""
    parts = [
        summary.counted(used["total_tokens"], "token"),
        f"${summary.usd(used['total_cost'])}{unpriced}",
        f"{used['seconds']:,.1f} s",
        *map(printable, used["models"]),
    ]
    return Text(", ".join(parts), style="dim")
