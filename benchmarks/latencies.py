"""Latencies by the hundred thousand, in a fixed amount of memory: counted in buckets five per cent wide."""

from __future__ import annotations

import threading
from math import ceil, log

SMALLEST_SECONDS = 1e-6
STEP = 1.05
BUCKETS = 400
"""Enough for five minutes; what takes longer counts as that."""


class Latencies:
    """How often what took how long. May be noted from any thread."""

    def __init__(self) -> None:
        self._counts = [0] * BUCKETS
        self._lock = threading.Lock()
        self.count = 0
        self.max_seconds = 0.0

    def note(self, seconds: float) -> None:
        """Count one."""
        steps = ceil(log(max(seconds, SMALLEST_SECONDS) / SMALLEST_SECONDS, STEP))
        with self._lock:
            self._counts[min(steps, BUCKETS - 1)] += 1
            self.count += 1
            self.max_seconds = max(self.max_seconds, seconds)

    def percentile_ms(self, percent: float) -> float:
        """Return below what so many per cent stayed, in milliseconds; 0 when nothing was noted."""
        wanted = self.count * percent / 100
        seen = 0
        for step, count in enumerate(self._counts):
            seen += count
            if count and seen >= wanted:
                return min(SMALLEST_SECONDS * STEP**step, self.max_seconds) * 1_000
        return 0.0
