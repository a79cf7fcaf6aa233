"""The file of keys: what it gives out, what it forgets, and what it says when it is not the right one."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import sqlite3
import stat
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from agents_eventlog.eventlog import Destroyed, Key, KeyFile, RootKey, generate_root_key
from agents_eventlog.eventlog.cipher import identity, root
from agents_eventlog.eventlog.cipher.key_store import keys_of
from agents_eventlog.eventlog.errors import (
    BusyError,
    ForeignFileError,
    KeyNotFoundError,
    KeysError,
    NewerFileError,
    NotADatabaseError,
    OpenError,
    ReadOnlyFileError,
    WrongKeyError,
)
from tests.cipher.conftest import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable

LOG = b"a log's own name"
OTHER = b"another log name"
GOLDEN_ROOT = "evk1aaaqeayeaudaocajbifqydiob4ibceqtcqkrmfyydenbwha5dypwgdonfe"


@pytest.fixture
def made(keys: KeyFile) -> KeyFile:
    """A file of keys that knows a log."""
    keys.register(LOG, 5)
    return keys


def wrapped_keys(keys: KeyFile, table: str) -> list[bytes]:
    with closing(sqlite3.connect(keys.path)) as connection:
        sql = f"SELECT wrapped FROM {table} WHERE wrapped IS NOT NULL"
        return [wrapped for (wrapped,) in connection.execute(sql)]


def change(keys: KeyFile, *statements: str) -> None:
    keys.close()
    with closing(sqlite3.connect(keys.path, isolation_level=None)) as connection:
        for statement in statements:
            connection.execute(statement)


# -- root keys --------------------------------------------------------------------------------


def test_a_root_key_is_text_with_a_name_and_a_check() -> None:
    text = generate_root_key()
    assert text.startswith("evk1")
    assert len(text) == 62
    assert RootKey(text).id == RootKey(f" {text.upper().replace('EVK1', 'evk1')}\n").id
    assert RootKey(text).id not in text
    assert text not in repr(RootKey(text))
    assert generate_root_key() != text


def test_what_is_printed_of_keys_is_their_path_alone(made: KeyFile) -> None:
    assert repr(made) == f"<KeyFile path={made.path!r}>"


def test_the_text_of_a_root_key_is_golden() -> None:
    assert root._text(bytes(range(32))) == GOLDEN_ROOT
    assert RootKey(GOLDEN_ROOT).id == "evk1:3491281118733c13"


@pytest.mark.parametrize("at", range(0, 62, 7))
def test_a_mistyped_root_key_is_found_before_anything_is_opened(at: int) -> None:
    letter = "b" if GOLDEN_ROOT[at] != "b" else "c"
    with pytest.raises(WrongKeyError, match="mistyped"):
        RootKey(GOLDEN_ROOT[:at] + letter + GOLDEN_ROOT[at + 1 :])


@pytest.mark.parametrize("text", ["", "evk1", GOLDEN_ROOT[:-1], GOLDEN_ROOT + "a", "password", "€"])
def test_a_root_key_that_is_cut_or_is_a_password_is_refused(text: str) -> None:
    with pytest.raises(WrongKeyError):
        RootKey(text)


def test_what_a_root_key_wraps_opens_in_its_context_only() -> None:
    key = RootKey(ROOT)
    wrapped = key.wrap(bytes(32), {"epoch": "1"})
    assert key.unwrap(wrapped, {"epoch": "1"}) == bytes(32)
    with pytest.raises(WrongKeyError):
        key.unwrap(wrapped, {"epoch": "2"})
    with pytest.raises(WrongKeyError):
        RootKey(generate_root_key()).unwrap(wrapped, {"epoch": "1"})


class Ring:
    """A root of the user's own: five lines."""

    id = "ring"

    def wrap(self, key: bytes, context: Any) -> bytes:
        return key[::-1] + repr(sorted(context.items())).encode()

    def unwrap(self, wrapped: bytes, context: Any) -> bytes:
        assert wrapped[32:] == repr(sorted(context.items())).encode()
        return wrapped[31::-1]


def test_a_root_can_be_a_class_of_the_users_own(tmp_path: Path) -> None:
    keys = KeyFile(tmp_path / "keys.db", Ring())
    keys.register(LOG, 1)
    _, [key, *_] = keys.take(LOG, 2, batch=0)
    again = KeyFile(tmp_path / "keys.db", Ring())
    assert again.find([key.key_id]) == {key.key_id: key}


# -- keys -------------------------------------------------------------------------------------


def test_what_is_kept_of_a_log_is_found_again(made: KeyFile, tmp_path: Path) -> None:
    kept = made.log(LOG)
    assert kept is not None
    assert kept.sealed_from == 5
    assert len(kept.index_key) == 32
    assert KeyFile(tmp_path / "keys.db", RootKey(ROOT)).log(LOG) == kept
    assert made.log(OTHER) is None
    assert kept.index_key.hex() not in repr(kept)


def test_a_key_is_given_out_once(made: KeyFile, tmp_path: Path) -> None:
    twin = KeyFile(tmp_path / "keys.db", RootKey(ROOT), ahead=3)
    taken = [key for store in (made, twin) * 3 for key in store.take(LOG, 4, batch=0)[1]]
    assert len({key.key_id for key in taken}) == len({key.secret for key in taken}) == 24
    assert all(identity.key_id(key.secret) == key.key_id for key in taken)
    assert taken[0].secret.hex() not in repr(taken[0])


def test_batches_are_counted(made: KeyFile) -> None:
    assert [made.take(LOG, 1, batch=0)[0] for _ in range(3)] == [1, 2, 3]


def test_a_copy_knows_the_keys_of_the_next_sessions(made: KeyFile, tmp_path: Path) -> None:
    made.close()
    shutil.copy(made.path, tmp_path / "copy.db")
    _, keys = made.take(LOG, 3, batch=0)
    copy = KeyFile(tmp_path / "copy.db", RootKey(ROOT), ahead=3)
    assert copy.find([key.key_id for key in keys]) == {key.key_id: key for key in keys}


def test_an_older_copy_never_gives_out_what_may_be_in_use(made: KeyFile, tmp_path: Path) -> None:
    made.close()
    shutil.copy(made.path, tmp_path / "copy.db")
    batch, used = made.take(LOG, 3, batch=0)
    copy = KeyFile(tmp_path / "copy.db", RootKey(ROOT), ahead=3)
    number, keys = copy.take(LOG, 3, batch=batch)
    assert number == 2
    assert not {key.key_id for key in keys} & {key.key_id for key in used}
    assert copy.find([key.key_id for key in used]).keys() == {key.key_id for key in used}


def test_a_destroyed_key_leaves_the_moment_and_not_a_byte(made: KeyFile, tmp_path: Path) -> None:
    _, [key, other] = made.take(LOG, 2, batch=0)
    made.close()
    with closing(sqlite3.connect(made.path)) as connection:
        sql = "SELECT wrapped FROM keys WHERE key_id = ?"
        (wrapped,) = connection.execute(sql, (key.key_id,)).fetchone()
    assert wrapped in (tmp_path / "keys.db").read_bytes()
    assert made.destroy([key.key_id, b"unknown"]) == 1
    found = made.find([key.key_id, other.key_id, b"unknown"])
    assert isinstance(found[key.key_id], Destroyed)
    assert found[other.key_id] == other
    assert b"unknown" not in found
    assert made.destroy([key.key_id]) == 0
    made.close()
    assert [file.name for file in tmp_path.iterdir()] == ["keys.db"]
    assert wrapped not in (tmp_path / "keys.db").read_bytes()


def test_another_process_sees_that_a_key_was_destroyed(made: KeyFile, tmp_path: Path) -> None:
    twin = KeyFile(tmp_path / "keys.db", RootKey(ROOT))
    _, [key] = made.take(LOG, 1, batch=0)
    before = twin.generation(), made.generation()
    assert (twin.generation(), made.generation()) == before
    twin.destroy([key.key_id])
    assert made.generation() != before[1]
    assert twin.generation() != before[0]
    assert made.generation() == made.generation()


def test_a_key_file_says_nothing_of_sessions_and_little_of_keys(made: KeyFile) -> None:
    made.close()
    with closing(sqlite3.connect(made.path)) as connection:
        columns = {
            row[1]
            for table in ("epochs", "keys", "logs")
            for row in connection.execute(f"PRAGMA table_info({table})")
        }
    assert columns == {
        *("epoch", "root_id", "wrapped", "created_at"),
        *("key_id", "log_id", "taken_at", "destroyed_at"),
        *("sealed_from", "index_key", "batches"),
    }


def test_only_its_owner_can_read_a_key_file(made: KeyFile, tmp_path: Path) -> None:
    assert stat.S_IMODE((tmp_path / "keys.db").stat().st_mode) == 0o600
    with closing(sqlite3.connect(made.path)) as connection:
        assert connection.execute("PRAGMA application_id").fetchone() == (0x65766C6B,)
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("delete",)


def test_without_a_root_the_file_is_the_secret(tmp_path: Path) -> None:
    keys = KeyFile(tmp_path / "keys.db")
    keys.register(LOG, 1)
    _, [key] = keys.take(LOG, 1, batch=0)
    for twin in (KeyFile(tmp_path / "keys.db"), KeyFile(tmp_path / "keys.db", RootKey(ROOT))):
        assert twin.find([key.key_id]) == {key.key_id: key}


# -- the wrong file ---------------------------------------------------------------------------


def test_another_root_key_is_named_as_such(made: KeyFile, tmp_path: Path) -> None:
    other = KeyFile(tmp_path / "keys.db", RootKey(generate_root_key()))
    with pytest.raises(WrongKeyError, match=RootKey(ROOT).id):
        other.log(LOG)
    with pytest.raises(KeysError, match="EVENTLOG_KEY") as caught:
        KeyFile(tmp_path / "keys.db").log(LOG)
    assert type(caught.value) is KeysError


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE keys SET key_id = randomblob(32)",
        "UPDATE keys SET log_id = x'00'",
        "UPDATE keys SET wrapped = randomblob(60)",
        "UPDATE epochs SET wrapped = randomblob(60)",
        "UPDATE epochs SET epoch = 2",
        "DELETE FROM epochs",
    ],
)
def test_a_changed_key_file_gives_no_key(made: KeyFile, statement: str) -> None:
    made.take(LOG, 1, batch=0)
    change(made, statement)
    made.generation()
    with closing(sqlite3.connect(made.path)) as connection:
        ids = [key_id for (key_id,) in connection.execute("SELECT key_id FROM keys")]
    with pytest.raises((WrongKeyError, KeyNotFoundError)):
        made.find(ids)


def test_a_changed_index_key_is_not_used(made: KeyFile) -> None:
    change(made, "UPDATE logs SET index_key = randomblob(60)")
    with pytest.raises(WrongKeyError, match="index key"):
        made.log(LOG)


def test_keys_of_another_log_are_not_given_out(made: KeyFile) -> None:
    with pytest.raises(KeyNotFoundError, match="no keys of this log"):
        made.take(OTHER, 1, batch=0)


@pytest.mark.parametrize(
    "use",
    [
        lambda keys: keys.log(LOG),
        lambda keys: keys.take(LOG, 1, batch=0),
        lambda keys: keys.find([b"x"]),
        lambda keys: keys.destroy([b"x"]),
    ],
)
def test_a_missing_key_file_is_not_created_by_looking(
    keys: KeyFile, tmp_path: Path, use: Callable[[KeyFile], Any]
) -> None:
    with pytest.raises(KeyNotFoundError, match="no keys at"):
        use(keys)
    assert list(tmp_path.iterdir()) == []


def test_other_files_are_refused(keys: KeyFile, tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "keys.db")) as connection:
        connection.execute("PRAGMA application_id=7")
        connection.execute("CREATE TABLE notes (text)")
    for use in (lambda: keys.log(LOG), lambda: keys.register(LOG, 1)):
        with pytest.raises(ForeignFileError):
            use()
    (tmp_path / "keys.db").write_bytes(b"not a database, certainly not" * 100)
    with pytest.raises(NotADatabaseError):
        keys.log(LOG)


@pytest.mark.parametrize(
    ("name", "why"),
    [("none such/keys.db", "the folder .* does not exist"), ("n" * 300, "cannot be created")],
)
def test_a_key_file_that_cannot_be_created_says_why(tmp_path: Path, name: str, why: str) -> None:
    with pytest.raises(OpenError, match=why):
        KeyFile(tmp_path / name).create()


def test_a_key_file_that_is_taken_away_meanwhile_is_missed_and_not_created_anew(
    made: KeyFile,
) -> None:
    _, [key] = made.take(LOG, 1, batch=0)
    made.generation()
    away = Path(made.path).rename(f"{made.path}.away")
    with pytest.raises(KeyNotFoundError):
        made.find([key.key_id])
    made.close()
    with pytest.raises(OpenError, match="does not exist"):
        made.generation()
    assert not Path(made.path).exists()
    away.rename(made.path)
    made.generation()
    assert made.find([key.key_id]) == {key.key_id: key}


def test_a_key_file_of_a_newer_release_is_refused(made: KeyFile) -> None:
    change(made, "PRAGMA user_version=9")
    with pytest.raises(NewerFileError):
        made.log(LOG)


def test_a_busy_key_file_is_waited_for(made: KeyFile, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "agents_eventlog.eventlog.storage.sqlite.connections.BUSY_TIMEOUT_SECONDS", 0.05
    )
    made.close()
    with closing(sqlite3.connect(made.path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(BusyError):
            made.take(LOG, 1, batch=0)
    assert made.take(LOG, 1, batch=0)[0] == 1


def test_a_key_file_that_cannot_be_written_still_opens_what_is_there(made: KeyFile) -> None:
    _, [key] = made.take(LOG, 1, batch=0)
    change(made)
    Path(made.path).chmod(0o400)
    with closing(sqlite3.connect(f"file:{made.path}?mode=ro", uri=True)):
        assert made.find([key.key_id]) == {key.key_id: key}
    if os.geteuid() != 0:
        with pytest.raises(ReadOnlyFileError):
            made.take(LOG, 1, batch=0)


def test_a_full_disk_under_the_key_file_gives_out_nothing(made: KeyFile) -> None:
    def fail(*_: Any) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    with made._storage.writing() as tx:
        tx.execute("PRAGMA max_page_count=1")
    before = made.take(LOG, 1, batch=0)[0]
    with pytest.raises(Exception, match="disk is full"):
        made.take(LOG, 5_000, batch=0)
    assert made.take(LOG, 1, batch=0)[0] == before + 1


# -- which file -------------------------------------------------------------------------------


def test_a_path_means_the_file_with_the_root_key_of_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert keys_of(None) is None
    monkeypatch.setenv("EVENTLOG_KEY", ROOT)
    there = keys_of(tmp_path / "keys.db")
    assert there == KeyFile(tmp_path / "keys.db", RootKey(ROOT))
    assert there != KeyFile(tmp_path / "keys.db", RootKey(generate_root_key()))
    assert there != KeyFile(tmp_path / "others.db", RootKey(ROOT))
    assert hash(there) == hash(keys_of(str(tmp_path / "keys.db")))
    monkeypatch.setenv("EVENTLOG_KEYS", str(tmp_path / "keys.db"))
    assert keys_of(None) == there
    own: Any = object()
    assert keys_of(own) is own


def test_a_new_file_without_a_root_key_must_be_meant(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("EVENTLOG_KEY", raising=False)
    with pytest.raises(KeysError, match="eventlog keys init"):
        keys_of(tmp_path / "keys.db")
    KeyFile(tmp_path / "keys.db").register(LOG, 1)
    there = keys_of(tmp_path / "keys.db")
    assert there is not None
    assert there.log(LOG) is not None


def test_a_mistyped_root_key_in_the_environment_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EVENTLOG_KEY", ROOT[:-1])
    with pytest.raises(WrongKeyError):
        keys_of(tmp_path / "keys.db")


# -- processes --------------------------------------------------------------------------------


def _take(path: str, count: int, results: Any) -> None:
    keys = KeyFile(path, RootKey(ROOT), ahead=3)
    results.put([key.key_id for _ in range(count) for key in keys.take(LOG, 3, batch=0)[1]])


def test_processes_never_take_the_same_key(made: KeyFile) -> None:
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    workers = [context.Process(target=_take, args=(made.path, 5, results)) for _ in range(3)]
    for worker in workers:
        worker.start()
    taken = [key_id for _ in workers for key_id in results.get(timeout=60)]
    for worker in workers:
        worker.join()
    assert len(taken) == len(set(taken)) == 45


def test_keys_are_equal_by_value() -> None:
    assert Key(b"a", b"b") == Key(b"a", b"b")


# -- rotation ---------------------------------------------------------------------------------


def test_rotation_keeps_every_key_and_drops_the_one_that_wrapped_them(
    made: KeyFile, tmp_path: Path
) -> None:
    _, [first, second, _] = made.take(LOG, 3, batch=0)
    made.destroy([second.key_id])
    kept = made.log(LOG)
    before = [*wrapped_keys(made, "epochs"), *wrapped_keys(made, "keys")]
    living = sum(epoch.keys for epoch in made.epochs())
    assert made.rotate() == living
    assert [(epoch.epoch, epoch.keys) for epoch in made.epochs()] == [(2, living)]
    for keys in (made, KeyFile(made.path, RootKey(ROOT))):
        assert keys.log(LOG) == kept
        assert keys.find([first.key_id])[first.key_id] == first
        assert isinstance(keys.find([second.key_id])[second.key_id], Destroyed)
    made.close()
    for file in tmp_path.iterdir():
        assert not any(wrapped in file.read_bytes() for wrapped in before)


def test_another_process_goes_on_after_a_rotation_with_the_same_root_key(made: KeyFile) -> None:
    other = KeyFile(made.path, RootKey(ROOT), ahead=3)
    _, [key] = other.take(LOG, 1, batch=0)
    made.rotate()
    other.generation()
    assert other.find([key.key_id])[key.key_id] == key
    assert len(other.take(LOG, 2, batch=1)[1]) == 2


def test_a_rotation_that_fails_changes_nothing(made: KeyFile) -> None:
    _, [key] = made.take(LOG, 1, batch=0)

    class Broken:
        id = "broken"

        def wrap(self, key: bytes, context: Any) -> bytes:
            raise OSError("the service is away")

        def unwrap(self, wrapped: bytes, context: Any) -> bytes:
            raise AssertionError

    with pytest.raises(OSError, match="away"):
        made.rotate(Broken())
    with pytest.raises(WrongKeyError):
        KeyFile(made.path, RootKey(generate_root_key())).rotate()
    assert [epoch.epoch for epoch in made.epochs()] == [1]
    assert made.find([key.key_id])[key.key_id] == key


def test_a_file_without_a_root_gets_one_by_rotation(tmp_path: Path) -> None:
    keys = KeyFile(tmp_path / "keys.db", ahead=3)
    keys.register(LOG, 1)
    root = RootKey(generate_root_key())
    keys.rotate(root)
    assert [epoch.root_id for epoch in keys.epochs()] == [root.id]
    with pytest.raises(KeysError):
        KeyFile(keys.path).log(LOG)
    assert KeyFile(keys.path, root).log(LOG) == keys.log(LOG)


def test_what_a_key_file_has_is_counted_without_a_root_key(made: KeyFile) -> None:
    _, keys = made.take(LOG, 2, batch=0)
    made.destroy([keys[0].key_id])
    closed = KeyFile(made.path)
    assert [counts[2:] for counts in closed.logs()] == [(3, 1, 1)]
    found = closed.destroyed_at([*(key.key_id for key in keys), b"unknown"])
    assert found.keys() == {key.key_id for key in keys}
    assert [at is None for at in found.values()] == [False, True]
