"""
``eventlog branches``: the tree of a session's branches.

Documents of ``--json``, one per line: ``branch`` (session_id, branch_id, from_branch_id, before_turn,
fork_turn: the last shared turn, last_item: [position, index] of the last item shared at the fork, items,
own_items, turns, first_words: of the first user message after the fork, created_at, last_used_at, is_live,
is_current, ended: "deleted" or "cleared", ended_at, last_version: of the session, in which it existed), in
the order of creation.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.text import Text
from rich.tree import Tree

from agents_eventlog.adapters.cli import terminal
from agents_eventlog.adapters.conversations import summary, timestamps
from agents_eventlog.adapters.conversations.branches import Branch, branches
from agents_eventlog.adapters.conversations.printable import printable
from agents_eventlog.eventlog.errors import ConversationError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


def run(path: Path, session_id: str, *, include_ended: bool, as_json: bool) -> None:
    """Print the tree of branches. Raises an EventLogError."""

    with terminal.opened(path, read_only=True) as log:
        session = terminal.session_of(log, session_id)
        try:
            found = log.store.read_sync(lambda tx: branches(tx, session))
        except ConversationError as error:
            terminal.fail(terminal.ExitCode.USAGE, error)
    shown = [branch for branch in found if branch.is_live or include_ended]
    if as_json:
        for branch in shown:
            terminal.print_json({"kind": "branch", "session_id": session, **branch.node()})
        return
    out = terminal.console()
    out.print(_tree(session, shown, found))
    if hidden := len(found) - len(shown):
        out.print(Text(f"{hidden:,} deleted: --removed shows them", style="dim"))


# -- for people ---------------------------------------------------------------------------------


def _tree(session_id: str, shown: list[Branch], found: list[Branch]) -> Tree:
    root = Tree(Text(printable(session_id), style="bold"), guide_style="dim")
    by_id = {branch.branch_id: branch for branch in found}
    nodes = {branch.branch_id: Tree(_label(branch, by_id), guide_style="dim") for branch in shown}
    for branch in shown:
        parent = _nearest(branch, by_id, nodes)
        (root if parent is None else nodes[parent]).children.append(nodes[branch.branch_id])
    return root


def _nearest(branch: Branch, by_id: Mapping[str, Branch], nodes: Mapping[str, Tree]) -> str | None:
    """Return the nearest ancestor that is shown, or None for the root."""
    passed = {branch.branch_id}
    name = branch.from_branch_id
    while name is not None and name not in passed and name in by_id:
        parent = by_id[name]
        if name in nodes and parent.created_at <= branch.created_at:
            return name
        passed.add(name)
        name = parent.from_branch_id
    return None


def _label(branch: Branch, by_id: Mapping[str, Branch]) -> Text:
    label = Text(printable(branch.branch_id), style="bold" if branch.is_live else "bold strike")
    rest = Text()
    if branch.is_live:
        own = f", {branch.own_items:,} of its own" if branch.from_branch_id is not None else ""
        turns = summary.counted(branch.turns, "turn")
        rest.append(f"  {turns}, {summary.counted(branch.items, 'item')}{own}")
    if branch.from_branch_id is not None:
        parent = by_id.get(branch.from_branch_id)
        gone = " (gone)" if parent is None or not parent.is_live else ""
        turn = branch.before_turn
        place = "at its end" if turn is None else f"before turn {turn}"
        rest.append(f"  leaves {printable(branch.from_branch_id)}{gone} {place}", style="dim")
    if branch.first_words:
        rest.append(f"  '{printable(branch.first_words)}'")
    rest.append(f"  last used {timestamps.minute(branch.last_used_at)}", style="dim")
    if branch.is_current:
        rest.append("  current", style="green")
    if branch.ended is not None and branch.ended_at is not None:
        rest.append(f"  {branch.ended} {timestamps.minute(branch.ended_at)}", style="red")
        rest.append(f"; show it with --as-of {branch.last_version}", style="dim")
    return label.append_text(rest)
