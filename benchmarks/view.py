"""
The pages of `eventlog view` on a long session and on many: `python -m benchmarks.view`.

Makes a file with a session of 100,000 items and 100,000 short sessions, then prints for each page its
bytes, and the milliseconds that the server took: the first time, and the median of several.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import httpx
import typer
from rich.console import Console
from rich.table import Table

from agents_eventlog.adapters.conversations.log import ConversationLog
from agents_eventlog.adapters.view import rendering
from agents_eventlog.adapters.view.app import create_app
from agents_eventlog.eventlog import (
    BranchCreated,
    ItemsAdded,
    RequestUsage,
    Transaction,
    UsageRecorded,
    append,
)

HOST = "127.0.0.1:4780"
LONG = "long"
ITEMS_OF_TURN = 8
TIMES = 9
AT_ONCE = 500


def _turn(number: int) -> list[Any]:
    """Return the items of a turn: a question, three tools with outputs, an answer."""
    items: list[Any] = [{"role": "user", "content": f"Question {number}: what comes next?"}]
    for tool in range(3):
        call_id = f"c{number}.{tool}"
        items += [
            {
                "type": "function_call",
                "name": "look_up",
                "call_id": call_id,
                "arguments": f'{{"number": {number}, "part": {tool}}}',
            },
            {"type": "function_call_output", "call_id": call_id, "output": "x" * 200},
        ]
    return [*items, {"role": "assistant", "content": f"Answer {number}. " + "word " * 60}]


def _used(number: int) -> UsageRecorded:
    request = RequestUsage(input_tokens=2_000, output_tokens=200, total_tokens=2_200, model="m")
    return UsageRecorded(run_id=f"r{number}", turn=number, requests=[request])


def _write_turns(tx: Transaction, numbers: range) -> None:
    for number in numbers:
        append(tx, LONG, ItemsAdded(items=_turn(number)), branch_id="main")
        append(tx, LONG, _used(number), branch_id="main")


def _write_sessions(tx: Transaction, numbers: range) -> None:
    for number in numbers:
        append(tx, f"s{number}", ItemsAdded(items=_turn(number)[:2]), branch_id="main")
        append(tx, f"s{number}", _used(1), branch_id="main")


def _ranges(count: int) -> Iterator[range]:
    for first in range(1, count + 1, AT_ONCE):
        yield range(first, min(first + AT_ONCE, count + 1))


async def write(path: Path, items: int, sessions: int) -> None:
    """Make the file."""
    async with ConversationLog.open(path, durability="normal") as log:
        for numbers in _ranges(sessions):
            await log.write(partial(_write_sessions, numbers=numbers))
        for numbers in _ranges(items // ITEMS_OF_TURN):
            await log.write(partial(_write_turns, numbers=numbers))
        for number in range(1, 6):
            fork = BranchCreated(branch_id=f"b{number}", from_branch_id="main", last_item=None)
            await log.append(LONG, fork)


async def measure(path: Path, items: int) -> Table:
    """Ask for the pages and return a table of what they took."""
    middle = items // ITEMS_OF_TURN // 2
    pages = {
        "50 sessions": "/",
        "their sums": "/sessions/totals",
        "first window, before the outline": f"/session?id={LONG}&branch=main",
        "outline and time bar": f"/session?id={LONG}&branch=main&whole=1",
        "window in the middle": f"/session/window?id={LONG}&branch=main&around={middle}",
        "outline, 200 turns of it": f"/session/outline?id={LONG}&branch=main&from={middle}",
        "a step of the slider": f"/session/at?id={LONG}&branch=main&v={middle}",
        "the page at a version": f"/session?id={LONG}&branch=main&v={middle}",
        "timeline": f"/session/timeline?id={LONG}",
        "usage by model": f"/session/spend?id={LONG}&by=model",
        "events": "/events",
    }
    table = Table("page", "bytes", "first ms", "median ms", "processor ms")
    async with ConversationLog.open(path, read_only=True) as log:
        app = create_app(log, hosts=[HOST], key=None, cookie="benchmark")
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url=f"http://{HOST}") as browser:
            for name, address in pages.items():
                table.add_row(name, *await _measured(browser, address))
    files = sum(
        len(content) for name, (content, _) in rendering.STATIC.items() if "svg" not in name
    )
    table.add_row("style sheet and script", f"{files:,}")
    return table


async def _measured(browser: httpx.AsyncClient, address: str) -> list[str]:
    walls, processors = [], []
    for _ in range(TIMES + 1):
        wall, processor = time.perf_counter(), time.process_time()
        answer = await browser.get(address)
        walls.append((time.perf_counter() - wall) * 1_000)
        processors.append((time.process_time() - processor) * 1_000)
        answer.raise_for_status()
    median = statistics.median(walls[1:])
    processor = statistics.median(processors[1:])
    return [f"{len(answer.content):,}", f"{walls[0]:.1f}", f"{median:.1f}", f"{processor:.1f}"]


def run(
    items: Annotated[int, typer.Option(help="Items of the long session.")] = 100_000,
    sessions: Annotated[int, typer.Option(help="Short sessions.")] = 100_000,
    file: Annotated[Path | None, typer.Option(help="Keep the file here, and use it again.")] = None,
) -> None:
    """Measure the pages."""
    with tempfile.TemporaryDirectory() as folder:
        path = file or Path(folder) / "view.db"
        if not path.exists():
            asyncio.run(write(path, items, sessions))
        Console().print(asyncio.run(measure(path, items)))


if __name__ == "__main__":
    typer.run(run)
