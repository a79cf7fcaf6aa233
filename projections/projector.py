"""Keeps projections up to date: with each append, and with what others appended."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from agents_eventlog.eventlog import _logging, codec
from agents_eventlog.eventlog.appender import (
    PAGE_EVENTS,
    ledger,
    read_events,
    read_head,
)
from agents_eventlog.eventlog.erased_shapes import Structures
from agents_eventlog.eventlog.errors import (
    NewerProjectionError,
    ProjectionError,
    StaleProjectionError,
    UnknownProjectionError,
)
from agents_eventlog.eventlog.properties import get_property, set_property
from agents_eventlog.eventlog.recorded_event import Recorded
from agents_eventlog.eventlog.storage.engine import Store
from agents_eventlog.eventlog.storage.transaction import Lane, Transaction
from agents_eventlog.projections.base import Projection, tables

REPLAY_ON_OPEN_EVENTS = 20_000
"""Projections further behind than this are replayed beside the live tables when a log is opened."""

CHECKPOINTS = "SELECT projection, version, position FROM checkpoints"
CHECKPOINTS_AND_END = """
    SELECT projection, version, position,
        (SELECT MAX(position) FROM events), {last_position}
    FROM checkpoints
"""
SET_CHECKPOINT = """
    INSERT INTO checkpoints (projection, version, position) VALUES (?, ?, ?)
    ON CONFLICT (projection) DO UPDATE SET version = excluded.version, position = excluded.position
"""
MAKERS = "table_makers"
"""The property that remembers, as a JSON object, which projection made which table."""

ADVANCE_ALL = "UPDATE checkpoints SET position = ?"
log = _logging.get_logger("eventlog.projections")


class Checkpoint(NamedTuple):
    """Up to which position, and by which version of the builder, a projection was built."""

    version: int
    position: int


@dataclass
class Built:
    """What is remembered of checkpoints."""

    to: tuple[Projections, int] | None = None  # which are built up to which position
    is_all: bool = False  # whether there are no other checkpoints than theirs
    fresh: Projections | None = None  # which show all that the log holds, to a reader

    def __len__(self) -> int:
        return 1


class Projections:
    """
    A set of projections that a log keeps up to date inside its transactions.

    ``EventLog.open(path, projections=Projections(Conversations(), Usage(), Mine()))``.
    """

    def __init__(self, *projections: Projection) -> None:
        self.by_name: dict[str, Projection] = {}
        for projection in projections:
            if projection.name in self.by_name:
                raise ProjectionError(f"two projections are called {projection.name!r}")
            self.by_name[projection.name] = projection
        self._handlers: dict[str, list[Projection]] = {}
        for projection in projections:
            for kind in projection.handles:
                self._handlers.setdefault(kind.type_name(), []).append(projection)
        marks = ", ".join("?" * len(self.by_name))
        self._advance = f"{ADVANCE_ALL} WHERE projection IN ({marks})"

    def named(self, names: Sequence[str]) -> list[Projection]:
        """Return the projections of these names, all for none. Raises UnknownProjectionError."""
        for name in names:
            if name not in self.by_name:
                known = ", ".join(sorted(self.by_name))
                raise UnknownProjectionError(
                    f"there is no projection {name!r}, only {known}", projection=name
                )
        return [self.by_name[name] for name in names or self.by_name]

    # -- the log's side (eventlog.log.Projector) -----------------------------------------------

    def join(self, store: Store) -> None:
        """Bring the tables up to date, and be kept up to date from then on, beside those that are."""
        from agents_eventlog.projections.background import build_in_steps
        from agents_eventlog.projections.replay import rebuild

        present: object = getattr(store.participant, "projector", None)
        merged = self._merged_with(present) if isinstance(present, Projections) else self
        if merged is present:
            return  # looked after already
        behind = store.read_sync(merged.far_behind)
        if behind:
            log.info("replay.started", projections=[projection.name for projection in behind])
        at_once = [projection for projection in behind if not is_built_in_steps(projection)]
        if at_once:
            rebuild(store, at_once)
        for projection in behind:
            if projection not in at_once:
                build_in_steps(store, projection)
        store.write_sync(self._take_part)

    def _take_part(self, tx: Transaction) -> None:
        """
        Join those that the log keeps up to date already, in a unit of work.

        Units before it in the same transaction may have appended: that is in the present tables, and is
        noted before anything catches up; units behind it find all of the tables up to date.
        """
        keeper = ledger(tx)
        present = keeper.projector
        keeper.before_commit(tx)
        merged = self._merged_with(present) if isinstance(present, Projections) else self
        merged.begin(tx, tx.lane)
        tx.on_rollback(lambda: setattr(keeper, "projector", present))
        keeper.projector = merged

    def begin(self, tx: Transaction, head: Lane) -> None:
        """Refuse tables of a newer program; catch up with what programs appended that knew fewer."""
        if tx.cache.get(Built).to == (self, head.position):
            return
        found = checkpoints(tx)
        for name, projection in self.by_name.items():
            checkpoint = found.get(name)
            position = _usable_to(checkpoint, projection)
            if checkpoint is None or checkpoint.version < projection.version:
                create_tables(tx, projection, replace=checkpoint is not None)
            elif checkpoint.version > projection.version:
                raise NewerProjectionError(
                    projection=name, found=checkpoint.version, known=projection.version
                )
            elif position == head.position:
                continue
            position = catch_up(tx, [projection], position)
            set_checkpoint(tx, projection, max(position, head.position))
        if found.keys() <= self.by_name.keys():
            tx.cache.get(Built).is_all = True

    def project(self, tx: Transaction, events: Sequence[Recorded]) -> None:
        """Apply events that were just appended; of an import, some may be erased."""
        if any(recorded.data is None for recorded in events):
            Structures().fill(tx, events)
            events = [recorded.outlined() for recorded in events]
        if len(events) == 1:
            for projection in self._handlers.get(events[0].type, ()):
                projection.apply(tx, events)
        else:
            apply(tx, self.by_name.values(), events)

    def before_commit(self, tx: Transaction, head: Lane) -> None:
        """Move the checkpoints, in the transaction of the rows."""
        built = tx.cache.get(Built)
        if built.to != (self, head.position):
            if built.is_all:
                tx.execute(ADVANCE_ALL, (head.position,))
            else:
                tx.execute(self._advance, (head.position, *self.by_name))
            built.to = self, head.position

    def require_fresh(self, tx: Transaction) -> None:
        """Raise StaleProjectionError when the tables show less than the log holds."""
        if tx.participant is not None:
            return  # a writing transaction has caught up; its checkpoints move when it commits
        if tx.cache.get(Built).fresh is self:
            return
        found = {}
        sql = CHECKPOINTS_AND_END.format(last_position=tx.engine.last_position)
        for name, version, position, last, assigned in tx.execute(sql):
            found[name] = version, position == max(last or 0, assigned or 0)
        for name, projection in self.by_name.items():
            if found.get(name) != (projection.version, True):
                raise StaleProjectionError(projection=name)
        tx.cache.get(Built).fresh = self

    def _merged_with(self, present: Projections) -> Projections:
        for name in self.by_name.keys() & present.by_name.keys():
            mine, theirs = self.by_name[name].version, present.by_name[name].version
            if mine != theirs:
                raise ProjectionError(
                    f"projection {name!r} is kept at version {theirs} by this process already, "
                    f"not {mine}: close what uses it first",
                    projection=name,
                )
        if self.by_name.keys() <= present.by_name.keys():
            return present
        more = {name: p for name, p in self.by_name.items() if name not in present.by_name}
        return Projections(*present.by_name.values(), *more.values())

    def far_behind(self, tx: Transaction) -> list[Projection]:
        """Return the projections that are better replayed than caught up."""
        head = read_head(tx)
        found = checkpoints(tx)
        return [
            projection
            for name, projection in self.by_name.items()
            if head.position - _usable_to(found.get(name), projection) > REPLAY_ON_OPEN_EVENTS
        ]


def _usable_to(checkpoint: Checkpoint | None, projection: Projection) -> int:
    """Return up to which position a projection's tables are of use to this version of it."""
    if checkpoint is None or checkpoint.version < projection.version:
        return 0
    return checkpoint.position


def is_built_in_steps(projection: Projection) -> bool:
    """Whether a projection may show less than the log for a while; few can, and say so."""
    return getattr(projection, "is_built_in_steps", False)


def checkpoints(tx: Transaction) -> dict[str, Checkpoint]:
    """Return every projection's checkpoint."""
    return {name: Checkpoint(version, at) for name, version, at in tx.execute(CHECKPOINTS)}


def set_checkpoint(tx: Transaction, projection: Projection, position: int) -> None:
    """Note how far a projection has been built."""
    tx.cache.get(Built).is_all = False  # there may be a checkpoint more than those that move on
    tx.execute(SET_CHECKPOINT, (projection.name, projection.version, position))


def create_tables(tx: Transaction, projection: Projection, *, replace: bool) -> None:
    """
    Make a projection's tables; ``replace`` those of an earlier build, whatever their names were.

    Raises ProjectionError when somebody else's table has such a name.
    """
    names = [table.name for table in tables(tx.engine, projection)]
    makers: dict[str, str] = json.loads(get_property(tx, MAKERS) or "{}")
    earlier = {name for name, maker in makers.items() if maker == projection.name}
    if replace:
        for name in sorted({*names, *earlier}):
            tx.execute(f'DROP TABLE IF EXISTS main."{name}"')
    present = tx.engine.table_names(tx)
    for name in names:
        if name in present:
            raise ProjectionError(
                f"there is a table {name!r} already that projection {projection.name!r} "
                "did not make",
                projection=projection.name,
            )
    for statement in projection.schema:
        tx.execute(tx.engine.create_statement(statement))
    others = {name: maker for name, maker in makers.items() if name not in earlier}
    made = {**others, **dict.fromkeys(names, projection.name)}
    set_property(tx, MAKERS, json.dumps(made, sort_keys=True))


def catch_up(tx: Transaction, projections: Collection[Projection], position: int) -> int:
    """Apply all events after a position, in a unit of work; return the last one's position."""
    while page := read_events(tx, position, limit=PAGE_EVENTS):
        apply(tx, projections, page)
        position = page[-1].position
    return position


def apply(tx: Transaction, projections: Collection[Projection], events: Sequence[Recorded]) -> None:
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
