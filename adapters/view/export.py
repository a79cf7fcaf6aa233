"""Conversations as one HTML file without scripts, made from the templates of the page."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from typing import Final

from markupsafe import Markup

from agents_eventlog.adapters.conversations.window import ShownTurn, window
from agents_eventlog.adapters.view import cards, rendering
from agents_eventlog.eventlog.jsonl.export import ExportProgress, choose
from agents_eventlog.eventlog.log import EventLog
from agents_eventlog.eventlog.storage.transaction import Transaction
from agents_eventlog.projections.conversations import builder as conversations
from agents_eventlog.projections.conversations.paths import Paths

ALL: Final = 2**62


async def export_html(
    log: EventLog,
    session_ids: Sequence[str] | None = None,
    *,
    on_progress: Callable[[ExportProgress], None] | None = None,
) -> AsyncIterator[str]:
    """
    Yield a log's conversations as one HTML document, one session at a time.

    Args:
        log: The log to export.
        session_ids: Only these sessions; all for None.
        on_progress: Called after each session.

    Raises:
        ConversationError: A session does not exist.
    """
    chosen = await log.query(lambda tx: choose(tx, session_ids))
    total, done = sum(heading.events for heading in chosen.headings), 0
    style, _ = rendering.STATIC["view.css"]
    title = ", ".join(session_ids) if session_ids else "Conversations"
    # The style sheet is the package's own: as markup, because escaped it would not be CSS.
    yield rendering.fragment("export_head.html", title=title, style=Markup(style.decode()))  # noqa: S704
    for count, (session_id, version) in enumerate(chosen.headings, start=1):
        yield await log.query(partial(_session, session_id=session_id, version=version))
        done += version
        if on_progress is not None:
            on_progress(ExportProgress(done, total, count))
    yield "</main></body></html>"


def _session(tx: Transaction, session_id: str, version: int) -> str:
    paths = Paths.read(tx, session_id)
    branches = []
    for name in paths.moves:
        if not paths.exists(name, version):
            continue
        shown = window(tx, paths, session_id, name, version=version, limit=ALL, characters=ALL)
        fork = paths.forks.get(name)
        own = 0 if fork is None else fork.version
        turns = [(turn.number, _rows(turn, after=own)) for turn in shown.turns]
        parent = None if fork is None else fork.from_branch_id
        branches.append((name, parent, [(number, items) for number, items in turns if items]))
    return rendering.fragment(
        "export_session.html",
        session_id=session_id,
        session=conversations.session(tx, session_id),
        branches=branches,
    )


def _rows(turn: ShownTurn, *, after: int) -> list[cards.Row]:
    """Return the items of a turn that are on the branch, without those that it had from its parent."""
    own = [each for each in turn.items if each.removal is None and each.since > after]
    return [row for group in cards.groups(own, embeds_pictures=True) for row in group.rows]
