"""How long properties are looked at: HYPOTHESIS_PROFILE=quick for a glance, long for many minutes."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, Phase, settings

FACTORS = {"quick": 0.1, "default": 1, "long": 80}
FACTOR = FACTORS[os.environ.get("HYPOTHESIS_PROFILE", "default")]
PHASES = tuple(Phase) if FACTOR >= 1 else (Phase.explicit, Phase.reuse, Phase.generate)


def examples(count: int) -> settings:
    """Return settings for so many examples, more or fewer of them in the other profiles."""
    return settings(
        max_examples=round(count * FACTOR),
        phases=PHASES,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
