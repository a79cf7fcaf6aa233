"""A log of conversations: what is asked, and done, across all of its sessions."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeVar, Unpack

from agents_eventlog import projections as tables
from agents_eventlog.adapters.conversations import item_search, pricing, sdk_tables, sessions, tools
from agents_eventlog.adapters.conversations import usage as usage_calls
from agents_eventlog.adapters.conversations.item_search import ItemFilters, SearchResults
from agents_eventlog.adapters.conversations.pricing import Prices
from agents_eventlog.adapters.conversations.sessions import Deletion
from agents_eventlog.adapters.conversations.tools import ToolCounts, ToolFilters
from agents_eventlog.eventlog.appender import Projector
from agents_eventlog.eventlog.log import EventLog, Opening
from agents_eventlog.eventlog.storage.engine import Durability
from agents_eventlog.eventlog.storage.transaction import Transaction, Unit
from agents_eventlog.projections.erasure import eraser
from agents_eventlog.projections.erasure.eraser import ErasureResult, OnProgress
from agents_eventlog.projections.erasure.scopes import (
    DeletedSessions,
    PoppedItems,
    Scope,
    SessionScope,
)
from agents_eventlog.projections.sessions import filters
from agents_eventlog.projections.sessions.filters import OrderBy, SessionFilters

T = TypeVar("T")

if TYPE_CHECKING:
    from agents_eventlog.adapters.conversations.repricing import RepriceResult


class ConversationLog(EventLog):
    """
    An ``EventLog`` whose sessions, spend and contents can be asked for, and managed, all at once.

    ``async with ConversationLog.open("conversations.db") as log``; of a session object
    that opened a path, ``session.log``.
    """

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        *,
        projections: Projector | None = None,
        durability: Durability = "full",
        create: bool = True,
        read_only: bool = False,
        search: bool = False,
    ) -> Opening[ConversationLog]:
        """
        Open the log at a path as ``EventLog.open`` does, with the default projections.

        search: keep a full-text index for ``find_items``, too; the first opening with it builds it.
        """
        default = tables.default(search=search)
        return super().open(
            path,
            projections=default if projections is None else projections,
            durability=durability,
            create=create,
            read_only=read_only,
        )

    async def usage(
        self,
        by: Iterable[str] | str = (),
        *,
        since: date | datetime | None = None,
        until: date | datetime | None = None,
        user_id: str | None = None,
        session_id: str | None = None,
        live: bool = False,
    ) -> dict[str, Any]:
        """
        Return what was spent, of all sessions, of a user's or of one.

        by: "session", "user", "model", "agent", "day", "run", "turn" or "branch", or several: under
            "groups" then stands a dict for each, with its keys (session_id, user_id, run_id, branch_id,
            the others as they are called; None where it is not known) and its sums.
        since, until: only what was used in this time (without a zone: UTC; a day alone counts whole).
        live: only what still stands, not what was popped, deleted or cleared.

        The sums: as in ``session.get_usage_stats``. Raises ValueError for a group that there is not.
        """
        asked = usage_calls.wanted(
            by, since=since, until=until, user_id=user_id, session_id=session_id, live=live
        )
        return await self.query(lambda tx: usage_calls.ask(tx, asked))

    async def reprice(
        self,
        *,
        prices: Prices = None,
        since: date | datetime | None = None,
        until: date | datetime | None = None,
        session_id: str | None = None,
        model: str | None = None,
        only_unpriced: bool = False,
        dry_run: bool = False,
    ) -> RepriceResult:
        """
        Price recorded requests again, each at its time, and record what costs something else.

        prices: as of a session; by default those that genai-prices brings along, for all requests but
            those that an application priced itself. A callable is called from a thread.
        since, until, session_id, model, only_unpriced: only these requests.
        dry_run: tell what would change, and record nothing.
        """
        from agents_eventlog.adapters.conversations import repricing

        self._check_open()
        return await asyncio.to_thread(
            repricing.reprice,
            self.store,
            usage_calls.wanted(since=since, until=until, session_id=session_id),
            model=model,
            prices=pricing.checked(prices),
            only_unpriced=only_unpriced,
            dry_run=dry_run,
        )

    # -- sessions -----------------------------------------------------------------------------

    async def sessions(
        self,
        *,
        limit: int | None = None,
        after: str | None = None,
        order_by: OrderBy = "updated_at",
        reverse: bool = False,
        deleted: bool = False,
        **which: Unpack[SessionFilters],
    ) -> list[dict[str, Any]]:
        """
        Return sessions, all or those that match, as a session object's ``list_sessions`` does.

        deleted: those that were deleted, instead of those that stand.
        """
        query = filters.parse(
            limit=limit, after=after, order_by=order_by, reverse=reverse, deleted=deleted, **which
        )
        return await sessions.list_sessions(self._ask, query)

    async def delete_session(self, session_id: str, *, reason: str | None = None) -> None:
        """Delete a session; its cost stays counted. Raises SessionNotFoundError (a ValueError)."""
        await self.write(lambda tx: sessions.delete_session(tx, session_id, reason))

    async def restore_session(self, session_id: str) -> None:
        """Undo a session's deletion, if it is deleted. Raises SessionNotFoundError (a ValueError)."""
        await self.write(lambda tx: sessions.restore_session(tx, session_id))

    async def delete_sessions(
        self,
        *,
        dry_run: bool = True,
        reason: str | None = None,
        all_sessions: bool = False,
        **which: Unpack[SessionFilters],
    ) -> Deletion:
        """
        Tell which sessions match and would be deleted; with ``dry_run=False``, delete them.

        all_sessions: needed to delete without any filter.

        Goes in units of work of 100 sessions, each all or none; a session that begins, or stops to
        match, meanwhile is left alone. Raises InvalidQueryError (a ValueError).
        """
        query = filters.parse(**which)
        run = self._ask if dry_run else self.write
        return await sessions.delete_sessions(
            run,
            query,
            before=self.store.clock(),
            dry_run=dry_run,
            reason=reason,
            everything=all_sessions,
        )

    # -- contents -----------------------------------------------------------------------------

    async def find_items(
        self,
        text: str | None = None,
        *,
        limit: int | None = 50,
        after: str | None = None,
        **which: Unpack[ItemFilters],
    ) -> SearchResults:
        """
        Return live items by what they say and what they are, of all sessions or of those asked for.

        As a session object's ``find_items`` does; see there.
        """
        return await item_search.find_items(self._ask, text, limit=limit, after=after, **which)

    async def tools(
        self, by: Iterable[str] | str = ("tool",), **which: Unpack[ToolFilters]
    ) -> list[ToolCounts]:
        """
        Return how tools were used: the calls that stand on a live branch, each once.

        by: "tool", "session" or "day", or several; a row has ``tool_name``, ``session_id``, ``day``.
        which: session_id, user_id, since, until; see ``ToolFilters``.

        Rows also hold ``calls``, ``failures``: those whose output tells that they failed, and
        ``unanswered``: those that wait for an output. The most calls come first, within each day if
        by day. Reads all calls and outputs. Raises InvalidQueryError (a ValueError).
        """
        return await tools.count(self._ask, by, **which)

    # -- erasing ------------------------------------------------------------------------------

    async def erase(
        self,
        *,
        session_id: str | None = None,
        deleted: bool = False,
        older_than: timedelta | None = None,
        popped: bool = False,
        reason: str | None = None,
        dry_run: bool = False,
        on_progress: OnProgress | None = None,
    ) -> ErasureResult:
        """
        Blank contents for good, so that no byte of them is left in the file or its write-ahead log.

        Exactly one of these:

        session_id: all of this session, which is deleted first if it is live.
        deleted: all of every deleted session, or of those deleted longer ago than ``older_than``.
        popped: what is on no branch any more, in every session, and labels that were replaced.

        In a file that was migrated from the SDK's class, what its tables hold of that goes, too.

        dry_run: tell what would go, and write nothing.

        Structure, digests and what was spent stay; a session that was erased cannot be restored. The
        file is rewritten at the end, during which writers wait. Raises SessionNotFoundError.
        """
        if (session_id is not None) + deleted + popped != 1:
            raise ValueError("give exactly one of session_id, deleted and popped")
        if older_than is not None and not deleted:
            raise ValueError("older_than goes with deleted")
        scope: Scope = PoppedItems()
        if session_id is not None:
            scope = SessionScope(session_id)
        elif deleted:
            age = older_than or timedelta()
            scope = DeletedSessions(self.store.clock() - age // timedelta(microseconds=1))
        return await eraser.erase(
            self,
            scope,
            reason=reason,
            dry_run=dry_run,
            on_progress=on_progress,
            forget=sdk_tables.forget,
        )

    # -- units of work ------------------------------------------------------------------------

    async def _ask(self, unit: Unit[T]) -> T:
        """Run a reading unit on tables that show all that the log holds."""

        def fresh(tx: Transaction) -> T:
            tables.default().require_fresh(tx)
            return unit(tx)

        return await self.query(fresh)
