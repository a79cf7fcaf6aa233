"""
Replay: projections built again from the first event, beside the live tables.

The builders run on a scratch database of their own, fed by pages of events, while other programs
keep writing. The result is then compared with the live tables (``check``), or replaces them in one
transaction that first applies what was appended meanwhile. A replay that is killed has changed nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple, TypeAlias

from agents_eventlog.eventlog import _logging
from agents_eventlog.eventlog.appender import complete_checkpoint, read_events
from agents_eventlog.eventlog.cursor import Cursor
from agents_eventlog.eventlog.erased_shapes import ErasedShapes
from agents_eventlog.eventlog.log import EventLog
from agents_eventlog.eventlog.reader import event_counts
from agents_eventlog.eventlog.recorded_event import RecordedEvent
from agents_eventlog.eventlog.storage.engine import Store, Table
from agents_eventlog.eventlog.storage.transaction import Row, Transaction
from agents_eventlog.projections import build
from agents_eventlog.projections.base import Projection, tables

BATCH_EVENTS = 5_000

log = _logging.get_logger("eventlog.replay")


class Progress(NamedTuple):
    """The progress of a replay: events applied, events in the log, seconds since it began."""

    events: int
    total: int
    seconds: float


class Difference(NamedTuple):
    """A row that differs: as stored (``live``) and as replayed; None where the row does not exist."""

    table: str
    key: tuple[Any, ...]
    live: dict[str, Any] | None
    replayed: dict[str, Any] | None

    def __str__(self) -> str:
        where = f"{self.table} {'/'.join(map(str, self.key))}"
        if self.live is None or self.replayed is None:
            return f"{where}: {'missing' if self.live is None else 'should not exist'}"
        changed = (name for name in self.live if self.live[name] != self.replayed[name])
        return f"{where}: " + ", ".join(
            f"{name} {self.live[name]!r} -> {self.replayed[name]!r}" for name in changed
        )


class ReplayResult(NamedTuple):
    """The result for one table: the numbers of rows after the replay, and of rows that differ."""

    projection: str
    table: str
    rows: int
    differences: int


OnProgress: TypeAlias = Callable[[Progress], None]
OnDifference: TypeAlias = Callable[[Difference], None]


def replay(
    log_: EventLog,
    projections: Sequence[Projection],
    *,
    check: bool = False,
    on_progress: OnProgress | None = None,
    on_difference: OnDifference | None = None,
) -> list[ReplayResult]:
    """
    Rebuild the tables of projections from the first event. Blocks: call it with ``asyncio.to_thread``.

    check: only compare the tables with a replay; change nothing.
    on_progress: called while events are applied.
    on_difference: called for each row that differs, with ``check``.

    Returns a result for each table. Raises UndecodableEventError for an event that cannot be read; then
    nothing was changed.
    """
    if check:
        return _check(log_.store, projections, on_progress, on_difference)
    return rebuild(log_.store, projections, on_progress, drop_others=True)


def rebuild(
    store: Store,
    projections: Sequence[Projection],
    on_progress: OnProgress | None = None,
    *,
    drop_others: bool = False,
) -> list[ReplayResult]:
    """
    Build projections beside the live tables and swap them in.

    drop_others: drop the tables of other versions; programs that use these build them again.
    """
    started = time.monotonic()
    with store.engine.scratch_file(store) as path, store.engine.scratch(path) as scratch:
        cursor = _build(store, scratch, projections, on_progress)
        store.swap(
            path, lambda tx: _swap_in(tx, scratch, projections, cursor, drop_others=drop_others)
        )
        counts = [
            ReplayResult(projection.name, table.name, _count(scratch, table), 0)
            for projection in projections
            for table in tables(store.engine, projection)
        ]
    for projection in projections:
        seconds = round(time.monotonic() - started, 3)
        log.info("replay.finished", projection=projection.name, seconds=seconds)
    return counts


def _build(
    store: Store,
    scratch: Transaction,
    projections: Sequence[Projection],
    on_progress: OnProgress | None,
) -> Cursor:
    """Apply all events of the log; return the place of the last one."""
    for projection in projections:
        for statement in projection.schema:
            scratch.execute(scratch.engine.create_statement(statement))
    started = time.monotonic()
    total = store.read_sync(event_counts)[0]
    count, cursor = 0, Cursor(store.engine.lanes)
    structures = ErasedShapes()
    next_page = partial(_page, cursor=cursor, structures=structures)
    page = store.read_sync(next_page, scan=True)
    while page:
        count += len(page)
        cursor.advance(recorded.position for recorded in page)
        _apply(scratch, projections, page)
        # Side by side: while SQLite writes and reads, neither holds Python's lock for long.
        following = store.read_ahead(next_page, scan=True)
        scratch.execute("COMMIT")
        page = following.result()
        if on_progress is not None:
            on_progress(Progress(count, max(total, count), time.monotonic() - started))
    return cursor


def _page(tx: Transaction, cursor: Cursor, structures: ErasedShapes) -> list[RecordedEvent]:
    return read_events(tx, cursor, limit=BATCH_EVENTS, structures=structures)


def _apply_rest(
    tx: Transaction, scratch: Transaction, projections: Sequence[Projection], cursor: Cursor
) -> None:
    """Apply the events appended meanwhile."""
    # A transaction that is repeated begins again where the first one did, on the same scratch tables.
    while page := read_events(tx, cursor, limit=BATCH_EVENTS):
        _apply(scratch, projections, page)
        scratch.execute("COMMIT")
        cursor.advance(recorded.position for recorded in page)


def _apply(
    scratch: Transaction, projections: Sequence[Projection], page: Sequence[RecordedEvent]
) -> None:
    """Apply a page of events in a transaction, to be committed: what was deferred is written then."""
    scratch.execute("BEGIN")
    build.apply(scratch, projections, page)


def _swap_in(
    tx: Transaction,
    scratch: Transaction,
    projections: Sequence[Projection],
    cursor: Cursor,
    *,
    drop_others: bool,
) -> None:
    """Apply events appended meanwhile, then replace the live tables by the scratch tables."""
    tx.engine.lock_projections(tx)
    _apply_rest(tx, scratch, projections, cursor)
    if drop_others:
        for projection in projections:
            found = build.checkpoints(tx).get(projection.name)
            if found is not None and found.version != projection.version:
                build.drop_tables(tx, projection.name)
        build.drop_other_versions(tx, [projection.name for projection in projections])
    build.use_own_tables(tx, projections)
    for projection in projections:
        found = build.checkpoints(tx).get(projection.name)
        build.create_tables(tx, projection, replaced=found)
        for table in tables(tx.engine, projection):
            tx.engine.copy_from_scratch(tx, scratch, table)
        build.set_checkpoint(tx, projection, complete_checkpoint(tx))


# -- comparing --------------------------------------------------------------------------------


def _check(
    store: Store,
    projections: Sequence[Projection],
    on_progress: OnProgress | None,
    on_difference: OnDifference | None,
) -> list[ReplayResult]:
    with store.engine.scratch() as scratch:
        cursor = _build(store, scratch, projections, on_progress)

        def compare(tx: Transaction) -> list[ReplayResult]:
            build.use_own_tables(tx, projections)
            _apply_rest(tx, scratch, projections, cursor)
            return [
                _compared(tx, scratch, projection, table, on_difference)
                for projection in projections
                for table in tables(store.engine, projection)
            ]

        return store.read_sync(compare, scan=True)


def _compared(
    tx: Transaction,
    scratch: Transaction,
    projection: Projection,
    table: Table,
    on_difference: OnDifference | None,
) -> ReplayResult:
    differences = 0
    for key, live, built in _differing(tx, scratch, table):
        differences += 1
        if on_difference is not None:
            on_difference(Difference(table.name, key, _named(table, live), _named(table, built)))
    return ReplayResult(projection.name, table.name, _count(scratch, table), differences)


def _differing(
    tx: Transaction, scratch: Transaction, table: Table
) -> Iterator[tuple[tuple[Any, ...], Row | None, Row | None]]:
    """Walk both tables in the order of their keys, side by side."""
    missing = tx.name_of(table.name) not in tx.engine.table_names(tx)
    live_rows: Iterator[Row] = iter(()) if missing else _rows(tx, table)
    places = [table.columns.index(column) for column in table.key]

    def keyed(row: Row) -> tuple[Any, ...]:
        return tuple(row[place] for place in places)

    built_rows = _rows(scratch, table)
    live, built = next(live_rows, None), next(built_rows, None)
    while True:
        if live is not None and built is not None and keyed(live) == keyed(built):
            if live != built:
                yield keyed(live), live, built
            live, built = next(live_rows, None), next(built_rows, None)
        elif live is not None and (built is None or _before(keyed(live), keyed(built))):
            yield keyed(live), live, None
            live = next(live_rows, None)
        elif built is not None:
            yield keyed(built), None, built
            built = next(built_rows, None)
        else:
            return


def _rows(tx: Transaction, table: Table) -> Iterator[Row]:
    columns = ", ".join(f'"{column}"' for column in table.columns)
    order = ", ".join(f'"{column}"' for column in table.key)
    return iter(tx.scan(f'SELECT {columns} FROM "{table.name}" ORDER BY {order}'))


def _before(left: tuple[Any, ...], right: tuple[Any, ...]) -> bool:
    """Compare keys as SQLite orders them: null, numbers, text by its bytes, blobs."""
    return [_rank(value) for value in left] < [_rank(value) for value in right]


def _rank(value: Any) -> tuple[int, Any]:
    if value is None:
        return 0, 0
    if isinstance(value, int | float):
        return 1, value
    return (2, value.encode()) if isinstance(value, str) else (3, value)


def _named(table: Table, row: Row | None) -> dict[str, Any] | None:
    return None if row is None else dict(zip(table.columns, row, strict=True))


def _count(tx: Transaction, table: Table) -> int:
    ((count,),) = tx.all(f'SELECT COUNT(*) FROM "{table.name}"')
    return int(count)
