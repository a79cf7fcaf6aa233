"""The part of a session object that is about sessions as a whole: its own, and the others of the file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Unpack

from agents_eventlog.adapters.conversations import commands, sessions
from agents_eventlog.adapters.openai_agents.unit_runner import Working
from agents_eventlog.eventlog.errors import SessionNotFoundError
from agents_eventlog.eventlog.events import JSON
from agents_eventlog.eventlog.storage.transaction import Transaction
from agents_eventlog.projections.conversations.builder import MAIN
from agents_eventlog.projections.sessions import filters
from agents_eventlog.projections.sessions.filters import OrderBy, SessionFilters


class ManagedSessions(Working):
    """The methods about labels, and about listing, deleting and restoring sessions."""

    async def set_metadata(
        self, metadata: Mapping[str, JSON] | None = None, *, user_id: str | None = None
    ) -> None:
        """
        Label this session; it begins with that, if need be.

        metadata: replaces what was, as a whole; {} takes it away; None leaves it.
        user_id: replaces what was; "" takes it away; None leaves it.

        Raises UnserialisableError (a TypeError) for what is no JSON, SessionDeletedError.
        """
        labels = commands.check_labels(user_id, metadata)
        await self._write(lambda tx: sessions.set_metadata(tx, self._seat, *labels))

    async def get_metadata(self) -> dict[str, Any]:
        """Return this session's labels, ``user_id`` and ``metadata``; None for what it has not."""
        return await self._read(lambda tx: sessions.get_metadata(tx, self._seat))

    async def list_sessions(
        self,
        *,
        limit: int | None = None,
        after: str | None = None,
        order_by: OrderBy = "updated_at",
        reverse: bool = False,
        **which: Unpack[SessionFilters],
    ) -> list[dict[str, Any]]:
        """
        Return sessions of the file: all, or those that match the filters; the last used first.

        limit, after: a page of so many, behind the session whose ``cursor`` this is.
        order_by, reverse: "updated_at" or "created_at", the newest first, or the oldest.
        which: user_id, metadata, created_after, created_before, updated_after, updated_before, text,
            min_items; see ``SessionFilters``.

        A row's ``title`` is the first user message on the branch last switched to, ``total_tokens`` and
        ``total_cost`` are all that was ever spent; times are UTC. Pages by "created_at" give each session
        once. By "updated_at", one that is used meanwhile moves to the front, and may be missed.

        Raises InvalidQueryError (a ValueError).
        """
        query = filters.parse(limit=limit, after=after, order_by=order_by, reverse=reverse, **which)
        return await sessions.list_sessions(self._read, query)

    async def delete_session(self, session_id: str | None = None) -> None:
        """
        Delete a session, by default this one: gone from every list and read, its cost stays counted.

        Its id is not used again: writing to it raises SessionDeletedError. ``restore_session`` undoes it.
        Raises SessionNotFoundError (a ValueError) when there is no other session of this id.
        """
        target = self.session_id if session_id is None else session_id

        def unit(tx: Transaction) -> None:
            try:
                sessions.delete_session(tx, target)
            except SessionNotFoundError:
                if target != self.session_id:
                    raise
            else:
                if target == self.session_id:
                    self._seat.move(tx, MAIN, self._seat.cleared_version)

        await self._write(unit)

    async def restore_session(self, session_id: str | None = None) -> None:
        """
        Undo the deletion of a session, by default this one: all that it held and was is back.

        Of a session that is not deleted, nothing changes. Raises SessionNotFoundError (a ValueError).
        """
        target = self.session_id if session_id is None else session_id
        await self._write(lambda tx: sessions.restore_session(tx, target))
