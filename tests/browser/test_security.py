"""What a real browser lets other sites and hostile conversations do with the pages: nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from playwright.sync_api import Error

from agents_eventlog import AdvancedSQLiteSession
from tests.adapters.view.conversation import HOSTILE_TEXTS, ID
from tests.browser.conftest import CHROMIUM, serving, watched
from tests.browser.using import in_a_thread

if TYPE_CHECKING:
    from pathlib import Path

    from playwright.sync_api import Browser, BrowserContext, Page

FOREIGN = "http://other.test/"


@pytest.fixture
def elsewhere(browser: Browser, server: str) -> Any:
    """A page of another site, which closes before the server of the pages does."""
    del server
    context = browser.new_context()
    page = foreign(context, "")
    yield page
    context.close()


def foreign(context: BrowserContext, body: str) -> Page:
    page = context.new_page()
    page.route(FOREIGN, lambda route: route.fulfill(content_type="text/html", body=body))
    page.goto(FOREIGN)
    return page


def test_a_foreign_name_that_leads_to_this_machine_gets_no_answer(
    browser: Browser, server: str
) -> None:
    """DNS rebinding: the browser thinks that the pages are those of another site."""
    port = server.rpartition(":")[2]
    rebound = browser.browser_type.launch(
        executable_path=CHROMIUM,
        args=["--no-sandbox", "--host-resolver-rules=MAP rebind.test 127.0.0.1"],
    )
    page = rebound.new_page()
    answer = page.goto(f"http://rebind.test:{port}/session?id={ID}")
    assert answer is not None
    assert answer.status == 421
    assert "Sorry!" not in page.content()
    rebound.close()


def test_another_site_cannot_frame_a_page(browser: Browser, server: str) -> None:
    context = browser.new_context()
    page = foreign(context, f"<iframe src='{server}/'></iframe>")
    assert "Sessions" not in page.frames[1].content()
    context.close()


@pytest.mark.parametrize("options", ["{}", "{mode: 'no-cors'}", "{method: 'POST'}"])
def test_another_site_cannot_read_a_page(elsewhere: Page, server: str, options: str) -> None:
    fetched = elsewhere.evaluate(
        f"(url) => fetch(url, {options}).then((r) => r.text(), () => 'refused')", f"{server}/"
    )
    assert fetched in ("refused", "")


def test_another_site_cannot_follow_events(elsewhere: Page, server: str) -> None:
    opened = elsewhere.evaluate(
        """(url) => new Promise((done) => {
            const stream = new EventSource(url);
            stream.onopen = () => done('opened');
            stream.onerror = () => done('refused');
        })""",
        f"{server}/session/live?id={ID}",
    )
    assert opened == "refused"


def test_another_site_cannot_show_a_picture_of_a_conversation(elsewhere: Page, server: str) -> None:
    shown = elsewhere.evaluate(
        """(url) => new Promise((done) => {
            const image = new Image();
            image.onload = () => done('shown');
            image.onerror = () => done('refused');
            image.src = url;
        })""",
        f"{server}/item/part?position=4&index=0&part=0",
    )
    assert shown == "refused"


def test_a_form_of_another_site_changes_nothing(browser: Browser, server: str) -> None:
    context = browser.new_context()
    page = foreign(context, f"<form method=post action='{server}/'><button>go</button></form>")
    page.get_by_role("button").click()
    page.wait_for_load_state()
    assert "only reads" in page.content()
    context.close()


@pytest.mark.parametrize(
    "script",
    [
        "document.body.innerHTML = '<b>x</b>'",
        "setTimeout('1')",
        "document.head.appendChild(document.createElement('script')).text = '1'",
    ],
)
def test_a_script_that_got_in_would_not_run(browser: Browser, server: str, script: str) -> None:
    context = browser.new_context(base_url=server)
    page = context.new_page()
    page.goto("/")
    with pytest.raises(Error, match="Trusted"):
        page.evaluate(f"() => {{ {script} }}")
    context.close()


def test_hostile_conversations_are_text(browser: Browser, tmp_path: Path) -> None:
    path = tmp_path / "hostile.db"
    in_a_thread(write(path))
    with serving(path) as server:
        context = browser.new_context(base_url=server)
        page = next(opened := watched(context, server))
        for number in range(len(HOSTILE_TEXTS)):
            for address in (
                f"/session?id=h{number}",
                f"/session/timeline?id=h{number}",
                f"/session/outline?id=h{number}",
            ):
                page.goto(address)
                page.evaluate("document.querySelectorAll('details').forEach((d) => d.open = true)")
                assert page.evaluate("window.hit") is None
                assert (
                    page.locator("script:not([src]), iframe, object, embed, svg script").count()
                    == 0
                )
                for link in page.locator("main a").all():
                    given = link.get_attribute("href") or ""
                    assert given.startswith(("/", "#", "http://", "https://", "mailto:"))
        for address in ("/", "/events", "/search?q=a", "/spend?by=session"):
            page.goto(address)
            assert page.evaluate("window.hit") is None
        next(opened, None)


async def write(path: Path) -> None:
    for number, text in enumerate(HOSTILE_TEXTS):
        async with AdvancedSQLiteSession(f"h{number}", path) as session:
            called: Any = {
                "type": "function_call",
                "name": text[:200],
                "call_id": text[:99],
                "arguments": text,
            }
            answered: Any = {
                "type": "function_call_output",
                "call_id": text[:99],
                "output": text,
            }
            odd: Any = {"type": text[:200], "value": [text]}
            await session.add_items(
                [
                    {"role": "user", "content": text},
                    {"role": "assistant", "content": [{"type": "output_text", "text": text}]},
                    called,
                    answered,
                    odd,
                ]
            )
