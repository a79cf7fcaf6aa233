"""Keeps projections up to date: with each append, and with events that other programs appended."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from agents_eventlog.eventlog import _logging
from agents_eventlog.eventlog.appender import (
    complete_checkpoint,
    last_assigned,
    ledger,
    read_head,
)
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
    checkpoint_name,
    checkpoints,
    create_tables,
    drop_other_versions,
    empty_tables,
    is_left_to_newer,
    plain_name,
    set_checkpoint,
    stored_checkpoints,
    usable_to,
    use_own_tables,
)
from agents_eventlog.projections.replay import rebuild

REPLAY_ON_OPEN_EVENTS = 20_000
"""Projections further behind than this are replayed beside the live tables when a log is opened."""

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
        self._leave_behind = f"{ADVANCE_ALL} WHERE projection NOT IN ({marks}) AND position = ?"

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
        unused = store.write_sync(self._take_part)
        if in_steps and unused:
            store.write_sync(lambda tx: drop_other_versions(tx, merged.unused(tx)))

    def _take_part(self, tx: Transaction) -> list[str]:
        """
        Join those that the log keeps up to date already, in a unit of work. Returns which are ``unused``.

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
        return merged.unused(tx)

    def begin(self, tx: Transaction, head: Lane) -> None:
        """Catch up with events that programs without these projections, or of other versions, appended."""
        built = tx.cache[Built]
        if built.to == (self, head):
            tx.suffixes = built.suffixes
            return
        stored, complete = self._choose_tables(tx, built)
        if not self._is_settled(tx, stored, complete):
            tx.engine.lock_projections(tx)
            stored, complete = self._choose_tables(tx, built)
            if tx.engine.lanes > 1:
                tx.newest = max(tx.newest, last_assigned(tx))
        for name, projection in self.by_name.items():
            if _is_shown(tx, projection, stored, complete):
                continue
            checkpoint = stored.get(checkpoint_name(tx, name))
            position = usable_to(checkpoint, projection)
            if checkpoint is None or checkpoint.version < projection.version:
                create_tables(tx, projection, replaced=checkpoint)
                stored = stored_checkpoints(tx)
            elif not position:  # a program that knows no projections has appended
                empty_tables(tx, projection)
            if projection.handles:
                catch_up(tx, [projection], position)
            set_checkpoint(tx, projection, complete)
        others = self._others(tx, stored)
        built.to = self, head
        built.is_all = not others
        if tx.engine.lanes > 1:  # what is appended now comes after what the others show
            tx.newest = max(tx.newest, *(at for at in others if at < complete), 0)

    def _choose_tables(self, tx: Transaction, built: Built) -> tuple[dict[str, Checkpoint], int]:
        built.names, built.suffixes = {}, frozenset()
        return use_own_tables(tx, self.by_name.values())

    def _others(self, tx: Transaction, stored: Mapping[str, Checkpoint]) -> list[int]:
        """Return the positions to which tables show the log that these projections do not keep."""
        own = {checkpoint_name(tx, name) for name in self.by_name}
        return [each.position for name, each in stored.items() if name not in own]

    def _is_settled(self, tx: Transaction, stored: Mapping[str, Checkpoint], complete: int) -> bool:
        """
        Whether nothing is to be built, and no other projection to be left behind in several lanes.

        There, its checkpoint becomes the last position before: all transactions that write must have ended.
        """
        return all(
            _is_shown(tx, projection, stored, complete) for projection in self.by_name.values()
        ) and (tx.engine.lanes == 1 or complete not in self._others(tx, stored))

    def project(self, tx: Transaction, events: Sequence[RecordedEvent]) -> None:
        """Apply events that were just appended; of an import, some may be erased."""
        if len(events) == 1 and type(events[0].data) is bytes:  # neither erased nor sealed
            for projection in self._handlers.get(events[0].type, ()):
                projection.apply(tx, events)
            return
        if any(recorded.data is None for recorded in events):
            ErasedShapes().fill(tx, events)
        apply(tx, self.by_name.values(), [recorded.outlined() for recorded in events])

    def before_commit(self, tx: Transaction, head: Lane) -> None:
        """Move the checkpoints, in the transaction of the rows."""
        built = tx.cache[Built]
        if built.to == (self, head):
            return
        built.to = self, head
        is_complete = tx.engine.lanes > 1  # a checkpoint is complete there, or was left behind
        if built.is_all:
            if not is_complete:
                tx.defer(ADVANCE_ALL, ((head.position,),))
            return
        own = [checkpoint_name(tx, name) for name in self.by_name]
        if is_complete:
            tx.execute(self._leave_behind, (tx.newest, *own, complete_checkpoint(tx)))
        else:
            tx.execute(self._advance, (head.position, *own))

    def require_fresh(self, tx: Transaction) -> None:
        """Raise StaleProjectionError if the tables show less than the log holds."""
        if tx.participant is not None:
            return  # a writing transaction has caught up; its checkpoints move when it commits
        built = tx.cache[Built]
        if built.fresh is self:
            tx.suffixes = built.suffixes
            return
        stored, complete = use_own_tables(tx, self.by_name.values())
        for name, projection in self.by_name.items():
            if not _is_shown(tx, projection, stored, complete):
                raise _stale(projection, stored.get(name))
        built.fresh = self

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

    def unused(self, tx: Transaction) -> list[str]:
        """Return the projections with tables of a lower version that no program has used for long."""
        stored, complete = use_own_tables(tx, self.by_name.values())
        return [
            plain_name(name)
            for name, checkpoint in stored.items()
            if plain_name(name) != name
            and plain_name(name) in self.by_name.keys() - tx.cache[Built].names.keys()
            and complete - checkpoint.position > REPLAY_ON_OPEN_EVENTS
        ]

    def far_behind(self, tx: Transaction) -> list[Projection]:
        """Return the projections that are too far behind to catch up inside a transaction."""
        use_own_tables(tx, self.by_name.values())
        events, found = read_head(tx).position // tx.engine.lanes, checkpoints(tx)
        return [
            projection
            for name, projection in self.by_name.items()
            if projection.handles
            and events - usable_to(found.get(name), projection) // tx.engine.lanes
            > REPLAY_ON_OPEN_EVENTS
        ]


def _is_shown(
    tx: Transaction, projection: Projection, stored: Mapping[str, Checkpoint], complete: int
) -> bool:
    """Whether a projection shows all events, in this program's tables or in a newer program's views."""
    checkpoint = stored.get(checkpoint_name(tx, projection.name))
    is_built = checkpoint == Checkpoint(projection.version, complete)
    return is_built or is_left_to_newer(tx, projection, stored)


def _stale(projection: Projection, stored: Checkpoint | None) -> StaleProjectionError:
    """Return the error for a projection whose tables do not show all events."""
    if stored is None or stored.version <= projection.version:
        return StaleProjectionError(projection=projection.name)
    return NewerProjectionError(
        projection=projection.name,
        found=stored.version,
        known=projection.version,
        is_built_in=type(projection).__module__.startswith("agents_eventlog."),
    )
