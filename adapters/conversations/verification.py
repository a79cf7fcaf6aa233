"""The documents of ``eventlog verify``, for programs."""

from __future__ import annotations

from agents_eventlog.eventlog import Verification
from agents_eventlog.eventlog.events import JSON


def finding(where: str, position: int | None, problem: str) -> dict[str, JSON]:
    """Return the document of a finding. where: "log" or "projection"."""
    return {"kind": "finding", "where": where, "position": position, "problem": problem}


def result(verified: Verification, *, ok: bool) -> dict[str, JSON]:
    """Return the last document. ok: whether there are no findings anywhere."""
    return {"kind": "verified", "ok": ok, **chain(verified)}


def chain(verified: Verification) -> dict[str, JSON]:
    """Return the result for the log: its events, the first bad one, and its head."""
    first = verified.findings[0].position if verified.findings else None
    return {
        "events": verified.events,
        "first_bad_position": first,
        "head": {"position": verified.head.position, "digest": verified.head.digest.hex()},
    }
