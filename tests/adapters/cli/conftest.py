"""Fixtures of the commands' tests."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.adapters.looking import support

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def db(tmp_path: Path) -> Path:
    """The conversation of ``looking.support``: two live branches, one deleted, one item popped."""
    path = tmp_path / "talk.db"
    support(path)
    return path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where a log is to be."""
    return tmp_path / "made.db"
