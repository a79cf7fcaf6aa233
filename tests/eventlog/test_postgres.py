"""What PostgreSQL does differently: names of logs, values, lanes, locks, guards, lost connections."""

from __future__ import annotations

import ast
import asyncio
import re
import threading
from contextlib import aclosing, contextmanager, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import psycopg
import pytest
from typer.testing import CliRunner

from agents_eventlog.adapters.cli import main
from agents_eventlog.adapters.conversations.log import ConversationLog
from agents_eventlog.adapters.openai_agents.session import EventLogSession
from agents_eventlog.eventlog import (
    EventLog,
    ItemsAdded,
    RequestUsage,
    SessionCleared,
    UsageRecorded,
    append,
    configure,
    leases,
)
from agents_eventlog.eventlog.errors import (
    BusyError,
    ClosedError,
    CorruptFileError,
    DiskError,
    DiskFullError,
    ForeignFileError,
    InvalidQueryError,
    NewerFileError,
    OpenError,
    ReadOnlyFileError,
    StoreError,
    UnknownOutcomeError,
)
from agents_eventlog.eventlog.storage import registry
from agents_eventlog.eventlog.storage.postgres import (
    connections,
    dialect,
    dsn,
    full_text,
    lazy_connection,
)
from agents_eventlog.eventlog.storage.postgres.engine import COMPLETE, POSTGRES_ENGINE
from agents_eventlog.projections import (
    Conversations,
    Projection,
    Projections,
    Usage,
    Views,
    default,
    replay,
)
from tests.postgres import Proxy, raw

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from agents_eventlog.eventlog import Transaction
    from tests.postgres import Server


def added(text: str = "hello") -> ItemsAdded:
    return ItemsAdded(items=[{"role": "user", "content": text}])


def user(text: str) -> Any:
    return {"role": "user", "content": text}


@pytest.fixture
def url(server: Server) -> str:
    """Name a log that does not exist yet."""
    return server.url()


# -- names --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("postgres://db/app", "postgresql://db/app?schema=eventlog"),
        ("postgresql://ann:secret@db/app?schema=chats", "postgresql://ann@db/app?schema=chats"),
        ("postgresql://ann@db/app?password=a%2Fb", "postgresql://ann@db/app?schema=eventlog"),
        ("postgresql:///app?host=/run&schema=x", "postgresql:///app?host=%2Frun&schema=x"),
    ],
)
def test_a_log_has_one_name_without_the_password(given: str, name: str) -> None:
    assert dsn.resolve(given) == dsn.resolve(name) == name


def test_the_password_of_a_url_is_used_to_connect() -> None:
    name = dsn.resolve("postgresql://bob:se%40cret@db/app?schema=chats&sslmode=require")
    assert dsn.target(name) == ("postgresql://bob:se%40cret@db/app?sslmode=require", "chats", False)
    name = dsn.resolve("postgresql://eve@db/app?password=a%2Fb")
    assert dsn.target(name) == ("postgresql://eve:a%2Fb@db/app", "eventlog", False)


@pytest.mark.parametrize("schema", ["", "Chats", "a-b", 'x"y', "1a", "a" * 64])
def test_a_schema_that_would_need_quoting_is_refused(schema: str) -> None:
    with pytest.raises(OpenError, match="invalid schema"):
        EventLog.open_sync(f"postgresql://db/app?schema={schema}")


async def test_a_server_that_cannot_be_reached_is_an_open_error_without_the_password() -> None:
    with pytest.raises(OpenError, match="cannot connect") as caught:
        await EventLog.open("postgresql://ann:secret@127.0.0.1:1/app")
    assert "secret" not in str(caught.value)


# -- opening ------------------------------------------------------------------------------------


async def test_two_schemas_of_a_database_are_two_logs(server: Server) -> None:
    async with EventLog.open(server.url()) as first, EventLog.open(server.url()) as second:
        await first.append("s", added())
        assert (await first.version("s"), await second.version("s")) == (1, 0)


async def test_tables_of_another_program_are_refused(url: str) -> None:
    with raw(url) as connection:
        schema = dsn.target(dsn.resolve(url)).schema
        connection.execute(f'CREATE SCHEMA "{schema}"')
        connection.execute("CREATE TABLE notes (id integer)")
        with pytest.raises(ForeignFileError):
            await EventLog.open(url)
        assert connection.execute("SELECT to_regclass('events')").fetchone() == (None,)


async def test_a_log_of_a_newer_release_is_refused(url: str) -> None:
    (await EventLog.open(url)).close()
    with raw(url) as connection:
        connection.execute(
            "UPDATE log_properties SET value = '99' WHERE name = 'postgres_schema_version'"
        )
        with pytest.raises(NewerFileError):
            await EventLog.open(url)
        connection.execute("DELETE FROM log_properties")
        with pytest.raises(ForeignFileError):  # its tables are there, but nothing claims them
            await EventLog.open(url)


async def test_logs_opened_at_once_create_one_log(url: str) -> None:
    stores = [connections.connect(dsn.resolve(url)) for _ in range(2)]
    for connection in stores:
        connection.close()
    logs = await asyncio.gather(*(EventLog.open(url) for _ in range(8)))
    await asyncio.gather(*(log.append(f"s{n}", added()) for n, log in enumerate(logs)))
    assert (await logs[0].verify()).events == 8
    for log in logs:
        log.close()


async def test_a_log_opened_read_only_reads_and_refuses_to_write(url: str) -> None:
    async with EventLog.open(url) as log:
        await log.append("s", added())
    async with EventLog.open(url, read_only=True) as log:
        assert await log.version("s") == 1
        with pytest.raises(ReadOnlyFileError):
            await log.append("s", added())


async def test_a_schema_that_another_process_creates_at_the_same_moment_is_used(url: str) -> None:
    schema = dsn.target(dsn.resolve(url)).schema
    with raw(url) as connection:
        connection.execute("BEGIN")
        connection.execute(f'CREATE SCHEMA "{schema}"')
        opening = asyncio.create_task(asyncio.to_thread(EventLog.open_sync, url))
        waiting = "SELECT COUNT(*) FROM pg_locks WHERE NOT granted"
        while connection.execute(waiting).fetchone() == (0,):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        connection.execute("COMMIT")
    log = await opening
    assert (await log.append("s", added())).version == 1
    log.close()


async def test_the_strictest_durability_of_a_process_is_used(url: str) -> None:
    def asked(tx: Transaction) -> Any:
        return tx.one("SELECT current_setting('synchronous_commit')")

    async with EventLog.open(url, durability="normal") as log:
        assert await log.write(asked) == ("off",)
        async with EventLog.open(url) as second:
            assert await second.write(asked) == ("on",)


# -- values -------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["a\0b", "\ue000", "\ue0000\0\ue0001", "\0"])
async def test_nul_characters_come_back_in_ids_and_contents(url: str, text: str) -> None:
    async with ConversationLog.open(url) as log:
        session = EventLogSession(f"s{text}", log, user_id=text)
        await session.add_items([user(text)])
        assert await session.get_items() == [user(text)]
        (row,) = await log.sessions()
        assert (row["session_id"], row["user_id"]) == (f"s{text}", text)
        assert (await log.verify()).ok


async def test_half_a_surrogate_pair_is_refused_as_on_sqlite(url: str) -> None:
    async with EventLog.open(url) as log:
        with pytest.raises(InvalidQueryError, match="surrogate"):
            await log.version("\ud800")


def test_statements_of_the_shared_subset_are_translated() -> None:
    assert dialect.translated("SELECT '?', \"?\", ? FROM t WHERE a = ?") == (
        "SELECT '?', \"?\", $1 FROM t WHERE a = $2"
    )
    assert dialect.translated("INSERT INTO events (data) VALUES (CAST(? AS TEXT))") == (
        "INSERT INTO events (data) VALUES ($1)"
    )
    assert dialect.translated("SELECT 1 WHERE a IN () AND b NOT IN ()") == (
        "SELECT 1 WHERE a IN (NULL) AND b IS DISTINCT FROM NULL"
    )
    assert dialect.create_statement("CREATE INDEX i ON t (a)") == "CREATE INDEX i ON t (a)"


async def test_a_cursor_lives_as_long_as_its_unit(url: str) -> None:
    def numbers(tx: Transaction) -> Any:
        cursor = tx.execute("SELECT 1 UNION SELECT 2 UNION SELECT 3 ORDER BY 1")
        assert (cursor.rowcount, cursor.fetchmany(1), cursor.fetchone()) == (3, [(1,)], (2,))
        assert list(cursor) == [(3,)]
        return cursor

    async with EventLog.open(url) as log:
        cursor = await log.write(numbers)
        with pytest.raises(ClosedError):
            cursor.fetchall()
        with pytest.raises(ClosedError):
            cursor.execute("SELECT 1")
        cursor.close()  # which is harmless


async def test_a_reader_knows_how_many_rows_a_statement_returned(url: str) -> None:
    async with EventLog.open(url) as log:
        sql = "SELECT 1 UNION SELECT 2"
        assert await log.query(lambda tx: tx.execute(sql).rowcount) == 2


async def test_a_scan_reads_as_many_rows_as_are_wanted_of_a_result_of_any_size(url: str) -> None:
    def unit(tx: Transaction) -> Any:
        endless = tx.scan("SELECT generate_series(1, ?)", (10**10,))
        short = tx.scan("SELECT generate_series(1, 1200)")
        first = [endless.fetchone(), *endless.fetchmany(599)]
        assert short.description is not None
        assert (len(short.fetchall()), short.fetchone()) == (1200, None)
        assert tx.one("SELECT 1") == (1,)  # other statements run in between
        return first, endless

    async with EventLog.open(url) as log:
        rows, cursor = await log.query(unit)
        assert [number for (number,) in rows] == [*range(1, 601)]
        with pytest.raises(ClosedError):
            cursor.fetchone()
        assert await log.write(lambda tx: tx.scan("SELECT 1").fetchall()) == [(1,)]


async def test_a_bool_is_stored_as_the_integer_that_it_is(url: str) -> None:
    async with EventLog.open(url) as log:
        assert await log.query(lambda tx: tx.one("SELECT CAST(? AS BIGINT)", (True,))) == (1,)


# -- lanes --------------------------------------------------------------------------------------


async def test_events_go_to_several_lanes_and_a_head_names_them_all(url: str) -> None:
    async with EventLog.open(url) as log:
        assert (await log.head(), (await log.verify()).ok) == ((0, bytes(32)), True)
        for number in range(30):
            await log.append(f"s{number % 3}", added(str(number)))
        head = await log.head()
        assert len(head.lanes) > 5
        assert head.position == max(head.lanes)
        positions = [recorded.position async for recorded in log.read()]
        assert positions == sorted(set(positions))
        assert (await log.verify(head)).ok
        assert (await log.verify(str(head))).ok
        await log.append("s0", added("later"))
        assert (await log.verify(str(head))).ok
        assert not (await log.verify(f"{head.position}:{'0' * 64}:{head.position}")).ok
        for number in range(3):
            assert (await log.verify_session(f"s{number}")).ok


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE events SET recorded_at = recorded_at + 1 WHERE version = 2",
        "UPDATE events SET data = '{}' WHERE version = 2",
        "DELETE FROM events WHERE position = (SELECT MIN(position) FROM events)",
        "DELETE FROM events WHERE position = (SELECT MAX(position) FROM events)",
    ],
)
async def test_a_changed_log_is_found(url: str, change: str) -> None:
    async with EventLog.open(url) as log:
        for number in range(10):
            await log.append("s", added(str(number)))
        head = await log.head()
        with raw(url) as connection:
            connection.execute("ALTER TABLE events DISABLE TRIGGER USER")
            connection.execute(change)
            connection.execute("ALTER TABLE events ENABLE TRIGGER USER")
        assert not (await log.verify(head)).ok


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE events SET recorded_at = 0",
        "UPDATE events SET data = '{}'",
        "UPDATE events SET data = NULL, type = 'x'",
        "DELETE FROM events",
        "TRUNCATE events",
    ],
)
async def test_events_are_append_only(url: str, change: str) -> None:
    async with EventLog.open(url) as log:
        await log.append("s", added())
        with raw(url) as connection, pytest.raises(psycopg.errors.IntegrityConstraintViolation):
            connection.execute(change)
        with raw(url) as connection:
            connection.execute("UPDATE events SET data = NULL")  # what erasing does
        assert (await log.verify()).ok


async def test_a_follower_resumes_where_it_was_in_each_lane(url: str) -> None:
    async with EventLog.open(url) as log:
        for number in range(20):
            await log.append(f"s{number}", added(str(number)))
        head = await log.head()
        seen = {}
        async with aclosing(log.subscribe()) as events:
            for _ in range(12):
                recorded = await anext(events)
                seen[recorded.position % 64] = recorded.position
        await log.append("s", SessionCleared())
        async with aclosing(log.subscribe(after=[*seen.values()])) as events:
            rest = [await anext(events) for _ in range(9)]
        assert rest[-1].type == "session_cleared"
        assert len({recorded.session_id for recorded in rest}) == 9
        async with aclosing(log.subscribe(after=head, types=[SessionCleared])) as events:
            assert (await anext(events)).position == rest[-1].position


async def test_without_a_free_lane_an_append_waits_for_one(url: str) -> None:
    async with EventLog.open(url) as log:
        with raw(url) as connection:
            connection.execute("BEGIN")
            connection.execute("SELECT 1 FROM lanes FOR UPDATE")
            waiting = asyncio.create_task(log.append("s", added()))
            await asyncio.sleep(0.3)
            assert not waiting.done()
            connection.execute("COMMIT")
            assert (await waiting).version == 1


# -- locks --------------------------------------------------------------------------------------


@contextmanager
def locked(url: str, session_id: str) -> Iterator[psycopg.Connection[Any]]:
    """Lock a session as another server's transaction does."""
    with raw(url) as connection:
        connection.execute("BEGIN")
        connection.execute(
            "SELECT 1 FROM session_locks WHERE session_id = %s FOR UPDATE", (session_id,)
        )
        yield connection
        if not connection.closed:
            connection.execute("COMMIT")


@pytest.fixture
def impatient() -> Iterator[None]:
    """Wait for locks no longer than half a second."""
    before = registry.limits.busy_timeout_seconds
    configure(busy_timeout_seconds=0.5)
    yield
    configure(busy_timeout_seconds=before)


@pytest.mark.usefixtures("impatient")
async def test_a_statement_whose_result_comes_with_the_commit_is_busy_as_others_are(
    url: str,
) -> None:
    async with EventLog.open(url) as log:
        with raw(url) as connection:
            connection.execute("BEGIN")
            connection.execute("LOCK TABLE checkpoints")
            with pytest.raises(BusyError):
                await log.write(lambda tx: tx.execute("DELETE FROM checkpoints"))
            connection.execute("ROLLBACK")
        assert (await log.append("s", added())).version == 1


async def test_a_unit_with_a_failing_statement_fails_alone_beside_others(url: str) -> None:
    async with EventLog.open(url) as log:
        held = threading.Event()
        writing = [
            asyncio.create_task(log.write(lambda tx: held.wait(30))),
            asyncio.create_task(log.write(lambda tx: tx.one("SELECT 1 / 0"))),
            asyncio.create_task(log.append("s", added())),
        ]
        await asyncio.sleep(0.1)
        held.set()
        found = await asyncio.gather(*writing, return_exceptions=True)
        assert [type(each).__name__ for each in found] == ["bool", "StoreError", "AppendResult"]
        assert await log.version("s") == 1


@pytest.mark.usefixtures("impatient")
async def test_a_session_locked_for_too_long_is_busy_and_others_go_on(url: str) -> None:
    async with EventLog.open(url) as log:
        await log.append("s", added())
        with locked(url, "s"):
            with pytest.raises(BusyError, match="locked by another transaction"):
                await log.append("s", added())
            assert (await log.append("t", added())).version == 1
        assert (await log.append("s", added())).version == 2


async def test_a_unit_of_two_sessions_waits_for_the_second_by_beginning_again(url: str) -> None:
    def both(tx: Transaction) -> None:
        for session_id in ("first", "second"):
            append(tx, session_id, added())

    async with EventLog.open(url) as log:
        await log.write(both)
        with locked(url, "second"):
            waiting = asyncio.create_task(log.write(both))
            await asyncio.sleep(0.3)
            assert not waiting.done()
        await waiting
        assert (await log.version("first"), await log.version("second")) == (2, 2)


async def test_a_lease_is_held_once(url: str) -> None:
    async with EventLog.open(url) as log:
        lease = await log.write(lambda tx: leases.take(tx, "s", "me", 10**9))
        assert await log.write(lambda tx: leases.renew(tx, lease, 10**9))
        assert not await log.write(lambda tx: leases.is_free(tx, "s"))
        assert await log.query(leases.held) != []
        await log.write(lambda tx: leases.release(tx, lease))
        assert await log.write(lambda tx: leases.is_free(tx, "s"))


# -- projections --------------------------------------------------------------------------------


def checkpoints(log: EventLog) -> dict[str, int]:
    return log.store.read_sync(
        lambda tx: dict(tx.all("SELECT projection, position FROM checkpoints"))
    )


async def test_a_program_without_a_projection_leaves_it_behind_where_it_was(url: str) -> None:
    async with ConversationLog.open(url) as log:
        await log.append("s", added())
        last = (await log.head()).position
        assert set(checkpoints(log).values()) == {COMPLETE}
    async with EventLog.open(url, projections=Projections(Conversations())) as log:
        assert checkpoints(log)["usage"] == COMPLETE  # nothing was appended yet
        await log.append("s", added())
        assert checkpoints(log) == {"conversations": COMPLETE, "usage": last, "views": last}
    async with EventLog.open(url, projections=Projections(Conversations(), Usage())) as log:
        assert checkpoints(log)["usage"] == COMPLETE
        await log.append("s", added())
        assert checkpoints(log)["usage"] == COMPLETE


class Tally(Projection):
    """How many events each session has with items, with an index and a view."""

    name: ClassVar[str] = "tally"
    version: ClassVar[int] = 1
    schema: ClassVar[Sequence[str]] = (
        "CREATE TABLE tally (session_id TEXT PRIMARY KEY, adds INTEGER NOT NULL)",
        "CREATE INDEX tally_by_adds ON tally (adds)",
    )
    handles = (ItemsAdded,)

    def __init__(self) -> None:
        self.seen = 0

    def views(self, engine: Any) -> dict[str, str]:
        return {"tallied": "SELECT adds FROM tally"}

    def apply(self, tx: Transaction, events: Sequence[Any]) -> None:
        self.seen += len(events)
        for recorded in events:
            tx.execute(
                "INSERT INTO tally (session_id, adds) VALUES (?, 1) "
                "ON CONFLICT (session_id) DO UPDATE SET adds = tally.adds + 1",
                (recorded.session_id,),
            )


class NewTally(Tally):
    """The same in a newer program."""

    version: ClassVar[int] = 2
    schema: ClassVar[Sequence[str]] = (
        "CREATE TABLE tally (session_id TEXT PRIMARY KEY, adds INTEGER NOT NULL, kind TEXT)",
        Tally.schema[1],
    )


async def test_two_versions_of_a_projection_catch_up_with_what_the_other_program_appended(
    url: str,
) -> None:
    own = {Tally: Tally(), NewTally: NewTally()}
    programs = (Tally, NewTally, Tally, NewTally, Tally)
    for number, version in enumerate(programs, start=1):
        async with EventLog.open(url, projections=Projections(own[version])) as log:
            await log.append("s", added())
            assert await log.query(lambda tx: tx.all("SELECT adds FROM tally")) == [(number,)]
            assert await log.query(lambda tx: tx.all("SELECT adds FROM tallied")) == [(number,)]
    assert own[Tally].seen == len(programs)  # nothing was built a second time
    with raw(url) as connection:
        assert connection.execute("SELECT adds, kind FROM tally").fetchall() == [(4, None)]
        assert connection.execute("SELECT adds FROM tallied").fetchall() == [(4,)]
        assert connection.execute("SELECT adds FROM tallied__v1").fetchall() == [(5,)]
        names = "SELECT indexname FROM pg_indexes WHERE tablename = 'tally__v1'"
        assert ("tally_by_adds__v1",) in connection.execute(names).fetchall()
    async with EventLog.open(url, projections=Projections(NewTally())) as log:
        await asyncio.to_thread(replay, log, [NewTally()])
        assert await log.query(
            lambda tx: {n for n in tx.engine.table_names(tx) if "tall" in n}
        ) == {
            "tally",
            "tallied",
        }


async def test_newer_views_take_the_place_of_older_ones_which_are_not_kept(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with ConversationLog.open(url) as log:
        await log.append("s", added("a"), branch_id="main")
    views = Views.views
    monkeypatch.setattr(Views, "version", Views.version + 1)
    monkeypatch.setattr(
        Views,
        "views",
        lambda *each: {"v_messages": views(*each)["v_messages"], "v_newer": "SELECT 1"},
    )
    async with ConversationLog.open(url) as log:
        await log.append("s", added("b"), branch_id="main")
        names = await log.query(lambda tx: tx.engine.table_names(tx))
        assert {name for name in names if "v_" in name} == {"v_messages", "v_newer"}
        assert await log.query(lambda tx: tx.all("SELECT COUNT(*) FROM v_messages")) == [(2,)]


async def test_an_older_program_that_owns_no_table_continues_after_the_owner_has_upgraded(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with ConversationLog.open(url) as log:
        await log.append("s", added("a"), branch_id="main")
        await log.write(leases.prepare)
        await log.write(lambda tx: tx.engine.grant(tx, "older_app"))
    with monkeypatch.context() as release:
        release.setattr(Conversations, "version", Conversations.version + 1)
        async with ConversationLog.open(url) as owner:
            await owner.append("s", added("b"), branch_id="main")
    async with ConversationLog.open(url.replace("eventlog@", "older_app@")) as older:
        session = EventLogSession("s", older)
        await session.add_items([user("c")])
        assert await session.get_items() == [user("a"), user("b"), user("c")]


@pytest.mark.parametrize("kept", [None, Projections(Conversations())], ids=["none", "another"])
async def test_what_a_program_without_projections_appended_is_shown_by_the_next_that_has_them(
    url: str, kept: Projections | None
) -> None:
    used = UsageRecorded(run_id="r", turn=1, requests=[RequestUsage(total_tokens=9)])
    async with ConversationLog.open(url) as log:
        await log.append("s", [added("a"), used], branch_id="main")
    async with EventLog.open(url, projections=kept) as plain:
        await plain.append("s", [added("b"), used], branch_id="main")
    async with ConversationLog.open(url) as log:
        assert await EventLogSession("s", log).get_items() == [user("a"), user("b")]
        assert (await EventLogSession("s", log).get_usage_stats())["total_tokens"] == 18
        for table in await asyncio.to_thread(replay, log, default().named([]), check=True):
            assert table.differences == 0
        with raw(url) as connection:
            assert connection.execute("SELECT COUNT(*) FROM v_messages").fetchone() == (2,)


async def test_a_replay_and_the_live_tables_agree_and_the_past_is_readable(url: str) -> None:
    async with ConversationLog.open(url, search=True) as log:
        session = EventLogSession("s", log, metadata={"a\0": 1})
        for number in range(5):
            await session.add_items([user(f"Question {number}\0"), user("x")])
        await session.create_branch_from_turn(2, "draft")
        await session.pop_item()
        every = default(search=True).named([])
        before = await session.get_items(branch_id="main")
        for check in (True, False, True):
            results = await asyncio.to_thread(replay, log, every, check=check)
            assert sum(result.differences for result in results) == 0
        assert await session.get_items(branch_id="main") == before
        with raw(url) as connection:  # the views were created again with the tables that they read
            await log.append("t", added("hello"))
            rows = connection.execute("SELECT text, item FROM v_messages WHERE session_id = 't'")
            assert rows.fetchall() == [("hello", '{"role":"user","content":"hello"}')]
        assert await session.get_items(branch_id="main", as_of=3) == before[:4]


async def test_a_swap_that_fails_changes_nothing(url: str) -> None:
    def fails(tx: Transaction) -> None:
        tx.execute("DELETE FROM checkpoints")
        raise KeyError("x")

    async with ConversationLog.open(url) as log:
        before = checkpoints(log)
        with pytest.raises(KeyError):
            await asyncio.to_thread(log.store.swap, "", fails)
        assert checkpoints(log) == before
        await log.append("s", added())


async def test_searches_find_what_they_find_on_sqlite(url: str, tmp_path: Path) -> None:
    answers = []
    for path in (url, str(tmp_path / "log.db")):
        async with ConversationLog.open(path, search=True) as log:
            session = EventLogSession("s", log)
            for text in ("Zebra crossing", "100% of_it", 'say "hi"', "日本語の文", "back\\slash"):
                await session.add_items([user(text)])
            found = {}
            for text in ("zebra", "ZEBRA C", "0% o", "of_it", 'y "hi', "日本語", "ack\\s", "ze"):
                results = await log.find_items(text)
                found[text] = [row["item"] for row in results.rows]
            assert all(len(items) == 1 for items in found.values()), found
            answers.append(found)
            await log.erase(session_id="s")
            assert (await log.find_items("zebra")).rows == ()
            assert (await log.verify()).ok
    assert answers[0] == answers[1]


def test_a_condition_has_each_trigram_literally() -> None:
    assert full_text._condition('"a""b" "c%_" "\\de"') == (
        "item_texts.text LIKE ? AND item_texts.text LIKE ? AND item_texts.text LIKE ?",
        ('%a"b%', "%c\\%\\_%", "%\\\\de%"),
    )
    sql, parameters = POSTGRES_ENGINE.full_text.sessions('"abc"')
    assert ("DISTINCT e.session_id" in sql, parameters) == (True, ("%abc%",))


async def test_doctor_names_a_missing_trigger_and_a_server_without_fsync(url: str) -> None:
    async with EventLog.open(url) as log:
        found = await log.query(lambda tx: list(POSTGRES_ENGINE.problems(tx)))
        assert [problem.subject for problem in found] == ["server"]
        with raw(url) as connection:
            connection.execute("DROP TRIGGER events_are_never_deleted ON events")
        found = await log.query(lambda tx: list(POSTGRES_ENGINE.problems(tx)))
        assert "events_are_never_deleted" in found[0].problem
        facts = await log.query(POSTGRES_ENGINE.facts)
        assert facts["schema_version"] == 1
        store = log.store
        assert (POSTGRES_ENGINE.leftovers(store), store.engine.damage(log.path)) == ([], None)
        with pytest.raises(OpenError, match="pg_dump"):
            POSTGRES_ENGINE.copying(log.path, "x")


async def test_doctor_names_an_encoding_that_cannot_store_all_texts(server: Server) -> None:
    with raw(server.url()) as connection:
        connection.execute("CREATE DATABASE latin ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0")
    async with EventLog.open(server.url().replace("/postgres?", "/latin?")) as log:
        found = await log.query(lambda tx: list(POSTGRES_ENGINE.problems(tx)))
    assert [problem.problem for problem in found if problem.subject == "database"] == [
        "its encoding is LATIN1: some texts cannot be stored"
    ]


async def test_doctor_notes_a_table_of_which_most_rows_are_dead(url: str) -> None:
    async with EventLog.open(url) as log:
        with raw(url) as connection:
            connection.execute("CREATE TABLE busy AS SELECT generate_series(1, 20000) AS n")
            connection.execute("DELETE FROM busy")
        async with asyncio.timeout(30):
            while True:  # the server counts with a delay
                found = await log.query(lambda tx: list(POSTGRES_ENGINE.problems(tx)))
                if noted := [problem for problem in found if problem.subject == "vacuum"]:
                    break
                await asyncio.sleep(0.05)
    assert noted[0].is_note
    assert noted[0].problem == "busy has 20,000 dead rows beside 0 others"


# -- lost connections ---------------------------------------------------------------------------

END_ALL = """
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE pid <> pg_backend_pid() AND datname = current_database()
"""


async def test_connections_that_were_lost_are_opened_again(url: str) -> None:
    async with EventLog.open(url) as log:
        await log.append("s", added())
        assert await log.version("s") == 1
        with raw(url) as connection:
            connection.execute(END_ALL)
        assert await log.version("s") == 1
        assert (await log.append("s", added())).version == 2


async def test_a_unit_whose_connection_is_lost_runs_again_and_appends_once(url: str) -> None:
    runs = 0

    def unit(tx: Transaction) -> None:
        nonlocal runs
        runs += 1
        append(tx, "s", added())
        tx.flush()
        if runs == 1:
            with raw(url) as connection:
                connection.execute(END_ALL)

    async with EventLog.open(url) as log:
        await log.write(unit)
        assert (runs, await log.version("s")) == (2, 1)


@pytest.mark.parametrize("forward", [True, False], ids=["after", "before"])
@pytest.mark.parametrize("pooling", ["", "&pooling=transaction"], ids=["", "pooled"])
async def test_an_append_whose_connection_is_cut_in_the_commit_happens_once(
    server: Server, forward: bool, pooling: str
) -> None:
    proxy = Proxy(server, forward=forward)
    schema = dsn.target(dsn.resolve(server.url())).schema
    async with EventLog.open(proxy.url(server, schema) + pooling) as log:
        for number in range(3):
            proxy.cut_next = True
            assert (await log.append("s", added(str(number)))).version == number + 1
        assert (await log.verify()).findings == ()
    proxy.close()


@pytest.mark.parametrize("forward", [True, False], ids=["after", "before"])
async def test_a_lease_whose_connection_is_cut_in_the_commit_is_taken_once(
    server: Server, forward: bool
) -> None:
    proxy = Proxy(server, forward=forward)
    schema = dsn.target(dsn.resolve(server.url())).schema
    async with EventLog.open(proxy.url(server, schema)) as log:
        await log.write(leases.prepare)
        proxy.cut_next = True
        lease = await log.write(lambda tx: leases.take(tx, "s", "me", 10**9))
        assert await log.query(leases.held) == [lease]
        assert lease.token == 1
    proxy.close()


async def test_a_transaction_that_a_new_server_does_not_know_was_not_committed(url: str) -> None:
    async with EventLog.open(url) as log:
        connection = log.store._connection
        assert log.store._writer.call(lambda _: connection._status(str(10**9))) == "aborted"


async def test_an_outcome_that_cannot_be_found_out_is_said(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lazy_connection, "OUTCOME_TIMEOUT_SECONDS", 0.2)
    proxy = Proxy(server, forward=True)
    schema = dsn.target(dsn.resolve(server.url())).schema
    url = f"postgresql://eventlog@127.0.0.1:{proxy.port}/postgres?schema={schema}&sslmode=disable"
    log = await EventLog.open(url)
    await log.append("s", added())
    proxy.cut_next = True
    proxy.close()
    with pytest.raises(UnknownOutcomeError, match="unknown"):
        await log.append("s", added())
    log.close()


@pytest.mark.parametrize(
    ("state", "kind"),
    [
        ("53100", DiskFullError),
        ("58030", DiskError),
        ("XX001", CorruptFileError),
        ("42501", ReadOnlyFileError),
        ("57014", BusyError),
        ("28P01", OpenError),
        ("22012", StoreError),
    ],
)
def test_the_servers_errors_are_documented_ones(state: str, kind: type[Exception]) -> None:
    error = psycopg.errors.lookup(state)("one line\nmore")
    found = connections.translated(error, "postgresql://db/app")
    assert type(found) is kind
    assert found.__cause__ is error


async def test_a_failed_statement_outside_the_servers_rights_is_the_callers_error(url: str) -> None:
    async with EventLog.open(url) as log:
        with pytest.raises(StoreError, match="does not exist"):
            await log.write(lambda tx: tx.execute("SELECT nothing"))
        with pytest.raises(StoreError, match="division by zero"):
            await log.query(lambda tx: tx.one("SELECT 1 / 0"))
        assert await log.query(lambda tx: tx.one("SELECT SUM(1.5), SUM(CAST(2 AS bigint))")) == (
            1.5,
            2,
        )
        await log.write(lambda tx: tx.executemany("UPDATE lanes SET lane = ?", []))


def test_other_errors_stay_what_they_are() -> None:
    error = KeyError("x")
    assert connections.translated(error, "postgresql://db/app") is error


# -- the manual ---------------------------------------------------------------------------------


async def test_the_manuals_example_runs(url: str) -> None:
    manual = (Path(__file__).parents[2] / "docs" / "postgresql.md").read_text(encoding="utf-8")
    code = re.findall(r"^```python\n(.*?)^```$", manual, re.DOTALL | re.MULTILINE)[0]
    code = re.sub(r'"postgresql://[^"]*"', repr(url), code)
    printed = StringIO()
    with redirect_stdout(printed):
        namespace: dict[str, Any] = {}
        compiled = compile(code, "docs/postgresql.md", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        await eval(compiled, namespace)
    assert printed.getvalue() == "[{'role': 'user', 'content': 'Where is my order?'}]\n"
    namespace["session"].close()


@pytest.mark.parametrize("command", ["sessions", "verify", "doctor", "usage", "replay", "export"])
async def test_the_command_line_takes_a_url(url: str, command: str) -> None:
    async with ConversationLog.open(url) as log:
        await EventLogSession("support-42", log).add_items([user("hello")])
    check = ["--check"] if command == "replay" else []
    for options in ([], ["--json"] if command != "export" else []):
        result = await asyncio.to_thread(
            CliRunner().invoke, main.app, [command, url, *check, *options]
        )
        assert result.exit_code == (1 if command == "doctor" else 0), result.output
        assert result.output
