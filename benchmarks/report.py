"""The figures as tables for people, or as one JSON document a line for programs."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Iterable

    from benchmarks.results import Figure, Section

FILE_WIDTH = 120
_TITLES: dict[Section, str] = {
    "operations": "Beside the SDK's class (ratio: times better)",
    "growth": "Growth with the history's length",
    "raw limit": "Beside plain sqlite3 (ratio: times worse)",
    "log": "The log",
    "scale": "Large logs",
    "sessions": "Many sessions",
}
_SIZES: dict[Section, str] = {
    "growth": "length",
    "log": "events",
    "scale": "events",
    "sessions": "sessions",
}


def print_json(machine: dict[str, Any], figures: Iterable[Figure]) -> None:
    """Print the machine and each figure as one JSON document a line."""
    print(json.dumps({"kind": "machine", **machine}))
    for figure in figures:
        print(json.dumps({"kind": "figure", **asdict(figure), "reached": figure.reached}))


def print_tables(machine: dict[str, Any], figures: list[Figure]) -> None:
    """Print one table for each section that has figures."""
    console = Console(width=None if sys.stdout.isatty() else FILE_WIDTH)
    console.print("  ".join(f"[dim]{name}[/] {value}" for name, value in machine.items()))
    slower = [
        f for f in figures if f.section == "operations" and f.ratio is not None and f.ratio < 1
    ]
    if slower:
        console.print()
        console.print(_table("Slower than the SDK's class", "turns", slower))
    for section, title in _TITLES.items():
        chosen = [figure for figure in figures if figure.section == section]
        if chosen:
            console.print()
            console.print(_table(title, _SIZES.get(section, "turns"), chosen))
    judged = [figure.reached for figure in figures if figure.reached is not None]
    console.print(f"\n{sum(judged)} of {len(judged)} targets reached")


def _table(title: str, size: str, figures: list[Figure]) -> Table:
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    values = [
        name for name in ("sdk", "ours", "raw", "sdk_cpu", "ours_cpu") if _used(figures, name)
    ]
    with_ratio = _used(figures, "ratio")
    table.add_column("operation")
    headers = [name.replace("_", " ") for name in values]
    for header in (size, *headers, "unit", *(["ratio"] if with_ratio else []), "target", ""):
        table.add_column(header, justify="left" if header == "unit" else "right", no_wrap=True)
    for figure in figures:
        cells = [figure.name, "" if figure.size is None else f"{figure.size:,}"]
        cells += [_number(getattr(figure, name)) for name in values]
        cells.append(figure.unit)
        if with_ratio:
            cells.append(_number(figure.ratio))
        cells += [_target(figure), _mark(figure.reached)]
        table.add_row(*cells)
    return table


def _used(figures: list[Figure], name: str) -> bool:
    return any(getattr(figure, name) is not None for figure in figures)


def _number(value: float | None) -> str:
    if value is None:
        return ""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _target(figure: Figure) -> str:
    if figure.target is None:
        return ""
    sign = "≥" if figure.bound == "at least" else "≤"
    return f"{sign} {figure.target:,g}"


def _mark(reached: bool | None) -> str:
    return {None: "", True: "[green]reached[/]", False: "[red]missed[/]"}[reached]
