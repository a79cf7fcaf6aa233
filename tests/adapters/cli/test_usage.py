"""``eventlog usage``: the forms of its answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agents_eventlog.adapters.cli.terminal import ExitCode
from tests.adapters.looking import run

if TYPE_CHECKING:
    from pathlib import Path


def test_two_forms_at_once_are_wrong_usage(db: Path) -> None:
    result = run("usage", db, "--csv", "--json")
    assert (result.exit_code, result.stdout) == (ExitCode.USAGE, "")
    assert "--json and --csv cannot be combined" in result.stderr
