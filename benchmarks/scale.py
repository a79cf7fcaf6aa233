"""
What a large log costs: `python -m benchmarks.scale`.

Makes logs of about a million and of ten million events (see ``benchmarks.population``), does everything
that one does with a log, each in a process of its own, and prints the time and the peak of memory of each,
and how both grow. Takes an hour and 25 GB of disk; `--sessions 1000 --sessions 10000` takes minutes.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer
from rich.console import Console

from agents_eventlog.eventlog import EventLog
from benchmarks import machine, report
from benchmarks.population import Population, made
from benchmarks.results import Figure
from benchmarks.steps import EACH_EVENT, EACH_SESSION, STEPS

if TYPE_CHECKING:
    from collections.abc import Iterator

LARGE = (10_000, 100_000)


class Taken(NamedTuple):
    """What a step took: seconds, those of a processor in its whole process, megabytes at the peak."""

    seconds: float
    cpu_seconds: float
    peak_megabytes: float


def run(
    sessions: Annotated[
        list[int] | None, typer.Option(help="So many sessions, about a hundred events each.")
    ] = None,
    only: Annotated[list[str] | None, typer.Option(help="Only this step.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document a line.")] = False,
    directory: Annotated[
        Path | None, typer.Option(help="Where to put the files, and to find them the next time.")
    ] = None,
) -> None:
    """Measure what a large log costs."""
    figures: list[Figure] = []
    taken: dict[tuple[str, int], Taken] = {}
    sizes = []
    with folder_for(directory) as folder, Console(stderr=True).status("") as status:
        facts = machine.facts(folder) | {"load_before": machine.load()}
        for number in sorted(sessions or LARGE):
            status.update(f"making {number:,} sessions ...")
            path = made(folder, Population(sessions=number))
            events = _events(path)
            sizes.append(events)
            for name in only or STEPS:
                status.update(f"{events:,} events: {name} ...")
                taken[name, events] = one = measured(path, name)
                figures += _figures(name, events, one)
                print(f"{events:,} {name}: {one}", file=sys.stderr)
    for name in only or STEPS:
        figures += _growth(name, sizes, taken)
    facts["load_after"] = machine.load()
    (report.print_json if as_json else report.print_tables)(facts, figures)


@contextmanager
def folder_for(directory: Path | None) -> Iterator[Path]:
    """Give a folder: the one that was named, or one that is gone afterwards."""
    if directory is not None:
        yield directory
        return
    with tempfile.TemporaryDirectory(prefix="scale-") as folder:
        yield Path(folder)


def _events(path: Path) -> int:
    log = EventLog.open_sync(path, read_only=True)
    [count] = log.store.read_sync(lambda tx: tx.all("SELECT MAX(position) FROM events"))[0]
    log.close()
    return int(count)


def measured(path: Path, name: str) -> Taken:
    """Do a step in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.child"]
    command += [sys.executable, "-m", "benchmarks.steps", str(path), name]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    outside = json.loads(done.stdout)
    if outside["exit_code"] != 0:
        raise RuntimeError(f"{name} ended with {outside['exit_code']}: {done.stderr}")
    inside = json.loads(done.stderr.splitlines()[-1])
    return Taken(inside["seconds"], outside["cpu_seconds"], outside["peak_bytes"] / 1e6)


def _figures(name: str, events: int, taken: Taken) -> list[Figure]:
    goes_through_all = name in EACH_EVENT
    seconds = Figure(
        section="scale",
        name=name,
        size=events,
        unit="s" if goes_through_all else "ms",
        ours=taken.seconds if goes_through_all else taken.seconds * 1_000,
    )
    peak = Figure(
        section="scale",
        name=f"{name}, peak memory",
        size=events,
        unit="MB",
        ours=taken.peak_megabytes,
    )
    return [seconds, peak]


def _growth(name: str, sizes: list[int], taken: dict[tuple[str, int], Taken]) -> list[Figure]:
    """Compare the largest log with the smallest: only what goes through all of it may grow with it."""
    small, large = min(sizes), max(sizes)
    if small == large:
        return []
    grows = name in (*EACH_EVENT, *EACH_SESSION)
    before, after = taken[name, small], taken[name, large]
    unit = f"times {small:,} events"
    time = Figure(
        section="growth",
        name=name,
        size=large,
        unit=unit,
        ours=after.seconds / before.seconds,
        target=1.5 * large / small if grows else 2,
        bound="at most",
    )
    memory = Figure(
        section="growth",
        name=f"{name}, peak memory",
        size=large,
        unit=unit,
        ours=after.peak_megabytes / before.peak_megabytes,
        target=None if name in EACH_SESSION else 1.5,
        bound="at most",
    )
    return [time, memory]


if __name__ == "__main__":
    typer.run(run)
