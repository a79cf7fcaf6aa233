"""What a process holds, sampled while nothing is under way, and whether it grows with the work done."""

from __future__ import annotations

import gc
import resource
import statistics
import sys
import threading
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

PAGE_BYTES = resource.getpagesize()
MEGABYTE = 1_000_000


@dataclass(frozen=True, kw_only=True)
class Sample:
    """
    What the process held after so many requests.

    objects: Python objects that the garbage collector follows; blocks: pieces of Python's heap. WAL: the
    write-ahead log's size.
    """

    requests: int
    objects: int
    blocks: int
    rss_bytes: int
    threads: int
    files: int
    wal_bytes: int


class Allowance(NamedTuple):
    """How much more may be there at the end of the second half: a constant, or so much a request."""

    constant: float
    per_request: float = 0.0


ALLOWANCES = {
    # Whatever is leaked holds something, and what holds something is followed by the collector.
    "objects": Allowance(300, 0.1),
    # Rows that the writing connection remembers (see eventlog.storage.sqlite.store.MAX_CACHED) come and go.
    "blocks": Allowance(2_000, 2.0),
    "rss_bytes": Allowance(10 * MEGABYTE, 200),
    "threads": Allowance(0),
    "files": Allowance(0),
    "wal_bytes": Allowance(8 * MEGABYTE),
}


class Growth(NamedTuple):
    """How much of one thing there was in the middle, how much it grew from there on, and may grow."""

    name: str
    before: float
    growth: float
    allowed: float

    @property
    def is_leak(self) -> bool:
        """Whether it grew by more than it may."""
        return self.growth > self.allowed


def sample(requests: int, database: Path) -> Sample:
    """Look at what this process holds now; the garbage is collected first."""
    gc.collect()
    wal = database.with_name(f"{database.name}-wal")
    return Sample(
        requests=requests,
        objects=len(gc.get_objects()),
        blocks=sys.getallocatedblocks(),
        rss_bytes=_rss_bytes(),
        threads=threading.active_count(),
        files=sum(1 for _ in Path("/dev/fd").iterdir()),
        wal_bytes=wal.stat().st_size if wal.exists() else 0,
    )


def judge(samples: Sequence[Sample]) -> list[Growth]:
    """Return how everything grew over the second half of the samples, by the line that fits best."""
    half = samples[len(samples) // 2 :]
    requests = [one.requests for one in half]
    done = requests[-1] - requests[0]
    growths = []
    for name in [field.name for field in fields(Sample) if field.name != "requests"]:
        values = [float(getattr(one, name)) for one in half]
        line = statistics.linear_regression(requests, values)
        allowance = ALLOWANCES[name]
        allowed = max(allowance.constant, allowance.per_request * done)
        growths.append(Growth(name, values[0], line.slope * done, allowed))
    return growths


def _rss_bytes() -> int:
    try:
        return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * PAGE_BYTES
    except OSError:  # no such file: what it held at most has to do
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
