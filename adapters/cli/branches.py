"""
``eventlog branches``: the tree of a session's branches.

Documents of ``--json``, one per line: ``branch`` (session_id, branch_id, from_branch_id, before_turn,
fork_turn: the last shared turn, last_item: [position, index] of the last item shared at the fork, items,
own_items, turns, first_words: of the first user message after the fork, created_at, last_used_at, is_live,
is_current, ended: "deleted" or "cleared", ended_at, last_version: of the session, in which it existed), in
the order of creation; with ``--turns`` followed by ``turn`` for each turn after its fork (branch_id, turn,
position, index, first_words, withheld: null or why they cannot be read, time, items, tools, removed: null
or how it was removed).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.text import Text
from rich.tree import Tree

from agents_eventlog.adapters.cli import show, terminal
from agents_eventlog.adapters.conversations import outline, summary, timestamps
from agents_eventlog.adapters.conversations.branches import Branch, branches
from agents_eventlog.adapters.conversations.printable import printable
from agents_eventlog.eventlog.errors import ConversationError
from agents_eventlog.projections.conversations.paths import Paths

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from agents_eventlog.adapters.conversations.outline import OutlineTurn
    from agents_eventlog.eventlog.storage.transaction import Transaction


def run(
    path: Path, session_id: str, *, include_ended: bool, shows_turns: bool, as_json: bool
) -> None:
    """Print the tree of branches. Raises an EventLogError."""
    with terminal.opened(path, read_only=True) as log:
        session = terminal.session_of(log, session_id)

        def unit(tx: Transaction) -> tuple[list[Branch], dict[str, list[OutlineTurn]]]:
            found = branches(tx, session)
            return found, _own_turns(tx, session, found) if shows_turns else {}

        try:
            found, turns = log.store.read_sync(unit)
        except ConversationError as error:
            terminal.fail(terminal.ExitCode.USAGE, error)
    shown = [branch for branch in found if branch.is_live or include_ended]
    if as_json:
        for branch in shown:
            terminal.print_json(branch.document(session))
            for turn in turns.get(branch.branch_id, ()):
                terminal.print_json(outline.document(branch.branch_id, turn))
        return
    out = terminal.console()
    out.print(_tree(session, shown, found, turns))
    if hidden := len(found) - len(shown):
        out.print(Text(f"{hidden:,} deleted: --removed shows them", style="dim"))


# -- for people ---------------------------------------------------------------------------------


def _own_turns(
    tx: Transaction, session_id: str, found: list[Branch]
) -> dict[str, list[OutlineTurn]]:
    """Return the turns after the fork of each branch; those that it had before it ended."""
    paths = Paths.read(tx, session_id)
    turns = {}
    for branch in found:
        version = paths.version if branch.last_version is None else branch.last_version
        first = (branch.fork_turn or 0) + 1
        last = paths.lifelines(branch.branch_id).last_turn(version)
        numbers = range(first, last + 1)
        turns[branch.branch_id] = outline.rows(
            tx, paths, session_id, branch.branch_id, version, numbers
        )
    return turns


def _tree(
    session_id: str,
    shown: list[Branch],
    found: list[Branch],
    turns: Mapping[str, list[OutlineTurn]],
) -> Tree:
    root = Tree(Text(printable(session_id), style="bold"), guide_style="dim")
    by_id = {branch.branch_id: branch for branch in found}
    nodes = {branch.branch_id: Tree(_label(branch, by_id), guide_style="dim") for branch in shown}
    for branch in shown:
        for turn in turns.get(branch.branch_id, ()):
            nodes[branch.branch_id].add(_turn(turn))
    for branch in shown:
        parent = _nearest(branch, by_id, nodes)
        (root if parent is None else nodes[parent]).children.append(nodes[branch.branch_id])
    return root


def _turn(turn: OutlineTurn) -> Text:
    return Text(f"{turn['turn']}  ", style="dim").append_text(show.words(turn))


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
