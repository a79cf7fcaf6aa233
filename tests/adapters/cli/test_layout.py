"""Tables fit the terminal: at 80, 100 and 160 columns, and in a pipe, where nothing is left out."""

from __future__ import annotations

import os
import re
import uuid
from pathlib import Path

import pytest
from rich.text import Text
from typer.testing import CliRunner

from agents_eventlog import AdvancedSQLiteSession
from agents_eventlog.adapters.cli import layout
from agents_eventlog.adapters.cli import main as cli_main
from agents_eventlog.adapters.cli.layout import Column
from agents_eventlog.eventlog import recording
from tests.support_conversation import assistant, used, user

SNAPSHOTS = Path(__file__).parent / "snapshots"
WRITE = "EVENTLOG_WRITE_SNAPSHOTS"
"""The environment variable that makes the tests write the snapshots instead of comparing them."""
FIRST = "3f2b9c1e-0000-0000-0000-00000000000a"
CHANGING = (
    (re.compile(r"\x1b\[[0-9;]*m"), ""),
    (re.compile(r"\d{4}-\d\d-\d\d"), "2026-11-22"),
    (re.compile(r"\b\d\d:\d\d(?=:|\b)"), "09:30"),
    (re.compile(r"(?<=:30):\d\d"), ":00"),
    (re.compile(r"(?<=branch_from_turn_1_)\d{10}_[0-9a-f]{16}"), "1795958860_eb16e1e9c162ab4c"),
    (re.compile(r"[0-9a-f]{64}"), "0" * 64),
)
COMMANDS = {
    "sessions": ["sessions"],
    "usage": ["usage", "--by", "session,day"],
    "tools": ["tools", "--by", "session,tool"],
    "log": ["log", FIRST[:8], "--graph"],
    "turns": ["show", FIRST[:8], "--turns"],
    "branches": ["branches", FIRST[:8]],
    "audit": ["audit", "--session", FIRST[:8]],
}


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sessions with UUIDs, long titles and branch names, trace ids, and large numbers."""
    import asyncio

    path = tmp_path_factory.mktemp("wide") / "wide.db"

    async def write() -> None:
        for number in range(3):
            name = str(uuid.UUID(int=uuid.UUID(FIRST).int + (number << 96)))
            session = AdvancedSQLiteSession(name, path, user_id=f"user-{number}@example.com")
            with recording(
                actor="anna.schmidt@support.example.com", trace_id="trace_" + "0af7" * 8
            ):
                for turn in range(2):
                    text = (
                        f"Question {turn}: a rather long first line, which does not fit everywhere"
                    )
                    call = {"type": "function_call", "call_id": f"c{turn}", "name": "search"}
                    output = {"type": "function_call_output", "call_id": f"c{turn}", "output": "-"}
                    await session.add_items(
                        [user(text), {**call, "arguments": "{}"}, output, assistant("Answer.")]
                    )
                    await session.store_run_usage(used(2, 110_000, 5_200))
                await session.create_branch_from_turn(2, "an-experiment-with-another-prompt")
                await session.add_items([user("Another way"), assistant("Sure")])
                await session.create_branch_from_turn(1)
                await session.add_items([user("From the beginning"), assistant("Sure")])
                await session.switch_to_branch("main")
                await session.add_items([user("Fourth"), assistant("Sure")])
            session.close()

    asyncio.run(write())
    return path


def printed(path: Path, command: str, width: int | None) -> str:
    """Return what a command prints on a terminal of a width, or into a pipe; without what changes."""
    name, *options = COMMANDS[command]
    environment = (
        {"COLUMNS": None} if width is None else {"COLUMNS": str(width), "FORCE_COLOR": "1"}
    )
    done = CliRunner().invoke(cli_main.app, [name, str(path), *options], env=environment)
    assert done.exit_code == 0, done.stderr
    text = done.stdout
    for pattern, same in CHANGING:
        text = pattern.sub(same, text)
    return "\n".join(line.rstrip() for line in text.splitlines()) + "\n"


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("width", [80, 100, 160, None])
def test_the_output_is_that_of_the_snapshot(wide: Path, command: str, width: int | None) -> None:
    file = SNAPSHOTS / f"{command}-{width or 'pipe'}.txt"
    text = printed(wide, command, width)
    if os.environ.get(WRITE):
        file.write_text(text, encoding="utf-8")
    assert text == file.read_text(encoding="utf-8")


@pytest.mark.parametrize("command", ["sessions", "usage", "tools", "turns"])
@pytest.mark.parametrize("width", [80, 100, 160])
def test_no_line_of_a_table_is_wider_than_the_terminal(
    wide: Path, command: str, width: int
) -> None:
    assert max(len(line) for line in printed(wide, command, width).splitlines()) <= width


@pytest.mark.parametrize("width", [40, 80, 100, 160, None])
def test_times_and_money_are_whole_and_ids_are_unique_at_every_width(
    wide: Path, width: int | None
) -> None:
    rows = printed(wide, "sessions", width).splitlines()[2:]
    assert len(rows) == 3
    assert len({row.split()[0] for row in rows}) == 3
    for row in rows:
        assert re.search(r" 2026-11-22 09:30 ", row)
        assert row.endswith(" 230,400  $0.00+")
        assert FIRST.startswith(row.split()[0]) or not row.startswith("3f2b9c1e")


def test_a_pipe_gets_every_column_and_whole_ids(wide: Path) -> None:
    text = printed(wide, "sessions", None)
    assert FIRST in text
    assert {"user", "turns", "items"} <= set(text.splitlines()[0].split())


def test_minor_columns_go_before_a_text_is_cut_to_nothing() -> None:
    columns = (Column("key"), Column("text", least=4), Column("minor", minor=1))
    rows = [[Text("k1"), Text("a long\ntext"), Text("12345")]]
    lines = layout.table(columns, rows, width=12).plain.splitlines()
    assert lines == ["key  text", "────────────", "k1   a long…"]
    assert layout.table(columns, rows, width=3).plain.splitlines()[2] == "k1   a l…"
