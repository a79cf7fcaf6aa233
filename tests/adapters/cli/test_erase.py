"""``log.erase`` and ``eventlog erase``: what goes, what stays, and what is told of it."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
from contextlib import closing
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from agents_eventlog import AdvancedSQLiteSession, ConversationLog, projections
from agents_eventlog.adapters.cli.terminal import ExitCode
from agents_eventlog.eventlog import ContentErased, MetadataSet, codec, recording
from agents_eventlog.eventlog.errors import (
    SessionDeletedError,
    SessionErasedError,
    SessionNotFoundError,
    UndecodableEventError,
)
from agents_eventlog.eventlog.events import RequestUsage, UsageRecorded
from agents_eventlog.projections import default, replay
from agents_eventlog.projections.conversations import as_of as past
from agents_eventlog.projections.erasure import eraser
from agents_eventlog.projections.erasure.scopes import UserSessions
from tests.adapters.looking import documents, one, run, user
from tests.engines import stored

if TYPE_CHECKING:
    from pathlib import Path


def in_log(path: Path, *calls: Any) -> list[Any]:
    """Call methods of a log, each given as (name, arguments), and return what they return."""

    async def call() -> list[Any]:
        async with ConversationLog.open(path) as log:
            return [await getattr(log, name)(**arguments) for name, arguments in calls]

    return asyncio.run(call())


def erased(path: Path, **what: Any) -> Any:
    (found,) = in_log(path, ("erase", what))
    return found


def payloads(path: Path) -> dict[int, bool]:
    """Return, by position, whether an event still has its payload."""
    rows = ask(path, "SELECT position, data IS NOT NULL FROM events")
    return {position: bool(there) for position, there in rows}


def ask(path: Path, sql: str, *parameters: Any) -> list[Any]:
    with closing(ConversationLog.open_sync(path)) as log:
        return log.store.read_sync(lambda tx: tx.all(sql, parameters))


def in_session(path: Path, *calls: tuple[Any, ...], session_id: str = "support-42") -> list[Any]:
    """Call methods of a session object, each given as (name, *arguments)."""

    async def call() -> list[Any]:
        with closing(AdvancedSQLiteSession(session_id, path)) as session:
            return [await getattr(session, name)(*arguments) for name, *arguments in calls]

    return asyncio.run(call())


# -- what is on no branch any more --------------------------------------------------------------


def test_popped_items_go_only_with_events_of_which_nothing_is_live(db: Path) -> None:
    before = in_session(db, ("get_items",), ("get_items", None, "calm"))
    found = erased(db, popped=True)
    # The draft's item; the popped answer shares its event with a question that stands.
    assert (found.sessions, found.events, found.kept_items) == (1, 1, 1)
    assert [position for position, whole in payloads(db).items() if not whole] == [8]
    assert in_session(db, ("get_items",), ("get_items", None, "calm")) == before


def test_what_a_clearing_and_a_compaction_took_away_goes(tmp_path: Path) -> None:
    path = tmp_path / "talk.db"
    in_session(path, ("add_items", [user("one")]), ("clear_session",), session_id="s")
    in_session(path, ("add_items", [user("two")]), session_id="s")
    in_session(path, ("_atomic_replace_items", [user("short")]), session_id="s")
    assert erased(path, popped=True).events == 2
    assert in_session(path, ("get_items",), session_id="s") == [[user("short")]]


def test_labels_that_were_replaced_go_and_those_that_show_stay(tmp_path: Path) -> None:
    path = tmp_path / "talk.db"
    labels = [
        MetadataSet(user_id="alice", metadata={"plan": "free"}),
        MetadataSet(metadata={"plan": "pro"}),  # the first still gives the user
        MetadataSet(metadata={"plan": "team"}),
    ]
    in_log(path, ("append", {"session_id": "s", "events": labels}))
    assert erased(path, popped=True).events == 1
    assert payloads(path) == {1: True, 2: False, 3: True, 4: True}
    assert ask(path, "SELECT user_id, metadata FROM sessions") == [("alice", '{"plan":"team"}')]


def test_a_deleted_session_keeps_what_a_restored_one_would_show(db: Path) -> None:
    in_session(db, ("delete_session",))
    assert erased(db, popped=True).events == 1
    in_session(db, ("restore_session",))
    assert len(in_session(db, ("get_items",))[0]) == 5


# -- whole sessions -----------------------------------------------------------------------------


def test_a_whole_session_goes_with_its_labels_and_keeps_what_it_cost(db: Path) -> None:
    from tests.faults.support import ran

    in_session(db, ("store_run_usage", ran(15)))
    said = MetadataSet(user_id="alice", metadata={"plan": "pro"})
    in_log(db, ("append", {"session_id": "support-42", "events": said}))
    with recording(actor="officer"):
        found = erased(db, session_id="support-42", reason="asked to")
    assert (found.sessions, found.is_complete) == (1, True)
    kinds = "('items_added', 'items_replaced', 'metadata_set')"
    assert ask(db, f"SELECT 1 FROM events WHERE data IS NOT NULL AND type IN {kinds}") == []
    ((deleted, whole, user_id, items),) = ask(
        db, "SELECT deleted_at, erased_at, user_id, item_count FROM sessions"
    )
    assert None not in (deleted, whole)
    assert re.fullmatch("erased-[0-9a-f]{16}", user_id)
    assert items == 0
    assert ask(db, "SELECT COUNT(*) FROM items") == [(0,)]
    assert ask(db, "SELECT COUNT(*) FROM session_labels") == [(0,)]
    assert ask(db, "SELECT SUM(total_tokens) FROM usage") == [(15,)]
    with pytest.raises(SessionDeletedError):
        in_session(db, ("add_items", [user("again")]))
    with pytest.raises(SessionErasedError):
        in_session(db, ("restore_session",))


def test_who_erased_what_and_why_is_recorded(db: Path) -> None:
    async def erase() -> Any:
        async with ConversationLog.open(db) as log:
            with recording(actor="officer"):
                found = await log.erase(session_id="support-42", reason="asked to")
            (event,) = [each async for each in log.read(types=[ContentErased])]
            return found, event

    found, recorded = asyncio.run(erase())
    event = recorded.event
    assert recorded.metadata == {"actor": "officer"}
    assert (event.reason, event.is_whole) == ("asked to", True)
    assert (len(event.positions), event.payload_bytes) == (found.events, found.payload_bytes)
    assert event.structures[0] == {
        "items": [
            {"role": "user"},
            {"type": "function_call", "name": "look_up"},
            {"type": "function_call_output"},
            {"role": "assistant"},
        ]
    }


def test_only_sessions_deleted_long_enough_ago_go(tmp_path: Path) -> None:
    path = tmp_path / "talk.db"
    for name in ("live", "gone"):
        in_session(path, ("add_items", [user(name)]), session_id=name)
    in_session(path, ("delete_session", "gone"), session_id="live")
    assert erased(path, deleted=True, older_than=timedelta(hours=1)).sessions == 0
    found = erased(path, deleted=True)
    assert (found.sessions, found.events) == (1, 1)
    assert in_session(path, ("get_items",), session_id="live") == [[user("live")]]
    assert ask(path, "SELECT erased_at IS NULL FROM sessions WHERE session_id = 'live'") == [(1,)]


def test_a_long_session_goes_in_several_transactions(tmp_path: Path) -> None:
    from agents_eventlog.eventlog import ItemsAdded

    path = tmp_path / "talk.db"
    said = [ItemsAdded(items=[user(str(n))]) for n in range(2_300)]
    in_log(path, ("append", {"session_id": "s", "events": said, "branch_id": "main"}))
    seen: list[int] = []
    found = erased(path, session_id="s", on_progress=lambda done: seen.append(done.events))
    assert (found.sessions, found.events) == (1, 2_300)
    assert len(seen) == 3
    assert seen[-1] == 2_300
    assert run("verify", path).exit_code == ExitCode.CLEAN


@pytest.mark.parametrize(
    "what", [{"popped": True}, {"deleted": True}, {"session_id": "support-42"}]
)
def test_a_second_erase_finds_nothing_to_do(db: Path, what: dict[str, Any]) -> None:
    erased(db, **what)
    head = ask(db, "SELECT MAX(position) FROM events")
    found = erased(db, **what)
    assert (found.sessions, found.events, found.payload_bytes) == (0, 0, 0)
    assert ask(db, "SELECT MAX(position) FROM events") == head


def test_a_dry_run_tells_the_same_and_writes_nothing(db: Path) -> None:
    for what in ({"popped": True}, {"session_id": "support-42"}):
        before = ask(db, "SELECT * FROM events"), ask(db, "SELECT * FROM sessions")
        would = erased(db, **what, dry_run=True)
        assert (ask(db, "SELECT * FROM events"), ask(db, "SELECT * FROM sessions")) == before
        assert erased(db, **what) == would


def test_what_is_to_be_erased_is_one_thing_and_exists(db: Path) -> None:
    for wrong in ({}, {"popped": True, "deleted": True}, {"popped": True, "session_id": "s"}):
        with pytest.raises(ValueError, match="exactly one"):
            erased(db, **wrong)
    with pytest.raises(ValueError, match="older_than"):
        erased(db, popped=True, older_than=timedelta(days=1))
    with pytest.raises(SessionNotFoundError, match="'nobody' does not exist"):
        erased(db, session_id="nobody")


async def test_a_log_in_memory_is_erased_too() -> None:
    async with ConversationLog.open(":memory:") as log:
        await log.append("s", MetadataSet(user_id="alice"))
        found = await log.erase(session_id="s")
        assert (found.events, found.is_complete) == (1, True)


def test_an_adopted_file_forgets_an_erased_session_in_the_tables_of_the_sdk(tmp_path: Path) -> None:
    from tests.adapters.moving import sdk_file
    from tests.adapters.old_files import DEFAULT_PAIR, STRUCTURE_TABLES

    path = tmp_path / "sdk.db"
    asyncio.run(sdk_file(path))
    in_session(path, ("get_items",), session_id="talk")

    def rows_of(session_id: str) -> dict[str, int]:
        count = "SELECT COUNT(*) FROM {} WHERE session_id = ?"
        names = (*DEFAULT_PAIR, *STRUCTURE_TABLES)
        return {name: ask(path, count.format(name), session_id)[0][0] for name in names}

    before, others = rows_of("talk"), rows_of("short")
    assert all(before.values())
    erased(path, session_id="talk")
    assert rows_of("talk") == dict.fromkeys(before, 0)
    assert rows_of("short") == others
    assert run("verify", path).exit_code == ExitCode.CLEAN


def test_an_adopted_file_forgets_popped_items_in_the_tables_of_the_sdk(tmp_path: Path) -> None:
    from tests.adapters.old_files import sdk, set_times
    from tests.contract.items import turns

    path = tmp_path / "sdk.db"
    for session_id in ("talk", "other"):
        with closing(sdk(path, session_id)) as session:
            asyncio.run(session.add_items(turns("stays", "secret")))
    set_times(path)
    in_session(path, ("pop_item",), ("pop_item",), session_id="talk")
    with closing(sdk(path, "talk")) as late:
        asyncio.run(late.add_items([user("secret")]))

    def told(session_id: str) -> list[Any]:
        sql = "SELECT message_data FROM agent_messages WHERE session_id = '{}' ORDER BY id"
        return [json.loads(data) for (data,) in ask(path, sql.format(session_id))]

    assert erased(path, popped=True, dry_run=True).events == 2
    assert told("talk") == [*turns("stays", "secret"), user("secret")]
    assert erased(path, popped=True).events == 2
    assert told("talk") == [*turns("stays"), user("secret")]  # the last was never adopted
    assert told("other") == turns("stays", "secret")
    dangling = "SELECT 1 FROM message_structure WHERE message_id NOT IN (SELECT id FROM {})"
    assert ask(path, dangling.format("agent_messages")) == []
    assert in_session(path, ("get_items",), session_id="talk") == [turns("stays")]
    assert run("verify", path).exit_code == ExitCode.CLEAN


async def test_no_byte_of_a_popped_item_is_left_in_an_adopted_file(tmp_path: Path) -> None:
    from agents import SQLiteSession

    path = tmp_path / "plain.db"
    with closing(SQLiteSession("talk", path)) as session:
        await session.add_items([user("kept"), user("of the secret\u00e9 kind")])
        messages = "UPDATE agent_messages SET created_at = datetime('2024-03-01', id || ' minutes')"
        session._get_connection().execute(messages)
        session._get_connection().commit()
    with closing(AdvancedSQLiteSession("talk", path)) as mine:
        assert await mine.pop_item() is not None
        async with ConversationLog.open(path) as log:
            assert b"of the secret" in stored(path)
            assert (await log.erase(popped=True)).is_complete
            assert b"of the secret" not in stored(path)
            assert b"kept" in stored(path)


# -- looking at what was erased -----------------------------------------------------------------


def test_the_past_of_what_was_erased_cannot_be_read_and_is_named(db: Path) -> None:
    erased(db, popped=True)

    async def was(version: int) -> list[Any]:
        async with ConversationLog.open(db) as log:
            return await past.items_as_of(log, "support-42", version, branch_id="draft")

    with pytest.raises(UndecodableEventError, match="position 8 was erased"):
        asyncio.run(was(8))
    assert len(asyncio.run(was(7))) == 5


def test_show_tells_what_was_erased_at_its_place(db: Path) -> None:
    erased(db, session_id="support-42")
    result = run("show", db, "support-42", "--branch", "main", "--as-of", "2")
    assert result.exit_code == ExitCode.CLEAN
    assert result.stdout.count("(erased)") == 6
    assert "function_call_o…" in result.stdout or "function_call" in result.stdout
    items = documents(run("show", db, "support-42", "--as-of", "2", "--json"), "item")
    assert [item["type"] for item in items][:2] == ["user", "function_call"]
    assert {(item["item"], item["is_erased"]) for item in items} == {(None, True)}
    assert run("show", db, "support-42", "--turns", "--as-of", "2").stdout.count("(erased)") == 2
    assert "the session was erased" in run("show", db, "support-42").stdout


def test_the_other_commands_cope_with_what_was_erased(db: Path) -> None:
    before = len(documents(run("audit", db, "--json"), "event"))
    erased(db, popped=True, reason="tidy")
    for command in (["verify"], ["replay", "--check"], ["doctor"], ["branches"], ["audit"]):
        name, *options = command
        session = ["support-42", "--removed"] if name == "branches" else []
        result = run(name, db, *session, *options)
        assert result.exit_code == ExitCode.CLEAN, (name, result.stdout, result.stderr)
    events = documents(run("audit", db, "--json"), "event")
    assert len(events) == before + 1
    assert events[7]["account"] == "items_added: its content was erased"
    assert events[-1]["account"] == "erased the content of 1 event: tidy"
    erased(db, session_id="support-42")
    events = documents(run("audit", db, "--json"), "event")
    assert events[-1]["account"] == "erased the session, the content of 3 events"


def test_what_became_of_items_is_still_told_when_their_events_were_erased(db: Path) -> None:
    def told() -> list[str]:
        events = documents(run("audit", db, "--json"), "event")
        return [each["account"] for each in events if each["type"] != "items_added"]

    before = told()
    erased(db, session_id="support-42")
    assert "deleted branch 'draft' with 6 items" in before
    assert told()[: len(before)] == [
        "popped #6 an item" if account.startswith("popped") else account for account in before
    ]


def test_a_replay_on_opening_gives_the_tables_of_an_erased_file(db: Path) -> None:
    erased(db, session_id="support-42")
    tables = ("sessions", "branches", "segments", "items")
    before = [ask(db, f"SELECT * FROM {table}") for table in tables]
    with closing(ConversationLog.open_sync(db)) as log:
        projections.replay(log, projections.default().named([]))
    assert [ask(db, f"SELECT * FROM {table}") for table in tables] == before


# -- the command --------------------------------------------------------------------------------


def test_the_command_tells_what_it_erased(db: Path) -> None:
    result = run("erase", db, "--popped", "--dry-run")
    assert result.stdout.splitlines() == [
        "would erase the content of 1 event (52 bytes) in 1 session",
        "1 popped item is kept: its event also contains active items",
        "nothing was erased: pass --yes to erase",
    ]
    assert run("erase", db, "--popped", "--yes", "--reason", "tidy", "--actor", "me").exit_code == 0
    result = run("erase", db, "--popped", "--yes")
    assert result.stdout.splitlines()[0] == "nothing to erase"
    (event,) = documents(run("audit", db, "--json", "--type", "content_erased"), "event")
    assert (event["actor"], event["account"]) == ("me", "erased the content of 1 event: tidy")


def test_documents_have_stable_fields(db: Path) -> None:
    found = one(run("erase", db, "--session", "support-42", "--yes", "--json"), "erased")
    assert list(found) == [
        "kind",
        "sessions",
        "events",
        "payload_bytes",
        "kept_items",
        "is_complete",
        "forks",
        "keys",
        "keys_left",
        "dry_run",
    ]
    assert (found["sessions"], found["events"], found["dry_run"]) == (1, 4, False)


def test_nothing_is_erased_unless_somebody_says_yes(db: Path) -> None:
    result = run("erase", db, "--session", "support-42")
    assert result.exit_code == ExitCode.CLEAN
    assert "nothing was erased: pass --yes to erase" in result.stdout
    assert all(payloads(db).values())


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--popped", "--deleted"],
        ["--popped", "--older-than", "30d"],
        ["--deleted", "--older-than", "soon"],
        ["--session", "nobody", "--yes"],
    ],
)
def test_what_cannot_be_meant_is_one_line_and_exits_with_2(db: Path, arguments: list[str]) -> None:
    result = run("erase", db, *arguments)
    assert (result.exit_code, result.stdout) == (ExitCode.USAGE, "")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(("text", "hours"), [("30d", 720), ("12h", 12), ("2w", 336), ("60m", 1)])
def test_an_age_is_a_number_and_a_unit(text: str, hours: int) -> None:
    from agents_eventlog.adapters.conversations import timestamps

    assert timestamps.duration(text) == timedelta(hours=hours)


def test_a_file_that_is_no_log_is_none_to_erase_in(tmp_path: Path) -> None:
    result = run("erase", tmp_path / "none.db", "--popped", "--yes")
    assert result.exit_code == ExitCode.CANNOT_OPEN


# -- everything of one person -------------------------------------------------------------------


def of_users(path: Path) -> None:
    """Hold two sessions of alice, one of them deleted, and one of bob."""
    for session_id, user_id in (("a1", "alice"), ("a2", "alice"), ("b", "bob")):
        with closing(AdvancedSQLiteSession(session_id, path, user_id=user_id)) as session:
            asyncio.run(session.add_items([user(f"secret of {user_id} in {session_id}")]))
    in_log(path, ("delete_session", {"session_id": "a2"}))


def test_all_sessions_of_a_user_are_erased_with_one_rewrite(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rewrites: list[object] = []
    rewrite = eraser.erasure.rewrite
    monkeypatch.setattr(
        eraser.erasure, "rewrite", lambda *a, **k: rewrites.append(a) or rewrite(*a, **k)
    )
    of_users(path)
    preview = one(run("erase", path, "--user", "alice", "--dry-run", "--json"), "erased")
    assert (preview["sessions"], preview["events"], preview["dry_run"]) == (2, 4, True)
    done = run("erase", path, "--user", "alice", "--yes", "--json")
    assert one(done, "erased")["sessions"] == 2
    assert len(rewrites) == 1
    assert b"secret of alice" not in stored(path)
    assert b"secret of bob" in stored(path)
    assert in_session(path, ("get_items",), session_id="b") == [[user("secret of bob in b")]]
    assert erased(path, user_id="alice").sessions == 0


def test_an_interrupted_erasure_of_a_user_is_finished_by_the_next(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    of_users(path)
    monkeypatch.setattr(eraser, "PAGE_EVENTS", 1)

    async def erase() -> None:
        async with ConversationLog.open(path) as log:

            def stop(_: object) -> None:
                raise InterruptedError

            await log.erase(user_id="alice", on_progress=stop)

    with pytest.raises(InterruptedError):
        asyncio.run(erase())
    assert b"secret of alice" in stored(path)
    assert erased(path, user_id="alice").is_complete
    assert b"secret of alice" not in stored(path)


async def test_the_usage_of_an_erased_user_stays_under_a_pseudonym(path: Path) -> None:
    await asyncio.to_thread(of_users, path)
    async with ConversationLog.open(path) as log:
        for session_id, tokens in (("a1", 1), ("a2", 2), ("b", 4)):
            requests = [RequestUsage(input_tokens=tokens, total_tokens=tokens)]
            await log.append(session_id, UsageRecorded(run_id="r", turn=1, requests=requests))
        before = await log.usage()
        await log.erase(user_id="alice")
        usage = await log.usage("user")
        (bob,) = (group for group in usage["groups"] if group["user_id"] == "bob")
        (alice,) = (group for group in usage["groups"] if group is not bob)
        assert (alice["total_tokens"], bob["total_tokens"]) == (3, 4)
        assert {name: usage[name] for name in before} == before
        pseudonym = alice["user_id"]
        assert (await log.usage(user_id=pseudonym))["total_tokens"] == 3
        found = await asyncio.to_thread(replay, log, default().named([]), check=True)
        assert not any(result.differences for result in found)
    assert b"alice" not in stored(path)
    # The next erasure of a user with this id chooses another pseudonym, and no older one changes.
    with closing(AdvancedSQLiteSession("a3", path, user_id="alice")) as session:
        await session.add_items([user("again")])
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(eraser, "PAGE_EVENTS", 1)  # the session is erased in two transactions
        async with ConversationLog.open(path) as log:
            await log.erase(deleted=True)
            await log.erase(user_id="alice")
            names = {row["session_id"]: row["user_id"] for row in await log.sessions(deleted=True)}
    assert names["a1"] == names["a2"] == pseudonym
    assert re.fullmatch("erased-[0-9a-f]{16}", names["a3"])
    assert names["a3"] != pseudonym


async def test_the_digest_of_an_erased_user_id_confirms_no_guess(path: Path) -> None:
    await asyncio.to_thread(of_users, path)
    guesses = {hashlib.sha256(codec.encode(MetadataSet(user_id="alice"))).digest()}
    assert not guesses & {digest for (digest,) in ask(path, "SELECT data_digest FROM events")}


async def test_a_session_without_a_user_gets_no_pseudonym(path: Path) -> None:
    async with ConversationLog.open(path) as log:
        await log.append("s", MetadataSet(metadata={"plan": "free"}))
        await log.erase(session_id="s")
        (row,) = await log.sessions(deleted=True)
    assert row["user_id"] is None


async def test_a_session_that_moves_to_another_user_meanwhile_is_not_erased(path: Path) -> None:
    async with ConversationLog.open(path) as log:
        await log.append("s", MetadataSet(user_id="alice"))
        scope = UserSessions("alice")
        assert [*await log.query(lambda tx: scope.sessions(tx, None))] == ["s"]
        await log.append("s", MetadataSet(user_id="bob"))
        assert await log.query(lambda tx: scope.plan(tx, "s").is_nothing)
        assert not await log.write(lambda tx: scope.may_erase(tx, "s", None))
        assert await log.query(lambda tx: scope.plan(tx, "unknown").is_nothing)
