"""The outline of a branch: its turns by their first words, complete however long the conversation is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, TypedDict

from agents_eventlog.adapters.conversations import summary, timestamps
from agents_eventlog.adapters.conversations.event_descriptions import HOW
from agents_eventlog.eventlog import codec, item_kind
from agents_eventlog.eventlog.cipher.envelope import Withheld
from agents_eventlog.eventlog.errors import (
    BranchNotFoundError,
    InvalidQueryError,
    SessionNotFoundError,
)
from agents_eventlog.eventlog.events import JSON, ItemRef
from agents_eventlog.eventlog.storage.transaction import RunUnit, Transaction
from agents_eventlog.projections.conversations import as_of as past
from agents_eventlog.projections.conversations import builder as conversations
from agents_eventlog.projections.conversations import queries as conversation_queries
from agents_eventlog.projections.conversations.as_of import AsOf
from agents_eventlog.projections.conversations.builder import MAIN
from agents_eventlog.projections.conversations.paths import ROOT, Lifeline, Paths


class OutlineTurn(TypedDict):
    """
    A turn of a branch.

    position, index: of the user item that opens it; None before the first user item.
    first_words: of that item; None if its content cannot be read, or there is no such item.
    withheld: why its content cannot be read: "erased", "sealed" without keys, or "shredded".
    time: of its first item, ISO 8601 in UTC.
    items: the number of its items. tools: the tools that it called, each once.
    removed: "popped", "undone", "replaced", "deleted", "cleared" or "expired" if the branch does not have
        the turn any more; otherwise None.
    """

    turn: int
    position: int | None
    index: int | None
    first_words: str | None
    withheld: Withheld | None
    time: str
    items: int
    tools: list[str]
    removed: str | None


class Turn(NamedTuple):
    """A turn of a branch at a version; ``lines`` are its items, or all that it had if it was removed."""

    number: int
    lines: list[Lifeline]
    opening: ItemRef | None
    removed_at: int | None


class Leaving(NamedTuple):
    """
    A branch beside the one that is shown: before which turn it leaves, and what it has of its own.

    turn: the turn of the branch that is shown, or of ``parent``, before which it leaves.
    parent: the branch, not the one that is shown, from which it leaves; None for the one that is shown.
    depth: 0 if it leaves the branch that is shown.
    """

    branch_id: str
    turn: int
    parent: str | None
    depth: int
    turns: int
    is_live: bool
    version: int


def current_branch(tx: Transaction, session_id: str) -> str:
    """Return the branch that a session was last switched to."""
    stored = conversations.session(tx, session_id)
    return MAIN if stored is None else stored.branch_id


def check_branch(tx: Transaction, paths: Paths, session_id: str, branch_id: str | None) -> str:
    """Return the branch to show: the one that was chosen, or the session's current one."""
    if not paths.version:
        raise SessionNotFoundError(session_id)
    if branch_id is None:
        return current_branch(tx, session_id)
    if branch_id not in paths.moves and branch_id != MAIN:
        raise BranchNotFoundError(branch_id)
    return branch_id


def turns(paths: Paths, branch_id: str, version: int, numbers: Iterable[int]) -> list[Turn]:
    """Return those of some turns that a branch had by a version, in order."""
    lifelines = paths.lifelines(branch_id)
    found = []
    for number in numbers:
        lines = lifelines.of_turn(number, version)
        if not lines:
            continue
        kept = [line for line in lines if line.until is None or line.until > version]
        removed_at = None if kept else max(line.until or 0 for line in lines)
        openings = [
            node.ref
            for line in kept or lines
            if (node := paths.nodes[line.node]).kind is not None
            and node.kind.type == item_kind.USER
        ]
        opening = openings[-1] if openings else None
        found.append(Turn(number, kept or lines, opening, removed_at))
    return found


def leaving(paths: Paths, branch_id: str, version: int) -> list[Leaving]:
    """
    Return the other branches that existed by a version, each where it leaves the branch that is shown.

    Those that leave at the same place are in order of creation, each followed by those that leave it.
    """
    trunk = paths.lifelines(branch_id)
    above = _above(paths, branch_id)
    places: dict[str | None, list[tuple[int, str]]] = {}
    names = [name for name in paths.moves if name != branch_id and paths.began(name) <= version]
    for name in names:
        fork = paths.forks.get(name)
        node = above.get(name, ROOT if fork is None else fork.node)
        parent = None if node in trunk or fork is None else fork.from_branch_id
        parent = parent if parent in names and parent != name else None
        places.setdefault(parent, []).append((node, name))
    found: list[Leaving] = []
    seen: set[str] = set()

    def place(parent: str | None, depth: int) -> None:
        ordered = sorted(places.get(parent, ()), key=lambda each: paths.nodes[each[0]].turn)
        for node, name in ordered:
            if name in seen:
                continue  # a branch that was created again from one that it had created
            seen.add(name)
            turn = paths.nodes[node].turn
            last = paths.nodes[paths.last_tip(name, version)].turn
            is_live = paths.exists(name, version)
            own = max(0, last - turn)
            found.append(Leaving(name, turn + 1, parent, depth, own, is_live, paths.began(name)))
            place(name, depth + 1)

    place(None, 0)
    return found


def _above(paths: Paths, branch_id: str) -> dict[str, int]:
    """Return the branches that a branch came from, and the node after which each parts from it."""
    found: dict[str, int] = {}
    node: int | None = None
    while (fork := paths.forks.get(branch_id)) is not None and fork.from_branch_id not in found:
        node = fork.node if node is None else min(node, fork.node)
        branch_id = fork.from_branch_id
        found[branch_id] = node
    return found


def rows(
    tx: Transaction,
    paths: Paths,
    session_id: str,
    branch_id: str,
    version: int,
    numbers: Iterable[int],
) -> list[OutlineTurn]:
    """Return the outline of some turns; it reads the contents of the items that open them."""
    is_expired = expired_at(tx, paths, session_id, version) is not None
    found = turns(paths, branch_id, version, numbers)
    return [_row(tx, paths, turn, is_expired=is_expired) for turn in found]


def expired_at(tx: Transaction, paths: Paths, session_id: str, version: int) -> int | None:
    """Return when a session expired, if this is its last version; None if it has not."""
    session = conversations.session(tx, session_id) if version == paths.version else None
    return session.expires_at if session is not None and session.is_expired(tx.now) else None


def _row(tx: Transaction, paths: Paths, turn: Turn, *, is_expired: bool) -> OutlineTurn:
    nodes = [paths.nodes[line.node] for line in turn.lines]
    kinds = [node.kind for node in nodes if node.kind is not None]
    tools = [kind.tool_name for kind in kinds if kind.is_tool_call and kind.tool_name]
    removed: str | None = "expired" if is_expired else None
    if turn.removed_at is not None:
        removed = HOW.get(paths.changes[turn.removed_at - 1].type, "removed")
    words, withheld = first_words(tx, turn.opening)
    return OutlineTurn(
        turn=turn.number,
        position=None if turn.opening is None else turn.opening.position,
        index=None if turn.opening is None else turn.opening.index,
        first_words=words,
        withheld=withheld,
        time=timestamps.iso(paths.changes[nodes[0].version - 1].occurred_at),
        items=len(nodes),
        tools=list(dict.fromkeys(tools)),
        removed=removed,
    )


def first_words(tx: Transaction, ref: ItemRef | None) -> tuple[str | None, Withheld | None]:
    """Return the beginning of a user item, on one line, or why it cannot be read; Nones without one."""
    if ref is None:
        return None, None
    found: list[Withheld] = []
    item: JSON = conversation_queries.item(tx, ref, instead=found.append)
    if isinstance(item, Mapping):
        return summary.shortened(summary.content(item)), None
    return None, found[0] if found else None


def rows_at(tx: Transaction, session_id: str, branch_id: str, version: int) -> list[OutlineTurn]:
    """Return the whole outline of a branch at a version."""
    paths = Paths.read(tx, session_id)
    last = paths.lifelines(branch_id).last_turn(version)
    return rows(tx, paths, session_id, branch_id, version, range(last + 1))


def document(branch_id: str, turn: OutlineTurn) -> dict[str, Any]:
    """Return a turn of a branch for programs."""
    return {"kind": "turn", "branch_id": branch_id, **turn}


async def outline(
    read: RunUnit,
    session_id: str,
    *,
    branch_id: str | None,
    as_of: AsOf | None,
    first_turn: int,
    limit: int | None,
) -> list[OutlineTurn]:
    """Return the rows of ``ConversationLog.outline``."""
    codec.check_text("session_id", session_id)
    for name, value in (("first_turn", first_turn), ("limit", limit)):
        if value is not None and (type(value) is not int or value < 0):
            raise InvalidQueryError(f"invalid {name}: expected 0 or more, got {value!r}"[:200])

    def unit(tx: Transaction) -> list[OutlineTurn]:
        paths = Paths.read(tx, session_id)
        version = paths.version if as_of is None else past.version_at(tx, session_id, as_of)
        branch = check_branch(tx, paths, session_id, branch_id)
        last = paths.lifelines(branch).last_turn(version)
        end = last if limit is None else min(last, first_turn + limit - 1)
        return rows(tx, paths, session_id, branch, version, range(first_turn, end + 1))

    found: list[OutlineTurn] = await read(unit)
    return found
