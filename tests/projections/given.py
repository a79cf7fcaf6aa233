"""Given, when, then: events in a log on a file, and what its tables say then."""

from __future__ import annotations

from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from agents_eventlog import projections
from agents_eventlog.eventlog import (
    BranchCreated,
    EventLog,
    ItemPopped,
    ItemRef,
    ItemsAdded,
    RequestUsage,
    UsageRecorded,
    append,
)
from agents_eventlog.projections.conversations import queries as conversation_queries
from agents_eventlog.projections.usage import queries as usage_queries
from tests.history import START, Entry, items_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from agents_eventlog.eventlog import Event, Transaction
    from agents_eventlog.projections.usage.queries import UsageTotals

USER: Any = {"role": "user", "content": "hello"}
ANSWER: Any = {"role": "assistant", "content": "hi"}


class Given:
    """A log with projections: ``given(*events).when(*events)``. A second passes with each event."""

    def __init__(self, path: Path) -> None:
        self.log = EventLog.open_sync(path, projections=projections.default(), durability="normal")
        self.now = START
        self.log.store.clock = lambda: self.now

    def __call__(self, *entries: Entry | Event) -> Given:
        """Record events, each in a transaction of its own; bare ones happen on main."""
        for each in entries:
            entry = each if isinstance(each, Entry) else Entry(each)
            self.now += 1_000_000
            self.write(partial(_append, entry=entry))
        return self

    when = __call__

    def write(self, unit: Callable[[Transaction], Any]) -> Any:
        """Run a unit of work."""
        return self.log.store.write_sync(unit)

    def ask(self, sql: str, *parameters: Any) -> list[tuple[Any, ...]]:
        """Return the rows of a query."""
        return self.log.store.read_sync(lambda tx: tx.all(sql, parameters))

    def value(self, sql: str, *parameters: Any) -> Any:
        """Return the only value of a query."""
        ((value,),) = self.ask(sql, *parameters)
        return value

    def refs(self, branch_id: str = "main", session_id: str = "s") -> list[tuple[int, int]]:
        """Return a branch's items as (position, index)."""
        return [row[:2] for row in self.rows(branch_id, session_id)]

    def turns(self, branch_id: str = "main", session_id: str = "s") -> list[int]:
        """Return the turn of each of a branch's items."""
        return [row[-1] for row in self.rows(branch_id, session_id)]

    def rows(self, branch_id: str = "main", session_id: str = "s") -> list[tuple[Any, ...]]:
        """Return a branch's item rows, in order."""
        return self.log.store.read_sync(
            lambda tx: items_of(tx, conversation_queries.place(tx, session_id, branch_id).pointer)
        )

    def branches(self, session_id: str = "s") -> list[str]:
        """Return the live branches in the order in which they were made."""
        return [branch_id for branch_id, *_ in self.ask(conversation_queries.BRANCHES, session_id)]

    def session(self, column: str, session_id: str = "s") -> Any:
        """Return a column of a session's row."""
        return self.value(f"SELECT {column} FROM sessions WHERE session_id = ?", session_id)

    def total(self, branch_id: str | None = None, session_id: str = "s") -> int:
        """Return the tokens of live turns, of one branch or of all."""
        found = self.log.store.read_sync(
            lambda tx: usage_queries.live_total(tx, session_id, branch_id)
        )
        return 0 if found is None else found[3]

    def spent(self, session_id: str = "s") -> UsageTotals:
        """Return all that was ever used."""
        return self.log.store.read_sync(
            lambda tx: usage_queries.total(
                usage_queries.groups(tx, usage_queries.UsageQuery(session_id=session_id))
            )
        )


def _append(tx: Transaction, entry: Entry) -> None:
    append(tx, entry.session_id, entry.event, branch_id=entry.branch_id)


def on(branch_id: str, event: Event, session_id: str = "s") -> Entry:
    """Return an event that happens on a branch."""
    return Entry(event, session_id, branch_id)


def added(*items: Any) -> ItemsAdded:
    """Return the event of items being added; by default a user item and an answer: one turn."""
    return ItemsAdded(items=list(items) or [USER, ANSWER])


def popped(position: int, index: int, emptied_turn: int | None = None) -> ItemPopped:
    """Return the event of an item being popped."""
    return ItemPopped(item=ItemRef(position, index), emptied_turn=emptied_turn)


def branched(
    branch_id: str, last: tuple[int, int] | None, *, source: str = "main", generated: bool = False
) -> BranchCreated:
    """Return the event of a branch leaving another one after an item."""
    ref = None if last is None else ItemRef(*last)
    return BranchCreated(
        branch_id=branch_id, from_branch_id=source, last_item=ref, generated=generated
    )


def used(
    turn: int | None,
    total_tokens: int,
    *,
    branch_id: str = "main",
    run_id: str = "run",
    **numbers: Any,
) -> Entry:
    """Return the event of a run of one request having used so many tokens on a branch's turn."""
    request = RequestUsage(total_tokens=total_tokens, **numbers)
    return on(branch_id, UsageRecorded(run_id=run_id, turn=turn, requests=[request]))


@contextmanager
def watched(log: EventLog) -> Iterator[list[str]]:
    """Collect every statement of a log's two connections."""
    seen: list[str] = []
    store = log.store
    store.write_sync(lambda tx: tx.connection.set_trace_callback(seen.append))
    for scan in (False, True):
        store.read_sync(lambda tx: tx.connection.set_trace_callback(seen.append), scan=scan)
    seen.clear()
    yield seen
    store.write_sync(lambda tx: tx.connection.set_trace_callback(None))
    for scan in (False, True):
        store.read_sync(lambda tx: tx.connection.set_trace_callback(None), scan=scan)
