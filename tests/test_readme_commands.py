"""The manual documents each command and each of its options."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tests.commands import commands

CLI = Path(__file__).parents[1] / "docs" / "reference" / "cli.md"


def options(command: Any) -> set[str]:
    """Return a command's long options, but for --help."""
    names = {name for parameter in command.params for name in parameter.opts}
    return {name for name in names if name.startswith("--")} - {"--help"}


def lacks(text: str, command: str, options: set[str]) -> list[str]:
    """Return what a text does not document of a command: the command itself, or options."""
    wanted = [f"eventlog {command}", *sorted(options)]
    return [
        name for name in wanted if not re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", text)
    ]


@pytest.mark.parametrize("command", sorted(commands()))
def test_each_command_and_option_is_in_the_manual(command: str) -> None:
    text = CLI.read_text(encoding="utf-8")
    assert lacks(text, command, options(commands()[command])) == []


def test_what_is_missing_or_only_part_of_a_longer_word_is_noticed() -> None:
    text = "Run `eventlog showcase --jsonl` or `eventlog verify DB --head`."
    assert lacks(text, "show", {"--json"}) == ["eventlog show", "--json"]
    assert lacks(text, "verify", {"--head"}) == []
