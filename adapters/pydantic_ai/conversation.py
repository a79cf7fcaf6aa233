"""A conversation of Pydantic AI's agents on an event log."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from itertools import groupby
from typing import Protocol, TypeVar

from pydantic_ai.messages import ModelMessage

from agents_eventlog import projections
from agents_eventlog.adapters.conversations import branches, commands, pricing, turns
from agents_eventlog.adapters.conversations.commands import SessionContext
from agents_eventlog.adapters.conversations.exclusive import exclusive
from agents_eventlog.adapters.conversations.pricing import Prices
from agents_eventlog.adapters.conversations.rows import BranchRow
from agents_eventlog.adapters.pydantic_ai.items import items_of, messages_of
from agents_eventlog.adapters.pydantic_ai.usage import requests_of
from agents_eventlog.eventlog import codec
from agents_eventlog.eventlog.errors import TurnNotFoundError
from agents_eventlog.eventlog.events import JSON, ItemsAdded
from agents_eventlog.eventlog.log import EventLog
from agents_eventlog.eventlog.storage.transaction import Transaction, Unit
from agents_eventlog.projections.conversations.builder import MAIN
from agents_eventlog.projections.usage import queries as usage_queries

T = TypeVar("T")


class Run(Protocol):
    """A run that ended: an ``AgentRunResult``, or a ``StreamedRunResult`` that was read to its end."""

    @property
    def run_id(self) -> str:
        """The id of the run."""

    def new_messages(self) -> list[ModelMessage]:
        """Return the messages of the run."""


class Conversation:
    """
    A conversation of Pydantic AI's agents, on the session of an event log.

    session_id: the id of the session in the log; the first write creates it.
    log: an open ``EventLog``; the constructor adds the session's projections to it.
    branch_id: the branch to start on.
    user_id: the owner of the session, stored by the first write. Calls on a session with another owner,
        or without one, raise SessionOwnerError (a PermissionError). None: any session.
    metadata: a JSON object, stored by the first write; ignored if the session exists.
    prices: a mapping of model, or (model, service tier), to ``Price``; or a callable that takes a
        ``RequestUsage`` and its datetime, and returns the cost in USD, or None. What they do not price
        costs what Pydantic AI computed, or else what the list included in genai-prices says; not with
        ``OnlyPrices(prices)``.

    A turn is a user prompt and what follows it, numbered from 1. Each part of a message is an item. All
    methods may be called from any task and event loop; a cancelled call still completes before it raises
    CancelledError. Writes raise BranchNotFoundError on a deleted branch, SessionDeletedError on a deleted
    session, and a StoreError if the database fails; a write that raises has written nothing. What concerns
    the whole log, such as usage, search, redaction and erasure, is in ``ConversationLog``.
    """

    def __init__(
        self,
        session_id: str,
        log: EventLog,
        *,
        branch_id: str = MAIN,
        user_id: str | None = None,
        metadata: Mapping[str, JSON] | None = None,
        prices: Prices = None,
    ) -> None:
        self.session_id = codec.check_session_id(session_id)
        self.log = log
        commands.check_branch_id(branch_id)
        user_id, labels = commands.check_labels(user_id, metadata)
        self._context = SessionContext(session_id, branch_id, user_id=user_id, metadata=labels)
        self._prices = pricing.checked(prices)
        log.join(projections.default())

    def __repr__(self) -> str:
        return (
            f"<{type(self).__name__} session_id={self.session_id!r} "
            f"branch_id={self.current_branch!r} path={self.log.path!r}>"
        )

    # -- messages -----------------------------------------------------------------------------

    async def messages(
        self, *, branch_id: str | None = None, as_of: int | datetime | None = None
    ) -> list[ModelMessage]:
        """
        Return a branch's messages, for ``message_history=`` of a run.

        branch_id: None for the current branch; an unknown one has no messages.
        as_of: return the messages at an earlier version of the session, or at a time (without a zone: UTC).

        A redacted part has "[redacted]" in place of its content. Raises UndecodableEventError if content
        was erased, ConversationError (both ValueErrors) if another SDK stored items that are not messages,
        and VersionNotFoundError for a version that the session never had.
        """
        if as_of is None:
            items = await self._read(
                lambda tx: commands.get_items(tx, self._context, branch_id, None)
            )
        else:
            items = await self._read(
                lambda tx: commands.get_past_items(tx, self._context, branch_id, None, as_of)
            )
        return messages_of(items)

    async def store(self, result: Run, *, agent: str | None = None) -> None:
        """
        Append the new messages of a run to the current branch, with the usage of its requests.

        result: what ``agent.run`` returned, or a streamed run that was read to its end.
        agent: the name of the agent, for the usage by agent.

        Storing a run again writes nothing, so that a call whose outcome is unknown can be repeated. Usage
        of other agents that the run's tools called is not in its messages: see ``record_usage``. Raises
        UnserialisableError (a TypeError) for values that JSON cannot represent, and
        IdempotencyConflictError (a ValueError) if the run was stored before with other messages, or on
        another branch.
        """
        await self.add_messages(result.new_messages(), agent=agent, idempotency_key=result.run_id)

    async def add_messages(
        self,
        messages: Sequence[ModelMessage],
        *,
        agent: str | None = None,
        idempotency_key: str | None = None,
    ) -> None:
        """
        Append messages to the current branch, all or none, with the usage of their responses.

        idempotency_key: makes a retry safe: repeating the call with the same key and messages writes
            nothing.

        For the messages of a run that failed, and for histories from elsewhere. ``agent`` and errors are
        those of ``store``.
        """
        parts = []
        for number, (run_id, group) in enumerate(groupby(messages, key=lambda each: each.run_id)):
            of_run = list(group)
            events = commands.in_parts(ItemsAdded(items=items_of(of_run)))
            requests = requests_of(of_run, agent=agent, prices=self._prices)
            key = idempotency_key if number == 0 else f"{idempotency_key}/{number}"
            key = None if idempotency_key is None else key
            parts.append((run_id or secrets.token_hex(16), events, requests, key))

        def unit(tx: Transaction) -> None:
            for run_id, events, requests, key in parts:
                is_new = commands.add_items(tx, self._context, events, idempotency_key=key)
                if is_new and requests:
                    commands.record_usage(tx, self._context, run_id=run_id, requests=requests)

        if parts:
            await self._write(unit)

    async def record_usage(self, result: Run, *, agent: str | None = None) -> None:
        """
        Record the usage of a run whose messages do not belong here, on the last turn, once.

        result: the run of an agent that a tool called, for example.
        agent: the name of that agent, for the usage by agent.
        """
        requests = requests_of(result.new_messages(), agent=agent, prices=self._prices)
        run_id = result.run_id

        def unit(tx: Transaction) -> None:
            if not usage_queries.has_run(tx, self.session_id, run_id):
                commands.record_usage(tx, self._context, run_id=run_id, requests=requests)

        if requests:
            await self._write(unit)

    async def undo_turn(self) -> list[ModelMessage]:
        """
        Remove the last turn from the current branch, and return its messages; [] if the branch is empty.

        The turn's usage still counts. ``redo`` adds the turn again.
        """
        return messages_of(await self._write(lambda tx: turns.undo_turn(tx, self._context)))

    async def redo(self) -> list[ModelMessage]:
        """
        Add the last undone turn to the current branch again, and return its messages; [] without one.

        Several undone turns can be redone until the items of the branch change in another way. Raises
        UndecodableEventError if content was erased.
        """
        return messages_of(await self._write(lambda tx: turns.redo(tx, self._context)))

    async def clear(self) -> None:
        """Delete all messages and branches. Branch ids cannot be used again; usage still counts."""
        await self._write(lambda tx: commands.clear_session(tx, self._context))

    def exclusive(
        self, wait_seconds: float = 30, *, lease_seconds: float = 10
    ) -> AbstractAsyncContextManager[None]:
        """
        Hold this session against other callers of ``exclusive``, in all processes.

        Use it around reading the history, running the agent and storing the result, so that no other run
        adds messages in between. Parameters and errors are those of ``EventLogSession.exclusive``.
        """
        return exclusive(
            self.log, self._context, wait_seconds=wait_seconds, lease_seconds=lease_seconds
        )

    # -- branches -----------------------------------------------------------------------------

    @property
    def current_branch(self) -> str:
        """The id of the current branch."""
        return self._context.branch_id

    async def create_branch(self, branch_name: str | None = None) -> str:
        """Create a branch at the end of the current branch, switch to it, and return its id."""
        commands.check_branch_name(branch_name)
        return await self._write(
            lambda tx: commands.create_branch(tx, self._context, branch_name, 0)
        )

    async def create_branch_from_turn(
        self, turn_number: int, branch_name: str | None = None, *, include_turn: bool = False
    ) -> str:
        """
        Create a branch before a turn of the current branch, switch to it, and return its id.

        turn_number: the first turn that is not on the new branch; 0 creates an empty branch.
        branch_name: the new branch's id, never used before in this session; None generates an id that is
            unique in the file.
        include_turn: end the new branch after this turn, not before it.

        Raises TurnNotFoundError, BranchExistsError, InvalidBranchError (all ValueErrors).
        """
        commands.check_branch_name(branch_name)
        turn = commands.turn_number(turn_number)
        if turn is None:
            raise TurnNotFoundError(turn_number, self.current_branch)
        return await self._write(
            lambda tx: commands.create_branch_from_turn(
                tx, self._context, turn, branch_name, include_turn=include_turn, label=turn
            )
        )

    async def switch_to_branch(self, branch_id: str) -> None:
        """Switch to another branch; main always exists. Raises BranchNotFoundError (a ValueError)."""
        await self._write(lambda tx: commands.switch_to_branch(tx, self._context, branch_id))

    async def delete_branch(self, branch_id: str, *, force: bool = False) -> None:
        """
        Delete a branch. Its id cannot be used again; what it shares with other branches stays there.

        force: allow deleting the current branch; the conversation then switches to main.

        Raises InvalidBranchError for main, or for the current branch without ``force``, and
        BranchNotFoundError (both ValueErrors).
        """
        await self._write(
            lambda tx: commands.delete_branch(tx, self._context, branch_id, force=force)
        )

    async def list_branches(self) -> list[BranchRow]:
        """Return the live branches in the order of their creation; ``message_count`` counts items."""
        return await self._read(lambda tx: branches.live_branches(tx, self._context))

    # -- units of work ------------------------------------------------------------------------

    async def _read(self, unit: Unit[T]) -> T:
        return await self.log.query(self._checked(unit))

    async def _write(self, unit: Unit[T]) -> T:
        return await self.log.write(self._checked(unit))

    def _checked(self, unit: Unit[T]) -> Unit[T]:
        def checked(tx: Transaction) -> T:
            commands.check_owner(tx, self._context)
            return unit(tx)

        return checked
