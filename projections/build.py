"""How projections are built: their tables, their checkpoints, and events applied to them in order."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from agents_eventlog.eventlog import codec
from agents_eventlog.eventlog.appender import PAGE_EVENTS, read_events
from agents_eventlog.eventlog.cursor import Cursor
from agents_eventlog.eventlog.errors import ProjectionError
from agents_eventlog.eventlog.properties import get_property, set_property
from agents_eventlog.eventlog.recorded_event import RecordedEvent
from agents_eventlog.eventlog.storage.transaction import Transaction
from agents_eventlog.projections import base
from agents_eventlog.projections.base import Projection

CHECKPOINTS = "SELECT projection, version, position FROM checkpoints"
SET_CHECKPOINT = """
    INSERT INTO checkpoints (projection, version, position) VALUES (?, ?, ?)
    ON CONFLICT (projection) DO UPDATE SET version = excluded.version, position = excluded.position
"""
BUILD_AGAIN = "UPDATE checkpoints SET version = 0, position = 0 WHERE projection = ?"
MAKERS = "table_makers"
"""The property that remembers, as a JSON object, which projection made which table."""


class Checkpoint(NamedTuple):
    """Up to which position, and by which version of the builder, a projection was built."""

    version: int
    position: int


@dataclass
class Built:
    """What a connection remembers of checkpoints."""

    to: object = None  # which projections are built up to which position
    is_all: bool = False  # whether there are no other checkpoints than theirs
    fresh: object = None  # the projections that show all that the log holds, to a reader

    def __len__(self) -> int:
        return 1


def usable_to(checkpoint: Checkpoint | None, projection: Projection) -> int:
    """Return the position up to which this version of a projection can use its tables."""
    if checkpoint is None or checkpoint.version < projection.version:
        return 0
    return checkpoint.position


def checkpoints(tx: Transaction) -> dict[str, Checkpoint]:
    """Return every projection's checkpoint."""
    return {name: Checkpoint(version, at) for name, version, at in tx.execute(CHECKPOINTS)}


def set_checkpoint(tx: Transaction, projection: Projection, position: int) -> None:
    """Store the position up to which a projection is built."""
    tx.cache[Built].is_all = False  # a checkpoint of another program may not advance
    tx.execute(SET_CHECKPOINT, (projection.name, projection.version, position))


def delete_checkpoint(tx: Transaction, name: str) -> None:
    """Forget how far a projection is built; the next writer that maintains it builds it again."""
    tx.execute("DELETE FROM checkpoints WHERE projection = ?", (name,))


def create_tables(tx: Transaction, projection: Projection, *, replace: bool) -> None:
    """
    Make a projection's tables and views; ``replace`` also drops all of an earlier build.

    Raises ProjectionError if another program's table has the same name.
    """
    names = base.names(tx.engine, projection)
    makers: dict[str, str] = json.loads(get_property(tx, MAKERS) or "{}")
    earlier = {name for name, maker in makers.items() if maker == projection.name}
    # A view that it made has no rows to lose, also where a program deleted the checkpoint.
    views = earlier & set(projection.views(tx.engine))
    for name in sorted({*names, *earlier} if replace else views):
        tx.engine.drop(tx, name)
    present = tx.engine.table_names(tx)
    for name in names:
        if name in present:
            raise ProjectionError(
                f"table {name!r} already exists, and projection {projection.name!r} did not create it",
                projection=projection.name,
            )
    for statement in projection.schema:
        tx.execute(tx.engine.create_statement(statement))
    for name, query in projection.views(tx.engine).items():
        tx.execute(f'CREATE VIEW "{name}" AS {query}')
    others = {name: maker for name, maker in makers.items() if name not in earlier}
    for name, maker in others.items():
        if name not in present:  # a view that the engine dropped with a table that it reads
            tx.execute(BUILD_AGAIN, (maker,))
    made = {**others, **dict.fromkeys(names, projection.name)}
    set_property(tx, MAKERS, json.dumps(made, sort_keys=True))


def empty_tables(tx: Transaction, projection: Projection) -> None:
    """Delete the rows of a projection that is to be built again, by a role that may not create tables."""
    for table in base.tables(tx.engine, projection):
        tx.execute(f'DELETE FROM "{table.name}"')


def catch_up(tx: Transaction, projections: Collection[Projection], position: int) -> None:
    """Apply all events after a position, in a unit of work."""
    cursor = Cursor(tx.engine.lanes, position)
    while page := read_events(tx, cursor, limit=PAGE_EVENTS):
        apply(tx, projections, page)
        cursor.advance(recorded.position for recorded in page)


def apply(
    tx: Transaction, projections: Collection[Projection], events: Sequence[RecordedEvent]
) -> None:
    """
    Apply a batch of events: each projection sees those that it handles, erased ones by their structure.

    Raises UndecodableEventError for an event of a newer release; nothing is skipped in silence.
    """
    for recorded in events:
        codec.check_known(recorded.type, recorded.schema_version, position=recorded.position)
    events = [recorded.outlined() for recorded in events]
    for projection in projections:
        wanted = {kind.type_name() for kind in projection.handles}
        batch = [recorded for recorded in events if recorded.type in wanted]
        if batch:
            projection.apply(tx, batch)
