"""The fixture that the tests of the projections begin with."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.projections.given import Given

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def given(tmp_path: Path) -> Iterator[Given]:
    """A log with the default projections, on a file of its own."""
    made = Given(tmp_path / "log.db")
    yield made
    made.log.close()
