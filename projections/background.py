"""
Projections built in place, step by step, while other programs write between the steps.

Only for projections that may show less than the log for a while. The next build resumes a killed one.
"""

from __future__ import annotations

import time

from agents_eventlog.eventlog import _logging
from agents_eventlog.eventlog.appender import complete_checkpoint, read_events
from agents_eventlog.eventlog.cursor import Cursor
from agents_eventlog.eventlog.storage.engine import Store
from agents_eventlog.eventlog.storage.transaction import Transaction
from agents_eventlog.projections import build
from agents_eventlog.projections.base import Projection
from agents_eventlog.projections.replay import OnProgress, Progress

STEP_EVENTS = 250
PAUSE_SECONDS = 0.02
"""A step is short, and a pause follows it, so that other processes can write."""

log = _logging.get_logger("eventlog.replay")


def build_incrementally(
    store: Store, projection: Projection, on_progress: OnProgress | None = None
) -> None:
    """Build a projection from its checkpoint to the end of the log, one transaction a step. Blocks."""
    started = time.monotonic()

    def step(tx: Transaction) -> Progress:
        head = complete_checkpoint(tx)
        build.use_own_tables(tx, [projection])
        found = build.checkpoints(tx).get(projection.name)
        if found is None or found.version < projection.version:
            build.create_tables(tx, projection, replaced=found)
            found = build.Checkpoint(projection.version, 0)
        page = read_events(tx, Cursor(tx.engine.lanes, found.position), limit=STEP_EVENTS)
        build.apply(tx, [projection], page)
        position = page[-1].position if page else head
        build.set_checkpoint(tx, projection, position)
        return Progress(position, head, time.monotonic() - started)

    while True:
        progress = store.write_sync(step)
        if on_progress is not None:
            on_progress(progress)
        if progress.events >= progress.total:
            break
        time.sleep(PAUSE_SECONDS)
    log.info("replay.finished", projection=projection.name, seconds=round(progress.seconds, 3))
