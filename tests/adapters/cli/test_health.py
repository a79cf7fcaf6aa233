"""``eventlog health``: what a probe gets, at once, and without a change to the log."""

from __future__ import annotations

import os
import shutil
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from agents_eventlog import projections
from agents_eventlog.adapters.cli.terminal import ExitCode
from agents_eventlog.adapters.conversations import health
from agents_eventlog.adapters.conversations.log import ConversationLog
from agents_eventlog.eventlog import EventLog
from agents_eventlog.eventlog.errors import ReadOnlyFileError
from tests.adapters import child
from tests.adapters.looking import one, run
from tests.adapters.old_files import execute, ours
from tests.contract.items import turns
from tests.faults.forks import exit_status, fork
from tests.projections.given import added

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from agents_eventlog.eventlog import Transaction
    from tests.postgres import Server


def files(folder: Path) -> dict[str, bytes]:
    """Return what a folder holds."""
    return {found.name: found.read_bytes() for found in folder.iterdir()}


@contextmanager
def as_nobody() -> Iterator[None]:
    """Run the block without the rights of root, in a forked child."""
    is_root = os.getuid() == 0
    if is_root:
        os.setresuid(65534, 65534, 0)
    yield
    if is_root:
        os.setresuid(0, 0, 0)


KEPT = list(projections.default().by_name)


@pytest.fixture
async def db(tmp_path: Path) -> Path:
    """Provide a log with one event, which no process has open."""
    path = tmp_path / "talk.db"
    session = ours(path)
    await session.add_items(turns("hello"))
    session.close()
    return path


async def test_a_log_that_can_be_used_is_healthy_and_left_unchanged(db: Path) -> None:
    before = files(db.parent)
    result = run("health", db, "--json")
    assert result.exit_code == ExitCode.CLEAN
    document = one(result, "health")
    assert document["ok"] is document["is_writable"] is True
    assert (document["path"], document["events"], document["problems"]) == (str(db), 1, [])
    assert [each["projection"] for each in document["projections"]] == KEPT
    assert {each["events_behind"] for each in document["projections"]} == {0}
    assert run("health", db).stdout == "healthy: writable, 1 event, tables up to date\n"
    assert files(db.parent) == before


async def test_tables_a_little_behind_are_reported_and_no_problem(db: Path) -> None:
    async with EventLog.open(db) as log:
        for _ in range(2):
            await log.append("talk", added())
    result = run("health", db, "--json")
    assert result.exit_code == ExitCode.CLEAN
    assert {each["events_behind"] for each in one(result, "health")["projections"]} == {2}
    assert "tables 2 events behind" in run("health", db).stdout


@pytest.mark.parametrize(("allowed", "code"), [(1, ExitCode.CLEAN), (0, ExitCode.FINDINGS)])
async def test_tables_that_an_opening_would_replay_are_a_problem(
    db: Path, monkeypatch: pytest.MonkeyPatch, allowed: int, code: int
) -> None:
    monkeypatch.setattr(health, "REPLAY_ON_OPEN_EVENTS", allowed)
    execute(db, "DELETE FROM checkpoints WHERE projection = 'usage'")
    result = run("health", db, "--json")
    assert result.exit_code == code
    document = one(result, "health")
    assert [each["version"] for each in document["projections"]].count(None) == 1
    wanted = "projection 'usage' is 1 events behind the log: run `eventlog replay`"
    assert document["problems"] == ([wanted] if code else [])
    assert ("not healthy" in run("health", db).stdout) is bool(code)


def test_what_cannot_be_opened_ends_with_3(tmp_path: Path) -> None:
    assert run("health", tmp_path / "missing.db", "--json").exit_code == ExitCode.CANNOT_OPEN


async def test_a_user_who_cannot_write_the_file_gets_a_healthy_read_only_log(
    public: Path,
) -> None:
    path = public / "talk.db"
    ours(path).close()
    path.chmod(0o444)
    found = child.run(
        """
        from agents_eventlog.adapters.conversations import health
        log = EventLog.open_sync(path, read_only=True)
        print(json.dumps(log.store.read_sync(health.check).document(path)))
        """,
        path,
        as_nobody=True,
    )
    assert (found["ok"], found["is_writable"]) == (True, False)


async def test_a_copy_with_its_write_ahead_log_says_what_to_do_where_nothing_can_be_written(
    public: Path,
) -> None:
    session = ours(public / "talk.db")
    await session.add_items(turns("hello"))
    copy = public / "copy"
    copy.mkdir()
    for ending in ("", "-wal"):
        shutil.copy(public / f"talk.db{ending}", copy / f"talk.db{ending}")
    copy.chmod(0o555)
    for path in copy.iterdir():
        path.chmod(0o444)

    def refused() -> None:
        with as_nobody(), pytest.raises(ReadOnlyFileError) as caught:
            EventLog.open_sync(copy / "talk.db", read_only=True)
        for said in ("talk.db-wal", "copy both files", "eventlog backup"):
            assert said in str(caught.value)

    assert exit_status(fork(refused)) == 0
    copy.chmod(0o755)


async def test_on_postgresql_a_role_that_can_only_read_gets_a_read_only_log(server: Server) -> None:
    async with ConversationLog.open(server.url()) as log:
        await log.append("talk", added(), branch_id="main")
        found = await log.query(health.check)
        assert (found.ok, found.is_writable, found.events) == (True, True, 1)
        assert {each.events_behind for each in found.projections} == {0}

        def as_reader(tx: Transaction) -> health.Health:
            tx.execute("CREATE ROLE probe")
            ((schema,),) = tx.all("SELECT CAST(current_schema() AS TEXT)")
            tx.execute(f'GRANT USAGE ON SCHEMA "{schema}" TO probe')
            tx.execute(f'GRANT SELECT ON ALL TABLES IN SCHEMA "{schema}" TO probe')
            tx.execute("SET LOCAL ROLE probe")
            seen = health.check(tx)
            tx.execute("RESET ROLE")
            return seen

        found = await log.write(as_reader)
        assert (found.ok, found.is_writable) == (True, False)
