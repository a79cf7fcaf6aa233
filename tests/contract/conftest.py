"""Fixtures: a world of two files, and a session on each of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from agents_eventlog.eventlog.cipher.root import generate_root_key
from tests.contract.harness import Pair, World

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(params=["sqlite", "postgres", "sealed", "sealed postgres"])
def engine(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """
    Name the engine of our side; a test marked ``sqlite_only`` says why it runs on SQLite alone.

    On either engine, our side's log is plain or sealed.
    """
    name: str = request.param
    only = request.node.get_closest_marker("sqlite_only")
    if "postgres" in name and only is not None:
        pytest.skip(f"SQLite only: {only.args[0]}")
    if "sealed" in name:
        monkeypatch.setenv("EVENTLOG_KEYS", str(tmp_path / "keys.db"))
        monkeypatch.setenv("EVENTLOG_KEY", generate_root_key())
    return "postgres" if "postgres" in name else "sqlite"


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
