"""The shell completes ids of sessions: some of them, quickly, and without a word if it cannot."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

import pytest
from typer.testing import CliRunner

from agents_eventlog.adapters.cli.main import app
from agents_eventlog.adapters.cli.options import MAX_COMPLETIONS
from agents_eventlog.eventlog import ItemsAdded
from tests.adapters.looking import user, write

if TYPE_CHECKING:
    from pathlib import Path


def completed(*words: Any, **environment: str) -> list[str]:
    """Return what bash is offered for the last word of a command."""
    line = shlex.join(["eventlog", *map(str, words)])
    variables = {
        "_EVENTLOG_COMPLETE": "complete_bash",
        "COMP_WORDS": line,
        "COMP_CWORD": str(len(words)),
    }
    result = CliRunner().invoke(app, env={**variables, **environment}, prog_name="eventlog")
    assert result.exit_code == 0
    assert result.stderr == ""
    return result.stdout.split()


@pytest.fixture
def log(path: Path) -> Path:
    """A log with sessions of two kinds."""
    names = [
        "support-1",
        "support-2",
        *(f"other-{number}" for number in range(MAX_COMPLETIONS + 5)),
    ]
    write(path, [(name, "main", ItemsAdded(items=[user("hi")])) for name in names])
    return path


@pytest.mark.parametrize(
    "before",
    [["show"], ["view"], ["restore"], ["usage", "--session"], ["audit", "--session"]],
    ids=" ".join,
)
def test_ids_that_begin_with_what_was_typed_are_offered(log: Path, before: list[str]) -> None:
    command, *option = before
    assert completed(command, log, *option, "supp") == ["support-1", "support-2"]
    assert completed(command, *option, "supp", EVENTLOG_DB=str(log)) == ["support-1", "support-2"]


def test_a_bounded_number_of_ids_is_offered(log: Path) -> None:
    assert len(completed("show", log, "other")) == MAX_COMPLETIONS


def test_nothing_is_offered_or_made_where_there_is_no_log(tmp_path: Path) -> None:
    (tmp_path / "text.db").write_text("not a database")
    for name in ("none.db", "text.db"):
        assert completed("show", tmp_path / name, "s") == []
    assert [each.name for each in tmp_path.iterdir()] == ["text.db"]
