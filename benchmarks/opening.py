"""
Open a log in a process of its own, and verify it: `python -m benchmarks.opening FILE SESSION_ID`.

Prints, as JSON, the seconds until a session's newest items are read, and the seconds of `verify`.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time

from agents_eventlog import AdvancedSQLiteSession
from agents_eventlog.eventlog import EventLog


async def main(path: str, session_id: str) -> None:
    """Measure and print."""
    start = time.perf_counter()
    session = AdvancedSQLiteSession(session_id, path)
    items = await session.get_items(limit=20)
    opened = time.perf_counter() - start
    session.close()
    if len(items) != 20:
        raise RuntimeError(f"session {session_id!r} gave {len(items)} items, not 20")
    async with EventLog.open(path) as log:
        start = time.perf_counter()
        await log.verify()
        verified = time.perf_counter() - start
    print(json.dumps({"open_seconds": opened, "verify_seconds": verified}))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
