"""The session for the OpenAI Agents SDK, on an event log."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from datetime import date, datetime
from typing import Any, Unpack

from agents import RunConfig
from agents.items import TResponseInputItem
from agents.memory.session_settings import SessionSettings, resolve_session_limit
from agents.run_context import RunContextWrapper

from agents_eventlog import projections
from agents_eventlog.adapters.conversations import commands, item_search, sessions, timestamps
from agents_eventlog.adapters.conversations import usage as usage_calls
from agents_eventlog.adapters.conversations.commands import SessionContext
from agents_eventlog.adapters.conversations.item_search import ItemFilters, SearchResults
from agents_eventlog.adapters.conversations.pricing import Prices
from agents_eventlog.adapters.openai_agents import sdk_internals
from agents_eventlog.adapters.openai_agents.unit_runner import UnitRunner
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

Wrapper = RunContextWrapper[Any]

PREVIEW_CHARACTERS = 100
LOGGED_CHARACTERS = 50


class EventLogSession:
    """
    A conversation on an event log, as the Agents SDK's ``Session``.

    log: an open ``EventLog``; the session's projections are added to it.
    branch_id, resume: the branch to stand on: a given one, or the one last switched to.
    user_id, metadata: labels of the session, recorded with its first write.
    first_turn_number: how the first turn is called in every call and result, 1 or 0.
    auto_usage: record what the Runner's requests use as they happen; without, only what is given to
        ``store_run_usage``.
    prices: what requests cost: a ``Price`` for each model, or a callable(request, time) that returns USD
        or None; by default the prices that genai-prices brings along. {} prices nothing.
    session_settings: the SDK's; ``limit`` bounds what ``get_items()`` returns.
    logger: where to log instead of "eventlog.session".

    All methods may be called from any task, loop and thread; those of one object run in call order.
    A cancelled call waits for its outcome. Nothing needs to be closed. Writing raises
    BranchNotFoundError on a deleted branch, SessionDeletedError on a deleted session, a StoreError
    when SQLite fails; nothing of the operation was written then.
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
        first_turn_number: int = 1,
        auto_usage: bool = True,
        prices: Prices = None,
    ) -> None:
        if first_turn_number not in (0, 1):
            raise ValueError(f"first_turn_number is 0 or 1, not {first_turn_number!r}")
        codec.check_text("session_id", session_id)
        commands.check_branch_id(branch_id)
        self.session_settings = sdk_internals.settings_of(session_settings)
        self.log = log
        self._first_turn = first_turn_number
        self._logger = logger if logger is not None else logging.getLogger("eventlog.session")
        self._events = _logging.get_logger(self._logger)
        labels = commands.check_labels(user_id, metadata)
        kept = projections.default()
        log.join(kept)
        self._runner = UnitRunner(log, kept)
        self._context = SessionContext(
            session_id, branch_id, None if labels == (None, None) else labels
        )
        self._usage = UsageRecorder(
            self._runner,
            self._context,
            prices=prices,
            is_automatic=auto_usage,
            logger=self._logger,
        )
        self._resolve_branch(resume=resume)
        self.session_id = self._context.session_id

    def _resolve_branch(self, *, resume: bool) -> None:
        """Find the branch to stand on, where that takes a look at the file."""
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
        else:
            # Not waited for: the calls of this object run behind it, and see an error of it themselves.
            runner.read_ahead(lambda tx: commands.look(tx, context))

    @property
    def current_branch(self) -> str:
        """The id of the branch that this object stands on."""
        return self._context.branch_id

    @property
    def _current_branch_id(self) -> str:
        return self._context.branch_id

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

        branch_id: None for the current branch; an unknown one has no items.
        as_of: a version of the session or a time (without a zone: UTC), for the items as they were
            then. Raises VersionNotFoundError (a ValueError) for a version that never was.
        """
        self._usage.track(wrapper)
        newest = resolve_session_limit(limit, self.session_settings)
        if newest is not None and not isinstance(newest, int):
            raise TypeError(f"limit is a whole number, not of type {type(newest).__name__}")
        if as_of is not None:
            return await self._runner.read(
                lambda tx: commands.get_past_items(tx, self._context, branch_id, newest, as_of)
            )
        return await self._runner.read(
            lambda tx: commands.get_items(tx, self._context, branch_id, newest)
        )

    async def add_items(
        self, items: list[TResponseInputItem], *, wrapper: Wrapper | None = None
    ) -> None:
        """
        Add items at the end of the current branch, all or none.

        Raises UnserialisableError (a TypeError) for what JSON cannot hold, InvalidEventError for an item
        that stands in no list.
        """
        self._runner.check_not_closed()
        if not items:
            return
        if isinstance(items, (str, bytes, Mapping)):
            raise InvalidEventError(f"items are a list, not a {type(items).__name__}")
        try:
            event = ItemsAdded(items=list(items))
            data = codec.encode(event)
            await self._usage.write(
                lambda tx: commands.add_items(tx, self._context, event, data),
                self._usage.track(wrapper),
                items,
            )
        except Exception as error:
            sdk_internals.log_error(
                self._logger, "Failed to add session items", error, has_tool_data=True
            )
            raise

    async def pop_item(self, *, wrapper: Wrapper | None = None) -> TResponseInputItem | None:
        """Take the newest item off the current branch and return it; None when it is empty."""
        popped: TResponseInputItem | None = await self._usage.write(
            lambda tx: commands.pop_item(tx, self._context), self._usage.track(wrapper)
        )
        return popped

    async def clear_session(self, *, wrapper: Wrapper | None = None) -> None:
        """Empty and delete all branches; ids stay taken, what was spent stays counted."""
        run = self._usage.track(wrapper)
        await self._usage.write(lambda tx: commands.clear_session(tx, self._context), run)

    def close(self) -> None:
        """Wait for what is under way and close. Idempotent; later calls raise RuntimeError."""
        if self._runner.close():
            self._usage.close()

    # -- branches -----------------------------------------------------------------------------

    async def create_branch(self, branch_name: str | None = None) -> str:
        """Branch off at the end of the current branch, move there, and return the new id."""
        commands.check_branch_name(branch_name)
        label = self._first_turn - 1
        return await self._usage.write(
            lambda tx: commands.create_branch(tx, self._context, branch_name, label)
        )

    async def create_branch_from_turn(
        self, turn_number: int, branch_name: str | None = None, *, include_turn: bool = False
    ) -> str:
        """
        Branch off before a turn of the current branch, move there, and return the new id.

        turn_number: the turn that is left out with all after it; numbering from 1, turn 0 is the very
            beginning.
        branch_name: an id never used in this session; None makes one up, unique in the file.
        include_turn: keep the turn itself, too.

        Raises TurnNotFoundError, BranchExistsError, InvalidBranchError (all ValueError).
        """
        commands.check_branch_name(branch_name)
        number = commands.turn_number(turn_number)
        if number is None:
            raise TurnNotFoundError(turn_number, self.current_branch)
        turn = self._internal(number)
        return await self._branch_before(
            lambda _: turn, branch_name, include_turn=include_turn, label=number
        )

    async def create_branch_from_content(
        self, search_term: str, branch_name: str | None = None
    ) -> str:
        """
        Branch off before the earliest turn whose user text contains a term; return the new id.

        Raises ConversationError (a ValueError) when there is none; else as ``create_branch_from_turn``.
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
        """Return the beginning of a turn's text for the log, where model data may be logged."""
        if not sdk_internals.may_log_model_data():
            return ""
        pointer = commands.look(tx, self._context).pointer
        opening = next(
            (u for u in conversation_queries.user_items(tx, pointer) if u.turn == turn), None
        )
        return "" if opening is None else f" ('{_text(opening.item, LOGGED_CHARACTERS)}')"

    async def switch_to_branch(self, branch_id: str) -> None:
        """Move to another branch. Raises BranchNotFoundError; main can always be switched to."""
        before = await self._usage.write(
            lambda tx: commands.switch_to_branch(tx, self._context, branch_id)
        )
        self._events.info(f"Switched from branch '{before}' to '{branch_id}'")

    async def delete_branch(self, branch_id: str, force: bool = False) -> None:
        """
        Delete a branch; its id stays taken.

        force: delete it even if this object stands on it, which is on main then.

        Raises InvalidBranchError, BranchNotFoundError (both ValueError).
        """
        await self._usage.write(
            lambda tx: commands.delete_branch(tx, self._context, branch_id, force=force)
        )
        self._events.info(f"Deleted branch '{branch_id}'")

    async def list_branches(self) -> list[dict[str, Any]]:
        """Return the branches in the order they were made, with the numbers of items and turns."""

        def unit(tx: Transaction) -> list[dict[str, Any]]:
            rows = commands.list_branches(tx, self._context)
            return [
                {
                    "branch_id": branch_id,
                    "message_count": length,
                    "user_turns": turns,
                    "is_current": branch_id == self._context.branch_id,
                    "created_at": timestamps.as_text(created_at),
                }
                for branch_id, length, turns, created_at in rows
            ]

        return await self._runner.read(unit)

    # -- turns --------------------------------------------------------------------------------

    async def get_current_turn(self) -> int:
        """Return the number of the current branch's last turn."""
        return await self._runner.read(
            lambda tx: self._external(commands.look(tx, self._context).turn),
        )

    async def get_conversation_turns(self, branch_id: str | None = None) -> list[dict[str, Any]]:
        """Return a branch's user turns: number, preview, content, time (UTC), ``can_branch``."""

        def unit(tx: Transaction) -> list[dict[str, Any]]:
            pointer = commands.look_at(tx, self._context, branch_id).pointer
            found = conversation_queries.user_items(tx, pointer)
            return [self._turn(user_item, PREVIEW_CHARACTERS) for user_item in found]

        return await self._runner.read(unit)

    async def find_turns_by_content(
        self, search_term: str, branch_id: str | None = None
    ) -> list[dict[str, Any]]:
        """Return the turns whose user text contains a term, literally; ASCII in either case."""

        def unit(tx: Transaction) -> list[dict[str, Any]]:
            found = commands.find_turns(tx, self._context, branch_id, search_term)
            return [self._turn(user_item, None) for user_item in found]

        return await self._runner.read(unit)

    async def get_conversation_by_turns(
        self, branch_id: str | None = None
    ) -> dict[int, list[dict[str, str | None]]]:
        """Return the type and tool name of each of a branch's items, by turn."""

        def unit(tx: Transaction) -> dict[int, list[dict[str, str | None]]]:
            turns: dict[int, list[dict[str, str | None]]] = {}
            pointer = commands.look_at(tx, self._context, branch_id).pointer
            for turn, kind, tool_name in conversation_queries.structure(tx, pointer):
                row = {"type": kind, "tool_name": tool_name}
                turns.setdefault(self._external(turn), []).append(row)
            return turns

        return await self._runner.read(unit)

    async def get_tool_usage(self, branch_id: str | None = None) -> list[tuple[str, int, int]]:
        """Return (tool name, calls, turn) for each tool and turn of a branch, by turn."""
        counted = await self._runner.read(
            lambda tx: commands.count_tools(tx, self._context, branch_id)
        )
        return [(tool_name, count, self._external(turn)) for tool_name, count, turn in counted]

    # -- usage --------------------------------------------------------------------------------

    async def store_run_usage(self, result: Any, *, run_config: RunConfig | None = None) -> None:
        """
        Record what a run used, on the current branch's last turn; each request counts once.

        Of requests that were recorded by themselves, what only the result knows is added.

        result: a ``RunResult``, or anything with ``.context_wrapper.usage``. Never raises an
            Exception; failures are logged.
        run_config: the run's, if it named a model and usage is not recorded by itself.
        """
        await self._usage.store_run_usage(result, run_config)

    async def get_session_usage(self, branch_id: str | None = None) -> dict[str, int] | None:
        """Return the tokens of all live turns, of one branch or (None) of all; None if there are none."""

        def unit(tx: Transaction) -> tuple[int, int, int, int, int] | None:
            if commands.look(tx, self._context).is_deleted:
                return None
            return usage_queries.live_total(tx, self._context.session_id, branch_id or None)

        total = await self._runner.read(unit)
        names = ("requests", "input_tokens", "output_tokens", "total_tokens", "total_turns")
        return None if total is None else dict(zip(names, total, strict=True))

    async def get_turn_usage(
        self, user_turn_number: int | None = None, branch_id: str | None = None
    ) -> list[dict[str, Any]] | dict[str, Any]:
        """Return the tokens of one live turn ({} if there are none), or (None) a list of all turns'."""

        def unit(tx: Transaction) -> dict[int, usage_queries.Tokens]:
            if commands.look_at(tx, self._context, branch_id).is_deleted:
                return {}
            branch = self._context.branch_id if branch_id is None else branch_id
            return usage_queries.by_turn(tx, self._context.session_id, branch)

        turns = await self._runner.read(unit)
        if user_turn_number is not None:
            number = commands.turn_number(user_turn_number)
            used = None if number is None else turns.get(self._internal(number))
            return {} if used is None else used._asdict()
        return [
            {"user_turn_number": self._external(turn), **used._asdict()}
            for turn, used in turns.items()
        ]

    async def get_usage_stats(
        self,
        by: Iterable[str] | str = (),
        *,
        since: date | datetime | None = None,
        until: date | datetime | None = None,
        live: bool = False,
    ) -> dict[str, Any]:
        """
        Return all that the session ever used, whatever was popped, deleted or cleared since.

        by: "run", "turn", "branch", "model", "agent" or "day", or several: under "groups" then stands
            a dict for each, with its keys (run_id, branch_id, the others as they are called) and sums.
        since, until: only what was used in this time (without a zone: UTC; a day alone counts whole).
        live: only what still stands.

        ``total_cost`` is in USD, the sum of what is priced; ``unpriced_requests`` counts the rest.
        """
        asked = usage_calls.wanted(
            by, since=since, until=until, session_id=self._context.session_id, live=live
        )
        answer = await self._runner.read(lambda tx: usage_calls.ask(tx, asked))
        for group in answer.get("groups", ()):
            if group.get("turn") is not None:
                group["turn"] = self._external(group["turn"])
        return answer

    # -- sessions -----------------------------------------------------------------------------

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
        await self._usage.write(lambda tx: sessions.set_metadata(tx, self._context, *labels))

    async def get_metadata(self) -> dict[str, Any]:
        """Return this session's labels, ``user_id`` and ``metadata``; None for what it has not."""
        return await self._runner.read(lambda tx: sessions.get_metadata(tx, self._context))

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
        return await sessions.list_sessions(self._runner.scan, query)

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
                    self._context.move(tx, MAIN, self._context.cleared_version)

        await self._usage.write(unit)

    async def restore_session(self, session_id: str | None = None) -> None:
        """
        Undo the deletion of a session, by default this one: all that it held and was is back.

        Of a session that is not deleted, nothing changes. Raises SessionNotFoundError (a ValueError).
        """
        target = self.session_id if session_id is None else session_id
        await self._usage.write(lambda tx: sessions.restore_session(tx, target))

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
        Return live items by what they say and what they are: of this session, on any of its branches.

        text: a substring of one of the item's texts (a message, a call's arguments, an output, a reasoning
            summary), case-insensitive.
        limit: maximum number of items. after: the ``cursor`` of an item, to continue after it.
        which: type, tool_name, role, branch_id, since, until; session_id or user_id for those sessions
            instead of this one; see ``ItemFilters``.

        The newest come first. ``row["snippet"][slice(*row["hit"])]`` is the match. The result also has the
        next page's cursor and how the items were found, see ``SearchResults``. Raises InvalidQueryError
        (a ValueError).
        """
        if which.get("session_id") is None and which.get("user_id") is None:
            which["session_id"] = self.session_id
        return await item_search.find_items(
            self._runner.scan, text, limit=limit, after=after, first_turn=self._first_turn, **which
        )

    # -- what the SDK's compaction asks for -----------------------------------------------------

    async def _atomic_replace_items(self, items: list[TResponseInputItem]) -> bool:
        """Replace the current branch's items in one action; no other branch, no usage is touched."""
        return not self._is_transformed() and await self._replace(None, items, ())

    async def _get_compaction_snapshot(
        self, limit: int, *, prune_prefix: Callable[[TResponseInputItem], bool] | None = None
    ) -> Any:
        """Return the newest items, and how to replace some of them if nothing changed meanwhile."""
        if self._is_transformed():
            return None

        def unit(tx: Transaction) -> tuple[list[ItemRef], list[JSON], bool]:
            here = commands.look(tx, self._context)
            refs = conversation_queries.refs(tx, here.pointer, limit)
            complete = len(refs) == here.pointer.length
            return refs, conversation_queries.items(tx, here.pointer, limit), complete

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
        event = ItemsReplaced(first_item=first_item, items=list(items))
        data = codec.encode(event)
        return await self._usage.write(
            lambda tx: commands.replace_items(tx, self._context, event, data, expected)
        )

    def _is_transformed(self) -> bool:
        """Whether a subclass changes what goes in or out, which a replacement would bypass."""
        kind = type(self)
        return (kind.get_items, kind.add_items) != (
            EventLogSession.get_items,
            EventLogSession.add_items,
        )

    # -- in the SDK's words ---------------------------------------------------------------------

    def _internal(self, turn: int) -> int:
        return turn - self._first_turn + 1

    def _external(self, turn: int) -> int:
        return turn + self._first_turn - 1

    def _turn(self, user_item: UserItem, preview: int | None) -> dict[str, Any]:
        return {
            "turn": self._external(user_item.turn),
            "content": _text(user_item.item, preview),
            "full_content": user_item.item.get("content", ""),
            "timestamp": timestamps.as_text(user_item.occurred_at),
            "can_branch": True,
        }


def _text(item: dict[str, JSON], limit: int | None) -> str:
    """Return a user item's content as text, cut after so many characters."""
    content = item.get("content", "")
    text = content if isinstance(content, str) else codec.readable(content)
    return text if limit is None or len(text) <= limit else text[:limit] + "..."
