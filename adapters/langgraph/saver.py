"""A checkpointer for LangGraph on an event log."""

from __future__ import annotations

import logging
import secrets
from collections import OrderedDict
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from typing import Any, Final, NamedTuple, TypeVar

from langchain_core.messages import BaseMessage
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    BaseCheckpointSaver,
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
    get_checkpoint_id,
    get_checkpoint_metadata,
)

from agents_eventlog import projections
from agents_eventlog.adapters.conversations import commands, pricing, sessions
from agents_eventlog.adapters.conversations.commands import SessionContext
from agents_eventlog.adapters.conversations.pricing import Prices
from agents_eventlog.adapters.langgraph.messages import (
    OWN,
    digest_of,
    items_of,
    places_of,
    usage_of,
)
from agents_eventlog.adapters.langgraph.thread import (
    CHECKPOINT,
    WRITES,
    Thread,
    config_of,
    typed,
)
from agents_eventlog.eventlog.appender import session_version
from agents_eventlog.eventlog.errors import ClosedError
from agents_eventlog.eventlog.events import JSON, ItemsAdded, RequestUsage
from agents_eventlog.eventlog.log import EventLog
from agents_eventlog.eventlog.storage.transaction import Transaction, Unit
from agents_eventlog.projections.conversations import builder as conversations
from agents_eventlog.projections.conversations import queries as conversation_queries
from agents_eventlog.projections.conversations.branch_tree import Pointer
from agents_eventlog.projections.conversations.builder import MAIN

T = TypeVar("T")

KNOWN_THREADS: Final = 128
THREADS_AT_ONCE: Final = 20

BRANCH: Final = "langgraph_"
"""The beginning of the id of the branch that has a session's checkpoints."""

_log = logging.getLogger("eventlog.session")


class _Known(NamedTuple):
    """A thread at a version: the branch of its checkpoints, its messages, and the number of their items."""

    version: int
    branch_id: str
    messages: dict[str, tuple[int, int]]
    items: int


class EventLogSaver(BaseCheckpointSaver[str]):
    """
    A checkpointer on an event log: ``builder.compile(checkpointer=EventLogSaver(log))``.

    log: an open ``EventLog``; the constructor adds the projections of sessions to it.
    prices: as for ``EventLogSession``. The usage that messages report is recorded with its cost.

    A thread is a session, whose id is the thread's. Its messages (lists of messages in a channel) are items
    on the branch main, each once, so that turns, search, usage, ``eventlog show`` and the page know them.
    Checkpoints are on a branch of their own, and refer to the messages; all else of a checkpoint is
    stored as LangGraph's serializer gives it.

    All methods may be called from any task, event loop and thread; those without ``a`` block. A StoreError
    is raised if the database fails; a write that raises has written nothing.
    """

    def __init__(self, log: EventLog, *, prices: Prices = None) -> None:
        super().__init__()
        self.log = log
        self._prices = pricing.checked(prices)
        self._projections = projections.default()
        self._known: OrderedDict[str, _Known] = OrderedDict()
        log.join(self._projections)

    def get_next_version(self, current: str | None, channel: None) -> str:
        """Return a channel's next version: higher, and another one on each fork."""
        number = 0 if current is None else int(str(current).partition(".")[0])
        return f"{number + 1:032}.{secrets.token_hex(8)}"

    # -- reading ------------------------------------------------------------------------------

    def get_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """Return the checkpoint that a config names, or the newest of its thread and namespace."""
        return self._newest(config, self._read_sync(_thread_unit(_thread_id(config))))

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """Do as ``get_tuple`` does."""
        return self._newest(config, await self._read(_thread_unit(_thread_id(config))))

    def _newest(self, config: RunnableConfig, thread: Thread) -> CheckpointTuple | None:
        ns = config["configurable"].get("checkpoint_ns", "")
        return next(thread.tuples(self.serde, ns, get_checkpoint_id(config), None), None)

    def list(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,  # noqa: A002 - the base class's name
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> Iterator[CheckpointTuple]:
        """
        Yield checkpoints, the newest of each thread first.

        config: names a thread, and perhaps a namespace and a checkpoint; None for all threads.
        filter: values that the metadata must have. before: names a checkpoint; only older ones.
        limit: maximum number of checkpoints.
        """
        after: str | None = ""
        left = limit
        while after is not None and (left is None or left > 0):
            threads, after = self._read_sync(_threads_unit(config, after))
            for found in self._matching(threads, config, filter, before, left):
                left = None if left is None else left - 1
                yield found

    async def alist(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,  # noqa: A002
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[CheckpointTuple]:
        """Do as ``list`` does."""
        after: str | None = ""
        left = limit
        while after is not None and (left is None or left > 0):
            threads, after = await self._read(_threads_unit(config, after))
            for found in self._matching(threads, config, filter, before, left):
                left = None if left is None else left - 1
                yield found

    def _matching(
        self,
        threads: Sequence[Thread],
        config: RunnableConfig | None,
        wanted: dict[str, Any] | None,
        before: RunnableConfig | None,
        limit: int | None,
    ) -> Iterator[CheckpointTuple]:
        ns = None if config is None else config["configurable"].get("checkpoint_ns")
        checkpoint_id = None if config is None else get_checkpoint_id(config)
        last = None if before is None else get_checkpoint_id(before)
        left = limit
        for thread in threads:
            for found in thread.tuples(self.serde, ns, checkpoint_id, last):
                if all(found.metadata.get(key) == value for key, value in (wanted or {}).items()):
                    if left == 0:
                        return
                    left = None if left is None else left - 1
                    yield found

    # -- writing ------------------------------------------------------------------------------

    def put(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """Store a checkpoint, with the channels of ``new_versions``; return the config that names it."""
        return self._write_sync(self._put(config, checkpoint, metadata, new_versions))

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """Do as ``put`` does."""
        return await self._write(self._put(config, checkpoint, metadata, new_versions))

    def put_writes(
        self,
        config: RunnableConfig,
        writes: Sequence[tuple[str, Any]],
        task_id: str,
        task_path: str = "",
    ) -> None:
        """Store what a task wrote after the checkpoint that a config names."""
        self._write_sync(self._put_writes(config, writes, task_id, task_path))

    async def aput_writes(
        self,
        config: RunnableConfig,
        writes: Sequence[tuple[str, Any]],
        task_id: str,
        task_path: str = "",
    ) -> None:
        """Do as ``put_writes`` does."""
        await self._write(self._put_writes(config, writes, task_id, task_path))

    def delete_thread(self, thread_id: str) -> None:
        """
        Delete the session of a thread, if there is one; a later checkpoint begins it anew.

        Its content stays in the log until it is erased: ``await log.erase(session_id=thread_id)``.
        """
        self._write_sync(_delete_unit(str(thread_id)))

    async def adelete_thread(self, thread_id: str) -> None:
        """Do as ``delete_thread`` does."""
        await self._write(_delete_unit(str(thread_id)))

    def _put(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> Unit[RunnableConfig]:
        names = config["configurable"]
        thread_id, ns = _thread_id(config), names.get("checkpoint_ns", "")
        rest: dict[str, Any] = {**checkpoint}
        values = rest.pop("channel_values")
        told = get_checkpoint_metadata(config, metadata)
        own: dict[str, JSON] = {
            "ns": ns,
            "id": checkpoint["id"],
            "parent": get_checkpoint_id(config),
            "checkpoint": typed(self.serde, rest),
            "metadata": typed(self.serde, told),
        }
        channels = [
            (channel, version, self._encoded(thread_id, values, channel))
            for channel, version in new_versions.items()
        ]
        run_id = str(told.get("run_id") or secrets.token_hex(16))

        def unit(tx: Transaction) -> RunnableConfig:
            known = self._open(tx, thread_id)
            messages, items, requests = dict(known.messages), list[JSON](), list[RequestUsage]()
            stored = []
            for channel, version, value in channels:
                stored.append([channel, version, value])
                if value is None or "messages" not in value:
                    continue
                for message, digest, parts in value["messages"]:
                    if digest not in messages:
                        added = parts or items_of(message) or []
                        messages[digest] = (known.items + len(items), len(added))
                        items += added
                        requests += self._requests(message, tx.now)
                places = [messages[digest] for _, digest, _ in value["messages"]]
                stored[-1][2] = {"messages": _ranges(places)}
            context = SessionContext(thread_id)
            if items:
                commands.add_items(tx, context, commands.in_parts(ItemsAdded(items=items)))
            if requests:
                commands.record_usage(tx, context, run_id=run_id, requests=requests)
            self._add(tx, thread_id, known, {"type": CHECKPOINT, OWN: {**own, "values": stored}})
            length = known.items + len(items)
            self._remember(tx, thread_id, known._replace(messages=messages, items=length))
            return config_of(thread_id, ns, checkpoint["id"])

        return unit

    def _encoded(self, thread_id: str, values: dict[str, Any], channel: str) -> Any:
        """
        Return the value of a channel: as the serializer gives it, or for messages each with its digest.

        Messages that the thread does not seem to have come with their items.
        """
        if channel not in values:
            return None
        value = values[channel]
        if channel.startswith("__") or not isinstance(value, list) or not value:
            return {"typed": typed(self.serde, value)}
        known = self._known.get(thread_id)
        seen = {} if known is None else known.messages
        messages = []
        for message in value:
            digest = digest_of(message)
            parts = None if digest is None or digest in seen else items_of(message)
            if parts is None and digest not in seen:
                return {"typed": typed(self.serde, value)}
            messages.append((message, digest, parts))
        return {"messages": messages}

    def _put_writes(
        self,
        config: RunnableConfig,
        writes: Sequence[tuple[str, Any]],
        task_id: str,
        task_path: str,
    ) -> Unit[None]:
        names = config["configurable"]
        thread_id = _thread_id(config)
        own = {
            "ns": names.get("checkpoint_ns", ""),
            "id": names["checkpoint_id"],
            "task_id": task_id,
            "task_path": task_path,
            "writes": [[channel, typed(self.serde, value)] for channel, value in writes],
        }

        def unit(tx: Transaction) -> None:
            known = self._open(tx, thread_id)
            self._add(tx, thread_id, known, {"type": WRITES, OWN: own})
            self._remember(tx, thread_id, known)

        return unit

    def _requests(self, message: BaseMessage, at: int) -> Sequence[RequestUsage]:
        request = usage_of(message)
        if request is None:
            return ()
        try:
            return (pricing.priced(request, at, self._prices),)
        except Exception:  # raised by the application's prices
            _log.exception("Failed to price a request")
            return (request,)

    # -- what is known of threads ---------------------------------------------------------------

    def _open(self, tx: Transaction, thread_id: str) -> _Known:
        """Return a thread for writing; one that was deleted begins anew."""
        context = SessionContext(thread_id)
        if commands.look(tx, context).is_deleted:
            sessions.restore_session(tx, thread_id)
            commands.clear_session(tx, context)
        version = session_version(tx, thread_id)
        known = self._known.get(thread_id)
        if known is not None and known.version == version:
            return known
        branch_id = _branch_of(tx, context)
        if branch_id is None:
            branch_id = f"{BRANCH}{version}"
            commands.branch_off(tx, context, Pointer(None, 0), None, branch_id, 0)
            commands.switch_to_branch(tx, context, MAIN)
        messages = commands.get_items(tx, context, MAIN, None)
        return _Known(version, branch_id, places_of(messages), len(messages))

    @staticmethod
    def _add(tx: Transaction, thread_id: str, known: _Known, item: JSON) -> None:
        context = SessionContext(thread_id, known.branch_id)
        commands.add_items(tx, context, commands.in_parts(ItemsAdded(items=[item])))

    def _remember(self, tx: Transaction, thread_id: str, known: _Known) -> None:
        def forget() -> None:
            self._known.pop(thread_id, None)

        tx.on_rollback(forget)
        self._known[thread_id] = known._replace(version=session_version(tx, thread_id))
        self._known.move_to_end(thread_id)
        if len(self._known) > KNOWN_THREADS:
            self._known.popitem(last=False)

    # -- units of work ------------------------------------------------------------------------

    async def _read(self, unit: Unit[T]) -> T:
        self._check_open()
        return await self.log.store.read(self._fresh(unit))

    def _read_sync(self, unit: Unit[T]) -> T:
        self._check_open()
        return self.log.store.read_sync(self._fresh(unit))

    async def _write(self, unit: Unit[T]) -> T:
        self._check_open()
        return await self.log.store.write(unit)

    def _write_sync(self, unit: Unit[T]) -> T:
        self._check_open()
        return self.log.store.write_sync(unit)

    def _fresh(self, unit: Unit[T]) -> Unit[T]:
        def fresh(tx: Transaction) -> T:
            self._projections.require_fresh(tx)
            return unit(tx)

        return fresh

    def _check_open(self) -> None:
        if self.log.is_closed:
            raise ClosedError("the log is closed")


def _ranges(places: Iterable[tuple[int, int]]) -> list[list[int]]:
    """Return the places of messages as ranges of items: [start, end], the end exclusive."""
    found: list[list[int]] = []
    for number, count in places:
        if found and found[-1][1] == number:
            found[-1][1] += count
        else:
            found.append([number, number + count])
    return found


def _thread_id(config: RunnableConfig) -> str:
    return str(config["configurable"]["thread_id"])


def _branch_of(tx: Transaction, context: SessionContext) -> str | None:
    """Return the branch of a session's checkpoints; None if it has none."""
    ids = (branch_id for branch_id, *_ in commands.list_branches(tx, context))
    return next((branch_id for branch_id in ids if branch_id.startswith(BRANCH)), None)


def _thread_unit(thread_id: str) -> Unit[Thread]:
    def unit(tx: Transaction) -> Thread:
        context = SessionContext(thread_id)
        branch_id = _branch_of(tx, context)
        if branch_id is None:
            return Thread(thread_id, (), ())
        messages = commands.get_items(tx, context, MAIN, None)
        return Thread(thread_id, messages, commands.get_items(tx, context, branch_id, None))

    return unit


def _threads_unit(
    config: RunnableConfig | None, after: str
) -> Unit[tuple[Sequence[Thread], str | None]]:
    """Read the thread of a config; without one the next threads, and the id after which more follow."""
    if config is not None:
        one = _thread_unit(_thread_id(config))
        return lambda tx: ([one(tx)], None)

    def unit(tx: Transaction) -> tuple[Sequence[Thread], str | None]:
        owners = conversation_queries.owners(tx, after=after, limit=THREADS_AT_ONCE)
        threads = [_thread_unit(session_id)(tx) for session_id, _ in owners]
        return threads, owners[-1][0] if len(owners) == THREADS_AT_ONCE else None

    return unit


def _delete_unit(thread_id: str) -> Unit[None]:
    def unit(tx: Transaction) -> None:
        session = conversations.session(tx, thread_id)
        if session is not None and session.deleted_at is None:
            sessions.delete_session(tx, thread_id)

    return unit
