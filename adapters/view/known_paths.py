"""The paths of the sessions that were looked at last, which stay in memory; they hold no content."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Final

from agents_eventlog.eventlog.storage.transaction import Transaction
from agents_eventlog.projections.conversations.paths import Paths

KEPT_SESSIONS: Final = 8


class KnownPaths:
    """The paths of some sessions. Units of work call it, which may run in several threads."""

    def __init__(self) -> None:
        self._paths: OrderedDict[str, Paths] = OrderedDict()
        self._lock = threading.Lock()

    def has(self, session_id: str) -> bool:
        """Whether the paths of a session are in memory."""
        return session_id in self._paths

    def read(self, tx: Transaction, session_id: str) -> Paths:
        """Return the paths of a session, up to its last event."""
        with self._lock:
            paths = self._paths.pop(session_id, None) or Paths()
            paths.catch_up(tx, session_id)
            self._paths[session_id] = paths
            while len(self._paths) > KEPT_SESSIONS:
                self._paths.popitem(last=False)
            return paths
