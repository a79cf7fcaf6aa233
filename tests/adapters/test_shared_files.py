"""Logs in the databases of applications: every name of theirs stays theirs, and every call works."""

from __future__ import annotations

import asyncio
import re
import sqlite3
import subprocess
import sys
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from agents_eventlog import AdvancedSQLiteSession, ConversationLog, EventLog, projections
from agents_eventlog.adapters.cli.terminal import ExitCode
from agents_eventlog.eventlog import ItemsAdded, errors, leases
from agents_eventlog.eventlog.events import SessionCleared
from agents_eventlog.eventlog.storage.sqlite import prefix
from agents_eventlog.projections import Conversations
from agents_eventlog.projections.base import Projection, names
from tests.adapters.looking import change, documents, run
from tests.adapters.old_files import ITEMS_ON_MAIN, execute, grow, ours, rows, sdk
from tests.contract.items import turns, user

if TYPE_CHECKING:
    from pathlib import Path

TABLES = (*sorted(prefix.RESERVED - {"v_messages", "v_turns", "v_sessions", "v_costs"}), "Users")
VIEWS = ("v_messages", "v_turns", "v_sessions", "v_costs")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A database of an application whose tables have all the names of the log's, and guard their rows."""
    file = tmp_path / "app.db"
    execute(
        file,
        *(f"CREATE TABLE {name} (id INTEGER PRIMARY KEY, name TEXT)" for name in TABLES),
        *(f"INSERT INTO {name} (name) VALUES ('mine')" for name in TABLES),
        *(f"CREATE VIEW {name} AS SELECT 'mine' AS name" for name in VIEWS),
        "CREATE TABLE log (x)",
        "CREATE INDEX turns ON log (x)",
        "CREATE INDEX usage_of_turn ON log (x)",
        "CREATE TRIGGER events_are_never_changed BEFORE INSERT ON log BEGIN SELECT 1; END",
        *(
            f"CREATE TRIGGER keep_{what}_{name} BEFORE {what} ON {name} "
            "BEGIN SELECT RAISE(ABORT, 'this table is of the application'); END"
            for name in TABLES
            for what in ("INSERT", "UPDATE", "DELETE")
        ),
        "PRAGMA user_version=7",
    )
    return file


def assert_untouched(path: Path) -> None:
    """See that the application's tables, schema and version are as they were."""
    for name in (*TABLES, *VIEWS):
        assert [row[-1] for row in rows(path, f"SELECT * FROM {name}")] == ["mine"]
    assert rows(path, "PRAGMA user_version") == [(7,)]
    assert rows(path, "PRAGMA application_id") == [(0,)]
    assert rows(path, "PRAGMA integrity_check") == [("ok",)]


def test_the_reserved_names_are_those_of_all_tables_and_views() -> None:
    with closing(EventLog.open_sync(":memory:")) as log:
        engine = log.store.engine
        kept = projections.default(search=True).named([])
        made = {name for projection in kept for name in names(engine, projection)}
        assert {*engine.log_tables, leases.TABLE, *made} == prefix.RESERVED


async def fill(path: Path) -> None:
    """Write the same history, at the same times, into a file."""
    session: Any = AdvancedSQLiteSession("talk", path, search=True)
    now = 1_700_000_000_000_000

    def clock() -> int:
        nonlocal now
        now += 1_000_000
        return now

    session.log.store.clock = clock
    await grow_ours(session)
    await session.log.delete_session("gone")
    session.close()


async def grow_ours(session: Any) -> None:
    await session.add_items(turns("one", "two", "three"))
    await session.pop_item()
    await session.create_branch_from_turn(2, "b")
    await session.add_items(turns("zwei"))
    async with session.exclusive():
        await session.set_metadata({"tier": 2})
    other: Any = AdvancedSQLiteSession("gone", session.log.path, search=True)
    await other.add_items(turns("secret"))
    other.close()


COMMANDS: tuple[tuple[Any, ...], ...] = (
    ("sessions",),
    ("show", "talk", "--json"),
    ("branches", "talk"),
    ("audit", "talk", "--json"),
    ("usage", "--by", "session"),
    ("search", "zwei", "--json"),
    ("search", "secret", "--removed", "--json"),
    ("tools",),
    ("export",),
    ("replay",),
    ("replay", "--check"),
    ("erase", "--session", "gone", "--yes"),
    ("erase", "--popped", "--yes"),
    ("search", "--index"),
    ("sessions", "--deleted"),
)


def _comparable(output: str) -> str:
    return re.sub(r'"salt":"\w+"|\b(app|own)\.db\b', "", output)


async def test_every_command_does_the_same_as_on_a_file_of_its_own(
    path: Path, tmp_path: Path, command: Any
) -> None:
    own = tmp_path / "own.db"
    for file in (path, own):
        await fill(file)
    for words in COMMANDS:
        name, *rest = words
        shared, plain = command(name, path, *rest), command(name, own, *rest)
        told = (shared.exit_code, _comparable(shared.stdout))
        if words[0] in ("replay", "erase"):
            assert told[0] == plain.exit_code == ExitCode.CLEAN, (words, shared.output)
        else:
            assert told == (plain.exit_code, _comparable(plain.stdout)), words
    for name in ("verify", "doctor"):
        result = command(name, path)
        assert result.exit_code == ExitCode.CLEAN, result.output
    assert b"secret" not in path.read_bytes()
    assert_untouched(path)


async def test_views_show_the_log_under_their_prefix(path: Path) -> None:
    await fill(path)
    assert rows(path, "SELECT text FROM eventlog_v_messages WHERE branch_id = 'b'") == [
        ("one",),
        ("about one",),
        ("zwei",),
        ("about zwei",),
    ]
    assert rows(path, "SELECT COUNT(*) FROM eventlog_v_turns") == [(5,)]
    assert rows(path, "SELECT session_id FROM eventlog_v_sessions ORDER BY 1") == [
        ("gone",),
        ("talk",),
    ]
    assert rows(path, "SELECT * FROM eventlog_v_costs") == []


async def test_the_past_can_be_read_and_a_backup_holds_the_applications_tables_too(
    path: Path, tmp_path: Path
) -> None:
    await fill(path)
    with closing(ours(path)) as session:
        assert await session.get_items(as_of=2) == turns("one", "two", "three")[:5]
        made = await session.log.backup(tmp_path / "saved.db")
        assert made.head == await session.log.head()
    assert_untouched(tmp_path / "saved.db")
    with closing(ours(tmp_path / "saved.db")) as session:
        assert len(await session.get_items(branch_id="b")) == 4


async def test_the_events_are_append_only_there_too(path: Path) -> None:
    await fill(path)
    for statement in ("UPDATE eventlog_events SET version = 9", "DELETE FROM eventlog_events"):
        with pytest.raises(sqlite3.IntegrityError, match="events are never"):
            change(path, statement)
    change(path, "DROP TRIGGER eventlog_events_are_never_deleted")
    [finding] = documents(run_in_thread("doctor", path, "--json"), "finding")
    assert finding["subject"] == "events"


def run_in_thread(*words: Any) -> Any:
    """Run a command beside a running loop."""
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(1) as pool:
        return pool.submit(run, *words).result()


async def test_the_sdks_tables_in_an_applications_file_are_migrated(path: Path) -> None:
    session = sdk(path)
    await grow(session)
    expected = await session.get_items()
    session.close()
    with closing(ours(path)) as migrated:
        assert await migrated.get_items() == expected
        assert len(expected) == ITEMS_ON_MAIN
        await migrated.add_items([user("more")])
    assert_untouched(path)
    execute(path, "DELETE FROM agent_messages")
    found = documents(run_in_thread("doctor", path, "--json"), "finding")
    assert any("the log keeps the text" in each["problem"] for each in found)


@pytest.mark.parametrize("name", ["eventlog_events", "eventlog_theirs", "EventLog_x"])
def test_a_name_with_the_prefix_is_refused_and_nothing_is_written(path: Path, name: str) -> None:
    execute(path, "PRAGMA journal_mode=WAL", f"CREATE TABLE {name} (x)")
    before = path.read_bytes()
    with pytest.raises(errors.ForeignFileError, match=rf"'{name}'|another program"):
        ours(path)
    assert path.read_bytes() == before


def test_a_log_is_made_in_an_applications_file_by_a_session_only(path: Path) -> None:
    for opening in (EventLog.open_sync, ConversationLog.open_sync):
        with pytest.raises(errors.ForeignFileError, match="tables of another program"):
            opening(path)
    assert run("sessions", path).exit_code == ExitCode.CANNOT_OPEN
    ours(path).close()
    for opening in (EventLog.open_sync, ConversationLog.open_sync):
        opening(path).close()
        opening(path, read_only=True).close()


def test_other_processes_find_the_log_and_make_none_of_their_own(path: Path) -> None:
    script = (
        "import asyncio, sys\n"
        "from agents_eventlog import AdvancedSQLiteSession\n"
        "async def add():\n"
        "    session = AdvancedSQLiteSession('talk', sys.argv[1])\n"
        "    for n in range(20):\n"
        "        await session.add_items([{'role': 'user', 'content': 'x'}])\n"
        "asyncio.run(add())\n"
    )
    running = [subprocess.Popen([sys.executable, "-c", script, str(path)]) for _ in range(3)]
    assert [process.wait(60) for process in running] == [0, 0, 0]
    with closing(ours(path)) as session:
        assert len(asyncio.run(session.get_items())) == 60
    assert_untouched(path)


async def test_tables_that_another_process_adds_are_found(path: Path) -> None:
    with closing(ours(path)) as session:
        await session.add_items([user("needle in a haystack")])
        assert not (await session.find_items("needle")).indexed
        script = (
            "import sys; from agents_eventlog import AdvancedSQLiteSession\n"
            "AdvancedSQLiteSession('talk', sys.argv[1], search=True).close()\n"
        )
        await asyncio.to_thread(
            subprocess.run, [sys.executable, "-c", script, str(path)], check=True, timeout=60
        )
        assert (await session.find_items("needle")).indexed


def test_a_newer_release_is_recognised_there_too(path: Path) -> None:
    ours(path).close()
    change(path, "UPDATE eventlog_log_properties SET value = '9' WHERE name = 'schema_version'")
    with pytest.raises(errors.NewerFileError) as caught:
        EventLog.open_sync(path)
    assert (caught.value.found, caught.value.known) == (9, 2)


def test_a_failed_creation_leaves_the_file_and_the_connection_as_they_were(path: Path) -> None:
    def fail(_: Any) -> None:
        raise RuntimeError("stopped")

    before = rows(path, "SELECT name FROM sqlite_schema")
    with pytest.raises(RuntimeError, match="stopped"):
        EventLog.open_sync(path, accept=lambda _: True, on_create=fail)
    assert rows(path, "SELECT name FROM sqlite_schema") == before
    ours(path).close()
    assert_untouched(path)


async def test_a_projection_of_a_program_has_the_prefix_too(path: Path) -> None:
    class Counted(Projection):
        name = "counted"
        version = 1
        schema = (
            "CREATE TABLE users (session_id TEXT PRIMARY KEY, n INTEGER NOT NULL)",
            "CREATE INDEX users_by_n ON users (n)",
        )
        handles = (ItemsAdded, SessionCleared)

        def apply(self, tx: Any, events: Any) -> None:
            for event in events:
                tx.execute(
                    "INSERT INTO users VALUES (?, 1) "
                    "ON CONFLICT (session_id) DO UPDATE SET n = users.n + 1",
                    (event.session_id,),
                )

    execute(path, "DROP TABLE Users")
    ours(path).close()
    execute(path, "CREATE TABLE theirs (x)")
    kept = projections.Projections(Counted())
    with closing(EventLog.open_sync(path, projections=kept)) as log:
        await log.append("s", ItemsAdded(items=[user("a")]))
        await log.append("s", ItemsAdded(items=[user("b")]))
        assert await log.query(lambda tx: tx.all("SELECT n FROM users")) == [(2,)]
        [result] = projections.replay(log, [Counted()])
        assert (result.table, result.rows) == ("users", 1)
    assert rows(path, "SELECT n FROM eventlog_users") == [(2,)]


async def test_tables_that_a_newer_release_keeps_for_older_programs_have_the_prefix_too(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = ours(path)
    await session.add_items(turns("one"))
    session.close()
    version = Conversations.version
    for newer in (True, False, True):
        with monkeypatch.context() as release:
            if newer:
                release.setattr(Conversations, "version", version + 1)
            session = ours(path)
            await session.add_items(turns("more"))
            read = [item["content"] for item in await session.get_items()]
            session.close()
    assert read == [item["content"] for item in turns("one", "more", "more", "more")]
    assert_untouched(path)
    kept = {name for (name,) in rows(path, "SELECT name FROM sqlite_schema") if "__v" in name}
    assert f"eventlog_items__v{version}" in kept
    assert all(name.startswith("eventlog_") for name in kept if not name.startswith("sqlite_"))
