"""The manual tells the truth: its code runs, its tables are those of the code."""

from __future__ import annotations

import ast
import asyncio
import inspect
import json
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
from tests.manual import PAGES, README, ROOT, Page, page

FOR_A_SHELL = set("|&><$")
RUN = {"python", "console"}
CHECKED = {"diff", "json", "sql", "text", "yaml"}
"""Languages of blocks that are parsed or compared by a test, or that are not code."""
CHANGING = (
    (re.compile(r"\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d(\.\d+Z?)?)?)?"), "TIME"),
    (re.compile(r"\b\d\d:\d\d(:\d\d)?\b"), "TIME"),
    (re.compile(r"[0-9a-f]{64}"), "DIGEST"),
)
EXAMPLE_URL = re.compile(r"postgresql://\w+@[\w.]+/\w+(\?schema=\w+)?")


@pytest.fixture
def at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Be in an empty folder, with a model that answers without a network."""
    model = ScriptedModel([], usage=tokens(12, 3), fallback=reply("Gladly."))
    monkeypatch.setattr(MultiProvider, "get_model", lambda *_: model)
    monkeypatch.setenv("OPENAI_AGENTS_DISABLE_TRACING", "1")
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_code_of_each_page_runs_and_prints_what_the_page_shows(
    page: Page, at_home: Path, request: pytest.FixtureRequest
) -> None:
    urls: dict[str, str] = {}
    for found in EXAMPLE_URL.finditer("".join(code for _, code in page.blocks)):
        if found[0] not in urls:
            urls[found[0]] = request.getfixturevalue("server").url()
    printed = run_python([_with(urls, code) for code in page.code("python")], page.name)
    for line in re.findall(
        r"^ *print\(.*\) +# (.+)$", "\n".join(page.code("python")), re.MULTILINE
    ):
        if not line.startswith(("keep", "the ", "in ", "position")):
            assert line in printed
    steps_ = [step for code in page.code("console") for step in steps(_with(urls, code))]
    shown = [step for step in steps_ if step[0].startswith("eventlog ")]
    for name in ("support.db", "conversations.db"):
        if any(name in command for command, _ in shown) and not (at_home / name).exists():
            asyncio.run(support_conversation.write(at_home / name))
    for command, output in shown:
        way = shell if set(command) & FOR_A_SHELL else here
        code, stdout, complaints = way(command, at_home)
        assert code == 0, (command, stdout, complaints)
        if output:
            assert re.fullmatch(pattern(output), normal(stdout)), (command, stdout)


def _with(urls: dict[str, str], code: str) -> str:
    """Put the URLs of a real server in place of the examples'."""
    return EXAMPLE_URL.sub(lambda found: urls[found[0]], code)


def run_python(blocks: list[str], name: str) -> str:
    """Run the blocks of a page in one namespace, in one loop; return what they printed."""
    namespace: dict[str, Any] = {"__name__": "manual"}
    printed = StringIO()

    async def run() -> None:
        for number, code in enumerate(blocks, 1):
            flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
            result = eval(compile(code, f"{name}, block {number}", "exec", flags), namespace)
            if inspect.isawaitable(result):
                await result

    with redirect_stdout(printed):
        asyncio.run(run())
    return printed.getvalue()


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


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_each_block_has_a_language_that_a_test_runs_or_checks(page: Page, at_home: Path) -> None:
    assert {language for language, _ in page.blocks} <= RUN | CHECKED
    for code in page.code("json"):
        assert isinstance(json.loads(code), dict)
    for code in page.code("yaml"):
        yaml = pytest.importorskip("yaml", reason="the extra `docs` is not installed")
        assert all(yaml.safe_load_all(code))
    if queries := [code for code in page.code("sql") if "CREATE TABLE events" not in code]:
        asyncio.run(support_conversation.write(at_home / "support.db"))
        connection = sqlite3.connect(at_home / "support.db")
        for code in queries:
            connection.executescript(code)
        connection.close()


def test_the_make_targets_of_the_manual_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    text = "\n".join(page.text for page in [*PAGES, Page(ROOT / "CONTRIBUTING.md")])
    named = set(re.findall(r"(?:`|\$ )make ([\w-]+)", text))
    assert {"demo", "test"} <= set(re.findall(r"\$ make ([\w-]+)", README.text))
    assert {"demo", "test", "proof", "lint", "bench", "docs"} <= named
    for target in named:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_the_schema_of_the_manual_is_the_files(tmp_path: Path) -> None:
    manual = page("reference/file-format")
    AdvancedSQLiteSession("s", tmp_path / "log.db").close()
    connection = sqlite3.connect(tmp_path / "log.db")
    found = dict(connection.execute("SELECT name, sql FROM sqlite_schema WHERE type = 'table'"))
    connection.close()
    [told] = manual.code("sql")
    assert words(re.sub(r"--.*", "", told)) == words(found["events"])
    for name in found.keys() - {"events", "sqlite_sequence"}:
        assert f"| `{name}` |" in manual.text


def words(sql: str) -> str:
    return " ".join(sql.split())


def test_the_differences_of_the_manual_are_those_that_the_contract_tests_show() -> None:
    rows = "\n".join(
        f"| {row.name} | {row.sdk} | {row.ours} | {row.reason} |" for row in DIFFERENCES
    )
    assert rows in page("reference/differences").text


def test_the_errors_of_the_manual_are_those_of_the_code() -> None:
    tree = (errors.__doc__ or "").split("\n\n")[1]
    assert inspect.cleandoc(tree) in page("reference/errors").text


def test_what_the_guarantees_point_to_exists() -> None:
    paths = re.findall(r"`(tests/[\w/.]+)`", page("design/guarantees").text)
    assert len(paths) > 10
    for path in paths:
        assert (ROOT / path).exists(), path


def test_each_page_is_in_the_navigation() -> None:
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    named = set(re.findall(r"[\w/-]+\.md", navigation))
    assert named == {str(page.path.relative_to(ROOT / "docs")) for page in PAGES[1:]}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files_that_exist(page: Page) -> None:
    prose = re.sub(r"^```.*?^```$", "", page.text, flags=re.DOTALL | re.MULTILINE)
    for link in re.findall(r"\]\(([^)#]+)[^)]*\)", prose):
        if not link.startswith("https://"):
            assert (page.path.parent / link).exists(), link
