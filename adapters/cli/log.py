"""
``eventlog log``: the turns of a session, the newest first, and how its branches share them.

Documents of ``--json``, one per line: ``turn`` (session_id, branch_id: the branch that the turn was added
on, branch_ids: those that show it, turn, position, index: of its first item, parent: [position, index] of
the turn before it or null, occurred_at, actor, total_tokens, total_cost, unpriced_requests, first_words),
in the order of the lines.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from rich.text import Text

from agents_eventlog import projections
from agents_eventlog.adapters.cli import show, terminal
from agents_eventlog.adapters.conversations import summary, timestamps
from agents_eventlog.adapters.conversations import usage as usage_calls
from agents_eventlog.adapters.conversations.branches import Branch, branches
from agents_eventlog.adapters.conversations.conversation import by_turn, conversation
from agents_eventlog.adapters.conversations.printable import printable
from agents_eventlog.eventlog.errors import BranchNotFoundError, ConversationError
from agents_eventlog.projections.conversations import queries as conversation_queries
from agents_eventlog.projections.conversations.builder import MAIN
from agents_eventlog.projections.usage.queries import UsageQuery

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from rich.console import Console

    from agents_eventlog.eventlog.events import JSON, ItemRef
    from agents_eventlog.eventlog.storage.transaction import Transaction

COLOURS = ("cyan", "magenta", "yellow", "green", "blue", "red")
"""Colours of the lanes of a graph."""

WORDS_CELLS = 16
"""Minimum width of a turn's first words; the actor is left out before they are cut further."""


class Turn(NamedTuple):
    """A turn of one or more branches; its first item is its identity."""

    ref: ItemRef
    parent: ItemRef | None
    branch_id: str
    branch_ids: list[str]
    ends: list[str]
    number: int
    occurred_at: int
    actor: str | None
    first_words: str


class Cost(NamedTuple):
    """The usage of a turn."""

    tokens: int = 0
    usd: float = 0.0
    unpriced: int = 0


class Log(NamedTuple):
    """The turns of some branches, the newest first."""

    turns: list[Turn]
    costs: dict[tuple[str, int], Cost]
    branches: dict[str, Branch]


def run(
    path: Path,
    session_id: str,
    *,
    graph: bool,
    branch_id: str | None,
    removed: bool,
    limit: int | None,
    as_json: bool,
) -> None:
    """Print the turns of a session. Raises an EventLogError."""
    with terminal.opened(path, read_only=True) as log:
        session = terminal.session_of(log, session_id)

        def unit(tx: Transaction) -> Log:
            projections.default().require_fresh(tx)
            found = branches(tx, session)
            return _log(tx, session, _chosen(found, branch_id, graph=graph, removed=removed))

        try:
            found = log.store.read_sync(unit)
        except ConversationError as error:
            terminal.fail(terminal.ExitCode.USAGE, error)
    turns = found.turns[:limit]
    if as_json:
        for turn in turns:
            terminal.print_json(_document(session, turn, found))
        return
    if not turns:
        terminal.nothing("turns")
        return
    drawn = Graph()
    out = terminal.console()
    lines = []
    for turn in turns:
        if graph:
            lines += drawn.joins(turn.ref)
        lines.append(_line(out, drawn.node(turn) if graph else Text(), turn, found))
    out.print(Text("\n").join(lines), soft_wrap=True)


def _chosen(
    found: Sequence[Branch], branch_id: str | None, *, graph: bool, removed: bool
) -> list[Branch]:
    """Return the branches to show: all for a graph, else one."""
    if graph:
        return [branch for branch in found if branch.is_live or removed]
    named = [branch for branch in found if branch.branch_id == branch_id]
    if branch_id is not None and not (named and (named[0].is_live or removed)):
        raise BranchNotFoundError(branch_id)
    return named or [branch for branch in found if branch.is_current]


def _log(tx: Transaction, session_id: str, chosen: Iterable[Branch]) -> Log:
    """Return the turns of branches; each is as of the last version in which its branch existed."""
    origins = conversation_queries.origins(tx, session_id)
    turns: dict[ItemRef, Turn] = {}
    by_id = {branch.branch_id: branch for branch in chosen}
    for branch in by_id.values():
        then = None if branch.is_live else branch.last_version
        shown = conversation(tx, session_id, branch.branch_id, then)
        parent: ItemRef | None = None
        for each in by_turn(shown.entries):
            first = each.entries[0]
            turn = turns.get(first.ref)
            if turn is None:
                words = summary.shortened(show.said_by(first)[1])
                at = first.occurred_at
                origin, actor = origins[first.ref.position]
                turn = Turn(first.ref, parent, origin, [], [], each.number, at, actor, words)
                turns[first.ref] = turn
            turn.branch_ids.append(branch.branch_id)
            parent = first.ref
        if parent is not None:
            turns[parent].ends.append(branch.branch_id)
    newest = sorted(turns.values(), key=lambda turn: turn.ref, reverse=True)
    used = usage_calls.ask(tx, UsageQuery(by=("branch", "turn"), session_id=session_id))
    costs = {
        (group["branch_id"] or MAIN, group["turn"]): Cost(
            group["total_tokens"], group["total_cost"], group["unpriced_requests"]
        )
        for group in used["groups"]
        if group["turn"] is not None
    }
    return Log(newest, costs, by_id)


# -- the graph ------------------------------------------------------------------------------------


class Graph:
    """Draws a tree from its leaves to its root, as ``git log --graph`` does: one lane for each branch."""

    def __init__(self) -> None:
        # The turn that each lane leads to, None after the first turn, and the lane's colour.
        self._lanes: list[tuple[ItemRef | None, str]] = []
        self._tips = 0

    def joins(self, ref: ItemRef) -> list[Text]:
        """Return the lines in which lanes join before the turn that they all lead to."""
        lines = []
        while len(places := self._places(ref)) > 1:
            first, last = places[0], places[-1]
            colour = self._lanes[last][1]
            cells = [(" ", "")] * (2 * len(self._lanes))
            for place, (waits, own) in enumerate(self._lanes):
                if waits is not None and place < last:
                    cells[2 * place] = ("|", own)
                elif waits is not None:  # the lane that joins, and those on its right
                    cells[2 * place - 1] = ("/", own)
            for place in range(first, last - 1):
                cells[2 * place + 1] = ("_", colour)
                if self._lanes[place + 1][0] is None:
                    cells[2 * place + 2] = ("_", colour)
            del self._lanes[last]
            line = Text.assemble(*cells)
            line.rstrip()
            lines.append(line)
        return lines

    def node(self, turn: Turn) -> Text:
        """Return the lanes beside a turn, and lead its own lane to the turn before it."""
        # A lane that ends here stays empty for a line, or the next branch would seem to lead to it.
        ended = [place for place, (waits, _) in enumerate(self._lanes) if waits is None]
        if not (places := self._places(turn.ref)):
            self._lanes.append((turn.ref, COLOURS[self._tips % len(COLOURS)]))
            self._tips += 1
            places = [len(self._lanes) - 1]
        line = Text()
        for place, (waits, colour) in enumerate(self._lanes):
            mark = " " if waits is None else "*" if place == places[0] else "|"
            line.append(mark, style=colour).append(" ")
        self._lanes[places[0]] = (turn.parent, self._lanes[places[0]][1])
        while self._lanes and len(self._lanes) - 1 in ended:
            self._lanes.pop()
        return line

    def _places(self, ref: ItemRef) -> list[int]:
        return [place for place, (waits, _) in enumerate(self._lanes) if waits == ref]


# -- for people and programs ----------------------------------------------------------------------


def _line(out: Console, line: Text, turn: Turn, log: Log) -> Text:
    """Append a turn to its lanes, on one line; its first words are cut where the terminal ends."""
    line.append(f"{turn.number:>3}  ", style="bold")
    line.append(timestamps.minute(turn.occurred_at), style="dim")
    actor, rest = Text(), Text()
    if turn.actor is not None:
        actor.append(f"  {printable(summary.shortened(turn.actor))}")
    cost = log.costs.get((turn.branch_id, turn.number))
    if cost is not None:
        unpriced = "+" if cost.unpriced else ""
        rest.append(f"  {cost.tokens:,} tokens  ${summary.usd(cost.usd)}{unpriced}")
    for name in turn.ends:
        branch = log.branches[name]
        style = "bold" if branch.is_live else "bold strike"
        style += " green" if branch.is_current else ""
        rest.append("  ").append(f"[{printable(name)}]", style=style)
    words = Text(f"  {printable(turn.first_words)}")
    if (width := terminal.table_width(out)) is not None:
        room = width - line.cell_len - rest.cell_len
        if room - actor.cell_len < min(words.cell_len, WORDS_CELLS):
            actor = Text()
        words.truncate(max(room - actor.cell_len, 0), overflow="ellipsis")
    line.append_text(actor).append_text(rest)
    return line.append_text(words)


def _document(session_id: str, turn: Turn, log: Log) -> dict[str, JSON]:
    cost = log.costs.get((turn.branch_id, turn.number), Cost())
    parent = turn.parent
    return {
        "kind": "turn",
        "session_id": session_id,
        "branch_id": turn.branch_id,
        "branch_ids": [*turn.branch_ids],
        "turn": turn.number,
        "position": turn.ref.position,
        "index": turn.ref.index,
        "parent": None if parent is None else [parent.position, parent.index],
        "occurred_at": timestamps.iso(turn.occurred_at),
        "actor": turn.actor,
        "total_tokens": cost.tokens,
        "total_cost": cost.usd,
        "unpriced_requests": cost.unpriced,
        "first_words": turn.first_words,
    }
