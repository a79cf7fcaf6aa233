"""Finding turns by what they say, on both sides (bullets 30 to 35)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.contract.items import assistant, turns, user

if TYPE_CHECKING:
    from tests.contract.harness import Pair, World


async def found(pair: Pair, term: str, *branch: Any) -> list[int]:
    """Return the numbers of the turns in which both sides find a term."""
    return [turn["turn"] for turn in await pair.find_turns_by_content(term, *branch)]


async def test_a_match_is_shown_whole(pair: Pair) -> None:
    text = "find me " + "x" * 300
    await pair.add_items([user("other"), user(text)])
    assert await pair.find_turns_by_content("find me") == [
        {
            "turn": 2,
            "content": text,
            "full_content": text,
            "timestamp": "<now>",
            "can_branch": True,
        }
    ]


async def test_matches_are_in_the_order_of_turns(pair: Pair) -> None:
    await pair.add_items(turns("cat one", "dog", "cat two"))
    await pair.add_items(turns("cat three"))
    assert await found(pair, "cat") == [1, 3, 4]


async def test_only_what_the_user_said_is_searched(pair: Pair) -> None:
    await pair.add_items([user("dog"), assistant("cat"), {"role": "system", "content": "cat"}])
    await pair.add_items([{"type": "function_call", "name": "cat", "arguments": "cat"}, "cat"])
    assert await found(pair, "cat") == []


@pytest.mark.parametrize(
    "term", ["%", "_", "\\", "'", '"', "\n", "100%", "a_b", "c\\d", "😀", "\t"]
)
async def test_every_sign_is_itself(pair: Pair, term: str) -> None:
    await pair.add_items([user("nothing of it"), user(f"here {term} it is")])
    assert await found(pair, term) == [2]


@pytest.mark.parametrize(
    ("stored", "term", "is_found"),
    [
        ("I like CATS", "cats", True),
        ("I like cats", "CaTs", True),
        ("É", "é", False),
        ("é", "É", False),
        ("Kelvin: \u212a", "k", True),
        ("\u212a", "k", False),
        ("\u017f", "s", False),
        ("é", "é", True),
        ("\\u00e9", "é", False),
        ("é", "\\u00e9", False),
        ("é", "00e9", False),
        ("a\\nb", "\n", False),
        ("a\nb", "\\n", False),
        ("a\nb", "n", False),
        ("abc", "abcd", False),
        ("a.c", "abc", False),
        ("abc", "a.c", False),
        ("ab", "a*b", False),
        ("\ud83d\ude00", "😀", True),  # JSON joins the two halves
    ],
)
async def test_a_term_is_found_literally_but_for_ascii_case(
    pair: Pair, stored: str, term: str, *, is_found: bool
) -> None:
    await pair.add_items([user(stored)])
    assert await found(pair, term) == ([1] if is_found else [])


PARTS = [
    {"type": "input_text", "text": "first part"},
    {"type": "input_image", "image_url": "https://example.com/cat.png", "detail": "auto"},
    {"type": "input_file", "filename": "cat.pdf"},
    {"type": "input_text", "text": "second part"},
]


@pytest.mark.parametrize(
    ("term", "is_found"),
    [
        ("first part", True),
        ("SECOND", True),
        ("part", True),
        ("part second", False),
        ('part"', False),
        ("cat", False),
        ("input_text", False),
        ("text", False),
        ("user", False),
        ("example", False),
        ("", True),
    ],
)
async def test_only_the_text_of_a_part_is_searched(
    pair: Pair, term: str, *, is_found: bool
) -> None:
    await pair.add_items([user(PARTS)])
    assert await found(pair, term) == ([1] if is_found else [])


async def test_the_empty_term_finds_every_turn_with_text(pair: Pair) -> None:
    await pair.add_items([user("one"), user(""), user([]), user([{"type": "input_image"}])])
    await pair.add_items([{"role": "user"}])
    assert await found(pair, "") == [1, 2, 4, 5]


async def test_only_the_asked_branch_is_searched(pair: Pair) -> None:
    await pair.add_items(turns("cat", "dog", "cat"))
    await pair.create_branch_from_turn(2, "draft")
    await pair.add_items(turns("cat of draft"))
    assert await found(pair, "cat") == [1, 2]
    assert await found(pair, "cat", "main") == [1, 3]
    assert await found(pair, "draft", "main") == []
    assert await found(pair, "cat", "nowhere") == []
    assert await found(pair, "cat", "") == []


async def test_only_the_asked_session_is_searched(world: World) -> None:
    await world.open("one").add_items(turns("cat"))
    assert await found(world.open("two"), "cat") == []


async def test_what_was_popped_is_not_found(pair: Pair) -> None:
    await pair.add_items([user("cat"), user("cat")])
    await pair.pop_item()
    assert await found(pair, "cat") == [1]
    await pair.clear_session()
    assert await found(pair, "cat") == []


async def test_a_part_that_is_no_dict_is_no_text(pair: Pair) -> None:
    await pair.add_items([user(["cat"]), user({"text": "cat"}), user("cat")])
    assert await found(pair, "cat") == [3]
