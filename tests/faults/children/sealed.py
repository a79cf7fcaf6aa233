"""What runs in a process that is killed under an operation on a sealed log or on its keys."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import TYPE_CHECKING, Any

import pytest

from agents_eventlog import AdvancedSQLiteSession, ConversationLog, KeyFile, RootKey
from tests.faults.children.actors import say, wait_for_go
from tests.faults.failing import failing_statements
from tests.faults.support import user

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from multiprocessing.connection import Connection

ROOTS = [
    "evk1aaaqeayeaudaocajbifqydiob4ibceqtcqkrmfyydenbwha5dypwgdonfe",
    "evk12rlf7lk5ntgpxw5yngh6jzk2xfv2ywbyteesjwpclbpdzvn3i4i7d5lfy4",
]
"""The root key of the key file, and the one that it gets by rotation."""


def key_file(path: str, root: str = ROOTS[0]) -> KeyFile:
    """Open the key file beside a log."""
    return KeyFile(f"{path}.keys", RootKey(root), ahead=3)


async def erase(path: str, **options: Any) -> None:
    """Erase a session, and destroy its key."""
    async with ConversationLog.open(path, keys=key_file(path)) as log:
        assert (await log.erase(session_id="s", **options)).is_complete


async def shred(path: str) -> None:
    """Destroy the key of a session, and leave its contents."""
    await erase(path, shred_only=True)


async def begin(path: str) -> None:
    """Begin a session, with the first key that this process takes."""
    session = AdvancedSQLiteSession("new", path, keys=key_file(path))
    await session.add_items([user("new")])
    session.close()


async def rotate(path: str) -> None:
    """Wrap all keys anew, under another root key."""
    key_file(path).rotate(RootKey(ROOTS[1]))


OPERATIONS: dict[str, Callable[[str], Coroutine[Any, Any, None]]] = {
    each.__name__: each for each in (erase, shred, begin, rotate)
}


def die(connection: Connection, number: int, path: str, name: str, nth: int) -> None:
    """Be killed before the nth statement of an operation, opening included; else say "done"."""
    with pytest.MonkeyPatch.context() as patch:
        statements = failing_statements(patch)
        wait_for_go(connection)
        with statements.at(nth, lambda _: os.kill(os.getpid(), signal.SIGKILL)):
            asyncio.run(OPERATIONS[name](path))
        say(connection, "done")


def wait_and_add(connection: Connection, number: int, path: str) -> None:
    """Add to a session, and again once that is asked for: with the key that this process remembers."""

    async def add_twice() -> None:
        async with ConversationLog.open(path, keys=key_file(path)) as log:
            for text in ("first", "second"):
                await log.write(lambda tx, text=text: add(tx, text))
                say(connection, text)
                connection.recv()

    asyncio.run(add_twice())


def add(tx: Any, text: str) -> None:
    """Append an item to the session."""
    from agents_eventlog.eventlog import ItemsAdded, append

    append(tx, "s", ItemsAdded(items=[user(text)]), branch_id="main")
