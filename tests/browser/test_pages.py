"""The pages in a real browser: without errors, foreign requests or barriers, at every version."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from axe_playwright_python.sync_playwright import Axe

from agents_eventlog import AdvancedSQLiteSession, ConversationLog
from agents_eventlog.adapters.view.rendering import url
from tests.adapters.view.conversation import ID
from tests.browser.conftest import watched
from tests.browser.using import eventually, in_a_thread, slide

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from playwright.sync_api import Browser, Page

PAGES = [
    "/",
    f"/session?id={ID}&branch=main",
    f"/session?id={ID}&branch=main&v=3",
    f"/session/timeline?id={ID}",
    f"/session/spend?id={ID}",
    f"/session/compare?id={ID}&a=main&b=draft",
    f"/session/export?id={ID}",
    "/spend",
    "/events?census=1",
    "/event?position=5",
    "/search?q=question",
    "/health?prove=1&examine=1&tools=1",
    "/session?id=nobody",
]
MAIN = f"/session?id={ID}&branch=main"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("address", PAGES)
def test_a_page_has_no_barriers(browser: Browser, server: str, address: str, scheme: Any) -> None:
    context = browser.new_context(base_url=server, color_scheme=scheme)
    page = context.new_page()
    page.goto(address)
    page.evaluate("document.querySelectorAll('details').forEach((d) => { d.open = true })")
    found = Axe().run(page)
    context.close()
    assert found.violations_count == 0, found.generate_report()


@pytest.mark.parametrize("address", PAGES[:-1])
def test_a_page_runs_without_errors_and_asks_no_other_server(page: Page, address: str) -> None:
    page.goto(address)
    assert page.locator("h1").count() == 1


@pytest.mark.parametrize("address", PAGES)
def test_a_page_fits_a_narrow_window(browser: Browser, server: str, address: str) -> None:
    context = browser.new_context(base_url=server, viewport={"width": 320, "height": 640})
    page = context.new_page()
    page.goto(address)
    page.evaluate("document.querySelectorAll('details').forEach((d) => { d.open = true })")
    width = page.evaluate("document.documentElement.scrollWidth")
    context.close()
    assert width <= 320


def test_a_page_can_be_read_without_scripts(browser: Browser, server: str) -> None:
    context = browser.new_context(base_url=server, java_script_enabled=False)
    page = next(opened := watched(context, server))
    page.goto(MAIN)
    assert page.get_by_text("Sorry!").is_visible()
    assert not page.get_by_role("button", name="Play").is_visible()
    page.get_by_text("1 item popped").click()
    page.get_by_role("link", name="One version back").click()
    assert "v=8" in page.url
    page.get_by_role("button", name="Show").click()
    assert "v=8" in page.url
    next(opened, None)


def test_every_version_shows_the_items_that_the_branch_had_then(page: Page, path: Path) -> None:
    for branch, versions in in_a_thread(history(path)).items():
        for version, items in enumerate(versions):
            page.goto(f"/session?id={ID}&branch={branch}&v={version}")
            check(page, items)


def test_the_slider_shows_the_items_that_the_branch_had_then(page: Page, path: Path) -> None:
    for branch, versions in in_a_thread(history(path)).items():
        page.goto(f"/session?id={ID}&branch={branch}")
        for version in [*range(len(versions)), *range(len(versions) - 1, -1, -1)]:
            slide(page, version)
            check(page, versions[version])


SHOWN = """
    () => [...document.querySelectorAll('.item')].filter((each) =>
        !each.hidden && !each.closest('[hidden]') && !(each.closest('.gone') && !each.closest('.then'))
    ).flatMap((each) => [
        each.querySelector('.message')?.textContent.trim()
            ?? each.querySelector('summary')?.textContent.trim() ?? each.textContent.trim(),
        ...[...each.querySelectorAll('.result')].filter((r) => !r.hidden).map(() => 'output'),
    ])
"""


def check(page: Page, items: list[Any]) -> None:
    """Compare the items that a page shows with those that the library returns."""
    shown = page.evaluate(SHOWN)
    assert len(shown) == len(items), (shown, items)
    for text, item in zip(shown, items, strict=True):
        if isinstance(item.get("role"), str):
            assert text.startswith(item["role"].capitalize())
            if isinstance(item["content"], str):
                assert item["content"].split()[0] in text


async def history(path: Path) -> dict[str, list[list[Any]]]:
    """Return the items of each branch at each version."""
    async with AdvancedSQLiteSession(ID, path) as session, ConversationLog.open(path) as log:
        count = await log.version(ID)
        return {
            branch: [
                await session.get_items(branch_id=branch, as_of=version)
                for version in range(count + 1)
            ]
            for branch in ("main", "draft")
        }


def test_letting_the_slider_go_loads_that_version_and_keeps_it_in_the_address(page: Page) -> None:
    page.goto(MAIN)
    slide(page, 2)
    assert not page.get_by_text("Sorry!").is_visible()
    page.get_by_text("v2").wait_for()
    page.get_by_role("slider").dispatch_event("change")
    page.get_by_text("This is how it was").wait_for()
    assert "v=2" in page.url
    page.get_by_role("link", name="Back to now").click()
    assert page.get_by_text("Sorry!").is_visible()


def test_keys_move_between_turns_and_versions_and_open_help(page: Page) -> None:
    page.goto(MAIN)
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.id") == "find"
    page.keyboard.type("j?")  # only text while typing
    assert page.locator("#find").input_value() == "j?"
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press("[")
    page.get_by_text("This is how it was").wait_for()
    page.keyboard.press("]")
    page.get_by_text("This is how it was").wait_for(state="detached")
    page.keyboard.press("o")
    assert page.locator(".talk details:not([open])").count() == 0
    page.keyboard.press("o")
    assert page.locator(".talk details[open]").count() == 0
    page.set_viewport_size({"width": 1200, "height": 300})
    page.keyboard.press("j")
    eventually(page, "scrollY > 0")
    page.keyboard.press("b")
    assert page.evaluate("document.activeElement.id") == "branches"
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press("?")
    assert page.get_by_role("dialog", name="Keys").is_visible()
    page.keyboard.press("Escape")
    page.get_by_role("dialog", name="Keys").wait_for(state="hidden")
    with page.expect_navigation():
        page.keyboard.press("g")
        page.keyboard.press("s")
    assert page.get_by_role("heading", name="Sessions").is_visible()


def test_a_page_is_used_with_the_keyboard_alone(page: Page) -> None:
    page.goto(MAIN)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
    page.keyboard.press("Enter")
    reached = set()
    for _ in range(40):
        page.keyboard.press("Tab")
        reached.add(
            page.evaluate(
                "document.activeElement.getAttribute('aria-label') ?? document.activeElement.tagName"
            )
        )
        if page.evaluate("document.activeElement !== document.body"):
            outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
            assert outline != "none"
    assert {"A", "SUMMARY", "Version", "Play", "One version back"} <= reached


def test_the_versions_play_to_the_end(page: Page) -> None:
    page.goto(f"{MAIN}&v=7")
    page.get_by_role("button", name="Play").click()
    page.get_by_text("This is how it was").wait_for(state="detached", timeout=20_000)
    assert "v=" not in page.url


def test_conversation_only_hides_tools(page: Page) -> None:
    page.goto(MAIN)
    assert page.get_by_text("courier(").is_visible()
    page.get_by_label("conversation only").check()
    assert not page.get_by_text("courier(").is_visible()
    assert page.get_by_text("Sorry!").is_visible()


def test_events_of_another_process_appear_while_one_looks(page: Page, path: Path) -> None:
    page.goto(MAIN)
    page.get_by_text("9 events").wait_for()
    with page.expect_response(lambda answer: "/session/live" in answer.url):
        page.reload()
    in_a_thread(say(path, "something new"))
    page.get_by_text("something new").first.wait_for()
    assert page.get_by_text("10 events").is_visible()
    in_a_thread(say(path, "and more"))
    page.get_by_text("and more").first.wait_for()


async def say(path: Path, text: str) -> None:
    async with AdvancedSQLiteSession(ID, path) as session:
        await session.add_items([{"role": "user", "content": text}])


def test_a_page_of_the_past_does_not_follow(page: Page) -> None:
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(f"{MAIN}&v=3")
    page.wait_for_timeout(200)
    assert not [address for address in asked if "/session/live" in address]


def test_a_link_to_an_item_elsewhere_leads_there(page: Page) -> None:
    page.goto(f"/session?id={ID}&branch=draft#e6.0")  # on main alone
    page.wait_for_url("**branch=main**#e6.0")
    assert page.get_by_text("second question", exact=True).first.is_visible()


def test_the_whole_log_is_proved_with_progress(page: Page) -> None:
    page.goto("/health")
    page.get_by_role("button", name="Prove the whole log").click()
    page.get_by_text("9 events proved").wait_for()
    page.goto(MAIN)
    assert page.get_by_text("✓ proved to 9").is_visible()


def test_a_page_is_printed_without_bars(browser: Browser, server: str) -> None:
    context = browser.new_context(base_url=server)
    page = context.new_page()
    page.goto(MAIN)
    assert page.pdf().startswith(b"%PDF")
    page.emulate_media(media="print")
    assert not page.get_by_role("slider").is_visible()
    assert not page.get_by_role("search").is_visible()
    assert page.get_by_text("Sorry!").is_visible()
    context.close()


def test_a_first_view_takes_four_requests_and_few_bytes(page: Page) -> None:
    asked: list[tuple[str, int]] = []
    page.on(
        "requestfinished",
        lambda request: asked.append((request.url, request.sizes()["responseBodySize"])),
    )
    page.goto(f"{MAIN}&v=3", wait_until="networkidle")
    assert len(asked) <= 4, asked
    assert sum(size for _, size in asked) < 40_000


def test_an_exported_page_shows_the_same_without_a_server(
    browser: Browser, server: str, tmp_path: Path
) -> None:
    context = browser.new_context(base_url=server)
    page = context.new_page()
    with page.expect_download() as download:
        page.goto(f"/session/export?id={ID}")
        page.get_by_role("link", name="One HTML file").click()
    file = tmp_path / "talk.html"
    download.value.save_as(file)
    problems: list[str] = []
    opened: Callable[[Any], None] = lambda message: problems.append(message.text)  # noqa: E731
    page.on("console", opened)
    page.goto(file.as_uri())
    assert page.get_by_text("Sorry!").is_visible()
    assert page.locator("img").count() == 0  # it was popped
    assert problems == []
    context.close()


def test_addresses_keep_what_an_id_holds() -> None:
    assert url("/session", id="a/b?c#d e") == "/session?id=a%2Fb%3Fc%23d+e"
