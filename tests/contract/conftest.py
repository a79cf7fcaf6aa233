"""Fixtures: a world of two files, and a session on each of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.contract.harness import Pair, World

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(params=["sqlite", "postgres"])
def engine(request: pytest.FixtureRequest) -> str:
    """Name the engine of our side; a test marked ``sqlite_only`` says why it runs on SQLite alone."""
    name: str = request.param
    only = request.node.get_closest_marker("sqlite_only")
    if name != "sqlite" and only is not None:
        pytest.skip(f"SQLite only: {only.args[0]}")
    return name


@pytest.fixture
def world(tmp_path: Path, engine: str, request: pytest.FixtureRequest) -> Iterator[World]:
    """Two files, one for the SDK's sessions and one for ours; or a log on PostgreSQL for ours."""
    made = World(tmp_path)
    if engine == "postgres":
        made.url = request.getfixturevalue("server").url()
    yield made
    made.close()


@pytest.fixture
def pair(world: World) -> Pair:
    """The same new session on both sides."""
    return world.open()
