"""
Replay: projections built again from the first event, beside the live tables.

The builders run on a scratch database of their own, fed by pages of events, while other programs
keep writing. The result is then compared with the live tables (``check``), or replaces them in one
transaction that first applies what was appended meanwhile. A replay that is killed has changed nothing.
"""

from __future__ import annotations

import errno
import glob
import os
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from agents_eventlog.eventlog import _logging
from agents_eventlog.eventlog.appender import read_events, read_head
from agents_eventlog.eventlog.erased_shapes import Structures
from agents_eventlog.eventlog.errors import (
    DiskError,
    DiskFullError,
    ProjectionError,
    StoreError,
)
from agents_eventlog.eventlog.log import EventLog
from agents_eventlog.eventlog.recorded_event import Recorded
from agents_eventlog.eventlog.storage.sqlite.connections import translated
from agents_eventlog.eventlog.storage.sqlite.store import Store
from agents_eventlog.eventlog.storage.transaction import Row, Transaction
from agents_eventlog.projections import build
from agents_eventlog.projections.base import Projection, Table, tables

BATCH_EVENTS = 5_000
SCRATCH_CACHE_KIB = 4 * 1024

log = _logging.get_logger("eventlog.replay")


class Progress(NamedTuple):
    """The progress of a replay: events applied, events in the log, seconds since it began."""

    events: int
    total: int
    seconds: float


class Difference(NamedTuple):
    """A row that a replay builds differently: a missing one has no ``live``."""

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
    """One table's outcome: its rows after the replay, and the differences that a check found."""

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
    Build projections again from the first event. Blocks; run it in a thread of its own.

    check: compare with the live tables and change nothing; each differing row goes to
        ``on_difference``.

    Returns a line for each table. Raises UndecodableEventError for an event that cannot be read;
    nothing has changed then.
    """
    if check:
        return _check(log_.store, projections, on_progress, on_difference)
    return rebuild(log_.store, projections, on_progress)


def rebuild(
    store: Store, projections: Sequence[Projection], on_progress: OnProgress | None = None
) -> list[ReplayResult]:
    """Build projections beside the live tables and swap them in."""
    started = time.monotonic()
    with _scratch_file(store) as path, _scratch(path) as scratch:
        position = _build(store, scratch, projections, on_progress)
        store.swap(path, lambda tx: _swap_in(tx, scratch, projections, position))
        counts = [
            ReplayResult(projection.name, table.name, _count(scratch, table), 0)
            for projection in projections
            for table in tables(projection)
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
) -> int:
    """Apply all events of the log; return the last one's position."""
    for projection in projections:
        for statement in projection.schema:
            scratch.execute(statement)
    started = time.monotonic()
    total = store.read_sync(read_head).position
    position = 0
    structures = Structures()
    page = store.read_sync(partial(_page, after=0, structures=structures))
    while page:
        position = page[-1].position
        _apply(scratch, projections, page)
        # Side by side: while SQLite writes and reads, neither holds Python's lock for long.
        following = store.read_ahead(partial(_page, after=position, structures=structures))
        scratch.execute("COMMIT")
        page = following.result()
        if on_progress is not None:
            on_progress(Progress(position, max(total, position), time.monotonic() - started))
    return position


def _page(tx: Transaction, after: int, structures: Structures) -> list[Recorded]:
    return read_events(tx, after, limit=BATCH_EVENTS, structures=structures)


def _apply(
    scratch: Transaction, projections: Sequence[Projection], page: Sequence[Recorded]
) -> None:
    """Apply a page of events in a transaction, to be committed: what was deferred is written then."""
    scratch.execute("BEGIN")
    build.apply(scratch, projections, page)


def _swap_in(
    tx: Transaction, scratch: Transaction, projections: Sequence[Projection], position: int
) -> None:
    """Apply events appended meanwhile, then replace the live tables by the scratch tables."""
    while page := read_events(tx, position, limit=BATCH_EVENTS):
        _apply(scratch, projections, page)
        scratch.execute("COMMIT")
        position = page[-1].position
    for projection in projections:
        found = build.checkpoints(tx).get(projection.name)
        if found is not None and found.version > projection.version:
            raise ProjectionError(
                f"projection {projection.name!r} was replayed by a newer program meanwhile"
            )
        build.create_tables(tx, projection, replace=found is not None)
        for table in tables(projection):
            _copy_from_scratch(tx, table)
        build.set_checkpoint(tx, projection, read_head(tx).position)


def _copy_from_scratch(tx: Transaction, table: Table) -> None:
    """Fill an empty table. With ``SELECT *`` SQLite copies records and indexes unchanged."""
    if table.is_plain:
        tx.execute(f'INSERT INTO main."{table.name}" SELECT * FROM scratch."{table.name}"')
        return
    columns = ", ".join(f'"{column}"' for column in table.columns)
    tx.execute(
        f'INSERT INTO main."{table.name}" ({columns}) SELECT {columns} FROM scratch."{table.name}"'
    )


# -- comparing --------------------------------------------------------------------------------


def _check(
    store: Store,
    projections: Sequence[Projection],
    on_progress: OnProgress | None,
    on_difference: OnDifference | None,
) -> list[ReplayResult]:
    with _scratch("") as scratch:
        position = _build(store, scratch, projections, on_progress)

        def compare(tx: Transaction) -> list[ReplayResult]:
            nonlocal position
            while page := read_events(tx, position, limit=BATCH_EVENTS):
                _apply(scratch, projections, page)
                scratch.execute("COMMIT")
                position = page[-1].position
            return [
                _compared(tx, scratch, projection, table, on_difference)
                for projection in projections
                for table in tables(projection)
            ]

        return store.read_sync(compare)


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
    missing = table.name not in _table_names(tx)
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
    return iter(tx.execute(f'SELECT {columns} FROM "{table.name}" ORDER BY {order}'))


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


def _table_names(tx: Transaction) -> set[str]:
    return {name for (name,) in tx.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}


# -- the scratch database ---------------------------------------------------------------------


@contextmanager
def _scratch(path: str) -> Iterator[Transaction]:
    """Open a scratch database: fast, without durability, small in memory."""
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    try:
        for pragma in (
            "journal_mode=OFF",
            "synchronous=OFF",
            f"cache_size=-{SCRATCH_CACHE_KIB}",
        ):
            connection.execute(f"PRAGMA {pragma}")
        yield Transaction(connection, now=0)
    except sqlite3.Error as error:
        raise translated(error, path or "a temporary file") from error
    finally:
        connection.close()


@contextmanager
def _scratch_file(store: Store) -> Iterator[str]:
    """Yield a file beside the log, on the same disk; delete the files that killed replays left."""
    if store.is_memory:
        with tempfile.TemporaryDirectory() as folder:
            yield str(Path(folder) / "replay")
        return
    log_file = Path(store.path)
    for old in leftovers(store.path):
        with suppress(OSError):
            old.unlink()
    try:
        handle, path = tempfile.mkstemp(
            prefix=f"{log_file.name}-replay-", suffix=f"-{os.getpid()}", dir=log_file.parent
        )
    except OSError as error:
        raise _no_scratch_file(error, store.path) from error
    os.close(handle)
    try:
        yield path
    finally:
        with suppress(OSError):  # the next replay deletes it
            Path(path).unlink()


def _no_scratch_file(error: OSError, path: str) -> StoreError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DiskFullError(f"no room left on the disk beside {path}", path=path)
    return DiskError(f"cannot create a file beside {path}: {error.strerror}", path=path)


def leftovers(path: str) -> list[Path]:
    """Return the files that killed replays left beside a log."""
    log_file = Path(path)
    found = log_file.parent.glob(f"{glob.escape(log_file.name)}-replay-*")
    return sorted(old for old in found if not _is_running(old.name.rpartition("-")[2]))


def _is_running(pid: str) -> bool:
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except (PermissionError, ValueError):
        return True
    return True
