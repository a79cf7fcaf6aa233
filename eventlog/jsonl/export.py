"""Export histories as JSON Lines."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from functools import partial
from typing import NamedTuple

from agents_eventlog.eventlog import payloads
from agents_eventlog.eventlog.appender import PAGE_EVENTS, last_position
from agents_eventlog.eventlog.cipher.envelope import Envelope
from agents_eventlog.eventlog.errors import KeysError, SessionNotFoundError
from agents_eventlog.eventlog.events import ItemRef
from agents_eventlog.eventlog.jsonl import format as jsonl_format
from agents_eventlog.eventlog.jsonl import own_items
from agents_eventlog.eventlog.jsonl.format import Heading
from agents_eventlog.eventlog.log import EventLog
from agents_eventlog.eventlog.reader import Query
from agents_eventlog.eventlog.recorded_event import RecordedEvent
from agents_eventlog.eventlog.redacted_items import RedactedItems
from agents_eventlog.eventlog.sealing import SealedAs, sealed_as
from agents_eventlog.eventlog.storage.transaction import Transaction

SESSIONS = """
    SELECT session_id, MAX(version) FROM events WHERE position <= ?
    GROUP BY session_id
    ORDER BY MIN(position)
"""
ONE_SESSION = """
    SELECT MIN(position), session_id, MAX(version) FROM events
    WHERE session_id = ? AND position <= ?
    GROUP BY session_id
"""
IS_FORK = "SELECT 1 FROM events WHERE session_id = ? AND type = 'session_forked' LIMIT 1"
VERSION_OF = "SELECT version FROM events WHERE position = ? AND session_id = ?"


class ExportProgress(NamedTuple):
    """The progress of an export: events written, and the numbers of all events and sessions to write."""

    events: int
    total: int
    sessions: int


class Chosen(NamedTuple):
    """Which sessions are exported, with the number of their events up to a position."""

    until: int
    headings: list[Heading]


async def export_lines(
    log: EventLog,
    session_ids: Sequence[str] | None = None,
    *,
    sealed: bool = False,
    on_progress: Callable[[ExportProgress], None] | None = None,
) -> AsyncGenerator[str, None]:
    """
    Yield the complete histories of sessions as JSON Lines, without line ends, for ``import_lines``.

    session_ids: only these sessions; None for all.
    sealed: export the contents of a sealed log unopened. Needs no keys; only an empty log, or a copy of
        this one, can import them. Redacted items are then exported sealed.
    on_progress: called with the progress after each page of events.

    The export is a snapshot; events appended meanwhile are not included. Redacted items are exported as
    their placeholders, and a fork with the items that it began with, as its own. Memory use does not depend
    on the length of the log. Raises SessionNotFoundError, before the first line, for an unknown session,
    and UndecodableEventError for an event that cannot be read. With ``sealed``, raises KeysError for a log
    that is not sealed, contents in plaintext, and forks, whose items have the keys of another session.
    """
    chosen = await log.query(lambda tx: choose(tx, session_ids))
    sealed_as = await log.query(partial(_sealed_as, chosen=chosen)) if sealed else None
    total = sum(heading.events for heading in chosen.headings)
    done = 0
    yield jsonl_format.log_line(sealed_as)
    for count, heading in enumerate(chosen.headings, start=1):
        yield jsonl_format.session_line(heading)
        redacted = await log.query(partial(RedactedItems.of_session, session_id=heading.session_id))
        query = Query(heading.session_id, None, None, 0, chosen.until, None, None, backward=False)
        moved: dict[ItemRef, ItemRef] = {}
        while page := await log.query(partial(_page, query=query, moved=moved, sealed=sealed)):
            events, versions = page
            shown = events if sealed else [redacted.covered(recorded) for recorded in events]
            for line in await asyncio.to_thread(_event_lines, shown, versions, sealed=sealed):
                yield line
            query.seek(events[-1])
            done += len(events)
            if on_progress is not None:
                on_progress(ExportProgress(done, total, count))


def choose(tx: Transaction, session_ids: Sequence[str] | None) -> Chosen:
    """Return the sessions of these ids, all for None, as of now. Raises SessionNotFoundError."""
    until = last_position(tx)
    if session_ids is None:
        return Chosen(until, [Heading(*row) for row in tx.all(SESSIONS, (until,))])
    found = []
    for session_id in dict.fromkeys(session_ids):
        row = tx.one(ONE_SESSION, (session_id, until))
        if row is None:
            raise SessionNotFoundError(session_id)
        found.append(row)
    headings = [Heading(*heading) for _, *heading in sorted(found)]
    return Chosen(until, headings)


def _page(
    tx: Transaction, query: Query, moved: dict[ItemRef, ItemRef], *, sealed: bool
) -> tuple[list[RecordedEvent], dict[int, int]] | None:
    """
    Return the next events, and the versions of those of the same session that they speak of.

    moved: the places of items that a fork began with, as its own items.
    """
    events = [own_items.with_own_items(tx, each, moved) for each in query.page(tx, PAGE_EVENTS)]
    versions: dict[int, int] = {}
    for recorded in events:
        if sealed and isinstance(recorded.data, Envelope):
            continue  # refers to versions
        for position in jsonl_format.positions_in(recorded.event):
            row = tx.one(VERSION_OF, (position, recorded.session_id))
            versions[position] = 0 if row is None else int(row[0])
    return (events, versions) if events else None


def _event_lines(
    events: Sequence[RecordedEvent], versions: dict[int, int], *, sealed: bool
) -> list[str]:
    return [
        jsonl_format.event_line(recorded, versions.__getitem__, sealed=sealed)
        for recorded in events
    ]


def _sealed_as(tx: Transaction, chosen: Chosen) -> SealedAs:
    """Return what a log is called where it keeps keys. Raises KeysError unless all contents are sealed."""
    found = sealed_as(tx)
    if found is None:
        raise KeysError("the log is not sealed: export it without sealed")
    for session_id, _ in chosen.headings:
        if tx.one(IS_FORK, (session_id,)) is not None:
            raise KeysError(
                f"session {session_id!r} is a fork, and its first items have the keys of another session: "
                "export it opened, or copy the log with `eventlog copy`"
            )
    if payloads.contents(tx).in_plaintext:
        for session_id, _ in chosen.headings:
            if payloads.contents(tx, session_id).in_plaintext:
                raise KeysError(
                    f"session {session_id!r} has contents in plaintext from before the log was sealed: "
                    "seal them with `eventlog encrypt`"
                )
    return found
