"""``eventlog view``: a server for this machine, which ends with Ctrl-C."""

from __future__ import annotations

import asyncio
import re
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from agents_eventlog import AdvancedSQLiteSession
from tests.adapters.view.conversation import PIXEL, talk

if TYPE_CHECKING:
    from pathlib import Path


def test_the_printed_address_shows_the_session_and_ctrl_c_ends_it(db: Path) -> None:
    command = [sys.executable, "-m", "agents_eventlog", "view", str(db), "--no-open", "--port", "0"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as ran:
        assert ran.stdout is not None
        found = re.match(r"(http://127\.0\.0\.1:\d+/)\?key=(\S{32})\n", ran.stdout.readline())
        assert found
        with httpx.Client(follow_redirects=True) as browser:
            assert browser.get(found[1]).status_code == 403
            page = browser.get(f"{found[1]}?key={found[2]}")
        assert page.status_code == 200
        assert "<h1>Sessions</h1>" in page.text
        assert "server" not in page.headers
        ran.send_signal(signal.SIGINT)
        _, errors = ran.communicate(timeout=30)
    assert ran.returncode == 130
    assert errors == ""


def test_the_demo_is_shown_without_a_file_and_a_stream_ends_with_the_server() -> None:
    command = [
        sys.executable,
        "-m",
        "agents_eventlog",
        "view",
        "--demo",
        "--no-open",
        "--port",
        "0",
    ]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as ran:
        assert ran.stdout is not None
        address = ran.stdout.readline().strip()
        with httpx.Client(follow_redirects=True) as browser:
            page = browser.get(address)
            assert "Oslo or Lisbon?" in page.text
            place = address.partition("?")[0]
            with browser.stream("GET", f"{place}session/live?id=demo&after=99") as stream:
                lines = stream.iter_lines()
                assert next(lines) == ": following"
                ran.send_signal(signal.SIGINT)
                assert [line for line in lines if line] == []  # it ends
        _, errors = ran.communicate(timeout=30)
    assert ran.returncode == 130
    assert errors == ""


def test_the_server_logs_nothing_of_what_was_said_or_searched(db: Path) -> None:
    command = [sys.executable, "-m", "agents_eventlog", "view", str(db), "--no-open", "--port", "0"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as ran:
        assert ran.stdout is not None
        address = ran.stdout.readline().strip()
        with httpx.Client(follow_redirects=True) as browser:
            browser.get(address)
            place = address.partition("?")[0]
            for page in ("session?id=support-42", "search?q=SECRET", "event?position=x", "nowhere"):
                browser.get(place + page)
        ran.send_signal(signal.SIGINT)
        printed, _ = ran.communicate(timeout=30)
    assert ran.returncode == 130
    assert printed.replace("Ctrl-C ends it.", "").strip() == ""


@pytest.mark.parametrize("arguments", [[], ["log.db", "--demo"]])
def test_a_file_or_the_demo_is_needed(command: Any, arguments: list[str]) -> None:
    done = command("view", *arguments, "--no-open")
    assert done.exit_code == 2
    assert "--demo" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--host", "0.0.0.0"], "EVENTLOG_VIEW_KEY"),
        (["--host", "0.0.0.0", "--no-key", "--allow-host", "x"], "EVENTLOG_VIEW_KEY"),
        (["nobody"], "nobody"),
    ],
)
def test_what_would_show_nothing_or_too_much_is_a_usage_error(
    command: Any, db: Path, arguments: list[str], words: str
) -> None:
    done = command("view", db, "--no-open", *arguments)
    assert done.exit_code == 2
    assert words in done.stderr
    assert done.stdout == ""


def test_a_short_key_is_refused(command: Any, db: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVENTLOG_VIEW_KEY", "short")
    done = command("view", db, "--no-open")
    assert done.exit_code == 2
    assert "at least 32 characters, got 5" in done.stderr


def test_a_port_that_is_taken_is_named(command: Any, db: Path) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = command("view", db, "--no-open", "--port", port)
    assert done.exit_code == 2
    assert f"port {port}" in done.stderr


def test_a_conversation_is_exported_as_one_page_without_scripts_or_addresses(
    command: Any, tmp_path: Path
) -> None:
    path, page = tmp_path / "log.db", tmp_path / "talk.html"
    asyncio.run(talk(path))
    assert command("export", path, "--format", "html", "--output", page).exit_code == 0
    html = page.read_text()
    assert html.startswith("<!doctype html>")
    assert html.endswith("</html>\n")
    for words in ("support/4711", "Sorry!", "Branch draft, from main", "another second question"):
        assert words in html
    assert html.count("Sorry!") == 1  # the branch shows what is its own
    assert "<script" not in html
    assert "http://evil.test" in html
    assert 'src="http' not in html
    assert not re.search(r"""(?:src|href)=["']/""", html)


def test_pictures_are_in_the_exported_page(command: Any, tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    picture = {"type": "input_image", "image_url": PIXEL}
    fake = {"type": "input_image", "image_url": "data:image/png;base64,AAAA"}
    item: Any = {"role": "user", "content": [picture, fake]}

    async def write() -> None:
        async with AdvancedSQLiteSession("s", path) as session:
            await session.add_items([item])

    asyncio.run(write())
    html = command("export", path, "--format", "html").stdout
    assert html.count("<img ") == 1
    assert "iVBORw0KGgo" in html
