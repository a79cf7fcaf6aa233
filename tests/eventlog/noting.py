"""Units of work that write to a table of the test's own, in a log's file."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    from agents_eventlog.eventlog import EventLog, Transaction

TABLE = "CREATE TABLE notes (id INTEGER PRIMARY KEY, text TEXT NOT NULL) STRICT"
NOTE = "INSERT INTO notes VALUES (?, ?)"


def note(number: Any, text: Any = "text") -> Any:
    """Return a unit that writes a row and says so."""

    def unit(tx: Transaction) -> Any:
        tx.execute(NOTE, (number, text))
        return number

    return unit


def written(log: EventLog) -> list[int]:
    """Return which rows there are, in the order in which they were written."""
    rows = log.store.read_sync(lambda tx: tx.all("SELECT id FROM notes ORDER BY rowid"))
    return [number for (number,) in rows]


@contextmanager
def held(log: EventLog) -> Iterator[None]:
    """Keep the writer busy, so that what is asked meanwhile goes into one commit together."""
    started, go_on = threading.Event(), threading.Event()

    def wait(tx: Transaction) -> None:
        started.set()
        go_on.wait(10)

    thread = threading.Thread(target=lambda: log.store.write_sync(wait))
    thread.start()
    started.wait(10)
    try:
        yield
    finally:
        go_on.set()
        thread.join()
