"""The examination of a log: facts about its storage, and its problems. What ``eventlog doctor`` prints."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

from agents_eventlog.adapters.conversations import doctor_checks, key_checks, timestamps
from agents_eventlog.eventlog import EventLog, leases, payloads
from agents_eventlog.eventlog.appender import read_head
from agents_eventlog.eventlog.events import JSON
from agents_eventlog.eventlog.reader import event_counts
from agents_eventlog.eventlog.storage.engine import Problem, TableSize
from agents_eventlog.eventlog.storage.transaction import Transaction


class Diagnosis(NamedTuple):
    """
    Facts and problems of a log.

    facts: empty if the storage cannot be read. types: (type, events, bytes, erased payloads).
    problems: findings, which need action, and notes.
    """

    facts: dict[str, JSON]
    types: list[tuple[Any, ...]]
    sizes: list[TableSize]
    problems: list[Problem]

    @property
    def ok(self) -> bool:
        """Whether there are no findings."""
        return all(problem.is_note for problem in self.problems)

    def documents(self) -> Iterator[dict[str, JSON]]:
        """Yield the documents of ``eventlog doctor``."""
        if self.facts:
            yield {"kind": "file", **self.facts}
        for row in self.types:
            names = ("type", "events", "bytes", "erased")
            yield {"kind": "events", **dict(zip(names, row, strict=True))}
        for size in self.sizes:
            yield {"kind": "table", **size._asdict()}
        for problem in self.problems:
            document = problem._asdict()
            yield {"kind": "note" if document.pop("is_note") else "finding", **document}
        yield {"kind": "diagnosed", "ok": self.ok}


def diagnose(log: EventLog) -> Diagnosis:
    """Examine a log. Blocks; its time grows with the log."""
    problems = _problems(log)
    facts: dict[str, JSON] = {}
    types: list[tuple[Any, ...]] = []
    sizes: list[TableSize] = []

    def look() -> list[Problem]:
        facts.update(log.store.read_sync(partial(_facts, path=log.path)))
        types.extend(log.store.read_sync(payloads.sizes))
        sizes.extend(log.store.read_sync(log.store.engine.table_sizes))
        return []

    problems = [*doctor_checks.guarded(look, "file"), *problems]
    return Diagnosis(facts, types, sizes, problems)


def _problems(log: EventLog) -> list[Problem]:
    found: list[Problem] = []
    in_log: tuple[tuple[str, Callable[[Transaction], Iterator[Problem]]], ...] = (
        ("file", log.store.engine.problems),
        ("projections", doctor_checks.of_projections),
        ("sessions", doctor_checks.of_sessions),
        ("the SDK's tables", partial(doctor_checks.of_sdk_tables, path=log.path)),
        ("erasing", doctor_checks.of_erasing),
        ("keys", partial(key_checks.of_keys, path=log.path)),
    )
    for subject, check in in_log:

        def run_check(
            check: Callable[[Transaction], Iterator[Problem]] = check,
        ) -> list[Problem]:
            return log.store.read_sync(lambda tx: list(check(tx)))

        found += doctor_checks.guarded(run_check, subject)
    return found


def _facts(tx: Transaction, path: str) -> dict[str, JSON]:
    events, sessions, first, last = event_counts(tx)
    head = read_head(tx)
    return {
        "path": path,
        **tx.engine.facts(tx),
        "events": events,
        "sessions": sessions,
        "first_recorded_at": None if first is None else timestamps.iso(first),
        "last_recorded_at": None if last is None else timestamps.iso(last),
        "leases": [
            {
                "session_id": lease.session_id,
                "holder": lease.holder,
                "since": timestamps.iso(lease.since),
                "expires_at": timestamps.iso(lease.expires_at),
            }
            for lease in leases.held(tx)
        ],
        "head": {"position": head.position, "digest": head.digest.hex()},
    }
