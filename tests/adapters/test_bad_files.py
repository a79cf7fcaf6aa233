"""Files that cannot be opened, or no longer written: a clear error, and nothing written or lost."""

from __future__ import annotations

import random
import shutil
import sqlite3
import stat
import subprocess
import sys
import tempfile
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from agents_eventlog import AdvancedSQLiteSession, ConversationLog
from agents_eventlog.eventlog import EventLog, errors
from tests.adapters import child
from tests.adapters.old_files import assert_sound, damage, execute, ours, rows
from tests.contract.items import turns, user

if TYPE_CHECKING:
    from collections.abc import Iterator

NOISE = random.Random(7).randbytes(20_000)

OPENINGS: dict[str, Any] = {
    "session": lambda path: AdvancedSQLiteSession("talk", path),
    "session without creating": lambda path: AdvancedSQLiteSession(
        "talk", path, create_tables=False
    ),
    "log": EventLog.open_sync,
    "log without creating": lambda path: EventLog.open_sync(path, create=False),
    "log for reading": lambda path: EventLog.open_sync(path, read_only=True),
}


@pytest.fixture(params=OPENINGS)
def open_it(request: pytest.FixtureRequest) -> Any:
    """Each way to open a file."""
    return OPENINGS[request.param]


@pytest.mark.parametrize(
    "uri",
    [
        "file:talk.db",
        "file:talk.db?mode=ro",
        "file::memory:?cache=shared",
        "File:///talk.db",
        "sqlite:///talk.db",
        "sqlite+aiosqlite:///talk.db",
        "mysql://host/talk",
    ],
)
def test_a_uri_is_refused_by_name_and_makes_no_file(
    uri: str, open_it: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for given in (uri, Path(uri)):
        with pytest.raises(errors.OpenError, match=r"invalid path '\w+.*got a URI"):
            open_it(given)
    assert list(tmp_path.iterdir()) == []


def test_a_file_whose_name_looks_like_a_uri_can_be_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    EventLog.open_sync("./file:talk.db").close()
    EventLog.open_sync(tmp_path / "file:talk.db", create=False).close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "talk.db"


@pytest.fixture
def public(request: pytest.FixtureRequest) -> Iterator[Path]:
    """A folder that everybody can reach, unlike those that pytest makes."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    folder.chmod(0o755)
    shutil.rmtree(folder)


def files(folder: Path) -> dict[str, bytes]:
    """Return what a folder holds, but for the files that SQLite needs beside one that it reads."""
    contents = {found.name: found.read_bytes() for found in folder.iterdir() if found.is_file()}
    return {
        name: content
        for name, content in contents.items()
        if not name.endswith("-shm") and not (name.endswith("-wal") and content == b"")
    }


def foreign(path: Path, *statements: str) -> None:
    execute(path, "CREATE TABLE notes (text)", "INSERT INTO notes VALUES ('mine')", *statements)


# -- what is no log ---------------------------------------------------------------------------


def test_a_folder_is_refused(tmp_path: Path, open_it: Any) -> None:
    with pytest.raises(errors.NotADatabaseError, match="is a folder, not a file") as caught:
        open_it(tmp_path)
    assert isinstance(caught.value, OSError)
    assert caught.value.path == str(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_folder_is_named_and_not_made(tmp_path: Path, open_it: Any) -> None:
    with pytest.raises(errors.OpenError, match=f"the folder {tmp_path}/missing does not exist"):
        open_it(tmp_path / "missing" / "talk.db")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "content", [b"xy", b"Dear diary,\n", b"SQLite format 2\0" * 300, NOISE, NOISE[:100]]
)
def test_a_file_that_is_no_database_is_refused(path: Path, open_it: Any, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(errors.NotADatabaseError, match="is not a SQLite database"):
        open_it(path)
    assert files(path.parent) == {path.name: content}


@pytest.mark.parametrize(
    "mark",
    [
        ("PRAGMA user_version=3",),
        ("PRAGMA application_id=252006673",),
        ("PRAGMA application_id=252006673", "DROP TABLE notes"),
    ],
)
def test_a_database_of_another_program_is_refused(
    path: Path, open_it: Any, mark: tuple[str, ...]
) -> None:
    foreign(path, *mark)
    if open_it is OPENINGS["session"] and "user_version" in mark[0]:
        pytest.skip("a session shares such a file")
    before = files(path.parent)
    with pytest.raises(errors.OpenError) as caught:
        open_it(path)
    # To whoever asked for no new log, a database without a log is just that.
    assert isinstance(caught.value, errors.ForeignFileError | errors.NoLogError)
    assert "another program" in str(caught.value) or "no event log" in str(caught.value)
    assert files(path.parent) == before


def test_a_log_does_not_claim_a_database_of_another_program(path: Path) -> None:
    foreign(path)
    before = files(path.parent)
    with pytest.raises(errors.ForeignFileError, match="tables of another program"):
        EventLog.open_sync(path)
    assert files(path.parent) == before


def test_a_file_of_a_newer_release_is_refused(path: Path, open_it: Any) -> None:
    ours(path).close()
    execute(path, "PRAGMA user_version=99")
    before = files(path.parent)
    with pytest.raises(errors.NewerFileError, match=r"schema version 99.*upgrade") as caught:
        open_it(path)
    assert (caught.value.found, caught.value.known) == (99, 2)
    assert files(path.parent) == before


@pytest.mark.parametrize("projection", ["conversations", "usage"])
@pytest.mark.parametrize("is_live", [False, True])
async def test_a_projection_of_a_newer_release_does_not_stop_a_session(
    path: Path, projection: str, is_live: bool
) -> None:
    session = ours(path)
    await session.add_items(turns("first"))
    if not is_live:
        session.close()
    execute(path, f"UPDATE checkpoints SET version = 99 WHERE projection = '{projection}'")
    before = rows(path, "SELECT * FROM items"), rows(path, "SELECT * FROM usage")
    session = session if is_live else ours(path)
    await session.add_items(turns("second"))
    assert await session.get_items() == turns("first", "second")
    table = {"conversations": "items", "usage": "usage"}[projection]
    assert rows(path, f"SELECT * FROM {table}") == before[table == "usage"]


async def test_a_read_only_program_says_which_projection_is_of_a_newer_release(path: Path) -> None:
    session = ours(path)
    await session.add_items(turns("first"))
    session.close()
    execute(path, "UPDATE checkpoints SET version = 99 WHERE projection = 'usage'")
    async with ConversationLog.open(path, read_only=True) as log:
        with pytest.raises(errors.NewerProjectionError, match=r"'usage' is at version 99.*upgrade"):
            await log.usage()


@pytest.mark.parametrize("way", ["session", "log"])
def test_after_a_refusal_the_path_is_free_for_a_new_log(path: Path, way: str) -> None:
    path.write_bytes(NOISE)
    with pytest.raises(errors.NotADatabaseError):
        OPENINGS[way](path)
    path.unlink()
    OPENINGS[way](path).close()
    assert rows(path, "SELECT COUNT(*) FROM events") == [(0,)]


@pytest.mark.parametrize(
    "way", ["session without creating", "log without creating", "log for reading"]
)
def test_what_is_not_to_be_made_is_not_made(path: Path, way: str) -> None:
    with pytest.raises(errors.NoLogError, match="no event log") as caught:
        OPENINGS[way](path)
    assert isinstance(caught.value, ValueError)
    assert files(path.parent) == {}


@pytest.mark.parametrize("word", ["ful", "FULL", "", None, 1])
def test_a_durability_that_there_is_not_is_refused(path: Path, word: Any) -> None:
    with pytest.raises(ValueError, match="invalid durability: expected 'full' or 'normal'"):
        AdvancedSQLiteSession("talk", path, durability=word)
    with pytest.raises(ValueError, match="invalid durability: expected 'full' or 'normal'"):
        EventLog.open_sync(path, durability=word)
    assert files(path.parent) == {}


# -- no right to write ------------------------------------------------------------------------


def test_a_read_only_file_is_refused_for_writing_and_opens_for_reading(public: Path) -> None:
    path = public / "talk.db"
    session = ours(path)
    session.close()
    path.chmod(0o444)
    before = files(public)
    outcome = child.run(
        """
        log = EventLog.open_sync(path, read_only=True)
        print(json.dumps([
            told(lambda: AdvancedSQLiteSession("talk", path)),
            told(lambda: EventLog.open_sync(path)),
            told(lambda: asyncio.run(log.head()).position),
        ]))
        """,
        path,
        as_nobody=True,
    )
    for refused in outcome[:2]:
        assert refused["error"] == "ReadOnlyFileError"
        assert "OSError" in refused["kinds"]
        assert str(path) in refused["message"]
    assert outcome[2] == {"value": 0}
    assert files(public) == before


def test_a_read_only_folder_is_refused_for_writing_and_opens_for_reading(public: Path) -> None:
    path = public / "talk.db"
    ours(path).close()
    path.chmod(0o666)
    public.chmod(0o555)
    before = files(public)
    outcome = child.run(
        """
        log = EventLog.open_sync(path, read_only=True)
        print(json.dumps([
            told(lambda: AdvancedSQLiteSession("talk", path)),
            told(lambda: AdvancedSQLiteSession("talk", path + ".new")),
            told(lambda: asyncio.run(log.head()).position),
        ]))
        """,
        path,
        as_nobody=True,
    )
    assert [refused["error"] for refused in outcome[:2]] == ["ReadOnlyFileError"] * 2
    assert outcome[2] == {"value": 0}
    assert files(public) == before


def test_a_file_that_may_not_be_read_is_refused(public: Path) -> None:
    path = public / "talk.db"
    ours(path).close()
    public.chmod(0o777)
    path.chmod(0o000)
    outcome = child.run(
        'print(json.dumps(told(lambda: AdvancedSQLiteSession("talk", path))))',
        path,
        as_nobody=True,
    )
    assert "OpenError" in outcome["kinds"]
    assert str(path) in outcome["message"]
    path.chmod(stat.S_IRUSR | stat.S_IWUSR)
    assert rows(path, "SELECT COUNT(*) FROM events") == [(0,)]


# -- no room, no disk -------------------------------------------------------------------------


async def test_a_file_that_may_not_grow_is_a_full_disk_and_keeps_what_it_has(path: Path) -> None:
    session = ours(path)
    await session.add_items(turns("first"))
    await session.log.write(
        lambda tx: tx.execute(f"PRAGMA max_page_count={tx.one('PRAGMA page_count')[0] + 2}")  # type: ignore[index]
    )
    with pytest.raises(errors.DiskFullError, match="the disk is full") as caught:
        await session.add_items([user("x" * 1_000_000)])
    assert isinstance(caught.value, OSError)
    assert await session.get_items() == turns("first")
    await session.add_items(turns("small"))
    await session.log.write(lambda tx: tx.execute("PRAGMA max_page_count=4294967294"))
    await session.add_items([user("y" * 1_000_000)])
    assert await session.get_items() == [*turns("first", "small"), user("y" * 1_000_000)]
    session.close()
    await assert_sound(path)


async def test_a_write_that_the_system_refuses_loses_nothing(public: Path) -> None:
    path = public / "talk.db"
    outcome = child.run(
        """
        session = AdvancedSQLiteSession("talk", path)
        add(session, "first")
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, limits[1]))
        refused = told(lambda: add(session, "x" * 1_000_000))
        still = contents(session)
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        add(session, "second")
        print(json.dumps([refused, still, contents(session)]))
        """,
        path,
    )
    assert outcome[0]["error"] in {"DiskError", "DiskFullError"}
    assert "OSError" in outcome[0]["kinds"]
    assert outcome[1:] == [["first"], ["first", "second"]]
    await assert_sound(path)


def can_mount() -> bool:
    """Tell whether a process may mount a disk that only it sees."""
    if sys.platform != "linux" or shutil.which("unshare") is None:
        return False
    tried = subprocess.run(
        ["unshare", "-m", "mount", "-t", "tmpfs", "none", tempfile.gettempdir()],
        capture_output=True,
        check=False,
    )
    return tried.returncode == 0


def test_a_full_disk_refuses_and_keeps_what_it_has(tmp_path: Path) -> None:
    if not can_mount():
        pytest.skip("this machine lets nobody mount a small disk")
    mount = 'mount -t tmpfs -o size=1m none "$0" && exec "$@"'
    outcome = child.run(
        """
        session = AdvancedSQLiteSession("talk", path)
        add(session, "first")
        filler = Path(path).with_name("filler")
        filler.write_bytes(b"x" * 400_000)
        refused = told(lambda: add(session, "x" * 1_000_000))
        still = contents(session)
        add(session, "small")
        session.close()
        fresh = told(lambda: AdvancedSQLiteSession("talk", path + ".new"))
        filler.unlink()
        session = AdvancedSQLiteSession("talk", path)
        add(session, "second")
        findings = asyncio.run(session.log.verify()).findings
        print(json.dumps([refused, still, contents(session), findings]))
        """,
        tmp_path / "talk.db",
        before=("unshare", "-m", "sh", "-c", mount, str(tmp_path)),
    )
    assert outcome[0]["error"] == "DiskFullError"
    assert "the disk is full" in outcome[0]["message"]
    assert outcome[1:] == [["first"], ["first", "small", "second"], []]


async def test_a_damaged_file_is_an_error_that_says_so(path: Path) -> None:
    session = ours(path)
    await session.add_items(turns(*(f"{turn} {'x' * 3_000}" for turn in range(50))))
    session.close()
    damage(path)
    with pytest.raises(errors.CorruptFileError, match="is damaged"):
        await ours(path).get_items()


def test_a_file_that_another_program_holds_is_busy(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours(path).close()
    monkeypatch.setattr(
        "agents_eventlog.eventlog.storage.sqlite.connections.BUSY_TIMEOUT_SECONDS", 0.1
    )
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(errors.BusyError, match="locked by another process") as caught:
            ours(path)
        assert isinstance(caught.value, TimeoutError)
        other.execute("ROLLBACK")
    ours(path).close()
