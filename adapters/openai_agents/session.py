"""The session for the OpenAI Agents SDK, on an event log."""

from __future__ import annotations

import asyncio
import inspect
import logging
import weakref
from collections.abc import Callable, Hashable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from datetime import date, datetime, timedelta
from functools import cache, partial
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Self, Unpack

from agents import RunConfig
from agents.items import TResponseInputItem
from agents.memory.session_settings import SessionSettings, resolve_session_limit
from agents.run_context import RunContextWrapper

from agents_eventlog import projections
from agents_eventlog.adapters.conversations import (
    branches,
    commands,
    comparison,
    concurrent_runs,
    forking,
    item_search,
    redaction,
    sessions,
    timestamps,
    transcript,
    turns,
)
from agents_eventlog.adapters.conversations import budgets as budget_calls
from agents_eventlog.adapters.conversations import usage as usage_calls
from agents_eventlog.adapters.conversations.branches import BranchNode, Sibling
from agents_eventlog.adapters.conversations.budgets import Budgets
from agents_eventlog.adapters.conversations.commands import SessionContext
from agents_eventlog.adapters.conversations.comparison import BranchComparison
from agents_eventlog.adapters.conversations.concurrent_runs import (
    OnConcurrentRun,
    RunCall,
    RunPlace,
)
from agents_eventlog.adapters.conversations.exclusive import exclusive
from agents_eventlog.adapters.conversations.forking import Fork
from agents_eventlog.adapters.conversations.item_search import ItemFilters, SearchResults
from agents_eventlog.adapters.conversations.notebook import html_table
from agents_eventlog.adapters.conversations.pricing import Prices
from agents_eventlog.adapters.conversations.redaction import Redaction
from agents_eventlog.adapters.conversations.rows import (
    BranchRow,
    ItemRow,
    SessionUsage,
    TurnRow,
    UsageOfTurn,
    UsageStats,
)
from agents_eventlog.adapters.conversations.sessions import SessionRow, SessionState, StoredMetadata
from agents_eventlog.adapters.conversations.transcript import TranscriptRow
from agents_eventlog.adapters.openai_agents import sdk_internals
from agents_eventlog.adapters.openai_agents.unit_runner import UnitRunner
from agents_eventlog.adapters.openai_agents.usage import runs
from agents_eventlog.adapters.openai_agents.usage.budget_check import BudgetCheck
from agents_eventlog.adapters.openai_agents.usage.observation import runs_of
from agents_eventlog.adapters.openai_agents.usage.recorder import UsageRecorder
from agents_eventlog.eventlog import _logging, codec
from agents_eventlog.eventlog.errors import (
    BranchNotFoundError,
    InvalidEventError,
    SessionNotFoundError,
    TurnNotFoundError,
)
from agents_eventlog.eventlog.events import (
    JSON,
    ItemRef,
    ItemsAdded,
    ItemsReplaced,
)
from agents_eventlog.eventlog.log import EventLog
from agents_eventlog.eventlog.storage.transaction import Transaction
from agents_eventlog.projections.conversations import queries as conversation_queries
from agents_eventlog.projections.conversations.builder import MAIN
from agents_eventlog.projections.conversations.queries import UserItem
from agents_eventlog.projections.sessions import filters
from agents_eventlog.projections.sessions.filters import OrderBy, SessionFilters
from agents_eventlog.projections.usage import queries as usage_queries

if TYPE_CHECKING:
    from agents_eventlog.adapters.openai_agents.sync import SyncSession

Wrapper = RunContextWrapper[Any]

PREVIEW_CHARACTERS = 100
LOGGED_CHARACTERS = 50


class EventLogSession:
    """
    A conversation on an event log, with the interface of the Agents SDK's ``Session``.

    log: an open ``EventLog``; the constructor adds the session's projections to it.
    logger: a logger to use instead of "eventlog.session".
    session_settings: the SDK's settings; ``limit`` is the default of ``get_items(limit)``.
    branch_id: the branch to start on.
    resume: with ``branch_id="main"``, start on the branch that any object last switched the session to.
    user_id: the owner of the session, stored by the first write. Calls on a session with another owner, or
        without one, raise SessionOwnerError (a PermissionError). "": only a session without an owner.
        None: any session.
    metadata: a JSON object, stored by the first write; ignored if the session exists.
    expires_after: the session expires when it has not been used, that is written to, for this long: reads
        then return what they return of a cleared session, and the next write clears it. ``log.expire`` and
        ``eventlog expire`` erase its contents. Stored by the next write, so that it holds for all programs.
        None changes nothing; by default a session never expires.
    max_age: ``get_items`` leaves out turns to which nothing was added for this long; always whole turns, so
        that a tool call keeps its output. They stay in the session. See ``left_out``.
    first_turn_number: the number of the first turn in all calls and results, 1 or 0.
    auto_usage: record the usage of the Runner's requests automatically; otherwise only ``UsageHooks`` and
        ``store_run_usage`` record usage.
    prices: a mapping of model, or (model, service tier), to ``Price``; or a callable that takes a
        ``RequestUsage`` and its datetime, and returns the cost in USD, or None. For what they do not price,
        the list included in genai-prices is used; not with ``OnlyPrices(prices)``.
    budgets: a ``Budget``, or several, in addition to those of the file's open ``ConversationLog`` objects.
        They are checked when a run starts, and with ``UsageHooks`` before each model request.
    on_concurrent_run: what a run does if another run changed its branch since it last read or wrote it.
        "interleave": add its items after those of the other run, as the SDK does, and log a warning.
        "reject": raise ConcurrentRunError from the call, which writes nothing. "branch": continue on a
        branch of its own, from the items that it knows; within the run, ``current_branch`` is its id.

    A turn is a user message and the items that follow it. An item or turn is active while it is on a branch
    that is not deleted, of a session that is not deleted. A session's version is the number of its events.

    All methods may be called from any task, event loop and thread; calls of one object run in call order.
    A cancelled call still completes before it raises CancelledError. ``close()`` is optional. Writes raise
    BranchNotFoundError on a deleted branch, SessionDeletedError on a deleted session, and a StoreError if
    SQLite fails; a write that raises has written nothing. ``wrapper`` is the run's context, which the
    Runner passes.
    """

    session_settings: SessionSettings | None

    def __init__(
        self,
        session_id: str,
        log: EventLog,
        *,
        logger: logging.Logger | None = None,
        session_settings: SessionSettings | dict[str, Any] | None = None,
        branch_id: str = MAIN,
        resume: bool = False,
        user_id: str | None = None,
        metadata: Mapping[str, JSON] | None = None,
        expires_after: timedelta | None = None,
        max_age: timedelta | None = None,
        first_turn_number: int = 1,
        auto_usage: bool = True,
        prices: Prices = None,
        budgets: Budgets = (),
        on_concurrent_run: OnConcurrentRun = "interleave",
    ) -> None:
        concurrent_runs.check_policy(on_concurrent_run)
        if first_turn_number not in (0, 1):
            raise ValueError(
                f"invalid first_turn_number: expected 0 or 1, got {first_turn_number!r}"
            )
        session_id = codec.check_session_id(session_id)
        commands.check_branch_id(branch_id)
        self.session_settings = sdk_internals.settings_of(session_settings)
        self.log = log
        self._first_turn = first_turn_number
        self._logger = logger if logger is not None else logging.getLogger("eventlog.session")
        self._events = _logging.get_logger(self._logger)
        user_id, metadata = commands.check_labels(user_id, metadata)
        expiry = None if expires_after is None else commands.expiry_seconds(expires_after)
        self._max_age = None if max_age is None else commands.check_age("max_age", max_age)
        self._left_out = 0
        kept = projections.default()
        log.join(kept)
        context = SessionContext(
            session_id,
            branch_id,
            user_id=user_id,
            metadata=metadata,
            expires_after_seconds=expiry,
        )
        self._context = context
        self._runner = UnitRunner(log, kept, partial(commands.check_owner, context=context))
        limits = budget_calls.checked(budgets)
        self._budgets = BudgetCheck(self._runner, self._context, limits, self._events)
        self._usage = UsageRecorder(
            self._runner,
            self._context,
            prices=prices,
            is_automatic=auto_usage,
            budgets=self._budgets,
            logger=self._logger,
        )
        if auto_usage:
            kind: Any = type(self)
            _check_overrides(kind)
        self._on_concurrent_run = on_concurrent_run
        self._places: weakref.WeakSet[RunPlace] = weakref.WeakSet()
        self._resolve_branch(resume=resume)
        self.session_id = self._context.session_id
        self._key: Hashable = (runs.log_name(log.store), self.session_id)

    def _resolve_branch(self, *, resume: bool) -> None:
        """Determine the current branch. Raises BranchNotFoundError if it does not exist."""
        context, runner = self._context, self._runner
        if commands.OPENABLE_ID.fullmatch(context.session_id):
            owner = runner.read_sync(lambda tx: commands.owner_of_branch(tx, context.session_id))
            if owner is not None:
                context.session_id, context.branch_id = owner, context.session_id
        if resume or context.branch_id != MAIN:
            here = runner.read_sync(
                lambda tx: conversation_queries.place(tx, context.session_id, context.branch_id)
            )
            context.cleared_version = here.cleared_version
            if resume and context.branch_id == MAIN:
                context.branch_id = here.last_branch_id
            elif not here.branch_exists:
                raise BranchNotFoundError(context.branch_id)

    @property
    def current_branch(self) -> str:
        """The id of the current branch; within a run that continues on a branch of its own, that one's."""
        place = concurrent_runs.current(self._key)
        own = None if place is None else place.context
        return self._context.branch_id if own is None else own.branch_id

    @property
    def left_out(self) -> int:
        """How many items the last ``get_items`` of this object left out because of ``max_age``."""
        return self._left_out

    @property
    def _current_branch_id(self) -> str:
        return self.current_branch

    @property
    def sync(self) -> SyncSession:
        """This session with blocking methods, for programs without an event loop."""
        from agents_eventlog.adapters.openai_agents.sync import SyncSession

        return SyncSession(self)

    # -- runs at the same time ------------------------------------------------------------------

    def _place(self, wrapper: Wrapper | None) -> RunPlace | None:
        """Return the place of a call's run, or without a run context that of the current task's run."""
        usage = getattr(wrapper, "usage", None)
        if usage is None:
            return concurrent_runs.current(self._key)
        places = runs_of(usage).tracker(self.log.store).places
        place = places.setdefault(self._context.session_id, RunPlace())
        self._places.add(place)
        return place

    def _call(self, wrapper: Wrapper | None = None) -> RunCall:
        place = self._place(wrapper)
        return RunCall(
            self._context,
            place,
            self._on_concurrent_run,
            is_of_run=wrapper is not None,
            is_alone=self._on_concurrent_run != "branch"
            or not any(each.is_under_way() for each in self._places if each is not place),
        )

    # -- the SDK's protocol -------------------------------------------------------------------

    async def get_items(
        self,
        limit: int | None = None,
        branch_id: str | None = None,
        *,
        wrapper: Wrapper | None = None,
        as_of: int | datetime | None = None,
    ) -> list[TResponseInputItem]:
        """
        Return a branch's items, oldest first: all, or the newest ``limit``.

        limit: None for the limit of ``session_settings``, by default all.
        branch_id: None for the current branch; an unknown one has no items.
        as_of: return the items at an earlier version of the session, or at a time (without a zone: UTC);
            ``max_age`` does not apply.

        Raises VersionNotFoundError (a ValueError) for a version that the session never had. At the start of
        a run, raises BudgetExceededError if a budget is used up.
        """
        self._usage.track(wrapper)
        newest = resolve_session_limit(limit, self.session_settings)
        if newest is not None and not isinstance(newest, int):
            raise TypeError(f"invalid limit: expected an int, got {type(newest).__name__}")
        if as_of is not None:
            return await self._runner.read(
                lambda tx: commands.get_past_items(tx, self._context, branch_id, newest, as_of)
            )
        place = self._place(wrapper)
        if place is not None and place.tip is None and wrapper is not None:
            await self._budgets.check(wrapper)
        if place is None or branch_id is not None:
            return await self._runner.read(
                lambda tx: self._recent_items(tx, self._context, branch_id, newest)
            )
        if wrapper is not None:
            concurrent_runs.start(self._key, place)

        def unit(tx: Transaction) -> list[JSON]:
            context = place.context or self._context
            if wrapper is not None:
                concurrent_runs.has_read(tx, context, place)
            return self._recent_items(tx, context, None, newest)

        return await self._runner.read(unit)

    def _recent_items(
        self, tx: Transaction, context: SessionContext, branch_id: str | None, limit: int | None
    ) -> list[JSON]:
        if self._max_age is None:
            return commands.get_items(tx, context, branch_id, limit)
        items, self._left_out = commands.get_recent_items(
            tx, context, branch_id, limit, self._max_age
        )
        return items

    async def add_items(
        self, items: list[TResponseInputItem], *, wrapper: Wrapper | None = None
    ) -> None:
        """
        Append items to the current branch, all or none.

        Raises UnserialisableError (a TypeError) for values that JSON cannot represent, and
        InvalidEventError if ``items`` is a single item instead of a list.
        """
        self._runner.check_not_closed()
        if not items:
            return
        if isinstance(items, (str, bytes, Mapping)):
            raise InvalidEventError(f"invalid items: expected a list, got {type(items).__name__}")
        try:
            events = commands.in_parts(ItemsAdded(items=list(items)))
            self._usage.track(wrapper)
            call = self._call(wrapper)
            await self._usage.write(
                lambda tx: commands.add_items(tx, call.context, events), wrapper, call
            )
            if call.is_interleaved:
                self._events.warning(
                    "Two runs use one branch at the same time: their items are interleaved",
                    session_id=self._context.session_id,
                    branch_id=call.context.branch_id,
                )
        except Exception as error:
            sdk_internals.log_error(
                self._logger, "Failed to add session items", error, has_tool_data=True
            )
            raise

    async def pop_item(self, *, wrapper: Wrapper | None = None) -> TResponseInputItem | None:
        """Remove the newest item from the current branch and return it; None if the branch is empty."""
        self._usage.track(wrapper)
        call = self._call(wrapper)
        popped: TResponseInputItem | None = await self._usage.write(
            lambda tx: commands.pop_item(tx, call.context), wrapper, call
        )
        return popped

    async def undo_turn(self) -> list[TResponseInputItem]:
        """
        Remove the last turn from the current branch, and return its items; [] if the branch is empty.

        The turn's usage still counts, like that of popped items. ``redo`` adds the turn again.
        """
        call = self._call()
        undone: list[TResponseInputItem] = await self._usage.write(
            lambda tx: turns.undo_turn(tx, call.context), call=call
        )
        return undone

    async def redo(self) -> list[TResponseInputItem]:
        """
        Add the last undone turn to the current branch again, and return its items; [] without such a turn.

        Several undone turns can be redone, in any session object, until the items of the branch change in
        another way. The turn's usage is active again. Raises UndecodableEventError if content was erased.
        """
        call = self._call()
        redone: list[TResponseInputItem] = await self._usage.write(
            lambda tx: turns.redo(tx, call.context), call=call
        )
        return redone

    async def redact(self, position: int, index: int, *, reason: str | None = None) -> Redaction:
        """
        Replace the content of an item by a placeholder, wherever the item is; see ``Redaction``.

        position, index: the identity of the item, as ``get_transcript`` and ``find_items`` return it.
        reason: recorded in the log.

        The item may have been removed, and the session deleted. The placeholder keeps the item's type, ids
        and tool, so the conversation is still valid input for the model. Until the next ``log.erase``, the
        log holds the content, and returns it for ``as_of`` a version before the redaction.

        Raises ItemNotFoundError, ItemRedactedError and ItemErasedError (all ValueErrors).
        """
        ref = redaction.parse(position, index, reason)

        def unit(tx: Transaction) -> Redaction:
            commands.require_lease(tx, self._context)
            return redaction.redact(tx, ref, reason, session_id=self.session_id)

        return await self._usage.write(unit)

    async def clear_session(self, *, wrapper: Wrapper | None = None) -> None:
        """Delete all items and branches. Branch ids cannot be used again; recorded usage still counts."""
        self._usage.track(wrapper)
        await self._usage.write(
            lambda tx: commands.clear_session(tx, self._context), wrapper, self._call()
        )

    def close(self) -> None:
        """Wait for running operations and close. Idempotent; later calls raise ClosedError."""
        self._runner.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.to_thread(self.close)

    def __repr__(self) -> str:
        return (
            f"<{type(self).__name__} session_id={self._context.session_id!r} "
            f"branch_id={self.current_branch!r} path={self.log.path!r}>"
        )

    def _repr_html_(self) -> str:
        """Return what a notebook shows: what this object knows, since a read would block its event loop."""
        rows = {
            "session": self._context.session_id,
            "branch": self.current_branch,
            "user": self._context.user_id,
            "log": self.log.path,
        }
        return html_table(type(self).__name__, rows, "await session.get_conversation_turns()")

    # -- one run at a time ----------------------------------------------------------------------

    def exclusive(
        self, wait_seconds: float = 30, *, lease_seconds: float = 10
    ) -> AbstractAsyncContextManager[None]:
        """
        Hold this session against other callers of ``exclusive``, in all processes.

        Use it as ``async with session.exclusive(): await Runner.run(...)``. Calls outside such a block are
        not kept out. Not reentrant.

        wait_seconds: maximum time to wait for another holder; then raises SessionBusyError.
        lease_seconds: how long others wait for a holder that died or hangs. A task on the event loop renews
            the lease, so the loop must not block for this long.

        A holder that lost its lease, for example while its process was suspended, gets SessionBusyError
        from its next write, which writes nothing.
        """
        return exclusive(
            self.log, self._context, wait_seconds=wait_seconds, lease_seconds=lease_seconds
        )

    # -- branches -----------------------------------------------------------------------------

    async def create_branch(self, branch_name: str | None = None) -> str:
        """Create a branch at the end of the current branch, switch to it, and return its id."""
        commands.check_branch_name(branch_name)
        label = self._first_turn - 1
        return await self._usage.write(
            lambda tx: commands.create_branch(tx, self._context, branch_name, label)
        )

    async def create_branch_from_turn(
        self, turn_number: int, branch_name: str | None = None, *, include_turn: bool = False
    ) -> str:
        """
        Create a branch before a turn of the current branch, switch to it, and return its id.

        turn_number: the first turn that is not on the new branch. If turns are numbered from 1, turn 0
            creates an empty branch.
        branch_name: the new branch's id, never used before in this session; None generates an id that is
            unique in the file.
        include_turn: end the new branch after this turn, not before it.

        Raises TurnNotFoundError, BranchExistsError, InvalidBranchError (all ValueErrors).
        """
        commands.check_branch_name(branch_name)
        turn = self._turn_number(turn_number)
        return await self._branch_before(
            lambda _: turn, branch_name, include_turn=include_turn, label=self._external(turn)
        )

    async def create_branch_from_content(
        self, search_term: str, branch_name: str | None = None
    ) -> str:
        """
        Create a branch before the first turn whose user text contains a term, as
        ``create_branch_from_turn`` does.

        search_term: a substring; ASCII letters are case-insensitive.

        Raises ConversationError (a ValueError) if no turn matches, and the errors of
        ``create_branch_from_turn``.
        """
        return await self._branch_before(
            lambda tx: commands.first_turn_with(tx, self._context, search_term), branch_name
        )

    async def _branch_before(
        self,
        choose: Callable[[Transaction], int],
        branch_name: str | None,
        *,
        include_turn: bool = False,
        label: int | None = None,
    ) -> str:
        def unit(tx: Transaction) -> tuple[str, str]:
            turn = choose(tx)
            commands.check_branch_name(branch_name)
            called = self._external(turn) if label is None else label
            account = f"turn {called}{self._preview(tx, turn)} in '{self._context.branch_id}'"
            created = commands.create_branch_from_turn(
                tx, self._context, turn, branch_name, include_turn=include_turn, label=called
            )
            return created, account

        branch_id, account = await self._usage.write(unit)
        self._events.debug(f"Created branch '{branch_id}' from {account}")
        return branch_id

    def _preview(self, tx: Transaction, turn: int) -> str:
        """Return the beginning of a turn's text for the log; "" if model data must not be logged."""
        if not sdk_internals.may_log_model_data():
            return ""
        pointer = commands.look(tx, self._context).pointer
        opening = next(
            (
                user_item
                for user_item in conversation_queries.user_items(
                    tx, pointer, session_id=self._context.session_id
                )
                if user_item.turn == turn
            ),
            None,
        )
        return "" if opening is None else f" ('{_text(opening.content, LOGGED_CHARACTERS)}')"

    async def fork(
        self,
        new_session_id: str,
        branch_id: str | None = None,
        *,
        user_id: str | None = None,
        metadata: Mapping[str, JSON] | None = None,
    ) -> Fork:
        """
        Create a session that begins with the items of a branch, by default the current one; see ``Fork``.

        user_id, metadata: those of the new session; None for those of this session.

        Nothing is copied: the new session refers to the items, which are also its own to pop, undo and
        branch. Its usage begins with 0. Clearing or deleting this session does not change it; erasing this
        session leaves placeholders in it. Raises SessionExistsError for an id that is or was in use, and
        SessionNotFoundError, SessionDeletedError, BranchNotFoundError (all ValueErrors).
        """
        new_session_id = forking.check_new_id(new_session_id)
        call = self._call()

        def unit(tx: Transaction) -> Fork:
            commands.require_lease(tx, call.context)
            return forking.fork(
                tx, call.context, new_session_id, branch_id, user_id=user_id, metadata=metadata
            )

        return await self._usage.write(unit)

    async def switch_to_branch(self, branch_id: str) -> None:
        """Switch to another branch; main always exists. Raises BranchNotFoundError (a ValueError)."""
        before = await self._usage.write(
            lambda tx: commands.switch_to_branch(tx, self._context, branch_id)
        )
        self._events.info(f"Switched from branch '{before}' to '{branch_id}'")

    async def delete_branch(self, branch_id: str, force: bool = False) -> None:
        """
        Delete a branch. Its id cannot be used again; items that it shares with other branches stay there.

        force: allow deleting the current branch; the session then switches to main.

        Raises InvalidBranchError for main, or for the current branch without ``force``, and
        BranchNotFoundError (both ValueErrors).
        """
        await self._usage.write(
            lambda tx: commands.delete_branch(tx, self._context, branch_id, force=force)
        )
        self._events.info(f"Deleted branch '{branch_id}'")

    async def list_branches(self) -> list[BranchRow]:
        """
        Return the branches in the order of their creation.

        Keys: branch_id, message_count (all items), user_turns, is_current, created_at (UTC).
        """
        return await self._runner.read(lambda tx: branches.live_branches(tx, self._context))

    async def branch_tree(self) -> list[BranchNode]:
        """
        Return all branches that the session ever had, in the order of creation; see ``BranchNode``.

        ``from_branch_id`` is the parent of a branch, and ``fork_turn`` the last turn that they share.
        """

        def unit(tx: Transaction) -> list[BranchNode]:
            current = commands.look(tx, self._context), self._context.branch_id
            nodes = [
                each.node() for each in branches.current_branches(tx, self._context.session_id)
            ]
            for node in nodes:
                node["is_current"] = node["is_live"] and node["branch_id"] == current[1]
                if node["before_turn"] is not None:
                    node["before_turn"] = self._external(node["before_turn"])
                if node["fork_turn"] is not None:
                    node["fork_turn"] = self._external(node["fork_turn"])
            return nodes

        return await self._runner.read(unit)

    async def siblings(self, turn_number: int) -> list[Sibling]:
        """
        Return the active versions of a turn of the current branch, the oldest first; see ``Sibling``.

        Versions of a turn follow the same item, on different branches; ``retry`` and ``edit`` create them.
        ``switch_to_branch(branch_id)`` shows one. Raises TurnNotFoundError (a ValueError).
        """
        turn = self._turn_number(turn_number)

        def unit(tx: Transaction) -> list[Sibling]:
            found = branches.siblings(tx, self._context, turn, turn_number)
            for sibling in found:
                sibling["turn"] = self._external(sibling["turn"])
            return found

        return await self._runner.read(unit)

    async def compare_branches(self, a: str, b: str) -> BranchComparison:
        """
        Return two branches turn beside turn, with items, tokens, cost and time; see ``BranchComparison``.

        Turns that both share are only counted. Raises BranchNotFoundError (a ValueError).
        """

        def unit(tx: Transaction) -> BranchComparison:
            commands.look(tx, self._context)
            found = comparison.compare_branches(tx, self._context.session_id, a, b)
            for turn in found["turns"]:
                turn["turn"] = self._external(turn["turn"])
                for side in (turn["a"], turn["b"]):
                    for row in () if side is None else side["items"]:
                        row["turn"] = turn["turn"]
            return found

        await usage_calls.recorded(self.log.store)
        return await self._runner.read(unit)

    # -- turns --------------------------------------------------------------------------------

    async def retry(
        self, turn_number: int | None = None, branch_name: str | None = None
    ) -> str | list[TResponseInputItem]:
        """
        Create a branch before a turn, switch to it, and return the turn's input to run again.

        turn_number: a turn of the current branch; by default the last one.
        branch_name: as in ``create_branch_from_turn``.

        ``Runner.run(agent, await session.retry(2), session=session)`` answers turn 2 once more. The input
        is a str if the user message is one, or else a list of that message. Usage of the first answer
        still counts. Raises the errors of ``create_branch_from_turn``, and UndecodableEventError if the
        message was erased.
        """
        item = await self._branch_to_run(turn_number, branch_name)
        return _as_input(item)

    async def edit(
        self, turn_number: int, text: str, branch_name: str | None = None
    ) -> str | list[TResponseInputItem]:
        """
        Do as ``retry``, but return the turn's input with another user text.

        text: replaces the text of the user message; its images and files are kept.
        """
        turns.check_text(text)
        item = await self._branch_to_run(turn_number, branch_name)
        return _as_input(turns.with_text(item, text))

    async def _branch_to_run(self, turn_number: int | None, branch_name: str | None) -> JSON:
        """Create a branch before a turn, and return the user item that opens the turn."""
        commands.check_branch_name(branch_name)
        number = None if turn_number is None else self._turn_number(turn_number)
        call = self._call()

        def unit(tx: Transaction) -> JSON:
            turn = commands.look(tx, call.context).turn if number is None else number
            label = self._external(turn)
            item = turns.opening_item(tx, call.context, turn, label)
            commands.create_branch_from_turn(
                tx, call.context, turn, branch_name, include_turn=False, label=label
            )
            return item

        return await self._usage.write(unit, call=call)

    async def get_transcript(
        self,
        branch_id: str | None = None,
        *,
        first_turn: int | None = None,
        last_turn: int | None = None,
    ) -> list[TranscriptRow]:
        """
        Return the items of a branch with turn, position, version, time and actor; see ``TranscriptRow``.

        first_turn, last_turn: only these turns and those between. Reading some turns of a long history
            takes no longer than reading those of a short one.

        Items whose content was erased are included, without it.
        """
        first = None if first_turn is None else self._internal(first_turn)
        last = None if last_turn is None else self._internal(last_turn)

        def unit(tx: Transaction) -> list[TranscriptRow]:
            rows = transcript.transcript(tx, self._context, branch_id, first, last)
            for row in rows:
                row["turn"] = self._external(row["turn"])
            return rows

        return await self._runner.read(unit)

    async def get_current_turn(self) -> int:
        """Return the number of the current branch's last turn; ``first_turn_number`` - 1 without turns."""
        return await self._runner.read(
            lambda tx: self._external(commands.look(tx, self._context).turn),
        )

    async def get_conversation_turns(self, branch_id: str | None = None) -> list[TurnRow]:
        """
        Return the turns of a branch (None: the current one), oldest first.

        Keys: turn (its number), content (the user text, cut after 100 characters), full_content,
        timestamp (UTC), can_branch (always True).
        """

        def unit(tx: Transaction) -> list[TurnRow]:
            pointer = commands.look_at(tx, self._context, branch_id).pointer
            found = conversation_queries.user_items(
                tx, pointer, session_id=self._context.session_id
            )
            return self._turns(found, PREVIEW_CHARACTERS)

        return await self._runner.read(unit)

    async def find_turns_by_content(
        self, search_term: str, branch_id: str | None = None
    ) -> list[TurnRow]:
        """
        Return the turns of a branch (None: the current one) whose user text contains a term.

        ASCII letters are case-insensitive. Keys as in ``get_conversation_turns``, but content is complete.
        """

        def unit(tx: Transaction) -> list[TurnRow]:
            found = commands.find_turns(tx, self._context, branch_id, search_term)
            return self._turns(found, None)

        return await self._runner.read(unit)

    async def get_conversation_by_turns(
        self, branch_id: str | None = None
    ) -> dict[int, list[ItemRow]]:
        """
        Return the items of a branch by turn: {turn: [{"type": ..., "tool_name": ...}, ...]}.

        branch_id: None for the current branch.
        """

        def unit(tx: Transaction) -> dict[int, list[ItemRow]]:
            pointer = commands.look_at(tx, self._context, branch_id).pointer
            rows = conversation_queries.structure(tx, pointer)
            return {
                self._external(turn): [
                    {"type": kind, "tool_name": tool_name} for _, kind, tool_name in items
                ]
                for turn, items in groupby(rows, key=itemgetter(0))
            }

        return await self._runner.read(unit)

    async def get_tool_usage(self, branch_id: str | None = None) -> list[tuple[str, int, int]]:
        """
        Return (tool name, number of calls, turn) for each tool in each turn of a branch, ordered by turn.

        branch_id: None for the current branch.
        """
        counted = await self._runner.read(
            lambda tx: commands.count_tools(tx, self._context, branch_id)
        )
        return [(tool_name, count, self._external(turn)) for tool_name, count, turn in counted]

    # -- usage --------------------------------------------------------------------------------

    async def store_run_usage(self, result: Any, *, run_config: RunConfig | None = None) -> None:
        """
        Record a run's usage on the last turn of the current branch.

        Each request counts once: one that was recorded automatically only gets the details that the result
        adds, such as its response id.

        result: a ``RunResult``, or another object with ``.context_wrapper.usage``.
        run_config: the run's configuration; needed if it names a model and usage is not recorded
            automatically.

        Never raises an Exception; failures are logged.
        """
        await self._usage.store_run_usage(result, run_config)

    async def get_session_usage(self, branch_id: str | None = None) -> SessionUsage | None:
        """
        Return the sums of all active turns, or None if they have no recorded usage.

        branch_id: only this branch; None for all branches.

        Keys: requests, input_tokens, output_tokens, total_tokens, total_turns.
        """

        def unit(tx: Transaction) -> tuple[int, int, int, int, int] | None:
            here = commands.look(tx, self._context)
            if here.is_deleted or here.is_expired:
                return None
            return usage_queries.live_total(tx, self._context.session_id, branch_id or None)

        await usage_calls.recorded(self.log.store)
        total = await self._runner.read(unit)
        if total is None:
            return None
        requests, input_tokens, output_tokens, total_tokens, total_turns = total
        return SessionUsage(
            requests=requests,
            input_tokens=input_tokens,
            output_tokens=output_tokens,
            total_tokens=total_tokens,
            total_turns=total_turns,
        )

    async def get_turn_usage(
        self, user_turn_number: int | None = None, branch_id: str | None = None
    ) -> list[UsageOfTurn] | UsageOfTurn:
        """
        Return the sums of one active turn, or a list of them for all active turns of a branch.

        user_turn_number: the turn; {} is returned if it has no recorded usage. None for all turns.
        branch_id: None for the current branch.

        Keys: requests, input_tokens, output_tokens, total_tokens, input_tokens_details,
        output_tokens_details, and in the list user_turn_number.
        """

        def unit(tx: Transaction) -> dict[int, usage_queries.Tokens]:
            here = commands.look_at(tx, self._context, branch_id)
            if here.is_deleted or here.is_expired:
                return {}
            branch = self._context.branch_id if branch_id is None else branch_id
            return usage_queries.by_turn(tx, self._context.session_id, branch)

        await usage_calls.recorded(self.log.store)
        turns = await self._runner.read(unit)
        if user_turn_number is not None:
            number = commands.turn_number(user_turn_number)
            used = None if number is None else turns.get(self._internal(number))
            return UsageOfTurn() if used is None else _usage_of_turn(used)
        return [
            {"user_turn_number": self._external(turn), **_usage_of_turn(used)}
            for turn, used in turns.items()
        ]

    async def get_usage_stats(
        self,
        by: Iterable[str] | str = (),
        *,
        since: date | datetime | None = None,
        until: date | datetime | None = None,
        live: bool = False,
        tz: str = "UTC",
    ) -> UsageStats:
        """
        Return the session's total usage, including that of popped, deleted and cleared turns.

        by: group by "run", "turn", "branch", "model", "agent", "day" or "month", or by several of them. The
            key "groups" is then a list of dicts: the group's values (run_id, branch_id, or the name itself;
            None if unknown) and its sums.
        since, until: only usage in this period, ``since`` inclusive, ``until`` exclusive. Times without a
            zone are in ``tz``; a date means the whole day.
        live: only usage of active turns.
        tz: the IANA time zone of days, months, dates and times without a zone.

        Keys: total_runs, total_requests, total_tokens, input_tokens, output_tokens, cached_tokens,
        cache_write_tokens, reasoning_tokens; total_cost, in USD, of the requests with a known price;
        unpriced_requests, the number of the others. Raises InvalidQueryError (a ValueError).
        """
        asked = usage_calls.wanted(
            by, since=since, until=until, session_id=self._context.session_id, live=live, tz=tz
        )
        await usage_calls.recorded(self.log.store)
        answer = await self._runner.read(lambda tx: usage_calls.ask(tx, asked))
        for group in answer.get("groups", ()):
            if (turn := group.get("turn")) is not None:
                group["turn"] = self._external(turn)
        return answer

    # -- sessions -----------------------------------------------------------------------------

    async def set_metadata(
        self, metadata: Mapping[str, JSON] | None = None, *, user_id: str | None = None
    ) -> None:
        """
        Set the session's metadata and user id; create the session if it does not exist.

        metadata: replaces the whole metadata; {} removes it; None keeps it.
        user_id: replaces the session's owner; "" removes it; None keeps it. This object then works for the
            new owner.

        Raises UnserialisableError (a TypeError) for values that JSON cannot represent, and
        SessionDeletedError.
        """
        labels = commands.check_labels(user_id, metadata)
        await self._usage.write(lambda tx: sessions.set_metadata(tx, self._context, *labels))

    async def update_metadata(self, patch: Mapping[str, JSON]) -> None:
        """
        Apply a JSON Merge Patch (RFC 7396) to the metadata; create the session if it does not exist.

        patch: each value replaces the stored value under its key, and None removes the key; other keys do
            not change. A mapping changes the keys of a stored object in the same way.

        The change is atomic, also across processes. Raises TypeError unless ``patch`` is a mapping,
        UnserialisableError (a TypeError), and SessionDeletedError.
        """
        plain = sessions.check_patch(patch)
        await self._usage.write(lambda tx: sessions.update_metadata(tx, self._context, plain))

    async def set_title(self, title: str | None) -> None:
        """
        Set the session's title, stored in its metadata under "title"; None or "" removes it.

        ``list_sessions`` shows the first user message of a session without a title. Raises the errors of
        ``update_metadata``.
        """
        await self.update_metadata(sessions.title_patch(title))

    async def get_metadata(self) -> StoredMetadata:
        """Return the stored ``user_id`` and ``metadata`` as a dict; a value that is not set is None."""
        return await self._runner.read(lambda tx: sessions.get_metadata(tx, self._context))

    async def state(self) -> SessionState:
        """Return "active", "deleted", "erased", or "unknown" if nothing was written to the session yet."""
        return await self._runner.read(lambda tx: sessions.state(tx, self._context.session_id))

    async def list_sessions(
        self,
        *,
        limit: int | None = None,
        after: str | None = None,
        order_by: OrderBy = "updated_at",
        reverse: bool = False,
        **which: Unpack[SessionFilters],
    ) -> list[SessionRow]:
        """
        Return the sessions of the file that match all filters; if this object has a ``user_id``, only that
        user's.

        limit: maximum number of sessions; None for all.
        after: the ``cursor`` of a row, to continue after it.
        order_by: "updated_at" (the time of the last event) or "created_at", newest first.
        reverse: oldest first.
        which: user_id, metadata, created_after, created_before, updated_after, updated_before, text,
            min_items; see ``SessionFilters``.

        The keys of a row are listed in ``SessionRow``. Pages in the order of "created_at" contain each
        session once. In the order of "updated_at", a session that is used between two pages moves to the
        front, and may be missed.

        Raises InvalidQueryError (a ValueError).
        """
        query = filters.parse(limit=limit, after=after, order_by=order_by, reverse=reverse, **which)
        query = replace(query, user_id=commands.own_sessions(self._context, query.user_id))
        return await sessions.list_sessions(self._runner.scan, query)

    async def delete_session(self, session_id: str | None = None) -> None:
        """
        Delete a session, by default this one. Its usage still counts.

        Until ``restore_session``, reads of it return nothing, lists do not contain it, and writes to it
        raise SessionDeletedError. Raises SessionNotFoundError (a ValueError) if another session does not
        exist; has no effect if this session does not exist yet.
        """
        target = self.session_id if session_id is None else session_id

        def unit(tx: Transaction) -> None:
            commands.may_change(tx, self._context, target)
            try:
                sessions.delete_session(tx, target)
            except SessionNotFoundError:
                if target != self.session_id:
                    raise
            else:
                if target == self.session_id:
                    self._context.move(tx, MAIN, self._context.cleared_version)

        await self._usage.write(unit)

    async def restore_session(self, session_id: str | None = None) -> None:
        """
        Restore a deleted session, by default this one, with all its items, branches and metadata.

        Has no effect on a session that is not deleted. Raises SessionNotFoundError, and SessionErasedError
        for an erased session (both ValueErrors).
        """
        target = self.session_id if session_id is None else session_id

        def unit(tx: Transaction) -> None:
            commands.may_change(tx, self._context, target)
            sessions.restore_session(tx, target)

        await self._usage.write(unit)

    # -- items --------------------------------------------------------------------------------

    async def find_items(
        self,
        text: str | None = None,
        *,
        limit: int | None = 50,
        after: str | None = None,
        **which: Unpack[ItemFilters],
    ) -> SearchResults:
        """
        Return the active items of this session that contain a text and match the filters.

        text: a substring of one of the item's texts (a message, a call's arguments, an output, a reasoning
            summary), case-insensitive; None for all items.
        limit: maximum number of items; None for all.
        after: the ``cursor`` of an item or of a result, to continue after it.
        which: type, tool_name, role, branch_id, since, until; see ``ItemFilters``. session_id or user_id
            searches that session, or that user's sessions, instead of this one. If this object has a
            ``user_id``, only sessions of this user are searched.

        The newest come first; see ``ItemHit`` for the keys of an item, and ``SearchResults``. Raises
        InvalidQueryError (a ValueError).
        """
        if which.get("session_id") is None and which.get("user_id") is None:
            which["session_id"] = self.session_id
        else:
            which["user_id"] = commands.own_sessions(self._context, which.get("user_id"))
        return await item_search.find_items(
            self._runner.scan, text, limit=limit, after=after, first_turn=self._first_turn, **which
        )

    # -- the SDK's compaction -------------------------------------------------------------------

    async def _atomic_replace_items(self, items: list[TResponseInputItem]) -> bool:
        """Replace all items of the current branch atomically; other branches and usage do not change."""
        return not self._is_transformed() and await self._replace(None, items, ())

    async def _get_compaction_snapshot(
        self, limit: int, *, prune_prefix: Callable[[TResponseInputItem], bool] | None = None
    ) -> Any:
        """Return the newest items, and a function that replaces some of them if they are unchanged."""
        if self._is_transformed():
            return None
        call = self._call()

        def unit(tx: Transaction) -> tuple[list[ItemRef], list[JSON], bool]:
            here = commands.look(tx, call.context)
            newest = limit
            if self._max_age is not None:
                newest = commands.recent(tx, here.pointer, limit, self._max_age)
            refs = conversation_queries.refs(tx, here.pointer, newest)
            complete = len(refs) == here.pointer.length
            items = conversation_queries.items(
                tx, here.pointer, newest, session_id=call.context.session_id
            )
            return refs, items, complete

        refs, items, complete = await self._runner.read(unit)

        async def replace_suffix(start: int, output: list[TResponseInputItem]) -> bool:
            suffix = refs[start:]
            return bool(suffix) and await self._replace(suffix[0], output, suffix)

        return sdk_internals.compaction_snapshot(items, replace_suffix, complete=complete)

    async def _replace(
        self,
        first_item: ItemRef | None,
        items: list[TResponseInputItem],
        expected: list[ItemRef] | tuple[()],
    ) -> bool:
        replaced = ItemsReplaced(first_item=first_item, items=list(items))
        events = commands.in_parts(replaced)
        call = self._call()
        return await self._usage.write(
            lambda tx: commands.replace_items(tx, call.context, events, expected), call=call
        )

    def _is_transformed(self) -> bool:
        """Whether a subclass overrides reading or adding items, which a replacement would bypass."""
        kind = type(self)
        return (kind.get_items, kind.add_items) != (
            EventLogSession.get_items,
            EventLogSession.add_items,
        )

    # -- the SDK's formats ----------------------------------------------------------------------

    def _internal(self, turn: int) -> int:
        return turn - self._first_turn + 1

    def _external(self, turn: int) -> int:
        return turn + self._first_turn - 1

    def _turn_number(self, given: Any) -> int:
        """Return the internal number of a turn. Raises TurnNotFoundError unless it is a number."""
        number = commands.turn_number(given)
        if number is None:
            raise TurnNotFoundError(given, self.current_branch)
        return self._internal(number)

    def _turns(self, found: Iterable[UserItem], preview: int | None) -> list[TurnRow]:
        more, as_text = self._first_turn - 1, timestamps.as_text
        return [
            {
                "turn": turn + more,
                "content": _text(content, preview),
                "full_content": content,
                "timestamp": as_text(occurred_at),
                "can_branch": True,
            }
            for turn, content, occurred_at in found
        ]


def _usage_of_turn(used: usage_queries.Tokens) -> UsageOfTurn:
    return {
        "requests": used.requests,
        "input_tokens": used.input_tokens,
        "output_tokens": used.output_tokens,
        "total_tokens": used.total_tokens,
        "input_tokens_details": used.input_tokens_details,
        "output_tokens_details": used.output_tokens_details,
    }


@cache
def _check_overrides(kind: Any) -> None:
    """
    Warn once if the Runner does not pass its run context to a subclass.

    It does so only if all four methods of the SDK's protocol have the parameter ``wrapper``.
    """
    methods = (kind.get_items, kind.add_items, kind.pop_item, kind.clear_session)
    without = [each for each in methods if "wrapper" not in inspect.signature(each).parameters]
    if without:
        logging.getLogger("eventlog.session").warning(
            "%s has no parameter 'wrapper': usage of %s is not recorded automatically; add the "
            "parameter, or use UsageHooks or store_run_usage",
            " and ".join(each.__qualname__ for each in without),
            kind.__qualname__,
        )


def _as_input(item: JSON) -> str | list[TResponseInputItem]:
    """Return a user item as the input of a run: a str if it is only a text, or else a list of it."""
    content = item.get("content")
    is_text = isinstance(content, str) and item.keys() <= {"role", "content"}
    return content if is_text else [item]


def _text(content: JSON, limit: int | None) -> str:
    """Return a user item's content as text, truncated after ``limit`` characters."""
    text = content if isinstance(content, str) else codec.readable(content)
    return text if limit is None or len(text) <= limit else f"{text[:limit]}..."
