"""
Every operation that reaches the file, one line each, and the conversation that they are called on.

A new public method fails ``test_the_table_of_operations_is_complete`` until it has its line here.
"""

from __future__ import annotations

import asyncio
import shutil
from contextlib import aclosing
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from agents_eventlog import (
    AdvancedSQLiteSession,
    Budget,
    ConversationLog,
    adapters,
    eventlog,
    projections,
)
from agents_eventlog.adapters.conversations import turns
from agents_eventlog.adapters.conversations.commands import SessionContext
from agents_eventlog.adapters.openai_agents.migration.import_file import import_file
from agents_eventlog.eventlog import (
    ItemsAdded,
    SigningKey,
    export_lines,
    generate_signing_key,
    import_lines,
)
from tests.faults.support import answer, batch, ran, user

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path


class Stage(NamedTuple):
    """A conversation with turns, branches, usage and a pop; its session stands on ``draft``."""

    path: Path
    session: AdvancedSQLiteSession
    log: ConversationLog
    run: Any
    lines: Path


SIGNING_KEY = SigningKey(generate_signing_key())

Call: TypeAlias = "Callable[[Stage], Awaitable[Any]]"

WRITES: dict[str, Call] = {
    "session.add_items": lambda s: s.session.add_items(batch("new")),
    "session.add_items on a shared end": lambda s: s.session.add_items([answer("one more")]),
    "session.pop_item": lambda s: s.session.pop_item(),
    "session.undo_turn": lambda s: s.session.undo_turn(),
    "session.redo": lambda s: s.log.write(lambda tx: turns.redo(tx, SessionContext("undone"))),
    "session.redact": lambda s: redact_first(s.session),
    "session.clear_session": lambda s: s.session.clear_session(),
    "session.create_branch": lambda s: s.session.create_branch("new"),
    "session.create_branch_from_turn": lambda s: s.session.create_branch_from_turn(2, "new"),
    "session.create_branch_from_content": lambda s: s.session.create_branch_from_content(
        "two", "new"
    ),
    "session.retry": lambda s: s.session.retry(2, "new"),
    "session.edit": lambda s: s.session.edit(2, "two, please", "new"),
    "session.fork": lambda s: s.session.fork("new"),
    "session.switch_to_branch": lambda s: s.session.switch_to_branch("main"),
    "session.delete_branch": lambda s: s.session.delete_branch("draft", force=True),
    "session.store_run_usage": lambda s: s.session.store_run_usage(s.run),
    "session.set_metadata": lambda s: s.session.set_metadata({"plan": "pro"}),
    "session.update_metadata": lambda s: s.session.update_metadata({"plan": "pro"}),
    "session.set_title": lambda s: s.session.set_title("Pizza"),
    "session.delete_session": lambda s: s.session.delete_session(),
    "session.restore_session": lambda s: s.session.restore_session("gone"),
    "session._atomic_replace_items": lambda s: s.session._atomic_replace_items([user("short")]),
    "session._get_compaction_snapshot": lambda s: compact(s.session),
    "log.append": lambda s: s.log.append(
        "s", [ItemsAdded(items=batch("a")), ItemsAdded(items=batch("b"))], branch_id="main"
    ),
    "log.append with a key": lambda s: s.log.append(
        "s", ItemsAdded(items=batch("a")), branch_id="main", idempotency_key="k"
    ),
    "log.fork": lambda s: s.log.fork("s", "new", branch_id="main", user_id="bob"),
    "log.redact": lambda s: s.log.redact(2, 0, reason="asked for"),
    "log.delete_session": lambda s: s.log.delete_session("other"),
    "log.delete_sessions": lambda s: s.log.delete_sessions(user_id="bob", dry_run=False),
    "log.restore_session": lambda s: s.log.restore_session("gone"),
    "log.reprice": lambda s: s.log.reprice(prices=lambda *_: 1.5, session_id="s"),
    "log.write": lambda s: s.log.write(
        lambda tx: eventlog.append(tx, "s", ItemsAdded(items=batch("a")), branch_id="main")
    ),
    "eventlog.append": lambda s: s.log.write(
        lambda tx: eventlog.append(tx, "t", ItemsAdded(items=batch("a")), branch_id="main")
    ),
    "eventlog.import_lines": lambda s: everything(
        import_lines(s.log, s.lines.read_bytes().splitlines(keepends=True))
    ),
    "adapters.import_file": lambda s: everything(import_file(s.log, s.lines)),
}

READS: dict[str, Call] = {
    "session.get_items": lambda s: s.session.get_items(),
    "session.get_items of the past": lambda s: s.session.get_items(as_of=4),
    "session.list_branches": lambda s: s.session.list_branches(),
    "session.branch_tree": lambda s: s.session.branch_tree(),
    "session.compare_branches": lambda s: s.session.compare_branches("main", "draft"),
    "session.siblings": lambda s: s.session.siblings(3),
    "session.get_transcript": lambda s: s.session.get_transcript(),
    "session.get_current_turn": lambda s: s.session.get_current_turn(),
    "session.get_conversation_turns": lambda s: s.session.get_conversation_turns(),
    "session.find_turns_by_content": lambda s: s.session.find_turns_by_content("two"),
    "session.get_conversation_by_turns": lambda s: s.session.get_conversation_by_turns(),
    "session.get_tool_usage": lambda s: s.session.get_tool_usage(),
    "session.get_session_usage": lambda s: s.session.get_session_usage(),
    "session.get_turn_usage": lambda s: s.session.get_turn_usage(),
    "session.get_usage_stats": lambda s: s.session.get_usage_stats(),
    "session.list_sessions": lambda s: s.session.list_sessions(),
    "session.get_metadata": lambda s: s.session.get_metadata(),
    "session.state": lambda s: s.session.state(),
    "log.read": lambda s: everything(s.log.read("s", limit=3)),
    "log.subscribe": lambda s: first(s.log.subscribe("s")),
    "session.find_items": lambda s: s.session.find_items("one"),
    "log.find_items": lambda s: s.log.find_items("other"),
    "projections.kept": lambda s: s.log.query(lambda tx: sorted(projections.kept(tx).by_name)),
    "log.tools": lambda s: s.log.tools(),
    "log.census": lambda s: s.log.census(),
    "log.timeline": lambda s: s.log.timeline("s"),
    "log.outline": lambda s: s.log.outline("s"),
    "log.branch_usage": lambda s: s.log.branch_usage("s"),
    "log.places_of": lambda s: s.log.places_of(2, 0),
    "log.sessions": lambda s: s.log.sessions(),
    "log.session": lambda s: s.log.session("s"),
    "log.budget_usage": lambda s: s.log.budget_usage(Budget(tokens=100, per=("user", "day"))),
    "log.usage": lambda s: s.log.usage("session"),
    "log.version": lambda s: s.log.version("s"),
    "log.head": lambda s: s.log.head(),
    "log.verify": lambda s: s.log.verify(),
    "log.verify_session": lambda s: s.log.verify_session("s"),
    "log.sign": lambda s: s.log.sign(SIGNING_KEY),
    "log.prove": lambda s: s.log.prove("s"),
    "log.prove_consistency": lambda s: prove_consistency(s.log),
    "log.query": lambda s: s.log.query(lambda tx: tx.all("SELECT * FROM items")),
    "eventlog.export_lines": lambda s: everything(export_lines(s.log)),
    "log.export_user": lambda s: everything(s.log.export_user("alice")),
    "log.retain to look": lambda s: s.log.retain(
        delete_after=timedelta(days=90), erase_after=timedelta(days=30)
    ),
    "log.erase to look": lambda s: s.log.erase(popped=True, dry_run=True),
    "projections.items_as_of": lambda s: projections.items_as_of(s.log, "s", 4),
    "projections.replay": lambda s: asyncio.to_thread(
        projections.replay, s.log, projections.default().named([])
    ),
    "projections.replay to check": lambda s: asyncio.to_thread(
        projections.replay, s.log, projections.default().named([]), check=True
    ),
}
"""What changes nothing: a replay gives the tables that were there."""

OPERATIONS = WRITES | READS

TELLS_OTHERWISE = {"session.store_run_usage", "log.verify", "log.verify_session"}
"""What does not raise: a run's usage that cannot be stored is logged, and damage is what verify finds."""

ELSEWHERE = {
    "session.close": "writes nothing",
    "log.close": "writes nothing",
    "log.join": "in test_opening_faults",
    "log.backup": "copies the file: in test_backup",
    "log.erase": "in test_erasing_faults",
    "session.exclusive": "writes a lease, no event: in test_leases",
    "log.open": "in test_opening_faults",
    "log.open_sync": "in test_opening_faults",
    "adapters.export_sdk_file": "only reads the log: in test_export_sdk",
    "eventlog.check_proof": "reads no file: in tests/proofs",
    "eventlog.check_consistency": "reads no file: in tests/proofs",
    "eventlog.generate_signing_key": "reads no file: in tests/proofs",
    "eventlog.configure": "sets numbers in memory",
    "eventlog.generate_root_key": "makes a text",
    "eventlog.recording": "binds values in memory",
    "projections.default": "makes objects",
}


async def everything(found: AsyncIterator[Any]) -> list[Any]:
    """Return all that an iterator gives."""
    return [one async for one in found]


async def first(found: Any) -> Any:
    """Return the first thing that a subscription gives."""
    async with aclosing(found):
        return await anext(found)


async def compact(session: AdvancedSQLiteSession) -> bool:
    """Replace the newest item of a branch, as the SDK's compaction does."""
    snapshot = await session._get_compaction_snapshot(2)
    assert snapshot is not None
    return await snapshot.replace_suffix(1, [user("short")])


async def prove_consistency(log: ConversationLog) -> str:
    """Prove that the log contains the head of now."""
    return await log.prove_consistency(await log.sign(SIGNING_KEY))


async def redact_first(session: AdvancedSQLiteSession) -> Any:
    """Redact the first item of a branch."""
    first = (await session.get_transcript())[0]
    return await session.redact(first["position"], first["index"])


def public_names() -> set[str]:
    """Return what a user can call that may reach the file, as ``session.x``, ``log.x``, ``package.x``."""
    names = set()
    for prefix, kind in (("session", AdvancedSQLiteSession), ("log", ConversationLog)):
        for name in dir(kind):
            if not name.startswith("_") and callable(getattr(kind, name)):
                names.add(f"{prefix}.{name}")
    for package in (eventlog, projections, adapters):
        for name in package.__all__:
            found = getattr(package, name)
            if callable(found) and not isinstance(found, type):
                names.add(f"{package.__name__.removeprefix('agents_eventlog.')}.{name}")
    return names


async def make_template(path: Path) -> None:
    """Make the file that stages are copies of, and beside it another history, as lines."""
    session = AdvancedSQLiteSession("s", path, user_id="alice", search=True)
    await furnish(session)
    undone = AdvancedSQLiteSession("undone", path)
    await undone.add_items(batch("undone"))
    await undone.undo_turn()
    undone.close()
    others = [AdvancedSQLiteSession(name, path, user_id="bob") for name in ("other", "gone")]
    for other in others:
        await other.add_items(batch("other"))
    await others[1].delete_session()
    for opened in (session, *others):
        opened.close()
    elsewhere = AdvancedSQLiteSession("elsewhere")
    await furnish(elsewhere)
    lines = await everything(export_lines(elsewhere.log))
    lines_of(path).write_text("".join(f"{line}\n" for line in lines))
    elsewhere.close()


async def furnish(session: Any) -> None:
    """Give a session turns, branches, usage and a pop; it stands on ``draft`` then."""
    await session.add_items([user("one"), answer("first")])
    await session.add_items([user("two"), call("look"), answer("second")])
    await session.store_run_usage(ran(20))
    await session.add_items([user("three"), answer("third")])
    await session.create_branch_from_turn(3, "draft")
    await session.add_items([user("three again"), answer("third again"), user("popped")])
    await session.store_run_usage(ran(30))
    await session.pop_item()


def call(tool: str) -> Any:
    """Return an item that calls a tool."""
    return {"type": "function_call", "name": tool, "call_id": "c", "arguments": "{}"}


def lines_of(path: Path) -> Path:
    """Return where the history to be imported stands."""
    return path.with_name("elsewhere.jsonl")


def enter(template: Path, path: Path) -> Stage:
    """Open a copy of the template."""
    shutil.copy(template, path)
    return enter_again(path, lines_of(template))


def enter_again(path: Path, lines: Path) -> Stage:
    """Open a stage's file as it stands."""
    session = AdvancedSQLiteSession("s", path, branch_id="draft", search=True)
    log = session.log
    assert isinstance(log, ConversationLog)
    return Stage(path, session, log, ran(40), lines)
