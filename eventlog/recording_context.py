"""Metadata that the calling code binds, and that is recorded with each event."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

from agents_eventlog.eventlog.errors import InvalidEventError
from agents_eventlog.eventlog.events import JSON

RESERVED = frozenset({"events_in_append", "imported", "occurred_at"})
"""Names in an event's metadata that only the log itself writes: it reads them back."""

_EMPTY: Mapping[str, JSON] = {}
_recorded: ContextVar[Mapping[str, JSON]] = ContextVar("eventlog_recording", default=_EMPTY)


@contextmanager
def recording(**values: JSON) -> Iterator[None]:
    """
    Record these values in the metadata of every event appended inside the block.

    Any JSON value under any name but ``occurred_at``, ``imported`` and ``events_in_append``, which the
    log itself writes; usual are ``actor``, ``trace_id``, ``run_id``, ``source``. Blocks nest, and the
    inner ones win; None removes a name. Tasks started inside the block inherit it.

    Raises InvalidEventError (a ValueError) for a reserved name.
    """
    if reserved := sorted(RESERVED & values.keys()):
        raise InvalidEventError(
            f"invalid name {reserved[0]!r}: the log itself records under it; choose another"
        )
    merged = {**_recorded.get(), **values}
    token = _recorded.set({name: value for name, value in merged.items() if value is not None})
    try:
        yield
    finally:
        _recorded.reset(token)


def recorded_values() -> Mapping[str, JSON]:
    """Return the values bound by the surrounding ``recording`` blocks."""
    return _recorded.get()
