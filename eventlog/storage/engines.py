"""Which engine a path belongs to: the only place that knows them all."""

from __future__ import annotations

import os

from agents_eventlog.eventlog.storage import registry
from agents_eventlog.eventlog.storage.engine import Engine
from agents_eventlog.eventlog.storage.sqlite import connections
from agents_eventlog.eventlog.storage.sqlite.engine import SQLITE

POSTGRES = ("postgresql://", "postgres://")
"""How the URL of a PostgreSQL database begins."""


def engine_for(path: str | os.PathLike[str]) -> Engine:
    """Return the engine of a log's path."""
    if os.fspath(path).startswith(POSTGRES):
        from agents_eventlog.eventlog.storage.postgres.engine import POSTGRES_ENGINE  # an extra

        return POSTGRES_ENGINE
    return SQLITE


def configure(*, idle_files: int | None = None, busy_timeout_seconds: float | None = None) -> None:
    """
    Set limits of this process; None leaves a limit unchanged.

    idle_files: how many files stay open after their last log or session object is gone (default 8), so that
        opening them again is fast. With a file for each tenant, pass the number of active tenants.
    busy_timeout_seconds: how long a statement waits for another process's lock before it raises BusyError
        (default 5). Applies to files that are opened afterwards.

    Raises ValueError for a negative number.
    """
    if idle_files is not None:
        if idle_files < 0:
            raise ValueError(f"invalid idle_files: expected 0 or more, got {idle_files}")
        registry.limits.idle_files = idle_files
    if busy_timeout_seconds is not None:
        if busy_timeout_seconds < 0:
            raise ValueError(
                f"invalid busy_timeout_seconds: expected 0 or more, got {busy_timeout_seconds}"
            )
        connections.BUSY_TIMEOUT_SECONDS = busy_timeout_seconds
        registry.limits.busy_timeout_seconds = busy_timeout_seconds
