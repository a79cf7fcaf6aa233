"""What may be wrong with a log's file, its tables and its sessions, and what to do about it."""

from __future__ import annotations

import json
import shlex
from typing import TYPE_CHECKING

from agents_eventlog import projections
from agents_eventlog.adapters.conversations import sdk_tables, summary
from agents_eventlog.adapters.conversations.sdk_tables import SDK_TABLES, TablePair
from agents_eventlog.adapters.conversations.tool_calls import ToolCalls
from agents_eventlog.eventlog import codec, erasure, payloads, properties
from agents_eventlog.eventlog.appender import read_head
from agents_eventlog.eventlog.errors import EventLogError
from agents_eventlog.eventlog.storage.engine import Problem
from agents_eventlog.projections import build
from agents_eventlog.projections.base import tables as tables_of
from agents_eventlog.projections.search import index as search_index

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from agents_eventlog.eventlog.storage.transaction import Transaction
    from agents_eventlog.projections.base import Projection

ITEM_EVENTS = """
    (SELECT DISTINCT segment_id, position FROM items) AS i
    JOIN segments AS s ON s.segment_id = i.segment_id
    JOIN sessions AS c ON c.session_id = s.session_id AND c.deleted_at IS NULL
    LEFT JOIN events AS e ON e.position = i.position
    ORDER BY i.position
"""


def to_compare(tx: Transaction) -> tuple[list[Projection], list[str]]:
    """Return the projections that a replay can be compared with, and what keeps the others back."""
    wanted: list[Projection] = []
    problems: list[str] = []
    head = read_head(tx).position
    built = build.checkpoints(tx)
    present = tx.engine.table_names(tx)
    for name, projection in projections.kept(tx).by_name.items():
        checkpoint = built.get(name)
        if checkpoint is None:
            # Nobody asked for it yet, and nothing can be wrong; but tables without are nobody's.
            if present & {table.name for table in tables_of(tx.engine, projection)}:
                problems.append(f"projection {name!r} has tables, but no checkpoint")
            continue
        if checkpoint.version != projection.version:
            problems.append(
                f"projection {name!r} was built by version {checkpoint.version} of its builder, "
                f"this program has {projection.version}: it cannot be compared"
            )
            continue
        if checkpoint.position != head:
            problems.append(
                f"projection {name!r} is built up to event {checkpoint.position}, not {head}: "
                "whoever opens the log with it brings it up to date, or `eventlog replay`"
            )
        wanted.append(projection)
    return wanted, problems


def of_projections(tx: Transaction) -> Iterator[Problem]:
    """Look at whether the tables are there and up to date."""
    _, problems = to_compare(tx)
    for problem in problems:
        yield Problem("projections", problem, "run `eventlog replay`")
    built = build.checkpoints(tx)
    present = tx.engine.table_names(tx)
    if search_index.Search.name in built and search_index.built_to(tx) != (
        head := read_head(tx).position
    ):
        yield Problem(
            "projections",
            f"the full-text index shows the log up to event {built[search_index.Search.name].position:,}, "
            f"not {head:,}: what it does not show is scanned",
            "`eventlog search --index` brings it up to date",
            is_note=True,
        )
    for name, projection in projections.kept(tx).by_name.items():
        if name not in built:
            yield Problem(
                "projections",
                f"projection {name!r} was never built",
                "the first session that opens the file builds it",
                is_note=True,
            )
            continue
        for table in tables_of(tx.engine, projection):
            if table.name not in present:
                yield Problem(
                    "projections",
                    f"the table {table.name!r} of projection {name!r} is missing",
                    "run `eventlog replay`",
                )


def of_erasing(tx: Transaction) -> Iterator[Problem]:
    """Look at whether the file was rewritten since something was erased."""
    if erasure.is_rewrite_due(tx):
        yield Problem(
            "erasing",
            "it was stopped before the file was rewritten, which may still hold copies of what was "
            "erased",
            "run the same `eventlog erase` again while nothing else uses the file: it goes on",
        )


def of_sdk_tables(tx: Transaction, path: str) -> Iterator[Problem]:
    """Look at whether an old program still writes into the SDK's tables."""
    claimed = properties.get_property(tx, SDK_TABLES)
    if claimed is None:
        return
    pair = TablePair(*json.loads(claimed))
    if late := sdk_tables.not_migrated(tx, pair.messages):
        source = shlex.quote(path)
        yield Problem(
            "the SDK's tables",
            f"{summary.counted(late, 'message')} came to {pair.messages!r} after it was adopted",
            "move the program that writes there to this library, then bring all that it wrote "
            f"into a log of its own: eventlog import NEW.db {source} {pair.options()}",
        )


def of_sessions(tx: Transaction) -> Iterator[Problem]:
    """Look at whether every session can be read, and every tool call has its output."""
    wanted, _ = to_compare(tx)
    if "conversations" not in {projection.name for projection in wanted}:
        return  # there are no tables to look at, which is told already
    calls = ToolCalls()
    for session_id, position, *stored in payloads.stored(
        tx, ITEM_EVENTS, columns="s.session_id, i.position"
    ):
        problem = None
        if stored[0] is None:
            problem = f"event {position} is missing"
        elif stored[-1] is None:
            problem = f"the content of event {position} was erased, but its items are listed"
        else:
            try:
                calls.note(position, codec.decode_items([tuple(stored)])[0])
            except EventLogError:
                problem = f"the items of event {position} cannot be decoded"
        if problem is not None:
            yield Problem(
                f"session {session_id!r}",
                f"it cannot be read: {problem}",
                "run `eventlog verify`, and `eventlog replay` if the log is as recorded",
            )
    for missing in calls.unanswered(tx):
        names = ", ".join(missing.calls)
        yield Problem(
            f"session {missing.session_id!r}",
            f"on branch {missing.branch_id!r}, "
            f"{summary.counted(len(missing.calls), 'tool call')} without output: {names}",
            "resume the run if it waits for an approval; else pop these items, "
            "for the model refuses such a history",
        )


def guarded(check: Callable[[], list[Problem]], subject: str) -> list[Problem]:
    """Return what a check finds; that it could not be made is a complaint, too."""
    try:
        return check()
    except (EventLogError, ValueError, TypeError) as error:
        why = str(error) if isinstance(error, EventLogError) else type(error).__name__
        return [Problem(subject, f"it cannot be looked at: {why}", "run `eventlog verify`")]
