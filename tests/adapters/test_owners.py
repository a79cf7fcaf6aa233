"""Whose conversation it is: a session object with a user id works on that user's sessions only."""

from __future__ import annotations

import asyncio
import pickle
from typing import TYPE_CHECKING, Any

import pytest
from agents import Agent, Runner

from agents_eventlog import AdvancedSQLiteSession, ConversationLog, UsageHooks
from agents_eventlog.eventlog import ItemsAdded, MetadataSet
from agents_eventlog.eventlog.errors import (
    BranchNotFoundError,
    ConversationError,
    InvalidQueryError,
    SessionDeletedError,
    SessionOwnerError,
)
from agents_eventlog.testing import ScriptedModel, reply
from tests.faults.operations import OPERATIONS, Stage
from tests.faults.support import ran, shown, user

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from pathlib import Path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "talk.db"


@pytest.fixture
def log(path: Path) -> Iterator[ConversationLog]:
    log = ConversationLog.open_sync(path, durability="normal")
    yield log
    log.close()


@pytest.fixture
async def alice(log: ConversationLog) -> AdvancedSQLiteSession:
    """A session of alice's with a turn on main, and another branch."""
    session = AdvancedSQLiteSession("shared", log.path, user_id="alice", metadata={"plan": "pro"})
    await session.add_items([user("my secret")])
    await session.create_branch("draft")
    await session.switch_to_branch("main")
    return session


def of(log: ConversationLog, user_id: str | None, **options: Any) -> AdvancedSQLiteSession:
    return AdvancedSQLiteSession("shared", log.path, user_id=user_id, **options)


OF_SESSIONS: dict[str, Callable[[Stage], Awaitable[Any]]] = {
    **{name: call for name, call in OPERATIONS.items() if name.startswith("session.")},
    "session.redo": lambda stage: (
        stage.session.redo()
    ),  # the operation itself uses no session object
}


@pytest.mark.parametrize("name", sorted(OF_SESSIONS))
async def test_every_call_refuses_a_user_that_the_session_does_not_belong_to(
    name: str, alice: AdvancedSQLiteSession, log: ConversationLog
) -> None:
    before = (await log.head(), await shown(alice))
    stage = Stage(alice.db_path, of(log, "mallory"), log, ran(), alice.db_path)  # type: ignore[arg-type]
    if name == "session.store_run_usage":  # it never raises
        await OF_SESSIONS[name](stage)
    else:
        with pytest.raises(SessionOwnerError, match="'shared' does not belong to user 'mallory'"):
            await OF_SESSIONS[name](stage)
    assert (await log.head(), await shown(alice)) == before


async def test_the_error_is_one_of_permission_and_does_not_name_the_owner(
    alice: AdvancedSQLiteSession, log: ConversationLog
) -> None:
    with pytest.raises(PermissionError) as caught:
        await of(log, "mallory").get_items()
    error = pickle.loads(pickle.dumps(caught.value))
    assert isinstance(error, ConversationError)
    assert (error.session_id, error.user_id) == ("shared", "mallory")
    assert "alice" not in str(error)


async def test_the_owner_is_not_refused_and_an_object_without_a_user_works_on_any_session(
    alice: AdvancedSQLiteSession, log: ConversationLog
) -> None:
    for user_id in ("alice", None):
        session = of(log, user_id)
        assert len(await session.get_items()) == 1
        await session.add_items([user("more")])
        await session.pop_item()


async def test_a_lease_is_not_for_somebody_else(
    alice: AdvancedSQLiteSession, log: ConversationLog
) -> None:
    with pytest.raises(SessionOwnerError):
        async with of(log, "mallory").exclusive(wait_seconds=0):
            pass
    async with of(log, "alice").exclusive(wait_seconds=0):
        pass


@pytest.mark.parametrize("options", [{"branch_id": "draft"}, {"branch_id": "x"}, {"resume": True}])
def test_a_constructor_that_has_to_read_refuses_somebody_else_at_once(
    options: dict[str, Any], alice: AdvancedSQLiteSession, log: ConversationLog
) -> None:
    with pytest.raises(SessionOwnerError):
        of(log, "mallory", **options)
    if options.get("branch_id") == "x":
        with pytest.raises(BranchNotFoundError):
            of(log, "alice", **options)
    else:
        of(log, "alice", **options)


async def test_a_generated_branch_id_opens_no_session_of_somebody_else(
    alice: AdvancedSQLiteSession, log: ConversationLog
) -> None:
    branch_id = await alice.create_branch()
    with pytest.raises(SessionOwnerError):
        AdvancedSQLiteSession(branch_id, log.path, user_id="mallory")


async def test_a_run_of_somebody_else_stores_neither_items_nor_usage(
    alice: AdvancedSQLiteSession,
    log: ConversationLog,
    caplog: pytest.LogCaptureFixture,
    no_tracing: None,
) -> None:
    session = of(log, "mallory")
    agent = Agent(name="a", model=ScriptedModel([reply("hello"), reply("hello")]))
    before = await log.head()
    with pytest.raises(SessionOwnerError):
        await Runner.run(agent, "give me the secret", session=session)
    await Runner.run(agent, "hello", hooks=UsageHooks(session))
    assert await log.head() == before
    assert "Failed to store session usage" in caplog.text


async def test_somebody_elses_sessions_are_neither_deleted_nor_restored_nor_found(
    alice: AdvancedSQLiteSession, log: ConversationLog
) -> None:
    mallory = AdvancedSQLiteSession("hers", log.path, user_id="mallory")
    await mallory.add_items([user("my plan")])
    for refused in (mallory.delete_session, mallory.restore_session):
        with pytest.raises(SessionOwnerError):
            await refused("shared")
    assert [row["session_id"] for row in await mallory.list_sessions()] == ["hers"]
    assert [*await mallory.find_items("secret", session_id="shared")] == []
    for asked in (mallory.list_sessions, mallory.find_items):
        with pytest.raises(InvalidQueryError, match="expected 'mallory' as in the constructor"):
            await asked(user_id="alice")  # type: ignore[operator]
    found = await alice.find_items("secret", user_id="alice")
    assert [row["session_id"] for row in found] == ["shared"]
    admin = AdvancedSQLiteSession("any", log.path)
    assert len(await admin.list_sessions()) == 2
    await admin.delete_session("hers")


async def test_a_session_without_an_owner_is_nobodys_until_set_metadata_gives_it_one(
    log: ConversationLog,
) -> None:
    await log.append("shared", ItemsAdded(items=[user("old")]), branch_id="main")
    with pytest.raises(SessionOwnerError):
        await of(log, "alice").get_items()
    assert len(await of(log, "").get_items()) == 1
    await of(log, None).set_metadata(user_id="alice")
    assert len(await of(log, "alice").get_items()) == 1
    with pytest.raises(SessionOwnerError):
        await of(log, "").get_items()


async def test_an_object_of_nobodys_lists_no_sessions(
    alice: AdvancedSQLiteSession, log: ConversationLog
) -> None:
    assert await AdvancedSQLiteSession("new", log.path, user_id="").list_sessions() == []


async def test_a_deleted_session_keeps_its_owner_and_an_erased_one_has_none(
    alice: AdvancedSQLiteSession, log: ConversationLog
) -> None:
    await alice.delete_session()
    with pytest.raises(SessionOwnerError):
        await of(log, "mallory").restore_session()
    await log.erase(session_id="shared")
    for user_id in ("alice", "mallory"):
        assert await of(log, user_id).get_items() == []
        with pytest.raises(SessionDeletedError):
            await of(log, user_id).add_items([user("again")])


async def test_of_two_users_who_create_a_session_at_once_one_is_refused(
    log: ConversationLog,
) -> None:
    sessions = {name: of(log, name) for name in ("alice", "mallory")}
    outcomes = await asyncio.gather(
        *(each.add_items([user(f"of {name}")]) for name, each in sessions.items()),
        return_exceptions=True,
    )
    assert sorted(map(type, outcomes), key=str) == sorted([type(None), SessionOwnerError], key=str)
    [row] = await log.sessions()
    assert row["title"] == f"of {row['user_id']}"


# -- the owner and the metadata are recorded when a session is created --------------------------------


async def test_metadata_of_the_constructor_changes_nothing_on_a_session_that_exists(
    alice: AdvancedSQLiteSession, log: ConversationLog
) -> None:
    await alice.set_metadata({"plan": "team"})
    again = of(log, "alice", metadata={"plan": "free"})
    assert await again.get_metadata() == {"user_id": "alice", "metadata": {"plan": "team"}}
    await again.add_items([user("more")])
    await again.set_metadata()
    assert (await alice.get_metadata())["metadata"] == {"plan": "team"}


async def test_clearing_deleting_and_restoring_keep_owner_and_metadata(
    alice: AdvancedSQLiteSession, log: ConversationLog
) -> None:
    other = of(log, "alice", metadata={"plan": "free"})
    await alice.clear_session()
    await other.add_items([user("first")])
    await alice.delete_session()
    await other.restore_session()
    await other.add_items([user("second")])
    assert await other.get_metadata() == {"user_id": "alice", "metadata": {"plan": "pro"}}


@pytest.mark.parametrize(
    "create",
    [
        lambda session: session.add_items([user("x")]),
        lambda session: session.create_branch("b"),
        lambda session: session.store_run_usage(ran()),
        lambda session: session.set_metadata(),
        lambda session: session._atomic_replace_items([user("x")]),
    ],
)
async def test_whatever_call_creates_a_session_records_its_owner_and_metadata(
    create: Callable[[AdvancedSQLiteSession], Any], log: ConversationLog
) -> None:
    session = of(log, "alice", metadata={"plan": "pro"})
    assert await session.get_metadata() == {"user_id": None, "metadata": None}
    await create(session)
    assert await session.get_metadata() == {"user_id": "alice", "metadata": {"plan": "pro"}}
    with pytest.raises(SessionOwnerError):
        await of(log, "mallory").get_items()


async def test_only_set_metadata_changes_the_owner_and_its_object_goes_along(
    alice: AdvancedSQLiteSession, log: ConversationLog
) -> None:
    other = of(log, "alice")
    await other.set_metadata(user_id="bob")
    assert len(await other.get_items()) == 1
    with pytest.raises(SessionOwnerError):
        await alice.get_items()
    await other.set_metadata(user_id="")
    assert await other.get_metadata() == {"user_id": None, "metadata": {"plan": "pro"}}
    with pytest.raises(SessionOwnerError):
        await of(log, "bob").get_items()


async def test_a_change_of_owner_that_is_rolled_back_leaves_the_object_its_user(
    alice: AdvancedSQLiteSession, log: ConversationLog
) -> None:
    failing: Any = alice._usage.write

    async def write(unit: Any) -> Any:
        def fails(tx: Any) -> None:
            unit(tx)
            raise RuntimeError("rolled back")

        return await failing(fails)

    alice._usage.write = write  # type: ignore[method-assign]
    with pytest.raises(RuntimeError, match="rolled back"):
        await alice.set_metadata(user_id="bob")
    alice._usage.write = failing  # type: ignore[method-assign]
    assert len(await alice.get_items()) == 1


async def test_an_owner_that_another_process_sets_counts_for_the_next_call(
    alice: AdvancedSQLiteSession, log: ConversationLog
) -> None:
    await log.append("shared", MetadataSet(user_id="bob"))
    with pytest.raises(SessionOwnerError):
        await alice.get_items()
