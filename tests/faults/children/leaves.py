"""A program that opens sessions, runs, and ends without closing. Told how by its second argument."""

from __future__ import annotations

import asyncio
import sys
import time

from agents_eventlog import AdvancedSQLiteSession
from agents_eventlog.eventlog import EventLog
from agents_eventlog.eventlog.events import SessionCleared


async def main(path: str, how: str) -> None:
    sessions = [AdvancedSQLiteSession(f"s{n}", path) for n in range(5)]
    for n in range(20):
        await asyncio.gather(
            *(s.add_items([{"role": "user", "content": f"{n}"}]) for s in sessions)
        )
    AdvancedSQLiteSession("in memory")
    log = await EventLog.open(path, read_only=True)
    await log.verify()
    await (await EventLog.open(path)).append("other", SessionCleared())
    if how == "queued":
        left = [asyncio.ensure_future(session.get_items()) for session in sessions]
        await asyncio.sleep(0)
        assert not any(task.done() for task in left)
    sys.stdout.write(f"{time.time()}\n")
    sys.stdout.flush()
    if how == "error":
        raise SystemExit(3)


if __name__ == "__main__":
    if sys.argv[2] == "loop left open":
        loop = asyncio.new_event_loop()
        loop.run_until_complete(main(sys.argv[1], sys.argv[2]))
    else:
        asyncio.run(main(sys.argv[1], sys.argv[2]))
