"""
Questions to a hundred thousand sessions and five million items: `python -m benchmarks.sessions`.

Makes the file (see ``benchmarks.population``), asks, and prints how long each answer took: the median of
several, after one that is not counted. Needs 8 GB of disk, 15 GB with `--search`, which also builds the
full-text index.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable, Sized
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import typer
from rich.console import Console

from agents_eventlog.adapters.conversations.log import ConversationLog
from benchmarks import machine, report
from benchmarks.population import FIRST_DAY, Population, made, ticket, topic, user_id
from benchmarks.results import Figure
from benchmarks.scale import folder_for

PAGE = 50
TIMES = 9
MONTH = timedelta(days=30)

Ask: TypeAlias = Callable[[ConversationLog], Awaitable[Sized]]


@dataclass(frozen=True)
class Question:
    """A question, and in how many milliseconds it is to be answered."""

    name: str
    ask: Ask
    target_ms: float
    times: int = TIMES


def _sessions(**which: Any) -> Ask:
    return lambda log: log.sessions(limit=PAGE, **which)


def _usage(**which: Any) -> Ask:
    async def ask(log: ConversationLog) -> Sized:
        groups: list[Any] = (await log.usage(**which))["groups"]
        return groups

    return ask


def _items(text: str, **which: Any) -> Ask:
    return lambda log: log.find_items(text, limit=PAGE, **which)


async def _pages(log: ConversationLog) -> list[Question]:
    """Return the second and the thousandth page, or the last one if there are fewer."""
    before = await log.sessions(limit=999 * PAGE)
    pages = {"the second page": before[PAGE - 1], "the thousandth page": before[-1]}
    return [Question(name, _sessions(after=last["cursor"]), 100) for name, last in pages.items()]


def _questions(population: Population) -> list[Question]:
    middle = population.sessions // 2
    summer = datetime.fromtimestamp(FIRST_DAY / 1_000_000, UTC) + timedelta(days=200)
    month = {"since": summer, "until": summer + MONTH}
    week = {"created_after": summer, "created_before": summer + timedelta(days=7)}
    return [
        Question("sessions, the newest", _sessions(), 100),
        Question("sessions of a user", _sessions(user_id=user_id(middle)), 100),
        Question("sessions by a label that one has", _by_ticket(middle), 100),
        Question("sessions by a label that a tenth has", _sessions(metadata={"plan": "pro"}), 100),
        Question("sessions by a label that most have", _sessions(metadata={"plan": "free"}), 100),
        Question("sessions by two labels", _by_two_labels(), 100),
        Question("sessions made in a week", _sessions(order_by="created_at", **week), 100),
        Question("sessions not used for half a year", _sessions(updated_before=summer), 100),
        Question("usage of a month by user", _usage(by="user", **month), 1_000),
        Question("usage of a month by model", _usage(by="model", **month), 1_000),
        Question("usage of a month by day", _usage(by="day", **month), 1_000),
        Question("usage of a user by model", _usage(by="model", user_id=user_id(middle)), 100),
        Question("usage of all time by model", _usage(by="model"), 5_000, times=3),
    ]


def _by_ticket(number: int) -> Ask:
    return _sessions(metadata={"customer": {"ticket": ticket(number)}})


def _by_two_labels() -> Ask:
    return _sessions(metadata={"plan": "pro", "customer": {"tier": 3}})


def _searches(population: Population, how: str, times: int, target_ms: float) -> list[Question]:
    middle = population.sessions // 2
    asked = {
        "a text of one item": _items(ticket(middle)),
        "a text of a thousandth of the turns": _items(topic(123)),
        "a text of every turn": _items("ledger"),
        "a text of every turn, in one user's sessions": _items("ledger", user_id=user_id(middle)),
    }
    return [Question(f"{name}, {how}", ask, target_ms, times) for name, ask in asked.items()]


async def _answered(log: ConversationLog, question: Question) -> tuple[float, int]:
    """Return the median seconds until the answer, and its size."""
    answer = await question.ask(log)
    seconds = []
    for _ in range(question.times):
        start = time.perf_counter()
        answer = await question.ask(log)
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds), len(answer)


async def _measure(path: Path, population: Population, *, search: bool) -> list[Figure]:
    figures = []

    async def ask(log: ConversationLog, questions: list[Question]) -> None:
        for question in questions:
            seconds, rows = await _answered(log, question)
            figures.append(
                Figure(
                    section="sessions",
                    name=f"{question.name} ({rows:,} rows)",
                    size=population.sessions,
                    ours=seconds * 1_000,
                    target=question.target_ms,
                    bound="at most",
                )
            )

    async with ConversationLog.open(path) as log:
        await ask(log, [*_questions(population), *await _pages(log)])
        await ask(log, _searches(population, "by a scan", 1, float("inf")))
    if search:
        async with ConversationLog.open(path, search=True) as log:
            await ask(log, _searches(population, "by the index", TIMES, 500))
    return figures


def run(
    sessions: Annotated[int, typer.Option(help="How many sessions.")] = 100_000,
    turns: Annotated[float, typer.Option(help="How many turns each has, on average.")] = 12.2,
    search: Annotated[bool, typer.Option(help="Build the full-text index, and ask it.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document a line.")] = False,
    directory: Annotated[
        Path | None, typer.Option(help="Where to put the file, and to find it the next time.")
    ] = None,
) -> None:
    """Ask a file of many sessions for sessions, usage and items."""
    population = Population(sessions=sessions, turns_per_session=turns)
    with folder_for(directory) as folder, Console(stderr=True).status("making the file ..."):
        facts = machine.facts(folder) | {"load_before": machine.load()}
        figures = asyncio.run(_measure(made(folder, population), population, search=search))
    facts["load_after"] = machine.load()
    (report.print_json if as_json else report.print_tables)(facts, figures)


if __name__ == "__main__":
    typer.run(run)
