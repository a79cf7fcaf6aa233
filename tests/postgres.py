"""A PostgreSQL server for the tests: one for each process of pytest, in a temporary folder."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final
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
        self.take(folder)
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

    def kill(self) -> None:
        """End all of the server's processes as the kernel does that is out of memory: with SIGKILL."""
        if self._process is not None:
            children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children")
            for pid in (self._process.pid, *map(int, children.read_text().split())):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self._process.wait(60)
            self._process = None

    def standby(self, folder: Path) -> Server:
        """Return a replica, not started yet, that streams from this server."""
        replica = Server.__new__(Server)
        replica._bin, replica.folder, replica._user = self._bin, folder, self._user
        replica._process = None
        self.take(folder)
        source = f"host={self.folder} user=eventlog application_name=standby"
        self._run("pg_basebackup", "-D", str(folder / "data"), "-R", "-d", source, "-c", "fast")
        return replica

    def take(self, folder: Path) -> None:
        """Let the server's user own a folder."""
        if self._user is not None:
            shutil.chown(folder, self._user)

    def promote(self) -> None:
        """Let a replica become a server that accepts writes."""
        self._run("pg_ctl", "promote", "-D", str(self.folder / "data"), "-w")

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
    """
    Stands between a client and the server, and can cut the connection.

    cut_next: cut at the next COMMIT; ``forward`` says whether the server still gets it.
    cut_after: cut when so many more messages have passed, in either direction.
    """

    def __init__(self, server: Server, *, forward: bool = False) -> None:
        self._target = str(next(server.folder.glob(".s.PGSQL.*[0-9]")))
        self._forward = forward
        self._lock = threading.Lock()
        self.cut_next = False
        self.cut_after: int | None = None
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def url(self, server: Server, schema: str) -> str:
        """Return the URL of a log behind the proxy."""
        return (
            f"postgresql://eventlog@127.0.0.1:{self.port}/postgres?schema={schema}&sslmode=disable"
        )

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
            messages = _messages(client, is_client=True)
            for number, message in enumerate(messages):
                if self.cut_next and b"COMMIT" in message:
                    self.cut_next = False
                    if self._forward:
                        client.shutdown(socket.SHUT_WR)  # before the server can answer
                        # With what follows it, up to the message at which the server answers.
                        upstream.sendall(message)
                        for rest in messages:
                            upstream.sendall(rest)
                            if rest[:1] == b"S":
                                break
                    with suppress(OSError):  # the other thread may have closed it
                        client.shutdown(socket.SHUT_RDWR)
                    client.close()
                    return
                if number and self._is_last():
                    client.shutdown(socket.SHUT_RDWR)
                    break
                upstream.sendall(message)
        with suppress(OSError):
            upstream.shutdown(socket.SHUT_RDWR)  # closing would not wake the other thread
        upstream.close()

    def _down(self, upstream: socket.socket, client: socket.socket) -> None:
        with suppress(OSError):
            for message in _messages(upstream, is_client=False):
                if self._is_last():
                    break
                client.sendall(message)
        with suppress(OSError):
            client.shutdown(socket.SHUT_RDWR)
        client.close()
        upstream.close()

    def _is_last(self) -> bool:
        with self._lock:
            if self.cut_after is None:
                return False
            self.cut_after = self.cut_after - 1 if self.cut_after else None
            return self.cut_after is None

    def close(self) -> None:
        """Accept no more."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


def _messages(source: socket.socket, *, is_client: bool) -> Iterator[bytes]:
    """Yield the protocol's messages; a client's first one has no type."""
    received = b""
    type_bytes = 0 if is_client else 1
    while True:
        while len(received) < type_bytes + 4 or len(received) < (
            size := type_bytes + int.from_bytes(received[type_bytes : type_bytes + 4], "big")
        ):
            if not (data := source.recv(65536)):
                return
            received += data
        yield received[:size]
        received = received[size:]
        type_bytes = 1


POOLER: Final = "pgbouncer"


class Pooler:
    """PgBouncer in transaction mode, before a server: a connection serves a client for one transaction."""

    def __init__(
        self, server: Server, folder: Path, *, connections: int, ignores: str = "extra_float_digits"
    ) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        users = folder / "users"
        users.write_text('"eventlog" ""\n')
        settings = folder / "pgbouncer.ini"
        settings.write_text(
            f"[databases]\npostgres = host={server.folder} user=eventlog\n"
            "[pgbouncer]\n"
            f"listen_addr = 127.0.0.1\nlisten_port = {self.port}\nunix_socket_dir =\n"
            f"auth_type = trust\nauth_file = {users}\n"
            f"pool_mode = transaction\ndefault_pool_size = {connections}\n"
            f"server_login_retry = 0.2\nignore_startup_parameters = {ignores}\n"
        )
        server.take(folder)
        self._command = [POOLER, "-q", str(settings)]
        self._user = _user()
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and wait until it accepts connections."""
        self._process = subprocess.Popen(
            self._command,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            user=self._user,
        )
        deadline = time.monotonic() + 30
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port)).close()
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.02)
            else:
                return

    def kill(self) -> None:
        """End it with SIGKILL."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(30)
            self._process = None

    def url(self, schema: str | None = None) -> str:
        """Return the URL of a log behind it: a new one, or the one in this schema."""
        schema = f"log_{uuid.uuid4().hex}" if schema is None else schema
        address = f"eventlog@127.0.0.1:{self.port}/postgres"
        return f"postgresql://{address}?schema={schema}&pooling=transaction&sslmode=disable"


@contextmanager
def pooling(
    server: Server, *, connections: int, ignores: str = "extra_float_digits"
) -> Iterator[Pooler]:
    """Run PgBouncer before a server, with this number of connections to it; it ignores these settings."""
    folder = Path(tempfile.mkdtemp(prefix="eventlog-pooler-"))
    pooler = Pooler(server, folder, connections=connections, ignores=ignores)
    try:
        pooler.start()
        yield pooler
    finally:
        pooler.kill()
        shutil.rmtree(folder, ignore_errors=True)
