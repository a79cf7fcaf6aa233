"""Fixtures of the adapters' tests."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import agents
import pytest
from agents import Runner
from typer.testing import CliRunner

from agents_eventlog.adapters.cli import main as cli_main
from tests.adapters.moving import fill
from tests.adapters.running import OURS, SIDES, Sessions, at_once, from_storage, streamed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
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


@pytest.fixture
async def full(tmp_path: Path) -> Path:
    """A log with the sessions s, t and u, in which every event stands."""
    path = tmp_path / "full.db"
    await fill(path)
    return path


@pytest.fixture
def new(tmp_path: Path) -> Path:
    """Where a log is to be."""
    return tmp_path / "new.db"


@pytest.fixture
def command() -> Callable[..., Any]:
    """Run a command in a thread that has no event loop; answers with exit_code, stdout, stderr."""

    def invoke(*arguments: object) -> Any:
        words = [str(each) for each in arguments]
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(CliRunner().invoke, cli_main.app, words).result()

    return invoke
