"""A log that is written to, and what its tables then hold."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from agents_eventlog.eventlog import append
from agents_eventlog.projections import Conversations, Usage
from tests.history import dump

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agents_eventlog.eventlog import EventLog, RecordedEvent, Transaction

BOTH = (Conversations(), Usage())


class RefusedError(Exception):
    """A unit of work failed after it had appended."""


def write(log: EventLog, events: Sequence[RecordedEvent], *, fails: bool = False) -> None:
    """Append events in one unit of work, which then may fail."""

    def unit(tx: Transaction) -> None:
        for recorded in events:
            if recorded.event is not None:
                append(tx, recorded.session_id, recorded.event, branch_id=recorded.branch_id)
        if fails:
            raise RefusedError

    try:
        log.store.write_sync(unit)
    except RefusedError:
        assert fails


def rows(log: EventLog) -> dict[str, list[tuple[Any, ...]]]:
    """Return every row of the projections' tables."""
    return log.store.read_sync(lambda tx: dump(tx, BOTH))
