"""
The session for the OpenAI Agents SDK.

``from agents_eventlog import AdvancedSQLiteSession`` takes the place of
``from agents.extensions.memory import AdvancedSQLiteSession``.
"""

from __future__ import annotations

import logging
import os
from collections import OrderedDict
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from datetime import datetime
from typing import Any

from agents import _debug
from agents.items import TResponseInputItem
from agents.logger import log_model_and_tool_action_error
from agents.memory.session import _CompactionSnapshot
from agents.memory.session_settings import (
    SessionSettings,
    coerce_session_settings,
    resolve_session_limit,
)
from agents.run_context import RunContextWrapper

from agents_eventlog import projections
from agents_eventlog.adapters.conversations import commands, pricing, timestamps
from agents_eventlog.adapters.conversations.call_order import Lane
from agents_eventlog.adapters.conversations.commands import Seat
from agents_eventlog.adapters.conversations.pricing import Prices
from agents_eventlog.adapters.conversations.sdk_tables import TablePair
from agents_eventlog.adapters.openai_agents.migration import migrate
from agents_eventlog.adapters.openai_agents.session_management import ManagedSessions
from agents_eventlog.adapters.openai_agents.session_search import Searchable
from agents_eventlog.adapters.openai_agents.usage.recorder import MeteredUsage
from agents_eventlog.eventlog import _logging, codec
from agents_eventlog.eventlog.errors import (
    BranchNotFoundError,
    InvalidEventError,
    TurnNotFoundError,
)
from agents_eventlog.eventlog.events import (
    JSON,
    ItemRef,
    ItemsAdded,
    ItemsReplaced,
)
from agents_eventlog.eventlog.log import EventLog
from agents_eventlog.eventlog.storage.pending import PendingUnit
from agents_eventlog.eventlog.storage.sqlite.store import Durability
from agents_eventlog.eventlog.storage.transaction import Transaction
from agents_eventlog.projections.conversations import queries as conversation_queries
from agents_eventlog.projections.conversations.builder import MAIN
from agents_eventlog.projections.conversations.queries import UserItem

Wrapper = RunContextWrapper[Any]

PREVIEW_CHARACTERS = 100
LOGGED_CHARACTERS = 50


class EventLogSession(MeteredUsage, ManagedSessions, Searchable):
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
        self.session_settings = (
            SessionSettings()
            if session_settings is None
            else coerce_session_settings(session_settings)
        )
        self.log = log
        self._projections = projections.default()
        log.join(self._projections)
        self._lane = Lane(log.store)
        self._first_turn = first_turn_number
        self._logger = logger if logger is not None else logging.getLogger("eventlog.session")
        self._events = _logging.get_logger(self._logger)
        self._closed = False
        labels = commands.check_labels(user_id, metadata)
        self._auto_usage = auto_usage
        self._prices = pricing.checked(prices)
        self._noted = OrderedDict()
        self._seat = Seat(session_id, branch_id, None if labels == (None, None) else labels)
        self._take_seat(resume=resume)
        self.session_id = self._seat.session_id

    def _take_seat(self, *, resume: bool) -> None:
        """Find the branch to stand on, where that takes a look at the file."""
        seat = self._seat
        if commands.OPENABLE_ID.fullmatch(seat.session_id):
            owner = self._look(lambda tx: commands.owner_of_branch(tx, seat.session_id))
            if owner is not None:
                seat.session_id, seat.branch_id = owner, seat.session_id
        if resume or seat.branch_id != MAIN:
            here = self._look(
                lambda tx: conversation_queries.place(tx, seat.session_id, seat.branch_id)
            )
            seat.cleared_version = here.cleared_version
            if resume and seat.branch_id == MAIN:
                seat.branch_id = here.last_branch_id
            elif not here.branch_exists:
                raise BranchNotFoundError(seat.branch_id)
        else:
            # Not waited for: the calls of this object run behind it, and see an error of it themselves.
            look: PendingUnit[object] = PendingUnit(
                self._fresh(lambda tx: commands.look(tx, seat)), Future(), {}
            )
            self._lane.submit("read", look)

    @property
    def current_branch(self) -> str:
        """The id of the branch that this object stands on."""
        return self._seat.branch_id

    @property
    def _current_branch_id(self) -> str:
        return self._seat.branch_id

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
        self._note(wrapper)
        newest = resolve_session_limit(limit, self.session_settings)
        if newest is not None and not isinstance(newest, int):
            raise TypeError(f"limit is a whole number, not of type {type(newest).__name__}")
        if as_of is not None:
            return await self._read(
                lambda tx: commands.get_past_items(tx, self._seat, branch_id, newest, as_of)
            )
        return await self._read(lambda tx: commands.get_items(tx, self._seat, branch_id, newest))

    async def add_items(
        self, items: list[TResponseInputItem], *, wrapper: Wrapper | None = None
    ) -> None:
        """
        Add items at the end of the current branch, all or none.

        Raises UnserialisableError (a TypeError) for what JSON cannot hold, InvalidEventError for an item
        that stands in no list.
        """
        self._check_not_closed()
        if not items:
            return
        if isinstance(items, (str, bytes, Mapping)):
            raise InvalidEventError(f"items are a list, not a {type(items).__name__}")
        try:
            event = ItemsAdded(items=list(items))
            data = codec.encode(event)
            await self._write(
                lambda tx: commands.add_items(tx, self._seat, event, data),
                self._note(wrapper),
                items,
            )
        except Exception as error:
            log_model_and_tool_action_error(self._logger, "Failed to add session items", error)
            raise

    async def pop_item(self, *, wrapper: Wrapper | None = None) -> TResponseInputItem | None:
        """Take the newest item off the current branch and return it; None when it is empty."""
        popped: TResponseInputItem | None = await self._write(
            lambda tx: commands.pop_item(tx, self._seat), self._note(wrapper)
        )
        return popped

    async def clear_session(self, *, wrapper: Wrapper | None = None) -> None:
        """Empty and delete all branches; ids stay taken, what was spent stays counted."""
        run = self._note(wrapper)
        await self._write(lambda tx: commands.clear_session(tx, self._seat), run)

    def close(self) -> None:
        """Wait for what is under way and close. Idempotent; later calls raise RuntimeError."""
        if not self._closed:
            self._closed = True
            self._lane.wait()
            self._record_what_is_left()

    # -- branches -----------------------------------------------------------------------------

    async def create_branch(self, branch_name: str | None = None) -> str:
        """Branch off at the end of the current branch, move there, and return the new id."""
        commands.check_branch_name(branch_name)
        label = self._first_turn - 1
        return await self._write(
            lambda tx: commands.create_branch(tx, self._seat, branch_name, label)
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
            lambda tx: commands.first_turn_with(tx, self._seat, search_term), branch_name
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
            account = f"turn {called}{self._preview(tx, turn)} in '{self._seat.branch_id}'"
            created = commands.create_branch_from_turn(
                tx, self._seat, turn, branch_name, include_turn=include_turn, label=called
            )
            return created, account

        branch_id, account = await self._write(unit)
        self._events.debug(f"Created branch '{branch_id}' from {account}")
        return branch_id

    def _preview(self, tx: Transaction, turn: int) -> str:
        """Return the beginning of a turn's text for the log, where model data may be logged."""
        if _debug.DONT_LOG_MODEL_DATA:
            return ""
        pointer = commands.look(tx, self._seat).pointer
        opening = next(
            (u for u in conversation_queries.user_items(tx, pointer) if u.turn == turn), None
        )
        return "" if opening is None else f" ('{_text(opening.item, LOGGED_CHARACTERS)}')"

    async def switch_to_branch(self, branch_id: str) -> None:
        """Move to another branch. Raises BranchNotFoundError; main can always be switched to."""
        before = await self._write(lambda tx: commands.switch_to_branch(tx, self._seat, branch_id))
        self._events.info(f"Switched from branch '{before}' to '{branch_id}'")

    async def delete_branch(self, branch_id: str, force: bool = False) -> None:
        """
        Delete a branch; its id stays taken.

        force: delete it even if this object stands on it, which is on main then.

        Raises InvalidBranchError, BranchNotFoundError (both ValueError).
        """
        await self._write(lambda tx: commands.delete_branch(tx, self._seat, branch_id, force=force))
        self._events.info(f"Deleted branch '{branch_id}'")

    async def list_branches(self) -> list[dict[str, Any]]:
        """Return the branches in the order they were made, with the numbers of items and turns."""

        def unit(tx: Transaction) -> list[dict[str, Any]]:
            rows = commands.list_branches(tx, self._seat)
            return [
                {
                    "branch_id": branch_id,
                    "message_count": length,
                    "user_turns": turns,
                    "is_current": branch_id == self._seat.branch_id,
                    "created_at": timestamps.as_text(created_at),
                }
                for branch_id, length, turns, created_at in rows
            ]

        return await self._read(unit)

    # -- turns --------------------------------------------------------------------------------

    async def get_current_turn(self) -> int:
        """Return the number of the current branch's last turn."""
        return await self._read(
            lambda tx: self._external(commands.look(tx, self._seat).turn),
        )

    async def get_conversation_turns(self, branch_id: str | None = None) -> list[dict[str, Any]]:
        """Return a branch's user turns: number, preview, content, time (UTC), ``can_branch``."""

        def unit(tx: Transaction) -> list[dict[str, Any]]:
            pointer = commands.look_at(tx, self._seat, branch_id).pointer
            found = conversation_queries.user_items(tx, pointer)
            return [self._turn(user_item, PREVIEW_CHARACTERS) for user_item in found]

        return await self._read(unit)

    async def find_turns_by_content(
        self, search_term: str, branch_id: str | None = None
    ) -> list[dict[str, Any]]:
        """Return the turns whose user text contains a term, literally; ASCII in either case."""

        def unit(tx: Transaction) -> list[dict[str, Any]]:
            found = commands.find_turns(tx, self._seat, branch_id, search_term)
            return [self._turn(user_item, None) for user_item in found]

        return await self._read(unit)

    async def get_conversation_by_turns(
        self, branch_id: str | None = None
    ) -> dict[int, list[dict[str, str | None]]]:
        """Return the type and tool name of each of a branch's items, by turn."""

        def unit(tx: Transaction) -> dict[int, list[dict[str, str | None]]]:
            turns: dict[int, list[dict[str, str | None]]] = {}
            pointer = commands.look_at(tx, self._seat, branch_id).pointer
            for turn, kind, tool_name in conversation_queries.structure(tx, pointer):
                row = {"type": kind, "tool_name": tool_name}
                turns.setdefault(self._external(turn), []).append(row)
            return turns

        return await self._read(unit)

    async def get_tool_usage(self, branch_id: str | None = None) -> list[tuple[str, int, int]]:
        """Return (tool name, calls, turn) for each tool and turn of a branch, by turn."""
        counted = await self._read(lambda tx: commands.count_tools(tx, self._seat, branch_id))
        return [(tool_name, count, self._external(turn)) for tool_name, count, turn in counted]

    # -- what the SDK's compaction asks for -----------------------------------------------------

    async def _atomic_replace_items(self, items: list[TResponseInputItem]) -> bool:
        """Replace the current branch's items in one action; no other branch, no usage is touched."""
        return not self._is_transformed() and await self._replace(None, items, ())

    async def _get_compaction_snapshot(
        self, limit: int, *, prune_prefix: Callable[[TResponseInputItem], bool] | None = None
    ) -> _CompactionSnapshot | None:
        """Return the newest items, and how to replace some of them if nothing changed meanwhile."""
        if self._is_transformed():
            return None

        def unit(tx: Transaction) -> tuple[list[ItemRef], list[JSON], bool]:
            here = commands.look(tx, self._seat)
            refs = conversation_queries.refs(tx, here.pointer, limit)
            complete = len(refs) == here.pointer.length
            return refs, conversation_queries.items(tx, here.pointer, limit), complete

        refs, items, complete = await self._read(unit)

        async def replace_suffix(start: int, output: list[TResponseInputItem]) -> bool:
            suffix = refs[start:]
            return bool(suffix) and await self._replace(suffix[0], output, suffix)

        return _CompactionSnapshot(items=items, complete=complete, replace_suffix=replace_suffix)

    async def _replace(
        self,
        first_item: ItemRef | None,
        items: list[TResponseInputItem],
        expected: list[ItemRef] | tuple[()],
    ) -> bool:
        event = ItemsReplaced(first_item=first_item, items=list(items))
        data = codec.encode(event)
        return await self._write(
            lambda tx: commands.replace_items(tx, self._seat, event, data, expected)
        )

    def _is_transformed(self) -> bool:
        """Whether a subclass changes what goes in or out, which a replacement would bypass."""
        kind = type(self)
        return (kind.get_items, kind.add_items) != (
            EventLogSession.get_items,
            EventLogSession.add_items,
        )

    # -- in the SDK's words ---------------------------------------------------------------------

    def _turn(self, user_item: UserItem, preview: int | None) -> dict[str, Any]:
        return {
            "turn": self._external(user_item.turn),
            "content": _text(user_item.item, preview),
            "full_content": user_item.item.get("content", ""),
            "timestamp": timestamps.as_text(user_item.occurred_at),
            "can_branch": True,
        }


class AdvancedSQLiteSession(EventLogSession):
    """
    The SDK's ``AdvancedSQLiteSession`` on an event log: the same calls, one import to change.

    session_id: any text, or a number for its text. A generated branch id opens the session that
        it belongs to, on it: keep it as secret as the session's id.
    db_path: a file; all sessions of a process on one file share its connections. ":memory:" is private.
    create_tables: False refuses a file that holds neither a log nor the SDK's tables.
    durability: "full" survives power loss, "normal" may then lose the last commits.
    search: keep a full-text index for ``find_items``; the first opening with it builds it.
    sessions_table, messages_table: the names of the SDK's tables in a file that holds them; they are
        adopted on first opening, and stay as they are.

    The rest is as in ``EventLogSession``. Raises an OpenError, or ValueError for another pair of names.
    """

    def __init__(
        self,
        session_id: str | int,
        db_path: str | os.PathLike[str] = ":memory:",
        create_tables: bool = True,
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
        durability: Durability = "full",
        search: bool = False,
        sessions_table: str = "agent_sessions",
        messages_table: str = "agent_messages",
    ) -> None:
        log = migrate.open_log(
            db_path,
            tables=TablePair(sessions_table, messages_table),
            create=create_tables,
            durability=durability,
            search=search,
        )
        try:
            super().__init__(
                str(session_id) if isinstance(session_id, int) else session_id,
                log,
                logger=logger,
                session_settings=session_settings,
                branch_id=branch_id,
                resume=resume,
                user_id=user_id,
                metadata=metadata,
                first_turn_number=first_turn_number,
                auto_usage=auto_usage,
                prices=prices,
            )
        except BaseException:
            log.close()
            raise
        self.db_path = db_path
        self.sessions_table = sessions_table
        self.messages_table = messages_table

    def close(self) -> None:
        """Wait for what is under way and close; a file's last user closes its connections."""
        super().close()
        self.log.close()


def _text(item: dict[str, JSON], limit: int | None) -> str:
    """Return a user item's content as text, cut after so many characters."""
    content = item.get("content", "")
    text = content if isinstance(content, str) else codec.readable(content)
    return text if limit is None or len(text) <= limit else text[:limit] + "..."
