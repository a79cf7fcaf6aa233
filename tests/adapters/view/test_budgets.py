"""How much a page may hold, by counts and bytes, whatever the log holds."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from agents_eventlog import ConversationLog
from agents_eventlog.adapters.conversations import window
from agents_eventlog.adapters.view import rendering
from benchmarks.view import LONG, write
from tests.adapters.view.asking import reader, text

if TYPE_CHECKING:
    from pathlib import Path

PAGE_BYTES = 100_000
STATIC_BYTES = 30_000


@pytest.fixture
async def large(tmp_path: Path) -> Path:
    """A log with a session of 2,400 items and 120 other sessions."""
    path = tmp_path / "large.db"
    await write(path, items=2_400, sessions=120)
    return path


async def test_no_page_of_a_long_session_is_larger_than_its_budget(large: Path) -> None:
    async with ConversationLog.open(large, read_only=True) as log:
        browser = reader(log)
        for address in (
            "/",
            f"/session?id={LONG}&branch=main",
            f"/session?id={LONG}&branch=main&whole=1",
            f"/session?id={LONG}&branch=main&v=200",
            f"/session/window?id={LONG}&branch=main&around=100",
            f"/session/outline?id={LONG}&branch=main&from=1",
            f"/session/timeline?id={LONG}",
            f"/session/spend?id={LONG}&by=model",
            "/events",
            "/search?q=Question",
        ):
            page = await text(browser, address)
            assert len(page.encode()) <= PAGE_BYTES, address


def test_style_sheet_and_script_are_within_their_budget() -> None:
    assert sum(len(content) for content, _ in rendering.STATIC.values()) <= STATIC_BYTES


async def test_a_window_reads_no_more_events_when_the_session_is_longer(
    large: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []
    event_at = window.reader.event_at
    monkeypatch.setattr(
        window.reader,
        "event_at",
        lambda tx, position: read.append(position) or event_at(tx, position),
    )
    async with ConversationLog.open(large, read_only=True) as log:
        browser = reader(log)
        counts = []
        for around in (5, 150, 299):
            read.clear()
            await text(browser, "/session/window", id=LONG, branch="main", around=around)
            counts.append(len(read))
    assert max(counts) <= 40


async def test_sessions_come_in_pages_forth_and_back(large: Path) -> None:
    async with ConversationLog.open(large, read_only=True) as log:
        browser = reader(log)
        pages = [await text(browser, "/")]
        while (link := following(pages[-1], "next")) is not None:
            pages.append(await text(browser, link))
        assert [page.count("/session?id=") for page in pages] == [50, 50, 21]
        assert following(pages[0], "prev") is None
        back = pages[-1]
        for page in reversed(pages[:-1]):
            link = following(back, "prev")
            assert link is not None
            back = await text(browser, link)
            assert rows(back) == rows(page)


def following(page: str, rel: str) -> str | None:
    """Return the address of the next or the previous page."""
    for part in page.split("<a href=")[1:]:
        address, _, rest = part[1:].partition('"')
        if f'rel="{rel}"' in rest.partition(">")[0]:
            return address.replace("&amp;", "&")
    return None


def rows(page: str) -> list[str]:
    return [part.partition('"')[0] for part in page.split('<td><a href="')[1:]]
