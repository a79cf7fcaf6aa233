"""Keeps projections up to date: with each append, and with events that other programs appended."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from agents_eventlog.eventlog import _logging
from agents_eventlog.eventlog.appender import complete_checkpoint, ledger, read_head
from agents_eventlog.eventlog.erased_shapes import ErasedShapes
from agents_eventlog.eventlog.errors import (
    NewerProjectionError,
    ProjectionError,
    StaleProjectionError,
    UnknownProjectionError,
)
from agents_eventlog.eventlog.recorded_event import RecordedEvent
from agents_eventlog.eventlog.storage.engine import Store
from agents_eventlog.eventlog.storage.transaction import Lane, Transaction
from agents_eventlog.projections import background
from agents_eventlog.projections.base import Projection
from agents_eventlog.projections.build import (
    Built,
    Checkpoint,
    apply,
    catch_up,
    checkpoints,
    create_tables,
    empty_tables,
    set_checkpoint,
    usable_to,
)
from agents_eventlog.projections.replay import rebuild

REPLAY_ON_OPEN_EVENTS = 20_000
"""Projections further behind than this are replayed beside the live tables when a log is opened."""

CHECKPOINTS_AND_COMPLETE = "SELECT projection, version, position, {complete} FROM checkpoints"
ADVANCE_ALL = "UPDATE checkpoints SET position = ?"
log = _logging.get_logger("eventlog.projections")


class Projections:
    """
    A set of projections that a log keeps up to date inside its transactions.

    ``EventLog.open(path, projections=Projections(Conversations(), Usage(), Mine()))``.
    """

    def __init__(self, *projections: Projection) -> None:
        self.by_name: dict[str, Projection] = {}
        for projection in projections:
            if projection.name in self.by_name:
                raise ProjectionError(f"duplicate projection name {projection.name!r}")
            self.by_name[projection.name] = projection
        self._handlers: dict[str, list[Projection]] = {}
        for projection in projections:
            for kind in projection.handles:
                self._handlers.setdefault(kind.type_name(), []).append(projection)
        marks = ", ".join("?" * len(self.by_name))
        self._advance = f"{ADVANCE_ALL} WHERE projection IN ({marks})"
        self._leave_behind = f"{ADVANCE_ALL} WHERE projection NOT IN ({marks})"

    def named(self, names: Sequence[str]) -> list[Projection]:
        """Return the projections with these names; all for []. Raises UnknownProjectionError."""
        for name in names:
            if name not in self.by_name:
                known = ", ".join(sorted(self.by_name))
                raise UnknownProjectionError(
                    f"unknown projection {name!r}; expected one of: {known}", projection=name
                )
        return [self.by_name[name] for name in names or self.by_name]

    # -- the log's side (eventlog.log.Projector) -----------------------------------------------

    def join(self, store: Store) -> None:
        """Catch up with the log, then keep the tables up to date in addition to those that already are."""
        present: object = getattr(store.participant, "projector", None)
        merged = self._merged_with(present) if isinstance(present, Projections) else self
        if merged is present:
            return  # all of them are up to date already
        behind = store.read_sync(merged.far_behind)
        if behind:
            log.info("replay.started", projections=[projection.name for projection in behind])
        in_steps = store.engine.lanes == 1  # or a checkpoint cannot say how far a step came
        at_once = [each for each in behind if not (each.is_built_in_steps and in_steps)]
        if at_once:
            rebuild(store, at_once)
        for projection in behind:
            if projection not in at_once:
                background.build_incrementally(store, projection)
        store.write_sync(self._take_part)

    def _take_part(self, tx: Transaction) -> None:
        """
        Join those that the log keeps up to date already, in a unit of work.

        Units before it in the same transaction may have appended: that is in the present tables, and is
        noted before anything catches up; later units find all of the tables up to date.
        """
        keeper = ledger(tx)
        present = keeper.projector
        keeper.before_commit(tx)
        merged = self._merged_with(present) if isinstance(present, Projections) else self
        merged.begin(tx, tx.lane)
        tx.on_rollback(lambda: setattr(keeper, "projector", present))
        keeper.projector = merged

    def begin(self, tx: Transaction, head: Lane) -> None:
        """Refuse tables of a newer release; catch up with events that programs without them appended."""
        built = tx.cache[Built]
        if built.to == (self, head):
            return
        found, complete = _checkpoints(tx)
        if not all(self._is_built(name, found, complete) for name in self.by_name):
            tx.engine.lock_projections(tx)
            found, complete = _checkpoints(tx)
        for name, projection in self.by_name.items():
            checkpoint = found.get(name)
            position = usable_to(checkpoint, projection)
            if checkpoint is not None and checkpoint.version > projection.version:
                raise NewerProjectionError(
                    projection=name, found=checkpoint.version, known=projection.version
                )
            if self._is_built(name, found, complete):
                continue
            if checkpoint is None or checkpoint.version < projection.version:
                create_tables(tx, projection, replace=checkpoint is not None)
            elif tx.engine.lanes > 1:  # or the rows are those of the events up to its position
                empty_tables(tx, projection)
            if projection.handles:
                catch_up(tx, [projection], position)
            set_checkpoint(tx, projection, complete)
        built.to = self, head
        built.is_all = found.keys() <= self.by_name.keys()

    def _is_built(self, name: str, found: Mapping[str, Checkpoint], complete: int) -> bool:
        return found.get(name) == Checkpoint(self.by_name[name].version, complete)

    def project(self, tx: Transaction, events: Sequence[RecordedEvent]) -> None:
        """Apply events that were just appended; of an import, some may be erased."""
        if any(recorded.data is None for recorded in events):
            ErasedShapes().fill(tx, events)
            events = [recorded.outlined() for recorded in events]
        elif tx.cipher is not None or tx.engine.is_sealed(tx):
            events = [recorded.outlined() for recorded in events]
        if len(events) == 1:
            for projection in self._handlers.get(events[0].type, ()):
                projection.apply(tx, events)
        else:
            apply(tx, self.by_name.values(), events)

    def before_commit(self, tx: Transaction, head: Lane) -> None:
        """Move the checkpoints, in the transaction of the rows."""
        built = tx.cache[Built]
        if built.to == (self, head):
            return
        built.to = self, head
        if tx.engine.lanes > 1:  # a checkpoint is complete, or it is 0
            if not built.is_all:
                tx.execute(f"{self._leave_behind} AND position > 0", (0, *self.by_name))
        elif built.is_all:
            tx.execute(ADVANCE_ALL, (head.position,))
        else:
            tx.execute(self._advance, (head.position, *self.by_name))

    def require_fresh(self, tx: Transaction) -> None:
        """Raise StaleProjectionError if the tables show less than the log holds."""
        if tx.participant is not None:
            return  # a writing transaction has caught up; its checkpoints move when it commits
        if tx.cache[Built].fresh is self:
            return
        found = {}
        sql = CHECKPOINTS_AND_COMPLETE.format(complete=tx.engine.complete_checkpoint)
        for name, version, position, complete in tx.all(sql):
            found[name] = version, position == complete
        for name, projection in self.by_name.items():
            if found.get(name) != (projection.version, True):
                raise StaleProjectionError(projection=name)
        tx.cache[Built].fresh = self

    def _merged_with(self, present: Projections) -> Projections:
        for name in self.by_name.keys() & present.by_name.keys():
            mine, theirs = self.by_name[name].version, present.by_name[name].version
            if mine != theirs:
                raise ProjectionError(
                    f"this process already keeps projection {name!r} at version {theirs}, "
                    f"not {mine}: close the objects that use it first",
                    projection=name,
                )
        if self.by_name.keys() <= present.by_name.keys():
            return present
        more = {name: p for name, p in self.by_name.items() if name not in present.by_name}
        return Projections(*present.by_name.values(), *more.values())

    def far_behind(self, tx: Transaction) -> list[Projection]:
        """Return the projections that are too far behind to catch up inside a transaction."""
        events, found = read_head(tx).position // tx.engine.lanes, checkpoints(tx)
        return [
            projection
            for name, projection in self.by_name.items()
            if projection.handles
            and events - usable_to(found.get(name), projection) > REPLAY_ON_OPEN_EVENTS
        ]


def _checkpoints(tx: Transaction) -> tuple[dict[str, Checkpoint], int]:
    """Return every projection's checkpoint, and that of a projection that shows all events."""
    sql = CHECKPOINTS_AND_COMPLETE.format(complete=tx.engine.complete_checkpoint)
    rows = tx.all(sql)
    found = {name: Checkpoint(version, position) for name, version, position, _ in rows}
    return found, rows[0][3] if rows else complete_checkpoint(tx)
