"""Fixtures of the adapters' tests."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import agents
import pytest
from agents import Runner

from tests.adapters.running import OURS, SIDES, Sessions, at_once, from_storage, streamed

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def no_tracing() -> Iterator[None]:
    """Keep runs from sending their traces anywhere."""
    agents.set_tracing_disabled(True)
    yield
    agents.set_tracing_disabled(False)


@pytest.fixture(params=SIDES)
def sessions(
    request: pytest.FixtureRequest, tmp_path: Path, no_tracing: None
) -> Iterator[Sessions]:
    """Sessions on one file: once the SDK's, once ours."""
    opened = Sessions(request.param, tmp_path / "talk.db")
    yield opened
    opened.close()


@pytest.fixture
def ours(tmp_path: Path, no_tracing: None) -> Sessions:
    """Our sessions on one file, never closed."""
    return Sessions(OURS, tmp_path / "talk.db")


@pytest.fixture(params=[Runner.run, streamed], ids=["run", "streamed"])
def run(request: pytest.FixtureRequest) -> Any:
    """Either way to run an agent to its end."""
    return request.param


@pytest.fixture(params=[at_once, from_storage])
def resume(request: pytest.FixtureRequest) -> Any:
    """Either way to get the state of an interrupted run."""
    return request.param
