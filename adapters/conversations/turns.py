"""Turns: run one again, edit it, undo it. Does not depend on an SDK."""

from __future__ import annotations

from collections.abc import Mapping

from agents_eventlog.adapters.conversations import commands
from agents_eventlog.adapters.conversations.commands import SessionContext
from agents_eventlog.eventlog.errors import TurnNotFoundError
from agents_eventlog.eventlog.events import JSON
from agents_eventlog.eventlog.storage.transaction import Transaction
from agents_eventlog.projections.conversations import queries as conversation_queries

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
    return conversation_queries.item(tx, ref)


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


def _is_text(part: JSON) -> bool:
    return isinstance(part, str) or (isinstance(part, Mapping) and part.get("type") in TEXT_PARTS)
