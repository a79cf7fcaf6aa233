"""A PostgreSQL server for the tests: one for each process of pytest, in a temporary folder."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

REQUIRED = "EVENTLOG_REQUIRE_POSTGRES"
"""The environment variable that makes a missing server a failure instead of a skip."""


def programs() -> Path | None:
    """Return the folder of the server's programs; None if it is not installed."""
    configured = shutil.which("pg_config")
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    if configured is not None:
        run = subprocess.run([configured, "--bindir"], capture_output=True, text=True, check=True)
        folders.append(Path(run.stdout.strip()))
    return next((folder for folder in folders if (folder / "postgres").exists()), None)


def _user() -> str | None:
    """Return the user to run the server as: it refuses to run as root."""
    if os.geteuid() != 0:
        return None
    names = {entry.pw_name for entry in pwd.getpwall()}
    return "postgres" if "postgres" in names else "nobody"


class Server:
    """A running server, and how to stop, kill and start it again."""

    def __init__(self, bin_folder: Path, folder: Path) -> None:
        self._bin = bin_folder
        self.folder = folder
        self._user = _user()
        if self._user is not None:
            shutil.chown(folder, self._user)
        initdb = ["-D", str(folder / "data"), "-U", "eventlog", "-A", "trust", "-E", "UTF8"]
        self._run("initdb", *initdb, "--locale=C", "--no-sync")
        self._process: subprocess.Popen[bytes] | None = None

    def _run(self, program: str, *arguments: str) -> None:
        subprocess.run(
            [str(self._bin / program), *arguments],
            check=True,
            capture_output=True,
            user=self._user,
            cwd=self.folder,
        )

    def start(self, **settings: str) -> None:
        """Start it, and wait until it accepts connections."""
        chosen = {
            "listen_addresses": "",
            "unix_socket_directories": str(self.folder),
            "max_connections": "300",
            "fsync": "off",
            "autovacuum": "off",
            **settings,
        }
        options = [part for key, value in chosen.items() for part in ("-c", f"{key}={value}")]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [str(self._bin / "postgres"), "-D", str(self.folder / "data"), *options],
                stdout=log,
                stderr=log,
                user=self._user,
                cwd=self.folder,
            )
        deadline = time.monotonic() + 60
        while True:
            try:
                self._run("pg_isready", "-q", "-h", str(self.folder), "-U", "eventlog")
            except subprocess.CalledProcessError:
                if time.monotonic() > deadline or self._process.poll() is not None:
                    raise
                time.sleep(0.05)
            else:
                return

    def stop(self, mode: str = "immediate") -> None:
        """Stop it; "immediate" is a crash, without a checkpoint."""
        if self._process is not None:
            self._run("pg_ctl", "stop", "-D", str(self.folder / "data"), "-m", mode, "-w")
            self._process.wait(60)
            self._process = None

    def url(self, schema: str | None = None) -> str:
        """Return the URL of a log: a new one, or the one in this schema."""
        schema = f"log_{uuid.uuid4().hex}" if schema is None else schema
        host = quote(str(self.folder), safe="")
        return f"postgresql://eventlog@/postgres?host={host}&schema={schema}"


@contextmanager
def running(bin_folder: Path) -> Iterator[Server]:
    """Run a server in a temporary folder."""
    folder = Path(tempfile.mkdtemp(prefix="eventlog-postgres-"))
    try:
        server = Server(bin_folder, folder)
        server.start()
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def raw(url: str) -> Iterator[Any]:
    """Connect past the library."""
    import psycopg

    from agents_eventlog.eventlog.storage.postgres import dsn

    target = dsn.target(dsn.resolve(url))
    with psycopg.connect(
        target.conninfo, autocommit=True, options=f"-c search_path={target.schema}"
    ) as connection:
        yield connection


class Proxy:
    """Stands between a client and the server, and can cut the connection at a commit."""

    def __init__(self, server: Server, *, forward: bool) -> None:
        self._target = str(next(server.folder.glob(".s.PGSQL.*[0-9]")))
        self._forward = forward
        self.cut_next = False
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                upstream = socket.socket(socket.AF_UNIX)
                upstream.connect(self._target)
                threading.Thread(target=self._up, args=(client, upstream), daemon=True).start()
                threading.Thread(target=self._down, args=(upstream, client), daemon=True).start()

    def _up(self, client: socket.socket, upstream: socket.socket) -> None:
        with suppress(OSError):
            while data := client.recv(65536):
                if self.cut_next and b"COMMIT" in data:
                    self.cut_next = False
                    if self._forward:
                        upstream.sendall(data)
                    client.shutdown(socket.SHUT_RDWR)
                    client.close()
                    return
                upstream.sendall(data)
        upstream.close()

    def _down(self, upstream: socket.socket, client: socket.socket) -> None:
        with suppress(OSError):
            while data := upstream.recv(65536):
                client.sendall(data)
        with suppress(OSError):
            client.close()
            upstream.close()

    def close(self) -> None:
        """Accept no more."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
