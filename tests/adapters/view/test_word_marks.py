"""Words that only one of two compared messages has are marked, and everything else stays as it is."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents_eventlog import AdvancedSQLiteSession, ConversationLog
from agents_eventlog.adapters.view import word_marks
from agents_eventlog.adapters.view.rendering import markdown
from agents_eventlog.adapters.view.word_marks import MAX_WORDS, marked
from tests.adapters.view.asking import reader, text
from tests.adapters.view.conversation import HOSTILE_TEXTS, PIXEL

if TYPE_CHECKING:
    from pathlib import Path


def marks(a: str, b: str) -> tuple[list[str], list[str]]:
    found = marked(a, b)
    assert found is not None
    before, after = found[1]
    return re.findall("<del>(.*?)</del>", before), re.findall("<ins>(.*?)</ins>", after)


def test_words_of_one_side_are_marked_within_their_formatting() -> None:
    a = "It **will** arrive on *Tuesday*, see [this](http://a.test/). `eta(1)`\n\n```\nx = 1\n```"
    b = "It **does** arrive on *Friday*, see [this](http://b.test/). `eta(2)`\n\n```\nx = 2\n```"
    assert marks(a, b) == (["will", "Tuesday", "1", "1"], ["does", "Friday", "2", "2"])
    found = marked(a, b)
    assert found is not None
    assert "<strong><ins>does</ins></strong>" in found[1][1]
    assert "<code>eta(<ins>2</ins>)</code>" in found[1][1]
    assert "x = <ins>2</ins>" in found[1][1]


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("Walk through Alfama.", "The museum while it pours"),
        ("word " * (MAX_WORDS + 1), "word " * MAX_WORDS + "other"),
    ],
    ids=["little in common", "too long"],
)
def test_different_or_long_texts_are_not_marked(a: str, b: str) -> None:
    assert marked(a, b) is None


PIECES = [*(text[:200] for text in HOSTILE_TEXTS), "a", "\n", "<b>", "&lt;", "*", "1."]


@settings(deadline=None, max_examples=40)
@given(st.lists(st.sampled_from(PIECES), max_size=6))
def test_marks_are_all_that_marking_adds_to_the_html(parts: list[str]) -> None:
    a = " ".join(parts)
    found = marked(a, f"{a} more")
    if found is not None:
        without = re.sub("</?del>", "", found[1][0])
        assert plain(without) == plain(re.sub(r'<code class="[^"]*">', "<code>", markdown(a)))


def plain(html: str) -> str:
    """Return HTML with quotes written in one way."""
    for name, sign in (("&quot;", '"'), ("&#34;", '"'), ("&#39;", "'")):
        html = html.replace(name, sign)
    return html


async def two_answers(path: Path, a: Any, b: Any) -> str:
    """Return the page that compares two branches with these answers to one question."""
    async with AdvancedSQLiteSession("s", path) as session:
        await session.add_items([{"role": "user", "content": "when?"}])
        await session.add_items([{"role": "user", "content": "and where?"}, *a])
        await session.create_branch_from_turn(2, "other")
        await session.add_items([{"role": "user", "content": "and where?"}, *b])
    async with ConversationLog.open(path, read_only=True) as log:
        return await text(reader(log), "/session/compare", id="s", a="main", b="other")


async def test_the_page_marks_words_of_answers_and_says_what_marks_mean(tmp_path: Path) -> None:
    one = {"role": "assistant", "content": "It arrives on <i>Tuesday</i>"}
    other = {"role": "assistant", "content": "It arrives on <i>Friday</i>"}
    page = await two_answers(tmp_path / "a.db", [one], [other])
    assert "<del>Tuesday</del>" in page
    assert "<ins>Friday</ins>" in page
    assert "only <ins>B</ins> has" in page
    assert "<i>" not in page.replace("<i>no text</i>", "")
    same = await two_answers(tmp_path / "b.db", [one], [one])
    assert "<del>" not in same


async def test_a_page_compares_a_bounded_number_of_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(word_marks, "MAX_PAGE_WORDS", 9)
    one, other = (
        [{"role": "assistant", "content": f"one two three {word}"}] * 2 for word in ("a", "b")
    )
    page = await two_answers(tmp_path / "a.db", one, other)
    assert page.count("<ins>b</ins>") == 1


async def test_parts_that_only_one_side_has_and_empty_messages_stay(tmp_path: Path) -> None:
    one = [{"role": "assistant", "content": [{"type": "output_text", "text": "same a"}]}]
    other = [
        {
            "role": "assistant",
            "content": [
                {"type": "output_text", "text": "same b"},
                {"type": "output_text", "text": "second part"},
            ],
        }
    ]
    page = await two_answers(tmp_path / "a.db", one, other)
    assert "same <ins>b</ins>" in page
    assert "second part" in page
    picture = [{"role": "assistant", "content": [{"type": "input_image", "image_url": PIXEL}]}]
    assert "picture in this message" in await two_answers(tmp_path / "c.db", one, picture)
    empty = [{"role": "assistant", "content": []}]
    assert "<ins>" not in (await two_answers(tmp_path / "b.db", empty, empty)).split("<h2>")[0]
