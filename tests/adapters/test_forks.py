"""A fork is a session of its own that begins with another one's items, and copies none."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from agents_eventlog import AdvancedSQLiteSession, ConversationLog, EventLogSession, projections
from agents_eventlog.adapters.conversations import forking
from agents_eventlog.eventlog import (
    EventLog,
    ItemRef,
    ItemsAdded,
    ItemsReplaced,
    export_lines,
    import_lines,
    recording,
)
from agents_eventlog.eventlog.copying import copy_log
from agents_eventlog.eventlog.errors import (
    BranchNotFoundError,
    InvalidEventError,
    ItemNotFoundError,
    SessionDeletedError,
    SessionExistsError,
    SessionNotFoundError,
    SessionOwnerError,
)
from agents_eventlog.projections import replay
from agents_eventlog.projections.conversations.paths import Paths
from agents_eventlog.projections.erasure import eraser
from agents_eventlog.projections.reference import fold
from tests.adapters.looking import answer, call, documents, one, output, run, user
from tests.faults.support import ran
from tests.history import meant, seen, stored

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.postgres import Server

FIRST = [user("what is the weather?"), call("c"), output("c", "sunny"), answer("it is sunny")]
SECOND = [user("and tomorrow?"), answer("rain")]


@pytest.fixture(params=["sqlite", "postgres"])
async def log(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[ConversationLog]:
    """A log on either engine, with a full-text index."""
    path: Any = tmp_path / "talk.db"
    if request.param == "postgres":
        server: Server = request.getfixturevalue("server")
        path = server.url()
    async with ConversationLog.open(path, search=True) as opened:
        yield opened


@pytest.fixture
async def session(log: ConversationLog) -> EventLogSession:
    """A session of two turns, with usage."""
    opened = EventLogSession("s", log, user_id="alice", metadata={"plan": "pro"})
    await opened.add_items(FIRST)
    await opened.add_items(SECOND)
    await opened.store_run_usage(ran(20))
    return opened


async def sound(log: ConversationLog) -> None:
    """Check that the tables are those of the fold and of a replay, and that the chain verifies."""
    assert (await log.verify()).ok
    different: list[object] = []
    kept = projections.default(search=True).named([])
    await asyncio.to_thread(replay, log, kept, check=True, on_difference=different.append)
    assert different == []
    if log.store.engine.lanes == 1:
        assert await log.query(seen) == meant(fold(stored(log)))


async def test_a_fork_has_the_items_of_the_branch_and_copies_none(
    log: ConversationLog, session: EventLogSession
) -> None:
    before = await log.version("s")
    made = await session.fork("t")
    assert made == {
        "session_id": "t",
        "from_session_id": "s",
        "from_branch_id": "main",
        "items": 6,
        "turns": 2,
    }
    fork = EventLogSession("t", log)
    assert await fork.get_items() == [*FIRST, *SECOND]
    assert await fork.get_items(2) == SECOND
    (event, *_) = [each async for each in log.read("t", types=["session_forked"])]
    assert len(event.data or b"") < 500
    assert await log.version("s") == before + 1
    (noted,) = [each async for each in log.read("s", types=["fork_created"])]
    assert noted.version == before + 1
    row = await log.session("t")
    assert (row["user_id"], row["item_count"], row["turn_count"]) == ("alice", 6, 2)
    assert row["metadata"] == {"plan": "pro"}
    assert row["title"] == "what is the weather?"
    await sound(log)


async def test_each_goes_its_own_way(log: ConversationLog, session: EventLogSession) -> None:
    await session.fork("t")
    fork = EventLogSession("t", log)
    await fork.add_items([user("thanks"), answer("gladly")])
    await session.pop_item()
    await session.add_items([answer("snow")])
    assert await fork.get_items() == [*FIRST, *SECOND, user("thanks"), answer("gladly")]
    assert (await session.get_items())[-1] == answer("snow")
    assert await fork.undo_turn() == [user("thanks"), answer("gladly")]
    assert await fork.undo_turn() == SECOND
    assert await fork.redo() == SECOND
    assert await fork.retry(1, "again") == "what is the weather?"
    assert await fork.get_items() == []
    await fork.switch_to_branch("main")
    assert [turn["content"] for turn in await fork.get_conversation_turns()] == [
        "what is the weather?",
        "and tomorrow?",
    ]
    await fork.create_branch_from_turn(2, "earlier")
    assert await fork.get_items() == FIRST
    assert await fork.pop_item() == answer("it is sunny")
    await fork.switch_to_branch("main")
    assert len(await fork.get_items()) == 6
    await sound(log)


async def test_deleting_or_clearing_the_source_leaves_the_fork_whole(
    log: ConversationLog, session: EventLogSession
) -> None:
    await session.fork("t")
    await session.clear_session()
    assert (await log.erase(popped=True, dry_run=True)).events == 0
    await session.delete_session()
    fork = EventLogSession("t", log)
    assert await fork.get_items() == [*FIRST, *SECOND]
    (hit,) = await log.find_items("it is sunny")
    assert (hit["session_id"], hit["turn"], hit["is_active"]) == ("t", 1, True)
    await sound(log)


async def test_erasing_the_source_leaves_placeholders_in_its_forks(
    log: ConversationLog, session: EventLogSession
) -> None:
    await session.fork("t")
    fork = EventLogSession("t", log)
    await fork.add_items([user("thanks")])
    await fork.fork("u")
    dry = await log.erase(session_id="s", dry_run=True)
    assert dry.forks == ("t", "u")
    erased = await log.erase(session_id="s", reason="asked to")
    assert (erased.events, erased.forks) == (dry.events, dry.forks)
    items: Any = await fork.get_items()
    assert [item.get("content") for item in items if "content" in item] == [
        *("[redacted]" for _ in range(4)),
        "thanks",
    ]
    assert items[1:3] == [call("c"), output("c", "[redacted]")]
    assert await EventLogSession("u", log).get_items() == items
    assert [row["is_redacted"] for row in await fork.get_transcript()] == [True] * 6 + [False]
    assert await fork.get_items(as_of=await log.version("t")) == items
    assert (await log.find_items("sunny", include_removed=True)).rows == ()
    assert [row["session_id"] for row in await log.sessions()] == ["u", "t"]
    assert (await log.erase(session_id="s")).events == 0
    await log.erase(session_id="t")
    assert await EventLogSession("u", log).get_items() == [*items[:-1], user("[redacted]")]
    await sound(log)


async def test_erasing_the_fork_does_not_touch_the_source(
    log: ConversationLog, session: EventLogSession
) -> None:
    await session.fork("t")
    await EventLogSession("t", log).add_items([user("thanks")])
    assert (await log.erase(session_id="t")).forks == ()
    assert await session.get_items() == [*FIRST, *SECOND]
    await sound(log)


async def test_the_usage_stays_with_the_source(
    log: ConversationLog, session: EventLogSession
) -> None:
    await session.fork("t")
    fork = EventLogSession("t", log)
    assert await fork.get_session_usage() is None
    await fork.store_run_usage(ran(5))
    usage: Any = await fork.get_turn_usage(2)
    assert usage["total_tokens"] == 5
    assert (await log.usage())["total_tokens"] == 25
    assert await fork.get_tool_usage() == [("look_up", 1, 1)]
    (tools,) = await log.tools()
    assert tools["calls"] == 1


async def test_a_redaction_in_the_source_is_one_in_the_fork_and_its_past(
    log: ConversationLog, session: EventLogSession
) -> None:
    await session.fork("t")
    fork = EventLogSession("t", log)
    first = (await session.get_transcript())[0]
    with pytest.raises(ItemNotFoundError):
        await fork.redact(first["position"], first["index"])
    await session.redact(first["position"], first["index"])
    assert (await fork.get_items())[0] == user("[redacted]")
    assert (await fork.get_items(as_of=1))[0] == user("[redacted]")
    await log.erase(popped=True)
    assert (await fork.get_items())[1:] == [*FIRST[1:], *SECOND]
    await sound(log)


async def test_a_transcript_says_when_an_item_was_said_and_since_when_the_fork_has_it(
    log: ConversationLog, session: EventLogSession
) -> None:
    await session.create_branch("draft")
    await session.add_items([user("more")])
    await session.fork("t")
    fork = EventLogSession("t", log)
    await fork.add_items([answer("gladly")])
    rows, theirs = await fork.get_transcript(), await session.get_transcript()
    assert [row["time"] for row in rows[:-1]] == [row["time"] for row in theirs]
    assert [row["version"] for row in rows] == [1] * 7 + [await log.version("t")]
    assert {row["branch_id"] for row in rows} == {"main"}


async def test_items_are_found_in_the_session_that_is_searched(
    log: ConversationLog, session: EventLogSession
) -> None:
    await session.fork("t", user_id="bob")
    fork = EventLogSession("t", log)
    await fork.create_branch_from_turn(2, "b")
    for filters, names, branches in (
        ({}, ["s"], [["main"]]),
        ({"session_id": "t"}, ["t"], [["main", "b"]]),
        ({"user_id": "bob"}, ["t"], [["main", "b"]]),
        ({"session_id": "t", "branch_id": "b"}, ["t"], [["main", "b"]]),
        ({"session_id": "t", "branch_id": "c"}, [], []),
    ):
        for text in ("weather", "we"):
            hits = await log.find_items(text, **filters)  # type: ignore[arg-type]
            hits_of_user = [hit for hit in hits if hit["type"] == "user"]
            assert [hit["session_id"] for hit in hits_of_user] == names
            assert [hit["branch_ids"] for hit in hits_of_user] == branches
    assert {row["session_id"] for row in await log.sessions(text="weather")} == {"s", "t"}


async def test_a_fork_is_exported_and_imported_with_its_items_as_its_own(
    log: ConversationLog, session: EventLogSession, tmp_path: Path
) -> None:
    await session.fork("t")
    fork = EventLogSession("t", log)
    await fork.undo_turn()
    await fork.create_branch_from_turn(1, "b", include_turn=True)
    await fork.pop_item()
    await fork.switch_to_branch("main")
    await fork._atomic_replace_items([user("short")])
    first = (await session.get_transcript())[0]
    await session.redact(first["position"], first["index"])
    lines = [line async for line in export_lines(log, ["t"])]
    async with ConversationLog.open(tmp_path / "copy.db", search=True) as copy:
        source = [line.encode() for line in lines]
        assert [each.outcome async for each in import_lines(copy, source)] == ["imported"]
        assert [line async for line in export_lines(copy)] == lines
        moved = EventLogSession("t", copy)
        for branch_id in ("main", "b"):
            assert await moved.get_items(branch_id=branch_id) == await fork.get_items(
                branch_id=branch_id
            )
        assert "[redacted]" in repr(await moved.get_items(branch_id="b"))
        await sound(copy)


async def test_a_fork_that_changed_its_items_is_exported_with_references_to_its_own(
    log: ConversationLog, session: EventLogSession, tmp_path: Path
) -> None:
    await session.fork("t")
    fork = EventLogSession("t", log)
    await fork.add_items([user("a mistake")])
    await fork.pop_item()
    assert (await log.erase(popped=True)).events == 1
    last = (await fork.get_transcript())[-1]
    event = ItemsReplaced(first_item=ItemRef(last["position"], last["index"]), items=[user("snow")])
    await log.append("t", event, branch_id="main")
    lines = [line async for line in export_lines(log, ["t"])]
    async with ConversationLog.open(tmp_path / "copy.db", search=True) as copy:
        _ = [each async for each in import_lines(copy, [line.encode() for line in lines])]
        shown = [*FIRST, SECOND[0], user("snow")]
        assert await EventLogSession("t", copy).get_items() == shown
        await sound(copy)


async def test_a_log_with_forks_is_copied_to_another_engine(
    session: EventLogSession, log: ConversationLog, tmp_path: Path
) -> None:
    await session.fork("t")
    fork = EventLogSession("t", log)
    await fork.pop_item()
    await fork.add_items([user("thanks")])
    await fork.fork("u")
    target = tmp_path / "copy.db"
    async with EventLog.open(target) as copy:
        await copy_log(log, copy)
    async with ConversationLog.open(target, search=True) as copied:
        for name in "stu":
            mine, theirs = EventLogSession(name, copied), EventLogSession(name, log)
            assert await mine.get_items() == await theirs.get_items()
        await sound(copied)


async def test_a_fork_belongs_to_who_is_given(
    log: ConversationLog, session: EventLogSession
) -> None:
    await session.fork("t", user_id="bob", metadata={})
    row = await log.session("t")
    assert (row["user_id"], row["metadata"]) == ("bob", None)
    with pytest.raises(SessionOwnerError):
        await EventLogSession("t", log, user_id="alice").get_items()
    with pytest.raises(SessionOwnerError):
        await EventLogSession("s", log, user_id="mallory").fork("u")
    assert await log.version("u") == 0


async def test_what_cannot_be_forked_is_refused_and_nothing_is_written(
    log: ConversationLog, session: EventLogSession
) -> None:
    await EventLogSession("other", log).add_items([user("mine")])
    await log.delete_session("other")
    head = await log.head()
    with pytest.raises(SessionExistsError):
        await session.fork("s")
    with pytest.raises(SessionExistsError):
        await session.fork("other")
    with pytest.raises(InvalidEventError):
        await session.fork("")
    with pytest.raises(BranchNotFoundError):
        await session.fork("t", "nowhere")
    with pytest.raises(BranchNotFoundError):
        await log.fork("s", "t", branch_id="nowhere")
    with pytest.raises(SessionNotFoundError):
        await log.fork("none such", "t")
    with pytest.raises(SessionDeletedError):
        await log.fork("other", "t")
    assert await log.head() == head


async def test_a_large_branch_is_forked_by_several_events_and_an_empty_one_by_one(
    log: ConversationLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forking, "MAX_EVENT_ITEMS", 4)
    session = EventLogSession("s", log)
    await session.add_items([user("hello")])
    await session.pop_item()
    await session.fork("empty")
    assert await EventLogSession("empty", log).get_items() == []
    assert await log.version("empty") == 1
    items = [user(f"{number}") for number in range(9)]
    await session.add_items(items)
    assert (await log.fork("s", "t"))["items"] == 9
    assert await log.version("t") == 3
    fork = EventLogSession("t", log)
    assert await fork.get_items() == items
    await fork.add_items(items)
    await fork.fork("u")
    assert await EventLogSession("u", log).get_items() == [*items, *items]
    await sound(log)


async def test_an_erased_replacement_in_a_fork_is_exported_with_the_item_that_it_replaced(
    log: ConversationLog, session: EventLogSession, tmp_path: Path
) -> None:
    await session.fork("t")
    fork = EventLogSession("t", log)
    last = (await fork.get_transcript())[-1]
    first = ItemRef(last["position"], last["index"])
    await log.append("t", ItemsReplaced(first_item=first, items=[user("a")]), branch_id="main")
    await fork.pop_item()
    await log.append("t", ItemsAdded(items=[user("b")]), branch_id="main")
    assert (await log.erase(popped=True)).events == 1
    lines = [line async for line in export_lines(log, ["t"])]
    async with ConversationLog.open(tmp_path / "copy.db") as copy:
        _ = [each async for each in import_lines(copy, [line.encode() for line in lines])]
        assert [line async for line in export_lines(copy)] == lines
        assert await EventLogSession("t", copy).get_items() == await fork.get_items()


async def test_a_fork_of_items_that_a_program_blanked_is_exported_with_their_kinds(
    tmp_path: Path,
) -> None:
    path = tmp_path / "talk.db"
    await asyncio.to_thread(filled, path)
    async with ConversationLog.open(path) as log:
        await log.fork("s", "t")
        await log.write(
            lambda tx: tx.execute("UPDATE events SET data = NULL WHERE type = 'items_added'")
        )
        lines = [line async for line in export_lines(log, ["t"])]
    async with ConversationLog.open(tmp_path / "copy.db") as copy:
        _ = [each async for each in import_lines(copy, [line.encode() for line in lines])]
        items: Any = await EventLogSession("t", copy).get_items()
        assert [item.get("role", item.get("type")) for item in items] == [
            *("user", "function_call", "function_call_output", "assistant"),
            *("user", "assistant"),
        ]


async def test_only_redactions_of_its_own_items_show_in_the_past_of_a_fork(
    log: ConversationLog, session: EventLogSession
) -> None:
    await session.fork("t")
    await session.add_items([user("later")])
    last = (await session.get_transcript())[-1]
    await session.redact(last["position"], last["index"])
    fork = EventLogSession("t", log)
    assert await fork.get_items(as_of=1) == [*FIRST, *SECOND]


async def test_a_source_that_is_erased_in_several_steps_leaves_its_forks_whole(
    log: ConversationLog, session: EventLogSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(eraser, "PAGE_EVENTS", 1)
    first = (await session.get_transcript())[0]
    await session.redact(first["position"], first["index"])
    await session.fork("t")
    await log.erase(session_id="s")
    items: Any = await EventLogSession("t", log).get_items()
    assert items[0] == user("[redacted]")
    assert items[1] == call("c")
    (row, *_) = await EventLogSession("t", log).get_transcript()
    assert row["is_redacted"]
    withheld = [each async for each in log.read("s", types=["items_withheld"])]
    assert len(withheld) == 2
    shown = await log.query(lambda tx: Paths.read(tx, "s").redactions)
    assert sum(map(len, shown.values())) == 7
    await sound(log)


# -- on the command line ------------------------------------------------------------------------


def filled(path: Path) -> None:
    async def fill() -> None:
        session = AdvancedSQLiteSession("s", path, user_id="alice")
        with recording(actor="writer"):
            await session.add_items(FIRST)
            await session.add_items(SECOND)
        session.close()

    asyncio.run(fill())


def test_the_command_forks_and_every_command_shows_the_fork(tmp_path: Path) -> None:
    path = tmp_path / "talk.db"
    filled(path)
    made = one(run("fork", path, "s", "t", "--user", "bob", "--json"), "fork")
    assert (made["session_id"], made["items"], made["turns"]) == ("t", 6, 2)
    assert "forked 'main' of session 't' into session 'u'" in run("fork", path, "t", "u").stdout
    again = run("fork", path, "s", "t")
    assert (again.exit_code, "exists, or existed" in again.stderr) == (2, True)
    for name in "tu":
        shown = run("show", path, name)
        assert shown.exit_code == 0
        assert "and tomorrow?" in shown.stdout
        assert len(documents(run("show", path, name, "--as-of", "1", "--json"), "item")) == 6
    audit = run("audit", path)
    assert audit.exit_code == 0
    told = " ".join(audit.stdout.split())
    assert "forked main into session 't'" in told
    assert "forked from session 's', main, with 6 items" in told
    for words in (
        ("doctor", path),
        ("replay", path, "--check"),
        ("export", path, "--session", "t", "--format", "markdown"),
        ("export", path, "--session", "t", "--format", "html"),
    ):
        result = run(*words)
        assert result.exit_code == 0, result.output
    assert "and tomorrow?" in run("export", path, "--session", "t", "--format", "html").stdout
    erased = run("erase", path, "--session", "s", "--dry-run")
    assert "placeholders take the place of the erased items in the forks 't', 'u'" in erased.stdout
    assert run("erase", path, "--session", "s", "--yes").exit_code == 0
    assert run("doctor", path).exit_code == 0
    assert "and tomorrow?" not in run("export", path).stdout
    page = run("export", path, "--session", "t", "--format", "html").stdout
    assert "[redacted]" in page
    assert b"and tomorrow?" not in path.read_bytes()


async def test_a_program_that_appends_by_itself_can_fork_too(log: ConversationLog) -> None:
    await log.append("s", ItemsAdded(items=[user("hello")]), branch_id="main")
    await log.fork("s", "t")
    assert await EventLogSession("t", log).get_items() == [user("hello")]
