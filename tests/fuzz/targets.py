"""
What is promised of any input, as functions of bytes: each returns, or raises what breaks the promise.

Hypothesis calls them, the seeded tests of this folder, and ``python -m tests.fuzz.guided``.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from agents_eventlog import projections
from agents_eventlog.eventlog import EventLog, codec, item_kind
from agents_eventlog.eventlog.errors import (
    EventLogError,
    InvalidEventError,
    SourceError,
    UndecodableEventError,
    UnserialisableError,
)
from agents_eventlog.eventlog.events import EVENT_TYPES
from agents_eventlog.eventlog.integrity import Head
from agents_eventlog.eventlog.jsonl import format as jsonl_format
from agents_eventlog.eventlog.jsonl.export import export_lines
from agents_eventlog.eventlog.jsonl.import_ import import_lines
from agents_eventlog.eventlog.storage import registry

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

NAMES = sorted(EVENT_TYPES)


def _check_named(error: UndecodableEventError) -> None:
    assert error.position == 7
    assert "position 7" in str(error)


def payload(data: bytes) -> None:
    """A payload is read as the type that its first byte picks, or refused; what is read can be written."""
    name, schema_version = NAMES[next(iter(data), 0) % len(NAMES)], 1 + next(iter(data[1:]), 0) % 3
    try:
        event = codec.decode(name, schema_version, data[2:], position=7)
    except UndecodableEventError as error:
        _check_named(error)
        return
    written = codec.encode(event)
    again = codec.decode(name, event.schema_version, written, position=7)
    assert codec.encode(again) == written
    assert jsonl_format.positions_in(event) == jsonl_format.positions_in(again)


def items(data: bytes) -> None:
    """Items that can be read have the shapes that they have one by one, whatever they are read with."""
    stored = (7, "items_added", 1, data)
    neighbour = (8, "items_added", 1, b'{"items":[{"role":"user"}]}')
    try:
        (found,) = codec.decode_items([stored])
    except UndecodableEventError as error:
        _check_named(error)
        return
    assert repr(codec.decode_items([stored, neighbour])) == repr([found, [{"role": "user"}]])
    assert item_kind.classify_items(*stored) == [item_kind.classify(item) for item in found]


def metadata(data: bytes) -> None:
    """Metadata is an object, or refused by the position of its event."""
    try:
        found = codec.decode_recording(data.decode(errors="replace"), position=7)
    except UndecodableEventError as error:
        _check_named(error)
        return
    assert isinstance(found, dict)


def line(data: bytes) -> None:
    """A line says something of a log's, or is refused by one of the errors that its reader tells."""
    try:
        jsonl_format.parse(data)
    except (SourceError, InvalidEventError, UndecodableEventError, UnserialisableError):
        return


def head(data: bytes) -> None:
    """A head is what it prints."""
    try:
        found = Head.parse(data.decode(errors="replace"))
    except (ValueError, OverflowError):
        return
    assert Head.parse(str(found)) == found


def log_lines(data: bytes) -> None:
    """What comes in of JSON lines is sound, and goes out and comes in again as the same lines."""
    asyncio.run(in_and_out(data))


async def in_and_out(data: bytes) -> list[str]:
    """Return the lines that went out."""
    async with EventLog.open(":memory:", projections=projections.default()) as log:
        try:
            outcomes = [o async for o in import_lines(log, data.splitlines(keepends=True))]
        except SourceError:
            return []
        for outcome in outcomes:
            if outcome.outcome == "imported":
                assert await log.version(outcome.session_id) == outcome.events > 0
            else:
                assert outcome.problem
        await check_sound(log)
        once = [line async for line in export_lines(log)]
    async with EventLog.open(":memory:", projections=projections.default()) as log:
        source = [line.encode() for line in once]
        outcomes = [outcome async for outcome in import_lines(log, source)]
        assert {outcome.outcome for outcome in outcomes} <= {"imported"}
        assert [line async for line in export_lines(log)] == once
    return once


async def check_sound(log: EventLog) -> None:
    """Check that a log is as recorded, all of it readable, and its tables what a replay makes of it."""
    verified = await log.verify()
    assert verified.ok, verified.findings
    read = [(event.event, event.metadata) async for event in log.read()]
    assert len(read) == verified.events
    differing: list[Any] = []
    builders = projections.default().named([])
    await asyncio.to_thread(
        projections.replay, log, builders, check=True, on_difference=differing.append
    )
    assert not differing, [str(difference) for difference in differing]


def documented(ask: Callable[[], object]) -> str | None:
    """Ask what may be damaged; return the name of the error, if there is one: it must be documented."""
    try:
        ask()
    except EventLogError as error:
        return type(error).__name__
    return None


def let_go(folder: Path) -> None:
    """Close what is still open of a folder's files."""
    for store in list(registry._all):
        if store.path.startswith(str(folder)):
            store.close()


TARGETS: dict[str, Callable[[bytes], None]] = {
    "payload": payload,
    "items": items,
    "metadata": metadata,
    "line": line,
    "head": head,
    "log_lines": log_lines,
}
