"""Files that hold no log: each command says what they are instead, in the same words."""

from __future__ import annotations

import shlex
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
from agents import SQLiteSession

from agents_eventlog.adapters.cli.terminal import ExitCode
from tests.adapters.looking import documents, run
from tests.adapters.old_files import execute, sdk, stored
from tests.contract.items import turns, user

if TYPE_CHECKING:
    from pathlib import Path

COMMANDS = [
    ["replay", "FILE"],
    ["replay", "FILE", "--check"],
    ["verify", "FILE"],
    ["prove", "FILE", "--session", "talk"],
    ["show", "FILE", "talk"],
    ["branches", "FILE", "talk"],
    ["audit", "FILE"],
    ["doctor", "FILE"],
    ["export", "FILE"],
    ["import", "FILE", "SOURCE"],
    ["import", "FILE", "SOURCE", "--dry-run"],
]


@pytest.fixture
async def source(tmp_path: Path) -> Path:
    """A file of the SDK's."""
    with closing(sdk(tmp_path / "sdk file.db")) as session:
        await session.add_items(turns("first"))
    return tmp_path / "sdk file.db"


def refused(words: list[str], path: Path, source: Path) -> str:
    """Run a command on a file that it must refuse and leave as it is; return what it says."""
    execute(path, "PRAGMA journal_mode=DELETE")
    before = stored(path)
    files = {"FILE": path, "SOURCE": source}
    result: Any = run(*(files.get(word, word) for word in words))
    assert (result.exit_code, result.stdout) == (ExitCode.CANNOT_OPEN, "")
    assert stored(path) == before
    return str(result.stderr)


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_a_file_of_the_sdks_is_called_so_and_what_to_do_is_said(
    words: list[str], source: Path
) -> None:
    assert refused(words, source, source) == (
        f"error: {source} holds sessions of the Agents SDK: AdvancedSQLiteSession migrates them "
        f"when it opens the file, or import them: eventlog import NEW.db '{source}'\n"
    )


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_a_file_of_another_program_is_called_so(
    words: list[str], source: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other.db"
    execute(other, "CREATE TABLE recipes (name)", "CREATE TABLE agent_messages (a)")
    expected = f"error: {other} holds tables of another program, but no event log\n"
    assert refused(words, other, source) == expected


@pytest.fixture
async def chats(tmp_path: Path) -> Path:
    """A file of the SDK's with tables of other names."""
    names: dict[str, Any] = {"sessions_table": '"my chats"', "messages_table": "Lines"}
    with closing(SQLiteSession("talk", tmp_path / "chats.db", **names)) as session:
        await session.add_items([user("first")])
    return tmp_path / "chats.db"


def test_the_import_that_is_proposed_works_whatever_the_tables_names(
    chats: Path, new: Path, source: Path
) -> None:
    said = refused(["show", "FILE", "talk"], chats, source)
    words = shlex.split(said[said.index("import NEW.db") :])
    assert run(words[0], new, *words[2:]).exit_code == ExitCode.CLEAN
    (item,) = documents(run("show", new, "talk", "--json"), "item")
    assert item["item"] == user("first")
