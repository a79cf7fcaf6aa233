"""Checks of a log's file, tables and sessions; each problem comes with a remedy."""

from __future__ import annotations

import json
import shlex
from typing import TYPE_CHECKING, Any

from agents_eventlog import projections
from agents_eventlog.adapters.conversations import sdk_tables, summary
from agents_eventlog.adapters.conversations.sdk_tables import SDK_TABLES, TablePair
from agents_eventlog.adapters.conversations.tool_calls import ToolCalls
from agents_eventlog.eventlog import codec, erasure, payloads, properties
from agents_eventlog.eventlog.appender import complete_checkpoint
from agents_eventlog.eventlog.errors import EventLogError, KeysError, TamperedPayloadError
from agents_eventlog.eventlog.storage.engine import Problem
from agents_eventlog.projections import build
from agents_eventlog.projections.base import names as names_of
from agents_eventlog.projections.conversations import redactions
from agents_eventlog.projections.search import index as search_index

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from agents_eventlog.eventlog.storage.transaction import Transaction
    from agents_eventlog.projections.base import Projection

ITEM_EVENTS = """
    (SELECT DISTINCT segment_id, position FROM items) AS i
    JOIN segments AS s ON s.segment_id = i.segment_id
    JOIN sessions AS c ON c.session_id = s.session_id AND c.deleted_at IS NULL
    LEFT JOIN events AS e ON e.position = {payload}
    ORDER BY i.position
"""


def to_compare(tx: Transaction) -> tuple[list[Projection], list[str]]:
    """Return the projections that can be compared with a replay, and the problems found."""
    wanted: list[Projection] = []
    problems: list[str] = []
    known = projections.kept(tx).by_name
    build.use_own_tables(tx, known.values())
    head = complete_checkpoint(tx)
    stored = build.stored_checkpoints(tx)
    built = build.checkpoints(tx)
    present = tx.engine.table_names(tx)
    for name, projection in known.items():
        # Without tables of this program's version, those of a newer release explain why.
        checkpoint = built.get(name) or stored.get(name)
        if checkpoint is None:
            # Not built yet, which is fine; but tables without a checkpoint cannot be explained.
            if present & {tx.name_of(table) for table in names_of(tx.engine, projection)}:
                problems.append(f"projection {name!r} has tables, but no checkpoint")
            continue
        if checkpoint.version != projection.version:
            problems.append(
                f"projection {name!r} was built by version {checkpoint.version} of its builder, "
                f"this program has version {projection.version}: they cannot be compared"
            )
            continue
        if checkpoint.position != head:
            problems.append(
                f"projection {name!r} is built up to event {checkpoint.position}, not {head}: "
                "open the log with it, or run `eventlog replay`, to update it"
            )
        wanted.append(projection)
    return wanted, problems


def of_projections(tx: Transaction) -> Iterator[Problem]:
    """Check that all projection tables exist and are up to date."""
    _, problems = to_compare(tx)
    for problem in problems:
        yield Problem("projections", problem, "run `eventlog replay`")
    stored = build.stored_checkpoints(tx)
    built = build.checkpoints(tx)
    present = tx.engine.table_names(tx)
    if search_index.Search.name in built and search_index.built_to(tx) != (
        head := complete_checkpoint(tx)
    ):
        yield Problem(
            "projections",
            f"the full-text index shows the log up to event {built[search_index.Search.name].position:,}, "
            f"not {head:,}: searches scan the rest",
            "run `eventlog search --index` to update it",
            is_note=True,
        )
    for name, projection in projections.kept(tx).by_name.items():
        if name not in built:
            if name not in stored:
                yield Problem(
                    "projections",
                    f"projection {name!r} was never built",
                    "the first session that opens the file builds it",
                    is_note=True,
                )
            continue
        for table in names_of(tx.engine, projection):
            if tx.name_of(table) not in present:
                yield Problem(
                    "projections",
                    f"the table {table!r} of projection {name!r} is missing",
                    "run `eventlog replay`",
                )

    for name, checkpoint in stored.items():
        if (projection_name := build.plain_name(name)) != name:
            yield Problem(
                "projections",
                f"tables of version {checkpoint.version} of projection {projection_name!r} are kept for "
                "programs that use it",
                "run `eventlog replay` when none of them runs any more",
                is_note=True,
            )


def of_erasing(tx: Transaction) -> Iterator[Problem]:
    """Check that the file was rewritten after the last erasure."""
    if erasure.is_rewrite_due(tx):
        yield Problem(
            "erasing",
            "an erasure stopped before it rewrote the file, which may still hold copies of the erased "
            "content",
            "run the same `eventlog erase` again, while no other program uses the file, to finish it; "
            "if this file was copied without its -wal from a file in use, copy with `eventlog backup`",
        )


def of_sdk_tables(tx: Transaction, path: str) -> Iterator[Problem]:
    """Check that no program has written to the SDK's tables since their migration, or deleted from them."""
    claimed = properties.get_property(tx, SDK_TABLES)
    if claimed is None:
        return
    pair = TablePair(*json.loads(claimed))
    if late := sdk_tables.not_migrated(tx, pair.messages):
        source = shlex.quote(path)
        yield Problem(
            "the SDK's tables",
            f"found {summary.counted(late, 'message')} added to {pair.messages!r} after its migration",
            "move the program that writes there to this library, then import all its messages "
            f"into a new log: eventlog import NEW.db {source} {pair.options()}",
        )
    for session_id, missing in sdk_tables.removed_by_others(tx, pair.messages):
        yield Problem(
            "the SDK's tables",
            f"{summary.counted(missing, 'message')} of session {session_id!r} "
            f"deleted or changed in {pair.messages!r} after its migration: the log keeps the text",
            "to erase the session from the log, too: eventlog erase "
            f"{shlex.quote(path)} --session {shlex.quote(session_id)}; "
            "to keep it, drop the SDK's tables, which the log does not need",
        )


def of_sessions(tx: Transaction) -> Iterator[Problem]:
    """Check that all sessions can be read, and that every tool call has an output."""
    wanted, _ = to_compare(tx)
    if "conversations" not in {projection.name for projection in wanted}:
        return  # there are no tables to check, which of_projections reports
    calls = ToolCalls()
    for session_id, position, is_forked, *stored in payloads.stored(
        tx,
        redactions.present(tx, ITEM_EVENTS),
        columns="s.session_id, i.position, i.position < i.segment_id",
        is_opened=False,
    ):
        problem = None
        if stored[0] is None:
            problem = f"event {position} is missing"
        elif stored[-1] is None and is_forked:
            continue
        elif stored[-1] is None:
            problem = (
                f"the content of event {position} was erased, but the tables still list its items"
            )
        else:
            problem = _note(tx, calls, stored)
        if problem is not None:
            yield Problem(
                f"session {session_id!r}",
                f"the session cannot be read: {problem}",
                "run `eventlog verify`, then `eventlog replay` if the log is undamaged",
            )
    for missing in calls.unanswered(tx):
        names = ", ".join(missing.calls)
        yield Problem(
            f"session {missing.session_id!r}",
            f"on branch {missing.branch_id!r}, "
            f"{summary.counted(len(missing.calls), 'tool call')} without output: {names}",
            "resume the run if it waits for an approval; otherwise pop these items, "
            "because models reject such a history",
        )


def _note(tx: Transaction, calls: ToolCalls, stored: Sequence[Any]) -> str | None:
    """Note the calls in a payload; return why it cannot be read. What is sealed without keys is skipped."""
    try:
        content = payloads.content(tx, stored[-1])
        if not isinstance(content, str):
            calls.note(stored[0], codec.decode_items([(*stored[:-1], content)])[0])
    except (KeysError, TamperedPayloadError) as error:
        return str(error)
    except EventLogError:
        return f"the items of event {stored[0]} cannot be decoded"
    return None


def guarded(check: Callable[[], list[Problem]], subject: str) -> list[Problem]:
    """Return the problems that a check finds; a check that fails is itself a problem."""
    try:
        return check()
    except (EventLogError, ValueError, TypeError) as error:
        why = str(error) if isinstance(error, EventLogError) else type(error).__name__
        return [Problem(subject, f"check failed: {why}", "run `eventlog verify`")]
