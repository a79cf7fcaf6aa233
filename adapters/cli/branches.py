"""
``eventlog branches``: the tree of a session's branches.

Documents of ``--json``, one per line: ``branch`` (session_id, branch_id, from_branch_id, before_turn,
last_item: [position, index] of the last item shared at the fork, items, own_items, turns, created_at,
last_used_at, is_live, is_current, ended: "deleted" or "cleared", ended_at, last_version: of the
session, in which it existed), in the order of creation.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from rich.text import Text
from rich.tree import Tree

from agents_eventlog.adapters.cli import terminal
from agents_eventlog.adapters.cli.terminal import printable
from agents_eventlog.adapters.conversations import summary, timestamps
from agents_eventlog.eventlog import payloads
from agents_eventlog.eventlog.appender import session_version
from agents_eventlog.eventlog.errors import ConversationError
from agents_eventlog.eventlog.events import (
    BranchCreated,
    BranchDeleted,
    SessionCleared,
    SessionDeleted,
    SessionRestored,
)
from agents_eventlog.eventlog.recorded_event import RecordedEvent
from agents_eventlog.projections.conversations import as_of as past
from agents_eventlog.projections.conversations import queries as conversation_queries
from agents_eventlog.projections.conversations.branch_tree import Pointer

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from agents_eventlog.eventlog.events import JSON
    from agents_eventlog.eventlog.storage.transaction import Transaction

BRANCHES = """
    SELECT branch_id, segment_id, length, turn, is_live, from_branch_id, created_at, updated_at,
        created_position
    FROM branches
    ORDER BY created_position, branch_id <> 'main', branch_id
"""
FORKS_AND_ENDS = """
    WHERE session_id = ? AND type IN ('branch_created', 'branch_deleted', 'session_cleared',
        'session_deleted', 'session_restored')
    ORDER BY version
"""
CURRENT = "SELECT branch_id, deleted_at FROM sessions"


class Branch(NamedTuple):
    """A branch of a session: its fork point, size, last use and end."""

    branch_id: str
    from_branch_id: str | None
    before_turn: int | None
    last_item: tuple[int, int] | None
    items: int
    own_items: int
    turns: int
    created_at: int
    last_used_at: int
    is_live: bool
    is_current: bool
    ended: str | None
    ended_at: int | None
    last_version: int | None

    def document(self, session_id: str) -> dict[str, JSON]:
        """Return the branch for programs."""
        times = {
            name: None if (time := getattr(self, name)) is None else timestamps.iso(time)
            for name in ("created_at", "last_used_at", "ended_at")
        }
        return {"kind": "branch", "session_id": session_id, **self._asdict(), **times}


def run(path: Path, session_id: str, *, include_ended: bool, as_json: bool) -> None:
    """Print the tree of branches. Raises an EventLogError."""

    def unit(tx: Transaction) -> list[Branch]:
        terminal.require_session(tx, session_id)
        return branches(tx, session_id)

    with terminal.opened(path, read_only=True) as log:
        try:
            found = log.store.read_sync(unit)
        except ConversationError as error:
            terminal.fail(terminal.ExitCode.USAGE, error)
    shown = [branch for branch in found if branch.is_live or include_ended]
    if as_json:
        for branch in shown:
            terminal.print_json(branch.document(session_id))
        return
    out = terminal.console()
    out.print(_tree(session_id, shown, found))
    if hidden := len(found) - len(shown):
        out.print(Text(f"{hidden:,} deleted: --all shows them", style="dim"))


def branches(tx: Transaction, session_id: str) -> list[Branch]:
    """Return all branches that a session ever had, in order of creation."""
    forks, ends = _forks_and_ends(tx, session_id)
    with past.session_as_of(tx, session_id, session_version(tx, session_id)) as present:
        current, deleted_at = present.one(CURRENT) or (None, None)
        found = []
        for row in present.all(BRANCHES):
            name, segment_id, length, turns, is_live, from_id, created_at, used_at, position = row
            is_live = bool(is_live) and deleted_at is None
            ended = [
                end
                for end in ends
                if end.branch_id in (name, None) and end.position > position and not is_live
            ]
            end = ended[0] if ended else None
            fork = forks.get(name)
            found.append(
                Branch(
                    branch_id=name,
                    from_branch_id=from_id,
                    before_turn=None if fork is None else fork.before_turn,
                    last_item=_pair(fork),
                    items=length,
                    own_items=_own_items(present, Pointer(segment_id, length), fork),
                    turns=turns,
                    created_at=created_at,
                    last_used_at=used_at,
                    is_live=is_live,
                    is_current=is_live and name == current,
                    ended=None if end is None else end.how,
                    ended_at=None if end is None else end.occurred_at,
                    last_version=None if end is None else end.version - 1,
                )
            )
    return found


class _End(NamedTuple):
    """End of a branch, or of all branches if ``branch_id`` is None."""

    branch_id: str | None
    how: str
    position: int
    version: int
    occurred_at: int


def _forks_and_ends(
    tx: Transaction, session_id: str
) -> tuple[dict[str, BranchCreated], list[_End]]:
    forks: dict[str, BranchCreated] = {}
    ends: list[_End] = []
    for row in payloads.event_rows(tx, FORKS_AND_ENDS, (session_id,)):
        recorded = RecordedEvent(row)
        where = (recorded.position, recorded.version, recorded.occurred_at)
        match recorded.event:
            case BranchCreated() as event:
                forks[event.branch_id] = event
            case BranchDeleted(branch_id=branch_id):
                ends.append(_End(branch_id, "deleted", *where))
            case SessionCleared():
                ends.append(_End(None, "cleared", *where))
            case SessionDeleted():
                ends.append(_End(None, "deleted", *where))
            case SessionRestored():
                ends = [end for end in ends if (end.branch_id, end.how) != (None, "deleted")]
            case _:
                pass  # its content was erased
    return forks, ends


def _pair(fork: BranchCreated | None) -> tuple[int, int] | None:
    if fork is None or fork.last_item is None:
        return None
    return fork.last_item.position, fork.last_item.index


def _own_items(tx: Transaction, pointer: Pointer, fork: BranchCreated | None) -> int:
    """Count the items after the fork; a branch's items are sorted by position and index."""
    last = None if fork is None else fork.last_item
    if last is None:
        return pointer.length
    return sum(ref > last for ref in conversation_queries.refs(tx, pointer))


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
    rest.append(f"  last used {timestamps.minute(branch.last_used_at)}", style="dim")
    if branch.is_current:
        rest.append("  current", style="green")
    if branch.ended is not None and branch.ended_at is not None:
        rest.append(f"  {branch.ended} {timestamps.minute(branch.ended_at)}", style="red")
        rest.append(f"; show it with --as-of {branch.last_version}", style="dim")
    return label.append_text(rest)
