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
    Tables that a builder derives from events; a replay can rebuild them. Subclass it.

    A builder is deterministic: no clock, no randomness, no reading outside its own tables, so that the
    same events always give the same rows. It is given its events in the order of the log, one at a
    time or thousands, and must not care how they are cut into batches.

    An event whose content was erased has its structure in place of its content, and ``is_erased`` is
    true: the same number of items, of the same kinds. A builder that keeps content also handles
    ``ContentErased``, and removes what its tables hold of those positions.
    """

    name: ClassVar[str]
    """Under which its checkpoint is kept."""

    version: ClassVar[int]
    """Bump it when the builder or its tables change; the tables are then replayed."""

    schema: ClassVar[Sequence[str]]
    """
    The CREATE TABLE and CREATE INDEX statements. Only primary keys may be unique.

    Columns have the types INTEGER (64 bits), REAL, TEXT and BLOB; each engine spells them its own way.
    """

    handles: ClassVar[Sequence[type[Event]]]
    """The events it wants to see."""

    is_built_in_steps: ClassVar[bool] = False
    """Whether its readers cope with tables that show less than the log, so that writers need not wait."""

    def views(self, engine: Engine) -> Mapping[str, str]:
        """Return views to keep beside the tables: the query of each, by its name."""
        return {}

    def apply(self, tx: Transaction, events: Sequence[RecordedEvent]) -> None:
        """Change the tables by what these events say."""


def names(engine: Engine, projection: Projection) -> list[str]:
    """Return the names of a projection's tables and views."""
    return [
        *(table.name for table in tables(engine, projection)),
        *projection.views(engine),
    ]


def tables(engine: Engine, projection: Projection) -> tuple[Table, ...]:
    """Return a projection's tables, as the engine understands its schema."""
    return engine.tables(tuple(projection.schema))
