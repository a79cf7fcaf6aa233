"""
Damaged log files: each command ends with a documented exit code, each call with an answer or a clear error.

What ``verify`` calls clean reads as it was written.
"""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from agents_eventlog import AdvancedSQLiteSession, projections
from agents_eventlog.eventlog import EventLog
from tests.adapters.looking import run, support
from tests.adapters.moving import fill
from tests.fuzz.damage import damage_events, damaged
from tests.fuzz.targets import check_sound, documented, let_go

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from random import Random

SESSION = "support-42"
COMMANDS: tuple[tuple[str, ...], ...] = (
    ("verify",),
    ("verify", "--json"),
    ("verify", "--head"),
    ("replay", "--check"),
    ("audit",),
    ("audit", "--json"),
    ("show", SESSION),
    ("show", "s", "--turns"),
    ("show", SESSION, "--as-of", "3"),
    ("show", SESSION, "--diff", "2020-01-01"),
    ("branches", SESSION, "--removed"),
    ("doctor",),
    ("doctor", "--json"),
    ("export",),
    ("export", "--format", "markdown"),
    ("replay",),
)
ANSWERS: tuple[tuple[str, ...], ...] = (
    ("export",),
    *(("show", each, "--json") for each in (SESSION, "s", "u")),
    ("branches", SESSION, "--removed"),
)
ROUNDS = 4
PROOF_ROUNDS = 400

pytestmark = pytest.mark.usefixtures("nothing_left_open")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a log with every event, a conversation and branches, that nobody has open."""
    path = tmp_path_factory.mktemp("whole") / "whole.db"
    asyncio.run(fill(path))
    support(path)
    let_go(path.parent)
    return path


def fresh(path: Path, content: bytes | Path) -> None:
    """Put a file at a path, with nothing left of the one before."""
    for old in path.parent.glob(f"{path.name}*"):
        old.unlink()
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        shutil.copy(content, path)


def answers(path: Path) -> list[str]:
    return [run(command, path, *options).stdout for command, *options in ANSWERS]


def check_command(path: Path, command: str, *options: str) -> None:
    result = run(command, path, *options)
    assert isinstance(result.exception, SystemExit | None), result.exc_info
    assert result.exit_code in {0, 1, 2, 3}  # 2: there is no such session any more
    assert result.exit_code == 0 or result.stdout or result.stderr.startswith("error: ")


def sound(path: Path) -> None:
    """Check that a file whose log verifies is sound once its tables, which may be damaged, are replayed."""

    async def check() -> None:
        async with EventLog.open(
            path, projections=projections.default(), durability="normal"
        ) as log:
            if (await log.verify()).ok:
                builders = projections.default().named([])
                await asyncio.to_thread(projections.replay, log, builders)
                await check_sound(log)

    asyncio.run(check())


def talk(path: Path) -> None:
    """Go on with a conversation; where the tables are wrong in silence, a check tells."""
    more: Any = [{"role": "user", "content": "more"}]

    async def add() -> list[Any]:
        session = AdvancedSQLiteSession(SESSION, path, durability="normal")
        try:
            await session.get_items()
            await session.add_items(more)
            return [*await session.get_items(1)]
        finally:
            session.close()

    if asyncio.run(add()) != more:
        assert run("replay", path, "--check").exit_code in {1, 3}


def attack(chance: Random, path: Path, put: Callable[[], None], commands: int) -> None:
    """Ask a damaged file, put there anew, so many commands and every call."""
    for command, *options in chance.sample(COMMANDS, commands):
        put()
        check_command(path, command, *options)
    for call in (sound, talk):
        put()
        documented(lambda call=call: call(path))  # type: ignore[misc]
        let_go(path.parent)


def flip(chance: Random, whole: Path, path: Path, rounds: int, commands: int) -> None:
    content, good = whole.read_bytes(), answers(whole)
    for _ in range(rounds):
        attempt = damaged(chance, content)
        attack(chance, path, lambda attempt=attempt: fresh(path, attempt), commands)  # type: ignore[misc]
        fresh(path, attempt)
        if run("verify", path).exit_code == 0:
            assert answers(path) == good


def test_a_file_with_damaged_bytes_is_told_or_reads_as_it_was(
    whole: Path, tmp_path: Path, chance: Random
) -> None:
    flip(chance, whole, tmp_path / "damaged.db", ROUNDS, 3)


@pytest.mark.proof
def test_many_files_with_damaged_bytes_are_told_or_read_as_they_were(
    whole: Path, tmp_path: Path, chance: Random
) -> None:
    flip(chance, whole, tmp_path / "damaged.db", PROOF_ROUNDS, len(COMMANDS))


def change(chance: Random, whole: Path, path: Path, rounds: int, commands: int) -> None:
    for _ in range(rounds):
        fresh(path, whole)
        damage_events(chance, path)
        attempt = path.read_bytes()
        attack(chance, path, lambda attempt=attempt: fresh(path, attempt), commands)  # type: ignore[misc]


def test_of_damaged_events_there_is_an_answer_or_a_clear_error(
    whole: Path, tmp_path: Path, chance: Random
) -> None:
    change(chance, whole, tmp_path / "damaged.db", ROUNDS, 3)


@pytest.mark.proof
def test_of_many_damaged_events_there_is_an_answer_or_a_clear_error(
    whole: Path, tmp_path: Path, chance: Random
) -> None:
    change(chance, whole, tmp_path / "damaged.db", PROOF_ROUNDS, len(COMMANDS))


def journalled(whole: Path, path: Path) -> tuple[bytes, bytes]:
    """Return a log and the write-ahead log beside it, as a process that was killed leaves them."""
    fresh(path, whole)
    with closing(sqlite3.connect(path)) as keeper:
        keeper.execute("PRAGMA wal_autocheckpoint = 0")
        keeper.execute("SELECT 1 FROM events").fetchone()  # the last one to close checkpoints
        talk(path)
        let_go(path.parent)
        return path.read_bytes(), path.with_name(f"{path.name}-wal").read_bytes()


def cut_journal(chance: Random, whole: Path, path: Path, rounds: int, commands: int) -> None:
    content, journal = journalled(whole, path)
    good = [line for answer in answers(path) for line in answer.splitlines()]
    assert "more" in str(good)
    for _ in range(rounds):
        attempt = damaged(chance, journal)

        def put(attempt: bytes = attempt) -> None:
            fresh(path, content)
            path.with_name(f"{path.name}-wal").write_bytes(attempt)

        attack(chance, path, put, commands)
        put()
        if run("verify", path).exit_code == 0:  # then all of it is there, or the tail is not
            exported = run("export", path, "--session", SESSION).stdout.splitlines()[2:]
            assert exported == [line for line in good if line in set(exported)]


def test_a_damaged_write_ahead_log_is_told_or_loses_only_the_tail(
    whole: Path, tmp_path: Path, chance: Random
) -> None:
    cut_journal(chance, whole, tmp_path / "damaged.db", ROUNDS, 2)


@pytest.mark.proof
def test_many_damaged_write_ahead_logs_are_told_or_lose_only_the_tail(
    whole: Path, tmp_path: Path, chance: Random
) -> None:
    cut_journal(chance, whole, tmp_path / "damaged.db", PROOF_ROUNDS, len(COMMANDS))


@pytest.mark.parametrize("header", [b"", b"SQLite format 3\x00"])
def test_noise_is_no_log(tmp_path: Path, chance: Random, header: bytes) -> None:
    path = tmp_path / "noise.db"
    for size in (1, 600, 5_000):
        noise = header + chance.randbytes(size)
        for command, *options in chance.sample(COMMANDS, 3):
            fresh(path, noise)
            result = run(command, path, *options)
            assert (result.exit_code, result.stdout) == (3, "")
            assert result.stderr.startswith("error: ")
        assert documented(lambda: talk(path)) in {"NotADatabaseError", "CorruptFileError"}
        assert path.read_bytes() == noise
