"""The command line of the measurements."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from benchmarks import machine, report
from benchmarks.biglog import measure_log
from benchmarks.compare import measure
from benchmarks.contestants import Ours, Sdk
from benchmarks.crowd import measure_crowd
from benchmarks.histories import Histories
from benchmarks.operations import OPERATIONS
from benchmarks.raw import measure_alone, measure_grouped
from benchmarks.results import Figure

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    Measurement = Callable[[Histories, bool], Awaitable[list[Figure]]]


async def _crowd(histories: Histories, quick: bool) -> list[Figure]:
    return await measure_crowd(histories, turns=3 if quick else 10, rounds=2 if quick else 5)


async def _file_size(histories: Histories, quick: bool) -> list[Figure]:
    del quick  # it takes next to no time
    turns, branches = 1_000, 10
    await histories.prepare(turns, branches)
    sdk, ours = (
        histories.size_bytes(contestant, turns, branches) / 1_000_000
        for contestant in histories.contestants
    )
    return [
        Figure(
            section="operations",
            name=f"file after {branches} branches at turn {turns // 2}",
            size=turns,
            unit="MB",
            sdk=sdk,
            ours=ours,
            ratio=sdk / ours,
            target=3,
        )
    ]


async def _raw_alone(histories: Histories, quick: bool) -> list[Figure]:
    return await measure_alone(histories, turns=20 if quick else 50, rounds=4 if quick else 10)


async def _raw_grouped(histories: Histories, quick: bool) -> list[Figure]:
    return await measure_grouped(histories, turns=2 if quick else 5, rounds=6 if quick else 20)


async def _log(histories: Histories, quick: bool) -> list[Figure]:
    longest = 50_000 if quick else 1_000_000
    return await measure_log(histories, (10_000, longest), rounds=3 if quick else 5)


def _operation(number: int) -> Measurement:
    async def run(histories: Histories, quick: bool) -> list[Figure]:
        sizes = (10, 1_000) if quick else (10, 1_000, 10_000, 100_000)
        return await measure(OPERATIONS[number], histories, sizes, rounds=3 if quick else 8)

    return run


MEASUREMENTS: dict[str, Measurement] = {
    **{operation.name: _operation(number) for number, operation in enumerate(OPERATIONS)},
    "crowd": _crowd,
    "file_size": _file_size,
    "raw_alone": _raw_alone,
    "raw_grouped": _raw_grouped,
    "log": _log,
}


def main() -> None:
    """Run the command line."""
    typer.run(run)


def run(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document a line.")] = False,
    quick: Annotated[bool, typer.Option(help="Short histories and few rounds.")] = False,
    only: Annotated[
        list[str] | None, typer.Option(help=f"Only these: {', '.join(MEASUREMENTS)}.")
    ] = None,
    directory: Annotated[
        Path | None, typer.Option(help="Where to put the files; its disk is what is measured.")
    ] = None,
) -> None:
    """Measure beside the SDK's class, and beside plain sqlite3, in one run."""
    unknown = set(only or ()) - MEASUREMENTS.keys()
    if unknown:
        raise typer.BadParameter(f"unknown: {', '.join(sorted(unknown))}", param_hint="--only")
    names = only or list(MEASUREMENTS)
    figures: list[Figure] = []
    with tempfile.TemporaryDirectory(dir=directory, prefix="benchmarks-") as folder:
        facts = machine.facts(Path(folder)) | {"load_before": machine.load()}
        try:
            asyncio.run(_measure(names, Path(folder), figures, quick=quick))
        finally:  # what was measured before something failed took long enough
            facts["load_after"] = machine.load()
            if as_json:
                report.print_json(facts, figures)
            else:
                report.print_tables(facts, figures)


async def _measure(names: list[str], folder: Path, figures: list[Figure], *, quick: bool) -> None:
    histories = Histories(folder, (Sdk(), Ours()))
    with Console(stderr=True).status("") as status:
        for name in names:
            status.update(f"measuring {name} ...")
            figures += await MEASUREMENTS[name](histories, quick)
