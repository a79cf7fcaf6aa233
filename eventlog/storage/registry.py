"""One store per log and process, however many objects and sessions use it."""

from __future__ import annotations

import atexit

# Its fork hook takes a lock. Hooks run in reverse, so it has to be registered before ours: otherwise a
# thread that waits in ours holds that lock, and a unit that forks meanwhile waits for it.
import concurrent.futures.thread  # noqa: F401
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from weakref import WeakSet

from agents_eventlog.eventlog.storage import fork
from agents_eventlog.eventlog.storage.engine import MEMORY, Durability
from agents_eventlog.eventlog.storage.store import BaseStore


@dataclass
class Limits:
    """What ``configure`` sets."""

    idle_files: int = 8
    busy_timeout_seconds: float = 5.0


limits = Limits()


EXIT_TIMEOUT_SECONDS = 2.0
"""How long a program that ends waits for its stores to finish."""


class _Entry:
    """A file's store and its users."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.store: BaseStore | None = None
        self.users: WeakSet[Any] = WeakSet()


_entries: dict[str, _Entry] = {}
_all: WeakSet[BaseStore] = WeakSet()
_closing: set[BaseStore] = (
    set()
)  # in the background; a fork and the end of the program wait for them
_guard = threading.Lock()
_hooked = False


def acquire(
    path: str,
    *,
    user: object,
    durability: Durability,
    prepare: Callable[[BaseStore, bool], None],
    create: Callable[[], BaseStore],
) -> BaseStore:
    """
    Return the path's store, opened if necessary, and register its user.

    create: returns a new store of the path.

    ``prepare(store, is_new)`` makes the file ready for the user; other openings of the same file wait. If
    it raises, a store that was opened for it is closed again.
    """
    _hook()
    if path == MEMORY:
        return private(create(), lambda store: prepare(store, True))
    with _guard:
        entry = _entries[path] = _entries.pop(path, _Entry())  # in the order of last use
        entry.users.add(user)
    try:
        store = _opened(entry, durability, prepare, create)
    except BaseException:
        with _guard:
            entry.users.discard(user)  # the error's traceback may keep the user alive
        raise
    with _guard:
        _close_idle()
        excess = list(_closing)[: max(0, len(_closing) - limits.idle_files)]
    for (
        closing
    ) in excess:  # files are opened faster than closed: wait, or they might become too many
        closing.close()
    return store


def _opened(
    entry: _Entry,
    durability: Durability,
    prepare: Callable[[BaseStore, bool], None],
    create: Callable[[], BaseStore],
) -> BaseStore:
    with entry.lock:
        if entry.store is not None and not entry.store.is_current:
            entry.store.close()
            entry.store = None
        if entry.store is None:
            entry.store = private(create(), lambda store: prepare(store, True))
            entry.store.note_identity()
        else:
            entry.store.strengthen(durability)
            prepare(entry.store, False)
        return entry.store


def private(store: BaseStore, prepare: Callable[[BaseStore], None]) -> BaseStore:
    """Prepare a store that is not shared; it is closed again when that fails."""
    _hook()
    with _guard:
        _all.add(store)  # before it does anything, so that a fork waits for what it does
    try:
        prepare(store)
    except BaseException:
        store.close()
        raise
    return store


def release(store: BaseStore, user: object) -> None:
    """Unregister a user; the last one closes the store."""
    if store.is_memory:
        store.close()
        return
    with _guard:
        entry = _entries.get(store.path)
        if entry is None:
            return
        entry.users.discard(user)
    with entry.lock:
        if entry.store is store and not entry.users:
            entry.store = None
            store.close()


def _close_idle() -> None:
    """Close the surplus of idle stores, in the background. The guard is held."""
    _closing.difference_update([store for store in _closing if not store.is_working])
    idle = [entry for entry in _entries.values() if entry.store and not entry.users]
    for entry in idle[: max(0, len(idle) - limits.idle_files)]:
        if entry.lock.acquire(blocking=False):  # or it is just being opened
            try:
                if entry.store is not None:
                    entry.store.begin_close()
                    _closing.add(entry.store)
                    entry.store = None
            finally:
                entry.lock.release()
    for path in [path for path, entry in _entries.items() if not (entry.store or entry.users)]:
        if not _entries[path].lock.locked():
            del _entries[path]


# -- the process's life -----------------------------------------------------------------------


def _hook() -> None:
    global _hooked  # noqa: PLW0603 - hooks cannot be unregistered
    with _guard:
        if _hooked:
            return
        _hooked = True
    atexit.register(_at_exit)
    fork.hook()  # before ours: hooks run last to first, and no unit may run when its keys are closed
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(
            before=_before_fork,
            after_in_parent=_after_fork_in_parent,
            after_in_child=_after_fork_in_child,
        )


def _all_stores() -> list[BaseStore]:
    with _guard:
        return list(_all)


def _at_exit() -> None:
    for store in _all_stores():
        store.close(EXIT_TIMEOUT_SECONDS)


_forking: list[BaseStore] = []


def _before_fork() -> None:
    # The guard is not held while this waits: a unit of one of the stores may fork, too, and this thread
    # waits for that unit.
    paused: list[BaseStore] = []
    while True:
        for store in _all_stores():
            if store not in paused:
                store.begin_pause()
                paused.append(store)
        for store in paused:
            store.finish_pause()
        _guard.acquire()  # held until the fork is done, so that no store is added
        if all(store in paused for store in _all):
            break
        _guard.release()
    _forking[:] = paused


def _after_fork_in_parent() -> None:
    for store in _forking:
        store.after_fork_in_parent()
    _forking.clear()
    _guard.release()


def _after_fork_in_child() -> None:
    for store in _forking:
        store.after_fork_in_child()
    _forking.clear()
    _closing.clear()
    for entry in _entries.values():
        entry.lock = threading.Lock()  # a thread that the child lacks may have held it
    _guard.release()
