"""Payloads leave the events table in one place, where encryption can be added."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
READS = "eventlog/payloads.py"
MODULES = sorted(
    file.relative_to(ROOT).as_posix()
    for part in ("eventlog", "projections", "adapters")
    for file in (ROOT / part).rglob("*.py")
    if "storage" not in file.parts
)
ELSEWHERE = {
    "adapters/cli/demo/screen.py": ["SELECT"],  # shown to the user, never run
}
SQL = re.compile(r"\b(SELECT|INSERT|UPDATE|FROM|WHERE|AND|OR|CAST|LIKE|NULL|SUM|COUNT|LENGTH)\b")
PAYLOAD = re.compile(r"(?<!\$\.)\bdata\b")


def statements_on_payloads(source: str) -> Iterator[str]:
    """Yield the first SQL word of each string, docstrings left out, that names the column."""
    for statement in ast.walk(ast.parse(source)):
        for node in ast.iter_child_nodes(statement):
            if isinstance(statement, ast.Expr) or not isinstance(
                node, ast.Constant | ast.JoinedStr
            ):
                continue
            text = "".join(
                part.value
                for part in ast.walk(node)
                if isinstance(part, ast.Constant) and isinstance(part.value, str)
            )
            word = SQL.search(text)
            if word is not None and PAYLOAD.search(text):
                yield word[0]


@pytest.mark.parametrize("module", [module for module in MODULES if module != READS])
def test_no_other_module_reads_payloads_by_sql(module: str) -> None:
    source = (ROOT / module).read_text(encoding="utf-8")
    assert [*statements_on_payloads(source)] == ELSEWHERE.get(module, [])


@pytest.mark.parametrize(
    "source",
    [
        'SQL = "SELECT CAST(data AS BLOB) FROM events"',
        'tx.all("SELECT e.data FROM events AS e")',
        'tx.one(f"SELECT {x}, data FROM events")',
        'HOLDING = r"AND (data LIKE ?)"',
    ],
)
def test_sql_on_payloads_is_recognised(source: str) -> None:
    assert [*statements_on_payloads(source)]
