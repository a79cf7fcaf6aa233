"""
The erasing of what may go, one bounded transaction after another; then the file is rewritten.

Whoever is killed in between has erased what was committed; erasing again goes on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple, TypeAlias

from agents_eventlog.eventlog import codec, erasure, payloads
from agents_eventlog.eventlog.appender import PAGE_BYTES, PAGE_EVENTS
from agents_eventlog.eventlog.codec import StoredPayload
from agents_eventlog.eventlog.erasure import Payload
from agents_eventlog.eventlog.events import JSON, ItemsAdded, ItemsReplaced
from agents_eventlog.eventlog.log import EventLog
from agents_eventlog.eventlog.storage.transaction import Transaction
from agents_eventlog.projections.conversations.builder import Conversations
from agents_eventlog.projections.erasure.scopes import Due, Scope, structure
from agents_eventlog.projections.projector import Projections
from agents_eventlog.projections.replay import leftovers
from agents_eventlog.projections.search import index as search_index


class Erased(NamedTuple):
    """
    What was erased, or would be.

    kept_items: items that are on no branch any more, but stay, for their events hold live ones.
    is_complete: whether nothing of it is left in the file; False when another process was in the way
        of rewriting it. Erase again to finish.
    """

    sessions: int = 0
    events: int = 0
    payload_bytes: int = 0
    kept_items: int = 0
    is_complete: bool = True


OnProgress: TypeAlias = Callable[[Erased], None]
Forget: TypeAlias = Callable[[Transaction, str, "Iterable[JSON] | None"], None]
"""
Removes, in the transaction that erases, what the file holds elsewhere of a session: these items, or all of
it for None.
"""


async def erase(
    log: EventLog,
    scope: Scope,
    *,
    reason: str | None = None,
    dry_run: bool = False,
    on_progress: OnProgress | None = None,
    forget: Forget | None = None,
) -> Erased:
    """
    Blank what a scope says, a bounded transaction at a time, then rewrite the file without it.

    dry_run: look what would go, and write nothing.
    forget: removes what the file holds elsewhere of what is erased.

    Programs may go on meanwhile; they wait while the file is rewritten. Who erases stands in the
    metadata of the events that tell of it, as with any other event. Erasing again finds nothing to do,
    or finishes what was interrupted.
    """
    needed = Projections(Conversations())
    await asyncio.to_thread(log.join, needed)
    total = _Total()
    after: str | None = None
    while page := await log.query(partial(scope.sessions, after=after)):
        after = page[-1]
        found = await log.query(partial(_look_through, needed, scope, page))
        total.kept_items += sum(due.kept_items for due in found)
        if dry_run:
            total.add(found)
            continue
        while found := [due for due in found if not due.is_nothing]:
            for batch in _batches(found):
                total.add(await log.write(partial(_blank, scope, batch, reason, forget)))
                if on_progress is not None:
                    on_progress(total.erased())
            # Until nothing is left: a session that was live may have grown before it was deleted.
            again = [due.session_id for due in found]
            found = await log.query(partial(_look_through, needed, scope, again))
    is_complete = dry_run or await asyncio.to_thread(_finish, log)
    return total.erased(is_complete=is_complete)


class _Total:
    """Adds up what is erased."""

    def __init__(self) -> None:
        self.kept_items = 0
        self._sessions: set[str] = set()
        self._events = 0
        self._payload_bytes = 0

    def add(self, found: Iterable[Due]) -> None:
        """Count what was found to be due, or was blanked."""
        for due in found:
            if not due.is_nothing:
                self._sessions.add(due.session_id)
                self._events += len(due.payloads)
                self._payload_bytes += sum(size for _, size in due.payloads)

    def erased(self, *, is_complete: bool = False) -> Erased:
        """Return the sums so far."""
        sessions = len(self._sessions)
        return Erased(sessions, self._events, self._payload_bytes, self.kept_items, is_complete)


def _look_through(
    needed: Projections, scope: Scope, session_ids: Sequence[str], tx: Transaction
) -> list[Due]:
    needed.require_fresh(tx)
    return [scope.due(tx, session_id) for session_id in session_ids]


def _batches(found: Iterable[Due]) -> Iterator[list[Due]]:
    """Cut what is due into parts that one transaction may take."""
    batch: list[Due] = []
    events = size = 0
    for due in found:
        part = due._replace(payloads=[])
        batch.append(part)
        for position, length in due.payloads:
            if events >= PAGE_EVENTS or size >= PAGE_BYTES:
                yield batch
                part = due._replace(payloads=[], is_marked=True)
                batch = [part]
                events = size = 0
            part.payloads.append((position, length))
            events, size = events + 1, size + length
        events += 1  # the one that tells of it
    yield batch


def _blank(
    scope: Scope,
    batch: Sequence[Due],
    reason: str | None,
    forget: Forget | None,
    tx: Transaction,
) -> list[Due]:
    """Blank a batch, in a unit of work; return what was."""
    blanked = []
    has_index = search_index.is_there(tx)
    for due in batch:
        if not scope.may_erase(tx, due.session_id, reason):
            continue
        rows = [payloads.at(tx, position) for position, _ in sorted(due.payloads)]
        stored: list[Any] = [row for row in rows if row is not None and row[-1] is not None]
        going = [Payload(row[0], structure(row), len(row[3])) for row in stored]
        if forget is not None:
            forget(tx, due.session_id, None if scope.is_whole else _items(stored))
        if going or not due.is_marked:
            is_whole = scope.is_whole
            erasure.blank(tx, due.session_id, going, reason=reason, is_whole=is_whole)
            if has_index:  # nobody need keep it up to date here
                search_index.take_out(tx, (payload.position for payload in going))
            blanked.append(due._replace(payloads=[(each.position, each.bytes) for each in going]))
    return blanked


def _items(stored: Iterable[StoredPayload]) -> Iterator[JSON]:
    """Return the items in payloads."""
    for position, type_name, schema_version, data in stored:
        event = codec.decode(type_name, schema_version, data, position=position)
        if isinstance(event, ItemsAdded | ItemsReplaced):
            yield from event.items


def _finish(log: EventLog) -> bool:
    """Leave nothing of it in the file, or beside it where a replay was killed. Blocks."""
    for left in [] if log.store.is_memory else leftovers(log.path):
        left.unlink(missing_ok=True)
    return erasure.rewrite(log.store, before=_optimize)


def _optimize(tx: Transaction) -> None:
    if search_index.is_there(tx):
        search_index.optimize(tx)
