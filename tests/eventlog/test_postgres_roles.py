"""Rights on PostgreSQL: an application's role can append and read, and the server refuses all else."""

from __future__ import annotations

import asyncio
import json
import uuid
from typing import TYPE_CHECKING, Any, NamedTuple

import psycopg
import pytest
from typer.testing import CliRunner

from agents_eventlog.adapters.cli import main
from agents_eventlog.adapters.conversations.log import ConversationLog
from agents_eventlog.adapters.openai_agents.session import EventLogSession
from agents_eventlog.eventlog import EventLog, ItemsAdded
from agents_eventlog.eventlog.errors import ReadOnlyFileError
from agents_eventlog.eventlog.storage.postgres import dsn
from agents_eventlog.projections import default, replay
from tests.faults.support import ran
from tests.postgres import raw

if TYPE_CHECKING:
    from pathlib import Path

    from tests.postgres import Server


class Granted(NamedTuple):
    """A log, as its owner and as an application's role opens it."""

    owner: str
    app: str
    role: str


def user(text: str) -> Any:
    return {"role": "user", "content": text}


def eventlog(*arguments: str) -> Any:
    return CliRunner().invoke(main.app, [*arguments])


@pytest.fixture
def granted(server: Server) -> Granted:
    url, role = server.url(), f"app {uuid.uuid4().hex}"
    result = eventlog("init", url, "--role", role, "--search", "--json")
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    path = dsn.resolve(url)
    assert document == {"kind": "initialized", "path": path, "created": True, "role": role}
    return Granted(url, url.replace("eventlog@", f"{role.replace(' ', '%20')}@"), role)


async def problems(url: str) -> dict[str, str]:
    async with EventLog.open(url, read_only=True) as log:
        found = await log.query(lambda tx: list(tx.engine.problems(tx)))
    return {problem.subject: problem.problem for problem in found if problem.subject != "server"}


async def test_an_applications_role_does_what_applications_do(granted: Granted) -> None:
    async with ConversationLog.open(granted.app, search=True) as log:
        session = EventLogSession("s", log, user_id="ann")
        async with session.exclusive():
            await session.add_items([user("hello"), user("again")])
        await session.store_run_usage(ran())
        await session.create_branch_from_turn(2, "draft")
        await session.pop_item()
        assert await session.get_items(branch_id="main") == [user("hello"), user("again")]
        assert len((await log.find_items("hello")).rows) == 1
        assert [row["user_id"] for row in await log.sessions()] == ["ann"]
        await log.delete_session("s")
        await log.restore_session("s")
        assert (await log.verify()).ok
    assert await problems(granted.app) == {}


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE events SET data = NULL",
        "UPDATE events SET recorded_at = 0",
        "DELETE FROM events",
        "TRUNCATE events",
        "ALTER TABLE events DISABLE TRIGGER ALL",
        "DROP TRIGGER events_are_never_changed ON events",
        "DROP TABLE events CASCADE",
        "UPDATE lanes SET lane = lane + 64",
        "DELETE FROM lanes",
        "UPDATE log_properties SET value = '99'",
        "CREATE TABLE mine (id INTEGER)",
        "CREATE OR REPLACE FUNCTION events_guard() RETURNS trigger LANGUAGE sql AS ''",
        "DROP VIEW v_messages",
    ],
)
async def test_an_applications_role_cannot_change_history_or_the_schema(
    granted: Granted, statement: str
) -> None:
    async with EventLog.open(granted.owner) as log:
        await log.append("s", ItemsAdded(items=[user("hello")]))
    with raw(granted.app) as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
        connection.execute(statement)


async def test_erasing_and_replaying_are_for_the_owner_and_leave_the_rights(
    granted: Granted,
) -> None:
    async with ConversationLog.open(granted.app) as log:
        await EventLogSession("s", log).add_items([user("secret")])
        with pytest.raises(ReadOnlyFileError, match="permission denied"):
            await log.erase(session_id="s")
        with pytest.raises(ReadOnlyFileError, match="must be owner"):
            await asyncio.to_thread(replay, log, default().named([]))
    async with ConversationLog.open(granted.owner) as log:
        await asyncio.to_thread(replay, log, default(search=True).named([]))
        await log.erase(session_id="s")
    async with ConversationLog.open(granted.app, search=True) as log:
        await EventLogSession("t", log).add_items([user("hello")])
        assert len((await log.find_items("hello")).rows) == 1
    assert await problems(granted.app) == {}


async def test_an_applications_role_builds_projections_again_that_were_left_behind(
    granted: Granted,
) -> None:
    async with ConversationLog.open(granted.app, search=True) as log:
        await EventLogSession("s", log).add_items([user("first")])
    async with EventLog.open(granted.app) as plain:
        await plain.append("s", ItemsAdded(items=[user("second")]), branch_id="main")
    async with ConversationLog.open(granted.app, search=True) as log:
        assert len(await EventLogSession("s", log).get_items()) == 2
        for text in ("first", "second"):
            assert len((await log.find_items(text)).rows) == 1
        for table in await asyncio.to_thread(
            replay, log, default(search=True).named([]), check=True
        ):
            assert table.differences == 0


async def test_doctor_names_the_rights_that_a_role_lacks_and_init_repairs_them(
    granted: Granted,
) -> None:
    with raw(granted.owner) as connection:
        connection.execute(f'REVOKE INSERT ON events FROM "{granted.role}"')
        connection.execute(f'REVOKE UPDATE (locked) ON lanes FROM "{granted.role}"')
    assert await problems(granted.app) == {
        "rights": f"the role {granted.role!r} lacks INSERT on events; UPDATE on lanes"
    }
    with pytest.raises(ReadOnlyFileError):
        await EventLog.open(granted.app)
    result = eventlog("init", granted.owner, "--role", granted.role)
    assert result.stdout.startswith("found ")
    assert await problems(granted.app) == {}


async def test_a_role_of_a_database_that_is_not_open_to_all_can_connect(server: Server) -> None:
    role, name = f"app_{uuid.uuid4().hex}", f"db_{uuid.uuid4().hex}"
    with raw(server.url()) as connection:
        connection.execute(f"CREATE DATABASE {name}")
        connection.execute(f"REVOKE ALL ON DATABASE {name} FROM PUBLIC")
        connection.execute(f"CREATE ROLE {role} LOGIN")
    url = server.url().replace("/postgres?", f"/{name}?")
    assert eventlog("init", url, "--role", role).exit_code == 0
    async with EventLog.open(url.replace("eventlog@", f"{role}@")) as log:
        assert (await log.append("s", ItemsAdded(items=[user("hello")]))).version == 1


async def test_doctor_names_an_index_in_the_order_of_a_language(granted: Granted) -> None:
    with raw(granted.owner) as connection:
        connection.execute('CREATE TABLE mine (id TEXT COLLATE "en-x-icu" PRIMARY KEY)')
    assert await problems(granted.owner) == {
        "schema": (
            "the index 'mine_pkey' sorts texts as 'en-x-icu': pages of sessions can skip some"
        )
    }


@pytest.mark.parametrize(
    ("default", "used"), [("off", "on"), ("local", "on"), ("remote_apply", "remote_apply")]
)
async def test_full_durability_is_never_less_than_the_servers_own(
    granted: Granted, default: str, used: str
) -> None:
    with raw(granted.owner) as connection:
        connection.execute(f"ALTER ROLE \"{granted.role}\" SET synchronous_commit = '{default}'")

    def asked(tx: Any) -> Any:
        return tx.one("SELECT current_setting('synchronous_commit')")

    async with EventLog.open(granted.app) as log:
        assert await log.write(asked) == (used,)
        found = await log.query(lambda tx: list(tx.engine.problems(tx)))
        noted = [each for each in found if "synchronous_commit is" in each.problem]
        assert [each.is_note for each in noted] == ([] if default == used else [True])


def test_roles_that_cannot_be_granted_are_refused(server: Server, tmp_path: Path) -> None:
    result = eventlog("init", server.url(), "--role", "eventlog")
    assert (result.exit_code, "owns the log" in result.stderr) == (2, True)
    result = eventlog("init", str(tmp_path / "log.db"), "--role", "app")
    assert (result.exit_code, "SQLite has no roles" in result.stderr) == (2, True)
    result = eventlog("init", str(tmp_path / "other.db"), "--json")
    assert json.loads(result.stdout)["created"]
    assert not json.loads(eventlog("init", str(tmp_path / "other.db"), "--json").stdout)["created"]
