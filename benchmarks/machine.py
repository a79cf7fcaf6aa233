"""What the figures were measured on."""

from __future__ import annotations

import os
import platform
import sqlite3
import statistics
import time
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path


def facts(folder: Path) -> dict[str, Any]:
    """Describe the machine, and how long its disk takes to keep a page for good."""
    return {
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "openai_agents": version("openai-agents"),
        "fsync_microseconds": round(_fsync_seconds(folder) * 1_000_000),
    }


def load() -> float:
    """Return how many processes wanted a core in the last minute, this one among them."""
    return round(os.getloadavg()[0], 2)


def _fsync_seconds(folder: Path, times: int = 200) -> float:
    path = folder / "fsync"
    seconds = []
    with path.open("wb", buffering=0) as file:
        for _ in range(times):
            file.write(b"\0" * 4096)
            start = time.perf_counter()
            os.fsync(file.fileno())
            seconds.append(time.perf_counter() - start)
    path.unlink()
    return statistics.median(seconds)
