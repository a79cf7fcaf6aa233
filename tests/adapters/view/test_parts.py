"""The parts of pages that scripts fetch, and links that stay."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest

from agents_eventlog import AdvancedSQLiteSession, ConversationLog
from agents_eventlog.adapters.view import session_pages
from agents_eventlog.eventlog import ItemsAdded
from tests.adapters.view.asking import reader, text
from tests.adapters.view.conversation import ID, PIXEL

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    import httpx

TURNS = 500


def user(words: str) -> Any:
    return {"role": "user", "content": words}


@pytest.fixture
async def long(tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    """A browser of a log with a conversation of 500 turns, from which a branch leaves."""
    path = tmp_path / "long.db"
    async with ConversationLog.open(path, durability="normal") as log:
        for first in range(0, TURNS, 100):
            turns = [
                ItemsAdded(
                    items=[user(f"question {n + 1}."), {"role": "assistant", "content": "x"}]
                )
                for n in range(first, first + 100)
            ]
            await log.append("s", turns, branch_id="main")
    async with AdvancedSQLiteSession("s", path, durability="normal") as session:
        await session.create_branch_from_turn(200, "other")
        await session.add_items([user("instead")])
        await session.switch_to_branch("main")
    async with ConversationLog.open(path, read_only=True) as log:
        yield reader(log)


def turns_of(page: str) -> list[int]:
    return [int(number) for number in re.findall(r'<section class="turn" id="t(\d+)"', page)]


async def test_a_long_conversation_shows_its_newest_turns_and_loads_both_ways(
    long: httpx.AsyncClient,
) -> None:
    newest = turns_of(await text(long, "/session", id="s"))
    assert newest[-1] == TURNS
    assert len(newest) == 60
    before = turns_of(await text(long, "/session/window", id="s", before=newest[0]))
    assert before[-1] == newest[0] - 1
    after = turns_of(await text(long, "/session/window", id="s", after=before[-1]))
    assert after[0] == newest[0]
    around = await text(long, "/session", id="s", around=200)
    assert 200 in turns_of(around)
    assert 'class="pages earlier"><a href="/session' in around
    assert 'class="pages later"><a href="/session' in around
    answer = await long.get("/session/window", params={"id": "s", "before": 1})
    assert turns_of(answer.text) == []
    first = await text(long, "/session", id="s", around=1)
    assert 'class="pages earlier" hidden' in first


@pytest.fixture
async def giant(tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    """A browser of a log with a turn of 1,001 items: an agent that worked for long."""
    path = tmp_path / "giant.db"
    async with ConversationLog.open(path, durability="normal") as log:
        await log.append("s", ItemsAdded(items=[user("go"), user("work")]), branch_id="main")
        steps = [{"role": "assistant", "content": f"step {n}."} for n in range(1_000)]
        for first in range(0, 1_000, 50):
            await log.append("s", ItemsAdded(items=steps[first : first + 50]), branch_id="main")
    async with ConversationLog.open(path, read_only=True) as log:
        yield reader(log)


@pytest.mark.parametrize("is_quick", [True, False])
async def test_a_turn_with_very_many_items_is_shown_in_parts(
    giant: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch, is_quick: bool
) -> None:
    if is_quick:
        monkeypatch.setattr(session_pages, "LONG_EVENTS", 1)
    page = await text(giant, "/session", id="s", branch="main")
    assert ("data-later=" in page) == is_quick
    assert "step 999." in page
    assert "step 500." not in page
    assert len(page.encode()) < 100_000
    seen = set(re.findall(r"step \d+\.", page))
    while (
        link := re.search(r'<a href="([^"]+)">[\d,]+ earlier items of this turn', page)
    ) is not None:
        page = await text(giant, link[1].replace("&amp;", "&").partition("#")[0])
        found = set(re.findall(r"step \d+\.", page))
        assert found - seen
        seen |= found
    assert len(seen) == 1_000
    assert "later items of this turn" in page
    answer = await giant.get("/item/place", params={"position": 11, "index": 25})
    place = await text(giant, answer.headers["location"].partition("#")[0])
    assert 'id="e11.25"' in place


async def test_every_prompt_is_in_the_outline_which_comes_in_parts(long: httpx.AsyncClient) -> None:
    page = await text(long, "/session/outline", id="s")
    seen = {int(n) for n in re.findall(r'data-turn="(\d+)"', page)}
    gaps = re.findall(r'data-fetch="(/session/outline[^"]+)"', page)
    assert 199 in seen  # where the branch leaves
    assert page.index('data-turn="199"') < page.index(">other</a>") < page.index('data-turn="500"')
    while gaps:
        part = await text(long, gaps.pop().replace("&amp;", "&"))
        numbers = {int(n) for n in re.findall(r'data-turn="(\d+)"', part)}
        assert numbers
        assert not numbers & seen
        seen |= numbers
        gaps += re.findall(r'data-fetch="(/session/outline[^"]+)"', part)
    assert seen == set(range(1, TURNS + 1))


async def test_the_first_view_of_a_very_long_session_does_not_wait_for_its_paths(
    long: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session_pages, "LONG_EVENTS", 100)
    page = await text(long, "/session", id="s", branch="main")
    assert "question 500." in page
    assert "data-later=" in page
    assert turns_of(page)[-1] == TURNS
    middle = await text(long, "/session", id="s", branch="main", around=250)
    assert 250 in turns_of(middle)
    whole = await text(long, "/session", id="s", branch="main", whole=1)
    assert "data-later=" not in whole
    assert ">other</a>" in whole
    again = await text(long, "/session", id="s", branch="main")
    assert "data-later=" not in again  # its paths are known now


async def test_a_version_says_what_happened_and_how_large_the_branch_was(
    browser: httpx.AsyncClient,
) -> None:
    found = (await browser.get("/session/at", params={"id": ID, "v": 5, "branch": "main"})).json()
    assert (found["version"], found["last_version"]) == (5, 9)
    assert (found["items"], found["turns"]) == (4, 1)
    assert found["sentence"].startswith("boss popped #5 user")
    assert found["event"]["actor"] == "boss"
    nothing = (await browser.get("/session/at", params={"id": ID, "v": 0})).json()
    assert (nothing["event"], nothing["sentence"]) == (None, "before the first event")
    now = (await browser.get("/session/at", params={"id": ID})).json()
    assert now["version"] == 9


async def test_a_time_leads_to_the_version_of_then(browser: httpx.AsyncClient) -> None:
    answer = await browser.get("/session", params={"id": ID, "as_of": "2000-01-01"})
    assert answer.headers["location"].endswith("v=0")
    answer = await browser.get("/session", params={"id": ID, "v": 3, "as_of": "2999-01-01"})
    assert answer.headers["location"].endswith("v=9")


async def test_the_time_bar_shows_forks_ends_and_removals(browser: httpx.AsyncClient) -> None:
    ticks = await text(browser, "/session/ticks", id=ID, branch="main")
    assert ticks.count("<rect") == 9
    assert 'class="removed"' in ticks
    assert "forked" in ticks
    assert "elsewhere" in ticks  # what happened on the other branch is dimmed


async def test_the_ticks_of_many_versions_are_shared(long: httpx.AsyncClient) -> None:
    ticks = await text(long, "/session/ticks", id="s")
    assert ticks.count("<rect") <= 401


async def test_a_link_to_an_item_leads_to_where_it_is_or_was(browser: httpx.AsyncClient) -> None:
    for position, index, place in ((3, 2, "branch=main&around=1"), (4, 0, "branch=main&around=2")):
        query = {"position": position, "index": index}
        answer = await browser.get("/item/place", params=query)
        assert answer.status_code == 303
        item = f"{position}.{index}"
        assert answer.headers["location"].endswith(f"{place}&item={item}#e{item}")
        page = await text(browser, answer.headers["location"].partition("#")[0])
        assert f'id="e{position}.{index}"' in page


async def test_a_fork_shows_the_items_of_its_source_and_says_where_they_came_from(
    path: Path,
) -> None:
    async with AdvancedSQLiteSession(ID, path) as session:
        await session.fork("copy")
    async with ConversationLog.open(path, read_only=True) as log:
        browser = reader(log)
        page = await text(browser, "/session", id="copy")
        assert "Sorry!" in page
        assert "second question" in page
        assert "forked from session" in await text(browser, "/session/timeline", id="copy")
        assert "forked main into session" in await text(browser, "/session/timeline", id=ID)
        assert "second question" in await text(browser, "/session/outline", id="copy")
        compared = await text(browser, "/session/compare", id="copy", a="main@0", b="main@1")
        assert "Sorry!" in compared


async def test_an_item_is_given_whole(browser: httpx.AsyncClient) -> None:
    answer = await browser.get("/item", params={"position": 3, "index": 0})
    assert answer.json()["name"] == "courier"


async def test_only_raster_pictures_are_given_as_bytes(tmp_path: Path) -> None:
    path = tmp_path / "pictures.db"
    pictures = [
        PIXEL,
        "data:image/svg+xml;base64,PHN2Zz48L3N2Zz4=",
        "data:image/png;base64,PHN2Zz48L3N2Zz4=",  # not what it says
        "data:image/png;base64,***",
        "data:text/html;base64,PGI+",
        "https://evil.test/x.png",
    ]
    content = [{"type": "input_image", "image_url": picture} for picture in pictures]
    screen = {"type": "computer_screenshot", "image_url": PIXEL}
    shot: Any = {"type": "computer_call_output", "call_id": "c", "output": screen}
    async with AdvancedSQLiteSession("s", path) as session:
        await session.add_items([{"role": "user", "content": content}, shot])  # type: ignore[list-item]
    async with ConversationLog.open(path, read_only=True) as log:
        browser = reader(log)
        place = (await log.timeline("s"))[0]["position"]
        found = []
        for part in range(len(pictures) + 1):
            query = {"position": place, "index": 0, "part": part}
            answer = await browser.get("/item/part", params=query)
            found.append((answer.status_code, answer.headers["content-type"]))
        assert found[0] == (200, "image/png")
        assert [status for status, _ in found[1:]] == [404] * len(pictures)
        query = {"position": place, "index": 1, "part": 0}
        assert (await browser.get("/item/part", params=query)).headers[
            "content-type"
        ] == "image/png"
        page = await text(browser, "/session", id="s")
        assert "evil.test" in page
        assert 'src="http' not in page


async def test_what_was_erased_is_not_in_any_page_again(path: Path) -> None:
    async with ConversationLog.open(path) as log:
        browser = reader(log)
        assert "second question" in await text(browser, "/session", id=ID)
        [picture] = [row for row in await log.timeline(ID) if row["version"] == 4]
        query = {"position": picture["position"], "index": 0, "part": 0}
        assert (await browser.get("/item/part", params=query)).status_code == 200
        await log.erase(session_id=ID)
        for address in (
            f"/session?id={ID}",
            f"/session?id={ID}&v=6&branch=main",
            f"/session/timeline?id={ID}",
            f"/session/outline?id={ID}&v=6&branch=main",
            "/events",
            "/",
        ):
            page = await text(browser, address)
            assert "second question" not in page
            assert "anna" not in page
        assert "content erased" in await text(browser, f"/session?id={ID}&v=6&branch=main")
        assert (await browser.get("/item/part", params=query)).status_code == 404
