"""The command line: what it prints, how it ends, and that it may be killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
import typer.main
from typer.testing import CliRunner

from agents_eventlog import projections
from agents_eventlog.adapters.cli import main as cli_main
from agents_eventlog.adapters.cli import replay, terminal
from agents_eventlog.adapters.cli.terminal import ExitCode
from agents_eventlog.adapters.conversations.printable import printable
from agents_eventlog.eventlog import EventLog, ItemsAdded
from agents_eventlog.eventlog.jsonl import export as jsonl_export
from tests.adapters.cli.processes import COMMAND, on_a_terminal
from tests.engines import change, dump
from tests.fuzz.damage import put_impossible

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

TABLES = (
    "branches",
    "forks",
    "items",
    "redactions",
    "segments",
    "session_labels",
    "sessions",
    "usage",
    "usage_by_day",
)


@pytest.fixture
async def db(tmp_path: Path) -> Path:
    """A log with three sessions of two items each."""
    path = tmp_path / "talk.db"
    await write(path, sessions=3)
    return path


@pytest.fixture
def run() -> Callable[..., Any]:
    """Run a command in this process; answers with exit_code, stdout and stderr."""

    def invoke(*arguments: object) -> Any:
        return CliRunner().invoke(cli_main.app, [str(each) for each in arguments])

    return invoke


async def write(path: Path, *, sessions: int, events: int = 1, prefix: str = "talk") -> None:
    items = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "hi"}]
    async with EventLog.open(path, projections=projections.default(), durability="normal") as log:
        for number in range(1, sessions + 1):
            added = [ItemsAdded(items=items)] * events
            await log.append(f"{prefix}-{number}", added, branch_id="main")


def words(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines()]


# -- replay -------------------------------------------------------------------------------------


def test_a_check_of_a_sound_file_names_each_table_and_exits_with_0(run: Any, db: Path) -> None:
    result = run("replay", db, "--check")
    assert result.exit_code == ExitCode.CLEAN
    assert result.stderr == ""
    assert ["items", "6", "rows", "same"] in words(result.stdout)
    assert {line[0] for line in words(result.stdout)} == set(TABLES)


def test_a_check_names_every_row_that_differs_and_exits_with_1(run: Any, db: Path) -> None:
    change(
        db,
        "UPDATE sessions SET turn_count = 7 WHERE session_id = 'talk-2'",
        "DELETE FROM sessions WHERE session_id = 'talk-3'",
    )
    result = run("replay", db, "--check")
    assert result.exit_code == ExitCode.FINDINGS
    assert "sessions talk-2: turn_count 7 -> 1" in result.stdout
    assert "sessions talk-3: missing" in result.stdout
    assert ["sessions", "3", "rows", "2", "differ"] in words(result.stdout)
    assert ["items", "6", "rows", "same"] in words(result.stdout)


def test_a_check_changes_nothing(run: Any, db: Path) -> None:
    change(db, "UPDATE sessions SET turn_count = 7", "DELETE FROM checkpoints")
    before, times = dump(db), db.stat().st_mtime_ns
    assert run("replay", db, "--check").exit_code == ExitCode.FINDINGS
    assert (dump(db), db.stat().st_mtime_ns) == (before, times)
    assert not list(db.parent.glob("*-replay-*"))


def test_a_replay_repairs_what_a_check_found(run: Any, db: Path) -> None:
    sound = dump(db)
    change(db, "UPDATE sessions SET turn_count = 7", "DELETE FROM items")
    result = run("replay", db)
    assert result.exit_code == ExitCode.CLEAN
    assert ["items", "6", "rows", "replayed"] in words(result.stdout)
    assert sorted(dump(db)) == sorted(sound)


def test_only_the_projection_that_was_asked_for_is_replayed(run: Any, db: Path) -> None:
    change(db, "UPDATE sessions SET turn_count = 7")
    result = run("replay", db, "--projection", "usage", "--projection", "usage")
    assert result.exit_code == ExitCode.CLEAN
    assert words(result.stdout) == [
        [table, "0", "rows", "replayed"] for table in ("usage", "usage_by_day")
    ]
    assert run("replay", db, "--check", "--projection", "usage").exit_code == ExitCode.CLEAN
    assert run("replay", db, "--check").exit_code == ExitCode.FINDINGS


async def test_an_empty_log_is_replayed(run: Any, tmp_path: Path) -> None:
    path = tmp_path / "empty.db"
    async with EventLog.open(path):
        pass
    assert run("replay", path).exit_code == ExitCode.CLEAN
    assert run("replay", path, "--check").exit_code == ExitCode.CLEAN


def test_json_is_one_document_a_line_with_stable_fields(run: Any, db: Path) -> None:
    change(db, "UPDATE sessions SET turn_count = 7 WHERE session_id = 'talk-2'")
    result = run("replay", db, "--check", "--json")
    documents = [json.loads(line) for line in result.stdout.splitlines()]
    difference = next(each for each in documents if each["kind"] == "difference")
    assert difference.keys() == {"kind", "table", "key", "live", "replayed"}
    assert (difference["table"], difference["key"]) == ("sessions", ["talk-2"])
    assert difference["live"]["turn_count"] == 7
    assert difference["replayed"]["turn_count"] == 1
    sessions = {
        "kind": "table",
        "projection": "conversations",
        "table": "sessions",
        "rows": 3,
        "differences": 1,
    }
    assert sessions in documents
    assert len(documents) == 1 + len(TABLES)


# -- what cannot be done --------------------------------------------------------------------------


def folder(path: Path) -> None:
    path.mkdir()


def text_file(path: Path) -> None:
    path.write_text("Dear diary, " * 100)


def empty_file(path: Path) -> None:
    path.touch()


def foreign(path: Path) -> None:
    change(path, "CREATE TABLE recipes (name TEXT)")


def newer(path: Path) -> None:
    change(path, "PRAGMA application_id=0x65766C67", "PRAGMA user_version=99")


def nothing(path: Path) -> None:
    assert not path.exists()


@pytest.mark.parametrize("option", [[], ["--check"]], ids=["replay", "check"])
@pytest.mark.parametrize("make", [nothing, folder, text_file, empty_file, foreign, newer])
def test_what_is_no_log_is_one_line_on_stderr_and_stays_as_it_is(
    run: Any, tmp_path: Path, make: Callable[[Path], None], option: list[str]
) -> None:
    path = tmp_path / "other.db"
    make(path)
    before = path.read_bytes() if path.is_file() else None
    result = run("replay", path, *option)
    assert result.exit_code == ExitCode.CANNOT_OPEN
    assert result.stdout == ""
    assert result.stderr.startswith("error: ")
    assert str(path) in result.stderr
    assert result.stderr.count("\n") == 1
    assert (path.read_bytes() if path.is_file() else None) == before


@pytest.mark.parametrize(
    ("command", "assignment", "problem"),
    [
        ("export", "version = 'x'", "non-INTEGER value in events.version"),
        ("doctor", "type = NULL", "NULL value in events.type"),
    ],
)
def test_a_value_that_can_never_be_is_told_as_damage(
    run: Any, db: Path, command: str, assignment: str, problem: str
) -> None:
    put_impossible(db, "events", assignment, "position = 1")
    result = run(command, db)
    assert result.exit_code == ExitCode.CANNOT_OPEN
    assert f"is damaged: {problem}" in " ".join(result.stderr.split())


def test_a_defect_of_ours_is_not_taken_for_damage(
    run: Any, db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    defect = TypeError("a defect")

    def fails(*_: object) -> None:
        raise defect

    monkeypatch.setattr(jsonl_export, "choose", fails)
    assert run("export", db).exception is defect


def test_an_event_that_cannot_be_read_is_named_and_nothing_is_replayed(run: Any, db: Path) -> None:
    change(
        db,
        "DROP TRIGGER events_are_never_changed",
        "UPDATE events SET data = '{\"items\": 5}' WHERE position = 2",
    )
    before = dump(db)
    result = run("replay", db)
    assert result.exit_code == ExitCode.CANNOT_OPEN
    assert "position 2" in result.stderr
    assert result.stderr.count("\n") == 1
    assert dump(db) == before
    assert not list(db.parent.glob("*-replay-*"))


@pytest.mark.parametrize(
    "arguments", [["replay"], ["replai"], ["replay", "x.db", "--chek"], ["demo", "x.db"]]
)
def test_what_is_not_understood_exits_with_2(run: Any, arguments: list[str]) -> None:
    assert run(*arguments).exit_code == ExitCode.USAGE


def test_an_unknown_projection_exits_with_2_and_the_known_ones(run: Any, db: Path) -> None:
    result = run("replay", db, "--projection", "usag")
    assert result.exit_code == ExitCode.USAGE
    assert "'usag'" in result.stderr
    assert "conversations, search, usage" in result.stderr


# -- how it ends ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "code"),
    [(KeyboardInterrupt, ExitCode.INTERRUPTED), (BrokenPipeError, ExitCode.BROKEN_PIPE)],
)
def test_an_end_from_outside_is_silent(
    run: Any, db: Path, monkeypatch: pytest.MonkeyPatch, error: type[BaseException], code: int
) -> None:
    def ends(*args: object, **options: object) -> bool:
        raise error

    monkeypatch.setattr(replay, "run", ends)
    result = run("replay", db)
    assert (result.exit_code, result.stdout, result.stderr) == (code, "", "")


def test_a_reader_that_went_away_ends_a_command_in_silence(db: Path) -> None:
    change(db, "DELETE FROM items")
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = subprocess.run(
            [*COMMAND, "replay", str(db), "--check"],
            stdout=writing,
            stderr=subprocess.PIPE,
            check=False,
        )
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (ExitCode.BROKEN_PIPE, b"")


@pytest.fixture
async def big(tmp_path: Path) -> Path:
    """A log that takes a replay a while."""
    path = tmp_path / "big [1].db"
    await write(path, sessions=20, events=1_500)
    return path


def scratch_files(path: Path) -> list[Path]:
    return [each for each in path.parent.iterdir() if "-replay-" in each.name]


def begun_replay(path: Path) -> subprocess.Popen[bytes]:
    """Start a replay in a process of its own; it is in the middle when this returns."""
    child = subprocess.Popen(
        [*COMMAND, "replay", str(path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    deadline = time.monotonic() + 60
    while not any(_size(each) > 100_000 for each in scratch_files(path)):
        assert child.poll() is None, "the replay was over before it could be stopped"
        assert time.monotonic() < deadline
        time.sleep(0.001)
    return child


def _size(path: Path) -> int:
    with suppress(FileNotFoundError):
        return path.stat().st_size
    return 0


def test_a_killed_replay_changed_nothing_and_the_next_one_tidies_up(run: Any, big: Path) -> None:
    before = dump(big)
    child = begun_replay(big)
    child.kill()
    child.communicate()
    assert child.returncode == -signal.SIGKILL
    assert scratch_files(big), "the child was not killed in the middle"
    assert dump(big) == before
    assert run("replay", big, "--check").exit_code == ExitCode.CLEAN
    assert run("replay", big).exit_code == ExitCode.CLEAN
    assert scratch_files(big) == []
    assert run("replay", big, "--check").exit_code == ExitCode.CLEAN


def test_ctrl_c_ends_a_replay_in_silence_and_leaves_no_file(run: Any, big: Path) -> None:
    before = dump(big)
    child = begun_replay(big)
    child.send_signal(signal.SIGINT)
    stdout, stderr = child.communicate(timeout=60)
    assert (child.returncode, stdout, stderr) == (ExitCode.INTERRUPTED, b"", b"")
    assert scratch_files(big) == []
    assert dump(big) == before


def test_a_replay_beside_a_writer_misses_nothing(run: Any, big: Path) -> None:
    import asyncio

    child = begun_replay(big)
    asyncio.run(write(big, sessions=200, prefix="late"))
    child.communicate(timeout=60)
    assert child.returncode == ExitCode.CLEAN
    result = run("replay", big, "--check")
    assert result.exit_code == ExitCode.CLEAN
    assert ["sessions", "220", "rows", "same"] in words(result.stdout)


@pytest.mark.parametrize("command", [("audit",), ("search", "a"), ("tools",), ("usage",)])
def test_a_time_that_ends_before_it_begins_is_wrong_usage(
    run: Any, db: Path, command: tuple[str, ...]
) -> None:
    name, *words = command
    done = run(name, db, *words, "--since", "2026-11-04", "--until", "2026-11-03")
    assert done.exit_code == ExitCode.USAGE
    assert done.stderr == "error: invalid period: until must be after since\n"


@pytest.mark.parametrize("command", [("audit",), ("search", "a"), ("tools",), ("usage",)])
def test_the_last_day_that_there_is_is_a_day(run: Any, db: Path, command: tuple[str, ...]) -> None:
    name, *words = command
    done = run(name, db, *words, "--since", "0001-01-01", "--until", "9999-12-31")
    assert done.exit_code == ExitCode.CLEAN


# -- what is shown --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain, Łódź, 日本, 👩‍👧", "plain, Łódź, 日本, 👩‍👧"),
        ("\x1b[31mred\x1b[0m", r"\x1b[31mred\x1b[0m"),
        ("\x1b]0;title\x07", r"\x1b]0;title\x07"),
        ("one\r\ntwo\tthree", r"one\r\ntwo\tthree"),
        ("\x9b2J \x7f \x00", r"\x9b2J \x7f \x00"),
        ("left \u202eright\u2028", r"left \u202eright\u2028"),
        ("half \ud83d", r"half \ud83d"),
        ("[bold]no markup[/bold] :smile:", "[bold]no markup[/bold] :smile:"),
    ],
)
def test_control_characters_are_shown_and_not_obeyed(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_line_breaks_stay_where_lines_are_wanted() -> None:
    assert printable("one\ntwo\x1b\r", lines=True) == "one\ntwo\\x1b\\r"


@pytest.mark.parametrize("option", [[], ["--json"]], ids=["text", "json"])
async def test_an_id_from_the_file_cannot_command_the_terminal(
    run: Any, tmp_path: Path, option: list[str]
) -> None:
    path = tmp_path / "talk.db"
    await write(path, sessions=1, prefix="\x1b[2J[red]x\u202e\x7f")
    change(path, "UPDATE sessions SET turn_count = 7")
    stdout = run("replay", path, "--check", *option).stdout
    assert "[red]x" in stdout
    assert all(character.isprintable() or character == "\n" for character in stdout)


def test_a_name_in_an_error_cannot_command_the_terminal(run: Any, tmp_path: Path) -> None:
    stderr = run("replay", tmp_path / "\x1b[2J[red]no.db").stderr
    assert r"\x1b[2J[red]no.db" in stderr
    assert "\x1b" not in stderr


def test_what_the_terminal_cannot_encode_is_escaped(tmp_path: Path) -> None:
    done = subprocess.run(
        [*COMMAND, "replay", str(tmp_path / "Łódź.db")],
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
        capture_output=True,
        check=False,
    )
    assert done.returncode == ExitCode.CANNOT_OPEN
    assert rb"\u0141\xf3d\u017a.db" in done.stderr


def test_a_terminal_shows_progress_with_rate_and_remaining_time(big: Path) -> None:
    shown = on_a_terminal("replay", str(big))
    assert "replaying" in shown
    assert "30000/30000" in shown
    assert "events/s" in shown
    assert "0:00:0" in shown


def test_json_shows_no_progress_even_on_a_terminal(db: Path) -> None:
    assert on_a_terminal("replay", str(db), "--json") == ""


# -- the commands themselves ----------------------------------------------------------------------


def test_every_command_and_option_has_help_and_every_command_an_example() -> None:
    group: Any = typer.main.get_command(cli_main.app)
    assert set(group.commands) >= {"replay", "demo"}
    for command in (group, *group.commands.values()):
        assert "Example: " in command.help, command.name
        for parameter in command.params:
            assert parameter.help, f"{command.name} {parameter.name}"


def test_paragraphs_of_help_fill_the_lines_of_a_narrow_terminal(
    run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    lines = [line.rstrip() for line in run("import", "--help").stdout.splitlines()]
    start = next(i for i, line in enumerate(lines) if line.startswith(" SOURCE is"))
    paragraph = lines[start : lines.index("", start)]
    following = (line.split()[0] for line in paragraph[1:])
    assert all(len(f"{line} {word}") > 78 for line, word in zip(paragraph, following, strict=False))


@pytest.mark.parametrize("command", [[], ["replay"], ["demo"]])
def test_help_is_given_with_the_example(run: Any, command: list[str]) -> None:
    result = run(*command, "--help")
    assert result.exit_code == ExitCode.CLEAN
    assert f"Example: eventlog {' '.join(command)}" in result.stdout


@pytest.mark.parametrize(
    ("command", "spared"),
    [
        ("--version", "rich"),
        ("--help", ""),
        ("sessions FILE", ""),
        ("audit FILE", ""),
        ("usage FILE --by day", ""),
        ("show FILE talk-1", ""),
        ("branches FILE talk-1", ""),
        ("search FILE hello", ""),
        ("tools FILE", ""),
        ("verify FILE", ""),
        ("doctor FILE", ""),
    ],
)
def test_what_only_reads_starts_without_what_it_does_not_need(
    db: Path, command: str, spared: str
) -> None:
    given = [str(db) if each == "FILE" else each for each in command.split()]
    sdk = ["agents", "openai", "pydantic", "httpx", "httpx2"]
    slow = [*sdk, "genai_prices", "structlog", *spared.split()]
    program = (
        "import sys\n"
        "from agents_eventlog.adapters.cli.main import main\n"
        f"code = main({given!r})\n"
        f"print(code, [name for name in {slow!r} if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "0 []"


def test_the_version_is_the_distributions(capfd: pytest.CaptureFixture[str]) -> None:
    from importlib.metadata import version

    done = subprocess.run([*COMMAND, "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"eventlog {version('agents-eventlog')}\n"


def test_the_package_gives_the_session_when_it_is_asked_for() -> None:
    from agents_eventlog import adapters

    assert (
        adapters.AdvancedSQLiteSession.__module__
        == "agents_eventlog.adapters.openai_agents.advanced_sqlite"
    )
    assert {"AdvancedSQLiteSession", "EventLogSession"} <= set(dir(adapters))
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = adapters.Nothing


def test_text_has_the_width_of_the_terminal_and_a_fixed_one_in_a_pipe(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "172")
    assert terminal.console().width == 172
    monkeypatch.delenv("COLUMNS")
    assert terminal.console().width == terminal.PIPED_WIDTH
