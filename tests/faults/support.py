"""What the fault tests share: items, what a session shows, whether a file is sound, a gate."""

from __future__ import annotations

import sqlite3
import threading
from concurrent.futures import Future
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from agents.usage import Usage

from agents_eventlog import projections
from agents_eventlog.eventlog import EventLog, configure
from agents_eventlog.eventlog.storage import registry

if TYPE_CHECKING:
    from collections.abc import Iterator

    from agents_eventlog.eventlog.storage.engine import Store
    from agents_eventlog.eventlog.storage.transaction import Transaction

PATIENCE_SECONDS = 30.0
"""How long a test waits for what must happen. Only a failing test waits so long."""


def user(text: str) -> Any:
    """Return an item that starts a turn."""
    return {"role": "user", "content": text}


def answer(text: str) -> Any:
    """Return an item that goes on with a turn."""
    return {"role": "assistant", "content": text}


def batch(name: object, items: int = 3) -> list[Any]:
    """Return the items of one call, each of which tells its call and its place in it."""
    return [user(f"{name}/{index}/{items}") for index in range(items)]


def texts(items: list[Any]) -> list[str]:
    """Return the contents of items."""
    return [item["content"] for item in items]


def batches(items: list[Any]) -> list[str]:
    """Return the names of the batches that these items are; every batch must be whole."""
    names = []
    rest = iter(texts(items))
    for text in rest:
        name, index, count = text.rsplit("/", 2)
        whole = [f"{name}/{i}/{count}" for i in range(int(count))]
        assert index == "0", f"{text} is no beginning of a batch"
        assert [text, *(next(rest, None) for _ in range(int(count) - 1))] == whole
        names.append(name)
    return names


def ran(tokens: int = 15) -> Any:
    """Return the result of a run of one request, as far as a session looks into it."""
    usage = Usage(requests=1, input_tokens=tokens - 5, output_tokens=5, total_tokens=tokens)
    return SimpleNamespace(context_wrapper=SimpleNamespace(usage=usage))


async def shown(session: Any) -> dict[str, Any]:
    """Return all that a session shows, but for times."""
    branches = await session.list_branches()
    names = [branch["branch_id"] for branch in branches]
    sessions = await session.list_sessions()
    return {
        "current": session.current_branch,
        "labels": await session.get_metadata(),
        "branches": [
            {key: value for key, value in branch.items() if key != "created_at"}
            for branch in branches
        ],
        "items": {name: await session.get_items(branch_id=name) for name in {*names, "main"}},
        "spent": await session.get_usage_stats(),
        "live": {name: await session.get_turn_usage(branch_id=name) for name in names},
        "sessions": sorted(
            (row["session_id"], row["item_count"], row["turn_count"], row["branch_count"])
            for row in sessions
        ),
    }


async def seen(session: Any) -> dict[str, Any]:
    """Return what one session shows, apart from others in its file."""
    found = await shown(session)
    return {**found, "sessions": [row for row in found["sessions"] if row[0] == session.session_id]}


def check_sound(path: Path | str) -> None:
    """Check the whole file: SQLite's own check, the chain, and the projections against a replay."""
    log = EventLog.open_sync(path, projections=projections.default())
    try:
        check_log(log)
    finally:
        log.close()


def check_log(log: EventLog) -> None:
    """Do as ``check_sound`` does, for a log that is open."""
    integrity = log.store.read_sync(lambda tx: tx.all("PRAGMA integrity_check"))
    assert integrity == [("ok",)]
    verified = verify(log)
    assert verified.ok, verified.findings
    differing: list[Any] = []
    kept = log.store.read_sync(projections.kept)
    tables = projections.replay(log, kept.named([]), check=True, on_difference=differing.append)
    assert not differing, [str(difference) for difference in differing]
    assert tables


def verify(log: EventLog, expect_head: Any = None) -> Any:
    """Verify a log from a thread without an event loop, or in spite of one."""
    import asyncio

    answered: Future[Any] = Future()

    def run() -> None:
        try:
            answered.set_result(asyncio.run(log.verify(expect_head)))
        except BaseException as error:
            answered.set_exception(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return answered.result()


def open_files(folder: Path) -> list[str]:
    """Return the names of the files in a folder that this process has open, one for each time."""
    names = []
    for descriptor in Path("/proc/self/fd").iterdir():
        try:
            target = descriptor.readlink()
        except FileNotFoundError:
            continue  # the descriptor that listed the others
        if target.parent == folder:
            names.append(target.name)
    return sorted(names)


class Gate:
    """Holds a store's two threads, so that what is asked meanwhile waits; let go by ``open``."""

    def __init__(self, store: Store) -> None:
        self._opened = threading.Event()
        self._reached = threading.Semaphore(0)
        self._held: list[Future[None]] = []
        for submit in (
            store.submit_write,
            store.submit_read,
            partial(store.submit_read, scan=True),
        ):
            future: Future[None] = Future()
            submit(self._hold, future)
            self._held.append(future)
            if not self._reached.acquire(timeout=PATIENCE_SECONDS):
                raise TimeoutError("the store's thread never came to the gate")

    def _hold(self, _tx: Transaction) -> None:
        self._reached.release()
        self._opened.wait(PATIENCE_SECONDS)

    def open(self) -> None:
        """Let everything go on."""
        self._opened.set()

    def open_after(self, seconds: float) -> None:
        """Let everything go on a while later."""
        timer = threading.Timer(seconds, self.open)
        timer.daemon = True
        timer.start()


@contextmanager
def closed_gate(store: Store) -> Iterator[Gate]:
    """Hold a store's threads, at the longest until the block ends."""
    gate = Gate(store)
    try:
        yield gate
    finally:
        gate.open()


@contextmanager
def refusal(store: Store) -> Iterator[None]:
    """Let SQLite refuse the statement COMMIT."""

    def authorize(action: int, what: str | None, *_: str | None) -> int:
        is_commit = action == sqlite3.SQLITE_TRANSACTION and what == "COMMIT"
        return sqlite3.SQLITE_DENY if is_commit else sqlite3.SQLITE_OK

    store._writer.call(lambda connection: connection.set_authorizer(authorize))
    yield
    store._writer.call(lambda connection: connection.set_authorizer(None))


@contextmanager
def waiting_at_most(seconds: float) -> Iterator[None]:
    before = registry.limits.busy_timeout_seconds
    configure(busy_timeout_seconds=seconds)
    yield
    configure(busy_timeout_seconds=before)
