"""Fixtures: a sealed log on each engine, with its keys in a file beside."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from agents_eventlog.eventlog import KeyFile, RootKey

if TYPE_CHECKING:
    from pathlib import Path

ROOT = "evk1aaaqeayeaudaocajbifqydiob4ibceqtcqkrmfyydenbwha5dypwgdonfe"
"""The key of bytes 0 to 31."""


@pytest.fixture
def keys(tmp_path: Path) -> KeyFile:
    """A file of keys that keeps few of them ahead."""
    return KeyFile(tmp_path / "keys.db", RootKey(ROOT), ahead=3)


@pytest.fixture(params=["sqlite", "postgres"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where the log is, on each engine."""
    if request.param == "sqlite":
        return str(tmp_path / "log.db")
    url: str = request.getfixturevalue("server").url()
    return url


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Where the log is, for tests that reach into its file."""
    return tmp_path / "log.db"
