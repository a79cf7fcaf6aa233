"""
One thing done with a large log, in a process of its own: `python -m benchmarks.steps FILE STEP`.

Prints, as JSON, the seconds that it took, imports left out: the median of many calls where one is short.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import statistics
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agents_eventlog import AdvancedSQLiteSession
from agents_eventlog.adapters.cli import audit as audit_command
from agents_eventlog.adapters.cli import export_import
from agents_eventlog.adapters.cli import replay as replay_command
from agents_eventlog.adapters.cli import show as show_command
from agents_eventlog.adapters.cli import verify as verify_command
from agents_eventlog.eventlog import EventLog
from benchmarks.population import session_id
from benchmarks.turns import adds

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

LONG, SHORT = session_id(0), session_id(1)
CALLS = 200
DRAWN_FROM = 1_000
"""Sessions are drawn from so many, spread over the whole log, so that their rows lie far apart."""


def _drawn(path: Path) -> Iterator[str]:
    """Yield the ids of live sessions at random, the same ones each time."""
    log = EventLog.open_sync(path, read_only=True)
    [count] = log.store.read_sync(lambda tx: tx.all("SELECT COUNT(*) FROM sessions"))[0]
    log.close()
    chance = random.Random(7)
    some = chance.sample(range(2, count), min(DRAWN_FROM, count - 2))
    for number in some:
        yield session_id(number)


async def _each(
    path: Path, call: Callable[[AdvancedSQLiteSession], Awaitable[object]], warm_up: int = 20
) -> float:
    """Return the median time of a call on sessions drawn at random, each asked once."""
    seconds = []
    for name in _drawn(path):
        session = AdvancedSQLiteSession(name, path)
        start = time.perf_counter()
        with contextlib.suppress(ValueError):  # the session was deleted
            await call(session)
            seconds.append(time.perf_counter() - start)
        if len(seconds) == warm_up + CALLS:
            break
    return statistics.median(seconds[warm_up:])


async def open_(path: Path) -> float:
    """Open the log as the first session of a program does, and read the newest items."""
    start = time.perf_counter()
    await AdvancedSQLiteSession(LONG, path).get_items(limit=20)
    return time.perf_counter() - start


async def append(path: Path) -> float:
    """Add an item to sessions all over the log."""
    return await _each(path, lambda session: session.add_items(adds(1)[0]))


async def newest(path: Path) -> float:
    """Read the newest 20 items of sessions all over the log."""
    return await _each(path, lambda session: session.get_items(limit=20))


async def whole(path: Path) -> float:
    """Read all items of the long session."""
    session = AdvancedSQLiteSession(LONG, path)
    await session.get_items()
    start = time.perf_counter()
    await session.get_items()
    return time.perf_counter() - start


async def list_sessions(path: Path) -> float:
    """List all sessions."""
    session = AdvancedSQLiteSession(LONG, path)
    start = time.perf_counter()
    await session.list_sessions()
    return time.perf_counter() - start


def audit(path: Path, session: str) -> float:
    """Tell all that happened to one session, and verify it."""
    nothing: Any = dict.fromkeys(("branch_id", "since", "until", "actor", "limit"))
    return _command(
        lambda: audit_command.run(
            path, session_id=session, types=(), follow=False, as_json=False, **nothing
        )
    )


def show(path: Path) -> float:
    """Show the long session."""
    nothing: Any = dict.fromkeys(("branch_id", "as_of", "diff"))
    return _command(lambda: show_command.run(path, LONG, turns=False, as_json=False, **nothing))


def show_past(path: Path) -> float:
    """Show the long session as it was half way."""
    nothing: Any = dict.fromkeys(("branch_id", "diff"))
    return _command(
        lambda: show_command.run(path, LONG, turns=False, as_of="1500", as_json=False, **nothing)
    )


def export(path: Path) -> float:
    """Export the long session."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "history.jsonl"
        return _command(
            lambda: export_import.export(path, [LONG], form="jsonl", output=output, as_json=False)
        )


def verify(path: Path) -> float:
    """Verify the whole chain."""
    return _command(
        lambda: verify_command.run(
            path, expect_head=None, after=None, only_head=True, as_json=False
        )
    )


def replay(path: Path, *, check: bool) -> float:
    """Build all tables from the first event, and swap them in or compare them."""
    return _command(lambda: replay_command.run(path, (), check=check, as_json=False))


def _command(run: Callable[[], object]) -> float:
    """Time a command, its output thrown away."""
    with Path(os.devnull).open("w", encoding="utf-8") as nowhere:
        start = time.perf_counter()
        with contextlib.redirect_stdout(nowhere):
            if run() is False:
                raise RuntimeError("the command found something")
        return time.perf_counter() - start


STEPS: dict[str, Callable[[Path], float | Awaitable[float]]] = {
    "replay": partial(replay, check=False),
    "open and read the newest 20 items": open_,
    "add_items, sessions at random": append,
    "get_items(limit=20), sessions at random": newest,
    "get_items(), 4,000 items": whole,
    "audit a session of 90 events": partial(audit, session=SHORT),
    "audit a session of 3,000 events": partial(audit, session=LONG),
    "show 4,000 items": show,
    "show as of the middle of 3,000 events": show_past,
    "export a session of 3,000 events": export,
    "list all sessions": list_sessions,
    "verify": verify,
    "replay --check": partial(replay, check=True),
}
EACH_EVENT = ("replay", "verify", "replay --check")
"""What goes through the whole log by its nature: it may take ten times as long in ten times as many."""
EACH_SESSION = ("list all sessions",)


def main(path: str, name: str) -> None:
    """Do it and print how long it took."""
    taken = STEPS[name](Path(path))
    seconds = taken if isinstance(taken, float) else asyncio.run(_waited(taken))
    print(json.dumps({"seconds": seconds}))


async def _waited(taken: Awaitable[float]) -> float:
    return await taken


if __name__ == "__main__":
    main(*sys.argv[1:])
