"""Measuring the contestants side by side, in turns, so that a disturbance hits both alike."""

from __future__ import annotations

import gc
import hashlib
import json
import time
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from benchmarks.contestants import wear_in
from benchmarks.operations import Call, Operation
from benchmarks.results import Figure, median_ms

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from benchmarks.contestants import Session
    from benchmarks.histories import Histories

T = TypeVar("T")


class Taken(NamedTuple):
    """How long a call took by the clock, and how much processor time all threads used meanwhile."""

    clock: float
    processor: float


WARM_UP_CALLS = 3  # the first calls on a fresh copy find cold caches, at any length


def in_turns(starters: Sequence[T], rounds: int) -> Iterator[T]:
    """Yield all starters once in each round, the other way round in every second one."""
    for number in range(rounds):
        yield from starters if number % 2 == 0 else reversed(starters)


async def measure(
    operation: Operation, histories: Histories, sizes: Sequence[int], rounds: int
) -> list[Figure]:
    """
    Measure an operation at those of its lengths that are asked for, and how ours grows.

    Every round has a copy of the history in steady state.
    """
    asked = [turns for turns in operation.targets if turns in sizes]
    medians = await _medians(operation, histories, asked, rounds)
    figures = [
        Figure(
            section="operations",
            name=operation.title,
            size=turns,
            sdk=medians["sdk", turns].clock,
            ours=medians["ours", turns].clock,
            sdk_cpu=medians["sdk", turns].processor,
            ours_cpu=medians["ours", turns].processor,
            ratio=medians["sdk", turns].clock / medians["ours", turns].clock,
            target=operation.targets[turns],
        )
        for turns in asked
    ]
    if not operation.reads_all and len(asked) > 1:
        short, long = asked[0], asked[-1]
        figures.append(
            Figure(
                section="growth",
                name=operation.title,
                size=long,
                unit=f"times {short} turns",
                sdk=medians["sdk", long].clock / medians["sdk", short].clock,
                ours=medians["ours", long].clock / medians["ours", short].clock,
                target=1.3,
                bound="at most",
            )
        )
    return figures


async def _medians(
    operation: Operation, histories: Histories, sizes: Sequence[int], rounds: int
) -> dict[tuple[str, int], Taken]:
    seconds: dict[tuple[str, int], list[Taken]] = {}
    answers: dict[tuple[str, int], list[bytes]] = {}
    for turns in sizes:
        await histories.prepare(turns, operation.branches, in_one_call=operation.in_one_call)
    starts = [(contestant, turns) for turns in sizes for contestant in histories.contestants]
    for contestant, turns in in_turns(starts, rounds):
        path = histories.copy(
            contestant, turns, operation.branches, in_one_call=operation.in_one_call
        )
        await wear_in(contestant, path)
        taken, given = await _round(operation, contestant.open(path), turns)
        histories.discard(path)
        key = contestant.name, turns
        seconds.setdefault(key, []).extend(taken)
        answers.setdefault(key, []).extend(given)
    for turns in sizes:
        first, *others = (answers[c.name, turns] for c in histories.contestants)
        if any(other != first for other in others):
            raise RuntimeError(f"{operation.title} at {turns} turns: the answers differ")
    return {
        key: Taken(*(median_ms(times) for times in zip(*taken, strict=True)))
        for key, taken in seconds.items()
    }


async def _round(
    operation: Operation, session: Session, turns: int
) -> tuple[list[Taken], list[bytes]]:
    seconds = []
    answers = []
    gc.collect()
    for number in range(1, WARM_UP_CALLS + operation.calls_per_round + 1):
        call = Call(session, turns, turns + number)
        prepared = await operation.prepare(call)
        start, used = time.perf_counter(), time.process_time()
        result = await operation.run(call, prepared)
        taken = Taken(time.perf_counter() - start, time.process_time() - used)
        if number > WARM_UP_CALLS:
            seconds.append(taken)
        answers.append(_digest(operation.answer(result)))
        del result  # what is kept alive slows the collector, and so the next call
    session.close()
    return seconds, answers


def _digest(answer: Any) -> bytes:
    return hashlib.sha256(json.dumps(answer).encode()).digest()
