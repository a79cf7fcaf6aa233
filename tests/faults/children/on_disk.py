"""What runs in a process whose disk fails, stops or keeps a record: see ``tests.faults.disk``."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import random
import secrets
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from agents_eventlog import AdvancedSQLiteSession, projections
from agents_eventlog.eventlog import ItemsAdded
from agents_eventlog.eventlog.errors import DiskError, DiskFullError
from tests.faults.children import actors
from tests.faults.disk import Disk, What
from tests.faults.files import rows
from tests.faults.openings import OPENINGS, put_copy, tables
from tests.faults.operations import OPERATIONS, TELLS_OTHERWISE, Stage, enter, make_template
from tests.faults.support import batch, check_log, check_sound

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator

Failure: TypeAlias = tuple[What, int, type[Exception]]

FAILURES: list[Failure] = [
    ("write fails", errno.ENOSPC, DiskFullError),
    ("write fails", errno.EIO, DiskError),
    ("sync fails", errno.EIO, DiskError),
]

CHECKPOINTED = {"projections.replay"}
"""Whose commit is so large that a checkpoint follows. If that fails, nothing is lost, and nobody told."""

CHECKPOINTS: dict[str, Callable[[Stage], None]] = {
    "a checkpoint": lambda s: s.log.store._writer.call(
        lambda connection: connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").close()
    ),
    "the last close": lambda s: s.session.close(),
}


def places(chance: random.Random, *, each: bool) -> Iterator[int]:
    """Give places of operations on the disk: each, or the first and every now and then one."""
    nth = 1
    while True:
        yield nth
        nth += 1 if each else chance.randint(1, 9)


def fail(folder: str, names: list[str], seed: str, each: bool) -> dict[str, int]:
    """Make the disk fail under operations, until each succeeds; return how often it failed."""
    chance, disk = random.Random(seed), Disk()
    template = Path(folder, "template.db")
    asyncio.run(make_template(template))
    failed = dict.fromkeys(names, 0)
    failures = [(failure, lasting) for failure in FAILURES for lasting in (False, True)]
    for name in names:
        for failure, lasting in failures if each else chance.sample(failures, 2):
            path = Path(folder, f"{sum(failed.values())} {name} {failure[0]} {lasting}.db")
            disk.watch(path)
            stage = enter(template, path)
            for nth in places(chance, each=each):
                if not fails_cleanly(disk, stage, name, failure, nth, lasting=lasting):
                    break
                failed[name] += 1
            if name != "session.delete_session":
                asyncio.run(stage.session.add_items(batch("next")))
            check_log(stage.log)
            stage.session.close()
            check_sound(path)
    return failed


def fails_cleanly(
    disk: Disk, stage: Stage, name: str, failure: Failure, nth: int, *, lasting: bool
) -> bool:
    """Make the disk fail under an operation; return whether it came so far. Check what that leaves."""
    what, error, promised = failure
    before = rows(stage.path)
    disk.arm(what, nth, error, lasting=lasting)
    raised = asyncio.run(error_of(OPERATIONS[name](stage)))
    has_failed = disk.hits() > 0
    disk.arm("never")
    told = f"{name}, {what} {nth}, lasting: {lasting}, {raised!r}"
    if not has_failed:
        assert raised is None, told
    else:
        is_told = type(raised) is promised or name in TELLS_OTHERWISE
        assert is_told or (raised is None and name in CHECKPOINTED), told
        assert rows(stage.path) == before, told
    return has_failed


async def error_of(call: Any) -> Exception | None:
    """Return what a call raises."""
    try:
        await call
    except Exception as error:
        return error
    return None


def kill(folder: str, names: list[str], seed: str, times: int) -> dict[str, list[int]]:
    """
    Kill processes at operations on the disk under ours, each time on a new copy of the file.

    Return how many left nothing of each, and how many all of it.
    """
    chance = random.Random(seed)
    template = Path(folder, "template.db")
    secrets.token_hex = lambda count: "0" * 2 * (count or 32)  # or no two runs write the same
    asyncio.run(make_template(template))
    left = {}
    for name in names:
        own = Path(folder, name, "template.db")
        own.parent.mkdir()
        if name in OPENINGS:
            asyncio.run(OPENINGS[name].make(own))
        left[name] = kill_one(own if name in OPENINGS else template, own.parent, chance, times)
    return left


def kill_one(template: Path, folder: Path, chance: random.Random, times: int) -> list[int]:
    """Kill processes under the operation that a folder is named after."""
    disk, name, whole = Disk(), folder.name, folder / "whole.db"
    before = tables(template) if template.exists() else {}
    operations = in_a_child(disk, template, whole, name, "never", 0)
    assert operations is not None, name
    after = tables(whole)
    left = [0, 0]
    for number in range(times):
        nth, what = chance.randint(1, operations), chance.choice(("killed before", "killed after"))
        path = folder / f"{number}.db"
        acknowledged = in_a_child(disk, template, path, name, what, nth)
        told = f"{name}, {what} {nth} of {operations}"
        found = tables(path)
        assert found == after or (found in ({}, before) and acknowledged is None), told
        left[found == after] += 1
        AdvancedSQLiteSession("s", path).close()  # adopts what was not adopted
        check_sound(path)
    return left


def in_a_child(
    disk: Disk, template: Path, path: Path, name: str, what: Any, nth: int
) -> int | None:
    """Do something in a forked process; return its operations on the disk, None if it died first."""
    ours, theirs = os.pipe()
    if (child := os.fork()) == 0:
        try:
            disk.watch(path)
            do = prepared(template, path, name)
            disk.arm(what, nth)
            do()
            os.write(theirs, str(disk.counted()).encode())
        finally:
            os._exit(0)
    os.close(theirs)
    os.waitpid(child, 0)
    with os.fdopen(ours, "rb") as pipe:
        said = pipe.read()
    return int(said) if said else None


def prepared(template: Path, path: Path, name: str) -> Callable[[], Any]:
    """Put a copy of the template in its place, and return what is to be done with it."""
    if name in OPENINGS:
        put_copy(template, path)
        return partial(OPENINGS[name].open, path)
    stage = enter(template, path)
    if name in OPERATIONS:
        return lambda: asyncio.run(OPERATIONS[name](stage))
    asyncio.run(stage.session.add_items(batch("in the write-ahead log")))
    return partial(CHECKPOINTS[name], stage)


def write_on_record(
    path: str, record: str, seed: str, durability: Any, actions: int, processes: int
) -> None:
    """
    Make a log, and let sessions act on it at once, with many checkpoints and a replay; all is recorded.

    processes: how many act, with sessions of their own. A note in the record tells of each acknowledged
        action: its session and version, and its events.
    """
    _disk_on_record(path, record)
    log = _busy_session("first", path, durability).log
    arguments = {"path": path, "record": record, "durability": durability, "actions": actions}
    beside = [
        subprocess.Popen(
            [
                *(sys.executable, "-m", "tests.faults.children.on_disk", "act_on_record"),
                json.dumps({**arguments, "seed": f"{seed}-{n}", "names": [f"p{n}a", f"p{n}b"]}),
            ]
        )
        for n in range(1, processes)
    ]

    async def replay() -> None:
        await asyncio.sleep(0.02)
        await asyncio.to_thread(projections.replay, log, projections.default().named([]))

    names = [f"s{n}" for n in range(4)]
    act_on_record(**arguments, seed=seed, names=names, meanwhile=replay)
    for process in beside:
        assert process.wait() == 0
    log.close()


def act_on_record(
    path: str,
    record: str,
    seed: str,
    durability: Any,
    actions: int,
    names: list[str],
    meanwhile: Callable[[], Coroutine[Any, Any, None]] | None = None,
) -> None:
    """Let sessions act on a log at once; all is recorded."""
    chance, disk = random.Random(seed), _disk_on_record(path, record)
    sessions = [_busy_session(name, path, durability) for name in names]
    log = sessions[0].log

    async def act(session: AdvancedSQLiteSession) -> None:
        for n in range(actions):
            if n % 4 == 3:
                events = [ItemsAdded(items=batch(f"{n}:{k}")) for k in range(3)]
                await log.append(session.session_id, events, branch_id="main")
            else:
                await actors.act(session, n)
            version = await log.version(session.session_id)
            disk.note(f"{session.session_id} {version} {3 if n % 4 == 3 else 1}")
            await asyncio.sleep(chance.choice((0, 0, 0.002)))

    async def all_at_once() -> None:
        others = [] if meanwhile is None else [meanwhile()]
        await asyncio.gather(*map(act, sessions), *others)

    asyncio.run(all_at_once())
    for session in sessions:
        session.close()


def _disk_on_record(path: str, record: str) -> Disk:
    disk = Disk()
    disk.watch(Path(path))
    disk.record(Path(record))
    return disk


def _busy_session(session_id: str, path: str, durability: Any) -> AdvancedSQLiteSession:
    """Open a session whose process checkpoints all the time."""
    session = AdvancedSQLiteSession(session_id, path, durability=durability)
    session.log.store._writer.call(lambda c: c.execute("PRAGMA wal_autocheckpoint=25").close())
    return session


if __name__ == "__main__":
    answer = globals()[sys.argv[1]](**json.loads(sys.argv[2]))
    sys.stdout.write(f"\n{json.dumps(answer)}\n")
