"""The demo: what it shows, that it proves what it says, and that it leaves others alone."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
from agents.models import get_default_model
from typer.testing import CliRunner

from agents_eventlog import AdvancedSQLiteSession
from agents_eventlog.adapters.cli import main as cli_main
from agents_eventlog.adapters.cli.demo import command as demo_command
from agents_eventlog.adapters.cli.demo import script as demo_script
from agents_eventlog.adapters.cli.terminal import ExitCode
from agents_eventlog.adapters.conversations import summary
from agents_eventlog.adapters.openai_agents.testing import ScriptedModel, reply
from agents_eventlog.eventlog import EventLog

if TYPE_CHECKING:
    from pathlib import Path

    from agents_eventlog.adapters.cli.demo.screen import View
    from agents_eventlog.projections import ReplayResult

TITLES = ("The conversation", "The branches", "The usage", "The events", "The replay")


@pytest.fixture(autouse=True)
def no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setenv("COLUMNS", "100")


def show(path: Path) -> Any:
    """Run the demo in this process; answers with exit_code, stdout and stderr."""
    return CliRunner().invoke(cli_main.app, ["demo", "--db", str(path)])


def command(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "agents_eventlog", "demo", *arguments],
        env={**os.environ, "PYTHONIOENCODING": "utf-8", **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def stored(path: Path, sql: str) -> list[Any]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(sql).fetchall()


def test_the_demo_shows_the_main_job_and_ends_with_0(tmp_path: Path) -> None:
    done = command(TMPDIR=str(tmp_path))
    assert (done.returncode, done.stderr) == (ExitCode.CLEAN, "")
    places = [done.stdout.index(title) for title in TITLES]
    assert places == sorted(places)
    assert "scripted (OPENAI_API_KEY is not set), priced like" in done.stdout
    assert 'get_weather(city="Lisbon")' in done.stdout
    assert "rainy-oslo" in done.stdout
    assert "Every read returns the same result as before." in done.stdout
    assert "differ" not in done.stdout
    assert "\x1b" not in done.stdout
    assert max(map(len, done.stdout.splitlines()[:60])) <= 100

    (file,) = tmp_path.rglob("conversations.db")
    assert str(file) in done.stdout
    types = {kind for (kind,) in stored(file, "SELECT type FROM events")}
    assert {"items_added", "item_popped", "branch_created", "usage_recorded"} <= types


def test_the_scripted_demo_shows_what_it_would_have_cost(tmp_path: Path) -> None:
    path = tmp_path / "talk.db"
    shown = show(path).stdout
    assert "(OPENAI_API_KEY is not set), priced like gpt-4.1-mini" in shown
    requests = stored(path, "SELECT model, cost_usd FROM usage")
    assert {model for model, _ in requests} == {"gpt-4.1-mini"}
    total = sum(cost for _, cost in requests)
    assert total > 0
    (totals,) = (line for line in shown.splitlines() if "all recorded" in line)
    assert totals.split()[-1] == f"${summary.usd(total)}"


def test_the_demo_never_asks_the_network_without_a_key(tmp_path: Path) -> None:
    program = (
        "import os, socket, sys\n"
        "def refused(*arguments, **options):\n"
        "    os._exit(99)\n"
        "socket.socket.connect = socket.getaddrinfo = socket.create_connection = refused\n"
        "from agents_eventlog.adapters.cli.main import main\n"
        f"sys.exit(main(['demo', '--db', {str(tmp_path / 'talk.db')!r}]))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False)
    assert done.returncode == ExitCode.CLEAN


def test_the_demo_starts_a_session_of_its_own_in_a_file_of_others(tmp_path: Path) -> None:
    path = tmp_path / "talk.db"
    assert show(path).exit_code == ExitCode.CLEAN
    before = stored(path, "SELECT * FROM events ORDER BY position")
    rows = stored(path, "SELECT * FROM sessions WHERE session_id = 'demo'")
    result = show(path)
    assert result.exit_code == ExitCode.CLEAN
    assert "demo-2" in result.stdout
    assert stored(path, "SELECT * FROM events ORDER BY position")[: len(before)] == before
    assert stored(path, "SELECT * FROM sessions WHERE session_id = 'demo'") == rows
    versions = stored(path, "SELECT session_id, COUNT(*) FROM events GROUP BY session_id")
    assert versions == [("demo", len(before)), ("demo-2", len(before))]


async def test_the_tables_are_really_dropped_and_come_back_as_they_were(tmp_path: Path) -> None:
    path = tmp_path / "talk.db"
    session = AdvancedSQLiteSession("talk", path)
    await session.add_items([{"role": "user", "content": "hello"}])
    await session.create_branch("draft")
    before = await demo_command.reads(session)
    session.close()
    tables = "SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name"
    seen: list[list[Any]] = []

    class Silent:
        def dropped(self, names: list[str]) -> None:
            seen.append(stored(path, tables))

        def replayed(self, events: int, seconds: float) -> None:
            seen.append(stored(path, tables))

    all_tables = stored(path, tables)
    async with EventLog.open(path) as log:
        checked = await demo_command.drop_and_replay(Silent(), log)  # type: ignore[arg-type]
    dropped, replayed = seen
    assert ("items",) not in dropped
    assert ("events",) in dropped
    assert replayed == all_tables
    assert [table.differences for table in checked] == [0] * len(checked)
    assert await demo_command.reads(AdvancedSQLiteSession("talk", path, resume=True)) == before


def test_the_demo_exits_with_1_when_something_reads_differently(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = demo_command.drop_and_replay

    async def with_a_slip(view: View, log: EventLog) -> list[ReplayResult]:
        checked = await honest(view, log)
        await log.write(lambda tx: tx.execute("UPDATE usage SET output_tokens = 1").rowcount)
        return checked

    monkeypatch.setattr(demo_command, "drop_and_replay", with_a_slip)
    result = show(tmp_path / "talk.db")
    assert result.exit_code == ExitCode.FINDINGS
    verdicts = {
        line.split()[-2]: line.split()[-1]
        for line in result.stdout.splitlines()[-30:-6]
        if line.split()[-1:] in (["same"], ["differs"])
    }
    assert verdicts["get_usage_stats"] == "differs"
    assert verdicts["get_items"] == "same"
    assert "Some reads return a different result" in result.stdout


def test_a_file_that_cannot_be_opened_is_one_line_on_stderr(tmp_path: Path) -> None:
    result = show(tmp_path)
    assert result.exit_code == ExitCode.CANNOT_OPEN
    assert result.stdout == ""
    assert result.stderr == f"error: {tmp_path} is a folder, not a file\n"


def test_with_a_key_the_sdks_default_model_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "a key")
    assert demo_script.has_key()
    agent, model = demo_script.make_agent(live=True)
    assert agent.model is None
    assert model.startswith(get_default_model())
    assert not demo_script.run_config(live=True).tracing_disabled


def test_an_empty_key_is_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", " ")
    assert not demo_script.has_key()
    assert demo_script.run_config(live=False).tracing_disabled
    agent, _ = demo_script.make_agent(live=False)
    assert isinstance(agent.model, ScriptedModel)


def test_a_model_that_does_not_answer_is_said_without_a_traceback(tmp_path: Path) -> None:
    done = command(
        "--db",
        str(tmp_path / "talk.db"),
        OPENAI_API_KEY="none",
        OPENAI_BASE_URL="http://127.0.0.1:9/v1",
        OPENAI_AGENTS_DISABLE_TRACING="1",
    )
    assert done.returncode == ExitCode.FINDINGS
    assert "The model did not answer" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr


def test_what_a_model_says_cannot_command_the_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = [reply("\x1b[2J[red]boo\u202e\nand more")] * 5
    monkeypatch.setattr(demo_script, "script", lambda: said)
    result = show(tmp_path / "talk.db")
    assert result.exit_code == ExitCode.CLEAN
    assert r"\x1b[2J[red]boo\u202e" in result.stdout
    assert all(character.isprintable() or character == "\n" for character in result.stdout)


# -- events in words ------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [None, "{not json", "[1]", 5])
def test_a_call_with_arguments_that_are_no_object_is_told_all_the_same(arguments: Any) -> None:
    told = summary.call({"name": "add", "arguments": arguments})
    assert told == f"add({'null' if arguments is None else arguments})"


def test_a_message_in_parts_is_told_by_its_texts() -> None:
    parts = [{"type": "input_text", "text": "look"}, {"type": "input_image"}, {"text": "here"}]
    assert summary.brief({"role": "user", "content": parts}) == "user: look (image) here"


def test_a_long_text_is_cut_with_an_ellipsis() -> None:
    told = summary.shortened("word " * 100)
    assert len(told) == summary.SHORT_CHARACTERS
    assert told.endswith("…")
