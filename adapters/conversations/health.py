"""Whether a log can be used, for probes: a few reads, whose time does not depend on the log's length."""

from __future__ import annotations

from typing import NamedTuple

from agents_eventlog import projections
from agents_eventlog.eventlog.appender import complete_checkpoint, read_head
from agents_eventlog.eventlog.events import JSON
from agents_eventlog.eventlog.storage.transaction import Transaction
from agents_eventlog.projections import build
from agents_eventlog.projections.projector import REPLAY_ON_OPEN_EVENTS


class ProjectionHealth(NamedTuple):
    """
    How far the tables of a projection are behind the log, in events.

    version: that of the tables; None if they do not exist yet. The next program that opens the log for
    writing builds them, or applies the missing events.
    """

    projection: str
    version: int | None
    events_behind: int


class Health(NamedTuple):
    """
    The state of a log.

    is_writable: whether this user can write it: False for a read-only file or folder, and for a replica.
    events: the number of positions that were assigned in it.
    problems: what needs action.
    """

    is_writable: bool
    events: int
    projections: list[ProjectionHealth]
    problems: list[str]

    @property
    def ok(self) -> bool:
        """Whether nothing needs action."""
        return not self.problems

    def document(self, path: str) -> dict[str, JSON]:
        """Return the document of ``eventlog health``."""
        return {
            "kind": "health",
            "path": path,
            "ok": self.ok,
            "is_writable": self.is_writable,
            "events": self.events,
            "projections": [each._asdict() for each in self.projections],
            "problems": list(self.problems),
        }


def check(tx: Transaction) -> Health:
    """Look at the head of a log and at its checkpoints, in a unit of work."""
    lanes = tx.engine.lanes
    kept = projections.kept(tx).by_name
    build.use_own_tables(tx, kept.values())
    found = build.checkpoints(tx)
    head, complete = read_head(tx).position, complete_checkpoint(tx)
    states: list[ProjectionHealth] = []
    problems: list[str] = []
    for name, projection in kept.items():
        checkpoint = found.get(name)
        shown = build.usable_to(checkpoint, projection)
        behind = 0 if shown == complete else max(0, head - shown) // lanes
        version = None if checkpoint is None else checkpoint.version
        states.append(ProjectionHealth(name, version, behind))
        if behind > REPLAY_ON_OPEN_EVENTS:
            problems.append(
                f"projection {name!r} is {behind:,} events behind the log: run `eventlog replay`"
            )
    return Health(tx.engine.is_writable(tx), head // lanes, states, problems)
