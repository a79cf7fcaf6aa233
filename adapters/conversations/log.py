"""A log of conversations, with queries and operations across all sessions."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from contextlib import aclosing
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Self, TypeVar, Unpack

from agents_eventlog import projections as tables
from agents_eventlog.adapters.conversations import (
    audit_trail,
    branch_usage,
    commands,
    forking,
    item_places,
    item_search,
    pricing,
    redaction,
    sdk_tables,
    sessions,
    tools,
)
from agents_eventlog.adapters.conversations import budgets as budget_calls
from agents_eventlog.adapters.conversations import census as census_calls
from agents_eventlog.adapters.conversations import outline as outline_calls
from agents_eventlog.adapters.conversations import usage as usage_calls
from agents_eventlog.adapters.conversations.audit_trail import TimelineRow
from agents_eventlog.adapters.conversations.branch_usage import BranchRequest
from agents_eventlog.adapters.conversations.budgets import Budget, Budgets, BudgetUsage
from agents_eventlog.adapters.conversations.census import Census
from agents_eventlog.adapters.conversations.commands import SessionContext
from agents_eventlog.adapters.conversations.forking import Fork
from agents_eventlog.adapters.conversations.item_places import ItemPlaces
from agents_eventlog.adapters.conversations.item_search import ItemFilters, SearchResults
from agents_eventlog.adapters.conversations.notebook import html_table
from agents_eventlog.adapters.conversations.outline import OutlineTurn
from agents_eventlog.adapters.conversations.pricing import Prices
from agents_eventlog.adapters.conversations.redaction import Redaction
from agents_eventlog.adapters.conversations.rows import UsageStats
from agents_eventlog.adapters.conversations.sessions import Deletion, Retention, SessionRow
from agents_eventlog.adapters.conversations.tools import ToolCounts, ToolFilters
from agents_eventlog.eventlog import codec
from agents_eventlog.eventlog.appender import Projector
from agents_eventlog.eventlog.cipher.key_store import KeysOption, keys_of
from agents_eventlog.eventlog.errors import ItemNotFoundError, SessionNotFoundError
from agents_eventlog.eventlog.events import JSON, ItemRef
from agents_eventlog.eventlog.jsonl.export import export_lines
from agents_eventlog.eventlog.log import EventLog, Opening
from agents_eventlog.eventlog.storage.engine import Durability
from agents_eventlog.eventlog.storage.transaction import Transaction, Unit
from agents_eventlog.projections.conversations import builder as conversations
from agents_eventlog.projections.conversations.builder import MAIN
from agents_eventlog.projections.erasure import eraser
from agents_eventlog.projections.erasure.eraser import ErasureResult, OnProgress
from agents_eventlog.projections.erasure.scopes import (
    DeletedSessions,
    ExpiredSessions,
    PoppedItems,
    Scope,
    SessionScope,
    UserSessions,
)
from agents_eventlog.projections.sessions import filters
from agents_eventlog.projections.sessions import queries as session_queries
from agents_eventlog.projections.sessions.filters import OrderBy, SessionFilters

T = TypeVar("T")
L = TypeVar("L", bound="ConversationLog")

if TYPE_CHECKING:
    from agents_eventlog.adapters.conversations.repricing import RepriceResult


class ConversationLog(EventLog):
    """
    An ``EventLog`` with queries and operations across all sessions.

    Open it with ``async with ConversationLog.open("conversations.db") as log``, or use the ``log`` of an
    ``AdvancedSQLiteSession``. Costs are in USD. All methods that query raise InvalidQueryError (a
    ValueError) for an invalid filter.
    """

    def _repr_html_(self) -> str:
        """Return what a notebook shows: what this object knows, since a read would block its event loop."""
        state = "closed" if self.is_closed else "read-only" if self.read_only else "open"
        rows = {"log": self.path, "state": state}
        return html_table(type(self).__name__, rows, "await log.sessions()")

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        *,
        projections: Projector | None = None,
        durability: Durability = "full",
        create: bool = True,
        read_only: bool = False,
        keys: KeysOption = None,
        search: bool = False,
        budgets: Budgets = (),
    ) -> Opening[Self]:
        """
        Open the log at a path as ``EventLog.open`` does, with the default projections.

        projections: more projections to keep up to date, in addition to the default ones.
        search: also maintain a full-text index for ``find_items``; the first opening with it builds it. Not
            with ``keys``: the index would hold the texts.
        budgets: a ``Budget``, or several, for the runs of all sessions of this process on the file, until
            this log object is closed.
        """
        limits = budget_calls.checked(budgets)
        check_search(keys, search=search)
        return Opening(
            lambda: _equipped(
                cls.open_sync(
                    path,
                    projections=tables.default(search=search),
                    durability=durability,
                    create=create,
                    read_only=read_only,
                    keys=keys,
                ),
                projections,
                limits,
            )
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
        tz: str = "UTC",
    ) -> UsageStats:
        """
        Return usage and cost of all sessions, of one user's sessions, or of one session.

        by: group by "session", "user", "model", "agent", "day", "month", "run", "turn" or "branch", or by
            several of them. The key "groups" is then a list of dicts: the group's values (session_id,
            user_id, run_id, branch_id, or the name itself; None if unknown) and its sums.
        since, until: only usage in this period, ``since`` inclusive, ``until`` exclusive. Times without a
            zone are in ``tz``; a date means the whole day.
        live: only usage of active turns: those that were not popped, deleted or cleared.
        tz: the IANA time zone of days, months, dates and times without a zone.

        The keys of the sums are those of ``session.get_usage_stats``.
        """
        asked = usage_calls.wanted(
            by, since=since, until=until, user_id=user_id, session_id=session_id, live=live, tz=tz
        )
        await usage_calls.recorded(self.store)
        return await self.query(lambda tx: usage_calls.ask(tx, asked))

    async def budget_usage(
        self, budget: Budget, *, user_id: str | None = None, session_id: str | None = None
    ) -> list[BudgetUsage]:
        """
        Return the usage that counts towards a budget, for each run, session or user, the most used first.

        user_id, session_id: only usage of this user's sessions, or of this session.

        For a budget per day or month, it is the usage of the current day or month.
        """
        asked = usage_calls.wanted(user_id=user_id, session_id=session_id)
        await usage_calls.recorded(self.store)
        return await self._ask(lambda tx: budget_calls.used(tx, budget, asked, tx.now))

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
        Compute the costs of recorded requests again, with the prices at the time of each request, and
        record those that changed.

        prices: as for a session; a callable is called from a thread. None for the list included in
            genai-prices; the costs of requests that the application's own prices gave then stay.
        since, until: only requests in this period, ``since`` inclusive, ``until`` exclusive, in UTC; a date
            means the whole day.
        session_id, model: only requests of this session, of this model.
        only_unpriced: only requests without a cost.
        dry_run: return the changes without recording them.
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
    ) -> list[SessionRow]:
        """
        Return the sessions that match all filters, of all users; parameters and result are those of
        ``list_sessions`` of a session object.

        deleted: return only deleted sessions, which are otherwise left out.
        """
        query = filters.parse(
            limit=limit, after=after, order_by=order_by, reverse=reverse, deleted=deleted, **which
        )
        return await sessions.list_sessions(self._ask, query)

    async def session(self, session_id: str, *, deleted: bool = False) -> SessionRow:
        """
        Return the row of one session, as ``sessions`` does. Raises SessionNotFoundError (a ValueError).

        deleted: look only among deleted sessions, which include erased ones; False: only among the others.
        """
        codec.check_text("session_id", session_id)
        for row in await self.sessions(session_id=session_id, deleted=deleted):
            return row
        raise SessionNotFoundError(session_id)

    async def delete_session(self, session_id: str, *, reason: str | None = None) -> None:
        """
        Delete a session; its usage still counts. Raises SessionNotFoundError (a ValueError).

        reason: recorded in the log.
        """
        await self.write(lambda tx: sessions.delete_session(tx, session_id, reason))

    async def restore_session(self, session_id: str) -> None:
        """Restore a session if it is deleted. Raises SessionNotFoundError (a ValueError)."""
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
        Return the sessions that match all filters; with ``dry_run=False``, delete them.

        dry_run: True, the default, deletes nothing.
        reason: recorded in the log.
        all_sessions: must be True to select all sessions, without a filter.
        which: the filters, see ``SessionFilters``.

        Deletes 100 sessions at a time, all or none of them. Sessions that are created meanwhile, or no
        longer match, are not deleted.
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

    async def export_user(self, user_id: str) -> AsyncGenerator[str, None]:
        """
        Yield the histories of all sessions of a user, deleted ones included, as ``export_lines`` does.

        A session belongs to the user whose id it has now. The export of a user without sessions is empty.
        """
        codec.check_text("user_id", user_id)
        session_ids = await self._ask(lambda tx: session_queries.of_user(tx, user_id))
        async with aclosing(export_lines(self, session_ids)) as lines:
            async for line in lines:
                yield line

    # -- contents -----------------------------------------------------------------------------

    async def find_items(
        self,
        text: str | None = None,
        *,
        limit: int | None = 50,
        after: str | None = None,
        include_removed: bool = False,
        **which: Unpack[ItemFilters],
    ) -> SearchResults:
        """
        Return the active items that contain a text and match the filters, in all sessions.

        include_removed: also return items that were removed, and items of deleted sessions.

        The other parameters and the result are those of a session object's ``find_items``.
        """
        return await item_search.find_items(
            self._ask, text, limit=limit, after=after, include_removed=include_removed, **which
        )

    async def tools(
        self, by: Iterable[str] | str = ("tool",), **which: Unpack[ToolFilters]
    ) -> list[ToolCounts]:
        """
        Count the active tool calls; a call on several branches counts once.

        by: group by "tool", "session" or "day", or by several of them; their keys in a row are
            ``tool_name``, ``session_id`` and ``day``.
        which: session_id, user_id, since, until; see ``ToolFilters``.

        Each row also has ``calls``, ``failures`` (calls whose output reports a failure) and ``unanswered``
        (calls without an output). Rows with the most calls come first, within each day if grouped by day.
        The time grows with the number of calls and outputs in the log.
        """
        return await tools.count(self._ask, by, **which)

    # -- histories ----------------------------------------------------------------------------

    async def timeline(
        self,
        session_id: str,
        *,
        before: int | None = None,
        limit: int = 50,
        types: Sequence[str] | None = None,
        actor: str | None = None,
        branch_id: str | None = None,
    ) -> list[TimelineRow]:
        """
        Return a session's events in words, the newest first, with the later removals of their items.

        before: a version, for the next page: only events of lower versions.
        types, actor, branch_id: only events of these types, by this actor, on or about this branch.

        Raises SessionNotFoundError.
        """
        return await audit_trail.timeline(
            self._ask,
            session_id,
            before=before,
            limit=limit,
            types=types,
            actor=actor,
            branch_id=branch_id,
        )

    async def outline(
        self,
        session_id: str,
        *,
        branch_id: str | None = None,
        as_of: int | datetime | None = None,
        first_turn: int = 0,
        limit: int | None = None,
    ) -> list[OutlineTurn]:
        """
        Return the turns of a branch by their first words, with those that were removed.

        branch_id: by default the current branch. as_of: a version or a time; without a zone it is UTC.
        first_turn, limit: the first turn, and the number of turns from there.

        Raises SessionNotFoundError, BranchNotFoundError, VersionNotFoundError.
        """
        return await outline_calls.outline(
            self._ask,
            session_id,
            branch_id=branch_id,
            as_of=as_of,
            first_turn=first_turn,
            limit=limit,
        )

    async def branch_usage(
        self,
        session_id: str,
        *,
        branch_id: str | None = None,
        as_of: int | datetime | None = None,
    ) -> list[BranchRequest]:
        """
        Return the model requests of all turns that a branch shows, those that it shares, too.

        ``usage(by=("branch", "turn"))`` counts a shared turn only on the branch on which it was written.
        Parameters and errors are those of ``outline``.
        """
        return await branch_usage.branch_usage(
            self._ask, session_id, branch_id=branch_id, as_of=as_of
        )

    async def places_of(self, position: int, index: int) -> ItemPlaces:
        """
        Return where an item is: its turn and branches, or how it was removed.

        position, index: the position of the event that added it, and its index there.

        Raises ItemNotFoundError if the log never had the item.
        """
        if type(position) is not int or type(index) is not int or min(position, index) < 0:
            raise ItemNotFoundError(position=position, index=index)
        return await self._ask(lambda tx: item_places.places_of(tx, ItemRef(position, index)))

    async def census(self) -> Census:
        """Count the events of the log by type, by actor and by day. Reads the whole log."""
        return await self._ask(census_calls.census)

    async def redact(
        self, position: int, index: int, *, reason: str | None = None, dry_run: bool = False
    ) -> Redaction:
        """
        Replace the content of an item of any session by a placeholder, as a session's ``redact`` does.

        dry_run: return what would be redacted, without writing.
        """
        ref = redaction.parse(position, index, reason)
        run = self._ask if dry_run else self.write
        return await run(lambda tx: redaction.redact(tx, ref, reason, dry_run=dry_run))

    async def fork(
        self,
        session_id: str,
        new_session_id: str,
        *,
        branch_id: str | None = None,
        user_id: str | None = None,
        metadata: Mapping[str, JSON] | None = None,
    ) -> Fork:
        """
        Create a session with the items of another session's branch, as a session's ``fork`` does.

        branch_id: None for the branch that was last switched to.
        """
        codec.check_text("session_id", session_id)
        new_session_id = forking.check_new_id(new_session_id)

        def unit(tx: Transaction) -> Fork:
            session = conversations.session(tx, session_id)
            here = MAIN if session is None else session.branch_id
            context = SessionContext(session_id, branch_id or here)
            return forking.fork(
                tx, context, new_session_id, None, user_id=user_id, metadata=metadata
            )

        return await self.write(unit)

    # -- erasing ------------------------------------------------------------------------------

    async def erase(
        self,
        *,
        session_id: str | None = None,
        user_id: str | None = None,
        deleted: bool = False,
        older_than: timedelta | None = None,
        popped: bool = False,
        reason: str | None = None,
        dry_run: bool = False,
        shred_only: bool = False,
        on_progress: OnProgress | None = None,
    ) -> ErasureResult:
        """
        Erase contents permanently: no byte of them is left in the file or its write-ahead log.

        Pass exactly one of these four:

        session_id: erase this session, and delete it first if it is not deleted.
        user_id: erase all sessions of this user, deleted or not, and delete them first.
        deleted: erase all deleted sessions, or those deleted longer ago than ``older_than``.
        popped: erase the removed and redacted items of all sessions, and user ids and metadata that were
            replaced.

        reason: recorded in the log.
        dry_run: return what would be erased, without writing.
        shred_only: only destroy the keys of these sessions: their contents cannot be read any more, in this
            log or any copy of it, but their ciphertexts stay. Only in a sealed log, opened with keys.
        on_progress: called after each step with the result so far.

        In a sealed log, the keys that seal nothing else are destroyed, so that no copy of the log can be
        read with them. If it was opened without keys, the next opening with keys destroys them.

        Positions, digests, usage, and the number and types of items stay; a random pseudonym replaces the
        user id of an erased session, which cannot be restored. In a file that was migrated from the SDK's
        class, the same contents are deleted from the SDK's tables. At the end the file is rewritten, and
        writers wait for it. Raises SessionNotFoundError, and ValueError for another combination of
        parameters; with ``shred_only`` also KeysMissingError, and KeysError for contents in plaintext.
        """
        chosen = (session_id is not None, user_id is not None, deleted, popped)
        if sum(chosen) != 1:
            raise ValueError(
                "invalid scope: expected exactly one of session_id, user_id, deleted and popped"
            )
        if older_than is not None and not deleted:
            raise ValueError("invalid older_than: expected it only with deleted=True")
        if popped and shred_only:
            raise ValueError("invalid shred_only: expected False with popped=True")
        scope: Scope = PoppedItems()
        if session_id is not None:
            scope = SessionScope(session_id)
        elif user_id is not None:
            codec.check_text("user_id", user_id)
            scope = UserSessions(user_id)
        elif deleted:
            age = older_than or timedelta()
            scope = DeletedSessions(self.store.clock() - age // timedelta(microseconds=1))
        return await eraser.erase(
            self,
            scope,
            reason=reason,
            dry_run=dry_run,
            shred_only=shred_only,
            on_progress=on_progress,
            forget=sdk_tables.forget,
        )

    async def expire(
        self,
        *,
        older_than: timedelta | None = None,
        dry_run: bool = False,
        reason: str | None = None,
        on_progress: OnProgress | None = None,
    ) -> ErasureResult:
        """
        Clear the sessions that have expired, and erase their contents as ``erase`` does.

        older_than: only those that expired longer ago than this. Those that were used since they expired,
            and so cleared already, are erased in any case.
        reason: recorded in the log.
        dry_run: return what would be erased, without writing.
        on_progress: called after each step with the result so far.

        The sessions continue empty, with their user ids, metadata and usage. Items that a fork still has
        stay. In a sealed log, the keys of the contents are destroyed; without keys, that raises
        KeysMissingError for a session with a user id or metadata. A call that was killed is finished by the
        next one.
        """
        age = older_than or timedelta()
        return await eraser.erase(
            self,
            ExpiredSessions(self.store.clock() - age // timedelta(microseconds=1)),
            reason=reason,
            dry_run=dry_run,
            on_progress=on_progress,
            forget=sdk_tables.forget,
        )

    async def set_expiry(self, session_id: str, expires_after: timedelta | None) -> None:
        """
        Set after how long without use a session expires; None for never.

        Counted from its last use, so a session may expire at once. One that has expired already stays so.
        Raises SessionNotFoundError, and ValueError for a time that is not between 1 second and 300 years.
        """
        codec.check_text("session_id", session_id)
        seconds = None if expires_after is None else commands.expiry_seconds(expires_after)
        await self.write(lambda tx: sessions.set_expiry(tx, session_id, seconds))

    async def retain(
        self,
        *,
        delete_after: timedelta | None = None,
        erase_after: timedelta | None = None,
        dry_run: bool = True,
        reason: str | None = None,
    ) -> Retention:
        """
        Delete unused sessions, and erase sessions that were deleted long ago.

        delete_after: delete the sessions that were last used longer ago than this; None deletes none.
        erase_after: erase the sessions that were deleted longer ago than this, and can be restored until
            then; None erases none.
        dry_run: True, the default, writes nothing and returns what would be deleted and erased.
        reason: recorded in the log.
        """
        deletion = erasure = None
        if delete_after is not None:
            now = datetime.fromtimestamp(0, UTC) + timedelta(microseconds=self.store.clock())
            deletion = await self.delete_sessions(
                updated_before=now - delete_after, dry_run=dry_run, reason=reason
            )
        if erase_after is not None:
            erasure = await self.erase(
                deleted=True, older_than=erase_after, dry_run=dry_run, reason=reason
            )
        return Retention(deletion, erasure)

    # -- units of work ------------------------------------------------------------------------

    async def _ask(self, unit: Unit[T]) -> T:
        """Run a reading unit on tables that are up to date with the log. Raises StaleProjectionError."""

        def fresh(tx: Transaction) -> T:
            tables.default().require_fresh(tx)
            return unit(tx)

        return await self.query(fresh)


def _equipped(log: L, projections: Projector | None, limits: tuple[Budget, ...]) -> L:
    """Give a log that was just opened its budgets and more projections; close it where that fails."""
    budget_calls.apply_while_open(log, limits)
    try:
        if projections is not None:
            log.join(projections)
    except BaseException:
        log.close()
        raise
    return log


def check_search(keys: KeysOption, *, search: bool) -> None:
    """Raise ValueError for a full-text index over sealed contents."""
    if search and keys_of(keys) is not None:
        raise ValueError(
            "invalid search: expected False with keys, because a full-text index holds the texts; "
            "find_items works without one"
        )
