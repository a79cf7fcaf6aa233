"""The pages in a real browser: without errors, foreign requests or barriers, at every version."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import pytest
from axe_playwright_python.sync_playwright import Axe

from agents_eventlog import AdvancedSQLiteSession, ConversationLog
from tests.adapters.view.conversation import ID
from tests.browser.conftest import watched

if TYPE_CHECKING:
    from pathlib import Path

    from playwright.sync_api import Browser, Page

PAGES = [
    "/",
    f"/session?id={ID}&branch=main",
    f"/session?id={ID}&branch=main&v=3",
    f"/session/compare?id={ID}&a=main&b=draft",
    "/spend",
    "/events",
    "/event?position=5",
    "/search?q=question",
    "/health?prove=1",
    "/session?id=nobody",
]


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
    width = page.evaluate("document.documentElement.scrollWidth")
    context.close()
    assert width <= 320


def test_a_page_can_be_read_without_scripts(browser: Browser, server: str) -> None:
    context = browser.new_context(base_url=server, java_script_enabled=False)
    page = next(opened := watched(context, server))
    page.goto(f"/session?id={ID}&branch=main")
    assert page.get_by_text("Sorry!").is_visible()
    page.get_by_text("popped at").click()
    page.locator(".time a").first.click()
    assert "v=" in page.url
    next(opened, None)


def test_every_version_shows_the_items_that_the_branch_had_then(page: Page, path: Path) -> None:
    for branch, versions in asked(history(path)).items():
        for version, items in enumerate(versions):
            page.goto(f"/session?id={ID}&branch={branch}&v={version}")
            shown = page.locator(".item:not(:has(.gone)) .message").all_text_contents()
            messages = [item for item in items if "role" in item]
            assert len(shown) == len(messages)
            for text, item in zip(shown, messages, strict=True):
                assert text.strip().startswith(item["role"].capitalize())
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


def asked(coroutine: Any) -> Any:
    """Run a coroutine in a thread of its own, as the browser's loop runs in this one."""
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(asyncio.run(coroutine)))
    thread.start()
    thread.join()
    return found[0]


def test_keys_move_between_turns_and_versions_and_focus_the_search(page: Page) -> None:
    page.goto(f"/session?id={ID}&branch=main")
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.id") == "find"
    page.keyboard.press("Escape")
    page.evaluate("document.activeElement.blur()")
    with page.expect_navigation():
        page.keyboard.press("[")
    assert page.get_by_text("You see version").is_visible()
    page.keyboard.press("o")
    assert page.locator("details:not([open])").count() == 0


def test_the_slider_hides_what_came_later_and_loads_that_version(page: Page) -> None:
    page.goto(f"/session?id={ID}&branch=main")
    slider = page.get_by_role("slider")
    slider.evaluate("s => { s.value = 2; s.dispatchEvent(new Event('input')) }")
    assert not page.get_by_text("Sorry!").is_visible()
    with page.expect_navigation():
        slider.evaluate("s => s.dispatchEvent(new Event('change'))")
    assert "v=2" in page.url


@pytest.mark.parametrize("address", ["http://rebind.test", "http://localhost.evil.test"])
def test_a_foreign_name_for_this_machine_is_not_answered(
    server: str, page: Page, address: str
) -> None:
    port = server.rpartition(":")[2]
    answer = page.request.get(f"{server}/", headers={"Host": f"{address[7:]}:{port}"})
    assert answer.status == 421


def test_another_site_can_neither_frame_nor_fetch_a_page(browser: Browser, server: str) -> None:
    context = browser.new_context()
    page = context.new_page()
    page.route(
        "http://other.test/",
        lambda route: route.fulfill(
            content_type="text/html", body=f"<iframe src='{server}/'></iframe>"
        ),
    )
    page.goto("http://other.test/")
    frame = page.frames[1]
    assert "Sessions" not in frame.content()
    fetched = page.evaluate(
        "(url) => fetch(url).then((r) => r.text(), (e) => 'refused')", f"{server}/"
    )
    context.close()
    assert fetched == "refused"
