"""
Forks: what the store does before ``os.fork`` and after it, in the parent and in the child.

At the moment of the fork no worker thread exists and no file is open, so that the child inherits neither.
One case is different: a unit of work that forks runs on a worker thread, inside a transaction. That
thread and its connection must stay.
"""

from __future__ import annotations

import functools
import os
import threading
from typing import Protocol
from weakref import WeakSet

_MESSAGE = "eventlog: a unit of work forked; its child process ends here, the transaction is the parent's\n"
_EXIT_STATUS = 70


class Closing(Protocol):
    """What has a file open beside the stores, and closes it for a fork."""

    def before_fork(self) -> None:
        """Close the file, and keep other threads from opening it."""

    def after_fork(self, *, in_child: bool) -> None:
        """Let it be used again."""


_closing: WeakSet[Closing] = WeakSet()
_closed: list[Closing] = []


def close_before(resource: Closing) -> None:
    """Close a resource before each fork, once no unit of a store is running."""
    hook()
    _closing.add(resource)


@functools.cache
def hook() -> None:
    """Close and reopen the resources around forks. What must happen before they close registers later."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(
            before=_close_all,
            after_in_parent=functools.partial(_reopen_all, in_child=False),
            after_in_child=functools.partial(_reopen_all, in_child=True),
        )


def _close_all() -> None:
    _closed[:] = list(_closing)
    for resource in _closed:
        resource.before_fork()


def _reopen_all(*, in_child: bool) -> None:
    for resource in _closed:
        resource.after_fork(in_child=in_child)
    _closed.clear()


_thread_of_unit: int | None = None  # in a child: the thread that runs on inside its parent's unit


def mark_child_of_unit() -> None:
    """Note, in the child, that this thread runs inside a unit of the parent."""
    global _thread_of_unit  # noqa: PLW0603 - a process has one such thread: its first
    _thread_of_unit = threading.get_ident()


def end_child_of_unit() -> None:
    """
    End a forked child that would continue its parent's unit of work; otherwise do nothing.

    The child has a copy of a connection in the middle of a transaction. To commit, to roll back or to
    close it would change the shared memory and the files under the parent, and even a normal exit of
    the interpreter closes it. Only ``os._exit`` leaves the parent's transaction untouched.
    """
    if _thread_of_unit is not None and _thread_of_unit == threading.get_ident():
        os.write(2, _MESSAGE.encode())
        os._exit(_EXIT_STATUS)
