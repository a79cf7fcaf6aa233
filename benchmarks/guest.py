"""
One client in a process of its own: `python -m benchmarks.guest FILE SESSION_ID REQUESTS`.

It makes its requests, sees whether all that it said is there, and ends.
"""

from __future__ import annotations

import asyncio
import random
import sys
from collections import defaultdict
from pathlib import Path

from benchmarks.clients import Client
from benchmarks.latencies import Latencies


async def main(path: str, session_id: str, requests: str) -> None:
    """Make the requests."""
    client = Client(Path(path), session_id, random.Random(session_id), defaultdict(Latencies))
    for _ in range(int(requests)):
        await client.request()
    await client.check()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
