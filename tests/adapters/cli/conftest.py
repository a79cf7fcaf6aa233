"""Fixtures of the commands' tests."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.adapters.looking import support

if TYPE_CHECKING:
    from collections.abc import Iterator


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


@pytest.fixture
def public() -> Iterator[Path]:
    """Give a folder that everybody can reach, unlike those that pytest makes."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    folder.chmod(0o755)
    shutil.rmtree(folder)
