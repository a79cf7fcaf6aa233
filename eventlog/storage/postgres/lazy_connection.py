"""A connection's life: it opens when first used, and again after it was lost."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, TypeVar

import psycopg

from agents_eventlog.eventlog.storage import fork, registry
from agents_eventlog.eventlog.storage.postgres import connections, hints
from agents_eventlog.eventlog.storage.postgres.connections import (
    Connection,
    LostCommitError,
    LostConnectionError,
)
from agents_eventlog.eventlog.storage.postgres.locks import Claim
from agents_eventlog.eventlog.storage.transaction import Cache

T = TypeVar("T")

PAUSE_SECONDS: Final = 0.05
"""How long a transaction waits before it is repeated, at most, the first time."""

OUTCOME_TIMEOUT_SECONDS: Final = 30.0
"""How long the outcome of a commit is looked for after its connection was lost."""


class LazyConnection:
    """A connection that opens when first used, and a cache for each of its transactions."""

    def __init__(
        self,
        path: str,
        connect: Callable[[], Connection],
        begin: str,
        *,
        pipelined: bool = False,
        hints_for: str | None = None,
    ) -> None:
        self.path = path
        self.connect = connect
        self._begin = begin
        self._pipelined = pipelined
        self._hints_for = hints_for  # the schema whose subscribers in other processes get hints
        self._hinted_at = -math.inf
        self._changes_before = 0
        self._connection: Connection | None = None
        self._cache = Cache()
        self._repeat_until = 0.0
        self._is_in_transaction = False
        self._is_outdated = False
        self._left_open: str | None = None  # a transaction whose connection was lost

    def replace(self, connect: Callable[[], Connection]) -> None:
        """Use another connection from the next transaction on. May be called in any thread."""
        self.connect, self._is_outdated = connect, True

    def get(self) -> Connection:
        """Return the connection, opened if necessary."""
        if self._is_outdated and not self._is_in_transaction:
            self._is_outdated = False
            self.close()
        if self._connection is None:
            self._connection = self.connect()
            if self._left_open is not None:
                # The server may not have noticed yet, and would keep the locks of that transaction.
                self._connection.execute(END, (self._left_open,))
                self._left_open = None
        return self._connection

    def begin(self) -> Cache:
        """Begin a transaction; return an empty cache: other servers may have changed any row."""
        connection = self.get()
        connection.claim = None
        self._changes_before = connection.total_changes
        if self._pipelined:
            connection.begin_pipeline()
        connection.begin(self._begin)
        self._is_in_transaction = True
        self._cache = Cache()
        return self._cache

    def commit(self) -> None:
        """Commit the transaction; find out whether that took effect if the connection is lost meanwhile."""
        connection = self.get()
        outcome = None
        try:
            outcome = connection.execute("COMMIT")
            self._hint(connection)
            connection.end_pipeline()
            self._is_in_transaction = False
        except psycopg.Error as error:
            if outcome is not None and outcome.statusmessage == "COMMIT":
                self.roll_back()  # only the hint failed
                return
            if not connection.is_lost or connection.claim is None:
                raise
            if not self._has_committed(connection.claim):
                raise LostConnectionError(str(error)) from error

    def _hint(self, connection: Connection) -> None:
        """Send a hint with the commit of a transaction that wrote, unless one was sent just before."""
        now = time.monotonic()
        if self._hints_for is None or connection.total_changes == self._changes_before:
            return
        if now - self._hinted_at >= hints.HINT_SECONDS:
            self._hinted_at = now
            connection.execute(hints.HINT, (hints.CHANNEL, self._hints_for))

    @property
    def process_id(self) -> int | None:
        """The server's process of the open connection, or None."""
        connection = self._connection
        return None if connection is None else connection.process_id

    def _has_committed(self, claim: Claim) -> bool:
        """Ask the server about a transaction until it is over. Raises LostCommitError if it cannot say."""
        self.close()
        deadline = time.monotonic() + OUTCOME_TIMEOUT_SECONDS
        while time.monotonic() < deadline:
            try:
                status = self._status(claim.transaction_id)
                if status != "in progress" and claim.appended is not None:
                    # The events are the proof: after a failover, the number may be another transaction's.
                    return self.get().ask(APPENDED, claim.appended) is not None
                if status in ("committed", "aborted"):
                    return status == "committed"
                # The server waits for a client that does not exist any more.
                self.get().execute(END, (claim.transaction_id,))
            except psycopg.OperationalError:
                self.close()  # the server may be starting
            time.sleep(PAUSE_SECONDS)
        raise LostCommitError("the outcome of the transaction is unknown")

    def _status(self, transaction_id: str) -> str | None:
        """Return the status of a transaction; None if the server has forgotten it."""
        try:
            ((status,),) = self.get().execute(OUTCOME, (transaction_id,))
        except psycopg.errors.InvalidParameterValue:
            return (
                "aborted"  # it is in the future: a replica became the server, and does not have it
            )
        return None if status is None else str(status)

    def call(self, function: Callable[[Any], T]) -> T:
        """Run a function on the connection, outside of any transaction."""
        return function(self.get())

    def is_own(self, error: BaseException) -> bool:
        """Whether an error came from PostgreSQL, so that the transaction is gone."""
        return isinstance(error, psycopg.Error)

    def may_repeat(self, error: BaseException, attempt: int) -> bool:
        """Whether a transaction that failed with this error has no effect and may succeed if repeated."""
        if not isinstance(error, psycopg.Error) or isinstance(error, LostCommitError):
            return False
        now = time.monotonic()
        if attempt == 1:
            self._repeat_until = now + registry.limits.busy_timeout_seconds
        is_repeatable = connections.is_repeatable(error)
        if not is_repeatable and not _is_lost(error):
            return False
        if now >= self._repeat_until:
            return False
        if attempt > 1 or is_repeatable:
            time.sleep(random.uniform(0, PAUSE_SECONDS * min(attempt, 10)))  # noqa: S311
        return True

    def translated(self, error: BaseException) -> BaseException:
        """Return the documented error for one of PostgreSQL's; other errors unchanged."""
        return connections.translated(error, self.path)

    def clear_cache(self) -> None:
        """Forget the cached rows."""
        self._cache.clear()

    def roll_back(self) -> None:
        """Leave the transaction, if there is one; close the connection where that fails."""
        fork.end_child_of_unit()
        self._cache.clear()
        self._is_in_transaction = False
        if self._connection is None:
            return
        with suppress(psycopg.Error):  # it was raised before
            self._connection.end_pipeline()
        try:
            self._connection.raw.rollback()
        except psycopg.Error:
            claim = self._connection.claim
            self._left_open = None if claim is None else claim.transaction_id
            self.close()

    def close(self) -> None:
        """Close the connection; the next use opens another."""
        self._cache.clear()
        self._is_in_transaction = False
        if self._connection is not None:
            connection, self._connection = self._connection, None
            connection.close()

    def abandon(self) -> None:
        """Refuse further use, in a child, of a connection whose transaction is the parent's."""
        self._connection = None
        self._cache.clear()


OUTCOME: Final = "SELECT pg_xact_status(CAST(? AS xid8))"
APPENDED: Final = "SELECT 1 FROM events WHERE position = ? AND digest = ?"
END: Final = """
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE backend_xid = CAST(CAST(? AS xid8) AS xid)
"""


def _is_lost(error: psycopg.Error) -> bool:
    """Whether the connection was lost before the commit: the server then rolls the transaction back."""
    if isinstance(error, LostConnectionError):
        return True
    state = error.sqlstate or ""
    return isinstance(error, psycopg.OperationalError) and (
        not state or state.startswith(("08", "57P"))
    )
