"""``eventlog sessions``, ``delete`` and ``restore``."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from agents_eventlog import AdvancedSQLiteSession
from agents_eventlog.adapters.cli import main as cli_main
from agents_eventlog.adapters.cli.terminal import ExitCode
from tests.adapters.looking import documents, run
from tests.engines import stored

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
async def db(tmp_path: Path) -> Path:
    path = tmp_path / "talk.db"
    for name, who, plan in (
        ("one", "alice", "pro"),
        ("two", "bob", "pro"),
        ("three", "bob", "free"),
    ):
        session = AdvancedSQLiteSession(name, path, user_id=who, metadata={"plan": plan})
        await session.add_items([{"role": "user", "content": f"I am \x1b[31m{name}"}])
        session.close()
    return path


class Ran:
    """What a command printed, and how it ended."""

    def __init__(self, capsys: pytest.CaptureFixture[str], *arguments: object) -> None:
        self.code = cli_main.main([str(argument) for argument in arguments])
        self.out, self.err = capsys.readouterr()

    @property
    def documents(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def ids(self) -> list[str]:
        return [row["session_id"] for row in self.documents if row["kind"] == "session"]


def test_sessions_are_listed_the_last_used_first(db: Path, capsys: Any) -> None:
    ran = Ran(capsys, "sessions", db)
    assert ran.code == 0
    assert [ran.out.index(name) for name in ("three", "two", "one")] == sorted(
        ran.out.index(name) for name in ("one", "two", "three")
    )
    assert "\x1b[31m" not in ran.out
    assert "\\x1b[31m" in ran.out
    assert "next page" not in ran.out
    assert Ran(capsys, "sessions", db, "--reverse", "--json").ids == ["one", "two", "three"]


def test_one_session_is_listed_by_its_id(db: Path, capsys: Any) -> None:
    assert Ran(capsys, "sessions", db, "--session", "two", "--json").ids == ["two"]
    assert Ran(capsys, "sessions", db, "--session", "two", "--deleted", "--json").ids == []
    ran = Ran(capsys, "sessions", db, "--session", "none such")
    assert (ran.code, ran.out) == (ExitCode.USAGE, "")
    assert "session 'none such' does not exist" in ran.err


def test_filters_are_typed_as_options(db: Path, capsys: Any) -> None:
    def ids(*options: str) -> list[str]:
        ran = Ran(capsys, "sessions", db, "--json", *options)
        assert ran.code == 0, ran.err
        return ran.ids

    assert ids("--user", "bob") == ["three", "two"]
    assert ids("--metadata", '{"plan": "pro"}') == ["two", "one"]
    assert ids("--text", "i am") == ["three", "two", "one"]
    assert ids("--min-items", "2") == []
    assert ids("--created-after", "2020-01-01", "--updated-after", "2020-01-01") != []
    assert ids("--created-before", "2020-01-01") == []
    assert ids("--updated-before", "2020-01-01") == []
    assert ids("--order-by", "created_at", "--limit", "1") == ["three"]


def test_a_page_tells_how_to_go_on(db: Path, capsys: Any) -> None:
    first = Ran(capsys, "sessions", db, "--limit", 2)
    after = first.out.split("next page: --after ")[1].strip()
    rest = Ran(capsys, "sessions", db, "--limit", 2, "--after", after, "--json")
    assert rest.ids == ["one"]
    [row] = rest.documents
    assert row["created_at"].endswith("Z")
    assert row["title"] == "I am \x1b[31mone"


@pytest.mark.parametrize(
    "options",
    [
        ["--metadata", "plan=pro"],
        ["--metadata", "[1]"],
        ["--updated-before", "last week"],
        ["--after", "nonsense"],
        ["--limit", "0"],
    ],
)
def test_what_cannot_be_asked_is_a_wrong_usage(db: Path, capsys: Any, options: list[str]) -> None:
    ran = Ran(capsys, "sessions", db, *options)
    assert ran.code == 2
    assert ran.out == ""
    assert "Traceback" not in ran.err


def test_nothing_is_deleted_without_yes_and_all_is_restored_one_by_one(
    db: Path, capsys: Any
) -> None:
    ran = Ran(capsys, "delete", db, "--user", "bob")
    assert ran.code == 0
    assert "would delete 2 sessions, 2 items; 0 tokens ($0.00) stay in the usage totals" in ran.out
    assert "pass --yes to delete" in ran.out
    assert len(Ran(capsys, "sessions", db, "--json").ids) == 3
    done = Ran(capsys, "delete", db, "--user", "bob", "--yes", "--reason", "left", "--json")
    assert done.ids == ["two", "three"]
    assert done.documents[-1] == {
        "kind": "receipt",
        "sessions": 2,
        "items": 2,
        "total_tokens": 0,
        "total_cost": 0.0,
        "unpriced_requests": 0,
        "dry_run": False,
    }
    assert Ran(capsys, "sessions", db, "--json").ids == ["one"]
    deleted = Ran(capsys, "sessions", db, "--deleted")
    assert "two" in deleted.out
    assert "one" not in deleted.out
    restored = Ran(capsys, "restore", db, "two")
    assert (restored.code, restored.out) == (0, "restored session two\n")
    assert Ran(capsys, "sessions", db, "--json").ids == ["two", "one"]


def test_a_restored_session_is_told_to_programs(db: Path, capsys: Any) -> None:
    Ran(capsys, "delete", db, "--user", "alice", "--yes")
    restored = Ran(capsys, "restore", db, "one", "--json")
    assert (restored.code, restored.documents) == (0, [{"kind": "restored", "session_id": "one"}])


def test_deleting_all_needs_to_be_said(db: Path, capsys: Any) -> None:
    ran = Ran(capsys, "delete", db, "--yes")
    assert ran.code == 2
    assert "expected a filter or --all" in ran.err
    assert len(Ran(capsys, "sessions", db, "--json").ids) == 3
    assert Ran(capsys, "delete", db, "--all", "--yes").code == 0
    assert Ran(capsys, "sessions", db, "--json").ids == []


def test_what_there_is_not_cannot_be_restored(db: Path, capsys: Any) -> None:
    ran = Ran(capsys, "restore", db, "none such")
    assert ran.code == 2
    assert "session 'none such' does not exist" in ran.err


@pytest.mark.parametrize("command", [["sessions"], ["delete", "--all"], ["restore", "one"]])
def test_a_file_that_is_not_there_is_not_made(
    tmp_path: Path, capsys: Any, command: list[str]
) -> None:
    name, *rest = command
    assert Ran(capsys, name, tmp_path / "none.db", *rest).code == 3
    assert list(tmp_path.iterdir()) == []


def test_listing_and_telling_what_would_be_deleted_write_nothing(db: Path, capsys: Any) -> None:
    before = stored(db)
    Ran(capsys, "sessions", db, "--text", "I")
    Ran(capsys, "delete", db, "--all")
    assert stored(db) == before
    assert [path.name for path in db.parent.iterdir()] == ["talk.db"]


def test_one_session_is_deleted_by_its_id(db: Path) -> None:
    preview = run("delete", db, "two", "--json")
    assert [each["session_id"] for each in documents(preview, "session")] == ["two"]
    assert documents(run("sessions", db, "--deleted", "--json")) == []
    assert run("delete", db, "two", "--yes").exit_code == ExitCode.CLEAN
    (row,) = documents(run("sessions", db, "--deleted", "--json"))
    assert row["session_id"] == "two"
    assert documents(run("delete", db, "two", "--json"), "session") == []


def test_an_unknown_session_is_wrong_usage_and_not_every_session(db: Path) -> None:
    for session_id in ("tw", ""):
        result = run("delete", db, session_id, "--yes")
        assert (result.exit_code, result.stdout) == (ExitCode.USAGE, "")
