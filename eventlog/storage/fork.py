"""
Forks: what the store does before ``os.fork`` and after it, in the parent and in the child.

At the moment of the fork no worker thread exists and no file is open, so that the child inherits neither.
One case is different: a unit of work that forks runs on a worker thread, inside a transaction. That
thread and its connection must stay.
"""

from __future__ import annotations

import os
import threading

_MESSAGE = "eventlog: a unit of work forked; its child process ends here, the transaction is the parent's\n"
_EXIT_STATUS = 70

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
