"""What a projection is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, Protocol

from agents_eventlog.eventlog.events import Event
from agents_eventlog.eventlog.recorded_event import RecordedEvent
from agents_eventlog.eventlog.storage.engine import Engine, Table
from agents_eventlog.eventlog.storage.transaction import Transaction


class Projection(Protocol):
    """
    Tables that are computed from events, and can be rebuilt by a replay. Subclass it.

    ``apply`` must be deterministic: it uses no clock and no randomness, and reads only its own tables, so
    that the same events always give the same rows. It gets the events in the order of the log, in batches
    of any size; the size must not change the rows.

    An event with erased content has ``is_erased`` set, and its structure in place of its content: the same
    number of items, of the same types. A projection that stores content also handles ``ContentErased``, and
    deletes the content of those positions from its tables.
    """

    name: ClassVar[str]
    """Unique in the log; ``eventlog replay --projection`` and errors use it."""

    version: ClassVar[int]
    """Increase it when ``apply`` or the tables change; the tables are then rebuilt."""

    schema: ClassVar[Sequence[str]]
    """
    The CREATE TABLE and CREATE INDEX statements. Only primary keys may be unique.

    Columns have the types INTEGER (64 bits), REAL, TEXT and BLOB; each engine spells them its own way.
    """

    handles: ClassVar[Sequence[type[Event]]]
    """The classes of the events that ``apply`` gets."""

    is_built_in_steps: ClassVar[bool] = False
    """Whether readers accept tables that are behind the log, so that writers need not wait for them."""

    def views(self, engine: Engine) -> Mapping[str, str]:
        """Return views to keep beside the tables: the query of each, by its name."""
        return {}

    def apply(self, tx: Transaction, events: Sequence[RecordedEvent]) -> None:
        """Update the tables with these events."""


def names(engine: Engine, projection: Projection) -> list[str]:
    """Return the names of a projection's tables and views."""
    return [
        *(table.name for table in tables(engine, projection)),
        *projection.views(engine),
    ]


def tables(engine: Engine, projection: Projection) -> tuple[Table, ...]:
    """Return a projection's tables, as the engine understands its schema."""
    return engine.tables(tuple(projection.schema))
