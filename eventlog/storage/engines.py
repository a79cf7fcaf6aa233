"""Which engine a path belongs to: the only place that knows them all."""

from __future__ import annotations

import os

from agents_eventlog.eventlog.storage.engine import Engine
from agents_eventlog.eventlog.storage.sqlite.engine import SQLITE


def engine_for(path: str | os.PathLike[str]) -> Engine:  # noqa: ARG001 - one engine so far
    """Return the engine of a log's path."""
    return SQLITE
