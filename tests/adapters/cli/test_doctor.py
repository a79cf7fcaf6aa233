"""``eventlog doctor``: what a file is, what ails it, and what to do about it."""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from agents import SQLiteSession

from agents_eventlog import AdvancedSQLiteSession
from agents_eventlog.adapters.cli.terminal import ExitCode
from agents_eventlog.eventlog import EventLog, ItemPopped, ItemsAdded, SessionDeleted, leases
from agents_eventlog.eventlog.events import ItemRef
from agents_eventlog.eventlog.storage.sqlite import health
from agents_eventlog.eventlog.storage.sqlite.engine import SQLITE
from agents_eventlog.eventlog.storage.transaction import Transaction
from tests.adapters import child
from tests.adapters.looking import (
    answer,
    call,
    change,
    documents,
    one,
    output,
    run,
    support,
    tampered,
    user,
    write,
)

if TYPE_CHECKING:
    from agents_eventlog.eventlog import Event


def findings(path: Path) -> dict[str, str]:
    """Return each finding's subject and problem, and see that people are told as much."""
    result = run("doctor", path, "--json")
    found = {each["subject"]: each["problem"] for each in documents(result, "finding")}
    expected = ExitCode.FINDINGS if found else ExitCode.CLEAN
    text = run("doctor", path)
    assert (result.exit_code, text.exit_code) == (expected, expected), result.stderr
    assert one(result, "diagnosed")["ok"] is not bool(found)
    assert ("no problems found" in text.stdout) is not bool(found)
    assert text.stdout.count("finding  ") == len(documents(result, "finding"))
    return found


def items(*added: Any) -> Event:
    return ItemsAdded(items=list(added))


# -- a file in good health --------------------------------------------------------------------------


def test_a_sound_file_needs_nothing_done(db: Path) -> None:
    assert findings(db) == {}


def test_what_the_file_is_and_holds_is_told(db: Path) -> None:
    result = run("doctor", db, "--json")
    file = one(result, "file")
    assert (file["events"], file["sessions"], file["journal_mode"]) == (10, 1, "wal")
    assert file["bytes"] == db.stat().st_size
    assert file["sqlite_version"] == sqlite3.sqlite_version
    by_type = {each["type"]: each for each in documents(result, "events")}
    assert {name: each["events"] for name, each in by_type.items()} == {
        "items_added": 4,
        "item_popped": 1,
        "branch_created": 2,
        "branch_switched": 2,
        "branch_deleted": 1,
    }
    with closing(sqlite3.connect(db)) as connection:
        (size,) = connection.execute(
            "SELECT SUM(LENGTH(CAST(data AS BLOB))) FROM events WHERE type = 'items_added'"
        ).fetchone()
    assert by_type["items_added"]["bytes"] == size
    tables = {each["table"] for each in documents(result, "table")}
    assert {"events", "items", "sessions", "usage", "checkpoints"} <= tables


def test_who_holds_a_lease_is_shown(db: Path) -> None:
    with closing(EventLog.open_sync(db)) as log:
        log.store.write_sync(lambda tx: leases.take(tx, "held", "process 7", 60_000_000))
        log.store.write_sync(lambda tx: leases.take(tx, "expired", "process 8", 0))
    [lease] = one(run("doctor", db, "--json"), "file")["leases"]
    assert (lease["session_id"], lease["holder"]) == ("held", "process 7")
    assert lease["since"] < lease["expires_at"]
    assert f"'held', by process 7 since {lease['since']}" in " ".join(
        run("doctor", db).stdout.split()
    )
    assert not findings(db)


def test_sizes_are_pages_where_sqlite_can_tell_and_estimates_where_not(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(path, [("s", "main", items(user("x" * 100_000)))])
    with reading(path) as log:
        exact = log.store.read_sync(health.table_sizes)
        monkeypatch.setattr(health, "BYTES_BY_TABLE", "SELECT * FROM dbstat_is_not_here")
        estimates = log.store.read_sync(health.table_sizes)
    largest = estimates[0]
    assert (largest.table, largest.is_estimate) == ("events", True)
    assert 100_000 <= largest.bytes < 110_000
    assert exact[0].table == "events"
    assert exact[0].bytes >= 100_000


def reading(path: Path) -> Any:
    return closing(EventLog.open_sync(path, read_only=True))


def test_an_empty_log_needs_nothing_done(path: Path) -> None:
    EventLog.open_sync(path).close()
    assert findings(path) == {}
    notes = [each["problem"] for each in documents(run("doctor", path, "--json"), "note")]
    assert "projection 'usage' was never built" in notes


# -- what ails it -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("version", "has_bug"),
    [((3, 6, 23), False), ((3, 7, 0), True), ((3, 51, 2), True), ((3, 51, 3), False)],
)
def test_the_wal_reset_bug_is_noted_for_the_versions_that_have_it(
    version: tuple[int, int, int], has_bug: bool
) -> None:
    notes = list(health.version_problems(version))
    assert [note.is_note for note in notes] == [True] * has_bug


@pytest.mark.parametrize(
    ("statement", "subject"),
    [
        ("UPDATE checkpoints SET position = 3 WHERE projection = 'usage'", "projections"),
        ("UPDATE checkpoints SET version = 0 WHERE projection = 'usage'", "projections"),
        ("DELETE FROM checkpoints WHERE projection = 'usage'", "projections"),
        ("DROP TABLE usage", "projections"),
        ("DROP TRIGGER events_are_never_deleted", "events"),
        ("DROP TRIGGER events_are_never_changed", "events"),
        ("PRAGMA journal_mode=DELETE", "file"),
    ],
)
def test_what_is_not_as_it_should_be_is_a_finding(db: Path, statement: str, subject: str) -> None:
    change(db, statement)
    assert set(findings(db)) == {subject}


def test_a_trigger_that_lets_everything_pass_is_a_finding(db: Path) -> None:
    change(
        db,
        "DROP TRIGGER events_are_never_deleted",
        "CREATE TRIGGER events_are_never_deleted BEFORE DELETE ON events BEGIN SELECT 1; END",
    )
    assert "'events_are_never_deleted'" in findings(db)["events"]


def test_a_replay_repairs_what_it_is_said_to_repair(db: Path) -> None:
    change(db, "DROP TABLE usage", "UPDATE checkpoints SET position = 3")
    assert set(findings(db)) == {"projections"}
    assert run("replay", db).exit_code == ExitCode.CLEAN
    assert findings(db) == {}


def test_what_a_killed_replay_left_is_a_finding_and_a_running_one_is_not(db: Path) -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    mine = db.with_name(f"{db.name}-replay-abc-{os.getpid()}")
    mine.touch()
    assert findings(db) == {}
    dead = db.with_name(f"{db.name}-replay-abc-{child.pid}")
    dead.touch()
    assert dead.name in findings(db)["replay"]
    assert dead.exists()


def test_a_large_write_ahead_log_is_a_finding(db: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with closing(sqlite3.connect(db)) as connection:
        connection.execute("SELECT COUNT(*) FROM events").fetchone()
        write(db, [("s", "main", items(user("x" * 300_000)))])
        monkeypatch.setattr(health, "WAL_SIZE_LIMIT_BYTES", 100_000)
        assert "bytes" in findings(db)["write-ahead log"]


def test_a_session_whose_content_was_erased_or_damaged_is_a_finding(db: Path) -> None:
    change(db, "UPDATE events SET data = NULL WHERE position = 2")
    assert "event 2 was erased" in findings(db)["session 'support-42'"]
    tampered(db, "UPDATE events SET data = 'x' WHERE position = 2")
    assert "event 2 cannot be decoded" in findings(db)["session 'support-42'"]
    change(db, "DELETE FROM events WHERE position = 2")
    assert "event 2 is missing" in findings(db)["session 'support-42'"]


def test_tool_calls_without_outputs_are_named_branch_by_branch(path: Path) -> None:
    write(
        path,
        [
            ("a", "main", items(user("?"), call("c1"), call("c2", "add"), output("c1"))),
            ("b", "main", items(user("?"), call("c3"), output("c3"), answer("!"))),
            ("c", "main", items({"type": "web_search_call", "id": "w", "status": "completed"})),
            ("d", "main", items(call("c4"))),
            ("d", None, SessionDeleted()),
        ],
    )
    found = findings(path)
    assert set(found) == {"session 'a'"}
    assert "1 tool call without output: add (c2)" in found["session 'a'"]
    write(path, [("a", "main", items(output("c2")))])
    assert findings(path) == {}


def test_messages_that_an_old_program_left_after_adoption_are_a_finding(path: Path) -> None:
    async def talk() -> None:
        old = SQLiteSession("s", path)
        await old.add_items([user("before")])
        session: Any = AdvancedSQLiteSession("s", path)
        assert await session.get_items() == [user("before")]
        session.close()
        await old.add_items([user("late"), answer("too late")])
        old.close()

    asyncio.run(talk())
    assert "found 2 messages added to 'agent_messages'" in findings(path)["the SDK's tables"]


def test_what_doctor_says_to_do_about_late_messages_brings_them_in(tmp_path: Path) -> None:
    path = tmp_path / "a talk.db"
    names: dict[str, Any] = {"sessions_table": '"my chats"', "messages_table": "Lines"}

    async def talk() -> None:
        old = SQLiteSession("s", path, **names)
        await old.add_items([user("before")])
        AdvancedSQLiteSession("s", path, **names).close()
        await old.add_items([user("late")])
        old.close()

    asyncio.run(talk())
    advice = documents(run("doctor", path, "--json"), "finding")[0]["advice"]
    program, *words = shlex.split(advice[advice.index("eventlog import") :])
    assert (program, words[:3]) == ("eventlog", ["import", "NEW.db", str(path)])
    words[1] = str(tmp_path / "new.db")
    assert run(*words).exit_code == ExitCode.CLEAN
    shown = documents(run("show", words[1], "s", "--json"), "item")
    assert [each["item"] for each in shown] == [user("before"), user("late")]


def migrated(path: Path, *session_ids: str) -> None:
    """Write sessions with the SDK's class, then migrate the file."""

    async def talk() -> None:
        for session_id in session_ids:
            old = SQLiteSession(session_id, path)
            await old.add_items([user("my address"), answer("noted"), user("noted")])
            old.close()
        AdvancedSQLiteSession(session_ids[0], path).close()

    asyncio.run(talk())


def test_text_that_a_program_deleted_from_the_sdks_tables_is_still_in_the_log(path: Path) -> None:
    migrated(path, "a", "it's", "c")
    assert findings(path) == {}
    change(
        path,
        "DELETE FROM agent_messages WHERE session_id = 'a' AND id <= 2",
        """UPDATE agent_messages SET message_data = 'null' WHERE session_id = 'it''s' AND id = 4""",
    )
    found = documents(run("doctor", path, "--json"), "finding")
    assert [each["problem"].partition(":")[0] for each in found] == [
        "2 messages of session 'a' deleted or changed in 'agent_messages' after its migration",
        "1 message of session \"it's\" deleted or changed in 'agent_messages' after its migration",
    ]
    for each in found:
        program, *words = shlex.split(each["advice"].partition("eventlog ")[2].partition(";")[0])
        assert run(program, *words, "--yes").exit_code == ExitCode.CLEAN
    assert findings(path) == {}
    assert b"my address" in path.read_bytes()  # that of the third session


def test_the_sdks_tables_may_be_dropped_after_migration(path: Path) -> None:
    migrated(path, "a")
    change(path, "DROP TABLE agent_messages", "DROP TABLE agent_sessions")
    assert findings(path) == {}


def test_an_erase_deletes_from_the_sdks_tables_without_a_finding(path: Path) -> None:
    migrated(path, "a", "b")
    write(path, [("a", "main", ItemPopped(item=ItemRef(3, 0)))])
    for words in (["--session", "b"], ["--popped"]):
        assert run("erase", path, *words, "--yes").exit_code == ExitCode.CLEAN
    assert findings(path) == {}


def test_what_was_imported_later_is_not_expected_in_the_sdks_tables(tmp_path: Path) -> None:
    path, other = tmp_path / "a.db", tmp_path / "b.db"
    migrated(path, "a")
    migrated(other, "b")
    imported = run(
        "import",
        path,
        other,
        "--sessions-table",
        "agent_sessions",
        "--messages-table",
        "agent_messages",
    )
    assert imported.exit_code == ExitCode.CLEAN
    assert findings(path) == {}


def in_a_folder_that_cannot_be_written(path: Path) -> tuple[str, list[dict[str, Any]]]:
    """Return what doctor tells people and programs there."""
    warm = path.with_name("warm.db")
    support(warm)
    look = 'print(json.dumps([run("doctor", path, *words).stdout for words in ([], ["--json"])]))'
    path.parent.chmod(0o555)
    printed, told = child.run(
        f"from tests.adapters.looking import run\n"
        f"assert all(run('doctor', {str(warm)!r}, *w).exit_code == 0 for w in ([], ['--json']))\n"
        f"{child.NOBODY}\n{look}",
        path,
    )
    return printed, [json.loads(line) for line in told.splitlines()]


def test_a_folder_that_cannot_be_written_is_no_finding_and_hides_no_durability(
    public: Path,
) -> None:
    support(public / "talk.db")
    printed, told = in_a_folder_that_cannot_be_written(public / "talk.db")
    assert "no problems found" in printed
    assert "journal mode wal" in printed
    assert [each for each in told if each["kind"] == "finding"] == []
    assert [each["journal_mode"] for each in told if each["kind"] == "file"] == ["wal"]


def test_another_journal_mode_is_found_even_in_a_folder_that_cannot_be_written(
    public: Path,
) -> None:
    support(public / "talk.db")
    change(public / "talk.db", "PRAGMA journal_mode=DELETE")
    printed, told = in_a_folder_that_cannot_be_written(public / "talk.db")
    assert "1 problem found" in printed
    assert [each["journal_mode"] for each in told if each["kind"] == "file"] == ["delete"]


def test_a_damaged_file_is_a_finding_and_no_crash(path: Path) -> None:
    write(path, [("s", "main", items(user("x" * 3_000)))] * 200)
    content = bytearray(path.read_bytes())
    middle = len(content) // 2 // 4096 * 4096
    content[middle : middle + 3 * 4096] = b"\xff" * (3 * 4096)
    path.write_bytes(bytes(content))
    result = run("doctor", path)
    assert (result.exit_code, result.stderr) == (ExitCode.FINDINGS, "")


def test_text_that_is_not_utf_8_is_a_finding_and_no_crash(db: Path) -> None:
    tampered(db, "UPDATE events SET type = CAST(x'ff' AS TEXT) WHERE position = 2")
    assert "file" in findings(db)


# -- an erase that was stopped ----------------------------------------------------------------------


def test_an_erase_that_was_stopped_before_the_file_was_rewritten_is_told(
    db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*_: object, **__: object) -> bool:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("agents_eventlog.eventlog.erasure.rewrite", stopped)
        assert run("erase", db, "--popped", "--yes").exit_code != 0
    found = findings(db)
    assert found.keys() == {"erasing"}
    assert "may still hold copies of the erased content" in found["erasing"]
    assert run("erase", db, "--popped", "--yes").exit_code == ExitCode.CLEAN
    assert findings(db) == {}


def test_the_journal_mode_is_known_where_no_file_can_be_made_beside_it(path: Path) -> None:
    support(path)
    path.with_name(f"{path.name}-wal").mkdir()
    with closing(sqlite3.connect(f"{path.as_uri()}?immutable=1", uri=True)) as connection:
        assert health.journal_mode(Transaction(connection, 0, engine=SQLITE)) == "wal"
