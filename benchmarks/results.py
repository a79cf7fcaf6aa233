"""What a measurement hands over: one figure, its target, and whether it was reached."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Sequence

Section = Literal["operations", "growth", "raw limit", "log", "scale", "sessions"]


@dataclass(frozen=True, kw_only=True)
class Figure:
    """
    One line of a table.

    ``sdk``, ``ours`` and ``raw`` are in ``unit``. ``ratio`` is what ``target`` speaks of: how many
    times better ours is than the SDK's, or how many times worse than the raw limit, or how much it
    grows. ``bound`` says on which side of the target it must lie. ``sdk_cpu`` and ``ours_cpu`` are the
    processor time of all threads, in milliseconds.
    """

    section: Section
    name: str
    size: int | None = None
    unit: str = "ms"
    sdk: float | None = None
    ours: float | None = None
    raw: float | None = None
    sdk_cpu: float | None = None
    ours_cpu: float | None = None
    ratio: float | None = None
    target: float | None = None
    bound: Literal["at least", "at most"] = "at least"

    @property
    def reached(self) -> bool | None:
        """Whether the ratio (or ours, where there is nothing to divide by) meets the target."""
        value = self.ours if self.ratio is None else self.ratio
        if value is None or self.target is None:
            return None
        return value >= self.target if self.bound == "at least" else value <= self.target


def median_ms(seconds: Sequence[float]) -> float:
    """Return the median, in milliseconds."""
    return statistics.median(seconds) * 1_000
