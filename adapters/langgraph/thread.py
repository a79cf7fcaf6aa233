"""
The checkpoints, writes and messages of a thread, folded from the items of its session.

Messages are on main, each once. A branch of its own has the items of LangGraph:

    langgraph_checkpoint   a checkpoint, with the values of the channels that it changed
    langgraph_writes       what a task wrote after a checkpoint

The value of a channel is {"typed": [type, base64]} as LangGraph's serializer gives it; or for a list of
messages {"messages": [[start, end], ...]}, which are ranges of items on main; or null.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, Protocol

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import WRITES_IDX_MAP, CheckpointTuple, writes_sort_key

from agents_eventlog.adapters.langgraph.messages import OWN, groups, message_of
from agents_eventlog.eventlog.errors import ConversationError
from agents_eventlog.eventlog.events import JSON

CHECKPOINT: Final = "langgraph_checkpoint"
WRITES: Final = "langgraph_writes"


class Serializer(Protocol):
    """LangGraph's serializer."""

    def dumps_typed(self, obj: Any) -> tuple[str, bytes]:
        """Return a value's type and bytes."""

    def loads_typed(self, data: tuple[str, bytes]) -> Any:
        """Return the value."""


def typed(serde: Serializer, value: Any) -> list[str]:
    """Return a value as LangGraph's serializer gives it, in JSON."""
    kind, data = serde.dumps_typed(value)
    return [kind, base64.b64encode(data).decode()]


def untyped(serde: Serializer, stored: list[str]) -> Any:
    """Return the value that ``typed`` was given."""
    return serde.loads_typed((stored[0], base64.b64decode(stored[1])))


class Thread:
    """
    The state of a thread.

    messages: the items on main. items: those of LangGraph's branch.
    """

    def __init__(self, thread_id: str, messages: Sequence[JSON], items: Iterable[JSON]) -> None:
        self.thread_id = thread_id
        self._messages = messages
        self._checkpoints: dict[tuple[str, str], Mapping[str, JSON]] = {}
        self._values: dict[tuple[str, str, JSON], JSON] = {}
        self._writes: dict[tuple[str, str], dict[tuple[str, int], Mapping[str, JSON]]] = {}
        for item in items:
            self._add(item)

    def _add(self, item: JSON) -> None:
        own = item.get(OWN)
        if own is None:
            raise ConversationError(
                f"thread {self.thread_id!r} has a redacted checkpoint: continue in another thread"
            )
        key = (own["ns"], own["id"])
        if item["type"] == CHECKPOINT:
            self._checkpoints[key] = own
            self._values |= {(own["ns"], *each[:2]): each[2] for each in own["values"]}
            return
        writes = self._writes.setdefault(key, {})
        for place, (channel, value) in enumerate(own["writes"]):
            index = WRITES_IDX_MAP.get(channel, place)
            write = {**own, "channel": channel, "value": value}
            if index < 0:
                writes[own["task_id"], index] = write
            else:
                writes.setdefault((own["task_id"], index), write)

    def tuples(
        self, serde: Serializer, ns: str | None, checkpoint_id: str | None, before: str | None
    ) -> Iterator[CheckpointTuple]:
        """Yield the checkpoints, the newest first: of a namespace, with an id, before an id."""
        for key in sorted(self._checkpoints, key=lambda each: each[1], reverse=True):
            if (
                (ns is None or key[0] == ns)
                and (checkpoint_id is None or key[1] == checkpoint_id)
                and (before is None or key[1] < before)
            ):
                yield self._tuple(serde, *key)

    def _tuple(self, serde: Serializer, ns: str, checkpoint_id: str) -> CheckpointTuple:
        own = self._checkpoints[ns, checkpoint_id]
        checkpoint: Any = untyped(serde, own["checkpoint"])
        values = {}
        for channel, version in checkpoint["channel_versions"].items():
            stored = self._values.get((ns, channel, version))
            if stored is not None:
                values[channel] = self._value(serde, stored)
        writes = self._writes.get((ns, checkpoint_id), {})
        in_order = sorted(
            writes, key=lambda each: writes_sort_key(writes[each]["task_path"], *each)
        )
        parent = own["parent"]
        return CheckpointTuple(
            config=config_of(self.thread_id, ns, checkpoint_id),
            checkpoint=checkpoint | {"channel_values": values},
            metadata=untyped(serde, own["metadata"]),
            parent_config=config_of(self.thread_id, ns, parent) if parent else None,
            pending_writes=[
                (key[0], writes[key]["channel"], untyped(serde, writes[key]["value"]))
                for key in in_order
            ],
        )

    def _value(self, serde: Serializer, stored: Mapping[str, JSON]) -> Any:
        if "typed" in stored:
            return untyped(serde, stored["typed"])
        messages = self._messages
        if any(end > len(messages) for _, end in stored["messages"]):
            raise ConversationError(
                f"thread {self.thread_id!r} lacks messages, which were removed from its session"
            )
        return [
            message_of(messages[number : number + count])
            for start, end in stored["messages"]
            for number, count in groups(messages, start, end)
        ]


def config_of(thread_id: str, ns: str, checkpoint_id: str) -> RunnableConfig:
    """Return the config that names a checkpoint."""
    names = {"thread_id": thread_id, "checkpoint_ns": ns, "checkpoint_id": checkpoint_id}
    return {"configurable": names}
