"""A bug of older SQLite versions that matters where several processes write one file."""

from __future__ import annotations

import sqlite3

from agents_eventlog.eventlog._logging import get_logger

FIRST_VERSION = (3, 7, 0)
LAST_VERSION = (3, 51, 2)

DESCRIPTION = (
    "has the WAL-reset bug: connections that write or checkpoint at the same moment can, very rarely, "
    "damage the file"
)
ADVICE = (
    "one writing process is safe. If several write this file (web workers, jobs), run a Python with SQLite "
    "3.51.3 or newer (python.org, uv, conda-forge), write from one process, or move to PostgreSQL"
)

_warned: set[str] = set()


def is_in(version: tuple[int, ...] = sqlite3.sqlite_version_info) -> bool:
    """Whether this version of SQLite has the bug."""
    return FIRST_VERSION <= version <= LAST_VERSION


def warn(path: str) -> None:
    """Log a warning, once per process and file, that another process writes the file."""
    if is_in() and path not in _warned:
        _warned.add(path)
        get_logger("eventlog.store").warning(
            "store.several_writers",
            path=path,
            problem=f"another connection writes this file, and SQLite {sqlite3.sqlite_version} "
            f"{DESCRIPTION}",
            advice=ADVICE,
        )
