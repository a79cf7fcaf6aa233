"""Fixtures: where a log is on each engine, and the key that signs its heads."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from agents_eventlog.eventlog import KeyFile, SigningKey

if TYPE_CHECKING:
    from pathlib import Path

SIGNING = "PRIVATE+KEY+PeterNeumann+c74f20a3+AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz"
"""The key of the examples of Go's ``golang.org/x/mod/sumdb/note``."""


@pytest.fixture
def key() -> SigningKey:
    """A key that signs heads."""
    return SigningKey(SIGNING)


@pytest.fixture
def keys(tmp_path: Path) -> KeyFile:
    """The keys of a sealed log; the file itself is the secret."""
    return KeyFile(tmp_path / "keys.db", ahead=3)


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
