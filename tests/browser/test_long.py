"""A long conversation in a real browser: it loads in parts, both ways, and its outline is complete."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from agents_eventlog import AdvancedSQLiteSession
from agents_eventlog.adapters.view import session_pages
from benchmarks.view import LONG, write
from tests.browser.conftest import serving, watched
from tests.browser.using import eventually, in_a_thread

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from playwright.sync_api import Browser, Page

TURNS = 250


@pytest.fixture
def long(browser: Browser, tmp_path: Path) -> Iterator[Page]:
    """A page of a server of a session of 250 turns."""
    path = tmp_path / "long.db"
    in_a_thread(write(path, items=TURNS * 8, sessions=1))
    with serving(path) as server:
        yield from watched(browser.new_context(base_url=server), server)


def turns(page: Page) -> list[int]:
    ids = page.locator("#turns > .turn").evaluate_all("all => all.map((each) => each.id)")
    return [int(each[1:]) for each in ids]


def test_turns_are_loaded_while_one_scrolls_and_the_far_ones_are_dropped(long: Page) -> None:
    long.goto(f"/session?id={LONG}&branch=main&around=120")
    first = turns(long)
    assert 120 in first
    long.locator(".pages.later:not([hidden])").scroll_into_view_if_needed()
    long.locator(f"#t{first[-1] + 1}").wait_for(state="attached")
    assert turns(long) == sorted(set(turns(long)))
    for _ in range(30):
        if turns(long)[-1] == TURNS:
            break
        last = turns(long)[-1]
        long.locator(".pages.later:not([hidden])").scroll_into_view_if_needed()
        long.locator(f"#t{last + 1}").wait_for(state="attached")
    assert turns(long)[-1] == TURNS
    assert long.locator(".item").count() <= 1_200


def test_gaps_of_the_outline_are_filled_where_they_are(long: Page) -> None:
    long.goto(f"/session?id={LONG}&branch=main&around=120")
    while long.locator(".rows .gap > a").count():
        left = long.locator(".rows .gap > a").count()
        rows = long.locator(".rows .turn-row").count()
        long.locator(".rows .gap > a").first.click()
        eventually(long, f"document.querySelectorAll('.rows .turn-row').length > {rows}")
        assert long.locator(".rows .gap > a").count() <= left
    numbers = long.locator(".rows [data-turn]").evaluate_all(
        "all => all.map((each) => Number(each.dataset.turn))"
    )
    assert numbers == list(range(1, TURNS + 1))


def test_what_follows_the_first_view_comes_by_itself(
    long: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session_pages, "LONG_EVENTS", 10)
    long.goto(f"/session?id={LONG}&branch=main")
    long.locator(".rows .turn-row").first.wait_for()
    assert turns(long)[-1] == TURNS
    assert not long.locator("#incomplete").is_visible()
    eventually(long, "scrollY > 0")


@pytest.mark.parametrize("around", ["", "&around=120"])
def test_new_events_leave_the_reader_at_the_turn_that_is_read(
    long: Page, tmp_path: Path, around: str
) -> None:
    with long.expect_response(lambda answer: "/session/live" in answer.url):
        long.goto(f"/session?id={LONG}&branch=main{around}")
    first = turns(long)[0]
    while turns(long)[0] > first - 15:
        long.evaluate("scrollTo(0, 0)")
        long.wait_for_timeout(100)
    read = f"#t{turns(long)[0] + 3}"
    long.locator(f"{read} h2").evaluate(
        "(e) => e.scrollIntoView({ block: 'start', behavior: 'instant' })"
    )
    long.wait_for_timeout(300)
    top = long.locator(read).bounding_box()
    version = int(long.locator(".session").get_attribute("data-version") or 0)
    in_a_thread(say(tmp_path / "long.db"))
    eventually(long, f"document.querySelector('.session').dataset.version === '{version + 1}'")
    long.wait_for_timeout(300)
    now = long.locator(read).bounding_box()
    assert top is not None
    assert now is not None
    assert abs(now["y"] - top["y"]) < 40


def test_new_events_are_followed_by_a_reader_at_the_end(long: Page, tmp_path: Path) -> None:
    with long.expect_response(lambda answer: "/session/live" in answer.url):
        long.goto(f"/session?id={LONG}&branch=main")
    in_a_thread(say(tmp_path / "long.db"))
    long.get_by_text("something new").first.wait_for()
    eventually(
        long, f"document.querySelector('#t{TURNS + 1}').getBoundingClientRect().top < innerHeight"
    )


async def say(path: Path) -> None:
    async with AdvancedSQLiteSession(LONG, path) as session:
        await session.add_items([{"role": "user", "content": "something new"}])
