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
    Record these values in the metadata of every event appended inside the ``with`` block.

    values: JSON values, for example ``actor="alice"``, ``trace_id=...``, ``source=...``. The names
        ``occurred_at``, ``imported`` and ``events_in_append`` are reserved for the log. In nested blocks,
        the inner value applies; None removes a name.

    Tasks started inside the block inherit the values. Raises InvalidEventError (a ValueError) for a
    reserved name, and UnserialisableError (a TypeError) from the append for a value that is not JSON.
    """
    if reserved := sorted(RESERVED & values.keys()):
        raise InvalidEventError(
            f"reserved name {reserved[0]!r}: the log itself writes it; choose another name"
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
