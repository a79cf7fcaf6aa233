"""Whatever comes as a payload, metadata, a line, a head, a file of lines: an answer or a clear error."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.fuzz.damage import damaged_json
from tests.fuzz.seeds import lines, seeds
from tests.fuzz.targets import TARGETS, in_and_out

if TYPE_CHECKING:
    from random import Random

CORPUS = Path(__file__).parent / "corpus"
ROUNDS = {"log_lines": 15}
PROOF_FACTOR = 200


def attack(target: str, chance: Random, rounds: int) -> None:
    """Give a target so many damaged inputs; the failing one is told."""
    whole = seeds(target)
    for _ in range(rounds):
        if target == "log_lines":
            places = [chance.randrange(len(whole)) for _ in range(chance.randrange(1, 4))]
            attempt = b"\n".join(
                damaged_json(chance, each) if place in places else each
                for place, each in enumerate(whole)
            )
        else:
            attempt = damaged_json(chance, chance.choice(whole))
        try:
            TARGETS[target](attempt)
        except BaseException as error:
            error.add_note(f"{target} given {attempt!r}")
            raise


@pytest.mark.parametrize("target", TARGETS)
def test_of_damaged_input_there_is_an_answer_or_a_clear_error(target: str, chance: Random) -> None:
    attack(target, chance, ROUNDS.get(target, 300))


@pytest.mark.proof
@pytest.mark.parametrize("target", TARGETS)
def test_of_much_damaged_input_there_is_an_answer_or_a_clear_error(
    target: str, chance: Random
) -> None:
    attack(target, chance, ROUNDS.get(target, 300) * PROOF_FACTOR)


@pytest.mark.parametrize("target", TARGETS)
def test_input_that_is_well_is_taken(target: str) -> None:
    if target == "log_lines":
        assert len(asyncio.run(in_and_out(b"\n".join(lines())))) == len(lines())
    for whole in seeds(target):
        TARGETS[target](whole)
    TARGETS[target](b"\n".join(seeds(target)))
    TARGETS[target](b"")


@pytest.mark.parametrize(
    "entry", sorted(CORPUS.glob("*/*")), ids=lambda entry: f"{entry.parent.name}/{entry.name}"
)
def test_what_once_failed_is_an_answer_or_a_clear_error(entry: Path) -> None:
    TARGETS[entry.parent.name](entry.read_bytes())
