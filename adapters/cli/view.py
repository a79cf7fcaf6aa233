"""``eventlog view``: a page to look at conversations, served on this machine."""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
import tempfile
import webbrowser
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Final

from rich.text import Text

from agents_eventlog.adapters.cli import terminal
from agents_eventlog.adapters.view.app import create_app
from agents_eventlog.adapters.view.rendering import url
from agents_eventlog.adapters.view.server import Server

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

PORT: Final = 4780
PORTS_TRIED: Final = 20
KEY_BYTES: Final = 24
LEAST_KEY_CHARACTERS: Final = 32
KEY_VARIABLE: Final = "EVENTLOG_VIEW_KEY"
LOOPBACK: Final = ("127.0.0.1", "::1", "localhost")


def run(
    path: Path | None,
    session_id: str | None,
    *,
    host: str,
    port: int | None,
    allowed: Sequence[str],
    with_key: bool,
    opens: bool,
    shows_demo: bool = False,
) -> None:
    """Serve the pages until Ctrl-C. Raises an EventLogError."""
    if (path is None) != shows_demo:
        terminal.fail(terminal.ExitCode.USAGE, "expected a log file, or --demo without one")
    key = _key(host, allowed, with_key=with_key)
    with _demo_file() if path is None else nullcontext(path) as file:
        _serve(file, session_id, host, port, allowed, key, opens=opens)


@contextmanager
def _demo_file() -> Iterator[Path]:
    """Yield a file with the demo's conversation, which is deleted at the end."""
    from agents_eventlog.adapters.cli.demo import command as demo

    with tempfile.TemporaryDirectory(prefix="eventlog-demo-") as folder:
        path = Path(folder) / "conversations.db"
        demo.write(path)
        yield path


def _serve(
    path: Path,
    session_id: str | None,
    host: str,
    port: int | None,
    allowed: Sequence[str],
    key: str | None,
    *,
    opens: bool,
) -> None:
    with terminal.conversations(path, read_only=True) as log:
        session_id = terminal.session_of(log, session_id)
        listener = _listen(host, port)
        number = listener.getsockname()[1]
        names = {*LOOPBACK[:1], "localhost", "[::1]", _bracketed(host), *allowed}
        app = create_app(
            log,
            hosts={f"{name}:{number}" for name in names},
            key=key,
            cookie=f"eventlog_{number}",
        )
        page = "/" if session_id is None else "/session"
        query = {"id": session_id, "key": key}
        address = f"http://{_bracketed(host)}:{number}{url(page, **query)}"
        terminal.console().print(Text(f"{address}\nCtrl-C ends it."), soft_wrap=True)
        if opens:
            webbrowser.open(address)
        asyncio.run(Server(app).serve(sockets=[listener]))


def _key(host: str, allowed: Sequence[str], *, with_key: bool) -> str | None:
    """Return the key of this run. Exits with USAGE where the network could read without one."""
    given = os.environ.get(KEY_VARIABLE)
    is_local = host in LOOPBACK
    if given is not None and len(given) < LEAST_KEY_CHARACTERS:
        terminal.fail(
            terminal.ExitCode.USAGE,
            f"{KEY_VARIABLE} is too short: expected at least {LEAST_KEY_CHARACTERS} characters, "
            f"got {len(given)}",
        )
    if not is_local and (given is None or not allowed or not with_key):
        terminal.fail(
            terminal.ExitCode.USAGE,
            f"--host {host} lets other machines read the log, without encryption on the way: set "
            f"{KEY_VARIABLE} to {LEAST_KEY_CHARACTERS} characters or more and pass --allow-host NAME, "
            "or use `ssh -L`",
        )
    if not with_key:
        return None
    return secrets.token_urlsafe(KEY_BYTES) if given is None else given


def _listen(host: str, port: int | None) -> socket.socket:
    """Return a socket that listens on a port, by default the first free one of the usual ones."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for number in (port,) if port is not None else range(PORT, PORT + PORTS_TRIED):
        try:
            return socket.create_server((host, number), family=family)
        except OSError as error:
            last = error
    what = f"port {port}" if port is not None else f"the ports {PORT} to {PORT + PORTS_TRIED - 1}"
    return terminal.fail(
        terminal.ExitCode.USAGE, f"cannot listen on {what} of {host}: {last.strerror}; pass --port"
    )


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
