"""The part of a session object that manages sessions: its own, and the others of the file."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from adapters import conversation
from adapters.working import Working
from eventlog import codec
from eventlog.errors import ConversationError
from eventlog.transaction import Transaction
from projections import reading

_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 - UTC, printed without its zone


class ManagedSessions(Working):
    """The methods about sessions as a whole."""

    async def list_sessions(self) -> list[dict[str, Any]]:
        """Return all sessions of the file, the last used first; times are UTC."""

        def unit(tx: Transaction) -> list[dict[str, Any]]:
            return [_session_row(row) for row in tx.all(reading.SESSIONS)]

        return await self._read(unit)

    async def delete_session(self, session_id: str | None = None) -> None:
        """
        Delete a session, by default this one: gone from every list and read, its cost stays counted.

        Its id is not used again: writing to it raises SessionDeletedError. Raises ConversationError
        (a ValueError) when there is no such session.
        """
        target = self.session_id if session_id is None else session_id
        deleted = await self._write(
            lambda tx: conversation.delete_session(tx, self._seat, target, None)
        )
        if not deleted and target != self.session_id:
            raise ConversationError(f"session {target!r} does not exist", session_id=target)


def as_text(microseconds: int) -> str:
    """Return a time as the SDK's sessions do: UTC, ``YYYY-MM-DD HH:MM:SS``."""
    return str(_EPOCH + timedelta(seconds=microseconds // 1_000_000))


def _session_row(row: tuple[Any, ...]) -> dict[str, Any]:
    session_id, created_at, updated_at, user_id, metadata, branch_id, items, turns, branches = row
    return {
        "session_id": session_id,
        "created_at": as_text(created_at),
        "updated_at": as_text(updated_at),
        "item_count": items,
        "turn_count": turns,
        "branch_count": branches,
        "current_branch": branch_id,
        "user_id": user_id,
        "metadata": None if metadata is None else codec.decode_metadata(metadata),
    }
