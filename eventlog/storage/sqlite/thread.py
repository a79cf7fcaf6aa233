"""
The thread of a SQLite connection: the only place that reaches into aiosqlite.

aiosqlite's own calls resolve asyncio futures from its thread, and die with it when a loop closes while
an operation of that loop is pending. Only its thread and queue are used here.
"""

from __future__ import annotations

import sqlite3

from aiosqlite import core

from agents_eventlog.eventlog.storage.thread import Function, Running


def _no_connector() -> sqlite3.Connection:
    raise RuntimeError("the store opens its connections itself")


def _stop() -> object:
    return core._STOP_RUNNING_SENTINEL  # noqa: SLF001


def start_thread(name: str) -> Running:
    """Start the thread of a connection of aiosqlite's that never connects."""
    connection = core.Connection(_no_connector, iter_chunk_size=64)
    queue = connection._tx  # noqa: SLF001
    thread = connection._thread  # noqa: SLF001
    thread.daemon = True
    thread.name = name
    thread.start()

    def put(function: Function) -> None:
        queue.put_nowait((None, function))

    return Running(thread, put, lambda: queue.put_nowait((None, _stop)))
