"""
Conversations as Markdown, for people: sessions, branches, turns, tools.

Conversation text is in fences or code spans that it cannot close, so its headings, links, images and
tags are never rendered. Control and bidirectional characters are escaped.
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from agents_eventlog.adapters.conversations import media, summary, timestamps
from agents_eventlog.adapters.conversations.printable import printable
from agents_eventlog.adapters.openai_agents.migration.importer import shared_length
from agents_eventlog.eventlog.events import JSON
from agents_eventlog.eventlog.jsonl.export import ExportProgress, choose
from agents_eventlog.eventlog.log import EventLog
from agents_eventlog.eventlog.storage.transaction import Transaction
from agents_eventlog.projections.conversations import as_of as past
from agents_eventlog.projections.conversations import builder as conversations
from agents_eventlog.projections.conversations import queries as conversation_queries
from agents_eventlog.projections.conversations.builder import MAIN

ROLES = frozenset({"assistant", "developer", "system", "user"})

_BACKTICKS = re.compile("`+")


async def export_markdown(
    log: EventLog,
    session_ids: Sequence[str] | None = None,
    *,
    on_progress: Callable[[ExportProgress], None] | None = None,
) -> AsyncIterator[str]:
    """
    Yield a log's current conversations as Markdown, one session at a time.

    Args:
        log: The log to export.
        session_ids: Only these sessions; all for None.
        on_progress: Called after each session.

    Raises:
        ConversationError: A session does not exist.
    """
    chosen = await log.query(lambda tx: choose(tx, session_ids))
    total, done = sum(heading.events for heading in chosen.headings), 0
    for count, (session_id, version) in enumerate(chosen.headings, start=1):
        yield await past.query_as_of(log, session_id, version, partial(_session, session_id))
        done += version
        if on_progress is not None:
            on_progress(ExportProgress(done, total, count))


def _session(session_id: str, tx: Transaction) -> str:
    session = conversations.session(tx, session_id)
    if session is None:
        return ""
    lines = [f"# Session {span(session_id)}", ""]
    began, used = timestamps.minute(session.created_at), timestamps.minute(session.updated_at)
    lines += [f"- created {began}, last used {used} (UTC)"]
    if session.user_id is not None:
        lines += [f"- user {span(session.user_id)}"]
    if session.metadata is not None:
        lines += [f"- metadata {span(session.metadata)}"]
    if session.deleted_at is not None:
        lines += [f"- deleted {timestamps.minute(session.deleted_at)} (UTC)", ""]
        return "\n".join(lines)
    counts = (
        summary.counted(session.item_count, "item"),
        summary.counted(session.turn_count, "turn"),
        f"branches: {session.branch_count}",
    )
    lines += [f"- {', '.join(counts)}", ""]
    for branch in conversation_queries.live_branches(tx, session_id):
        lines += _branch(tx, session_id, branch.branch_id, branch.from_branch_id)
    return "\n".join(lines)


def _branch(
    tx: Transaction, session_id: str, branch_id: str, parent_id: str | None
) -> Iterator[str]:
    pointer = conversation_queries.place(tx, session_id, branch_id).pointer
    yield f"## Branch {span(branch_id)}"
    yield ""
    kept = 0
    if parent_id is not None and branch_id != MAIN:
        parent = conversation_queries.place(tx, session_id, parent_id).pointer
        kept = shared_length(
            conversation_queries.refs(tx, parent), conversation_queries.refs(tx, pointer)
        )
        shared = summary.counted(kept, "item") if kept else "nothing"
        yield f"Forked from {span(parent_id)}, with which it shares {shared}."
        yield ""
    users = conversation_queries.user_items(tx, pointer, session_id=session_id)
    times = {user.turn: user.occurred_at for user in users}
    before = -1
    rows = zip(
        conversation_queries.structure(tx, pointer),
        conversation_queries.items(tx, pointer, session_id=session_id),
        strict=True,
    )
    for number, ((turn, *_), item) in enumerate(rows):
        if number < kept:
            continue
        if turn != before:
            at = f" ({timestamps.minute(times[turn])})" if turn in times else ""
            yield f"### Turn {turn}{at}" if turn else "### Before the first turn"
            yield ""
            before = turn
        yield from _item(item)


def _item(item: JSON) -> Iterator[str]:
    label, text = (
        _heading_and_text(item) if isinstance(item, Mapping) else ("**item**", _pretty(item))
    )
    yield from (label, "", fence(text), "")


def _heading_and_text(item: Mapping[str, Any]) -> tuple[str, str]:
    """Return the heading and text of an item; the text is JSON if the item has other content."""
    kind, role = item.get("type"), item.get("role")
    if kind == "function_call":
        name = span(str(item.get("name")))
        return f"**calls** {name}", summary.json_or_text(item.get("arguments"))
    if kind == "function_call_output":
        return "**gets**", summary.output(item)
    if isinstance(role, str) and media.readable(item.get("content")):
        return f"**{role}**" if role in ROLES else span(role), summary.content(item)
    return "**item**", _pretty(item)


def _pretty(value: JSON) -> str:
    return json.dumps(media.compact(value), ensure_ascii=False, indent=2)


def span(text: str) -> str:
    """Return a text as a one-line code span that it cannot close."""
    shown = printable(text)
    ticks = "`" * (_longest_run(shown) + 1)
    return f"{ticks} {shown} {ticks}" if "`" in shown or not shown.strip() else f"`{shown}`"


def fence(text: str) -> str:
    """Return a text in a fence that it cannot close."""
    shown = printable(text, lines=True)
    ticks = "`" * max(3, _longest_run(shown) + 1)
    return f"{ticks}text\n{shown}\n{ticks}"


def _longest_run(text: str) -> int:
    return max((len(run) for run in _BACKTICKS.findall(text)), default=0)
