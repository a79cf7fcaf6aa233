"""Pictures, sound, files and refusals: named with format and size, never printed as base64."""

from __future__ import annotations

import asyncio
import base64
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from agents_eventlog import AdvancedSQLiteSession
from tests.adapters.looking import run

if TYPE_CHECKING:
    from pathlib import Path

DATA = base64.b64encode(bytes(range(256)) * 12).decode()
PNG = f"data:image/png;base64,{DATA}"
TOOL_OUTPUT = [{"type": "input_text", "text": "a map"}, {"type": "input_image", "image_url": PNG}]
ITEMS: list[tuple[Any, str]] = [
    (
        {"role": "user", "content": [{"type": "input_image", "image_url": PNG}]},
        "(image, png, 3 kB)",
    ),
    (
        {"role": "user", "content": [{"type": "image_url", "image_url": {"url": PNG}}]},
        "(image, png, 3 kB)",
    ),
    (
        {"role": "user", "content": [{"type": "input_image", "image_url": "https://a.test/b.png"}]},
        "(image, https://a.test/b.png)",
    ),
    (
        {"role": "user", "content": [{"type": "input_image", "file_id": "file-1"}]},
        "(image, file-1)",
    ),
    (
        {
            "role": "user",
            "content": [{"type": "input_audio", "input_audio": {"data": DATA, "format": "wav"}}],
        },
        "(audio, wav, 3 kB)",
    ),
    (
        {
            "role": "assistant",
            "content": [{"type": "output_audio", "data": DATA, "transcript": "Good morning"}],
        },
        "(audio, 3 kB) Good morning",
    ),
    (
        {
            "role": "user",
            "content": [{"type": "input_file", "filename": "a.pdf", "file_data": PNG + DATA * 400}],
        },
        "(file, a.pdf, png, 1 MB)",
    ),
    ({"role": "user", "content": [{"type": "input_file", "file_data": "aGk="}]}, "(file, 2 B)"),
    (
        {
            "role": "assistant",
            "type": "message",
            "content": [{"type": "refusal", "refusal": "No."}],
        },
        "(refusal) No.",
    ),
    ({"role": "user", "content": [{"type": "hologram"}]}, "hologram"),
    ({"role": "user", "content": ["odd", {"type": "input_text", "text": "then"}]}, "then"),
    ({"type": "function_call_output", "call_id": "c", "output": TOOL_OUTPUT}, "(image, png, 3 kB)"),
    (
        {
            "type": "computer_call_output",
            "call_id": "c",
            "output": {"type": "computer_screenshot", "image_url": PNG},
        },
        "(image/png, 3 kB)",
    ),
    (
        {"type": "image_generation_call", "id": "i", "status": "completed", "result": DATA},
        "(base64, 3 kB)",
    ),
    (
        {"type": "function_call", "name": "put", "call_id": "c", "arguments": f'{{"a": "{PNG}"}}'},
        "(image/png, 3 kB)",
    ),
    (
        {"type": "reasoning", "id": "r", "summary": [], "encrypted_content": DATA},
        "(base64, 3 kB)",
    ),
]


@pytest.mark.parametrize(("item", "told"), ITEMS, ids=[told for _, told in ITEMS])
def test_media_are_described_and_never_printed(path: Path, item: Any, told: str) -> None:
    with closing(AdvancedSQLiteSession("s", path)) as session:
        asyncio.run(session.add_items([item]))
    shown = run("show", path, "s").stdout
    markdown = run("export", path, "--format", "markdown").stdout
    audit = run("audit", path).stdout
    turns = run("show", path, "s", "--turns").stdout
    assert told in " ".join(shown.split())
    assert told in markdown
    assert DATA[:40] not in shown + markdown + audit + turns
    if "role" in item:
        assert told[:20] in " ".join(audit.split())


def test_programs_get_media_complete(path: Path) -> None:
    with closing(AdvancedSQLiteSession("s", path)) as session:
        asyncio.run(session.add_items([item for item, _ in ITEMS[:1]]))
    assert PNG in run("show", path, "s", "--json").stdout
