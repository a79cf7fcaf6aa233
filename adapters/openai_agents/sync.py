"""The session for programs without an event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeVar

from agents_eventlog.adapters.openai_agents.session import EventLogSession

P = ParamSpec("P")
T = TypeVar("T")


def _blocking(
    method: Callable[Concatenate[EventLogSession, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate[SyncSession, P], T]:
    name = method.__name__

    @wraps(method)
    def blocking(self: SyncSession, /, *args: P.args, **kwargs: P.kwargs) -> T:
        _check_no_loop(name)
        own: Callable[P, Coroutine[Any, Any, T]] = getattr(self._session, name)
        return asyncio.run(own(*args, **kwargs))

    return blocking


def _check_no_loop(name: str) -> None:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise RuntimeError(
        f"session.sync.{name}() would block the running event loop: use `await session.{name}()`"
    )


class SyncSession:
    """
    The coroutines of a session as methods that block: ``session.sync.get_items()``.

    For scripts and threads without an event loop. Parameters, results and errors are those of the
    session's methods, and calls of both run in the same order. Within a running event loop, as in Jupyter,
    each method raises RuntimeError and does nothing: await the session's own method there.
    """

    def __init__(self, session: EventLogSession) -> None:
        self._session = session

    get_items = _blocking(EventLogSession.get_items)
    add_items = _blocking(EventLogSession.add_items)
    pop_item = _blocking(EventLogSession.pop_item)
    undo_turn = _blocking(EventLogSession.undo_turn)
    redo = _blocking(EventLogSession.redo)
    redact = _blocking(EventLogSession.redact)
    clear_session = _blocking(EventLogSession.clear_session)
    create_branch = _blocking(EventLogSession.create_branch)
    create_branch_from_turn = _blocking(EventLogSession.create_branch_from_turn)
    create_branch_from_content = _blocking(EventLogSession.create_branch_from_content)
    fork = _blocking(EventLogSession.fork)
    switch_to_branch = _blocking(EventLogSession.switch_to_branch)
    delete_branch = _blocking(EventLogSession.delete_branch)
    list_branches = _blocking(EventLogSession.list_branches)
    branch_tree = _blocking(EventLogSession.branch_tree)
    siblings = _blocking(EventLogSession.siblings)
    compare_branches = _blocking(EventLogSession.compare_branches)
    retry = _blocking(EventLogSession.retry)
    edit = _blocking(EventLogSession.edit)
    get_transcript = _blocking(EventLogSession.get_transcript)
    get_current_turn = _blocking(EventLogSession.get_current_turn)
    get_conversation_turns = _blocking(EventLogSession.get_conversation_turns)
    find_turns_by_content = _blocking(EventLogSession.find_turns_by_content)
    get_conversation_by_turns = _blocking(EventLogSession.get_conversation_by_turns)
    get_tool_usage = _blocking(EventLogSession.get_tool_usage)
    store_run_usage = _blocking(EventLogSession.store_run_usage)
    get_session_usage = _blocking(EventLogSession.get_session_usage)
    get_turn_usage = _blocking(EventLogSession.get_turn_usage)
    get_usage_stats = _blocking(EventLogSession.get_usage_stats)
    set_metadata = _blocking(EventLogSession.set_metadata)
    update_metadata = _blocking(EventLogSession.update_metadata)
    set_title = _blocking(EventLogSession.set_title)
    get_metadata = _blocking(EventLogSession.get_metadata)
    state = _blocking(EventLogSession.state)
    list_sessions = _blocking(EventLogSession.list_sessions)
    delete_session = _blocking(EventLogSession.delete_session)
    restore_session = _blocking(EventLogSession.restore_session)
    find_items = _blocking(EventLogSession.find_items)
