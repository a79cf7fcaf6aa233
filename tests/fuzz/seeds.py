"""Inputs of the targets that are well, to be damaged."""

from __future__ import annotations

import json

from agents_eventlog.eventlog import codec
from tests.adapters.moving import everything
from tests.fuzz.targets import NAMES


def seeds(target: str) -> list[bytes]:
    """Return inputs that are well, to be damaged."""
    events = everything(range(1, 200, 2))
    if target == "payload":
        return [
            bytes([NAMES.index(e.type_name()), e.schema_version - 1]) + codec.encode(e)
            for e in events
        ]
    if target == "items":
        return [codec.encode(e) for e in events if hasattr(e, "items")]
    if target == "metadata":
        return [b'{"actor":"a","occurred_at":5,"imported":{"recorded_at":3}}']
    if target == "head":
        return [b"7:" + b"0f" * 32]
    return lines()


def lines() -> list[bytes]:
    """Return a log's lines, two sessions with an event of every type each."""
    found: list[dict[str, object]] = [{"kind": "log", "format": 1}]
    for session_id in "st":
        events = everything(range(1, 100))
        found.append({"kind": "session", "session_id": session_id, "events": len(events)})
        for version, event in enumerate(events, start=1):
            columns = {"version": version, "type": event.type_name(), "branch_id": "main"}
            stored = {"schema_version": event.schema_version, "recorded_at": version}
            data = {"data": json.loads(codec.encode(event)), "metadata": {"actor": "a"}}
            found.append({"kind": "event", **columns, **stored, **data})
    return [json.dumps(each).encode() for each in found]
