"""The manual tells the truth: its code runs, its tables are those of the code."""

from __future__ import annotations

import ast
import asyncio
import inspect
import os
import re
import shlex
import sqlite3
import subprocess
import sys
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from agents.models.multi_provider import MultiProvider
from typer.testing import CliRunner

from agents_eventlog import AdvancedSQLiteSession
from agents_eventlog.adapters.cli import main as cli_main
from agents_eventlog.adapters.openai_agents.testing import ScriptedModel, reply, tokens
from agents_eventlog.eventlog import errors
from tests import support_conversation
from tests.contract.differences import DIFFERENCES
from tests.readme import BLOCKS, CONSOLE, PYTHON, README

ROOT = Path(__file__).parent.parent
FOR_A_SHELL = set("|&><$")
CHANGING = (
    (re.compile(r"\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d(\.\d+Z?)?)?)?"), "TIME"),
    (re.compile(r"\b\d\d:\d\d(:\d\d)?\b"), "TIME"),
    (re.compile(r"[0-9a-f]{64}"), "DIGEST"),
)


@pytest.fixture
def at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Be in an empty folder, with a model that answers without a network."""
    model = ScriptedModel([], usage=tokens(12, 3), fallback=reply("Gladly."))
    monkeypatch.setattr(MultiProvider, "get_model", lambda *_: model)
    monkeypatch.setenv("OPENAI_AGENTS_DISABLE_TRACING", "1")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run_all() -> tuple[dict[str, Any], str]:
    """Run the manual's Python, block after block in one namespace; return it and what was printed."""
    namespace: dict[str, Any] = {"__name__": "readme"}
    printed = StringIO()

    async def run() -> None:
        for number, code in enumerate(PYTHON, 1):
            compiled = compile(
                code, f"README block {number}", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
            )
            result = eval(compiled, namespace)
            if inspect.isawaitable(result):
                await result

    with redirect_stdout(printed):
        asyncio.run(run())
    return namespace, printed.getvalue()


def test_every_python_block_runs_and_prints_what_its_comments_say(at_home: Path) -> None:
    _, printed = run_all()
    promised = re.findall(r"^ *print\(.*\) +# (.+)$", "\n".join(PYTHON), re.MULTILINE)
    told = [line for line in promised if not line.startswith(("keep", "the ", "in ", "True:"))]
    assert len(told) >= 2
    for line in told:
        assert line in printed
    assert "True" in printed  # the append with a key happened once


def test_every_command_runs_and_prints_what_the_manual_shows(
    at_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_all()
    asyncio.run(support_conversation.write(at_home / "support.db"))
    monkeypatch.setenv("COLUMNS", "100")
    shown = [step for code in CONSOLE for step in steps(code) if step[0].startswith("eventlog ")]
    assert len(shown) > 10
    ways = set()
    for command, output in shown:
        way = shell if set(command) & FOR_A_SHELL else here
        ways.add(way)
        code, printed, complaints = way(command, at_home)
        assert code == 0, (command, printed, complaints)
        if output:
            assert re.fullmatch(pattern(output), normal(printed)), (command, printed)
    assert ways == {shell, here}


def here(command: str, _: Path) -> tuple[int, str, str]:
    """Run a command in this process, which is quicker; return its exit code and what it printed."""
    done = CliRunner().invoke(cli_main.app, shlex.split(command)[1:])
    return done.exit_code, done.stdout, done.stderr


def shell(command: str, home: Path) -> tuple[int, str, str]:
    """Run what needs a shell in one, each program a process; return the same."""
    eventlog = home / "bin" / "eventlog"
    eventlog.parent.mkdir(exist_ok=True)
    eventlog.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m agents_eventlog "$@"\n')
    eventlog.chmod(0o755)
    done = subprocess.run(
        ["bash", "-c", command],
        capture_output=True,
        text=True,
        env={
            **os.environ,
            "PATH": f"{eventlog.parent}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
        },
        timeout=100,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


def steps(code: str) -> list[tuple[str, str]]:
    """Return the commands of a block, each with the output shown below it."""
    parts = re.split(r"^\$ (.*)\n", code, flags=re.MULTILINE)[1:]
    return list(zip(parts[::2], parts[1::2], strict=True))


def pattern(output: str) -> str:
    """Return what an output has to look like; a line of three dots stands for any lines."""
    lines = normal(output).splitlines()
    return "".join(r"(?:.*\n)*" if line == "..." else re.escape(line) + "\n" for line in lines)


def normal(output: str) -> str:
    """Return an output without what changes from run to run, and without spaces at ends of lines."""
    for changing, name in CHANGING:
        output = changing.sub(name, output)
    return "\n".join(line.rstrip() for line in output.splitlines()).strip("\n") + "\n"


def test_the_make_targets_of_the_manual_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"make (demo|test|proof|lint|bench)\b", README))
    assert targets == {"demo", "test", "proof", "lint", "bench"}
    for target in targets:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE)


def test_the_schema_of_the_manual_is_the_files(tmp_path: Path) -> None:
    AdvancedSQLiteSession("s", tmp_path / "log.db").close()
    connection = sqlite3.connect(tmp_path / "log.db")
    found = dict(connection.execute("SELECT name, sql FROM sqlite_schema WHERE type = 'table'"))
    connection.close()
    [told] = [code for language, code in BLOCKS if language == "sql"]
    assert words(re.sub(r"--.*", "", told)) == words(found["events"])
    for name in found.keys() - {"events", "sqlite_sequence"}:
        assert f"| `{name}` |" in README


def words(sql: str) -> str:
    return " ".join(sql.split())


def test_the_differences_of_the_manual_are_those_that_the_contract_tests_show() -> None:
    rows = "\n".join(
        f"| {row.name} | {row.sdk} | {row.ours} | {row.reason} |" for row in DIFFERENCES
    )
    assert rows in README


def test_the_errors_of_the_manual_are_those_of_the_code() -> None:
    tree = (errors.__doc__ or "").split("\n\n")[1]
    assert inspect.cleandoc(tree) in README


def test_what_the_guarantees_point_to_exists() -> None:
    for path in re.findall(r"`(tests/[\w/.]+)`", README):
        assert (ROOT / path).exists(), path
