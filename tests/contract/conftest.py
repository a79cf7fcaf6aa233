"""Fixtures: a world of two files, and a session on each of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.contract.harness import Pair, World

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """Two files, one for the SDK's sessions and one for ours."""
    made = World(tmp_path)
    yield made
    made.close()


@pytest.fixture
def pair(world: World) -> Pair:
    """The same new session on both sides."""
    return world.open()
