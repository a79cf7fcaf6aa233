"""
The raw limit: what plain sqlite3 takes, in one thread, to write the rows that ours writes.

The rows are not written down here. A file is recorded with our class, and what each call changed is
seen from outside, table by table; then a copy of the file as it was before gets the same changes.
"""

from __future__ import annotations

import gc
import sqlite3
import statistics
import time
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from benchmarks.compare import in_turns
from benchmarks.contestants import Ours
from benchmarks.crowd import SESSIONS, adds_per_second, first_turn, open_crowd
from benchmarks.histories import seal
from benchmarks.results import Figure, median_ms
from benchmarks.turns import adds

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from benchmarks.contestants import Session
    from benchmarks.histories import Histories

Row: TypeAlias = tuple[Any, ...]
Rows: TypeAlias = dict[Row, Row]
Statement: TypeAlias = tuple[str, Row]
Change: TypeAlias = list[Statement]
"""The statements that do what one call did."""

ALONE_TURNS = 1_000


@dataclass(frozen=True)
class _Table:
    name: str
    columns: tuple[str, ...]
    key: tuple[str, ...]

    def rows(self, connection: sqlite3.Connection) -> Rows:
        selected = ", ".join(f'"{column}"' for column in self.key + self.columns)
        width = len(self.key)
        cursor = connection.execute(f'SELECT {selected} FROM "{self.name}"')
        return {row[:width]: row[width:] for row in cursor}

    def changes(self, before: Rows, after: Rows) -> Change:
        where = " AND ".join(f'"{column}" IS ?' for column in self.key)
        change: Change = [
            (f'DELETE FROM "{self.name}" WHERE {where}', key) for key in before.keys() - after
        ]
        names = ", ".join(f'"{column}"' for column in self.columns)
        marks = ", ".join("?" for _ in self.columns)
        for key, row in after.items():
            old = before.get(key)
            if old is None:
                change.append((f'INSERT INTO "{self.name}" ({names}) VALUES ({marks})', row))
            elif old != row:
                pairs = [
                    (f'"{column}" = ?', value)
                    for column, was, value in zip(self.columns, old, row, strict=True)
                    if was != value
                ]
                sets = ", ".join(text for text, _ in pairs)
                values = tuple(value for _, value in pairs)
                change.append((f'UPDATE "{self.name}" SET {sets} WHERE {where}', values + key))
        return change


def _tables(connection: sqlite3.Connection) -> list[_Table]:
    names = connection.execute(
        "SELECT name FROM pragma_table_list"
        " WHERE schema = 'main' AND type = 'table' AND name NOT LIKE 'sqlite!_%' ESCAPE '!'"
    ).fetchall()
    tables = []
    for (name,) in names:
        info = connection.execute("SELECT name, pk FROM pragma_table_info(?)", (name,)).fetchall()
        key = tuple(column for column, pk in sorted(info, key=lambda part: part[1]) if pk)
        tables.append(_Table(name, tuple(column for column, _ in info), key or ("rowid",)))
    return tables


class _Recorder:
    """Sees from outside what each call changed in a file."""

    def __init__(self, path: Path) -> None:
        self._connection = sqlite3.connect(path)
        self._tables = _tables(self._connection)
        self._before = self._snapshot()

    def change(self) -> Change:
        """Return what has changed since the last time."""
        after = self._snapshot()
        change = [
            statement
            for table in self._tables
            for statement in table.changes(self._before[table.name], after[table.name])
        ]
        self._before = after
        return change

    def close(self) -> None:
        self._connection.close()

    def _snapshot(self) -> dict[str, Rows]:
        self._connection.execute("BEGIN")  # one moment for all tables
        rows = {table.name: table.rows(self._connection) for table in self._tables}
        self._connection.execute("COMMIT")
        return rows


def _write(path: Path, changes: Sequence[Change], per_commit: int) -> float:
    """Make the changes in a file, so many calls to a commit; return the seconds."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
        if mode != "wal":
            raise RuntimeError(f"{path} cannot be switched to WAL")
        connection.execute("PRAGMA synchronous = FULL")
        gc.collect()
        start = time.perf_counter()
        for first in range(0, len(changes), per_commit):
            connection.execute("BEGIN IMMEDIATE")
            for change in changes[first : first + per_commit]:
                for sql, values in change:
                    connection.execute(sql, values)
            connection.execute("COMMIT")
        return time.perf_counter() - start


async def _record(path: Path, sessions: Sequence[Session], numbers: range) -> list[Change]:
    recorder = _Recorder(path)
    changes = []
    for number in numbers:
        for batch in range(2):
            for session in sessions:
                await session.add_items(adds(number)[batch])
                changes.append(recorder.change())
    recorder.close()
    return changes


async def measure_alone(histories: Histories, turns: int, rounds: int) -> list[Figure]:
    """
    Compare one session's adds, a commit each, in a history of a thousand turns.

    Ours makes room in the write-ahead log before it is needed, which plain sqlite3 does not: of long
    syncs that is worth more than all that ours does beside the inserts.
    """
    ours = Ours()
    numbers = range(ALONE_TURNS + 1, ALONE_TURNS + turns + 1)
    await histories.prepare(ALONE_TURNS)
    recorded = histories.copy(ours, ALONE_TURNS)
    session = ours.open(recorded)
    await session.get_items(limit=1)
    changes = await _record(recorded, [session], numbers)
    session.close()
    histories.discard(recorded)

    seconds: dict[str, list[float]] = {"ours": [], "raw": []}
    for side in in_turns(tuple(seconds), rounds):
        path = histories.copy(ours, ALONE_TURNS)
        if side == "raw":
            taken = _write(path, changes, per_commit=1)
        else:
            taken = await _add_alone(ours, path, numbers)
        seconds[side].append(taken / len(changes))
        histories.discard(path)
    medians = {side: median_ms(taken) for side, taken in seconds.items()}
    ratio = medians["ours"] / medians["raw"]
    return [
        Figure(
            section="raw limit",
            name="add_items, one session alone, a commit each",
            size=ALONE_TURNS,
            ours=medians["ours"],
            raw=medians["raw"],
            ratio=ratio,
            target=2,
            bound="at most",
        )
    ]


async def _add_alone(ours: Ours, path: Path, numbers: range) -> float:
    session = ours.open(path)
    await session.get_items(limit=1)
    batches = [items for number in numbers for items in adds(number)]
    gc.collect()
    start = time.perf_counter()
    for items in batches:
        await session.add_items(items)
    seconds = time.perf_counter() - start
    session.close()
    return seconds


async def measure_grouped(histories: Histories, turns: int, rounds: int) -> list[Figure]:
    """Compare a hundred sessions adding at once with a hundred adds to a commit."""
    ours = Ours()
    recorded, base = histories.new_path(), histories.new_path()
    sessions = open_crowd(ours, recorded)
    await first_turn(sessions)
    seal(recorded, base)
    changes = await _record(recorded, sessions, range(2, turns + 2))
    for session in sessions:
        session.close()
    histories.discard(recorded)

    rates: dict[str, list[float]] = {"ours": [], "raw": []}
    for side in in_turns(tuple(rates), rounds):
        if side == "raw":
            path = histories.fresh(base)
            rate = len(changes) / _write(path, changes, per_commit=SESSIONS)
        else:
            path = histories.new_path()
            rate = await adds_per_second(ours, path, turns)
        rates[side].append(rate)
        histories.discard(path)
    medians = {side: statistics.median(found) for side, found in rates.items()}
    return [
        Figure(
            section="raw limit",
            name=f"add_items, {SESSIONS} sessions at once, {SESSIONS} adds a commit",
            unit="adds/s",
            ours=medians["ours"],
            raw=medians["raw"],
            ratio=medians["raw"] / medians["ours"],
            target=1.5,
            bound="at most",
        )
    ]
