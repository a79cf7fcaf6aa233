"""What the store needs of a connection, for any database."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from agents_eventlog.eventlog.storage.transaction import Cache

T = TypeVar("T")


class Connection(Protocol):
    """A connection that opens when first used and opens again after it was closed."""

    def get(self) -> Any:
        """Return what statements run on, opened if necessary."""

    def begin(self) -> Cache:
        """Begin a transaction; return its cache, without rows that another connection may have changed."""

    def commit(self) -> None:
        """Commit the transaction."""

    def clear_cache(self) -> None:
        """Forget the cached rows."""

    def roll_back(self) -> None:
        """Leave the transaction, if there is one; close the connection where that fails."""

    def close(self) -> None:
        """Close the connection; the next use opens another."""

    def abandon(self) -> None:
        """Refuse further use, in a child, of a connection whose transaction is the parent's."""

    def is_own(self, error: BaseException) -> bool:
        """Whether an error came from the database, so that its transaction may be gone."""

    def may_repeat(self, error: BaseException, attempt: int) -> bool:
        """Whether a transaction that failed with this error has no effect and may succeed if repeated."""

    def translated(self, error: BaseException) -> BaseException:
        """Return the documented error for one of the database's; other errors unchanged."""

    def call(self, function: Callable[[Any], T]) -> T:
        """Run a function on the connection, outside of any transaction."""
