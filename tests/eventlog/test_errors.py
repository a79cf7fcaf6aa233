"""The tree of errors: as it is drawn, each one provoked through the public API, and no payload in it."""

from __future__ import annotations

import copy
import inspect
import pickle
import re
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
from agents import RunContextWrapper

from agents_eventlog import (
    AdvancedSQLiteSession,
    Budget,
    ConversationLog,
    EventLogSession,
    KeyFile,
    RootKey,
    eventlog,
    projections,
)
from agents_eventlog.eventlog import EventLog, ItemsAdded, copying, errors
from agents_eventlog.eventlog.jsonl.import_ import import_lines
from agents_eventlog.eventlog.storage.postgres import connections as postgres
from tests.adapters.old_files import damage

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SECRET = "the user's secret words"
LINE = re.compile(r"^    (?P<rails>[│├└─ ]*)(?P<name>\w+Error)(?: \((?P<builtin>\w+)\))?")

CLASSES = {
    name: kind
    for name, kind in vars(errors).items()
    if inspect.isclass(kind) and issubclass(kind, errors.EventLogError)
}
LEAVES = {name for name, kind in CLASSES.items() if not kind.__subclasses__()}


def drawn() -> dict[str, tuple[str | None, str | None]]:
    """Read the tree out of the docstring: for each class its parent and the builtin beside it."""
    found: dict[str, tuple[str | None, str | None]] = {}
    path: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        if match := LINE.match(line):
            depth = len(match["rails"]) // 4
            path[depth:] = [match["name"]]
            found[match["name"]] = (path[depth - 1] if depth else None, match["builtin"])
    return found


def told(error: BaseException) -> str:
    return f"{error!s} {error!r} {error.args} {vars(error)}"


# -- provoking each of them -------------------------------------------------------------------

PROVOKED: dict[str, Any] = {}


def provokes(name: str) -> Callable[[Any], Any]:
    def mark(function: Any) -> Any:
        assert name not in PROVOKED
        PROVOKED[name] = function
        return function

    return mark


def item(text: str = SECRET) -> Any:
    return {"role": "user", "content": text}


async def session_with_secret(path: Path) -> AdvancedSQLiteSession:
    session = AdvancedSQLiteSession("talk", path)
    await session.add_items([item()])
    return session


def change(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for statement in statements:
            connection.execute(statement)


@provokes("NotADatabaseError")
async def folder(path: Path) -> None:
    await EventLog.open(path.parent)


@provokes("ForeignFileError")
async def foreign(path: Path) -> None:
    change(path, "CREATE TABLE notes (text)", f'INSERT INTO notes VALUES ("{SECRET}")')
    await EventLog.open(path)


@provokes("NoLogError")
async def missing(path: Path) -> None:
    await EventLog.open(path, create=False)


@provokes("WrongTablesError")
async def wrong_tables(path: Path) -> None:
    await session_with_secret(path)
    AdvancedSQLiteSession("talk", path, messages_table="others")


@provokes("NewerFileError")
async def newer_file(path: Path) -> None:
    (await session_with_secret(path)).close()
    change(path, "PRAGMA user_version=99")
    await EventLog.open(path)


@provokes("ReadOnlyFileError")
async def read_only(path: Path) -> None:
    (await session_with_secret(path)).close()
    log = await EventLog.open(path, read_only=True)
    await log.append("talk", ItemsAdded(items=[item()]))


@provokes("BusyError")
async def busy(path: Path) -> None:
    session = await session_with_secret(path)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        await session.add_items([item()])


@provokes("DiskFullError")
async def disk_full(path: Path) -> None:
    session = await session_with_secret(path)
    await session.log.write(lambda tx: tx.execute("PRAGMA max_page_count=1"))
    await session.add_items([item(SECRET * 100_000)])


@provokes("UnknownOutcomeError")
async def lost_in_a_commit(path: Path) -> None:
    raise postgres.translated(postgres.LostCommitError(SECRET), str(path))


@provokes("CorruptFileError")
async def corrupt(path: Path) -> None:
    session = AdvancedSQLiteSession("talk", path)
    await session.add_items([item(SECRET * 1_000)] * 50)
    session.close()
    damage(path)
    await AdvancedSQLiteSession("talk", path).get_items()


@provokes("ClosedError")
async def closed(path: Path) -> None:
    session = await session_with_secret(path)
    session.close()
    await session.add_items([item()])


@provokes("WrongExpectedVersionError")
async def wrong_version(path: Path) -> None:
    log = await EventLog.open(path)
    await log.append("talk", ItemsAdded(items=[item()]), expected_version=4)


@provokes("IdempotencyConflictError")
async def conflict(path: Path) -> None:
    log = await EventLog.open(path)
    await log.append("talk", ItemsAdded(items=[item()]), idempotency_key="k")
    await log.append("talk", ItemsAdded(items=[item(SECRET * 2)]), idempotency_key="k")


@provokes("InvalidEventError")
async def invalid(path: Path) -> None:
    log = await EventLog.open(path)
    event: Any = {"items": [item()]}
    await log.append("talk", event)


@provokes("UnserialisableError")
async def unserialisable(path: Path) -> None:
    session = await session_with_secret(path)
    unsaid: Any = {"role": "user", "content": SECRET.encode()}
    await session.add_items([unsaid])


@provokes("UndecodableEventError")
async def undecodable(path: Path) -> None:
    (await session_with_secret(path)).close()
    change(
        path,
        "DROP TRIGGER events_are_never_changed",
        f'UPDATE events SET data = "{SECRET}"',
    )
    await AdvancedSQLiteSession("talk", path).get_items()


@provokes("NewerProjectionError")
async def newer_projection(path: Path) -> None:
    (await session_with_secret(path)).close()
    change(path, "UPDATE checkpoints SET version = 99")
    log = EventLog.open_sync(path, read_only=True)
    try:
        await EventLogSession("talk", log).get_items()
    finally:
        log.close()


@provokes("StaleProjectionError")
async def stale_projection(path: Path) -> None:
    (await session_with_secret(path)).close()
    change(path, "UPDATE checkpoints SET position = 0")
    log = EventLog.open_sync(path, read_only=True)
    try:
        await EventLogSession("talk", log).get_items()
    finally:
        log.close()


@provokes("UnknownProjectionError")
async def unknown_projection(path: Path) -> None:
    projections.default().named(["itmes"])


@provokes("BranchNotFoundError")
async def unknown_branch(path: Path) -> None:
    await (await session_with_secret(path)).switch_to_branch("none such")


@provokes("SessionOwnerError")
async def session_of_another_user(path: Path) -> None:
    session = await session_with_secret(path)
    await session.set_metadata(user_id="alice")
    await AdvancedSQLiteSession(session.session_id, path, user_id="mallory").get_items()


@provokes("SessionBusyError")
async def busy_session(path: Path) -> None:
    session = await session_with_secret(path)
    async with session.exclusive(), session.exclusive(wait_seconds=0):
        pass


@provokes("ConcurrentRunError")
async def concurrent_run(path: Path) -> None:
    session = AdvancedSQLiteSession("talk", path, on_concurrent_run="reject")
    run: Any = RunContextWrapper(None)
    await session.get_items(wrapper=run)
    await session.log.append("talk", ItemsAdded(items=[item()]), branch_id="main")
    await session.add_items([item()], wrapper=run)


@provokes("BudgetExceededError")
async def budget_used_up(path: Path) -> None:
    session = AdvancedSQLiteSession("talk", path, budgets=Budget(tokens=0, per=("user", "day")))
    run: Any = RunContextWrapper(None)
    await session.get_items(wrapper=run)


@provokes("BranchExistsError")
async def used_branch(path: Path) -> None:
    await (await session_with_secret(path)).create_branch("main")


@provokes("InvalidBranchError")
async def blank_branch(path: Path) -> None:
    await (await session_with_secret(path)).create_branch(" ")


@provokes("TurnNotFoundError")
async def unknown_turn(path: Path) -> None:
    await (await session_with_secret(path)).create_branch_from_turn(9)


@provokes("VersionNotFoundError")
async def unknown_version(path: Path) -> None:
    await (await session_with_secret(path)).get_items(as_of=9)


@provokes("CopyError")
async def not_a_copy(path: Path) -> None:
    await session_with_secret(path)
    async with EventLog.open(path) as log, EventLog.open(path.with_name("copy.db")) as copy:
        await copy.append("mine", ItemsAdded(items=[item()]))
        await copying.copy_log(log, copy)


@provokes("InvalidQueryError")
async def unknown_order(path: Path) -> None:
    order: Any = "title"
    await (await session_with_secret(path)).list_sessions(order_by=order, text=SECRET)


@provokes("SessionExistsError")
async def fork_into_another(path: Path) -> None:
    await (await session_with_secret(path)).fork("talk")


@provokes("ItemNotFoundError")
async def unknown_item(path: Path) -> None:
    await (await session_with_secret(path)).redact(9, 0)


@provokes("ItemRedactedError")
async def redacted_item(path: Path) -> None:
    session = await session_with_secret(path)
    for _ in range(2):
        await session.redact(1, 0)


@provokes("ItemErasedError")
async def erased_item(path: Path) -> None:
    session = await session_with_secret(path)
    await session.pop_item()
    await session.log.erase(popped=True)
    await session.redact(1, 0)


@provokes("SessionNotFoundError")
async def unknown_session(path: Path) -> None:
    await (await session_with_secret(path)).restore_session("none such")


@provokes("SourceError")
async def no_source(path: Path) -> None:
    async with EventLog.open(path) as log:
        _ = [outcome async for outcome in import_lines(log, [SECRET.encode()])]


@provokes("SessionDeletedError")
async def deleted(path: Path) -> None:
    session = await session_with_secret(path)
    await session.delete_session()
    await session.add_items([item()])


@provokes("SessionErasedError")
async def erased(path: Path) -> None:
    session = await session_with_secret(path)
    async with ConversationLog.open(path) as log:
        await log.erase(session_id=session.session_id)
    await session.restore_session()


@provokes("DiskError")
async def disk_failed(path: Path) -> None:
    """The file is cut short under an open session: reading behind its end fails."""
    resource = pytest.importorskip("resource")
    session = await session_with_secret(path)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, limits[1]))
    try:
        await session.add_items([item(SECRET * 100_000)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def key_file(path: Path, name: str = "keys.db") -> KeyFile:
    return KeyFile(path.with_name(name), ahead=0)


async def sealed_session(path: Path) -> None:
    """Make a session in a sealed log, and close it."""
    session = AdvancedSQLiteSession("talk", path, keys=key_file(path))
    await session.add_items([item()])
    session.close()


@provokes("KeysMissingError")
async def no_keys(path: Path) -> None:
    await sealed_session(path)
    await AdvancedSQLiteSession("talk", path).get_items()


@provokes("KeyNotFoundError")
async def keys_of_another_log(path: Path) -> None:
    await sealed_session(path)
    await sealed_session(path.with_name("more.db"))
    other = key_file(path, "others.db")
    AdvancedSQLiteSession("talk", path.with_name("third.db"), keys=other)
    AdvancedSQLiteSession("talk", path, keys=other)


@provokes("ProofError")
async def changed_proof(path: Path) -> None:
    key = eventlog.SigningKey(eventlog.generate_signing_key())
    session = await session_with_secret(path)
    head, proof = await session.log.sign(key), await session.log.prove("talk")
    session.close()
    changed = proof.replace(SECRET, f"not {SECRET}")
    eventlog.check_proof(changed, head, public_key=key.public_key)


@provokes("WrongKeyError")
async def mistyped_root_key(path: Path) -> None:
    RootKey(SECRET)


@provokes("ShreddedError")
async def shredded(path: Path) -> None:
    await sealed_session(path)
    with closing(sqlite3.connect(path)) as connection:
        (sealed,) = connection.execute("SELECT sealed FROM events").fetchone()
    key_file(path).destroy([sealed[2:34]])
    await AdvancedSQLiteSession("talk", path, keys=key_file(path)).get_items()


@provokes("TamperedPayloadError")
async def tampered(path: Path) -> None:
    await sealed_session(path)
    change(
        path,
        "DROP TRIGGER events_are_never_changed",
        "UPDATE events SET sealed = CAST(substr(sealed, 1, 99) || substr(sealed, 99) AS BLOB)",
    )
    await AdvancedSQLiteSession("talk", path, keys=key_file(path)).get_items()


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(
        "agents_eventlog.eventlog.storage.sqlite.connections.BUSY_TIMEOUT_SECONDS", 0.1
    )
    return tmp_path / "talk.db"


async def provoked(name: str, path: Path) -> errors.EventLogError:
    with pytest.raises(errors.EventLogError) as caught:
        await PROVOKED[name](path)
    assert type(caught.value).__name__ == name
    return caught.value


# -- what is promised of all ------------------------------------------------------------------


def test_the_tree_is_drawn_as_it_is() -> None:
    tree = drawn()
    assert tree.keys() == CLASSES.keys()
    for name, kind in CLASSES.items():
        parents = [base.__name__ for base in kind.__bases__ if base.__name__ in CLASSES]
        assert parents == ([tree[name][0]] if tree[name][0] else []), name


def test_each_error_is_the_builtin_that_is_drawn_beside_it() -> None:
    for name, (_, builtin) in drawn().items():
        own = [base.__name__ for base in CLASSES[name].__bases__ if base.__name__ not in CLASSES]
        assert own == ([builtin] if builtin else ["Exception"] if name == "EventLogError" else [])


def test_each_error_says_what_to_expect() -> None:
    assert [name for name, kind in CLASSES.items() if not kind.__doc__] == []


def test_the_root_can_be_caught_by_one_import() -> None:
    assert eventlog.EventLogError is errors.EventLogError


def test_each_leaf_is_provoked() -> None:
    """And one that is raised itself, beside its kinds."""
    assert PROVOKED.keys() == LEAVES | {"UndecodableEventError", "StaleProjectionError"}


@pytest.mark.parametrize("name", sorted(LEAVES))
async def test_an_error_tells_facts_and_no_payload(name: str, path: Path) -> None:
    error = await provoked(name, path)
    assert SECRET not in told(error)
    assert str(error) == error.args[0]
    assert len(str(error)) > 10
    declared = {
        fact
        for kind in type(error).__mro__
        if kind.__name__ in CLASSES
        for fact in inspect.get_annotations(kind)
        if not hasattr(kind, fact)
    }
    assert declared <= vars(error).keys()


@pytest.mark.parametrize("facts", [{}, {"path": "x", "size": 1}])
def test_an_error_is_given_the_facts_that_its_class_declares(facts: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match=r"expected \['path'\], got"):
        errors.NoLogError("there is no event log", **facts)


@pytest.mark.parametrize("name", sorted(LEAVES))
async def test_an_error_survives_pickling_and_copying(name: str, path: Path) -> None:
    error = await provoked(name, path)
    for twin in (pickle.loads(pickle.dumps(error)), copy.copy(error), copy.deepcopy(error)):
        assert type(twin) is type(error)
        assert str(twin) == str(error)
        assert twin.args == error.args
        assert vars(twin) == vars(error)


@pytest.mark.parametrize("name", sorted(LEAVES - {"CorruptFileError"}))
async def test_after_an_error_another_file_works(name: str, path: Path) -> None:
    await provoked(name, path)
    session = AdvancedSQLiteSession("talk", path.with_name("other.db"))
    await session.add_items([item()])
    assert await session.get_items() == [item()]
