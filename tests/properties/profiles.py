"""How long properties are looked at: quickly, or HYPOTHESIS_PROFILE=long for many minutes."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

FACTORS = {"default": 1, "long": 20}
FACTOR = FACTORS[os.environ.get("HYPOTHESIS_PROFILE", "default")]


def examples(count: int) -> settings:
    """Return settings for so many examples, more of them in the long profile."""
    return settings(
        max_examples=count * FACTOR,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
