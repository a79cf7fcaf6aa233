"""Replaying, verifying and opening a log of ten thousand and of a million events."""

from __future__ import annotations

import asyncio
import json
import statistics
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agents_eventlog import projections
from agents_eventlog.eventlog import EventLog, ItemsAdded
from benchmarks.compare import in_turns
from benchmarks.results import Figure
from benchmarks.turns import adds

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from benchmarks.histories import Histories

EVENTS_PER_SESSION = 1_000
EVENTS_PER_APPEND = 100
SHORT_EVENTS = 10


@dataclass(frozen=True)
class _Run:
    seconds: float
    peak_megabytes: float


def _session_ids(events: int) -> list[str]:
    return [f"session {number}" for number in range(max(1, events // EVENTS_PER_SESSION))]


async def _build(path: Path, events: int) -> None:
    """Append so many items_added events, their sessions mixed as they are when many are at work."""
    session_ids = _session_ids(events)
    each = events // len(session_ids)
    made = [
        ItemsAdded(items=list(items))
        for number in range(1, (each + 1) // 2 + 1)
        for items in adds(number)
    ][:each]
    async with EventLog.open(path, projections=projections.default(), durability="normal") as log:
        for first in range(0, each, EVENTS_PER_APPEND):
            some = made[first : first + EVENTS_PER_APPEND]
            await asyncio.gather(
                *(log.append(name, some, branch_id="main") for name in session_ids)
            )


def _replay(path: Path) -> _Run:
    command = [sys.executable, "-m", "benchmarks.child"]
    command += [sys.executable, "-m", "agents_eventlog", "replay", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    report = json.loads(done.stdout)
    if report["exit_code"] != 0:
        raise RuntimeError(f"the replay ended with {report['exit_code']}: {done.stderr}")
    return _Run(report["seconds"], report["peak_bytes"] / 1_000_000)


def _open(path: Path, events: int) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.opening", str(path), _session_ids(events)[-1]]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    seconds: dict[str, float] = json.loads(done.stdout)
    return seconds


async def measure_log(histories: Histories, sizes: Sequence[int], rounds: int) -> list[Figure]:
    """
    Measure replay, verify and opening at each length.

    A replay is a command: what it takes for ten events is taken off, so that what is left is the
    work. Only the longest log, replayed once, takes long enough to be held to a target; a rate is
    left out where the work does not stand out from how much the start itself varies.
    """
    short = histories.new_path()
    await _build(short, SHORT_EVENTS)
    figures = []
    peaks = []
    for events in sizes:
        path = histories.new_path()
        await _build(path, events)
        runs: dict[Path, list[_Run]] = {short: [], path: []}
        for one in in_turns((short, path), 1 if events >= 1_000_000 else rounds):
            runs[one].append(_replay(one))
        rate = _rate(events, runs[short], runs[path])
        peaks.append(statistics.median(run.peak_megabytes for run in runs[path]))
        opened = _open(path, events)
        histories.discard(path)
        figures += [
            _figure("replay", events, "events/s", rate, 50_000 if events == sizes[-1] else None),
            _figure("replay, peak memory", events, "MB", peaks[-1]),
            _figure("verify", events, "events/s", events / opened["verify_seconds"]),
            _figure(
                "open and read the newest 20 items", events, "ms", opened["open_seconds"] * 1e3
            ),
        ]
    figures.append(
        Figure(
            section="growth",
            name="replay, peak memory",
            size=sizes[-1],
            unit=f"times {sizes[0]} events",
            ours=peaks[-1] / peaks[0],
            target=1.25,
            bound="at most",
        )
    )
    return figures


def _rate(events: int, starts: list[_Run], runs: list[_Run]) -> float | None:
    start_seconds = [run.seconds for run in starts]
    seconds = statistics.median(
        run.seconds - start for run, start in zip(runs, start_seconds, strict=True)
    )
    if seconds <= max(start_seconds) - min(start_seconds):
        return None
    return (events - SHORT_EVENTS) / seconds if seconds > 0 else None


def _figure(
    name: str, events: int, unit: str, ours: float | None, target: float | None = None
) -> Figure:
    return Figure(section="log", name=name, size=events, unit=unit, ours=ours, target=target)
