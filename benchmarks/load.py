"""
Hours of a service compressed into minutes: `python -m benchmarks.load`.

Clients talk, take back, branch, look, clear, with a session object for each request that nobody closes.
Prints throughput and latencies over time, and what the process holds; exits with 1 if that grows with the
work done, if a request fails, or if the file is not what was written.
"""

from __future__ import annotations

import json
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks import leaks, machine
from benchmarks.report import FILE_WIDTH
from benchmarks.service import Interval, Plan, Service

if TYPE_CHECKING:
    from benchmarks.leaks import Growth

PERCENTILES = (50, 90, 99, 99.9)


def run(
    minutes: Annotated[float, typer.Option(help="How long.")] = 10,
    sessions: Annotated[int, typer.Option(help="How many clients at once.")] = 100,
    intervals: Annotated[int, typer.Option(min=6, help="How many samples are taken.")] = 20,
    seed: Annotated[int, typer.Option(help="What the clients do.")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document a line.")] = False,
    directory: Annotated[Path | None, typer.Option(help="Where to put the file.")] = None,
) -> None:
    """Put a service under load, and see that what it holds stays as it is."""
    plan = Plan(sessions=sessions, intervals=intervals, seconds=minutes * 60 / intervals, seed=seed)
    with tempfile.TemporaryDirectory(dir=directory, prefix="load-") as folder:
        facts = machine.facts(Path(folder)) | {"load_before": machine.load()}
        service = Service(Path(folder) / "load.db", plan)
        done = []
        with Console(stderr=True).status("") as status:
            for interval in service.run():
                done.append(interval)
                status.update(f"{len(done)} of {intervals} intervals ...")
                if as_json:
                    print(json.dumps({"kind": "interval", **_document(interval)}), flush=True)
        problems = service.problems()
    facts["load_after"] = machine.load()
    growths = leaks.judge([interval.sample for interval in done])
    if as_json:
        _print_json(facts, growths, problems)
    else:
        _print_tables(facts, done, growths, problems)
    sys.exit(1 if problems or any(growth.is_leak for growth in growths) else 0)


def _document(interval: Interval) -> dict[str, Any]:
    return {
        "seconds": round(interval.seconds, 3),
        "requests": interval.requests,
        "latencies_ms": {
            name: {
                "count": latencies.count,
                **{f"p{percent:g}": latencies.percentile_ms(percent) for percent in PERCENTILES},
                "max": latencies.max_seconds * 1_000,
            }
            for name, latencies in sorted(interval.latencies.items())
        },
        "held": asdict(interval.sample),
    }


def _print_json(facts: dict[str, Any], growths: list[Growth], problems: list[str]) -> None:
    print(json.dumps({"kind": "machine", **facts}))
    for growth in growths:
        print(json.dumps({"kind": "growth", **growth._asdict(), "is_leak": growth.is_leak}))
    for problem in problems:
        print(json.dumps({"kind": "problem", "problem": problem}))


def _print_tables(
    facts: dict[str, Any], done: list[Interval], growths: list[Growth], problems: list[str]
) -> None:
    console = Console(width=None if sys.stdout.isatty() else FILE_WIDTH)
    console.print("  ".join(f"[dim]{name}[/] {value}" for name, value in facts.items()))
    for table in (_over_time(done), _by_operation(done), _what_grew(done, growths)):
        console.print()
        console.print(table)
    for problem in problems:
        console.print(problem, style="red", markup=False)


def _table(title: str, first: str, *rest: str) -> Table:
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column(first)
    for header in rest:
        table.add_column(header, justify="right", no_wrap=True)
    return table


def _over_time(done: list[Interval]) -> Table:
    heads = (
        "requests/s",
        "writes p50 ms",
        "p99",
        "reads p50 ms",
        "p99",
        "RSS MB",
        "objects",
        "WAL MB",
    )
    table = _table("Over time", "minutes", *heads)
    passed = 0.0
    for interval in done:
        passed += interval.seconds
        held = interval.sample
        writes, reads = (
            interval.latencies.get(name) for name in ("add_items", "get_items(limit=20)")
        )
        cells = [
            f"{latencies.percentile_ms(percent):.2f}" if latencies else ""
            for latencies in (writes, reads)
            for percent in (50, 99)
        ]
        table.add_row(
            f"{passed / 60:.1f}",
            f"{interval.requests / interval.seconds:,.0f}",
            *cells,
            f"{held.rss_bytes / leaks.MEGABYTE:.1f}",
            f"{held.objects:,}",
            f"{held.wal_bytes / leaks.MEGABYTE:.1f}",
        )
    return table


def _by_operation(done: list[Interval]) -> Table:
    heads = ("calls", *(f"p{percent:g} ms" for percent in PERCENTILES), "max ms")
    table = _table("By operation, the median of the intervals (max: of all)", "operation", *heads)
    for name in sorted({name for interval in done for name in interval.latencies}):
        all_of_it = [one.latencies[name] for one in done if name in one.latencies]
        middle = len(all_of_it) // 2
        table.add_row(
            name,
            f"{sum(latencies.count for latencies in all_of_it):,}",
            *(
                f"{sorted(one.percentile_ms(percent) for one in all_of_it)[middle]:.2f}"
                for percent in PERCENTILES
            ),
            f"{max(one.max_seconds for one in all_of_it) * 1_000:.0f}",
        )
    return table


def _what_grew(done: list[Interval], growths: list[Growth]) -> Table:
    half = done[len(done) // 2 :]
    requests = half[-1].sample.requests - half[0].sample.requests
    title = f"Growth over the last {requests:,} requests"
    table = _table(title, "held", "before", "grew by", "may grow by", "")
    for growth in growths:
        table.add_row(
            growth.name,
            f"{growth.before:,.0f}",
            f"{growth.growth:,.0f}",
            f"{growth.allowed:,.0f}",
            "[red]leak[/]" if growth.is_leak else "[green]flat[/]",
        )
    return table


if __name__ == "__main__":
    typer.run(run)
