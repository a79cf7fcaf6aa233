"""Markdown for people: turns, tools and branches, and nothing of a conversation comes alive."""

from __future__ import annotations

import re
from contextlib import closing
from typing import TYPE_CHECKING, Any

from agents_eventlog import AdvancedSQLiteSession
from agents_eventlog.adapters.cli.markdown import export_markdown, fence, span
from agents_eventlog.eventlog import EventLog, ItemsAdded
from tests.adapters.moving import (
    NASTY,
    user,
)

if TYPE_CHECKING:
    from pathlib import Path


OBEYED = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
"""Control characters but the line break, and what turns the direction of writing."""


async def marked(path: Path, *session_ids: str) -> str:
    async with EventLog.open(path, read_only=True) as log:
        return "\n".join([text async for text in export_markdown(log, session_ids or None)])


async def test_markdown_tells_turns_tools_and_branches(tmp_path: Path) -> None:
    with closing(AdvancedSQLiteSession("talk", tmp_path / "talk.db", user_id="ann")) as session:
        await session.add_items([user("weather?")])
        answer: list[Any] = [
            {"type": "function_call", "name": "look", "arguments": '{"a": 1}', "call_id": "1"},
            {"type": "function_call_output", "call_id": "1", "output": "sunny"},
            {"role": "assistant", "content": [{"type": "output_text", "text": "It is sunny."}]},
        ]
        await session.add_items(answer)
        await session.add_items([user("and now?")])
        await session.create_branch_from_turn(2, "draft")
        await session.add_items([user("instead")])
        await session.create_branch_from_turn(1, "gone")
        await session.delete_branch("gone", force=True)
    text = re.sub(r" \(\d{4}-\d\d-\d\d \d\d:\d\d\)", "", await marked(tmp_path / "talk.db"))
    lines = [line for line in text.splitlines() if line][2:]
    assert lines == [
        "- user `ann`",
        "- 6 items, 3 turns, branches: 2",
        "## Branch `main`",
        "### Turn 1",
        *["**user**", "```text", "weather?", "```"],
        *["**calls** `look`", "```text", '{"a": 1}', "```"],
        *["**gets**", "```text", "sunny", "```"],
        *["**assistant**", "```text", "It is sunny.", "```"],
        "### Turn 2",
        *["**user**", "```text", "and now?", "```"],
        "## Branch `draft`",
        "Forked from `main`, with which it shares 4 items.",
        "### Turn 2",
        *["**user**", "```text", "instead", "```"],
    ]


async def test_markdown_of_a_hostile_conversation_is_only_text(tmp_path: Path) -> None:
    async with EventLog.open(tmp_path / "log.db") as log:
        items = [
            user(NASTY),
            {"role": NASTY, "content": NASTY},
            {"type": "function_call", "name": NASTY, "arguments": NASTY},
            {"type": NASTY},
            NASTY,
            {"role": "user", "content": [{"type": "input_image", "image_url": NASTY}]},
            user("`" * 50),
        ]
        await log.append(NASTY, ItemsAdded(items=items), branch_id=NASTY)
    text = await marked(tmp_path / "log.db")
    assert not OBEYED.search(text)
    outside = _outside_of_fences(text)
    assert not [line for line in outside if line.startswith("# head")]
    for line in outside:
        assert "javascript" not in re.sub(r"(`+)(?!`).*?(?<!`)\1(?!`)", "", line)
        assert "<b>" not in re.sub(r"(`+)(?!`).*?(?<!`)\1(?!`)", "", line)


def _outside_of_fences(text: str) -> list[str]:
    outside, ticks = [], ""
    for line in text.splitlines():
        if ticks:
            ticks = "" if line == ticks else ticks
        elif found := re.fullmatch(r"(`{3,})text", line):
            ticks = found[1]
        else:
            outside.append(line)
    assert not ticks
    return outside


def test_a_text_cannot_end_its_fence_or_its_span() -> None:
    assert fence("a\n```\nb").startswith("````text\n")
    assert span("a`b``c") == "``` a`b``c ```"
    assert span("a\nb") == "`a\\nb`"


async def test_markdown_of_a_deleted_session_tells_that_it_is(full: Path) -> None:
    text = await marked(full, "t")
    assert "- deleted " in text
    assert "after" not in text


def test_the_command_prints_markdown(command: Any, full: Path, tmp_path: Path) -> None:
    done = command("export", full, "--format", "markdown", "--session", "u")
    assert done.exit_code == 0
    assert done.stdout.startswith("# Session `u`\n")
    done = command("export", full, "--format", "markdown", "--output", tmp_path / "talk.md")
    assert done.stdout.split() == f"exported 3 sessions, 53 events to {tmp_path}/talk.md".split()
