"""Keys in a PostgreSQL database: the same store as a key file, for several machines."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from agents_eventlog import AdvancedSQLiteSession, EventLog
from agents_eventlog.adapters.cli.terminal import ExitCode
from agents_eventlog.eventlog import KeyDatabase, RootKey, generate_root_key
from agents_eventlog.eventlog.cipher.key_store import keys_of
from agents_eventlog.eventlog.cipher.keys import Destroyed, Key
from agents_eventlog.eventlog.errors import (
    ForeignFileError,
    KeyNotFoundError,
    KeysError,
    NewerFileError,
    OpenError,
    ShreddedError,
    StoreError,
    WrongKeyError,
)
from tests.adapters.looking import one, run
from tests.cipher.conftest import ROOT
from tests.postgres import raw

if TYPE_CHECKING:
    from pathlib import Path

    from tests.postgres import Server

LOG = bytes(range(16))
Session = AdvancedSQLiteSession
SAID: Any = [{"role": "user", "content": "Where is my hat?"}]


@pytest.fixture
def url(server: Server) -> str:
    """The URL of an empty schema."""
    return server.url()


def opened(url: str) -> KeyDatabase:
    """Return the keys as another process opens them."""
    return KeyDatabase(url, RootKey(ROOT), ahead=3)


@pytest.mark.parametrize("engine", ["sqlite", "postgres"])
async def test_a_log_is_sealed_with_keys_in_a_database(
    tmp_path: Path, server: Server, url: str, engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = str(tmp_path / "log.db") if engine == "sqlite" else server.url()
    monkeypatch.setenv("EVENTLOG_KEY", ROOT)
    session = Session("s", path, keys=url, user_id="ann")
    await session.add_items(SAID)
    session.close()
    session = Session("s", path, keys=opened(url), user_id="ann")
    assert await session.get_items() == SAID
    [key] = await session.log.query(lambda tx: tx.all("SELECT user_id FROM sessions"))
    assert "ann" not in key
    async with EventLog.open(path, read_only=True) as log:
        [event] = [each async for each in log.read(types=["items_added"])]
    assert opened(url).destroy([event.data[2:34]]) == 1
    with pytest.raises(ShreddedError):
        await session.get_items()
    session.close()
    with pytest.raises(WrongKeyError):
        Session("s", path, keys=KeyDatabase(url, RootKey(generate_root_key())))


def test_a_store_notices_that_others_have_written_and_not_that_it_has(url: str) -> None:
    first, second = opened(url), opened(url)
    assert not first.exists()
    with pytest.raises(KeyNotFoundError):
        first.log(LOG)
    first.register(LOG, 1)
    assert second.exists()
    seen = second.generation()
    assert second.generation() == seen
    _, [key, _] = first.take(LOG, 2, batch=0)
    assert isinstance(second.find([key.key_id])[key.key_id], Key)
    assert second.generation() > seen
    seen = first.generation()
    first.take(LOG, 1, batch=0)
    assert first.generation() == seen
    assert second.destroy([key.key_id]) == 1
    assert first.generation() > seen
    assert isinstance(first.find([key.key_id])[key.key_id], Destroyed)
    assert first.find([bytes(32)]) == {}


def test_no_two_processes_take_the_same_key(url: str) -> None:
    opened(url).register(LOG, 1)

    def take(_: int) -> list[bytes]:
        keys = opened(url)
        taken = [key.key_id for _ in range(5) for key in keys.take(LOG, 2, batch=0)[1]]
        keys.close()
        return taken

    with ThreadPoolExecutor(4) as threads:
        taken = [key for some in threads.map(take, range(4)) for key in some]
    assert len(set(taken)) == len(taken) == 40


def test_stores_that_are_created_at_once_are_one(url: str) -> None:
    def create(_: int) -> None:
        opened(url).create()

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(create, range(4)))
    with raw(url) as connection:
        assert connection.execute("SELECT COUNT(*) FROM epochs").fetchone() == (1,)


def test_a_connection_that_was_lost_between_two_uses_is_replaced(url: str) -> None:
    keys = opened(url)
    keys.register(LOG, 1)
    with raw(url) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
        )
    assert keys.log(LOG) is not None
    keys.close()
    assert keys.log(LOG) is not None


def test_errors_of_the_server_are_those_of_the_library(url: str) -> None:
    keys = opened(url)
    keys.register(LOG, 1)
    with raw(url) as connection:
        connection.execute("DROP TABLE keys")
    with pytest.raises(StoreError, match="PostgreSQL failed"):
        keys.find([bytes(32)])
    with raw(url) as connection:
        connection.execute("UPDATE key_changes SET version = 2")
    with pytest.raises(NewerFileError, match="upgrade"):
        opened(url).exists()
    with pytest.raises(OpenError, match="cannot connect"):
        KeyDatabase("postgresql://localhost:1/none").exists()


async def test_keys_are_not_put_among_other_tables(server: Server, url: str) -> None:
    path = server.url()
    with pytest.raises(KeysError, match="is the log itself"):
        Session("s", path, keys=KeyDatabase(path, RootKey(ROOT)))
    EventLog.open_sync(url).close()
    with pytest.raises(ForeignFileError, match="expected an empty schema"):
        opened(url).create()


FORKING = """
import os, sys
from agents_eventlog.eventlog import KeyDatabase, KeyFile, RootKey
path, root = sys.argv[1:]
keys = KeyFile(path) if path.endswith(".keys") else KeyDatabase(path, RootKey(root))
keys.register(bytes(16), 1)
child = os.fork()
if child == 0:
    links = [f"/proc/self/fd/{name}" for name in os.listdir("/proc/self/fd")]
    names = [os.readlink(link) for link in links if os.path.islink(link)]
    inherited = [name for name in names if name.startswith(("socket:", path))]
    os._exit(0 if not inherited and keys.log(bytes(16)) else 1)
assert os.waitpid(child, 0)[1] == 0
assert keys.log(bytes(16))
"""


@pytest.mark.parametrize("store", ["file", "database"])
def test_a_child_of_a_fork_opens_a_connection_of_its_own_even_if_no_log_was_ever_open(
    url: str, tmp_path: Path, store: str
) -> None:
    path = url if store == "database" else str(tmp_path / "log.keys")
    subprocess.run([sys.executable, "-c", FORKING, path, ROOT], check=True)


def test_the_command_creates_them_and_a_url_alone_needs_a_root_key(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("EVENTLOG_KEY", raising=False)
    with pytest.raises(KeysError, match="no root key for new ones"):
        keys_of(url)
    document = one(run("keys", "init", url, "--json"), "keys")
    assert run("keys", "init", url).exit_code == ExitCode.USAGE
    monkeypatch.setenv("EVENTLOG_KEY", document["root_key"])
    monkeypatch.setenv("EVENTLOG_KEYS", url)
    path = tmp_path / "log.db"
    assert run("init", path).exit_code == ExitCode.CLEAN
    log = EventLog.open_sync(path, read_only=True)
    cipher: Any = log.store.cipher
    assert cipher.where == document["path"]
    log.close()
