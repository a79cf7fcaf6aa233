"""The pages of ``eventlog view``, asked as a browser asks: what they show, and what they refuse."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import quote_plus

import httpx
import pytest

from agents_eventlog import (
    AdvancedSQLiteSession,
    ConversationLog,
    EventLogSession,
    KeyFile,
    RootKey,
    generate_root_key,
)
from agents_eventlog.eventlog import ItemsAdded, RequestUsage, UsageRecorded, recording
from tests.adapters.looking import change, tampered, user
from tests.adapters.view.asking import KEY, client, reader, text
from tests.adapters.view.conversation import EVERY_PAGE, ID

if TYPE_CHECKING:
    from pathlib import Path

# -- what they show ---------------------------------------------------------------------------


async def test_the_list_of_sessions_leads_to_each_conversation(browser: httpx.AsyncClient) -> None:
    page = await text(browser, "/")
    assert "/session?id=support%2F4711" in page
    assert "anna" in page


async def test_a_conversation_shows_what_was_said_and_done(browser: httpx.AsyncClient) -> None:
    page = await text(browser, "/session", id=ID)
    for words in ("Sorry!", "courier(zip=&#34;10115&#34;)", "two days", "second question"):
        assert words in page
    assert "another second question" not in page


async def test_what_was_taken_off_stands_in_its_place_with_who_did_it(
    browser: httpx.AsyncClient,
) -> None:
    page = await text(browser, "/session", id=ID)
    gone = page.index('<details class="gone"')
    assert page.index("Sorry!") < gone < page.rindex("second question")
    assert re.search(r"1 item popped</strong> at \d\d:\d\d by boss", page)


async def test_a_redacted_item_is_shown_as_its_placeholder_with_who_redacted_it_when_and_why(
    path: Path, browser: httpx.AsyncClient
) -> None:
    async with ConversationLog.open(path) as log:
        (hit,) = await log.find_items("Hi ")
        position, index = hit["position"], hit["index"]
        with recording(actor="boss"):
            await log.redact(position, index, reason="a name")
        version = await log.version(ID)
    page = await text(browser, "/session", id=ID)
    assert re.search(rf"redacted at .*version {version}.* by boss: a name", page)
    assert ">Hi " not in page
    assert "[redacted]" in page
    assert "Hi " in await text(browser, "/session", id=ID, v=version - 1)
    item = await text(browser, "/item", position=position, index=index)
    assert "Hi " not in item
    for query in ({"path": "/event", "position": position}, {"path": "/events"}):
        shown = await text(browser, **query)
        assert "[redacted]" in shown
        assert "Hi " not in shown


async def test_a_branch_is_linked_where_it_leaves_and_shows_its_own_turns(
    browser: httpx.AsyncClient,
) -> None:
    page = await text(browser, "/session", id=ID)
    assert page.index('id="t1"') < page.index('class="fork ') < page.index('id="t2"')
    page = await text(browser, "/session", id=ID, branch="draft")
    assert "another second question" in page
    assert "Sorry!" in page


async def test_two_branches_stand_side_by_side_from_where_they_part(
    browser: httpx.AsyncClient,
) -> None:
    page = await text(browser, "/session/compare", id=ID, a="main", b="draft")
    assert "1 turn shared, 4 items" in page
    assert page.index("<p>second question") < page.index("<ins>another</ins> second question")
    assert "Sorry!" not in page


async def test_a_version_is_compared_with_now(browser: httpx.AsyncClient) -> None:
    assert "a=main%404&amp;b=main" in await text(browser, "/session", id=ID, branch="main", v=4)
    page = await text(browser, "/session/compare", id=ID, a="main@4", b="main")
    assert "main@4" in page
    assert "1 turn shared, 4 items" in page
    assert page.index("picture in this message") < page.index("<p>second question")


async def test_a_version_shows_the_conversation_as_it_was_then(
    browser: httpx.AsyncClient,
) -> None:
    page = await text(browser, "/session", id=ID, v=2)
    assert "version 2 of 9" in page
    assert "Hi " in page
    assert "Sorry!" not in page
    assert "another second question" not in page


async def test_a_picture_is_served_from_the_log(browser: httpx.AsyncClient) -> None:
    page = await text(browser, "/session", id=ID)
    found = re.search(r'<img src="(/item/part[^"]+)"', page)
    assert found
    answer = await browser.get(found[1].replace("&amp;", "&"))
    assert answer.headers["content-type"] == "image/png"
    assert answer.content.startswith(b"\x89PNG")


async def test_what_is_no_picture_is_not_served_as_one(browser: httpx.AsyncClient) -> None:
    answer = await browser.get("/item/part", params={"position": 2, "index": 0, "part": 0})
    assert answer.status_code == 404


async def test_an_event_shows_its_columns_and_the_log_lists_it(browser: httpx.AsyncClient) -> None:
    page = await text(browser, "/event", position=5)
    assert "item_popped" in page
    assert "boss" in page
    assert "/event?position=5" in await text(browser, "/events")


async def test_a_search_leads_to_the_turn(browser: httpx.AsyncClient) -> None:
    page = await text(browser, "/search", q="second question")
    found = re.search(r'href="(/item/place[^"]+)"', page)
    assert found
    answer = await browser.get(found[1].replace("&amp;", "&"))
    assert "around=2&item=" in answer.headers["location"]


async def test_spend_is_shown_in_groups_and_says_what_has_no_price(tmp_path: Path) -> None:
    path = tmp_path / "spent.db"
    async with ConversationLog.open(path) as log:
        requests = [
            RequestUsage(total_tokens=1_500, model="priced", cost_usd=0.25),
            RequestUsage(total_tokens=500, model="unknown"),
        ]
        await log.append(
            "s", ItemsAdded(items=[{"role": "user", "content": "x"}]), branch_id="main"
        )
        await log.append(
            "s", UsageRecorded(run_id="r", turn=1, requests=requests), branch_id="main"
        )
    async with ConversationLog.open(path, read_only=True) as log:
        browser = client(log, cookies={"eventlog_4780": KEY})
        page = await text(browser, "/spend", by="model")
        assert "priced" in page
        assert "$0.25" in page
        assert "1 request without a known price" in page
        assert "2.0k tokens" in await text(browser, "/spend", id="s")
        assert "1 request without a price" in await text(browser, "/session", id="s")
        assert (await browser.get("/spend?by=planet")).status_code == 400
        assert (await browser.get("/spend?since=yesterday")).status_code == 400


async def test_the_whole_log_is_proved_when_asked(browser: httpx.AsyncClient) -> None:
    assert "events proved" not in await text(browser, "/health")
    assert "9 events proved" in await text(browser, "/health", prove=1)


@pytest.mark.parametrize(
    ("address", "status"),
    [
        ("/session?id=nobody", 404),
        ("/session", 400),
        (f"/session?id={ID}&v=99", 404),
        (f"/session?id={ID}&v=x", 400),
        (f"/session?id={ID}&branch=nowhere", 404),
        (f"/session/compare?id={ID}&a=main&b=nowhere", 404),
        (f"/session/timeline?id={ID}&type=nothing", 400),
        (f"/session/window?id={ID}&v=99", 404),
        (f"/session/at?id={ID}&v=99", 404),
        (f"/session/outline?id={ID}&branch=nowhere", 404),
        ("/session/outline?id=nobody&format=json", 404),
        ("/session?id=nobody&format=json", 404),
        (f"/session?id={ID}&as_of=yesterday", 400),
        ("/session/export?id=nobody", 404),
        ("/session/spend", 400),
        ("/item/place?position=99&index=0", 404),
        ("/item/place?position=3&index=7", 404),
        ("/item/part?position=2&index=9&part=0", 404),
        ("/item?position=5&index=0", 404),
        ("/item?position=5", 400),
        ("/?metadata=nonsense", 400),
        ("/?order_by=size", 400),
        ("/?updated_after=yesterday", 400),
        ("/static/0/view.css", 404),
        ("/session/compare?id=nobody&a=main&b=b", 404),
        ("/event?position=99", 404),
        ("/item?position=99&index=0", 404),
        ("/search?q=a&after=nonsense", 400),
    ],
)
async def test_an_address_without_anything_behind_it_is_a_page_that_says_so(
    browser: httpx.AsyncClient, address: str, status: int
) -> None:
    answer = await browser.get(address)
    assert answer.status_code == status
    assert "<h1>Not" in answer.text


# -- what they refuse -------------------------------------------------------------------------


async def test_text_of_a_conversation_is_never_markup(browser: httpx.AsyncClient) -> None:
    for address in EVERY_PAGE:
        page = await text(browser, address)
        assert "<script>alert" not in page
        assert "<img src=x" not in page
        assert 'src="http' not in page
        assert 'href="javascript' not in page
        assert "\u202e" not in page
        assert "\x1b" not in page


async def test_without_the_key_nothing_is_read(path: Path) -> None:
    async with ConversationLog.open(path, read_only=True) as log:
        for stranger in (client(log), client(log, cookies={"eventlog_4780": "guess"})):
            for address in ("/", f"/session?id={ID}", "/item?position=2&index=0", "/?key=guess"):
                answer = await stranger.get(address)
                assert answer.status_code == 403
                assert "Hi" not in answer.text


async def test_the_key_of_the_address_becomes_a_cookie(path: Path) -> None:
    async with ConversationLog.open(path, read_only=True) as log:
        browser = client(log)
        answer = await browser.get("/session", params={"id": ID, "key": KEY})
        assert answer.status_code == 303
        assert answer.headers["location"] == "/session?id=support%2F4711"
        assert "HttpOnly" in answer.headers["set-cookie"]
        assert (await browser.get("/")).status_code == 200


@pytest.mark.parametrize(
    ("headers", "method", "status"),
    [
        ({"host": "rebind.test"}, "GET", 421),
        ({"host": "127.0.0.1:9"}, "GET", 421),
        ({}, "POST", 405),
        ({}, "DELETE", 405),
        ({"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"}, "GET", 403),
        ({"sec-fetch-site": "same-site", "sec-fetch-dest": "iframe"}, "GET", 403),
    ],
)
async def test_requests_for_other_sites_are_refused(
    browser: httpx.AsyncClient, headers: dict[str, str], method: str, status: int
) -> None:
    answer = await browser.request(method, "/", headers=headers)
    assert answer.status_code == status


async def test_a_link_from_another_site_opens_the_page(browser: httpx.AsyncClient) -> None:
    headers = {
        "sec-fetch-site": "cross-site",
        "sec-fetch-mode": "navigate",
        "sec-fetch-dest": "document",
    }
    assert (await browser.get("/", headers=headers)).status_code == 200


async def test_every_answer_forbids_what_the_page_does_not_need(browser: httpx.AsyncClient) -> None:
    for address in ("/", "/session?id=nobody", "/item?position=2&index=0"):
        answer = await browser.get(address)
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cache-control"] == "no-store"
    page = (await browser.get("/")).text
    assert "style=" not in page
    found = re.findall(r'(?:href|src)="(/static/[^"]+)"', page)
    assert len(found) == 3
    for address in found:
        answer = await browser.get(address)
        assert answer.status_code == 200
        assert "immutable" in answer.headers["cache-control"]


async def test_tables_behind_the_log_are_a_page_that_says_what_to_run(path: Path) -> None:
    change(path, "UPDATE checkpoints SET position = 3")
    async with ConversationLog.open(path, read_only=True) as log:
        answer = await reader(log).get("/session", params={"id": ID})
        assert answer.status_code == 503
        assert "eventlog replay" in answer.text


async def test_sums_of_all_sessions_come_apart_from_their_list(tmp_path: Path) -> None:
    path = tmp_path / "spent.db"
    async with ConversationLog.open(path) as log:
        requests = [RequestUsage(total_tokens=1_500, model="m", cost_usd=0.25)]
        for number in range(3):
            await log.append(f"s{number}", UsageRecorded(run_id="r", turn=0, requests=requests))
    async with ConversationLog.open(path, read_only=True) as log:
        browser = reader(log)
        assert "/sessions/totals" in await text(browser, "/")
        assert "/sessions/totals" not in await text(browser, "/", user="nobody")
        sums = await text(browser, "/sessions/totals")
        assert "$0.75" in sums
        assert "4.5k" in sums
        assert "m $0.75" in sums


async def test_sessions_are_found_by_user_metadata_and_time(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    for number, plan in enumerate(("pro", "free")):
        async with AdvancedSQLiteSession(
            f"s{number}", path, user_id=f"u{number}", metadata={"plan": plan, "n": number}
        ) as session:
            await session.add_items([{"role": "user", "content": f"I am {number}"}])
    async with ConversationLog.open(path) as log:
        await log.delete_session("s1")
        browser = reader(log)

        async def listed(**query: Any) -> set[str]:
            return set(re.findall(r"/session\?id=(s\d)", await text(browser, "/", **query)))

        assert await listed() == {"s0"}
        assert await listed(deleted=1) == {"s1"}
        assert await listed(user="u0") == {"s0"}
        assert await listed(metadata="plan=pro") == {"s0"}
        assert await listed(metadata="plan=free") == set()
        assert await listed(metadata='{"n": 0}') == {"s0"}
        assert await listed(updated_after="2999-01-01") == set()
        assert await listed(updated_before="2999-01-01") == {"s0"}
        assert await listed(min_items=2) == set()
        assert await listed(q="I am 0") == {"s0"}
        assert await listed(order_by="created_at") == {"s0"}
        page = await text(browser, "/session", id="s1", v=2, branch="main")
        assert "deleted" in page


async def test_what_is_no_longer_proved_says_so(path: Path) -> None:
    tampered(path, "UPDATE events SET branch_id = 'x' WHERE position = 4")
    async with ConversationLog.open(path, read_only=True) as log:
        browser = reader(log)
        assert "not what was recorded" in await text(browser, "/health", prove=1)
        page = await text(browser, "/session", id=ID, branch="main")
        assert "not what was recorded" in page
        assert "position 4" in await text(browser, "/health")


async def test_a_visit_of_all_pages_changes_nothing_in_the_file(
    browser: httpx.AsyncClient, path: Path
) -> None:
    before = path.read_bytes()
    changed = path.stat().st_mtime_ns
    for address in EVERY_PAGE:
        await text(browser, address)
    assert path.read_bytes() == before
    assert path.stat().st_mtime_ns == changed


async def test_a_fork_links_its_source_and_the_source_its_forks(path: Path) -> None:
    async with ConversationLog.open(path) as log:
        await log.fork(ID, "first/fork", branch_id="draft")
        before = await log.version(ID)
        for number in range(10):
            await log.fork(ID, f"fork-{number}")
    async with ConversationLog.open(path, read_only=True) as log:
        browser = client(log, cookies={"eventlog_4780": KEY})
        fork = await text(browser, "/session", id="first/fork")
        assert f'Forked from <a href="/session?id={quote_plus(ID)}&amp;branch=draft">' in fork
        source = await text(browser, "/session", id=ID)
        assert '<a href="/session?id=fork-9">fork-9</a> of main' in source
        assert "first/fork" not in source
        assert "and 1 more</a>" in source
        then = await text(browser, "/session", id=ID, v=before)
        assert f"first/fork</a> of draft at v{before}" in then
        assert "fork-0" not in then


async def test_a_sealed_log_without_keys_says_which_variables_to_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("EVENTLOG_KEYS", raising=False)
    path, keys = tmp_path / "log.db", KeyFile(tmp_path / "keys.db", RootKey(generate_root_key()))
    async with AdvancedSQLiteSession("s", path, keys=keys) as session:
        await session.add_items([{"role": "user", "content": "hello"}])
        await session.create_branch("other")
        await session.add_items([{"role": "user", "content": "again"}])
    for given, is_told in ((None, True), (keys, False)):
        async with ConversationLog.open(path, read_only=True, keys=given) as log:
            browser = client(log, cookies={"eventlog_4780": KEY})
            page = await text(browser, "/session", id="s")
            assert ("EVENTLOG_KEYS" in page) is is_told
            compared = await text(browser, "/session/compare", id="s", a="main", b="other")
            assert ("user: content sealed" in compared) is is_told


async def test_the_page_of_a_session_says_when_it_expires_and_shows_its_past_until_it_is_erased(
    tmp_path: Path,
) -> None:
    async with ConversationLog.open(tmp_path / "log.db") as log:
        session = EventLogSession("s", log, expires_after=timedelta(days=1))
        await session.add_items([user("Where is my hat?")])
        expires_at = (await log.session("s"))["expires_at"]
        clock = log.store.clock
        for days in (0, 2):
            log.store.clock = lambda: clock() + days * 86_400_000_000  # noqa: B023
            page = (await reader(log).get("/session", params={"id": "s"})).text
            assert f"expiry {str(expires_at)[:16]} UTC" in page
            assert "Where is my hat?" in page
        await log.expire()
        page = (await reader(log).get("/session", params={"id": "s"})).text
        assert "Where is my hat?" not in page
        assert "expiry" not in page
