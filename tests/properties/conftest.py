"""Lets properties take their time where they were asked to look for long."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.properties.profiles import FACTOR

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Take the time limit off the properties of this folder in the long profile."""
    for item in items:
        if FACTOR > 1 and item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.timeout(0))
