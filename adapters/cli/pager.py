"""A pager for long output on a terminal, as git has one."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

COMMANDS: Final = {"audit", "branches", "compare", "log", "search", "sessions", "show", "usage"}
"""Commands whose output may be longer than a screen."""

PAGER: Final = "EVENTLOG_PAGER"

width: ContextVar[int | None] = ContextVar("width", default=None)
"""The width of the terminal while a pager has the output, which is then a pipe."""


@contextmanager
def paged(*, is_wanted: bool) -> Iterator[None]:
    """
    Send the output of the block to a pager if it is wanted and stdout is a terminal.

    The pager is EVENTLOG_PAGER, PAGER or less; an empty one or ``cat`` means none. less ends by itself if
    the output fits the screen.
    """
    words = shlex.split(os.environ.get(PAGER, os.environ.get("PAGER", "less")))
    if not is_wanted or not sys.stdout.isatty() or words in ([], ["cat"]):
        yield
        return
    sys.stdout.flush()
    environment = {"LESS": "FRX", "LV": "-c", **os.environ}
    try:
        process = subprocess.Popen(words, stdin=subprocess.PIPE, env=environment)  # noqa: S603
    except OSError:  # it is not installed
        yield
        return
    from rich.console import Console

    columns = Console().width
    assert process.stdin is not None  # noqa: S101 - stdin is a pipe
    terminal = os.dup(sys.stdout.fileno())
    os.dup2(process.stdin.fileno(), sys.stdout.fileno())
    process.stdin.close()
    token = width.set(columns)
    try:
        yield
    finally:
        width.reset(token)
        with suppress(BrokenPipeError):
            sys.stdout.flush()
        os.dup2(terminal, sys.stdout.fileno())
        os.close(terminal)
        process.wait()
