"""Turns: run one again, edit it, undo it. Does not depend on an SDK."""

from __future__ import annotations

from collections.abc import Mapping

from agents_eventlog.adapters.conversations import commands
from agents_eventlog.adapters.conversations.commands import SessionContext
from agents_eventlog.eventlog import codec
from agents_eventlog.eventlog.appender import append, append_all
from agents_eventlog.eventlog.errors import TurnNotFoundError
from agents_eventlog.eventlog.events import JSON, ItemsAdded, TurnRedone, TurnUndone
from agents_eventlog.eventlog.storage.transaction import Transaction
from agents_eventlog.projections.conversations import branch_tree
from agents_eventlog.projections.conversations import queries as conversation_queries
from agents_eventlog.projections.conversations.branch_tree import Pointer

TEXT_PARTS = frozenset({"input_text", "text"})
"""The types of the parts of a user message that are text."""


def opening_item(tx: Transaction, context: SessionContext, turn: int, called: int) -> JSON:
    """
    Return the user item that opens a turn of the current branch. Raises TurnNotFoundError.

    called: the turn's number in the caller's numbering, for errors.
    """
    pointer = commands.look(tx, context).pointer
    ref = conversation_queries.opening(tx, pointer, turn) if turn > 0 else None
    if ref is None:
        raise TurnNotFoundError(called, context.branch_id)
    return conversation_queries.item(tx, ref, session_id=context.session_id)


def check_text(text: object) -> None:
    """Raise TypeError for a text that is not a str."""
    if not isinstance(text, str):
        raise TypeError(f"invalid text: expected a str, got {type(text).__name__}")


def with_text(item: JSON, text: str) -> JSON:
    """Return a user item with another text; its other parts stay in their places."""
    content = item.get("content")
    if not isinstance(content, list):
        return {**item, "content": text}
    others = [part for part in content if not _is_text(part)]
    first = next((place for place, part in enumerate(content) if _is_text(part)), 0)
    return {
        **item,
        "content": [*others[:first], {"type": "input_text", "text": text}, *others[first:]],
    }


def undo_turn(tx: Transaction, context: SessionContext) -> list[JSON]:
    """Remove the last turn from the current branch in one event, and return its items."""
    here = commands.writable(tx, context)
    if here.pointer.length == 0:
        return []
    before = branch_tree.before_turn(tx, here.pointer, here.turn) if here.turn else None
    count = here.pointer.length - (before or Pointer(None, 0)).length
    removed = conversation_queries.refs(tx, here.pointer, count)
    items = conversation_queries.items(tx, here.pointer, count, session_id=context.session_id)
    undone = TurnUndone(turn=here.turn, removed=removed)
    append(tx, context.session_id, undone, branch_id=context.branch_id)
    return items


def redo(tx: Transaction, context: SessionContext) -> list[JSON]:
    """
    Add the last undone turn to the current branch again, and return its items; [] without one.

    After another change of the branch's items, nothing can be redone. Raises UndecodableEventError if
    content of the turn was erased.
    """
    commands.writable(tx, context)
    found = _last_undone(tx, context)
    if found is None:
        return []
    version, undone = found
    items = conversation_queries.contents(tx, undone.removed, session_id=context.session_id)
    parts = [
        TurnRedone(turn=undone.turn, undone_version=version, items=part.items)
        for part, _ in commands.in_parts(ItemsAdded(items=items))
    ]
    events = [(part, codec.encode(part)) for part in parts]
    append_all(tx, context.session_id, events, branch_id=context.branch_id)
    return items


def _last_undone(tx: Transaction, context: SessionContext) -> tuple[int, TurnUndone] | None:
    """Return the last turn that was undone and not redone, with its version, if it can be redone."""
    redone = set()
    for recorded in conversation_queries.last_changes(tx, context.session_id, context.branch_id):
        match recorded.event:
            case TurnRedone(undone_version=version):
                redone.add(version)
            case TurnUndone() as event if recorded.version not in redone:
                return recorded.version, event
            case TurnUndone():
                pass
            case _:
                break
    return None


def _is_text(part: JSON) -> bool:
    return isinstance(part, str) or (isinstance(part, Mapping) and part.get("type") in TEXT_PARTS)
