"""Fixtures of the fuzz tests."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.fuzz.targets import let_go

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def nothing_left_open(tmp_path: Path) -> Iterator[None]:
    """Close what damage left open of a test's files."""
    yield
    let_go(tmp_path)
