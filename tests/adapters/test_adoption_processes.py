"""Adoption is one transaction, whoever is killed in it and whoever else comes at the same time."""

from __future__ import annotations

import asyncio
import shutil
import signal
from typing import TYPE_CHECKING, Any

import pytest

from tests.adapters.old_files import assert_sound, events, ours, rows, sdk, tables
from tests.contract.items import turns
from tests.faults.children.actors import (
    adopt_and_die,
    adopt_and_die_before_projecting,
    open_and_count,
)
from tests.faults.processes import all_at_once, children
from tests.faults.support import PATIENCE_SECONDS

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SESSIONS = 5


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of the SDK's with several sessions, too big for SQLite to keep in its cache."""
    path = tmp_path_factory.mktemp("old") / "old.db"

    async def fill(name: str) -> None:
        session = sdk(path, name)
        for first in range(4):
            await session.add_items(
                turns(*(f"{first} {turn} {'x' * 2_000}" for turn in range(100)))
            )
        await session.create_branch_from_turn(50, "draft")
        await session.add_items(turns("other"))
        session.close()

    for number in range(SESSIONS):
        asyncio.run(fill(f"session {number}"))
    return path


@pytest.fixture
def path(tmp_path: Path, old: Path) -> Path:
    """A copy of that file."""
    return shutil.copy(old, tmp_path / "old.db")


def killed(function: Callable[..., Any], *arguments: object) -> bool:
    """Whether a process that does this is killed in the middle."""
    with children(1, function, *arguments) as (child,):
        child.process.join(PATIENCE_SECONDS)
        return child.process.exitcode == -signal.SIGKILL


# Each session takes an event to open, one to add what it holds of a second, one to branch, ...
@pytest.mark.parametrize("fatal", [1, 3, 12, 24])
async def test_killed_in_the_middle_leaves_nothing_and_the_next_opening_adopts_all(
    path: Path, fatal: int
) -> None:
    kept = tables(path)
    assert killed(adopt_and_die, str(path), fatal)
    names = {name for (name,) in rows(path, "SELECT name FROM sqlite_schema")}
    assert not names & {"events", "checkpoints", "log_properties", "sessions", "items"}
    assert rows(path, "PRAGMA application_id") == [(0,)]
    assert tables(path) == kept

    for number in range(SESSIONS):
        adopted = ours(path, f"session {number}")
        assert len(await adopted.get_items()) == 800
        assert len(await adopted.get_items(branch_id="draft")) == 100
        adopted.close()
    assert len(await events(path, "history_imported")) == SESSIONS
    assert tables(path) == kept
    await assert_sound(path)


async def test_killed_before_the_projections_are_built_loses_nothing(path: Path) -> None:
    assert killed(adopt_and_die_before_projecting, str(path))
    assert len(await events(path, "history_imported")) == SESSIONS
    assert len(await ours(path, "session 4").get_items()) == 800
    assert len(await events(path, "history_imported")) == SESSIONS
    await assert_sound(path)


async def test_processes_that_open_together_adopt_once(path: Path) -> None:
    assert all_at_once(3, open_and_count, str(path)) == [800] * 3
    assert len(await events(path, "history_imported")) == SESSIONS
    await assert_sound(path)
