"""Items as the page shows them: messages as cards, a call and its output in one line."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from agents_eventlog import AdvancedSQLiteSession, ConversationLog
from agents_eventlog.adapters.view import rendering, svg
from tests.adapters.view.asking import reader, text
from tests.adapters.view.conversation import PIXEL

if TYPE_CHECKING:
    from pathlib import Path


async def page_of(path: Path, *items: Any) -> str:
    async with AdvancedSQLiteSession("s", path) as session:
        await session.add_items(list(items))
    async with ConversationLog.open(path, read_only=True) as log:
        return await text(reader(log), "/session", id="s", branch="main")


def call(call_id: str = "c", **more: Any) -> Any:
    return {"type": "function_call", "name": "look", "call_id": call_id, "arguments": "{}", **more}


def output(value: Any, call_id: str = "c") -> Any:
    return {"type": "function_call_output", "call_id": call_id, "output": value}


async def test_a_call_and_its_output_are_one_line_also_across_other_items(tmp_path: Path) -> None:
    between: Any = {"role": "assistant", "content": "one moment"}
    page = await page_of(tmp_path / "log.db", call(), between, output("found it"))
    assert page.count('<details class="work') == 1
    assert page.index("look()") < page.index("→ found it") < page.index("one moment")


async def test_a_call_without_an_output_and_an_output_without_a_call_say_so(tmp_path: Path) -> None:
    page = await page_of(tmp_path / "log.db", call("a"), output("whose?", "b"))
    assert page.count('<details class="work') == 2
    assert "has no output" in page
    assert "whose?" in page


@pytest.mark.parametrize(
    "failure",
    [
        "An error occurred while running the tool. Please try again. Error: no",
        "Traceback (most recent call last):\n  File",
    ],
)
async def test_a_failure_is_named_in_words(tmp_path: Path, failure: str) -> None:
    page = await page_of(tmp_path / "log.db", call(), output(failure))
    assert 'class="work call failed"' in page
    assert '<strong class="bad">failed</strong>' in page


async def test_a_picture_in_an_output_is_shown(tmp_path: Path) -> None:
    picture = [{"type": "input_image", "image_url": PIXEL}]
    page = await page_of(tmp_path / "log.db", call(), output(picture))
    assert "picture in this output" in page
    assert "iVBOR" not in page


async def test_reasoning_hosted_tools_and_unknown_items_have_lines_of_their_own(
    tmp_path: Path,
) -> None:
    page = await page_of(
        tmp_path / "log.db",
        {"type": "reasoning", "id": "r", "summary": [{"type": "summary_text", "text": "I think"}]},
        {"type": "reasoning", "id": "q", "summary": []},
        {"type": "web_search_call", "id": "w", "status": "failed"},
        {"type": "shell_call_output", "call_id": "x", "output": [{"outcome": {"type": "timeout"}}]},
        {"type": "something_new", "value": 7},
        {"role": "user", "content": [{"type": "input_file", "filename": "a.pdf"}]},
        {"role": "user", "content": None},
    )
    for words in ("I think", "not shown by the model", "web_search_call", "something_new", "a.pdf"):
        assert words in page
    assert page.count('<strong class="bad">failed</strong>') == 2


async def test_a_long_text_is_cut_and_leads_to_all_of_it(tmp_path: Path) -> None:
    long = "word " * 2_000
    message: Any = {"role": "user", "content": [{"type": "input_text", "text": long}]}
    page = await page_of(tmp_path / "log.db", message, call(), output(long))
    assert page.count("all 10,000 characters, as JSON") == 2
    assert len(page) < 30_000


def test_what_is_json_is_indented_and_what_is_too_deep_or_long_is_not() -> None:
    assert rendering.indented('{"a":1}') == '{\n  "a": 1\n}'
    assert rendering.indented("[not json") == "[not json"
    assert rendering.indented("[" * 10_000) == "[" * 10_000
    deep: Any = []
    for _ in range(5_000):
        deep = [deep]
    assert "too deeply" in rendering.pretty(deep)
    assert rendering.markdown("# " + "x" * 30_000).startswith("<pre")


def test_numbers_have_a_unit_and_costs_two_digits() -> None:
    assert [rendering.count(n) for n in (7, 1_500, 12_000, 3_800_000, 2 * 10**9)] == [
        "7",
        "1.5k",
        "12k",
        "3.8M",
        "2.0G",
    ]
    assert [rendering.usd(cost) for cost in (0, 0.00041, 0.029, 12.5)] == [
        "$0.00",
        "$0.00041",
        "$0.029",
        "$12.50",
    ]


def test_drawings_hold_numbers_alone() -> None:
    assert svg.sparkline([]) == ""
    assert svg.sparkline([0, 5, 10]).count("<rect") == 3
    assert "NaN" not in svg.bar((("cached", 0),), 0)
    assert svg.drawn_ticks([]).count("<rect") == 0
