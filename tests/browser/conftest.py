"""
A browser and a server for the tests in this folder.

Every page of ``page`` fails its test on any script error, report of the content security policy, or request
to another server.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from agents_eventlog import ConversationLog
from agents_eventlog.adapters.view.app import create_app
from agents_eventlog.adapters.view.server import Server
from tests.adapters.view.conversation import talk

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CHROMIUM = shutil.which("chromium-headless-shell") or shutil.which("chromium")


# Not for the session: Playwright leaves an event loop running in its thread, which later tests of asyncio
# in the same process would find.
@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        if os.environ.get("EVENTLOG_REQUIRE_BROWSER"):
            pytest.fail("there is no Chromium: apt-get install chromium-headless-shell")
        pytest.skip("there is no Chromium: apt-get install chromium-headless-shell")
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-dev-shm-usage"]
        )
        yield started
        started.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A log with one conversation."""
    path = tmp_path / "log.db"
    write(path)
    return path


def write(path: Path) -> None:
    thread = threading.Thread(target=lambda: asyncio.run(talk(path)))
    thread.start()
    thread.join()


@pytest.fixture
def server(path: Path) -> Iterator[str]:
    """The address of a server of the pages over the log."""
    with serving(path) as address:
        yield address


@contextmanager
def serving(path: Path) -> Iterator[str]:
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    with_log: list[ConversationLog] = []

    def serve() -> None:
        log = ConversationLog.open_sync(path, create=False, read_only=True)
        with_log.append(log)
        hosts = [f"127.0.0.1:{port}", f"localhost:{port}"]
        app = create_app(log, hosts=hosts, key=None, cookie="eventlog")
        running.append(Server(app))
        running[0].run(sockets=[listener])
        log.close()

    running: list[Server] = []
    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        running[0].should_exit = True
        thread.join(20)


@pytest.fixture
def page(browser: Browser, server: str) -> Iterator[Page]:
    """A page whose addresses may leave out the server's."""
    context = browser.new_context(base_url=server)
    yield from watched(context, server)


def watched(context: BrowserContext, server: str) -> Iterator[Page]:
    problems: list[str] = []
    opened = context.new_page()
    opened.on("console", lambda message: problems.append(message.text))
    opened.on("pageerror", lambda error: problems.append(str(error)))
    opened.on(
        "request",
        lambda request: None if request.url.startswith(server) else problems.append(request.url),
    )
    yield opened
    context.close()
    assert problems == []
