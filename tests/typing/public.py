"""
Programs of users as their type checker sees them. mypy checks this file (`make lint`); it is never run.

``assert_type`` holds a result to the type that the documentation names; an ``ignore`` that mypy does not
need is an error, and so says what is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Literal, assert_type

from agents import Agent, Runner, TResponseInputItem
from agents.memory import Session

import agents_eventlog
from agents_eventlog import (
    AdvancedSQLiteSession,
    ConversationLog,
    EventLogSession,
    OnlyPrices,
    Price,
    UsageHooks,
    export_sdk_file,
    import_file,
    recording,
    replay,
)
from agents_eventlog.adapters import (
    BranchComparison,
    BranchNode,
    BranchRow,
    Deletion,
    Fork,
    ItemHit,
    Redaction,
    RepriceResult,
    Retention,
    SDKExport,
    SearchResults,
    SessionRow,
    SessionUsage,
    Sibling,
    StoredMetadata,
    ToolCounts,
    TranscriptRow,
)
from agents_eventlog.eventlog import (
    AppendResult,
    EventLog,
    Head,
    ImportResult,
    ItemsAdded,
    RecordedEvent,
    Transaction,
    Verification,
    append,
    export_lines,
)
from agents_eventlog.projections import (
    ErasureResult,
    Projection,
    Projections,
    ReplayResult,
    items_as_of,
)
from agents_eventlog.testing import ScriptedModel, call, reply


async def a_session_is_the_sdk_s(own: EventLogSession) -> None:
    session = AdvancedSQLiteSession("user_123", "conversations.db")
    by_protocol: list[Session] = [session, own]
    agent = Agent(name="Assistant", model=ScriptedModel([call("look"), reply("Gladly.")]))
    await Runner.run(agent, "hello", session=session, hooks=UsageHooks(session))
    await Runner.run(agent, "hello", session=own)
    Runner.run_streamed(agent, "hello", session=by_protocol[0])


async def what_a_session_returns(session: AdvancedSQLiteSession) -> None:
    assert_type(await session.get_items(limit=5), list[TResponseInputItem])
    assert_type(await session.get_items(as_of=3), list[TResponseInputItem])
    assert_type(await session.pop_item(), TResponseInputItem | None)
    assert_type(await session.create_branch_from_turn(2), str)
    assert_type(await session.list_branches(), list[BranchRow])
    assert_type(await session.branch_tree(), list[BranchNode])
    assert_type(await session.siblings(2), list[Sibling])
    assert_type(await session.get_transcript(last_turn=2), list[TranscriptRow])
    assert_type((await session.get_transcript())[0]["actor"], str | None)
    assert_type(await session.compare_branches("main", "b"), BranchComparison)
    assert_type(await session.retry(2), str | list[TResponseInputItem])
    assert_type(await session.edit(2, "text"), str | list[TResponseInputItem])
    assert_type(await session.undo_turn(), list[TResponseInputItem])
    assert_type(await session.redo(), list[TResponseInputItem])
    assert_type(await session.fork("new", user_id="bob"), Fork)
    assert_type(await session.redact(3, 0, reason="asked for"), Redaction)
    (await session.siblings(2))[0]["colour"]  # type: ignore[typeddict-item]
    assert_type(await session.get_session_usage(), SessionUsage | None)
    assert_type(await session.find_items("pizza"), SearchResults)
    assert_type(session.log, ConversationLog)
    assert_type(await session.state(), Literal["active", "deleted", "erased", "unknown"])
    assert_type(await session.get_metadata(), StoredMetadata)
    assert_type((await session.list_sessions())[0]["title"], str | None)
    (await session.get_metadata())["userid"]  # type: ignore[typeddict-item]
    assert_type(session.sync.get_items(limit=5), list[TResponseInputItem])
    assert_type(session.sync.add_items([]), None)
    assert_type(session.sync.fork("new", user_id="bob"), Fork)
    assert_type(session.sync.find_items("pizza", role="user"), SearchResults)
    session.sync.get_items(count=5)  # type: ignore[call-arg]
    async with session as entered:
        assert_type(entered, AdvancedSQLiteSession)
    async with session.exclusive(wait_seconds=1.5) as nothing:
        assert_type(nothing, None)
    await session.list_sessions(order_by="title")  # type: ignore[arg-type]
    await session.list_sessions(colour="red")  # type: ignore[call-arg]


async def what_a_log_returns(path: str, when: datetime) -> None:
    async with ConversationLog.open(path, search=True) as log:
        assert_type(log, ConversationLog)
        assert_type(await log.find_items("pizza", since=when), SearchResults)
        assert_type((await log.find_items("pizza"))[0], ItemHit)
        assert_type(await log.tools(), list[ToolCounts])
        assert_type(await log.session("s"), SessionRow)
        assert_type(await log.reprice(prices=OnlyPrices({"m": Price(1, 2)})), RepriceResult)
        assert_type(await log.delete_sessions(updated_before=when), Deletion)
        assert_type(await log.retain(delete_after=timedelta(days=90)), Retention)
        assert_type(await log.erase(session_id="s"), ErasureResult)
        assert_type(await log.fork("s", "new"), Fork)
        assert_type(await log.redact(3, 0, dry_run=True), Redaction)
        assert_type(await items_as_of(log, "s", 3), list[Any])
        async for line in log.export_user("alice"):
            assert_type(line, str)
        async for imported in import_file(log, "old.db", on_conflict="rename"):
            assert_type(imported, ImportResult)
        assert_type(await export_sdk_file(log, "sdk.db", ["s"]), SDKExport)
        assert_type(replay(log, [Words()]), list[ReplayResult])


async def what_events_return(path: str) -> None:
    async with EventLog.open(path, projections=Projections(Words())) as log:
        with recording(actor="alice"):
            appended = await log.append("s", [ItemsAdded(items=["hi"])], expected_version="new")
        assert_type(appended, AppendResult)
        assert_type(await log.version("s"), int)
        assert_type(await log.head(), Head)
        assert_type(await log.verify(), Verification)
        async for recorded in log.read(session_id="s"):
            assert_type(recorded, RecordedEvent)
        async for line in export_lines(log):
            assert_type(line, str)
        assert_type(await log.write(count), int)
        assert_type(await log.query(lambda tx: "a result of any type"), str)
        await log.append("s", [ItemsAdded(items=[])], expected_version="old")  # type: ignore[arg-type]


def count(tx: Transaction) -> int:
    assert_type(append(tx, "s", ItemsAdded(items=["hi"])), RecordedEvent)
    return len(tx.all("SELECT 1 FROM events"))


class Words(Projection):
    """A projection of a user's own."""

    name = "words"
    version = 1
    schema = ("CREATE TABLE words (word TEXT PRIMARY KEY) STRICT",)
    handles = (ItemsAdded,)

    def apply(self, tx: Transaction, events: Sequence[RecordedEvent]) -> None:
        tx.executemany("INSERT INTO words VALUES (?)", [(str(each.position),) for each in events])


prices: Mapping[str, Price] = {"gpt-5": Price(1.25, 10)}
opened: Callable[..., EventLogSession] = AdvancedSQLiteSession
priced = AdvancedSQLiteSession("user_123", prices=prices, on_concurrent_run="reject")
AdvancedSQLiteSession("user_123", on_concurrent_run="wait")  # type: ignore[arg-type]
error: type[ValueError] = agents_eventlog.eventlog.errors.SessionNotFoundError
