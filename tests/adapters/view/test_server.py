"""The web server of the pages leaves nothing open behind it."""

from __future__ import annotations

import asyncio
import gc
import socket
import warnings
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.routing import Route

from agents_eventlog import ConversationLog
from agents_eventlog.adapters.view.app import create_app
from agents_eventlog.adapters.view.live import Live
from agents_eventlog.adapters.view.server import Server
from agents_eventlog.eventlog import ItemsAdded

if TYPE_CHECKING:
    from pathlib import Path

    import pytest
    from starlette.requests import Request
    from starlette.responses import Response


async def test_a_connection_that_comes_while_the_server_stops_is_closed(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    item: Any = {"role": "user", "content": "x"}
    async with ConversationLog.open(path) as log:
        await log.append("s", ItemsAdded(items=[item]), branch_id="main")
        server = Server(create_app(log, hosts=["127.0.0.1"], key=None, cookie="eventlog"))
        serving = asyncio.create_task(server.serve([socket.create_server(("127.0.0.1", 0))]))
        while not server.started:  # noqa: ASYNC110 - uvicorn has no event for it
            await asyncio.sleep(0.01)
        ours, browsers = socket.socketpair()
        with browsers:
            server.should_exit = True
            while server.servers[0].is_serving():  # noqa: ASYNC110 - the same
                await asyncio.sleep(0.001)

            def protocol() -> asyncio.Protocol:
                return server.config.http_protocol_class(  # type: ignore[call-arg]
                    config=server.config, server_state=server.server_state, app_state={}
                )

            transport, _ = await asyncio.get_running_loop().connect_accepted_socket(protocol, ours)
            await serving
            assert transport.is_closing()
            browsers.settimeout(5)
            assert browsers.recv(1) == b""


async def test_a_connection_accepted_in_the_step_in_which_the_server_stops_is_closed(
    tmp_path: Path,
) -> None:
    async with ConversationLog.open(tmp_path / "log.db") as log:
        server = Server(create_app(log, hosts=["127.0.0.1"], key=None, cookie="eventlog"))
        listener = socket.create_server(("127.0.0.1", 0))
        serving = asyncio.create_task(server.serve([listener]))
        while not server.started:  # noqa: ASYNC110 - uvicorn has no event for it
            await asyncio.sleep(0.01)
        with (
            warnings.catch_warnings(record=True, action="always") as unclosed,
            socket.create_connection(listener.getsockname()),
        ):
            await asyncio.sleep(
                0
            )  # to the step in which the loop has accepted, and nobody knows of it
            await server.shutdown()
            gc.collect()
        server.should_exit = True
        await serving
    assert [str(each.message) for each in unclosed] == []


async def test_a_server_that_stops_prints_nothing_about_the_pages_it_was_making(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    begun = asyncio.Event()

    async def slow(request: Request) -> Response:
        del request
        begun.set()
        await asyncio.sleep(60)
        raise AssertionError("the server did not stop")

    async with ConversationLog.open(tmp_path / "log.db") as log:
        app = Starlette(routes=[Route("/", slow)])
        app.state.live = Live(log)
        server = Server(app)
        listener = socket.create_server(("127.0.0.1", 0))
        serving = asyncio.create_task(server.serve([listener]))
        _, browser = await asyncio.open_connection(*listener.getsockname())
        browser.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        await begun.wait()
        server.should_exit = True
        await serving
        browser.close()
    assert capfd.readouterr() == ("", "")
