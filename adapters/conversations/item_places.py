"""Where an item is: its branches and its turn, or how it was removed from the last branch that had it."""

from __future__ import annotations

from typing import TypedDict

from agents_eventlog.adapters.conversations.event_descriptions import removal
from agents_eventlog.eventlog import reader
from agents_eventlog.eventlog.errors import ItemNotFoundError
from agents_eventlog.eventlog.events import ItemRef
from agents_eventlog.eventlog.storage.transaction import Transaction
from agents_eventlog.projections.conversations.paths import Paths


class ItemPlaces(TypedDict):
    """
    Where an item is.

    turn, number: its turn and its number on every branch that has it, or had it.
    added_on: the branch that it was added to. version: of the session, after that.
    branch_ids: the branches that have it now, in order of creation.
    last_branch_id: one of them, or the last branch that had it; None for an item that no branch ever had.
    removed: how it was removed from the last branch that had it, as in ``timeline``; otherwise None.
    removed_version: of the session, after that.
    """

    session_id: str
    position: int
    index: int
    turn: int
    number: int
    added_on: str
    version: int
    branch_ids: list[str]
    last_branch_id: str
    removed: str | None
    removed_version: int | None


def places_of(tx: Transaction, ref: ItemRef) -> ItemPlaces:
    """Return where an item is. Raises ItemNotFoundError if the log never had it."""
    recorded = reader.event_at(tx, ref.position)
    if recorded is None:
        raise ItemNotFoundError(position=ref.position, index=ref.index)
    return places_in(Paths.read(tx, recorded.session_id), recorded.session_id, ref)


def places_in(paths: Paths, session_id: str, ref: ItemRef) -> ItemPlaces:
    """Return where an item of a session is."""
    number = paths.number(ref)
    if number is None:
        raise ItemNotFoundError(position=ref.position, index=ref.index)
    node = paths.nodes[number]
    removed = removal(paths, ref)
    branches = paths.branches_with(ref)
    before = paths.version if removed is None else removed.version - 1
    last = branches or paths.branches_with(ref, before) or [node.branch_id]
    return ItemPlaces(
        session_id=session_id,
        position=ref.position,
        index=ref.index,
        turn=node.turn,
        number=node.depth,
        added_on=node.branch_id,
        version=node.version,
        branch_ids=branches,
        last_branch_id=node.branch_id if node.branch_id in last else last[0],
        removed=None if removed is None else removed.how,
        removed_version=None if removed is None else removed.version,
    )
