"""``eventlog usage``: the forms of its answer."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING

import pytest

from agents_eventlog.adapters.cli.terminal import ExitCode
from agents_eventlog.eventlog import ItemsAdded
from agents_eventlog.eventlog.events import RequestUsage, UsageRecorded
from tests.adapters.looking import run, user, write

if TYPE_CHECKING:
    from pathlib import Path


def test_two_forms_at_once_are_wrong_usage(db: Path) -> None:
    result = run("usage", db, "--csv", "--json")
    assert (result.exit_code, result.stdout) == (ExitCode.USAGE, "")
    assert "--json and --csv cannot be combined" in result.stderr


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("alice", "alice"),
        ("=HYPERLINK(1)", "'=HYPERLINK(1)"),
        ("+1", "'+1"),
        ("-1", "'-1"),
        ("@SUM(1)", "'@SUM(1)"),
        (" =1", "' =1"),
        ("\uff1d1", "'\uff1d1"),
        ("\t=1", "\\t=1"),
        ("\x1b]0;owned\x07", "\\x1b]0;owned\\x07"),
        ("\u202e=1", "\\u202e=1"),
        ("a,b", "a,b"),
    ],
)
def test_a_cell_of_csv_is_never_a_formula_or_a_control_character(
    path: Path, written: str, shown: str
) -> None:
    used = UsageRecorded(run_id="r", turn=1, requests=[RequestUsage(model=written)])
    write(path, [("s", "main", ItemsAdded(items=[user("hi")])), ("s", "main", used)])
    text = run("usage", path, "--csv").stdout
    assert [row["model"] for row in csv.DictReader(io.StringIO(text))] == [shown]
