"""A hundred sessions that add at once, in one file."""

from __future__ import annotations

import asyncio
import gc
import statistics
import time
from typing import TYPE_CHECKING

from benchmarks.compare import in_turns
from benchmarks.results import Figure
from benchmarks.turns import adds

if TYPE_CHECKING:
    from pathlib import Path

    from agents.items import TResponseInputItem

    from benchmarks.contestants import Contestant, Session
    from benchmarks.histories import Histories

SESSIONS = 100


async def _add(session: Session, batches: list[list[TResponseInputItem]]) -> None:
    for items in batches:
        await session.add_items(items)


def open_crowd(contestant: Contestant, path: Path) -> list[Session]:
    """Open all the sessions of the crowd on one file."""
    return [contestant.open(path, f"session {number}") for number in range(SESSIONS)]


async def first_turn(sessions: list[Session]) -> None:
    """Let each session add a first turn, so that its rows and connections are there."""
    batches = adds(1)
    await asyncio.gather(*(_add(session, batches) for session in sessions))


async def adds_per_second(contestant: Contestant, path: Path, turns: int) -> float:
    """Let all sessions add turns at once to a new file; return how many adds went in a second."""
    sessions = open_crowd(contestant, path)
    await first_turn(sessions)
    batches = [items for number in range(2, turns + 2) for items in adds(number)]
    gc.collect()
    start = time.perf_counter()
    await asyncio.gather(*(_add(session, batches) for session in sessions))
    seconds = time.perf_counter() - start
    for session in sessions:
        session.close()
    return SESSIONS * len(batches) / seconds


async def measure_crowd(histories: Histories, turns: int, rounds: int) -> list[Figure]:
    """Compare the contestants' rates."""
    rates: dict[str, list[float]] = {c.name: [] for c in histories.contestants}
    for contestant in in_turns(histories.contestants, rounds):
        path = histories.new_path()
        rates[contestant.name].append(await adds_per_second(contestant, path, turns))
        histories.discard(path)
    sdk = statistics.median(rates["sdk"])
    ours = statistics.median(rates["ours"])
    return [
        Figure(
            section="operations",
            name=f"{SESSIONS} sessions adding at once",
            unit="adds/s",
            sdk=sdk,
            ours=ours,
            ratio=ours / sdk,
            target=15,
        )
    ]
