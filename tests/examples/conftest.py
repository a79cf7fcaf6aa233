"""What the tests of the examples share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import agents
import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def no_tracing() -> Iterator[None]:
    """Keep runs from sending their traces anywhere."""
    agents.set_tracing_disabled(True)
    yield
    agents.set_tracing_disabled(False)
