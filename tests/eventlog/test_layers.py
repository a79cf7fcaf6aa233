"""Who may import whom."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_packages_import_only_downwards_and_only_adapters_know_the_sdk() -> None:
    linter = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run(
        [linter, "--no-cache"], cwd=ROOT, capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert " 0 broken" in done.stdout


def test_the_log_and_the_projections_work_where_the_sdk_is_not_installed() -> None:
    script = (
        "import sys\n"
        "for name in ('agents', 'openai', 'typer', 'rich', 'pydantic'):\n"
        "    sys.modules[name] = None\n"
        "import agents_eventlog.eventlog, agents_eventlog.projections.reference\n"
    )
    command = [sys.executable, "-c", script]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_only_the_sqlite_engine_imports_sqlite3_and_aiosqlite() -> None:
    engine = Path("eventlog/storage/sqlite")
    importing = re.compile(r"^\s*(import|from) (sqlite3|aiosqlite)\b", re.MULTILINE)
    found = {
        file.relative_to(ROOT)
        for part in ("eventlog", "projections", "adapters")
        for file in (ROOT / part).rglob("*.py")
        if importing.search(file.read_text(encoding="utf-8"))
    }
    assert {file for file in found if engine not in file.parents} == set()


def test_adapters_hold_no_sql_but_for_the_tables_of_the_sdk() -> None:
    of_the_sdk = {Path("adapters/conversations/sdk_tables.py")}
    of_the_sdk |= {
        file.relative_to(ROOT) for file in (ROOT / "adapters/openai_agents/migration").glob("*.py")
    }
    statement = re.compile(r"\s*(SELECT|INSERT|UPDATE|DELETE|CREATE|WITH|WHERE|FROM|JOIN)\s")
    found = {
        file.relative_to(ROOT)
        for file in (ROOT / "adapters").rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
        if statement.match(node.value)
    }
    assert found <= of_the_sdk


def test_tests_share_helpers_by_modules_that_hold_no_tests() -> None:
    importing = re.compile(r"^\s*(from|import) (tests\.\S*\btest_\w+)", re.MULTILINE)
    found = {
        (str(file.relative_to(ROOT)), match[2])
        for file in (ROOT / "tests").rglob("*.py")
        for match in importing.finditer(file.read_text(encoding="utf-8"))
    }
    assert found == set()
