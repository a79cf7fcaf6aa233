"""
A power cut at any moment: at durability "full" nothing acknowledged is lost, at "normal" a tail at most.

A process makes a log and writes to it while the shim records what reaches the disk, and when. From the
record come copies of the files as they may be found after a cut: see ``power``. Each is opened and checked.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, get_args

import pytest

from agents_eventlog.eventlog.log import EventLog
from agents_eventlog.projections import default
from tests.faults import power
from tests.faults.disk import RecordedEvent, read_record, run_on_disk, shim
from tests.faults.files import rows
from tests.faults.power import Platter
from tests.faults.support import check_log

if TYPE_CHECKING:
    import random
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["shim"]
pytestmark = pytest.mark.timeout(900)

QUICK = [("full", 30, 12, 1), ("normal", 30, 12, 1)]
LONG = [
    *(("full", 1_500, 120, 1), ("normal", 1_500, 120, 1)),
    *(("full", 1_500, 60, 3), ("normal", 1_500, 60, 3)),
]
"""Durability; how many power cuts, in how many actions of each session, of how many processes."""


def moments(record: list[RecordedEvent], cuts: int, chance: random.Random) -> list[int]:
    """Choose when to cut the power: anywhere, and more often around a sync or an acknowledgement."""
    telling = [n for n, recorded in enumerate(record) if recorded.operation in "ns"]
    near = [chance.choice(telling) + chance.choice((0, 1)) for _ in range(cuts // 2)]
    return sorted(near + [chance.randrange(len(record)) for _ in range(cuts - len(near))])


def platters(record: list[RecordedEvent], at: list[int]) -> Iterator[tuple[int, Platter]]:
    """Give the state of the disk at these moments, in order."""
    platter, taken = Platter(), 0
    for moment in at:
        for recorded in record[taken:moment]:
            platter.take(recorded)
        taken = max(taken, moment)
        yield moment, platter


class Acknowledged:
    """What had been told to be done at each moment of a record."""

    def __init__(self, record: list[RecordedEvent], events: list[Any]) -> None:
        places = {(session_id, version): place for place, session_id, version, *_ in events}
        self.notes: list[tuple[int, int]] = []
        self.inside_batches: set[int] = set()
        for moment, recorded in enumerate(record):
            if recorded.operation == "n":
                session_id, version, count = recorded.data.decode().split()
                last = places[session_id, int(version)]
                self.notes.append((moment, last))
                self.inside_batches.update(range(last - int(count) + 1, last))

    def at(self, moment: int) -> int:
        """Return up to which position."""
        return max((position for noted, position in self.notes if noted < moment), default=0)


@pytest.mark.parametrize(
    ("durability", "cuts", "actions", "processes"),
    [*QUICK, *(pytest.param(*each, marks=pytest.mark.proof) for each in LONG)],
)
def test_after_a_power_cut_the_log_is_whole_and_has_all_that_it_promised(
    path: Path,
    shim: Path,
    chance: random.Random,
    durability: str,
    cuts: int,
    actions: int,
    processes: int,
) -> None:
    record_path = path.with_name("record")
    run_on_disk(
        shim,
        "write_on_record",
        path=str(path),
        record=str(record_path),
        seed=str(chance.random()),
        durability=durability,
        actions=actions,
        processes=processes,
    )
    record, events = read_record(record_path), rows(path)["events"]
    acknowledged = Acknowledged(record, events)
    assert checkpoints_in(record) > 2
    shortest = len(events)
    for number, (moment, platter) in enumerate(platters(record, moments(record, cuts, chance))):
        found_path = path.with_name(f"{number}.db")
        luck = get_args(power.Luck)[number % 4]
        platter.cut_power(found_path, luck, chance)
        found = events_after_reopening(found_path)
        told = f"cut at {moment} of {len(record)}, {luck} of the unsynced writes"
        assert found == events[: len(found)], told
        assert len(found) not in acknowledged.inside_batches, told
        if durability == "full":
            assert len(found) >= acknowledged.at(moment), told
        shortest = min(shortest, len(found) - acknowledged.at(moment))
        for file in found_path.parent.glob(f"{number}.db*"):
            file.unlink()
    if durability == "normal":
        assert shortest < 0  # or these were no power cuts


def checkpoints_in(record: list[RecordedEvent]) -> int:
    """Return how many times the database itself was synced."""
    return sum(r.operation == "s" and r.file == power.DATABASE for r in record)


def events_after_reopening(path: Path) -> list[Any]:
    """Open what was left, check it whole, and return its events."""
    log = EventLog.open_sync(path, projections=default())
    try:
        check_log(log)
    finally:
        log.close()
    return rows(path)["events"]
