"""One way for each thing, in all commands: options, dry runs, times, ids, JSON, exit codes."""

from __future__ import annotations

import asyncio
import os
import pty
import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from agents_eventlog import AdvancedSQLiteSession, KeyFile
from agents_eventlog.adapters.cli import main as cli_main
from agents_eventlog.adapters.cli.terminal import PANELS, ExitCode
from agents_eventlog.adapters.conversations import timestamps
from tests.adapters.looking import documents, run
from tests.commands import commands
from tests.manual import ROOT, page
from tests.support_conversation import user, write

SHORT = {
    "--session": "-s",
    "--user": "-u",
    "--limit": "-n",
    "--output": "-o",
    "--yes": "-y",
    "--json": "-j",
    "--help": "-h",
}
WITHOUT_JSON = {"demo", "view", "keys"}  # `keys` is a group of commands
WITH_YES = {"delete", "erase", "expire", "redact", "retain"}
ID = "support-42"
SIGNING_KEY = "PRIVATE+KEY+PeterNeumann+c74f20a3+AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz"
PUBLIC_KEY = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
EACH: dict[str, list[Any]] = {
    "audit": [],
    "backup": ["backup.db"],
    "branches": [ID, "--removed", "--turns"],
    "check": ["--signed", "head.note", "--public-key", PUBLIC_KEY],
    "compare": [ID, "main", "kinder"],
    "copy": ["copy.db"],
    "delete": ["--user", "nobody"],
    "doctor": [],
    "expire": ["--older-than", "30d"],
    "encrypt": ["sealed.db", "--keys", "keys.db"],
    "erase": ["--popped"],
    "export": ["-o", "out.jsonl"],
    "fork": [ID, "another"],
    "health": [],
    "import": ["history.jsonl"],
    "init": [],
    "log": [ID, "--graph"],
    "prove": ["--session", ID, "--signed", "head.note"],
    "redact": [1, 0],
    "replay": ["--check"],
    "reprice": ["--dry-run"],
    "restore": [ID],
    "retain": ["--delete-after", "90d", "--erase-after", "30d"],
    "search": ["refund"],
    "sessions": [],
    "show": [ID],
    "sign": ["--key", "sign.key"],
    "tools": ["--by", "tool,session,day"],
    "usage": ["--by", "session,day"],
    "verify": [],
}
OF_ANOTHER_FORM = {"started_at", "gone_at"}


@pytest.fixture
def db(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "support.db"
    asyncio.run(write(path))
    run("export", path, "-o", tmp_path / "history.jsonl")
    (tmp_path / "sign.key").write_text(SIGNING_KEY)
    (tmp_path / "head.note").write_text(run("sign", path, "--key", "sign.key").stdout)
    KeyFile(tmp_path / "keys.db").create()
    return path


def options(command: Any) -> Iterator[Any]:
    return (each for each in command.params if each.param_type_name == "option")


def test_an_option_has_one_short_form_in_every_command() -> None:
    for name, command in commands().items():
        for option in options(command):
            for long in set(option.opts) & SHORT.keys():
                assert SHORT[long] in option.opts, (name, long)
            assert {each for each in option.opts if not each.startswith("--")} <= {*SHORT.values()}


def test_an_option_means_the_same_in_every_command() -> None:
    meant: dict[str, set[str]] = {}
    for name, command in commands().items():
        for option in options(command):
            own = name in {
                "erase",
                "export",
                "fork",
                "audit",
                "log",
                "init",
                "branches",
                "show",
                "view",
            }
            key = f"{option.opts[0]} of {name}" if own else option.opts[0]
            meant.setdefault(key, set()).add(option.help)
    several = {key for key, helps in meant.items() if len(helps) > 1}
    assert several <= {"--by", "--expect-head", "--after", "--type", "--text"}


def test_every_command_has_json_a_panel_and_an_example() -> None:
    for name, command in commands().items():
        names = {opt for option in options(command) for opt in option.opts}
        assert ("--json" in names) == (name not in WITHOUT_JSON), name
        assert command.rich_help_panel in PANELS, name
        assert "Example: " in command.help, name
        assert ("--since" in names) == ("--until" in names), name
        assert "--all" not in names or name == "delete"


def test_what_removes_content_only_shows_it_without_yes(db: Path) -> None:
    found = {
        name: {opt for option in options(command) for opt in option.opts}
        for name, command in commands().items()
    }
    assert {name for name, names in found.items() if "--yes" in names} == WITH_YES
    assert {name for name, names in found.items() if "--dry-run" in names} >= WITH_YES
    before = documents(run("audit", db, "--json"), "event")
    for name in WITH_YES:
        for dry in ([], ["--dry-run"]):
            assert run(name, db, *EACH[name], *dry).exit_code == ExitCode.CLEAN
            printed = documents(run(name, db, *EACH[name], *dry, "--json"))
            assert all(each["dry_run"] for each in printed if each["kind"] != "session")
        both = run(name, db, *EACH[name], "--yes", "--dry-run")
        assert both.exit_code == ExitCode.USAGE
        assert "cannot be combined" in both.stderr
    assert documents(run("audit", db, "--json"), "event") == before


def values(document: Any) -> Iterator[tuple[str, Any]]:
    """Yield each field of a document and of those in it, except contents of the conversation."""
    if isinstance(document, dict):
        for key, value in document.items():
            yield key, value
            if key not in {"data", "item", "popped", "metadata", "live", "replayed", "placeholder"}:
                yield from values(value)
    elif isinstance(document, list):
        for each in document:
            yield from values(each)


@pytest.mark.parametrize("name", sorted(EACH))
def test_documents_are_those_of_the_manual_with_times_of_one_form(db: Path, name: str) -> None:
    assert EACH.keys() == commands().keys() - WITHOUT_JSON
    if name == "restore":
        run("delete", db, ID, "--yes")
    target = [db]
    if name == "import":
        target = [db.with_name("imported.db")]
    if name == "check":
        target = [db.with_name("proof.json")]
        target[0].write_text(run("prove", db, *EACH["prove"]).stdout)
    result = run(name, *target, *EACH[name], "--json")
    assert result.exit_code in {ExitCode.CLEAN, ExitCode.FINDINGS}, result.stderr
    manual = page("reference/json").text
    assert documents(result) or name == "search"
    for document in documents(result):
        assert next(iter(document)) == "kind"
        assert f"`{document['kind']}`" in manual
        for key, value in values(document):
            assert f"`{key}`" in manual or key == "kind", key
            if key.endswith("_at") and key != "gone_at" and value is not None:
                assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{6})?Z", value), key


@pytest.mark.parametrize("name", ["audit", "branches", "compare", "log", "show", "usage", "tools"])
def test_an_unknown_session_is_wrong_usage_and_no_match_is_not(db: Path, name: str) -> None:
    given = EACH[name][1:] if ID in EACH[name] else EACH[name]
    where = ["nowhere"] if ID in EACH[name] else ["--session", "nowhere"]
    result = run(name, db, *where, *given)
    assert (result.exit_code, result.stdout) == (ExitCode.USAGE, "")


@pytest.mark.parametrize(
    "arguments",
    [["sessions", "-u", "x"], ["search", "zzz"], ["tools", "-u", "x"], ["usage", "-u", "x"]],
)
def test_no_match_exits_with_0_and_says_so_on_stderr(db: Path, arguments: list[str]) -> None:
    name, *rest = arguments
    result = run(name, db, *rest)
    assert (result.exit_code, result.stdout) == (ExitCode.CLEAN, "")
    assert re.search(r"^no [a-z ]+ found$", result.stderr, re.MULTILINE)


# -- ids ------------------------------------------------------------------------------------------


def test_a_unique_beginning_of_a_session_id_is_enough_to_look_but_not_to_delete(db: Path) -> None:
    assert run("show", db, "supp").exit_code == ExitCode.CLEAN
    assert documents(run("usage", db, "-s", "suppo", "--json"), "total")[0]["total_tokens"] == 1_204
    assert run("show", db, "sup").exit_code == ExitCode.USAGE  # too short
    for arguments in (["delete", "supp", "--yes"], ["erase", "-s", "supp", "--yes"]):
        result = run(arguments[0], db, *arguments[1:])
        assert result.exit_code == ExitCode.USAGE
        assert "expected the whole id, as 'support-42'" in result.stderr


async def test_an_ambiguous_beginning_names_two_ids(db: Path) -> None:
    await AdvancedSQLiteSession("support-43", db).add_items([user("Hello")])
    result = await asyncio.to_thread(run, "show", db, "support")
    assert result.exit_code == ExitCode.USAGE
    assert "'support-42', 'support-43'" in result.stderr
    assert run("show", db, "supp\udc00").exit_code == ExitCode.USAGE


# -- times ----------------------------------------------------------------------------------------


def test_times_are_typed_as_people_say_them() -> None:
    now = datetime(2026, 11, 5, 12, 30, tzinfo=UTC)

    def typed(text: str, *, end: bool = False) -> datetime:
        instant = timestamps.typed(text, now, end_of_day=end)
        return datetime.fromtimestamp(0, UTC) + timedelta(microseconds=instant)

    assert typed("today") == datetime(2026, 11, 5, tzinfo=UTC)
    assert typed("yesterday") == datetime(2026, 11, 4, tzinfo=UTC)
    assert typed("yesterday", end=True) == datetime(2026, 11, 5, tzinfo=UTC)
    assert typed("30d") == now - timedelta(days=30)
    assert typed("2026-11-01T10:00:00") == datetime(2026, 11, 1, 10, tzinfo=UTC)
    assert timestamps.typed("999999w", now) == timestamps.EARLIEST
    with pytest.raises(ValueError, match="yesterday and 30d"):
        timestamps.typed("soon", now)


@pytest.mark.parametrize("name", ["audit", "search", "tools", "usage", "reprice"])
def test_every_period_takes_them(db: Path, name: str) -> None:
    result = run(name, db, *EACH[name], "--since", "30d", "--until", "today", "--json")
    assert result.exit_code == ExitCode.CLEAN, result.stderr
    assert run("show", db, ID, "--as-of", "yesterday").exit_code == ExitCode.CLEAN
    assert run("sessions", db, "--updated-after", "1d").stdout.count(ID) == 1


# -- the log, completion, pager -------------------------------------------------------------------


def test_the_log_may_be_left_out_with_an_environment_variable(
    db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def invoke(*arguments: str) -> Any:
        return CliRunner().invoke(cli_main.app, [*arguments])

    assert invoke("show", ID).exit_code == ExitCode.USAGE
    monkeypatch.setenv("EVENTLOG_DB", str(db))
    assert "Can I get a refund?" in invoke("show", ID).stdout
    assert "Can I get a refund?" in invoke("search", "refund").stdout
    assert ID in invoke("sessions").stdout
    monkeypatch.setenv("EVENTLOG_DB", "elsewhere.db")
    assert ID in invoke("sessions", str(db)).stdout
    assert invoke("show", "missing.db", ID).exit_code == ExitCode.CANNOT_OPEN
    assert invoke("sessions", "--nonsense").exit_code == ExitCode.USAGE


def test_the_help_groups_the_commands_in_panels_and_completion_can_be_installed() -> None:
    text = CliRunner().invoke(cli_main.app, ["--help"]).stdout
    places = [text.index(f"─ {panel} ─") for panel in PANELS]
    assert places == sorted(places)
    assert "--install-completion" in text


def on_a_terminal(command: list[str], environment: dict[str, str]) -> str:
    """Run a command on a terminal of 24 lines, and return what it printed there."""
    leader, follower = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "agents_eventlog", *command],
        stdin=follower,
        stdout=follower,
        stderr=follower,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
    )
    os.close(follower)
    text = b""
    while True:
        try:
            read = os.read(leader, 65_536)
        except OSError:  # the other end is closed
            break
        if not read:
            break
        text += read
    assert process.wait(60) == 0
    os.close(leader)
    return text.decode().replace("\r\n", "\n")


def test_long_output_goes_to_the_pager_with_its_colours_and_width(db: Path, tmp_path: Path) -> None:
    pager = tmp_path / "pager"
    pager.write_text(f"#!/bin/sh\ncat > {tmp_path}/paged\necho paged\n")
    pager.chmod(0o755)
    assert on_a_terminal(["show", str(db), ID], {"EVENTLOG_PAGER": str(pager)}) == "paged\n"
    paged = (tmp_path / "paged").read_text()
    assert "Can I get a refund?" in paged
    assert "\x1b[" in paged
    for environment in (
        {"EVENTLOG_PAGER": "cat"},
        {"EVENTLOG_PAGER": "", "PAGER": "no-such-pager"},
    ):
        assert "Can I get a refund?" in on_a_terminal(["show", str(db), ID], environment)
    assert on_a_terminal(["show", str(db), ID, "--json"], {"PAGER": str(pager)}).startswith("{")
