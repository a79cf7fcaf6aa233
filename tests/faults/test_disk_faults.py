"""A full or broken disk, and processes that are killed, at each write and sync under an operation."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.faults.children.on_disk import CHECKPOINTS
from tests.faults.disk import run_on_disk, shim
from tests.faults.openings import OPENINGS
from tests.faults.operations import WRITES

if TYPE_CHECKING:
    import random
    from pathlib import Path

__all__ = ["shim"]
pytestmark = pytest.mark.timeout(900)

REACH_THE_DISK = [*sorted(WRITES), "projections.replay"]
CAN_BE_KILLED = [*REACH_THE_DISK, *CHECKPOINTS, *(n for n in OPENINGS if "to read" not in n)]


@pytest.mark.parametrize("each", [False, pytest.param(True, marks=pytest.mark.proof)])
def test_a_disk_that_fails_under_an_operation_leaves_nothing_of_it(
    tmp_path: Path, shim: Path, chance: random.Random, each: bool
) -> None:
    names = REACH_THE_DISK if each else chance.sample(REACH_THE_DISK, 6)
    failed = run_on_disk(
        shim, "fail", folder=str(tmp_path), names=names, seed=str(chance.random()), each=each
    )
    assert all(count > 0 for count in failed.values()), failed


@pytest.mark.parametrize("times", [2, pytest.param(120, marks=pytest.mark.proof)])
def test_a_process_killed_under_an_operation_leaves_nothing_or_all_of_it(
    tmp_path: Path, shim: Path, chance: random.Random, times: int
) -> None:
    left = run_on_disk(
        shim,
        "kill",
        folder=str(tmp_path),
        names=CAN_BE_KILLED,
        seed=str(chance.random()),
        times=times,
    )
    assert all(map(any, zip(*left.values(), strict=True)))
