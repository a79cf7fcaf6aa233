"""
What all tests share: the seed of everything random, and the long tests, marked ``proof``.

``make test`` leaves the long ones out and has a fixed seed; ``make proof`` runs them with a new one, and
prints it. ``EVENTLOG_PROOF_SEED=... make proof`` or ``pytest --seed=...`` does the same again.
"""

from __future__ import annotations

import os
import random
from typing import TYPE_CHECKING

import pytest

from tests import engines, postgres
from tests.sdk_versions import unmet

if TYPE_CHECKING:
    from collections.abc import Iterator

PROOF_TIMEOUT_SECONDS = 3_600
UNMEASURED = ("tests/contract/test_state_machine.py", "tests/fuzz/", "tests/properties/")
"""What goes the same ways many times: what the tests reach is measured without it, in half the time."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--seed",
        type=int,
        default=int(os.environ.get("EVENTLOG_PROOF_SEED", "0")),
        help="the seed of the random tests; default: EVENTLOG_PROOF_SEED, or 0",
    )

    parser.addoption(
        "--engine",
        choices=("sqlite", "postgres"),
        default="sqlite",
        help="where the logs of the adapters' and the properties' tests are: see tests/engines.py",
    )


def pytest_report_header(config: pytest.Config) -> str:
    return f"seed: {config.getoption('seed')}"


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Work with one process more than there are processors: tests wait for disks and children, too."""
    return (os.cpu_count() or 1) + 1


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Let the long tests take their time, and measure what tests reach where that takes little."""
    if config.getoption("engine") == "postgres":
        engines.select(config, items)
    for item in items:
        if reason := unmet(item.nodeid):
            item.add_marker(pytest.mark.skip(reason=reason))
        if item.nodeid.startswith(UNMEASURED):
            item.add_marker(pytest.mark.no_cover)
        if item.get_closest_marker("proof"):
            item.add_marker(pytest.mark.timeout(PROOF_TIMEOUT_SECONDS), append=False)


@pytest.fixture(autouse=True)
def _engine(request: pytest.FixtureRequest) -> None:
    """Put the logs of the test where ``--engine`` says."""
    if request.config.getoption("engine") == "postgres":
        monkeypatch = request.getfixturevalue("monkeypatch")
        engines.redirect(monkeypatch, request.getfixturevalue("server"))


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int:
    """Return the seed of this run."""
    found: int = request.config.getoption("seed")
    return found


@pytest.fixture
def chance(request: pytest.FixtureRequest, seed: int) -> random.Random:
    """Return a source of chance that depends on nothing but the seed and the test's name."""
    return random.Random(f"{seed} {request.node.name}")


@pytest.fixture(scope="session")
def server() -> Iterator[postgres.Server]:
    """Run a PostgreSQL server for this process."""
    programs = postgres.programs()
    if programs is None:
        reason = "the programs of a PostgreSQL server are not installed"
        if os.environ.get(postgres.REQUIRED):
            pytest.fail(reason)
        pytest.skip(reason)
    pytest.importorskip("psycopg", reason="the extra `postgres` is not installed")
    with postgres.running(programs) as started:
        yield started
