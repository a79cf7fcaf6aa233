"""How projections are built: their tables, their checkpoints, and events applied to them in order."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from agents_eventlog.eventlog import codec
from agents_eventlog.eventlog.appender import PAGE_EVENTS, complete_checkpoint, read_events
from agents_eventlog.eventlog.cursor import Cursor
from agents_eventlog.eventlog.errors import ProjectionError
from agents_eventlog.eventlog.properties import get_property, set_property
from agents_eventlog.eventlog.recorded_event import RecordedEvent
from agents_eventlog.eventlog.storage.engine import Engine
from agents_eventlog.eventlog.storage.transaction import Transaction
from agents_eventlog.projections import base
from agents_eventlog.projections.base import Projection

CHECKPOINTS = "SELECT projection, version, position, {complete} FROM checkpoints"
SET_CHECKPOINT = """
    INSERT INTO checkpoints (projection, version, position) VALUES (?, ?, ?)
    ON CONFLICT (projection) DO UPDATE SET version = excluded.version, position = excluded.position
"""
RENAME_CHECKPOINT = "UPDATE checkpoints SET projection = ? WHERE projection = ?"
BUILD_AGAIN = "UPDATE checkpoints SET version = 0, position = 0 WHERE projection = ?"
INDEX: Final = re.compile(
    r"\bCREATE\s+(?:UNIQUE\s+)?INDEX\s+(?:IF\s+NOT\s+EXISTS\s+)?[\"'`]?(\w+)", re.IGNORECASE
)
MAKERS = "table_makers"
"""The property that remembers, as a JSON object, which projection made which table."""

OF_VERSION: Final = re.compile(r"(.+)__v([0-9]+)")
"""
The name of a checkpoint, and of tables, of a version that is not the main one.

The highest version has the plain names. Other versions live beside it, for programs that use them during a
deploy: each program keeps its own version's tables up to date, and leaves the others behind.
"""


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
    names: dict[str, str] = field(default_factory=dict)  # of checkpoints without the plain name
    suffixes: frozenset[tuple[str, str]] = frozenset()  # of their tables, views and indexes

    def __len__(self) -> int:
        return 1


def usable_to(checkpoint: Checkpoint | None, projection: Projection) -> int:
    """Return the position up to which this version of a projection can use its tables."""
    if checkpoint is None or checkpoint.version < projection.version:
        return 0
    return checkpoint.position


def stored_checkpoints(tx: Transaction) -> dict[str, Checkpoint]:
    """Return the checkpoint of every version of a projection that has tables."""
    return _stored(tx)[0]


def _stored(tx: Transaction) -> tuple[dict[str, Checkpoint], int]:
    """Return all checkpoints, and that of a projection that shows all events."""
    rows = tx.all(CHECKPOINTS.format(complete=tx.engine.complete_checkpoint))
    found = {name: Checkpoint(version, position) for name, version, position, _ in rows}
    return found, rows[0][3] if rows else complete_checkpoint(tx)


def checkpoints(tx: Transaction) -> dict[str, Checkpoint]:
    """Return every projection's checkpoint: of several versions, that of the one that this program uses."""
    found = stored_checkpoints(tx)
    return {name: own for name in found if (own := found.get(checkpoint_name(tx, name)))}


def checkpoint_name(tx: Transaction, name: str) -> str:
    """Return the name of the checkpoint that a projection has in this transaction."""
    return tx.cache[Built].names.get(name, name)


def use_own_tables(
    tx: Transaction, projections: Iterable[Projection]
) -> tuple[dict[str, Checkpoint], int]:
    """
    Let statements use the tables of these versions, where a newer program's tables have the plain names.

    Returns all checkpoints, and that of a projection that shows all events.
    """
    found, complete = _stored(tx)
    chosen = list(projections)
    newer = {p.name for p in chosen if found.get(p.name, Checkpoint(0, 0)).version > p.version}
    built = tx.cache[Built]
    for projection in chosen:
        if projection.name in newer and projection.schema:
            suffix = _suffix(projection.version)
            built.names[projection.name] = projection.name + suffix
            built.suffixes |= {(name, suffix) for name in _all_names(tx.engine, projection)}
    tx.suffixes = built.suffixes
    return found, complete


def is_left_to_newer(
    tx: Transaction, projection: Projection, stored: Mapping[str, Checkpoint]
) -> bool:
    """Whether a projection is views alone, and those of a newer program have the plain names."""
    version = stored.get(projection.name, Checkpoint(0, 0)).version
    is_older = bool(tx.cache[Built].names) or version > projection.version
    return is_older and not projection.schema


def _suffix(version: int) -> str:
    return f"__v{version}"


def _all_names(engine: Engine, projection: Projection) -> Iterator[str]:
    """Return the names of a projection's tables, views and indexes, in lower case."""
    for statement in projection.schema:
        yield from (name.lower() for name in INDEX.findall(engine.create_statement(statement)))
    yield from (name.lower() for name in base.names(engine, projection))


def set_checkpoint(tx: Transaction, projection: Projection, position: int) -> None:
    """Store the position up to which a projection is built."""
    tx.cache[Built].is_all = False  # a checkpoint of another program may not advance
    name = checkpoint_name(tx, projection.name)
    tx.execute(SET_CHECKPOINT, (name, projection.version, position))


def delete_checkpoint(tx: Transaction, name: str) -> None:
    """Forget how far a projection is built; the next writer that maintains it builds it again."""
    tx.execute("DELETE FROM checkpoints WHERE projection = ?", (name,))


def create_tables(tx: Transaction, projection: Projection, *, replaced: Checkpoint | None) -> None:
    """
    Make a projection's tables and views.

    replaced: the checkpoint of an earlier build. The tables of a lower version are kept under other names,
        for programs that still use it; those of the same version are dropped.

    Raises ProjectionError if another program's table has the same name.
    """
    maker_name = checkpoint_name(tx, projection.name)
    names = [tx.name_of(name) for name in base.names(tx.engine, projection)]
    if replaced is not None and 0 < replaced.version < projection.version:
        _keep_for_older_programs(tx, maker_name, replaced.version)
    makers = _makers(tx)
    earlier = {name for name, maker in makers.items() if maker == maker_name}
    # A view that it made has no rows to lose, also where a program deleted the checkpoint.
    views = earlier & {tx.name_of(name) for name in projection.views(tx.engine)}
    for name in sorted({*names, *earlier} if replaced is not None else views):
        tx.engine.drop(tx, name)
        if makers.get(name, maker_name) != maker_name:
            tx.execute(BUILD_AGAIN, (makers[name],))
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
    _set_makers(tx, {**others, **dict.fromkeys(names, maker_name)})


def _makers(tx: Transaction) -> dict[str, str]:
    makers: dict[str, str] = json.loads(get_property(tx, MAKERS) or "{}")
    return makers


def _set_makers(tx: Transaction, makers: Mapping[str, str]) -> None:
    set_property(tx, MAKERS, json.dumps(makers, sort_keys=True))


def _keep_for_older_programs(tx: Transaction, name: str, version: int) -> None:
    """Rename the tables and the checkpoint of a version of a projection. One of views alone is dropped."""
    suffix = _suffix(version)
    drop_tables(tx, name + suffix)
    makers = _makers(tx)
    made = [table for table, maker in makers.items() if maker == name]
    kept = tx.engine.keep_tables(tx, made, suffix)
    others = {table: maker for table, maker in makers.items() if maker != name}
    makers = {**others, **{table + suffix: name + suffix for table in kept}}
    _set_makers(tx, makers)
    if name + suffix in makers.values():
        tx.execute(RENAME_CHECKPOINT, (name + suffix, name))


def drop_tables(tx: Transaction, name: str) -> None:
    """Drop the tables and the checkpoint of a projection, or of ``name__v1``, a version of it."""
    makers = _makers(tx)
    for table in [table for table, maker in makers.items() if maker == name]:
        tx.engine.drop(tx, table)
        del makers[table]
    _set_makers(tx, makers)
    delete_checkpoint(tx, name)


def other_versions(tx: Transaction, projection: str) -> dict[str, Checkpoint]:
    """Return the checkpoints of the versions of a projection that this program does not use."""
    own = checkpoint_name(tx, projection)
    return {
        name: checkpoint
        for name, checkpoint in stored_checkpoints(tx).items()
        if name != own and plain_name(name) == projection
    }


def plain_name(name: str) -> str:
    """Return the name of the projection that a checkpoint is of."""
    found = OF_VERSION.fullmatch(name)
    return name if found is None else found[1]


def drop_other_versions(tx: Transaction, projections: Iterable[str] | None = None) -> None:
    """
    Drop the tables of versions that this program does not use; programs that do build them again.

    projections: names; None for all.
    """
    own, tx.suffixes = tx.suffixes, frozenset()
    if projections is None:
        projections = {plain_name(name) for name in stored_checkpoints(tx)}
    for projection in projections:
        for name in other_versions(tx, projection):
            drop_tables(tx, name)
    tx.suffixes = own


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
